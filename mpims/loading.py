"""Find the job class that ``path.py``, ``path.py:Class`` or ``package.module:Class`` names."""

from __future__ import annotations

import hashlib
import importlib
import linecache
import os
import pickle
import sys
import types
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from mpims.errors import UsageError, describe, user_traceback
from mpims.job import Job, defines_work
from mpims.jobfile import module_name


class JobSource(NamedTuple):
    """A job definition as it travels to the other ranks.

    Only rank 0 reads the file; the text goes with the message, so that thousands of ranks do not
    meet at the file system, and all run the same text even if the file changes.
    """

    name: str
    """As the user gave it, without the class."""
    class_name: str | None
    text: str | None
    """The source of a file; None where `name` is a module to import."""

    @property
    def digest(self) -> str | None:
        """SHA-256 of the source text, if it is known."""
        return None if self.text is None else hashlib.sha256(self.text.encode()).hexdigest()


def read_source(spec: str) -> JobSource:
    """Read what `spec` names.

    Raises
    ------
    UsageError
        There is no such file, or it cannot be read as text.
    """
    name, colon, class_name = spec.rpartition(":")
    if not colon or not class_name.isidentifier():
        name, class_name = spec, ""
    path = Path(name)
    if (
        not name.endswith(".py")
        and "/" not in name
        and not os.path.isfile(name)  # whose answer is no where `Path.is_file` raises
        and (class_name or not os.path.isdir(name))
    ):
        if all(part.isidentifier() for part in name.split(".")) and class_name:
            return JobSource(name, class_name, None)
        what = f"no job {spec!r}" if spec else "the name of the job is empty"
        raise UsageError(
            f"{what}: give a file (jobs/x.py), a class in it (jobs/x.py:Class), "
            "or a class in a module (package.module:Class)"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"no file {name}: {_nearby(path)}") from None
    except IsADirectoryError:
        raise UsageError(f"{name} is a folder: give one of the job files in it") from None
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {name}: it is not UTF-8 text (byte {error.start})") from None
    return JobSource(str(path.absolute()), class_name or None, text)


