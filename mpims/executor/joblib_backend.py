"""joblib over MPI: ``joblib.parallel_config("mpims")``, once this module is imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from mpims.executor.futures import TaskFuture
from mpims.executor.local import how_many
from mpims.executor.pool import Executor
from mpims.world import find_world

_LEAST_JOBS = 2
"""Of one joblib makes the calls itself, in the program, and does not say when they are over."""


class MpimsBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches on an executor.

    Parameters
    ----------
    executor
        The executor; None to make one, with a rank for each of ``n_jobs``, or all ranks under a launcher.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, executor: Executor | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._executor = executor
        self._is_own = executor is None
        self._futures: set[TaskFuture] = set()

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Make ready for a call of `Parallel`; give how many workers there are."""
        self.parallel = parallel
        if self._executor is None:
            if n_jobs == 1:
                raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
            self._executor = Executor(n_jobs if n_jobs > 0 else None)
        return self.effective_n_jobs(n_jobs)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers compute, whatever was asked for, where the ranks are there.

        Where they are not yet, None is the default, which is all as by `Parallel`; others count on that.
        """
        if self._executor is not None:
            return max(_LEAST_JOBS, self._executor.n_workers)
        if n_jobs is None or n_jobs < 0:
            world = find_world(os.environ)
            n_jobs = how_many(None)[0] if world is None else world.size - 1
        return max(_LEAST_JOBS, n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> TaskFuture:
        """Compute a batch."""
        assert self._executor is not None
        future = self._executor.submit(_call, func)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit
    """Its name before joblib 1.5."""

    def retrieve_result_callback(self, out: TaskFuture) -> Any:
        """The result of a batch."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A batch has failed: the others are not wanted."""
        for future in list(self._futures):
            future.cancel()

    def terminate(self) -> None:
        """The call of `Parallel` is over."""
        if self._is_own and self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """What a call of `Parallel` within a task gets: a rank has one core."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


def _call(batch: Callable[[], Any]) -> Any:
    """Compute a batch; it travels as an argument, for no two are the same."""
    return batch()


register_parallel_backend("mpims", MpimsBackend)
