"""The run directory: where it is, and the small files in it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from mpims.errors import UsageError
from mpims.storage.results import disk_error


def create_run_dir(path: Path | None, name: str) -> Path:
    """Make an empty run directory.

    Parameters
    ----------
    path
        Where the user wants it: a folder that does not exist or is empty. None makes
        ``runs/NAME-DATE-TIME``, with a number behind it if that exists.
    name
        The job's name.

    Raises
    ------
    UsageError
        The folder is in use, or cannot be made or written to.
    """
    try:
        if path is None:
            return _create_new(Path("runs"), f"{name.lower()}-{time.strftime('%Y%m%d-%H%M%S')}")
        if path.exists() and not path.is_dir():
            raise UsageError(f"run directory {path} is not a folder: choose another --run-dir")
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise UsageError(
                f"run directory {path} is not empty: choose another --run-dir, or remove what is in it"
            )
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        return path.absolute()
    except OSError as error:
        where = path if path is not None else Path("runs").absolute()
        raise UsageError(
            f"cannot make run directory {where}: {error.strerror}; choose another with --run-dir"
        ) from None


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


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all; values that JSON lacks are written as text.

    Raises
    ------
    RunFailed
        The file system does not take it.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise disk_error(error, path) from None
