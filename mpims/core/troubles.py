"""Where something went wrong: blocks that failed, and ranges over which a rank died or fell silent.

A *failure* is the user's code raising in a known block. A *strike* is a rank that died, or passed its
deadline, somewhere in a range: what is left of the range is from then on computed in child processes,
so that the block at fault costs no second rank, and is known when it kills the child. That is a
failure too. A block that has failed more often than it may is computed one item at a time.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from operator import attrgetter

from mpims.core.chunks import PLAIN, Care, Range

_start = attrgetter("start")


class Trouble:
    """What happened in the items ``[start, stop)``, not yet done."""

    __slots__ = ("care", "failed_on", "n_failures", "start", "stop")

    def __init__(
        self,
        start: int,
        stop: int,
        care: Care = PLAIN,
        n_failures: int = 0,
        failed_on: frozenset[int] = frozenset(),
    ) -> None:
        self.start = start
        self.stop = stop
        self.care = care
        self.n_failures = n_failures
        self.failed_on = failed_on

    def part(self, start: int, stop: int) -> Trouble:
        """The same trouble of a part of the items."""
        return Trouble(start, stop, self.care, self.n_failures, self.failed_on)


class Troubles(list[Trouble]):
    """Disjoint ranges of trouble in the order of their items."""

    def at(self, item: int) -> Trouble | None:
        """The trouble that an item is in."""
        i = bisect_right(self, item, key=_start) - 1
        return self[i] if i >= 0 and item < self[i].stop else None

    def next_after(self, item: int) -> int | None:
        """Where the first trouble behind an item begins."""
        i = bisect_right(self, item, key=_start)
        return self[i].start if i < len(self) else None

    def strike(self, start: int, stop: int) -> None:
        """A rank died or fell silent within these items."""
        inside = self._cut_out(start, stop)
        at = start
        for trouble in inside:
            self._add(at, trouble.start, Care.ISOLATED)
            trouble.care |= Care.ISOLATED
            insort(self, trouble, key=_start)
            at = trouble.stop
        self._add(at, stop, Care.ISOLATED)

    def fail(self, start: int, stop: int, rank: int) -> Trouble:
        """A block failed on a rank; give its trouble."""
        inside = self._cut_out(start, stop)
        block = Trouble(start, stop)
        for trouble in inside:
            block.care |= trouble.care
            block.n_failures = max(block.n_failures, trouble.n_failures)
            block.failed_on |= trouble.failed_on
        block.n_failures += 1
        block.failed_on |= {rank}
        insort(self, block, key=_start)
        return block

    def settle(self, ranges: tuple[Range, ...]) -> None:
        """These items are done."""
        for start, stop in ranges:
            self._cut_out(start, stop)

    def _add(self, start: int, stop: int, care: Care) -> None:
        if start < stop:
            insort(self, Trouble(start, stop, care), key=_start)

    def _cut_out(self, start: int, stop: int) -> list[Trouble]:
        """Take out what lies in ``[start, stop)``; troubles that reach beyond are cut in two."""
        first = bisect_right(self, start, key=_start) - 1
        if first < 0 or self[first].stop <= start:
            first += 1
        last = first
        kept, inside = [], []
        while last < len(self) and self[last].start < stop:
            trouble = self[last]
            inside.append(trouble.part(max(start, trouble.start), min(stop, trouble.stop)))
            if trouble.start < start:
                kept.append(trouble.part(trouble.start, start))
            if stop < trouble.stop:
                kept.append(trouble.part(stop, trouble.stop))
            last += 1
        self[first:last] = kept
        return inside
