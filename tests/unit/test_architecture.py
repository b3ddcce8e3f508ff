"""The shape of the package, read from its source: who imports what, who catches what, what is said."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mpims

PACKAGE = Path(mpims.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE.parent)) for path in FILES]

LAYERS = [
    ["core", "errors", "streams"],
    ["job", "outputs", "options", "parameters", "jobfile", "loading", "digest", "processes", "world"],
    ["runtime", "storage", "report"],
    [
        "session",
        "leading",
        "farm",
        "outcome",
        "simulator",
        "executor",
        "launch",
        "supervise",
        "doctor",
        "drill",
        "pages",
        "record",
        "slurm",
        "timelimit",
    ],
    ["cli"],
    ["__main__"],
]
"""From the bottom up; a module imports from its own layer and those below."""

CIRCLES = {
    ("mpims/executor/calls.py", "mpims.executor.spawned"): "what a child begins with makes calls too"
}
"""Where a module imports, when it needs it, one that imports it, and why."""

PURE = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "typing",
}
"""What core/ may import of the standard library: nothing that knows a clock, a file or a thread."""

IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}

CATCH_ALL = {
    ("mpims/errors.py", "describe"): "the user's exception gives its own text",
    ("mpims/errors.py", "_texts"): "the user's object gives its own text",
    ("mpims/parameters.py", "_own_hints"): "the user's annotations are evaluated",
    ("mpims/digest.py", "told"): "the user's parameters are taken apart by their own methods",
    ("mpims/loading.py", "_import_module"): "the user's module is imported",
    ("mpims/loading.py", "_run"): "the user's file is run",
    ("mpims/loading.py", "construct"): "the user's __init__ is called",
    ("mpims/loading.py", "pack_parameters"): "the user's parameters are pickled",
    ("mpims/loading.py", "make_job"): "the user's parameters are unpickled",
    ("mpims/runtime/items.py", "resolve_items"): "the user's items() is called",
    ("mpims/runtime/items.py", "items_identity"): "the user's items are taken apart by their own methods",
    ("mpims/runtime/isolation.py", "IsolatedBlocks._answered"): "the user's objects are unpickled",
    ("mpims/runtime/forkedchild.py", "run_child"): "the top of a forked child",
    ("mpims/runtime/forkedchild.py", "_prepared"): "the user's setup() is called",
    ("mpims/runtime/forkedchild.py", "_compute_block"): "the user's kernel is called, its results pickled",
    ("mpims/runtime/spawnedchild.py", "order_of_job"): "the user's class is pickled",
    ("mpims/runtime/worker.py", "Worker._begin"): "the user's setup() is called",
    ("mpims/runtime/computing.py", "Computing._compute_plain"): "the user's kernel is called",
    ("mpims/runtime/computing.py", "Computing._compute_block"): "the user's kernel is called",
    ("mpims/runtime/computing.py", "Computing._block_done"): "the user's results are packed or reduced",
    ("mpims/runtime/computing.py", "Computing._end_itemwise"): "the user's results are packed or reduced",
    ("mpims/runtime/holding.py", "Holding.send_results"): "the user's objects are pickled",
    (
        "mpims/storage/checkpoint.py",
        "Checkpoint._compact",
    ): "the user's objects are pickled by their methods",
    (
        "mpims/storage/past.py",
        "_Reader._decoded",
    ): "the user's objects are unpickled by their methods",
    ("mpims/storage/results.py", "ReduceResults.commit"): "the user's reduce function is called",
    ("mpims/storage/results.py", "write_object"): "the user's objects are pickled by their own methods",
    ("mpims/storage/results.py", "read_result"): "the user's objects are unpickled",
    ("mpims/storage/rundir.py", "read_job"): "a damaged pickle raises anything",
    ("mpims/session.py", "serve"): "it ends the other ranks, and raises again",
    ("mpims/leading.py", "telling_workers"): "it tells the other ranks, and raises again",
    ("mpims/farm.py", "Farm._run_opened"): "it writes the record, and raises again",
    ("mpims/farm.py", "Farm._finish"): "the user's finish() is called",
    ("mpims/record.py", "_item_text"): "the user's item gives its own text",
    ("mpims/record.py", "_digest"): "the user's result is taken apart by its own methods",
    ("mpims/simulator/sidebyside.py", "compute_all"): "it ends the processes, and raises again",
    ("mpims/cli/replay.py", "replay_command"): "the user's setup() and kernel are called",
    ("mpims/cli/main.py", "_run"): "the top of the command line",
    ("mpims/cli/script.py", "_run"): "the user's program is run",
    ("mpims/executor/blame.py", "_travels"): "the user's objects are pickled",
    ("mpims/executor/cargo.py", "_dumps"): "the user's objects are pickled",
    ("mpims/executor/cargo.py", "pack_error"): "the user's exception is pickled and unpickled",
    ("mpims/executor/cargo.py", "_load_error"): "the user's exception is unpickled",
    ("mpims/executor/futures.py", "TaskFuture.delivered"): "the user's objects are unpickled",
    ("mpims/executor/futures.py", "TaskFuture._invoke_callbacks"): "the user's callbacks are called",
    ("mpims/executor/calls.py", "Calls.compute"): "the user's functions are called",
    ("mpims/executor/calls.py", "Calls._call"): "the same",
    ("mpims/executor/calls.py", "Calls._pack"): "the user's results are pickled",
    ("mpims/executor/classes.py", "_pickle"): "the user's objects are pickled",
    ("mpims/executor/inputs.py", "chunks"): "the user's iterator",
    ("mpims/executor/calls.py", "Calls._function"): "the user's modules are imported",
    ("mpims/executor/initialized.py", "_pickle"): "the user's objects are pickled",
    ("mpims/executor/taskworker.py", "TaskWorker._begin"): "the user's initializer is called",
    ("mpims/executor/taskworker.py", "serve_tasks"): "it ends the other ranks, and raises again",
    ("mpims/executor/taskmaster.py", "TaskThread._run"): "the top of a thread",
    ("mpims/executor/helping.py", "Turns._guarded"): "it gives up the executor, and raises again",
    ("mpims/executor/pool.py", "Executor._map"): "it gives up the mapping, and raises again",
    ("mpims/executor/mapping.py", "Mapping._make_tasks"): "the user's iterator is advanced",
    ("mpims/executor/mapping.py", "Mapping.take"): "the same, in the thread that takes results in",
    ("mpims/executor/local.py", "LocalLink._start_ranks"): "it ends the ranks, and raises again",
    ("mpims/executor/local.py", "LocalLink._listen"): "the top of a thread",
}
"""Where everything may be caught, and whose code it is that may raise anything there."""

NAMELESS = {
    ("mpims/report/wording.py", "name_rank"): "it is what names them",
    ("mpims/core/policies/auto.py", "Auto.explain"): "whoever shows it adds the hosts: `with_hosts`",
    ("mpims/pages/perfetto.py", "_names"): "it stands below its host",
    ("mpims/pages/history.py", "_align"): "in place of a host that is not known",
    ("mpims/pages/assessment.py", "Assessment._about_communication"): "a time, and no rank",
    ("mpims/cli/doctor.py", "doctor_command"): "it died before it had said where it is",
    ("mpims/drill/plan.py", "check_plan"): "there is no such rank",
    ("mpims/cli/simulate.py", "parse_fail"): "ranks of a simulation",
    ("mpims/cli/drill.py", ""): "the help: rank 0 of any run",
    ("mpims/cli/main.py", ""): "the same",
    ("mpims/cli/script.py", "add_parser"): "the same",
    ("mpims/doctor/cores.py", "judge_cores"): "rank 0 of any run",
    ("mpims/slurm/script.py", "_header"): "the same",
}
"""Where a text names a rank and not its host, and why."""


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((PACKAGE.parent / name).read_text(encoding="utf-8"), name)


def module_name(name: str) -> str:
    """The dotted name of a file's module."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported_modules(name: str) -> Iterator[tuple[int, str]]:
    """The lines and dotted names of all imports in a file, those within functions included."""
    package = module_name(name) if name.endswith("__init__.py") else module_name(name).rpartition(".")[0]
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield node.lineno, home_of(base, alias.name)
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            target = node.args[0] if node.args else None
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield node.lineno, target.value


