"""From what the user typed to the job class: what works, and how each mistake is told."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import linecache
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mpims.errors import ExitStatus, UsageError
from mpims.job import Job
from mpims.loading import JobSource, construct, load_job_class, make_job, pack_parameters, read_source

GOOD = """
import mpims

class Good(mpims.Job):
    n: int = 3

    def items(self):
        return self.n

    def kernel(self, items):
        return list(items)
"""
TWO = """
from mpims import Job

class First(Job):
    pass

class Second(Job):
    pass
"""


@pytest.fixture(autouse=True)
def _clean_interpreter(monkeypatch):
    """Leave no path and no module of a test's files to the next test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in list(sys.modules):
        if name.startswith("mpims.jobfile.") or "_xyz" in name:
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Write a file; give its path as text."""

    def write_file(text, name="x.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        return str(path)

    return write_file


def load(spec):
    return load_job_class(read_source(spec))


def refusal(call, *arguments):
    """The message of the UsageError that a call ends with: one line."""
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert caught.value.exit_status == ExitStatus.USAGE
    assert "\n" not in caught.value.message
    return caught.value.message


# ---------------------------------------------------------------------- reading


def test_a_file_is_read_with_its_text_and_its_absolute_path(write, tmp_path, monkeypatch):
    write(GOOD)
    monkeypatch.chdir(tmp_path)
    assert read_source("x.py") == JobSource(str(tmp_path / "x.py"), None, GOOD)
    assert read_source("./x.py:Good") == JobSource(str(tmp_path / "x.py"), "Good", GOOD)


def test_a_module_is_named_and_not_read():
    assert read_source("package.module:Name") == JobSource("package.module", "Name", None)


def test_the_digest_is_that_of_the_text():
    assert JobSource("x.py", None, "é").digest == hashlib.sha256("é".encode()).hexdigest()
    assert JobSource("package.module", "Name", None).digest is None


def test_a_file_without_the_usual_suffix_is_a_file_if_it_is_there(write, tmp_path, monkeypatch):
    write(GOOD, "job.txt")
    monkeypatch.chdir(tmp_path)
    assert load("job.txt").__name__ == "Good"


def test_a_missing_file_is_answered_with_the_nearest_of_its_folder(write, tmp_path):
    write(GOOD, "mandelbrot.py")
    spec = str(tmp_path / "mandlebrot.py")
    assert refusal(read_source, spec) == f"no file {spec}: did you mean {tmp_path / 'mandelbrot.py'}?"


def test_a_missing_file_near_to_none_is_answered_with_what_the_folder_has(write, tmp_path):
    write(GOOD, "mandelbrot.py")
    spec = str(tmp_path / "q.py")
    assert refusal(read_source, spec) == f"no file {spec}: folder {tmp_path} has 1 .py files"


def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    spec = str(tmp_path / "jbos" / "x.py:X")
    expected = f"no file {tmp_path / 'jbos' / 'x.py'}: there is no folder {tmp_path / 'jbos'}"
    assert refusal(read_source, spec) == expected


def test_a_folder_is_no_job(tmp_path):
    message = refusal(read_source, str(tmp_path))
    assert message == f"{tmp_path} is a folder: give one of the job files in it"


def test_a_folder_with_the_suffix_is_no_job_either(tmp_path):
    (tmp_path / "x.py").mkdir()
    assert "is a folder" in refusal(read_source, str(tmp_path / "x.py"))


def test_a_file_that_is_not_utf8_is_told_with_the_byte(write):
    spec = write(b"x = 1\ny = '\xff'\n")
    assert refusal(read_source, spec) == f"cannot read {spec}: it is not UTF-8 text (byte 11)"


def test_a_file_that_the_system_does_not_give_is_told_in_its_words(tmp_path):
    loop = tmp_path / "x.py"
    loop.symlink_to(loop)
    message = refusal(read_source, str(loop))
    assert message.startswith(f"cannot read {loop}: ")
    assert message.endswith("symbolic links")


def test_a_file_in_a_file_is_told_in_the_systems_words(write):
    spec = write(GOOD) + "/y.py"
    assert refusal(read_source, spec) == f"cannot read {spec}: Not a directory"


@pytest.mark.parametrize(
    "spec", ["mandelbrot", "package.module", "a-b:C", "no such thing", "1.2:C", "too-long" * 40]
)
def test_what_names_nothing_gets_the_three_forms(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(read_source, spec)
    assert message.startswith(f"no job {spec!r}: ")
    for form in ("jobs/x.py)", "jobs/x.py:Class)", "package.module:Class)"):
        assert form in message


def test_an_empty_name_is_told_as_such_with_the_three_forms():
    message = refusal(read_source, "")
    assert message.startswith("the name of the job is empty: give a file (jobs/x.py), ")
    assert message.endswith("(package.module:Class)")


def test_a_byte_order_mark_is_no_part_of_the_text(write):
    """Editors of Windows put one at the head of a file; Python reads over it."""
    assert load(write(b"\xef\xbb\xbf" + GOOD.encode())).__name__ == "Good"


# ------------------------------------------------------------------ running a file


def test_the_one_job_of_a_file_is_found(write):
    job = load(write(GOOD))(n=2)
    assert issubclass(type(job), Job)
    assert job.kernel(range(2)) == [0, 1]


def test_annotations_as_strings_are_read_in_the_files_own_names(write):
    cls = load(
        write(
            """
            from __future__ import annotations
            import pathlib
            from typing import Optional
            import mpims

            Number = float

            class Typed(mpims.Job):
                scale: Number = 1.0
                path: Optional[pathlib.Path] = None
            """
        )
    )
    assert cls._parameters["scale"].type is float
    assert cls(path="x").parameters["path"].name == "x"


def test_the_future_imports_of_ours_are_not_the_files(write):
    """This package's modules postpone their annotations; a job file says so itself, or does not."""
    cls = load(write("import mpims\nclass J(mpims.Job):\n    n: int = 1\n"))
    assert cls.__annotations__ == {"n": int}


