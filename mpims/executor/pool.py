"""`Executor`: a `concurrent.futures.Executor` on the ranks of an MPI program."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as FuturesExecutor
from functools import partial
from math import inf
from numbers import Real
from typing import Any

import numpy as np

from mpims.digest import is_masked
from mpims.errors import UsageError
from mpims.executor.cargo import Batch, Packer
from mpims.executor.clients import Clients
from mpims.executor.connecting import connect_executor
from mpims.executor.errors import CannotTravel
from mpims.executor.functions import ARGUMENTS, CALL, ITEM, Functions
from mpims.executor.futures import TaskFuture, refused
from mpims.executor.inputs import BACKGROUND, Tuples, Zipped, call_each, chunks, flat
from mpims.executor.mapping import Mapping
from mpims.executor.orders import Abort, Nowhere, Spread, Tasks
from mpims.executor.spread import Handle, share_here


class Executor(FuturesExecutor):
    """Computes calls of functions on other ranks.

    Under ``mpirun -n N``, started by ``python -m mpims script program.py`` or by the program itself, the
    ranks 1 to N-1 compute; without it, ranks are started on this machine, or in this allocation. There is
    one executor at a time.

    Parameters
    ----------
    max_workers
        So many ranks compute at the most; by default all, and without MPI one for each core.
    initializer, initargs
        Called on each rank before its first task.
    n
        Start so many ranks that compute, in a program that no launcher started.
    timeout_s
        A task that takes longer counts as hung: another rank tries it. None: tasks may take for ever.
    retries
        A task over which a rank died, or hung, is tried in a child process of a rank, and there so many
        times again.
    exit_workers
        What ranks other than 0 do at this call, in a program that they run too: they compute until rank 0
        ends its program, and then exit here (SystemExit). With False they compute until this executor is
        shut down, and then go on with the program; their ``with`` gives None.

    Raises
    ------
    UsageError
        There is an executor already, or this is a task of one, or there are no ranks to compute.

    Examples
    --------
    >>> import mpims
    >>> with mpims.Executor(n=4) as pool:  # doctest: +SKIP
    ...     squares = list(pool.map(pow, range(100), [2] * 100))
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        n: int | None = None,
        timeout_s: float | None = None,
        retries: int = 2,
        exit_workers: bool = True,
    ) -> None:
        _check(max_workers, initializer, n, timeout_s, retries)
        self._packer = Packer(in_pieces=True)
        self._functions = Functions(Packer())
        settings: dict[str, Any] = {"path": [folder for folder in sys.path if folder]}
        if initializer is not None:
            settings["initializer"] = self._packer.pack((initializer, tuple(initargs)), "the initializer")
        _wait_for_closed()
        self._clients = Clients()
        link = connect_executor(
            self._clients,
            max_workers=max_workers,
            n=n,
            timeout_s=timeout_s,
            n_retries=retries,
            settings=settings,
            exit_workers=exit_workers,
        )
        self._is_here = link is not None
        if link is None:  # this rank has served, and goes on with the program
            self._clients.is_closed = self._clients.has_ended = True
            return
        self._clients.link = link
        _open[:] = [self._clients]
        weakref.finalize(self, self._clients.close).atexit = False

    @property
    def n_workers(self) -> int:
        """How many ranks compute."""
        return self._clients.link.n_workers if self._is_here and self._clients.error is None else 0

    _max_workers = n_workers  # by this name others ask a pool of concurrent.futures

    def __reduce__(self) -> Any:
        raise CannotTravel("an mpims.Executor cannot be sent to another process")

    # ----------------------------------------------------------------- submitting

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskFuture:
        """Call a function on some rank.

        Returns
        -------
        Future
            It gives the result, or raises what the call raised, with the remote traceback as its cause; or
            `WorkerLost`, where the task ended its ranks; or `CannotTravel`.

        Raises
        ------
        RuntimeError
            The executor was shut down; or none is left of its ranks (`ExecutorBroken`).
        """
        self._check_open()
        clients = self._clients
        try:
            function = self._functions.get(fn)
            if len(args) == 1 and not kwargs:
                mode, (flag, value) = ITEM, self._packer.pack(args[0], "the argument")
            else:
                mode, (flag, value) = CALL, self._packer.pack((args, kwargs), "(args, kwargs)")
        except CannotTravel as error:
            return refused(clients, error)
        key, future = clients.new_future()
        clients.give(Tasks(key, function, mode, Batch([value], bytearray((flag,))), True))
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[Any]:
        """Call a function with the elements of iterables, as the built-in `map`.

        Parameters
        ----------
        timeout
            So many seconds after this call a result that is not there raises TimeoutError.
        chunksize
            Call so many times in one task; by default as many as is good by what was measured.
        buffersize
            So many tasks are under way or not yet taken at the most, and the input is advanced only as
            results are taken; by default as many as keep the ranks at work.
        ordered
            Give results in the order of the arguments, or as they come.
        """
        if len(iterables) == 1:
            return self._map(fn, ITEM, iterables[0], timeout, chunksize, ordered, buffersize)
        return self._map(fn, ARGUMENTS, Zipped(iterables), timeout, chunksize, ordered, buffersize)

    def starmap(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[Any]:
        """Call a function with the elements of each element as its arguments, as `itertools.starmap`."""
        return self._map(fn, ARGUMENTS, Tuples(iterable), timeout, chunksize, ordered)

    def imap_unordered(
        self, fn: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Iterator[Any]:
        """Call a function with each element; give results as they come."""
        return self._map(fn, ITEM, iterable, None, chunksize, ordered=False)

    def _map(
        self,
        fn: Callable[..., Any],
        mode: int,
        source: Any,
        timeout: float | None,
        chunksize: int | None,
        ordered: bool,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        _check_map(chunksize, buffersize, ordered)
        until = None if timeout is None else time.monotonic() + timeout
        self._check_open()
        is_background = type(source) in BACKGROUND or getattr(source, "is_background", False)
        is_background = is_background and buffersize is None
        if type(source) in (list, set, dict):
            source = list(source)  # it may be changed before all of it is taken
        iterator = iter(source)
        if chunksize is not None and chunksize > 1:
            fn, mode, iterator = partial(call_each, fn, mode), ITEM, chunks(iterator, chunksize)
        mapping = Mapping(
            self._functions.get(fn),
            mode,
            iterator,
            packer=self._packer,
            n_workers=self.n_workers,
            is_background=is_background,
            ordered=ordered,
            most=buffersize,
            give=self._clients.give,
            help=self._clients.link.help,
            new_key=self._clients.key_for,
            ended=self._clients.mapping_ended,
        )
        self._clients.mappings.add(mapping)
        try:
            mapping.feed()
        except BaseException:
            mapping.abandon()
            raise
        results = mapping.results(until, self)
        weakref.finalize(results, _drop, weakref.ref(mapping)).atexit = False
        return flat(results) if chunksize is not None and chunksize > 1 else results

    # -------------------------------------------------------------------- spreading

    def bcast(self, value: Any) -> Handle:
        """Send a value to every rank once.

        Returns
        -------
        Handle
            Give it as an argument, or use it in a function: on a rank it is the value.
        """
        self._check_open()
        number = self._clients.key()
        self._clients.give(Spread(number, self._packer.pack(value, "the value")))
        return Handle(number, value)

    def share(self, array: Any) -> Handle:
        """Put an array once into the memory of each host, for all ranks there.

        Parameters
        ----------
        array : array_like
            Numbers, of any shape.

        Returns
        -------
        Handle
            Give it as an argument, or use it in a function: on a rank it is the array, read-only, and
            nothing was copied for it.

        Raises
        ------
        UsageError
            It holds Python objects, or is masked, or there is no room for it.
        """
        self._check_open()
        if is_masked(array):
            raise UsageError("share would drop the mask of the array: share data and mask, or use bcast")
        shared, view = share_here(np.asarray(array))
        number = self._clients.key()
        self._clients.shared.append(shared.descriptor)
        self._clients.give(Spread(number, shared))
        return Handle(number, view)

    # ----------------------------------------------------------------------- ending

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; free the ranks once all are done.

        Parameters
        ----------
        wait
            Return only then; not in a callback, for until that returns nothing is done.
        cancel_futures
            Cancel what was not handed out.
        """
        if not self._is_here:
            return
        clients, has_turn = self._clients, self._clients.link.has_turn()
        if cancel_futures:
            clients.cancel()
        elif has_turn:
            clients.close()
        else:
            clients.finish()
        if wait and not has_turn:
            clients.link.join()

    def __enter__(self) -> Executor | None:  # type: ignore[override]
        return self if self._is_here else None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._is_here:
            self.shutdown(cancel_futures=kind is not None and issubclass(kind, KeyboardInterrupt))

    def _check_open(self) -> None:
        if self._clients.error is not None:
            raise self._clients.broken()
        if self._clients.is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")


def _check(
    max_workers: int | None,
    initializer: Any,
    n: int | None,
    timeout_s: Any,
    retries: Any,
) -> None:
    for name, number in (("max_workers", max_workers), ("n", n), ("retries", retries)):
        if not (hasattr(number, "__index__") or (number is None and name != "retries")):
            raise TypeError(f"{name} must be an integer, found {number!r}")
    if not (timeout_s is None or isinstance(timeout_s, Real)):
        raise TypeError(f"timeout_s must be a number of seconds or None, found {timeout_s!r}")
    if max_workers is not None and max_workers <= 0:
        raise ValueError(f"max_workers must be greater than 0, found {max_workers}")
    if n is not None and n <= 0:
        raise ValueError(f"n must be greater than 0, found {n}")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if timeout_s is not None and not 0 < float(timeout_s) < inf:
        raise UsageError(f"timeout_s must be above 0 seconds, or None for no limit, found {timeout_s}")
    if retries < 0:
        raise UsageError(f"retries must be at least 0, found {retries}")


def _drop(mapping: weakref.ref[Mapping]) -> None:
    """Nobody can take the results any more. (What its input raised may refer to them, by its frames.)"""
    found = mapping()
    if found is not None:
        found.drop_results()


def check_chunksize(chunksize: int | None) -> None:
    """Raise TypeError or ValueError if it is none."""
    if not (chunksize is None or hasattr(chunksize, "__index__")):
        raise TypeError(f"chunksize must be an integer, found {chunksize!r}")
    if chunksize is not None and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")


def _check_map(chunksize: int | None, buffersize: int | None, ordered: bool) -> None:
    check_chunksize(chunksize)
    if buffersize is None:
        return
    if not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    if not ordered:
        raise ValueError("buffersize is for results in order: ordered=False takes them as they come")


_open: list[Clients] = []


def _wait_for_closed() -> None:
    """One executor follows another: wait until one that was shut down has ended.

    Raises
    ------
    UsageError
        One was not shut down, or this process was forked of the one that has it.
    """
    for clients in _open:
        if isinstance(clients.link, Nowhere):
            raise UsageError("an Executor in a process that was forked while the program had one")
        if not clients.is_closed and not clients.has_ended:
            raise UsageError("there is an Executor already: shut it down first, or use it for both")
        clients.link.join()


def end_all(*, at_once: bool = False) -> None:
    """End what the program has left open: its calls are made all the same, as by concurrent.futures."""
    for clients in _open:
        if at_once:
            clients.link.give(Abort())
        clients.close()
        clients.link.join()


atexit.register(end_all)


def _disown_all() -> None:
    for clients in _open:
        if not clients.has_ended:
            clients.disown()


os.register_at_fork(after_in_child=_disown_all)
