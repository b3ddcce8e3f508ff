"""What is to happen, in the order of time: a heap of what is near, and buckets of what comes later.

A heap of a hundred thousand events costs a miss of every cache at most of its levels. What is not near is
only put into the bucket of its time, and a bucket becomes the heap when its time has come (R. Brown,
Calendar queues, 1988). Where there are few events all of them are near.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import frexp, inf
from typing import TypeAlias

FEW = 2048
"""Of so many events a heap is as fast."""
_IN_BUCKET = 64
_LEAST_GAP_S = 1e-15

Entry: TypeAlias = tuple[float, int]
"""When (a finite time, not negative), and a key; of two at one time the lesser key comes first."""


class Agenda:
    """Entries to be taken out in their order.

    Parameters
    ----------
    n_entries
        How many there are at a time, about.
    gap_s
        The time between two, about; a wrong one costs time and nothing else.

    Attributes
    ----------
    near
        A heap of all entries before `edge`; where it is empty, `refill` is to be called.
    edge
        Entries before this time belong into it.
    """

    def __init__(self, n_entries: int, gap_s: float) -> None:
        self.near: list[Entry] = []
        self.edge = inf  # of few, all are near
        self._buckets: dict[int, list[Entry]] = {}
        self._keys: list[int] = []  # a heap
        # A power of two: times are multiplied by it without an error, so that buckets keep their order.
        self._per_s = 2.0 ** -frexp(_IN_BUCKET * max(gap_s, _LEAST_GAP_S))[1]
        if n_entries > FEW:
            self.edge = 0.0

    def push(self, entry: Entry) -> None:
        """Put an entry in."""
        if entry[0] < self.edge:
            heappush(self.near, entry)
        else:
            self.push_later(entry)

    def push_later(self, entry: Entry) -> None:
        """Put an entry in that is not before the edge."""
        key = int(entry[0] * self._per_s)
        bucket = self._buckets.get(key)
        if bucket is None:
            self._buckets[key] = [entry]
            heappush(self._keys, key)
        else:
            bucket.append(entry)

    def refill(self) -> bool:
        """Let the first bucket be near, where nothing is; whether there is one."""
        if not self._keys:
            return False
        key = heappop(self._keys)
        self.near += self._buckets.pop(key)
        heapify(self.near)
        self.edge = (key + 1) / self._per_s
        return True