def test_a_syntax_error_has_its_place_and_its_line(write):
    spec = write("import mpims\n\nclass Broken(mpims.Job)\n    pass\n")
    message = refusal(load, spec)
    assert message.startswith(f"{spec}:3: SyntaxError: ")
    assert message.endswith(": class Broken(mpims.Job)")


def test_a_wrong_indent_has_its_place(write):
    spec = write("def f():\npass\n")
    assert refusal(load, spec).startswith(f"{spec}:2: IndentationError: ")


def test_a_file_that_raises_is_told_with_the_line(write):
    spec = write("import mpims\n\nx = 1 / 0\n")
    assert refusal(load, spec) == f"{spec}:3: ZeroDivisionError: division by zero"


def test_the_line_is_the_last_of_the_file_itself(write):
    spec = write("import json\n\ndef f():\n    return json.loads('?')\n\nf()\n")
    assert refusal(load, spec).startswith(f"{spec}:4: JSONDecodeError: ")


def test_a_missing_import_is_told_with_the_line(write):
    spec = write("import mpims\nimport no_such_module_xyz\n")
    expected = f"{spec}:2: ModuleNotFoundError: No module named 'no_such_module_xyz'"
    assert refusal(load, spec) == expected


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["top_xyz/__init__.py", "top_xyz/sub/__init__.py"], "top_xyz.sub.job"),
        ([], "package.job"),  # without an __init__.py it is not known where the package begins
    ],
)
def test_a_relative_import_is_told_to_need_the_name_of_the_module(files, name, write, tmp_path):
    for file in files:
        write("", file)
    (tmp_path / "top_xyz" / "sub").mkdir(parents=True, exist_ok=True)
    spec = write(GOOD + "from . import table\n", "top_xyz/sub/job.py")
    message = refusal(load, spec)
    assert message.endswith(f"name it as a module, from the folder of its package: {name}:Class")
    assert f"{spec}:{GOOD.count(chr(10)) + 1}: ImportError: attempted relative import" in message


