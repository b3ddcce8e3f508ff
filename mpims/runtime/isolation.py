"""Blocks computed in a child process: one at fault kills or hangs the child, and not the rank.

    rank                                                  child

    IsolatedBlocks() ───────────── fork ────────────────▶ compute(0, 4)
    poll() BlockDone(0, 4) ◀────── frame ──────────────── compute(4, 8)
    poll() BlockDone(4, 8) ◀────── frame ──────────────── compute(8, 12) raises
    poll() BlockRaised(8, 12) ◀─── frame
           BlockDied(8, 12) ◀───── exit status ────────── compute(8, 12) kills the child
    kill() ─────────────────────── SIGKILL ─────────────▶ compute(8, 12) does not return

A forked child has all that the rank has at the fork, so nothing is pickled to get in; what it changes
stays in it. It announces nothing: blocks are computed in order, and the one under way is the first
that is not answered.

It has the forking thread only. A library whose own threads have run in the rank may hang in
it, as a GPU's may fail: that looks like a block at fault. For these the child can be a new Python.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, TypeAlias

from mpims.errors import describe, user_traceback
from mpims.processes import ending_with_parent
from mpims.runtime.forkedchild import HEARD_BY_ALL, Compute, run_child
from mpims.runtime.frames import Frame, FrameReader
from mpims.runtime.spawnedchild import Order, spawn
from mpims.runtime.wire import decode_object
from mpims.streams import flush_output

LOOK_INTERVAL_S = 50e-3
"""A process that the child left behind can hold the pipe open: a death is looked for this often."""
EXIT_INTERVAL_S = 1e-3
"""The same where the pipe is closed, and the child about to be gone."""
REAP_INTERVAL_S = 0.2e-3
MAX_REAP_S = 1.0
"""A killed child is waited for this long: one that waits for a dead file system does not go away."""

_unreaped: list[int] = []


class BlockDone(NamedTuple):
    """The results of items ``[start, stop)``, and the time that they took."""

    start: int
    stop: int
    results: Any
    busy_s: float


class BlockRaised(NamedTuple):
    """The user's code raised on items ``[start, stop)``; the child is over."""

    start: int
    stop: int
    reason: str
    detail: str


class BlockDied(NamedTuple):
    """The child died on items ``[start, stop)``."""

    start: int
    stop: int
    reason: str


class BlockHung(NamedTuple):
    """Items ``[start, stop)`` did not come in time: for whoever polls to say."""

    start: int
    stop: int
    reason: str


BlockOutcome: TypeAlias = BlockDone | BlockRaised | BlockDied | BlockHung