def check_unchanged(source: JobSource) -> None:
    """Refuse a job file that is no longer what it was when `source` was read.

    Raises
    ------
    UsageError
        It has changed; the text names the first line that did.
    """
    if source.text is None:
        return
    try:
        text = Path(source.name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return  # it is gone: what was kept of it will do
    if text == source.text:
        return
    before, after = source.text.splitlines(), text.splitlines()
    n_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    was = repr(before[n_same].strip()) if n_same < len(before) else "not there"
    now = repr(after[n_same].strip()) if n_same < len(after) else "gone"
    raise UsageError(
        f"cannot resume: {source.name} has changed since the run began: line {n_same + 1} is {now}, "
        f"was {was}; put it back as it was, or start a new run"
    )


def _nearby(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(p.name for p in folder.glob("*.py"))
    from difflib import get_close_matches  # for this line alone

    near = get_close_matches(path.name, names, n=1)
    return f"did you mean {folder / near[0]}?" if near else f"folder {folder} has {len(names)} .py files"


def load_job_class(source: JobSource) -> type[Job]:
    """Run the definition and find the job class in it.

    Raises
    ------
    UsageError
        The source does not run, or has no such job, or several and none is named.
    """
    module = _import_module(source.name) if source.text is None else _run(source.name, source.text)
    if source.class_name is not None:
        return _named_class(module, source)
    jobs = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Job)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    jobs = list(dict.fromkeys(jobs))  # a job may have two names
    # What others derive from is not meant; a job alone that computes nothing is told what it lacks.
    jobs = list(filter(defines_work, jobs)) or jobs
    if not jobs:
        raise UsageError(f"no job in {source.name}: define a class that derives from mpims.Job")
    if len(jobs) > 1:
        names = ", ".join(job.__name__ for job in jobs)
        raise UsageError(
            f"several jobs in {source.name}: {names}; name one: {source.name}:{jobs[0].__name__}"
        )
    return jobs[0]


def pack_parameters(job: Job) -> bytes:
    """The parameters of a job, for `make_job` on another rank, or when the run is resumed.

    Packed by themselves: what they are made of may be defined in the job's own file.

    Raises
    ------
    UsageError
        One cannot be pickled.
    """
    try:
        return pickle.dumps(job.parameters, protocol=5)
    except Exception as error:  # whatever an object of the user's raises when it is pickled
        raise UsageError(
            f"job {type(job).__name__}: a parameter cannot be pickled, as other ranks and `mpims resume` "
            f"want it: {describe(error)}; leave its annotation out, and it is an attribute like others"
        ) from None


def construct(job_class: type[Job], values: dict[str, Any]) -> Job:
    """Make a job with these parameters.

    Raises
    ------
    UsageError
        They are no parameters of that job, or an ``__init__`` of its own raises.
    """
    try:
        return job_class(**values)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's __init__ raises
        raise UsageError(
            f"job {job_class.__name__} cannot be made: {describe(error)}", user_traceback(error)
        ) from error


def make_job(source: JobSource, parameters: Any) -> Job:
    """Run the definition, then make the job of it that has these parameters: packed, or as they are.

    Raises
    ------
    UsageError
        As `load_job_class`, or as `construct`.
    """
    job_class = load_job_class(source)
    try:
        values = pickle.loads(parameters) if isinstance(parameters, bytes) else parameters
    except Exception as error:  # whatever an object of the user's raises when it is unpickled
        raise UsageError(
            f"job {job_class.__name__}: its parameters cannot be unpickled: {describe(error)}"
        ) from None
    return construct(job_class, values)


def _named_class(module: types.ModuleType, source: JobSource) -> type[Job]:
    name = source.class_name or ""
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Job) and found is not Job:
        return found
    names = [
        n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, Job) and v is not Job
    ]
    has = f"it has {', '.join(names)}" if names else "it has no job at all"
    raise UsageError(f"no job {name} in {source.name}: {has}")


def _import_module(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        raise UsageError(_syntax_message(error)) from None
    except UsageError as error:
        raise UsageError(f"{_place(error)}: {error.message}", error.detail) from None
    except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
        raise UsageError(f"cannot import {name}: {describe(error)}") from None


def _run(name: str, text: str) -> types.ModuleType:
    """Run a job file as a module of its own.

    The file's folder is searched for the modules that it imports, but last, so that it hides nothing.
    """
    module = types.ModuleType(module_name(name))
    module.__file__ = name
    module.__package__ = ""  # there is nothing beside it, for a relative import
    sys.modules[module.__name__] = module
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    folder = str(Path(name).parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        exec(compile(text, name, "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        error.filename = error.filename or name
        raise UsageError(_syntax_message(error)) from None
    except UsageError as error:
        raise UsageError(f"{_place(error, name)}: {error.message}", error.detail) from None
    except (Exception, SystemExit) as error:  # whatever the user's file raises while it runs
        what = f"{_place(error, name)}: {describe(error)}"
        if isinstance(error, ImportError) and "relative import" in str(error):
            what += (
                ": a file by itself is in no package; name it as a module, from the folder of its package: "
                f"{_module_name(Path(name))}:Class"
            )
        raise UsageError(what) from None
    return module


def _module_name(path: Path) -> str:
    """The name that a file has as a module of a package, as far as can be seen."""
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").exists():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names if len(names) > 1 else ["package", *names])


def _place(error: BaseException, name: str = "") -> str:
    """The last line that raised it in the file of that name; without a name, in any file but ours."""
    import traceback  # for this line alone

    ours = f"{Path(__file__).parent}/"
    places = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if (frame.filename == name if name else not frame.filename.startswith((ours, "<")))
    ]
    return places[-1] if places else name


def _syntax_message(error: SyntaxError) -> str:
    code = f": {error.text.strip()}" if error.text else ""
    return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}{code}"
