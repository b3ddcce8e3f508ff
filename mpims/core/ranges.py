"""A set of integers kept as sorted, disjoint, half-open ranges; its memory is its number of gaps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from mpims.core.events import Range


class RangeSet:
    """Integers as sorted disjoint ranges ``[start, stop)``; neighbours that touch are one range.

    Starts and stops are in one list, in turn: an integer with an odd number of them at or below it is in.

    Examples
    --------
    >>> s = RangeSet([(0, 10)])
    >>> s.remove(3, 5)
    >>> list(s), s.size
    ([(0, 3), (5, 10)], 8)
    >>> s.missing(2, 7)
    [(3, 5)]
    """

    __slots__ = ("_bounds", "size")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._bounds: list[int] = []
        self.size = 0
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[Range]:
        return iter(_pairs(self._bounds))

    def __len__(self) -> int:
        return len(self._bounds) // 2

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    def add(self, start: int, stop: int) -> None:
        """Put ``[start, stop)`` in."""
        if start < stop:
            n_missing = sum([b - a for a, b in self.missing(start, stop)])
            bounds = self._bounds
            i, j = bisect_left(bounds, start), bisect_right(bounds, stop)
            bounds[i:j] = [start][i & 1 :] + [stop][j & 1 :]
            self.size += n_missing

    def add_new(self, start: int, stop: int) -> bool:
        """Put ``[start, stop)``, not empty, in if nothing of it is in; whether that was so."""
        bounds = self._bounds
        i = bisect_left(bounds, start)
        touches = i & 1
        if touches and bounds[i] > start:
            return False
        following = i + touches  # the start of the first range that ends behind
        if following < len(bounds) and bounds[following] <= stop:
            if bounds[following] < stop:
                return False
            if touches:
                del bounds[i : i + 2]
            else:
                bounds[i] = start
        elif touches:
            bounds[i] = stop
        else:
            bounds[i:i] = (start, stop)
        self.size += stop - start
        return True

    def remove(self, start: int, stop: int) -> None:
        """Take ``[start, stop)`` out, as far as it is in."""
        if start < stop:
            n_missing = sum([b - a for a, b in self.missing(start, stop)])
            bounds = self._bounds
            i, j = bisect_left(bounds, start), bisect_right(bounds, stop)
            bounds[i:j] = [start][: i & 1] + [stop][: j & 1]
            self.size -= stop - start - n_missing

    @property
    def first(self) -> Range:
        """The first range."""
        return self._bounds[0], self._bounds[1]

    def take_first(self, length: int) -> Range:
        """Take at most `length` integers out of the front of the first range."""
        bounds = self._bounds
        start, stop = bounds[0], bounds[1]
        if stop - start <= length:
            del bounds[:2]
        else:
            bounds[0] = stop = start + length
        self.size -= stop - start
        return start, stop

    def intersects(self, start: int, stop: int) -> bool:
        """Whether any of ``[start, stop)`` is in."""
        bounds = self._bounds
        i = bisect_right(bounds, start)
        return start < stop and (i & 1 == 1 or (i < len(bounds) and bounds[i] < stop))

    def contains(self, start: int, stop: int) -> bool:
        """Whether all of ``[start, stop)`` is in."""
        i = bisect_right(self._bounds, start)
        return start >= stop or (i & 1 == 1 and stop <= self._bounds[i])

    def missing(self, start: int, stop: int) -> list[Range]:
        """The parts of ``[start, stop)`` that are not in, in order."""
        if start >= stop:
            return []
        i, j = bisect_right(self._bounds, start), bisect_left(self._bounds, stop)
        return _pairs([start][i & 1 :] + self._bounds[i:j] + [stop][j & 1 :])


def _pairs(bounds: list[int]) -> list[Range]:
    return list(zip(bounds[::2], bounds[1::2], strict=True))