class IsolatedBlocks:
    """A child that computes blocks one after another and sends back each as it is done.

    Make it in a thread that lives as long as the rank: on Linux the child ends with that thread.

    Parameters
    ----------
    compute
        Called in a forked child with start and stop; gives the results of a block, an array or anything
        that can be pickled. Or an order, of which a new Python makes this.
    blocks
        Start and stop of each.

    Attributes
    ----------
    is_forked
        Whether it is no new Python.
    is_ready
        Whether the child has begun with the first block, as far as `poll` has seen.

    Raises
    ------
    OSError
        There is no room for another process.
    """

    def __init__(self, compute: Compute | Order, blocks: Sequence[tuple[int, int]]) -> None:
        self._blocks = tuple(blocks)
        self._n_answered = 0
        self.is_forked = self.is_ready = not isinstance(compute, Order)
        self._is_over = False
        self._pid: int | None = None
        self._end: str | None = None
        _unreaped[:] = [pid for pid in _unreaped if _how_it_ended(pid) is None]
        read_end, write_end = os.pipe()
        self._pipe = open(read_end, "rb", buffering=0)  # noqa: SIM115 - closed by kill()
        os.set_blocking(read_end, False)
        self._frames = FrameReader(self._pipe)
        self._poller = select.poll()
        self._poller.register(read_end, select.POLLIN)
        with ExitStack() as undone:
            undone.callback(self.kill)
            try:
                if isinstance(compute, Order):
                    self._pid = spawn(compute, self._blocks, write_end)
                else:
                    self._fork(compute, write_end)
            finally:
                os.close(write_end)
            undone.pop_all()
        if not self._blocks:
            self.kill()

    def _fork(self, compute: Compute, write_end: int) -> None:
        def prepare() -> Compute:
            self._pipe.close()  # the rank's end
            return compute

        rank, end_with_rank = os.getpid(), ending_with_parent(signal.SIGKILL)
        flush_output()  # or the child would print it again
        # A signal between the fork and the child's own handlers would raise in the rank's code.
        with _held_signals():
            with _held_handlers():
                self._pid = _fork_quietly() or None
            if self._pid is None:
                run_child(prepare, self._blocks, write_end, rank, end_with_rank)

    def __enter__(self) -> IsolatedBlocks:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def over(self) -> bool:
        """Whether no outcome follows: all are there, or one was bad, or the child was killed."""
        return self._is_over

    @property
    def current(self) -> tuple[int, int] | None:
        """The block under way, as far as `poll` has seen; None if it is over."""
        return None if self._is_over else self._blocks[self._n_answered]

    def poll(self, timeout_s: float) -> BlockOutcome | None:
        """The next outcome; None if there is none within `timeout_s`, or if it is over.

        A large result comes in over several calls.
        """
        until = time.monotonic() + timeout_s
        while not self._is_over:
            outcome = self._look()
            left_s = until - time.monotonic()
            if outcome is not None or left_s <= 0:
                return outcome
            self._wait(left_s)
        return None

    def kill(self) -> None:
        """End the child, whatever it does; nothing happens if it has ended."""
        self._is_over = True
        self._pipe.close()
        pid, self._pid = self._pid, None
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _reap(pid)

    def _wait(self, timeout_s: float) -> None:
        if self._frames.ended:  # where waiting for more would return at once
            time.sleep(min(timeout_s, EXIT_INTERVAL_S))
        else:
            self._poller.poll(1e3 * min(timeout_s, LOOK_INTERVAL_S))

    def _look(self) -> BlockOutcome | None:
        """Read what has come. It is first asked whether the child lives: what it sent is then there."""
        if self._pid is not None:
            self._end = _how_it_ended(self._pid)
            if self._end is not None:
                self._pid = None
        try:
            frame = self._frames.read()
        except MemoryError as error:
            return self._raised(f"its results do not fit into memory: {describe(error)}")
        if frame is not None:
            return self._answered(frame)
        if self._end is not None and self._frames.is_drained:
            start, stop = self._blocks[self._n_answered]
            self.kill()
            return BlockDied(start, stop, self._end)
        return None

    def _answered(self, frame: Frame) -> BlockOutcome | None:
        if not frame.buffers:
            self.is_ready = True
            return None
        start, stop = self._blocks[self._n_answered]
        try:
            value = decode_object(frame.buffers)
        except Exception as error:  # whatever an object of the user's raises when it is unpickled
            reason = f"a result cannot be unpickled: {describe(error)}"
            return self._raised(reason, user_traceback(error))
        if not frame.is_done:
            return self._raised(*value)
        self._n_answered += 1
        if self._n_answered == len(self._blocks):
            self.kill()
        return BlockDone(start, stop, value, frame.busy_s)

    def _raised(self, reason: str, detail: str = "") -> BlockRaised:
        start, stop = self._blocks[self._n_answered]
        self.kill()
        return BlockRaised(start, stop, reason, detail)


def _how_it_ended(pid: int) -> str | None:
    """Reap a child if it has ended, and say how; None if it lives."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # SIGCHLD is ignored, or another waits for any child
        return "ended; its exit status was lost"
    if not ended:
        return None
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"left with exit status {code} (os._exit, exit() in C, STOP in Fortran)"
    with suppress(ValueError):  # some numbers have no name
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"killed by signal {-code}"


def _reap(pid: int) -> None:
    """Wait until a killed child is gone; one that stays is reaped when the next is made."""
    until = time.monotonic() + MAX_REAP_S
    while _how_it_ended(pid) is None:
        if time.monotonic() >= until:
            _unreaped.append(pid)
            return
        time.sleep(REAP_INTERVAL_S)


@contextmanager
def _held_signals() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD_BY_ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _held_handlers() -> Iterator[None]:
    """Have Python's handlers wait too: for what another thread hears, they run in the main thread.

    One that raised between the fork and the keeping of the child's number would lose the child.
    """
    with ExitStack() as told, ExitStack() as restored:
        if threading.current_thread() is threading.main_thread():
            for number in HEARD_BY_ALL:
                handler = signal.getsignal(number)
                if callable(handler):
                    restored.callback(signal.signal, number, handler)
                    signal.signal(number, lambda number, _: told.callback(signal.raise_signal, number))
        yield


def _fork_quietly() -> int:
    """Fork; Python 3.12 and later warn where there are threads, and the child needs none of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"This process .* is multi-threaded", DeprecationWarning)
        return os.fork()
