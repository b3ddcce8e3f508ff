"""Whose turn it is to drive a master: its own thread's, or that of a thread that waits for a result.

To pass a result from thread to thread takes longer than to compute many a task. So a thread that waits
drives the master itself until it has what it waits for; the master's own thread rests meanwhile, and a
moment longer, for the next wait comes soon. There is one at a time.
"""

from __future__ import annotations

import signal
import threading
import time
from _signal import getsignal  # type: ignore[import-not-found]  # that of `signal` takes a microsecond
from collections.abc import Callable
from functools import partial
from math import inf
from types import FrameType
from typing import Any, TypeAlias

REST_S = 3e-3
"""The master's thread rests for so long after another has driven it ..."""
LONG_REST_S = 15e-3
"""... and looks so often whether it still does."""
_HANDOVER_S = 2.0
_DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1)
_ALARM, _INTERRUPT = int(signal.SIGALRM), int(signal.SIGINT)
"""Those that programs catch to go on: for new handlers of these alone it is looked at each wait."""

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


class Bell(threading.Event):
    """Ends a wait; a signal's handler may ring it, too."""

    def __init__(self) -> None:
        super().__init__()
        self._is_struck = False

    def strike(self) -> None:
        """Ring in a handler: whoever waits hears it at its next look.

        `set` takes a lock, which the interrupted thread may have just then: it would wait for ever.
        """
        self._is_struck = True

    def is_set(self) -> bool:
        return self._is_struck or super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(timeout) or self._is_struck

    def clear(self) -> None:
        self._is_struck = False
        super().clear()


class Turns:
    """Lets threads drive one after another, once the master has begun.

    Parameters
    ----------
    drive
        One turn, of at most so many seconds; takes orders first.
    take_orders
        Only that.
    ended
        Whether there is nothing more to drive.
    spoil
        Called when a turn was broken off.
    bell
        Ends a turn that waits.
    """

    def __init__(
        self,
        drive: Callable[[float], None],
        take_orders: Callable[[], None],
        ended: Callable[[], bool],
        spoil: Callable[[], None],
        bell: Bell,
    ) -> None:
        self._drive, self._take_orders, self._ended, self._bell = drive, take_orders, ended, bell
        self._spoil = spoil
        self._deferred: list[tuple[Handler, int]] = []
        self._main = threading.main_thread().ident
        self._on_alarm: Any = None
        self._on_interrupt: Any = None
        self._lock = threading.Lock()
        self._lock.acquire()  # until the master has begun
        self._driver: int | None = None  # the thread that has its turn now
        self._helper: int | None = None  # the one that helps
        self._helped_at = -inf
        self._is_resting = False
        self._careful: set[int] = set()  # threads that hold the lock, or are about to

    def open(self) -> None:
        """The master has begun."""
        self._lock.release()

    def run(self, timeout_s: float) -> None:
        """Drive in the master's own thread, whenever nobody helps, until the end."""
        self.open()
        while not self._ended():
            if self._helper is not None or time.monotonic() - self._helped_at < REST_S:
                self._is_resting = True
                time.sleep(REST_S if self._helper is None else LONG_REST_S)
                self._is_resting = False
                continue
            with self._lock:
                self._guarded(self._drive, timeout_s)

    def ring(self) -> None:
        """There are orders: see to it that they are taken."""
        me = threading.get_ident()
        if me in self._careful:
            self._bell.set()
            return
        self._careful.add(me)
        try:
            if self._is_resting and self._driver is None and self._lock.acquire(blocking=False):
                self._take_orders_now()
            else:
                self._bell.set()
        finally:
            self._careful.discard(me)
        self._hear_deferred()

    def _take_orders_now(self) -> None:
        try:
            self._guarded(self._take_orders)
        finally:
            self._helped_at = time.monotonic()
            self._lock.release()

    def help(self, is_there: Callable[[], bool], until: float) -> None:
        """Drive in this thread until something is there, or that time (monotonic seconds).

        It may return before: another thread helps, or it is over.
        """
        me = threading.get_ident()
        if self._helper is not None or self._driver == me:
            return
        if me == self._main and (
            getsignal(_ALARM) is not self._on_alarm or getsignal(_INTERRUPT) is not self._on_interrupt
        ):
            self.guard_signals()  # the program has a new handler
        self._helper = me
        self._careful.add(me)
        try:
            if not self._lock.acquire(blocking=False):
                self._bell.set()
                if not self._lock.acquire(timeout=_HANDOVER_S):
                    return
            try:
                self._drive_until(is_there, until)
            finally:
                self._lock.release()
        finally:
            self._helper, self._helped_at = None, time.monotonic()
            self._careful.discard(me)
        self._hear_deferred()

    def are_mine(self) -> bool:
        """Whether this thread has its turn."""
        return self._driver == threading.get_ident()

    def _drive_until(self, is_there: Callable[[], bool], until: float) -> None:
        if self._bell.is_set():
            self._bell.clear()
        while not (is_there() or self._ended() or self._deferred):
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            self._guarded(self._drive, left_s)

    def _guarded(self, work: Callable[..., None], *arguments: float) -> None:
        """Do a piece of the master's work; it must not be left half done."""
        self._driver = threading.get_ident()
        try:
            if not self._ended():
                work(*arguments)
        except BaseException:
            self._spoil()
            raise
        finally:
            self._driver = None

    # --------------------------------------------------------------------- signals

    def guard_signals(self) -> None:
        """Hear signals only while this thread has no turn: their handlers may raise, in the main thread.

        What they raise between the taking of a lock and the line after it would keep that lock for ever.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _DEFERRED:
            handler = signal.getsignal(number)
            if callable(handler) and not self._is_ours(handler):
                signal.signal(number, partial(self._hear, handler))
        self._on_alarm, self._on_interrupt = getsignal(_ALARM), getsignal(_INTERRUPT)

    def unguard_signals(self) -> None:
        """Hear them as before, as far as nobody else has changed that."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _DEFERRED:
            handler = signal.getsignal(number)
            if isinstance(handler, partial) and self._is_ours(handler):
                signal.signal(number, handler.args[0])

    def _is_ours(self, handler: Any) -> bool:
        return isinstance(handler, partial) and handler.func == self._hear

    def _hear(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        if threading.get_ident() in self._careful:
            self._deferred.append((handler, number))
            self._bell.strike()
        else:
            handler(number, frame)

    def _hear_deferred(self) -> None:
        while self._deferred:
            handler, number = self._deferred.pop(0)
            handler(number, None)
