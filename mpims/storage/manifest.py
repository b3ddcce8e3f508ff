"""The manifest: what a run is, written before it begins, and compared before it is resumed."""

from __future__ import annotations

import inspect
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from mpims import __version__
from mpims.digest import told
from mpims.errors import UsageError, brief
from mpims.job import Job
from mpims.options import RunOptions
from mpims.storage.rundir import MANIFEST, Damaged, check_kinds

FORMAT = 3
"""Version of the run directory's layout."""

_DECIDING = {
    "job": "the job is {new}, was {old}",
    "output": "the output is {new}, was {old}",
    "seed": "the seed is {new}, was {old}",
    "n_items": "the number of items is {new}, was {old}",
    "items_digest": "items() gives others, or in another order",
    "block": "the block size is {new}, was {old}",
    "source_digest": "the source of the job is another",
}
"""What decides the result, beside the parameters, and how a difference is said."""
_KINDS = {
    "run_id": str,
    "job": str,
    "parameters": dict[str, Any],
    "seed": int,
    "n_items": int,
    "block": int,
    "options": dict[str, Any],
    "n_ranks": int,
    "resumed": list,
    "taken_over": list,
    "ranks": dict[str, Any],
}
"""What is read of it, beside what is compared."""
_MOST_ITEMS = 2**63 - 1
_OF_ONE_PART = ("seed", "run_dir", "resume", "end_time_s")
"""Options that stand elsewhere, or are not for who resumes the run."""


def make_manifest(
    job: Job,
    options: RunOptions,
    *,
    run_id: str,
    source_digest: str | None,
    items: tuple[int, str],
    block: int,
    n_ranks: int,
    mpi: str,
    fault_tier: str,
    command: Sequence[str],
    slurm: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that decides the result, and what it was computed with.

    Parameters
    ----------
    run_id
        The run, however often it is resumed.
    source_digest
        SHA-256 of the job file's text; None takes that of the class, if its source can be found.
    items
        Number and digest of the items.
    mpi
        The MPI library, in one line.
    fault_tier
        What of ranks that die or hang is survived.
    command
        What the user typed.
    slurm
        The job of SLURM in which it runs: number, nodes, how often it was requeued.
    """
    made: dict[str, Any] = {
        "format": FORMAT,
        "run_id": run_id,
        "job": type(job).__name__,
        "parameters": {name: _as_json(value) for name, value in job.parameters.items()},
        "output": repr(job.output),
        "seed": options.seed,
        "n_items": items[0],
        "items_digest": items[1],
        "block": block,
        "source": getattr(sys.modules.get(type(job).__module__), "__file__", None),
        "source_digest": source_digest or _class_digest(type(job)),
        "options": {k: v for k, v in asdict(options).items() if k not in _OF_ONE_PART},
        "fault_tier": fault_tier,
        "n_ranks": n_ranks,
        "host": platform.node(),
        "command": list(command),
        "slurm": slurm,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "mpims": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "mpi4py": _mpi4py_version(),
            "mpi": mpi,
        },
    }
    as_read: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return as_read


def check_format(manifest: Mapping[str, Any], folder: Path) -> None:
    """Refuse a run directory that another version of mpims made.

    Raises
    ------
    UsageError
        Its layout is another, or not known; or what stands there is damaged.
    """
    check_kinds(folder / MANIFEST, manifest, {"versions": dict[str, Any]})
    found = manifest.get("format")
    if found != FORMAT:
        made_by = manifest.get("versions", {}).get("mpims", "an unknown version")
        raise UsageError(
            f"run directory {folder} has format {found}, made by mpims {made_by}; "
            f"this is mpims {__version__} with format {FORMAT}: use that version, or start the run anew"
        )
    check_kinds(folder / MANIFEST, manifest, _KINDS)
    for key in ("resumed", "taken_over"):
        for part in manifest.get(key, ()):
            if not isinstance(part, dict):
                raise Damaged(f"{folder / MANIFEST} is damaged: in {key} stands {brief(part, 60)}")
            check_kinds(folder / MANIFEST, part, _KINDS)


def check_computed(manifest: Mapping[str, Any], folder: Path) -> None:
    """Refuse the run directory of another version, and one in which there is no job to compute.

    Raises
    ------
    UsageError
        As `check_format`; or nothing but a simulation was there.
    """
    check_format(manifest, folder)
    if manifest.get("simulated"):
        raise UsageError(
            f"run directory {folder} is what mpims simulate has left: there is no job in it to compute; "
            "mpims report says how it went"
        )
    check_kinds(folder / MANIFEST, manifest, {}, ("run_id", "seed"))


def check_traced(manifest: Mapping[str, Any], folder: Path) -> None:
    """Refuse the run directory of another version, and one that does not say what its trace speaks of.

    Raises
    ------
    UsageError
        As `check_format`; or the sizes of the run are not known.
    """
    check_format(manifest, folder)
    path = folder / MANIFEST
    check_kinds(path, manifest, {}, ("n_items", "block"))
    check_kinds(path, manifest.get("options", {}), {"timeout_s": float | None})
    for key in ("n_items", "block"):
        if not 1 <= manifest[key] <= _MOST_ITEMS:
            raise Damaged(f"{path} is damaged: its {key} is {brief(manifest[key], 60)}")


def _as_json(value: Any) -> Any:
    """A parameter as it is compared when the run is resumed, and read by people."""

    def text(part: Any) -> str:
        return str(part) if isinstance(part, (PurePath, complex, Enum)) else told(part)

    try:
        return json.loads(json.dumps(value, default=text))
    except (TypeError, ValueError):  # keys that JSON has not, or it contains itself
        return told(value)


def check_same_job(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run whose result would be another's.

    Raises
    ------
    UsageError
        Something that decides the result differs; the text says what.
    """
    differences = []
    before, after = old.get("parameters") or {}, new["parameters"]
    for name in sorted({*before, *after}):
        if json.dumps(before.get(name)) != json.dumps(after.get(name)):  # a NaN is as it was, too
            differences.append(f"parameter {name} is {after.get(name)!r}, was {before.get(name)!r}")
    for key, text in _DECIDING.items():
        if old.get(key) != new[key]:
            differences.append(text.format(new=new[key], old=old.get(key)))
    if differences:
        raise UsageError(
            f"cannot resume {folder}: {'; '.join(differences)}; "
            "put it back as it was, or start a new run in another --run-dir"
        )


def other_versions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What computes now with another version than before: the last bits may depend on it."""
    before, after = old.get("versions", {}), new["versions"]
    return [
        f"{name} {after[name]}, was {before.get(name)}"
        for name in ("python", "numpy")
        if before.get(name) != after[name]
    ]


def _class_digest(job_class: type[Job]) -> str | None:
    try:
        return sha256(inspect.getsource(job_class).encode()).hexdigest()
    except (OSError, TypeError):  # typed in at a prompt
        return None


def _mpi4py_version() -> str | None:
    """The version that is in use, or installed; the second takes long to find."""
    if "mpi4py" in sys.modules:
        return str(sys.modules["mpi4py"].__version__)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mpi4py")
    except PackageNotFoundError:
        return None