def home_of(base: str, name: str) -> str:
    """What ``from base import name`` imports: a submodule, or a public name of ours where it lives."""
    path = PACKAGE.parent.joinpath(*base.split("."), name)
    if path.is_dir() or path.with_suffix(".py").exists():
        return f"{base}.{name}"
    return mpims._HOME.get(name, base) if base == "mpims" else base


def called_name(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    function = call.func
    return getattr(function, "id", getattr(function, "attr", ""))


def layer_of(module: str) -> int:
    """The layer of a module of ours; the package itself, which imports nothing, is below all."""
    parts = module.split(".")
    if len(parts) == 1:
        return -1
    for index, names in enumerate(LAYERS):
        if parts[1] in names:
            return index
    raise AssertionError(f"{module} is in no layer: give it a place in LAYERS")


@cache
def in_type_checking(name: str) -> set[int]:
    """The lines of a file under ``if TYPE_CHECKING:``."""
    lines: set[int] = set()
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for statement in node.body:
                lines.update(range(statement.lineno, (statement.end_lineno or 0) + 1))
    return lines


# -------------------------------------------------------------------------- imports


def test_there_is_something_to_read():
    assert {"mpims/__init__.py", "mpims/core/scheduler.py", "mpims/runtime/transport/mpi.py"} <= set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("mpims/core/")])
