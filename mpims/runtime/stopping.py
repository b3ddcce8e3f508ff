"""How a run hears that it is to stop: signals, counted while the master's loop runs, passed elsewhere."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
IMPATIENT_S = 1.0
"""One Ctrl-C, or `timeout`, can send two signals at once: that is not a second request."""


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Within this, what would stop a run is ignored: it is ending, and will be over soon."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set by C


def leave_signals_to_master() -> None:
    """Let what would stop a run pass in this process: it reaches every rank, and the master decides.

    What the user's code starts ignores SIGINT and SIGUSR1 too, for launchers send them to whole groups of
    processes. SIGTERM ends it as ever: `multiprocessing.Pool` and `Popen.terminate` rely on that.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_signal)  # other than what is ignored it ends with an exec
    signal.siginterrupt(signal.SIGTERM, False)  # no call in the user's C code is to fail of it
    before = threading.local()

    def hold() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def undo() -> None:
        if signal.getsignal(signal.SIGTERM) is pass_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=undo)


def pass_signal(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing."""


class StopSignals:
    """Within its ``with``: the first signal is a request, a second one is KeyboardInterrupt.

    Parameters
    ----------
    end_at, last_s
        When the run is to stop without being asked (monotonic seconds), None if never; and how long it may
        then wait for results.

    Attributes
    ----------
    requested_at
        When the first signal came (monotonic seconds); None if none did.
    """

    def __init__(self, end_at: float | None = None, last_s: float = 0.0) -> None:
        self.end_at = end_at
        self._last_s = last_s
        self.requested_at: float | None = None
        self._before: dict[int, Any] = {}

    def reason(self, now: float) -> str | None:
        """Why the run is to stop; None if it is not."""
        if self.requested_at is not None:
            return "asked to stop"
        return "the time is over" if self.end_at is not None and now >= self.end_at else None

    @property
    def most_grace_s(self) -> float:
        """For how long there is time to wait for results."""
        return inf if self.end_at is None else max(0.0, self.end_at + self._last_s - time.monotonic())

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set by C

    def _heard(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested_at is None:
            self.requested_at = now
        elif now - self.requested_at >= IMPATIENT_S:
            raise KeyboardInterrupt
