"""The way of an executor to ranks that compute: those of the program's own world, or ones it starts."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from mpims.errors import UsageError
from mpims.executor import serving
from mpims.executor.orders import Customer, Link
from mpims.runtime.stopping import leave_signals_to_master
from mpims.runtime.transport.base import Transport
from mpims.session import connect, dismiss_workers

_dismissing = False


def connect_executor(
    customer: Customer,
    *,
    max_workers: int | None,
    n: int | None,
    timeout_s: float | None,
    n_retries: int,
    settings: Mapping[str, Any],
    exit_workers: bool,
) -> Link | None:
    """Begin to compute for a customer; None on a rank that has served, and is to go on with the program.

    Raises
    ------
    UsageError
        This is a task of an executor, or there are no ranks to compute.
    """
    if serving.is_worker:
        raise UsageError(
            "an Executor within a task: tasks cannot hand out tasks; return what is to be done "
            '(in a module that a task imports it stands under `if __name__ == "__main__":`)'
        )
    transport = connect(share=not serving.is_script, threads=True)
    if transport is None:
        from mpims.executor.local import LocalLink

        return LocalLink(
            customer,
            n or max_workers,
            timeout_s=timeout_s,
            n_retries=n_retries,
            settings=settings,
        )
    transport.check_free("an Executor")
    if transport.rank != 0:
        from mpims.executor.taskworker import serve_tasks

        if exit_workers and threading.current_thread() is threading.main_thread():
            leave_signals_to_master()  # a rank that is to go on with the program has the program's
        status = serve_tasks(transport, once=not exit_workers)
        if exit_workers or status:
            raise SystemExit(status)
        return None
    _dismiss_at_exit(transport)  # also where what follows is refused: they serve by now
    if n is not None and n != transport.size - 1:
        raise UsageError(
            f"n={n} under a launcher that started {transport.size} ranks, of which {transport.size - 1} "
            "compute: leave n out, or start the program without a launcher"
        )
    from mpims.executor.taskmaster import TaskThread
    from mpims.runtime.transport.mpi import thread_level

    if thread_level() not in ("serialized", "multiple"):
        raise UsageError(
            f"MPI was initialised for one thread ({thread_level()}), by mpims.run if not by the program: "
            "import mpi4py.MPI where the program begins, and leave mpi4py.rc.thread_level as it is"
        )
    return TaskThread(
        customer,
        transport,
        max_workers=max_workers,
        timeout_s=timeout_s,
        n_retries=n_retries,
        settings=settings,
    )


def _dismiss_at_exit(transport: Transport) -> None:
    """Let the other ranks go when the program ends or finalises MPI, unless whoever runs it does so."""
    global _dismissing
    transport.leave = partial(dismiss_workers, transport)
    if not (_dismissing or serving.is_script):
        _dismissing = True
        atexit.register(dismiss_workers, transport)
