"""`Pool`: an executor with the methods of `schwimmbad.MPIPool` and of `multiprocessing.Pool`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from math import inf
from multiprocessing import TimeoutError as PoolTimeoutError
from threading import Event, Lock
from typing import Any

from mpims.executor.functions import ARGUMENTS, ITEM
from mpims.executor.futures import TaskFuture
from mpims.executor.inputs import call_each, chunks
from mpims.executor.pool import Executor, check_chunksize
from mpims.executor.spread import Handle

_CHUNKS_PER_RANK = 4
"""As `multiprocessing.Pool` has it, for calls of which all results are waited for at once."""


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

    def apply_async(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Call a function once, and do not wait."""
        future = self.executor.submit(func, *args, **(kwds or {}))
        return AsyncResult([future], _only, callback, error_callback)

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Call a function with each element, and do not wait; the result is the list of all."""
        return self._map_async(func, ITEM, list(iterable), chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """As `map_async`, with the elements of each element as the arguments."""
        return self._map_async(func, ARGUMENTS, list(iterable), chunksize, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Any],
        mode: int,
        values: list[Any],
        chunksize: int | None,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> AsyncResult:
        check_chunksize(chunksize)
        size = chunksize or -(-len(values) // (_CHUNKS_PER_RANK * max(1, self.size))) or 1
        call = partial(call_each, func, mode)
        futures = [self.executor.submit(call, chunk) for chunk in chunks(iter(values), size)]
        return AsyncResult(futures, _joined, callback, error_callback)

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


class AsyncResult:
    """A result to come, as `multiprocessing.pool.AsyncResult`: it is there once the callback has returned.

    Parameters
    ----------
    futures
        Of the tasks that it is made of.
    join
        Makes it of their results.
    callback, error_callback
        One of them is called when all tasks are done: with the result, or with what the first one raised
        that failed. It must not wait for other tasks.
    """

    def __init__(
        self,
        futures: list[TaskFuture],
        join: Callable[[list[Any]], Any],
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._futures, self._join = futures, join
        self._callback, self._error_callback = callback, error_callback
        self._value: Any = None
        self._error: BaseException | None = None
        self._lock = Lock()
        self._n_left = len(futures)
        self._is_there = Event()
        if not futures:
            self._end()
        for future in futures:
            future.add_done_callback(self._count)

    def ready(self) -> bool:
        """Whether it is there."""
        return self._is_there.is_set()

    def successful(self) -> bool:
        """Whether it is there without an exception.

        Raises
        ------
        ValueError
            It is not there yet.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is there, at most so many seconds."""
        until = inf if timeout is None else time.monotonic() + timeout
        for future in self._futures:
            future.help(until)
        self._is_there.wait(None if timeout is None else max(0.0, until - time.monotonic()))

    def get(self, timeout: float | None = None) -> Any:
        """The result, or what a call raised.

        Raises
        ------
        multiprocessing.TimeoutError
            It is not there within so many seconds.
        """
        self.wait(timeout)
        if not self.ready():
            raise PoolTimeoutError
        if self._error is not None:
            raise self._error
        return self._value

    def _count(self, future: Any) -> None:
        with self._lock:
            self._n_left -= 1
            if self._n_left:
                return
        self._end()

    def _end(self) -> None:
        """All tasks are done."""
        try:
            self._error = next(filter(None, map(_error_of, self._futures)), None)
            if self._error is None:
                self._value = self._join([future.result() for future in self._futures])
                if self._callback is not None:
                    self._callback(self._value)
            elif self._error_callback is not None:
                self._error_callback(self._error)
        finally:
            self._is_there.set()


def _error_of(future: TaskFuture) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _only(results: list[Any]) -> Any:
    return results[0]


def _joined(results: list[list[Any]]) -> list[Any]:
    return [result for chunk in results for result in chunk]
