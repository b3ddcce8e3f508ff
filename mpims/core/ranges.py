"""A set of integers kept as sorted, disjoint, half-open ranges; its memory is its number of gaps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from mpims.core.events import Range


class RangeSet:
    """Integers as sorted disjoint ranges ``[start, stop)``; neighbours that touch are one range.

    Examples
    --------
    >>> s = RangeSet([(0, 10)])
    >>> s.remove(3, 5)
    >>> list(s), s.size
    ([(0, 3), (5, 10)], 8)
    >>> s.missing(2, 7)
    [(3, 5)]
    """

    __slots__ = ("_starts", "_stops", "size")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self.size = 0
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[Range]:
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def __len__(self) -> int:
        return len(self._starts)

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    def add(self, start: int, stop: int) -> None:
        """Put ``[start, stop)`` in."""
        if start >= stop:
            return
        starts, stops = self._starts, self._stops
        first = bisect_left(stops, start)  # the first range that touches or follows
        last = bisect_right(starts, stop)  # one past the last range that touches
        if first < last:
            start = min(start, starts[first])
            stop = max(stop, stops[last - 1])
            self.size -= sum(stops[first:last]) - sum(starts[first:last])
        starts[first:last] = [start]
        stops[first:last] = [stop]
        self.size += stop - start

    def add_new(self, start: int, stop: int) -> bool:
        """Put ``[start, stop)``, not empty, in if nothing of it is in; whether that was so."""
        starts, stops = self._starts, self._stops
        i = bisect_left(stops, start)  # the first range that touches or follows
        n = len(stops)
        touches = i < n and stops[i] == start
        following = i + 1 if touches else i
        if following < n and starts[following] <= stop:
            if starts[following] < stop:
                return False
            if touches:
                stops[i] = stops[following]
                del starts[following], stops[following]
            else:
                starts[i] = start
        elif touches:
            stops[i] = stop
        else:
            starts.insert(i, start)
            stops.insert(i, stop)
        self.size += stop - start
        return True

    def remove(self, start: int, stop: int) -> None:
        """Take ``[start, stop)`` out, as far as it is in."""
        if start >= stop:
            return
        starts, stops = self._starts, self._stops
        first = bisect_right(stops, start)
        last = bisect_left(starts, stop)
        if first >= last:
            return
        left = (starts[first], start) if starts[first] < start else None
        right = (stop, stops[last - 1]) if stop < stops[last - 1] else None
        kept = [r for r in (left, right) if r]
        self.size -= sum(stops[first:last]) - sum(starts[first:last])
        self.size += sum(b - a for a, b in kept)
        starts[first:last] = [a for a, _ in kept]
        stops[first:last] = [b for _, b in kept]

    @property
    def first(self) -> Range:
        """The first range."""
        return self._starts[0], self._stops[0]

    def take_first(self, length: int) -> Range:
        """Take at most `length` integers out of the front of the first range."""
        start, stop = self._starts[0], self._stops[0]
        if stop - start <= length:
            del self._starts[0], self._stops[0]
        else:
            stop = start + length
            self._starts[0] = stop
        self.size -= stop - start
        return start, stop

    def intersects(self, start: int, stop: int) -> bool:
        """Whether any of ``[start, stop)`` is in."""
        first = bisect_right(self._stops, start)
        return start < stop and first < len(self._starts) and self._starts[first] < stop

    def contains(self, start: int, stop: int) -> bool:
        """Whether all of ``[start, stop)`` is in."""
        first = bisect_right(self._stops, start)
        return start >= stop or (
            first < len(self._starts) and self._starts[first] <= start and stop <= self._stops[first]
        )

    def missing(self, start: int, stop: int) -> list[Range]:
        """The parts of ``[start, stop)`` that are not in, in order."""
        gaps = []
        at = start
        for i in range(bisect_right(self._stops, start), bisect_left(self._starts, stop)):
            if at < self._starts[i]:
                gaps.append((at, self._starts[i]))
            at = self._stops[i]
        if at < stop:
            gaps.append((at, stop))
        return gaps
