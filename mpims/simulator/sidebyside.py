"""Simulated runs side by side: each is sequential, so several keep several cores busy."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import active_children
from typing import Any, TypeVar

from mpims.errors import RunFailed
from mpims.processes import ending_with_parent
from mpims.world import STOP_SIGNAL

T = TypeVar("T")


def compute_all(function: Callable[..., T], cases: Iterable[tuple[Any, ...]], n_processes: int) -> list[T]:
    """Call a function with the arguments of each case.

    Parameters
    ----------
    function
        One of a module; what it is given and gives is pickled.
    cases
        Arguments. They are made as they are needed: not many more than there are processes at a time.
    n_processes
        Processes that compute; with 1 all is done in this one.

    Returns
    -------
    list
        What the function gave, in the order of the cases.

    Raises
    ------
    RunFailed
        A process died. Whatever `function` and `cases` raise comes through. No process is left behind.
    """
    cases = iter(cases)
    first = list(islice(cases, n_processes))
    if len(first) <= 1 or n_processes == 1:
        return [function(*case) for case in chain(first, cases)]
    pool = ProcessPoolExecutor(len(first), initializer=_begin)
    futures: list[Future[T]] = []
    pending: set[Future[T]] = set()
    try:
        for case in chain(first, cases):
            futures.append(pool.submit(function, *case))
            pending.add(futures[-1])
            if len(pending) > len(first):
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()  # or its error, at once
        return [future.result() for future in futures]
    except BrokenProcessPool:
        _stop_feeding(pool)
        raise RunFailed(
            "a process that simulates was killed, perhaps for want of memory: try --processes 1"
        ) from None
    except BaseException:
        for process in active_children():  # a run may last for minutes
            process.terminate()
        _stop_feeding(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _stop_feeding(pool: ProcessPoolExecutor) -> None:
    """End the thread that writes cases into a pipe, which nobody reads any more: the pool waits for it.

    Later versions of Python do so themselves (issue 94777).
    """
    if sys.version_info < (3, 11, 5):
        vars(pool)["_call_queue"]._reader.close()


def _begin() -> None:
    """Leave Ctrl-C and its like to the first process, which ends this one; and do not outlive it."""
    for number in (signal.SIGINT, STOP_SIGNAL):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ending_with_parent(signal.SIGKILL)()
