"""`Pool`: an executor with the methods of `schwimmbad`, and those of `multiprocessing.Pool` that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mpims.executor.pool import Executor
from mpims.executor.spread import Handle


class Pool:
    """For programs written for ``schwimmbad.MPIPool``, emcee's pools or ``multiprocessing.Pool``.

    On ranks other than 0 this call does not come back: they compute, and leave with rank 0. So what such
    programs say to them, ``if not pool.is_master(): pool.wait(); sys.exit(0)``, may stay or go. With
    ``exit_workers=False`` it comes back once they have computed, and ``with`` gives None there.

    Parameters
    ----------
    processes
        So many ranks compute, as ``n`` of `mpims.Executor` in a program that no launcher started, and as
        its ``max_workers`` in one that one did.
    initializer, initargs
        As for `mpims.Executor`.
    **options
        Further ones of `mpims.Executor`.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        self.executor = Executor(processes, initializer, initargs, **options)

    @property
    def size(self) -> int:
        """How many ranks compute."""
        return self.executor.n_workers

    def is_master(self) -> bool:
        """Whether this is rank 0; others get here with ``exit_workers=False`` alone, when all is done."""
        return self.executor.__enter__() is not None

    def is_worker(self) -> bool:
        """Whether this is another rank."""
        return not self.is_master()

    def wait(self) -> None:
        """Do nothing: ranks that get here have computed what there was."""

    def map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        callback: Callable[[Any], object] | None = None,
        chunksize: int | None = None,
    ) -> list[Any]:
        """Call a function with each element; give the list of the results.

        `callback` is called with each, in order, as soon as it is there.
        """
        results = []
        for result in self.executor.map(func, iterable, chunksize=chunksize):
            if callback is not None:
                callback(result)
            results.append(result)
        return results

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Call a function with the elements of each element as its arguments."""
        return list(self.executor.starmap(func, iterable, chunksize=chunksize))

    def imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Iterator[Any]:
        """Call a function with each element; give results in order, as they come."""
        return self.executor.map(func, iterable, chunksize=chunksize)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Iterator[Any]:
        """Call a function with each element; give results as they come."""
        return self.executor.imap_unordered(func, iterable, chunksize)

    def apply(
        self, func: Callable[..., Any], args: tuple[Any, ...] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Call a function once, and wait."""
        return self.executor.submit(func, *args, **(kwds or {})).result()

    def bcast(self, value: Any) -> Handle:
        """Send a value to every rank once; see `mpims.Executor.bcast`."""
        return self.executor.bcast(value)

    def share(self, array: Any) -> Handle:
        """Put an array once into the memory of each host; see `mpims.Executor.share`."""
        return self.executor.share(array)

    def close(self) -> None:
        """Free the ranks."""
        self.executor.shutdown()

    def terminate(self) -> None:
        """Free the ranks; what was not handed out is not computed."""
        self.executor.shutdown(cancel_futures=True)

    def join(self) -> None:
        """Do nothing: `close` waits."""

    def __enter__(self) -> Pool | None:
        return None if self.executor.__enter__() is None else self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.executor.__exit__(kind, error, trace)
