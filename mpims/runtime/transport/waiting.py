"""How to wait for a message: spin while answers come fast, give the core away when they do not.

A plain sleeping poll makes single hand-outs fifty times slower, because both sides sleep past each
other; a blocking call burns the core that a worker needs. So: spin with yields for a moment that
depends on how often messages come, then sleep in doubling steps, never longer than a small part of
the usual gap between messages, so that what a sleep adds to an answer is small against the work.
While nobody waits for an answer it is one sleep, after which several messages may be there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Event

FAST_GAP_S = 2e-3
"""Messages that come more often than this are worth a long spin ..."""
BUSY_GAP_S = 100e-6
"""... and more often than this a spin even if nobody waits for an answer: to wake up costs as much."""
LONG_SPIN_S = 300e-6
SHORT_SPIN_S = 20e-6
FIRST_SLEEP_S = 50e-6
LONGEST_SLEEP_S = 20e-3
GAP_FRACTION = 1 / 20
"""A sleep is at most this part of the mean gap, or of the time waited already if that is longer."""
MOVING_SPIN_S = 0.1
"""A large message moves only while MPI is called: so long it is done all the time, then often."""
_MEMORY = 0.2
_LONGEST_GAP_S = 1.0


class Waiting:
    """The waiting of one rank; remembers how often messages come.

    Parameters
    ----------
    clock, sleep, give_way
        The time in seconds, and what passes it; others than the system's for tests.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        give_way: Callable[[], None] = os.sched_yield,
    ) -> None:
        self._clock = clock
        self._sleep = self._sleep_deaf = sleep
        self._bell: Event | None = None
        self._give_way = give_way
        self._mean_gap_s = FAST_GAP_S / 2
        self._last = clock()
        self._began = self._last
        self._sleep_s = FIRST_SLEEP_S

    def arrived(self) -> None:
        """A message is there."""
        now = self._clock()
        gap = min(now - self._last, _LONGEST_GAP_S)
        self._last = now
        self._mean_gap_s += _MEMORY * (gap - self._mean_gap_s)

    @property
    def bell(self) -> Event | None:
        """What ends a wait when another thread sets it."""
        return self._bell

    @bell.setter
    def bell(self, bell: Event | None) -> None:
        """Listen to this one; None: to none."""
        self._bell = bell
        self._sleep = self._sleep_deaf if bell is None else bell.wait  # type: ignore[assignment]

    def begin(self) -> None:
        """A new wait begins."""
        self._began = self._clock()
        self._sleep_s = FIRST_SLEEP_S

    def pause(
        self, timeout_s: float, slack_s: float = 0.0, *, spins: bool = False, is_moving: bool = False
    ) -> bool:
        """Let some time pass between two looks; False once `timeout_s` is over, or the bell was rung.

        For `slack_s` seconds nobody waits for an answer. With `spins` the core is never given away;
        `is_moving` says that a large message is under way.
        """
        bell = self._bell
        if bell is not None and bell.is_set():
            bell.clear()
            return False
        waited = self._clock() - self._began
        if waited >= timeout_s:
            return False
        if spins:
            return True
        if is_moving:
            if waited < MOVING_SPIN_S:
                self._give_way()
            else:
                self._sleep(min(FIRST_SLEEP_S, timeout_s - waited))
            return True
        is_fast = self._mean_gap_s < FAST_GAP_S
        if slack_s > FAST_GAP_S and self._mean_gap_s > BUSY_GAP_S:
            self._sleep(min(slack_s, timeout_s - waited))
            return True
        if waited < (LONG_SPIN_S if is_fast else SHORT_SPIN_S):
            self._give_way()
            return True
        gap_s = max(self._mean_gap_s, waited)
        longest = max(FIRST_SLEEP_S, min(LONGEST_SLEEP_S, gap_s * GAP_FRACTION))
        self._sleep(min(self._sleep_s, longest, timeout_s - waited))
        self._sleep_s *= 2
        return True
