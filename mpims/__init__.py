"""mpims: a task farm on MPI for NumPy kernels over very many independent items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpims.errors import MpimsError, RunFailed, Stopped, UsageError
    from mpims.executor.compatible import Pool
    from mpims.executor.errors import CannotTravel, ExecutorBroken, WorkerLost
    from mpims.executor.pool import Executor
    from mpims.job import Job
    from mpims.outcome import Outcome, load
    from mpims.outputs import Gather, Reduce
    from mpims.session import run
    from mpims.world import local_rank

__version__ = "0.1.0"

__all__ = [
    "CannotTravel",
    "Executor",
    "ExecutorBroken",
    "Gather",
    "Job",
    "MpimsError",
    "Outcome",
    "Pool",
    "Reduce",
    "RunFailed",
    "Stopped",
    "UsageError",
    "WorkerLost",
    "load",
    "local_rank",
    "run",
]

_HOME = {
    "CannotTravel": "mpims.executor.errors",
    "Executor": "mpims.executor.pool",
    "ExecutorBroken": "mpims.executor.errors",
    "Gather": "mpims.outputs",
    "Job": "mpims.job",
    "MpimsError": "mpims.errors",
    "Outcome": "mpims.outcome",
    "Pool": "mpims.executor.compatible",
    "Reduce": "mpims.outputs",
    "RunFailed": "mpims.errors",
    "Stopped": "mpims.errors",
    "UsageError": "mpims.errors",
    "WorkerLost": "mpims.executor.errors",
    "load": "mpims.outcome",
    "local_rank": "mpims.world",
    "run": "mpims.session",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a worker's start-up loads only what it runs."""
    if name not in _HOME:
        raise AttributeError(f"module 'mpims' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names, for `dir` and completion: most are not here yet."""
    return sorted({*__all__, "__version__", "__doc__", "__file__", "__name__", "__path__", "__spec__"})
