"""mpims: a task farm on MPI for NumPy kernels over very many independent items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpims.errors import MpimsError, RunFailed, UsageError
    from mpims.job import Job
    from mpims.outcome import Outcome
    from mpims.outputs import Gather, Reduce
    from mpims.session import run

__version__ = "0.1.0"

__all__ = ["Gather", "Job", "MpimsError", "Outcome", "Reduce", "RunFailed", "UsageError", "run"]

_HOME = {
    "Gather": "mpims.outputs",
    "Job": "mpims.job",
    "MpimsError": "mpims.errors",
    "Outcome": "mpims.outcome",
    "Reduce": "mpims.outputs",
    "RunFailed": "mpims.errors",
    "UsageError": "mpims.errors",
    "run": "mpims.session",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a worker's start-up loads only what it runs."""
    if name not in _HOME:
        raise AttributeError(f"module 'mpims' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