def test_the_core_is_pure(name):
    for line, module in imported_modules(name):
        pure = module.split(".")[0] in PURE or module.startswith("mpims.core")
        assert pure, f"{name}:{line} imports {module}"
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{name}:{node.lineno} calls {node.func.id}"


def test_what_the_core_may_import_is_in_the_standard_library():
    assert sys.stdlib_module_names >= PURE
    assert PURE.isdisjoint({"time", "os", "random", "threading", "logging", "pathlib", "io", "sys"})


def test_one_file_imports_mpi4py():
    importers = {
        name for name in NAMES for _, module in imported_modules(name) if module.split(".")[0] == "mpi4py"
    }
    assert importers == {"mpims/runtime/transport/mpi.py"}


@pytest.mark.parametrize("name", NAMES)
def test_imports_go_downward(name):
    own = layer_of(module_name(name))
    exempt = in_type_checking(name) if own == -1 else set()
    for line, module in imported_modules(name):
        if module.split(".")[0] == "mpims" and line not in exempt:
            assert layer_of(module) <= own, f"{name}:{line} imports {module}, which lies above it"


def test_imports_go_in_no_circle():
    imports = {
        module_name(name): {
            module
            for line, module in imported_modules(name)
            if line not in in_type_checking(name) and (name, module) not in CIRCLES
        }
        for name in NAMES
    }
    TopologicalSorter(imports).prepare()


def test_public_names_are_listed_though_nothing_of_them_is_loaded():
    """For `dir`, and so for completion in a notebook."""
    assert set(mpims.__all__) <= set(dir(mpims))
    assert not {"Any", "TYPE_CHECKING", "annotations"} & set(dir(mpims))


def test_what_a_run_raises_can_be_caught_by_a_public_name():
    assert issubclass(mpims.Stopped, mpims.MpimsError)


def test_the_public_names_are_where_they_are_said_to_be():
    assert sorted(mpims.__all__) == sorted(mpims._HOME)
    for public, home in mpims._HOME.items():
        tree = tree_of(home.replace(".", "/") + ".py")
        assert public in {getattr(node, "name", None) for node in tree.body}, f"{home} has no {public}"
        assert getattr(mpims, public).__module__ == home
    with pytest.raises(AttributeError, match="module 'mpims' has no attribute 'Jbo'"):
        _ = mpims.Jbo


# --------------------------------------------------------------------- catching all


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node that is not a definition itself, with the qualified name of the definition it is in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from functions(node, f"{prefix}.{node.name}".lstrip("."))
        else:
            yield prefix, node
            yield from functions(node, prefix)


def is_all(kind: ast.expr | None) -> bool:
    """Whether an exception class is that of everything; None stands for a bare ``except:``."""
    return kind is None or ast.unparse(kind).removeprefix("builtins.") in ("Exception", "BaseException")


def catches_all(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        return any(map(is_all, node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]))
    return isinstance(node, ast.Call) and called_name(node) == "suppress" and any(map(is_all, node.args))


def catch_alls() -> dict[tuple[str, str], int]:
    """Where everything is caught: the first line, by file and function."""
    found: dict[tuple[str, str], int] = {}
    for name in NAMES:
        for function, node in functions(tree_of(name)):
            if catches_all(node):
                found.setdefault((name, function), node.lineno)
    return found


