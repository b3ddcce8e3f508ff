"""The manifest: what a run is, written before it begins."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from mpims import __version__
from mpims.job import Job
from mpims.options import RunOptions

FORMAT = 1
"""Version of the run directory's layout."""


def make_manifest(
    job: Job,
    options: RunOptions,
    *,
    source_digest: str | None,
    items: tuple[int, str],
    block: int,
    n_ranks: int,
    mpi: str,
    command: Sequence[str],
) -> dict[str, Any]:
    """Everything that decides the result, and what it was computed with.

    Parameters
    ----------
    source_digest
        SHA-256 of the job file's text.
    items
        Number and digest of the items.
    mpi
        The MPI library, in one line.
    command
        What the user typed.
    """
    return {
        "format": FORMAT,
        "job": type(job).__name__,
        "parameters": job.parameters,
        "output": repr(job.output),
        "seed": options.seed,
        "n_items": items[0],
        "items_digest": items[1],
        "block": block,
        "source": getattr(sys.modules.get(type(job).__module__), "__file__", None),
        "source_digest": source_digest,
        "policy": options.policy,
        "chunk_min": options.chunk_min,
        "chunk_max": options.chunk_max,
        "timeout_s": options.timeout_s,
        "n_ranks": n_ranks,
        "host": platform.node(),
        "command": list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "mpims": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "mpi4py": _version("mpi4py"),
            "mpi": mpi,
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
