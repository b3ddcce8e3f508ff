"""The run directory: where it is, whose it is, and the small files in it."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from mpims.errors import UsageError, brief, describe
from mpims.storage.results import disk_error, remove

MANIFEST = "manifest.json"
SUMMARY = "summary.json"
STATUS = "status.json"
FAILED = "failed.json"
JOB = "job.pkl"
JOURNAL = "journal"
_LEFT_OVER = {"lock", JOB, f"{JOB}.part", JOURNAL, f"{MANIFEST}.part"}
"""What is there without a manifest was left by a run that died before it began."""


_OF_SUMMARY = {
    "status": str,
    "error": str,
    "job": str,
    "n_items": int,
    "n_done": int,
    "n_skipped": int,
    "wall_s": float,
    "result_file": str,
    "result_digest": str,
}
"""What is read of a summary; much is not in one of a run that ended early."""

_MOST_FLOAT = 2**53  # of a number that may be a float; no NaN is below it


class Damaged(UsageError):
    """A file of a run directory does not say what it should."""


def create_run_dir(path: Path | None, name: str, option: str = "--run-dir") -> Path:
    """Make an empty run directory.

    Parameters
    ----------
    path
        Where the user wants it: a folder that does not exist or is empty. None makes
        ``runs/NAME-DATE-TIME``, with a number behind it if that exists.
    name
        The job's name.
    option
        By what the user says where.

    Raises
    ------
    UsageError
        The folder is in use, or cannot be made or written to.
    """
    try:
        if path is None:
            return _create_new(Path("runs"), f"{name.lower()}-{time.strftime('%Y%m%d-%H%M%S')}")
        if path.exists() and not path.is_dir():
            raise UsageError(f"run directory {path} is not a folder: choose another {option}")
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
        if MANIFEST in names or not names <= _LEFT_OVER:
            how = _how_to_go_on(path) if MANIFEST in names and option != "--trace" else ""
            what = f"go on with the run in it: {how}" if how else "remove what is in it"
            raise UsageError(f"run directory {path} is not empty: choose another {option}, or {what}")
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        return path.absolute()
    except OSError as error:
        where = path if path is not None else Path("runs").absolute()
        raise UsageError(
            f"cannot make run directory {where}: {error.strerror}; choose another with {option}"
        ) from None


def _how_to_go_on(path: Path) -> str:
    """What the user does to go on with the run there; empty if that cannot be."""
    manifest: dict[str, Any] = {}
    with suppress(UsageError):
        manifest = read_json(path / MANIFEST)
    if manifest.get("simulated"):
        return ""
    if manifest.get("command") == []:  # a program began it, which has the job
        return f"start its program with mpims.run(..., run_dir={str(path)!r}, resume=True)"
    return f"python -m mpims resume {as_argument(path)}"


def _create_new(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        path = parent / (name + suffix)
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path.absolute()
    raise FileExistsError(17, "a thousand runs in one second")


def as_argument(path: Path | str) -> str:
    """A path as it is typed into a shell, where one that begins with a dash would be an option.

    Examples
    --------
    >>> as_argument("runs/x"), as_argument("a b"), as_argument("-x")
    ('runs/x', "'a b'", './-x')
    """
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; values that JSON lacks are written as text.

    Raises
    ------
    Stopped
        The file system does not take it.
    """
    text = json.dumps(value, indent=2, default=str) + "\n"
    _write_whole(path, text.encode("utf-8", "surrogateescape"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run directory.

    Raises
    ------
    UsageError
        It is not there, or cannot be read.
    Damaged
        It is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = _newest_run(path.parent) if path.name == MANIFEST else None
        hint = f"; the newest run in it is {there}" if there is not None else ""
        raise UsageError(f"no run in {path.parent}: there is no {path.name}{hint}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged: it is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged: it holds a {type(value).__name__}, not an object")
    return value


def _newest_run(folder: Path) -> Path | None:
    """The run that began last of those in a folder; None if there is none, or nobody can look."""
    with suppress(OSError):
        manifests = list(folder.glob(f"*/{MANIFEST}"))
        return max(manifests, key=lambda path: path.stat().st_mtime).parent if manifests else None
    return None


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Read how a run ended; None if it has not, or nobody could write it down.

    Raises
    ------
    UsageError
        It cannot be read.
    Damaged
        It can be done without, for it is derived: resuming writes it anew from the journal.
    """
    path = folder / SUMMARY
    if not path.exists():
        return None
    summary = read_json(path)
    needed = ["status", *(("result_file", "result_digest") if summary.get("status") == "done" else ())]
    check_kinds(path, summary, _OF_SUMMARY, needed)
    return summary


def check_kinds(
    path: Path, value: Mapping[str, Any], kinds: Mapping[str, Any], needed: Collection[str] = ()
) -> None:
    """See that what stands in a JSON file is of its kind, as far as it is there.

    Parameters
    ----------
    path
        The file.
    value
        What it says.
    kinds
        By key: str, int, float (finite, or an int), NoneType, list, dict[str, ...], or a union of them.
    needed
        What must be there.

    Raises
    ------
    Damaged
        Something is of another kind, or is missing.
    """
    for key in needed:
        if key not in value:
            raise Damaged(f"{path} is damaged: it has no {key}")
    for key in kinds.keys() & value.keys():
        if not _is_kind(value[key], kinds[key]):
            raise Damaged(f"{path} is damaged: its {key} is {brief(value[key], 60)}")


def _is_kind(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_is_kind(value, one) for one in get_args(kind))
    if get_origin(kind) is dict:
        _, of_values = get_args(kind)
        return isinstance(value, dict) and all(_is_kind(one, of_values) for one in value.values())
    if kind is float:
        return type(value) in (int, float) and abs(value) < _MOST_FLOAT
    return kind is Any or type(value) is kind


def write_job(folder: Path, value: Any) -> None:
    """Keep what the job is made of, for `read_job`.

    Raises
    ------
    Stopped
        The file system does not take it.
    """
    _write_whole(folder / JOB, pickle.dumps(value, protocol=5))


def read_job(folder: Path) -> Any:
    """Read what `write_job` wrote.

    Raises
    ------
    UsageError
        It is not there, or damaged.
    """
    path = folder / JOB
    try:
        return pickle.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"no run in {folder}: there is no {JOB}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle raises anything
        raise UsageError(f"{path} is damaged: {describe(error)}") from None


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, force it to disk, and give it its own."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        remove(part)
        raise disk_error(error, path) from None
