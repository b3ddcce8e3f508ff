"""A set of integers kept as sorted, disjoint, half-open ranges; its memory is its number of gaps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain

from mpims.core.chunks import Range

MOST_BOUNDS = 2048
"""A page has no more bounds than this: what is put in moves those behind it in its page, and no others."""


class RangeSet:
    """Integers as sorted disjoint ranges ``[start, stop)``; neighbours that touch are one range.

    Starts and stops are in pages, lists in which they take turns: an integer with an odd number of them at
    or below it is in. No range is in two pages.

    Examples
    --------
    >>> s = RangeSet([(0, 10)])
    >>> s.remove(3, 5)
    >>> list(s), s.size
    ([(0, 3), (5, 10)], 8)
    >>> s.missing(2, 7)
    [(3, 5)]
    """

    __slots__ = ("_firsts", "_pages", "size")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._pages: list[list[int]] = [[]]  # none empty, unless it is the only one
        self._firsts = [0]  # the first bound of each page; of an empty one anything
        self.size = 0
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[Range]:
        return iter(_pairs(list(chain.from_iterable(self._pages))))

    def __len__(self) -> int:
        return sum(map(len, self._pages)) // 2

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    def add(self, start: int, stop: int) -> None:
        """Put ``[start, stop)`` in."""
        last_page = self._pages[-1]
        if start < stop and (not last_page or last_page[-1] < start):  # behind all that is in
            if not last_page:
                self._firsts[0] = start
            last_page += (start, stop)
            self.size += stop - start
            if len(last_page) > MOST_BOUNDS:
                self._replace(len(self._pages) - 1, len(self._pages) - 1, last_page)
        elif start < stop:
            n_missing = sum([b - a for a, b in self.missing(start, stop)])
            first, last, bounds = self._gathered(start, stop)
            i, j = bisect_left(bounds, start), bisect_right(bounds, stop)
            bounds[i:j] = [start][i & 1 :] + [stop][j & 1 :]
            self._replace(first, last, bounds)
            self.size += n_missing

    def add_new(self, start: int, stop: int) -> bool:
        """Put ``[start, stop)``, not empty, in if nothing of it is in; whether that was so."""
        firsts = self._firsts
        page = bisect_right(firsts, start) - 1 if len(firsts) > 1 else 0
        if page < 0:
            page = 0
        bounds = self._pages[page]
        i = bisect_left(bounds, start)
        touches = i & 1
        if touches and bounds[i] > start:
            return False
        following = i + touches  # the start of the first range that ends behind
        if following == len(bounds):
            if page + 1 < len(firsts) and firsts[page + 1] <= stop:
                if firsts[page + 1] < stop:
                    return False
                self.add(start, stop)  # it joins two pages
                return True
            if touches:
                bounds[i] = stop
            else:
                bounds += (start, stop)
        elif bounds[following] <= stop:
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
        if i == 0:
            firsts[page] = start
        if len(bounds) > MOST_BOUNDS:
            self._replace(page, page, bounds)
        self.size += stop - start
        return True

    def remove(self, start: int, stop: int) -> None:
        """Take ``[start, stop)`` out, as far as it is in."""
        if start < stop:
            n_missing = sum([b - a for a, b in self.missing(start, stop)])
            first, last, bounds = self._gathered(start, stop)
            i, j = bisect_left(bounds, start), bisect_right(bounds, stop)
            bounds[i:j] = [start][: i & 1] + [stop][: j & 1]
            self._replace(first, last, bounds)
            self.size -= stop - start - n_missing

    @property
    def first(self) -> Range:
        """The first range."""
        bounds = self._pages[0]
        return bounds[0], bounds[1]

    def take_first(self, length: int) -> Range:
        """Take at most `length` integers out of the front of the first range."""
        bounds = self._pages[0]
        start, stop = bounds[0], bounds[1]
        if stop - start <= length:
            del bounds[:2]
            if bounds:
                self._firsts[0] = bounds[0]
            elif len(self._pages) > 1:
                self._replace(0, 0, bounds)
        else:
            self._firsts[0] = bounds[0] = stop = start + length
        self.size -= stop - start
        return start, stop

    def intersects(self, start: int, stop: int) -> bool:
        """Whether any of ``[start, stop)`` is in."""
        page = self._page_of(start)
        bounds = self._pages[page]
        i = bisect_right(bounds, start)
        if i == len(bounds):
            return start < stop and page + 1 < len(self._firsts) and self._firsts[page + 1] < stop
        return start < stop and (i & 1 == 1 or bounds[i] < stop)

    def contains(self, start: int, stop: int) -> bool:
        """Whether all of ``[start, stop)`` is in."""
        bounds = self._pages[self._page_of(start)]
        i = bisect_right(bounds, start)
        return start >= stop or (i & 1 == 1 and stop <= bounds[i])

    def missing(self, start: int, stop: int) -> list[Range]:
        """The parts of ``[start, stop)`` that are not in, in order."""
        if start >= stop:
            return []
        _, _, bounds = self._gathered(start, stop)
        i, j = bisect_right(bounds, start), bisect_left(bounds, stop)
        return _pairs([start][i & 1 :] + bounds[i:j] + [stop][j & 1 :])

    # ----------------------------------------------------------------------- pages

    def _page_of(self, at: int) -> int:
        """The page with the last range that begins at or before `at`; the first if there is none."""
        return max(0, bisect_right(self._firsts, at) - 1)

    def _gathered(self, start: int, stop: int) -> tuple[int, int, list[int]]:
        """The first and the last page of what is, or touches, ``[start, stop)``, and the bounds in them."""
        first, last = self._page_of(start), self._page_of(stop)
        if first == last:
            return first, last, self._pages[first]
        return first, last, list(chain.from_iterable(self._pages[first : last + 1]))

    def _replace(self, first: int, last: int, bounds: list[int]) -> None:
        """Put bounds in the place of these pages: in one, or in several half full if they do not fit."""
        length = len(bounds)
        if length > MOST_BOUNDS:
            length = -(-length // -(-2 * length // MOST_BOUNDS))
            length += length & 1
        pages = [bounds[i : i + length] for i in range(0, len(bounds), length)] if bounds else []
        if not pages and len(self._pages) == last - first + 1:
            pages = [[]]
        self._pages[first : last + 1] = pages
        self._firsts[first : last + 1] = [page[0] if page else 0 for page in pages]


def _pairs(bounds: list[int]) -> list[Range]:
    return list(zip(bounds[::2], bounds[1::2], strict=True))