def test_named_as_a_module_a_job_may_import_relatively(write, tmp_path, monkeypatch):
    for file in ("relative_xyz/__init__.py", "relative_xyz/sub/__init__.py"):
        write("", file)
    write("SIZE = 3\n", "relative_xyz/sub/table.py")
    write(GOOD + "from .table import SIZE\n", "relative_xyz/sub/job.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("relative_xyz.sub.job:Good").__name__ == "Good"


def test_a_file_that_exits_is_told_and_does_not_end_us(write):
    spec = write("import sys\nsys.exit('needs a GPU')\n")
    assert refusal(load, spec) == f"{spec}:2: SystemExit: needs a GPU"


def test_ctrl_c_in_a_file_is_the_users(write):
    with pytest.raises(KeyboardInterrupt):
        load(write("raise KeyboardInterrupt\n"))


def test_a_mistake_in_a_job_keeps_its_own_message_and_has_its_place(write):
    spec = write("import mpims\nclass J(mpims.Job):\n    block: int = 4\n")
    assert refusal(load, spec).startswith(f"{spec}:2: job J: 'block' cannot be a parameter")
    spec = write("import mpims\n\nclass J(mpims.Job):\n    n = 3\n    output = mpims.Reduce(3)\n")
    assert refusal(load, spec) == f"{spec}:5: Reduce wants a function of two results, found 3"


def test_a_null_byte_is_a_mistake_of_the_file(write):
    spec = write(b"x = 1\n\x00\n")
    assert refusal(load, spec).startswith(spec)


# --------------------------------------------------------------- choosing the class


def test_a_file_without_a_job_is_told(write):
    spec = write("from mpims import Job\n\nclass Plain:\n    pass\n")
    assert refusal(load, spec) == f"no job in {spec}: define a class that derives from mpims.Job"


def test_of_several_jobs_one_must_be_named(write):
    spec = write(TWO)
    assert refusal(load, spec) == f"several jobs in {spec}: First, Second; name one: {spec}:First"
    assert load(f"{spec}:Second").__name__ == "Second"


@pytest.mark.parametrize("work", ["task", "kernel"])
def test_what_others_derive_from_is_no_choice(write, work):
    base = "from mpims import Job\nclass Base(Job):\n    n: int = 3\n"
    spec = write(f"{base}class Real(Base):\n    def {work}(self, item): return item\n")
    assert load(spec).__name__ == "Real"
    assert load(f"{spec}:Base").__name__ == "Base"
    assert load(write(base)).__name__ == "Base"


def test_private_jobs_are_skipped_but_can_be_named(write):
    spec = write("from mpims import Job\nclass _Base(Job): pass\nclass Real(_Base): pass\n")
    assert load(spec).__name__ == "Real"
    assert load(f"{spec}:_Base").__name__ == "_Base"


def test_imported_jobs_are_not_the_files_own(write):
    write(TWO, "base_jobs_xyz.py")
    spec = write("from base_jobs_xyz import First, Second\nclass Own(First): pass\n")
    assert load(spec).__name__ == "Own"
    assert load(f"{spec}:Second").__name__ == "Second"


def test_a_second_name_for_a_job_makes_no_second_job(write):
    spec = write("from mpims import Job\nclass Long(Job): pass\nL = Long\n")
    assert load(spec).__name__ == "Long"


def test_a_wrong_class_is_answered_with_the_jobs_there_are(write):
    spec = write(TWO)
    assert refusal(load, f"{spec}:Third") == f"no job Third in {spec}: it has First, Second"


@pytest.mark.parametrize("name", ["Plain", "value", "missing"])
def test_what_is_no_job_is_not_taken_for_one(write, name):
    spec = write("value = 3\nclass Plain: pass\n")
    assert refusal(load, f"{spec}:{name}") == f"no job {name} in {spec}: it has no job at all"


def test_the_base_of_all_jobs_is_no_job(write):
    spec = write(TWO)
    assert refusal(load, f"{spec}:Job") == f"no job Job in {spec}: it has First, Second"


# ------------------------------------------------------------------------- modules


def test_a_job_in_a_package_is_imported(write, tmp_path, monkeypatch):
    write("", "package_xyz/__init__.py")
    write(GOOD, "package_xyz/module.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    cls = load("package_xyz.module:Good")
    assert cls is sys.modules["package_xyz.module"].Good


def test_a_job_in_the_top_of_a_package_in_this_folder_is_imported(write, tmp_path, monkeypatch):
    write(GOOD, "package_xyz/__init__.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load("package_xyz:Good").__name__ == "Good"


def test_a_missing_module_is_told():
    message = refusal(load, "no_such_package_xyz.module:Name")
    expected = "cannot import no_such_package_xyz.module: ModuleNotFoundError: "
    assert message == expected + "No module named 'no_such_package_xyz'"


def test_a_missing_class_of_a_module_is_told(write, tmp_path, monkeypatch):
    write(TWO, "module_xyz.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert refusal(load, "module_xyz:Third") == "no job Third in module_xyz: it has First, Second"


def test_a_module_with_a_syntax_error_is_told_with_the_place(write, tmp_path, monkeypatch):
    path = write("x = (\n", "module_xyz.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert refusal(load, "module_xyz:X").startswith(f"{path}:1: SyntaxError: ")


def test_a_module_that_raises_is_told(write, tmp_path, monkeypatch):
    write("raise OSError('no table')\n", "module_xyz.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert refusal(load, "module_xyz:X") == "cannot import module_xyz: OSError: no table"


def test_a_mistake_in_a_job_of_a_module_has_its_place(write, tmp_path, monkeypatch):
    path = write("import mpims\n\noutput = mpims.Reduce(3)\n", "module_xyz.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = f"{path}:3: Reduce wants a function of two results, found 3"
    assert refusal(load, "module_xyz:X") == expected


# ------------------------------------------------------------------ names that clash


@pytest.mark.parametrize(
    "name", ["job.py", "errors.py", "mpims.py", "numpy.py", "random.py", "json.py", "__init__.py", "a b.py"]
)
def test_a_job_file_may_be_called_like_any_module_and_hides_none(write, name):
    import json
    import random

    import numpy

    import mpims
    import mpims.errors
    import mpims.job

    before = {"json": json, "random": random, "numpy": numpy, "mpims": mpims, "mpims.job": mpims.job}
    cls = load(
        write(GOOD + "\nimport numpy, random, json\nROOT = numpy.pi, random.random, json.dumps\n", name)
    )
    assert cls(n=2).kernel(range(2)) == [0, 1]
    assert issubclass(cls, mpims.Job)
    assert {key: sys.modules[key] for key in before} == before
    assert sys.modules["mpims.errors"] is mpims.errors
    found = sys.modules[cls.__module__].ROOT
    assert found == (numpy.pi, random.random, json.dumps)


def test_a_module_that_is_imported_first_by_a_later_import_is_the_real_one(write):
    """The job file's folder is searched last: its `colorsys.py` hides no `colorsys` from anybody."""
    sys.modules.pop("colorsys", None)
    load(write(GOOD, "colorsys.py"))
    import colorsys

    assert hasattr(colorsys, "rgb_to_hsv")


def test_a_job_file_imports_its_neighbours(write):
    write("FACTOR = 7\n", "neighbour_xyz.py")
    spec = write(
        "from neighbour_xyz import FACTOR\nimport mpims\nclass J(mpims.Job):\n    n: int = FACTOR\n"
    )
    assert load(spec)().n == 7


def test_a_loaded_job_has_source_lines_even_if_its_file_is_gone():
    """On other ranks there is only the text: tracebacks and `inspect` show it nevertheless."""
    cls = load_job_class(JobSource("/nowhere/on/this/rank/x.py", None, GOOD))
    assert "def kernel(self, items):" in inspect.getsource(cls.kernel)
    assert linecache.getline("/nowhere/on/this/rank/x.py", 4) == "class Good(mpims.Job):\n"


def test_a_job_file_knows_where_it_is(write):
    spec = write("import mpims\nHERE = __file__\nMAIN = __name__\nclass J(mpims.Job): pass\n")
    module = sys.modules[load(spec).__module__]
    assert vars(module)["HERE"] == spec
    assert vars(module)["MAIN"] != "__main__"


@pytest.mark.parametrize(
    ("init", "text"),
    [
        ("self, n", "job J cannot be made: TypeError: J.__init__() missing 1 required"),
        ("self, **given", "job J cannot be made: ZeroDivisionError: division by zero"),
    ],
)
def test_a_job_that_cannot_be_made_is_told(init, text, write):
    spec = write(f"import mpims\nclass J(mpims.Job):\n    def __init__({init}):\n        1 / 0\n")
    assert refusal(construct, load(spec), {}).startswith(text)


def test_parameters_travel_whose_types_are_in_the_file(write):
    spec = write(
        """
        import enum
        import mpims
        class Color(enum.Enum):
            RED = 1
            BLUE = 2
        class J(mpims.Job):
            color: Color = Color.RED
            n: int = 3
        """
    )
    source = read_source(spec)
    cls = load_job_class(source)
    packed = pack_parameters(cls(color=sys.modules[cls.__module__].Color.BLUE))
    del sys.modules[cls.__module__]  # as on another rank
    assert repr(make_job(source, packed)) == "J(color=<Color.BLUE: 2>, n=3)"


def test_a_parameter_that_cannot_travel_is_told(write):
    spec = write("import mpims\nclass J(mpims.Job):\n    how: object = lambda: 1\n")
    message = refusal(pack_parameters, load(spec)())
    assert message.startswith(
        "job J: a parameter cannot be pickled, as other ranks and `mpims resume` want it:"
    )


def test_two_files_of_one_name_do_not_get_mixed_up(write):
    first = load(write("import mpims\nLIMIT = 1\nclass J(mpims.Job):\n    n: int = LIMIT\n", "a/x.py"))
    second = load(write("import mpims\nLIMIT = 2\nclass J(mpims.Job):\n    m: int = LIMIT\n", "b/x.py"))
    assert (first().parameters, second().parameters) == ({"n": 1}, {"m": 2})
    assert first.__module__ != second.__module__
    assert sys.modules[first.__module__].LIMIT == 1
    assert sys.modules[second.__module__].LIMIT == 2


def test_a_job_may_lie_where_a_name_is_not_utf_8(tmp_path):
    path = tmp_path / "of \udcff.py"
    path.write_text(GOOD)
    assert load_job_class(read_source(str(path))).__name__ == "Good"


# ---------------------------------------------------------------- in other processes


@pytest.mark.parametrize("name", ["x.py", "my-sweep.v2.py", "numpy.py"])
def test_what_is_pickled_by_name_is_found_in_a_new_process_with_the_same_search_path(name, write):
    text = "import mpims\ndef square(x):\n    return x * x\nclass A(mpims.Job):\n    pass\n"
    job_class = load_job_class(read_source(write(text, f"a b/{name}")))
    square = sys.modules[job_class.__module__].square
    code = f"import pickle, sys; sys.path = {sys.path}; print(pickle.loads({pickle.dumps(square)})(7))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "49\n", done.stderr


def test_a_file_of_that_name_in_another_folder_is_not_taken_for_it(write, monkeypatch):
    job_class = load_job_class(read_source(write("import mpims\nclass A(mpims.Job):\n    pass\n")))
    name = job_class.__module__
    other = Path(write("", "other/x.py")).parent
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(other), *sys.path])
    assert importlib.import_module(name).A.__module__ == name
    monkeypatch.delitem(sys.modules, name)
    sys.path.remove(str(other.parent))
    with pytest.raises(ModuleNotFoundError, match=re.escape(name)):
        importlib.import_module(name)
