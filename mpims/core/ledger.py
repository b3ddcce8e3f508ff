"""Which items are pending, assigned and done.

Rules
-----
1. Every item is done, or pending, or in the open part of at least one attempt in force.
2. No item is both pending and done, nor both pending and in the open part of an attempt in force.
3. The open parts of attempts in force do not overlap.
4. The first answer for an item commits; every later one is discarded. It does not matter whether
   the attempt that answers is still in force: an attempt is numbered, never cancelled.
5. Ranges begin and end at multiples of the block, or at the end of the items.

Memory grows with the attempts outstanding and the gaps between what is done, never with the number
of items.
"""

from __future__ import annotations

from mpims.core.events import Range
from mpims.core.ranges import RangeSet


class Attempt:
    """One handing-out of a chunk to a rank; ``[start, stop)`` is what it has still to deliver."""

    __slots__ = ("number", "rank", "start", "stop")

    def __init__(self, number: int, rank: int, start: int, stop: int) -> None:
        self.number = number
        self.rank = rank
        self.start = start
        self.stop = stop


class Ledger:
    """The book of all items of a run, in units of whole blocks."""

    def __init__(self, n_items: int, block: int) -> None:
        self.n_items = n_items
        self.block = block
        self.pending = RangeSet([(0, n_items)])
        self.done = RangeSet()
        self.attempts: dict[int, Attempt] = {}
        self._n_attempts = 0

    @property
    def complete(self) -> bool:
        """Whether every item is done."""
        return self.done.size == self.n_items

    @property
    def n_pending_blocks(self) -> int:
        """How many blocks wait to be handed out."""
        return -(-self.pending.size // self.block)

    def assign(self, rank: int, n_blocks: int) -> Attempt:
        """Hand the first pending items, at most `n_blocks` blocks, to a rank."""
        start, stop = self.pending.take_first(n_blocks * self.block)
        return self._attempt(rank, start, stop)

    def reassign(self, attempt: Attempt, rank: int) -> Attempt:
        """Hand what an attempt has still to deliver to another rank; the attempt is out of force."""
        del self.attempts[attempt.number]
        return self._attempt(rank, attempt.start, attempt.stop)

    def release(self, attempt: Attempt) -> bool:
        """Put an attempt out of force; what only it was to deliver is pending again.

        False if it was out of force already.
        """
        if self.attempts.pop(attempt.number, None) is None:
            return False
        self._return_uncovered(attempt.start, attempt.stop)
        return True

    def revive(self, attempt: Attempt) -> bool:
        """Put a released attempt in force again if all that it has to deliver is still pending."""
        if not self.pending.contains(attempt.start, attempt.stop):
            return False
        self.pending.remove(attempt.start, attempt.stop)
        self.attempts[attempt.number] = attempt
        return True

    def commit(
        self, number: int, start: int, stop: int, units: tuple[Range, ...] | None
    ) -> tuple[Range, ...]:
        """Enter a delivered result; return the ranges of it that are the first answer.

        With `units`, a unit of which any item is done already is discarded whole; see
        `mpims.core.events.ChunkDone`.
        """
        done = self.done
        attempt = self.attempts.get(number)
        if attempt is not None:
            attempt.start = max(attempt.start, stop)
            if stop >= attempt.stop:
                del self.attempts[number]
        fresh: tuple[Range, ...]
        if units is not None:
            fresh = tuple(unit for unit in units if not done.intersects(*unit))
        elif not done.intersects(start, stop):
            fresh = ((start, stop),)
        else:
            fresh = tuple(done.missing(start, stop))
        for a, b in fresh:
            done.add(a, b)
            self.pending.remove(a, b)
        if attempt is not None and units is not None:
            self._return_uncovered(start, stop)
        return fresh

    def _return_uncovered(self, start: int, stop: int) -> None:
        """Make pending again what of a range is not done; rule 3 says that nobody else has it."""
        for a, b in self.done.missing(start, stop):
            self.pending.add(a, b)

    def _attempt(self, rank: int, start: int, stop: int) -> Attempt:
        self._n_attempts += 1
        attempt = Attempt(self._n_attempts, rank, start, stop)
        self.attempts[attempt.number] = attempt
        return attempt

    def check(self) -> None:
        """Assert the rules of this file; for tests, in time linear in what the ledger holds."""
        covered = RangeSet(self.pending)
        assigned = RangeSet()
        for start, stop in self.done:
            assert not self.pending.intersects(start, stop), "pending and done"
            covered.add(start, stop)
        for attempt in self.attempts.values():
            assert not self.pending.intersects(attempt.start, attempt.stop), "pending and assigned"
            assert not assigned.intersects(attempt.start, attempt.stop), "assigned twice"
            assigned.add(attempt.start, attempt.stop)
            covered.add(attempt.start, attempt.stop)
        assert covered.missing(0, self.n_items) == [], "an item is neither pending, assigned nor done"
        for start, stop in (*self.pending, *self.done):
            assert start % self.block == 0, "a range begins within a block"
            assert stop % self.block == 0 or stop == self.n_items, "a range ends within a block"
            assert 0 <= start < stop <= self.n_items, "a range is out of bounds"
