"""An executor in a program that no launcher started: its ranks are started here, and end with it.

::

    program                    launcher
      Executor                   rank 0: TaskMaster          ranks 1 ... n: TaskWorker
        LocalLink --orders-->      (mpims.executor.__main__)
                  <--results--
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from threading import Event, Thread, current_thread
from typing import Any

from mpims.errors import UsageError, unforeseen, user_traceback
from mpims.executor.channel import Channel
from mpims.executor.errors import ExecutorBroken
from mpims.executor.orders import Customer, Order
from mpims.launch import command_here, ranks_to_start
from mpims.slurm.allocation import find_allocation
from mpims.streams import say
from mpims.supervise import (
    KILLED,
    LACKING_S,
    MOST_STARTS,
    end_launcher,
    kill_left,
    kill_marked,
    lacks_ranks,
    start_launcher,
    temporary_files,
)

SOCKET = "MPIMS_EXECUTOR"
"""The environment variable by which rank 0 finds the program, and the program all that it has started."""
_START_S = 120.0
_POLL_S = 0.2
_ENDING_S = 15.0
_KILLING_S = 3.0


class LocalLink:
    """The way to a master that was started here.

    Parameters
    ----------
    customer
        Whom the results are for.
    n
        How many ranks compute; None: one for each core, or for each task of the allocation.

    Raises
    ------
    UsageError
        There is no MPI, no place for temporary files, or the ranks do not start.
    """

    def __init__(
        self,
        customer: Customer,
        n: int | None,
        *,
        timeout_s: float | None,
        n_retries: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.n_workers, n_ranks = how_many(n)
        self._customer = customer
        with temporary_files():
            scratch = TemporaryDirectory(prefix="mpims-")
        with scratch as folder:  # once rank 0 is there nothing is left of it, however the program ends
            self._channel = Channel(self._start_ranks(n_ranks, os.path.join(folder, "socket")))
        self._channel.send({"timeout_s": timeout_s, "n_retries": n_retries, "settings": dict(settings)})
        self._is_over = Event()  # and not the thread's own `join`, see `TaskThread`
        self._thread = Thread(target=self._listen, name="mpims results", daemon=True)
        self._thread.start()

    def give(self, order: Order) -> None:
        """Pass an order on."""
        self._channel.send(order)

    def help(self, is_there: Callable[[], bool], until: float) -> None:
        """Do nothing: the master is elsewhere."""

    def has_turn(self) -> bool:
        """Whether this thread takes results in."""
        return current_thread() is self._thread

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the master and all ranks have ended; whether they have."""
        return self._is_over.wait(timeout_s)

    def _start_ranks(self, n_ranks: int, path: str) -> socket.socket:
        """Start the ranks, again if some are killed at once; give the way to rank 0."""
        self._mark = f"{SOCKET}={path}".encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.bind(path)
            door.listen(1)
            for n_left in reversed(range(MOST_STARTS)):
                self._launcher = _start(n_ranks, path)
                try:
                    end = self._accept(door, may_start_again=n_left > 0)
                except BaseException:
                    self._end_ranks(0.0)
                    raise
                if end is not None:
                    break
                self._end_ranks(0.0)
                say("a rank of the Executor was killed before it had begun: all are started again")
        assert end is not None
        return end

    def _accept(self, door: socket.socket, *, may_start_again: bool) -> socket.socket | None:
        """Wait for rank 0; None if it will not come, for a rank was killed, and is worth another try."""
        began = whole_at = time.monotonic()
        while not select.select([door], [], [], _POLL_S)[0]:
            now, status = time.monotonic(), self._launcher.poll()
            if status in KILLED and may_start_again:
                return None
            if status is not None:
                raise UsageError(
                    f"the ranks of the Executor did not start: the launcher ended with {status}"
                )
            if not lacks_ranks(self._launcher.pid):
                whole_at = now
            elif now - whole_at > LACKING_S:  # the others wait for it for ever
                self._launcher.kill()
            if now - began > _START_S:
                raise UsageError(f"the ranks of the Executor did not start within {_START_S:g} s")
        return door.accept()[0]

    def _listen(self) -> None:
        """Take in what the master says until it has ended."""
        error: Any = None
        try:
            while True:
                what, *about = self._channel.receive()
                if what == "delivered":
                    self._customer.delivered(*about)
                elif what == "started":
                    self._customer.started(*about)
                elif what == "cancel_rest":
                    self._customer.cancel_rest()
                else:
                    error = about[0]
                    break
        except EOFError:
            with suppress(TimeoutExpired):
                self._launcher.wait(_POLL_S)
            error = ExecutorBroken(f"its ranks have ended (launcher: {self._launcher.poll()})")
        except BaseException as failure:  # the top of a thread: whoever waits must not do so for ever
            error = unforeseen(failure, user_traceback(failure))
            self._channel.close()
        try:
            self._customer.ended(error)
            self._end_ranks(_ENDING_S)
        finally:
            self._is_over.set()

    def _end_ranks(self, patience_s: float) -> None:
        launcher = self._launcher
        until = time.monotonic() + patience_s
        while launcher.poll() is None and time.monotonic() < until:
            with suppress(TimeoutExpired):
                launcher.wait(_POLL_S)
                break
            kill_left(launcher.pid, self._mark)
        end_launcher(launcher, _KILLING_S)
        kill_marked(self._mark)


def how_many(n: int | None) -> tuple[int, int]:
    """Ranks that compute, and ranks to be started."""
    allocation = find_allocation(os.environ)
    if allocation is not None and (n is not None or allocation.n_tasks > 1):
        n_ranks = ranks_to_start(None if n is None else n + 1, allocation) or 2
        return n_ranks - 1, n_ranks
    n = n or len(os.sched_getaffinity(0))
    return n, n + 1


def _start(n_ranks: int, path: str) -> Popen[bytes]:
    program = [sys.executable, "-m", "mpims.executor"]
    return start_launcher(command_here(n_ranks, program, tells_status=True), {SOCKET: path})
