"""How fast a run is of late, and what is still to be expected of it."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

LEAST_WINDOW_S = 30.0
WINDOW_SHARE = 0.2
"""Of late is the last fifth of the run, and half a minute at the least."""
_MOST_POINTS = 32


class _Point(NamedTuple):
    now: float
    n_done: int
    busy_s: float


class Pace:
    """The rate of a run, measured over its last fifth: items differ, and their costs often drift.

    What was done before the first `add`, by masters before this one, has no part in the rate.
    """

    def __init__(self) -> None:
        self._points: deque[_Point] = deque()
        self._first: _Point | None = None
        self._last = _Point(0.0, 0, 0.0)

    def add(self, now: float, n_done: int, busy_s: float) -> None:
        """At time `now` so many items are done, and all ranks together computed for so long."""
        self._last = point = _Point(now, n_done, busy_s)
        points = self._points
        if self._first is None:
            self._first = point
        window_s = max(LEAST_WINDOW_S, WINDOW_SHARE * (now - self._first.now))
        if not points or now - points[-1].now >= window_s / _MOST_POINTS:
            points.append(point)
        while len(points) > 1 and now - points[1].now >= window_s:
            points.popleft()

    @property
    def rate(self) -> float | None:
        """Items per second; None before the first came back."""
        began = self._began()
        passed_s = self._last.now - began.now
        n_done = self._last.n_done - began.n_done
        return n_done / passed_s if n_done and passed_s > 0 else None

    def left_s(self, n_items: int) -> float | None:
        """How long the rest of so many items will take, if it goes on like this."""
        n_left = n_items - self._last.n_done
        rate = self.rate
        return 0.0 if not n_left else None if rate is None else n_left / rate

    def work(self, n_items: int) -> float | None:
        """The share of the expected work that is done; an item yet to come counts as much as one of late.

        Examples
        --------
        >>> pace = Pace()
        >>> for now, n_done, busy_s in [(0, 0, 0), (40, 50, 10), (80, 60, 40)]:
        ...     pace.add(now, n_done, busy_s)
        >>> pace.work(100)  # 50 items took 10 s, ten took 30 s: 40 like these are 120 s
        0.25
        """
        began, last = self._began(), self._last
        if last.n_done == n_items:
            return 1.0
        n_done, busy_s = last.n_done - began.n_done, last.busy_s - began.busy_s
        if n_done <= 0 or busy_s <= 0:
            return None
        return last.busy_s / (last.busy_s + (n_items - last.n_done) * busy_s / n_done)

    def _began(self) -> _Point:
        """Where the last fifth begins, or the whole run if nothing came back in it."""
        began = self._points[0] if self._points else self._last
        if began.n_done == self._last.n_done and self._first is not None:
            return self._first
        return began