def test_everything_is_caught_only_where_the_users_code_runs():
    found = catch_alls()
    places = [
        f"{name}:{found[name, function]} in {function}" for name, function in found.keys() - CATCH_ALL
    ]
    assert places == [], "catch what can be expected there, or give the place and its reason in CATCH_ALL"


def test_no_permission_to_catch_everything_is_left_over():
    assert CATCH_ALL.keys() - catch_alls().keys() == set()


# ----------------------------------------------------------------------- docstrings


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """All classes of the package by their names."""
    found: dict[str, list[ast.ClassDef]] = {}
    for name in NAMES:
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def says_what(base: ast.expr, method: str) -> bool:
    """Whether a base class says what a method does; one that is not ours is taken to."""
    name = ast.unparse(base).split("[")[0].split(".")[-1]
    if name in ("ABC", "Protocol", "Generic", "object", "NamedTuple"):
        return False
    ours = classes().get(name)
    if ours is None:
        return True
    return any(
        any(
            isinstance(node, ast.FunctionDef) and node.name == method and ast.get_docstring(node)
            for node in parent.body
        )
        or any(says_what(further, method) for further in parent.bases)
        for parent in ours
    )


def protocols(name: str) -> list[ast.expr]:
    """The protocols of a file: its classes follow them without deriving from them."""
    return [
        ast.Name(node.name)
        for node in tree_of(name).body
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)
    ]


def undocumented(name: str) -> Iterator[str]:
    """The public things of a file that say nothing of themselves."""
    tree = tree_of(name)
    if not ast.get_docstring(tree):
        yield "the module"
    for statement in tree.body:
        definitions = [statement]
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            definitions = [node for node in ast.walk(statement) if node is not statement]
        for node in definitions:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield from undocumented_definition(name, node)


def undocumented_definition(
    name: str, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
) -> Iterator[str]:
    if node.name.startswith("_"):
        return
    if not ast.get_docstring(node):
        yield f"line {node.lineno}: {node.name}"
    if not isinstance(node, ast.ClassDef):
        return
    bases = [*node.bases, *protocols(name)]
    for member in node.body:
        if (
            isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef))
            and not member.name.startswith("_")
            and not ast.get_docstring(member)
            and not any(says_what(base, member.name) for base in bases)
        ):
            yield f"line {member.lineno}: {node.name}.{member.name}"


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_says_what_it_is(name):
    assert list(undocumented(name)) == []


# -------------------------------------------------------------------- ranks by name


def names_a_rank(node: ast.AST) -> bool:
    """Whether a text says which rank, by a number or by what is put in."""
    if isinstance(node, ast.JoinedStr):
        pairs = zip(node.values, node.values[1:], strict=False)
        return any(
            isinstance(text, ast.Constant)
            and re.search(r"\b[Rr]anks? $", str(text.value)) is not None
            and isinstance(put_in, ast.FormattedValue)
            for text, put_in in pairs
        )
    text = node.value if isinstance(node, ast.Constant) else None
    return isinstance(text, str) and re.search(r"\brank \d", text) is not None


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """The texts that stand as statements."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def nameless() -> set[tuple[str, str]]:
    """Where ranks are named by hand, by file and function."""
    return {
        (name, function)
        for name in NAMES
        for function, node in functions(tree_of(name))
        if names_a_rank(node) and node not in docstrings(tree_of(name))
    }


def test_what_names_a_rank_names_its_host():
    places = sorted(nameless() - NAMELESS.keys())
    assert places == [], "say it by name_rank or where(), or give the place and its reason in NAMELESS"


def test_no_permission_to_leave_out_a_host_is_left_over():
    assert NAMELESS.keys() - nameless() == set()


def test_nothing_is_printed_but_where_a_stream_that_fails_is_expected():
    printing = {
        name
        for name in NAMES
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    }
    assert printing == {"mpims/streams.py", "mpims/report/views.py"}, "say() or show() it"


def test_a_worker_does_not_import_what_only_a_master_needs():
    """Start-up is multiplied by thousands of ranks."""
    numpy = "import sys, numpy; own = set(sys.modules)"  # before 2.0 it imports numpy.ma by itself
    code = f"{numpy}; import mpims.cli.serve, mpims.runtime.worker; print(*set(sys.modules) - own)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    imported = set(done.stdout.split())
    assert "mpims.runtime.computing" in imported
    assert imported.isdisjoint(
        {"mpims.core.events", "mpims.core.scheduler", "mpims.storage.journal", "rich", "numpy.ma"}
    )
