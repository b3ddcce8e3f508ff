"""Which items are pending, assigned and done.

Rules
-----
1. Every item is done, or pending, or in the open part of at least one attempt in force.
2. No item is both pending and done, nor both pending and in the open part of an attempt in force.
3. An item is in the open parts of at most two attempts in force, a twin each of the other, on
   different ranks.
4. The first answer for an item commits; every later one is discarded. It does not matter whether
   the attempt that answers is still in force: an attempt is numbered, never cancelled.
5. Ranges begin and end at multiples of the block, or at the end of the items.
6. Nothing that is done is in trouble; see `mpims.core.troubles`.

Memory grows with the attempts outstanding, the gaps between what is done, and what is in trouble,
never with the number of items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mpims.core.chunks import PLAIN, Care, Held, Range
from mpims.core.ranges import RangeSet
from mpims.core.troubles import Trouble, Troubles

ATTEMPTS_PER_MASTER = 1 << 32
"""Each master numbers its attempts from another multiple of this on."""


class Attempt:
    """One handing-out of a chunk to a rank; ``[start, stop)`` is what it has still to deliver."""

    __slots__ = ("care", "number", "rank", "start", "stop", "twin")

    def __init__(self, number: int, rank: int, start: int, stop: int, care: Care = PLAIN) -> None:
        self.number = number
        self.rank = rank
        self.start = start
        self.stop = stop
        self.care = care
        self.twin: Attempt | None = None  # in force for the same items on another rank


class Ledger:
    """The book of all items of a run, in units of whole blocks.

    Parameters
    ----------
    n_items, block
        The items, and how many of them make a block.
    done
        What was done before: whole blocks.
    first_attempt
        Attempts are numbered from here on: no number is used twice in a run, whoever its master is.
    is_open
        Whether items may still be added.
    """

    def __init__(
        self,
        n_items: int,
        block: int,
        *,
        done: Iterable[Range] = (),
        first_attempt: int = 1,
        is_open: bool = False,
    ) -> None:
        self.n_items = n_items
        self.is_open = is_open
        self.block = block
        self.done = RangeSet(done)
        self.pending = RangeSet(self.done.missing(0, n_items))
        self.troubles = Troubles()
        self.attempts: dict[int, Attempt] = {}
        self._next_number = self._first_number = first_attempt
        self._adopted: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether every item is done, and none is to be added."""
        return self.done.size == self.n_items and not self.is_open

    def add(self, n_items: int) -> None:
        """Add items behind the last; what is there is whole blocks."""
        self.pending.add(self.n_items, self.n_items + n_items)
        self.n_items += n_items

    @property
    def n_pending_blocks(self) -> int:
        """How many blocks wait to be handed out."""
        return -(-self.pending.size // self.block)

    @property
    def newest(self) -> Attempt | None:
        """The attempt that was made last, if it is in force."""
        return self.attempts.get(self._next_number - 1)

    # ---------------------------------------------------------------- handing out

    def assign(
        self, rank: int, n_blocks: int, suits: Callable[[int, Trouble], bool] = lambda rank, trouble: True
    ) -> Attempt | None:
        """Hand the first pending items that suit a rank, at most `n_blocks` blocks, to it.

        None if all that is pending is in trouble that does not suit.
        """
        if not self.troubles:
            return self.assign_next(rank, n_blocks)
        for start, stop in self.pending:
            while start < stop:
                trouble = self.troubles.at(start)
                limit = self.troubles.next_after(start) if trouble is None else trouble.stop
                end = stop if limit is None else min(stop, limit)
                if trouble is None or suits(rank, trouble):
                    end = min(end, start + n_blocks * self.block)
                    self.pending.remove(start, end)
                    return self._attempt(rank, start, end, trouble.care if trouble else PLAIN)
                start = end
        return None

    def assign_next(self, rank: int, n_blocks: int) -> Attempt:
        """Hand the first pending items, at most `n_blocks` blocks, to a rank; nothing is in trouble."""
        start, stop = self.pending.take_first(n_blocks * self.block)
        number = self._next_number
        self._next_number = number + 1
        attempt = self.attempts[number] = Attempt(number, rank, start, stop)
        return attempt

    def assign_many(self, rank: int, n_most: int, next_size: Callable[[int, int], int]) -> list[Attempt]:
        """Hand the front of the first pending range to a rank, in so many chunks at the most.

        There is something pending, and nothing in trouble. `next_size` gives the blocks of the next chunk
        from the blocks that are left and the rank.
        """
        block, in_force = self.block, self.attempts
        number, n_left = self._next_number, self.n_pending_blocks
        start, stop = self.pending.first
        attempts: list[Attempt] = []
        at = start
        while at < stop and len(attempts) < n_most:
            size = next_size(n_left, rank)
            end = at + size * block
            if end > stop:
                end = stop
            attempt = in_force[number] = Attempt(number, rank, at, end)
            attempts.append(attempt)
            number += 1
            n_left -= size
            at = end
        self.pending.take_first(at - start)
        self._next_number = number
        return attempts

    def assign_alike(self, rank: int, n_most: int, n_blocks: int) -> list[Attempt]:
        """Do as `assign_many` where every chunk has as many blocks."""
        start, stop = self.pending.first
        length, number = n_blocks * self.block, self._next_number
        stop = min(stop, start + n_most * length)
        attempts = [
            Attempt(i, rank, at, at + length) for i, at in enumerate(range(start, stop, length), number)
        ]
        attempts[-1].stop = stop
        self._next_number = number + len(attempts)
        self.attempts.update(zip(range(number, self._next_number), attempts, strict=True))
        self.pending.take_first(stop - start)
        return attempts

    def reassign(self, attempt: Attempt, rank: int) -> Attempt:
        """Hand what an attempt has still to deliver to another rank; the attempt is out of force."""
        del self.attempts[attempt.number]
        return self._attempt(rank, attempt.start, attempt.stop, attempt.care)

    def split(self, attempt: Attempt, at: int, rank: int) -> Attempt:
        """Hand the items from `at` on, within an attempt, to another rank; the attempt ends there."""
        stop, attempt.stop = attempt.stop, at
        return self._attempt(rank, at, stop, attempt.care)

    def duplicate(self, attempt: Attempt, rank: int) -> Attempt:
        """Hand what an attempt has still to deliver to a second rank as well.

        In isolation: the second rank can drop it in the midst of a block, and is safe from what may
        have hung the first.
        """
        twin = self._attempt(rank, attempt.start, attempt.stop, Care.ISOLATED)
        attempt.twin, twin.twin = twin, attempt
        return twin

    def _attempt(self, rank: int, start: int, stop: int, care: Care = PLAIN) -> Attempt:
        attempt = Attempt(self._next_number, rank, start, stop, care)
        self._next_number += 1
        self.attempts[attempt.number] = attempt
        return attempt

    # ----------------------------------------------------------------- taking back

    def release(self, attempt: Attempt) -> bool:
        """Put an attempt out of force; what only it was to deliver is pending again.

        False if it was out of force already.
        """
        if not self._end(attempt):
            return False
        self._return_uncovered(attempt.start, attempt.stop)
        return True

    def give_back(self, attempt: Attempt, at: int) -> None:
        """The items from `at` on, within an attempt, will not come: they are pending, if it is in force."""
        stop, attempt.stop = attempt.stop, at
        if attempt.number in self.attempts:
            self._return_uncovered(at, stop)
            if attempt.start >= at:
                self._end(attempt)

    def revive(self, attempt: Attempt) -> bool:
        """Put a released attempt in force again if all that it has to deliver is still pending."""
        if not self.pending.contains(attempt.start, attempt.stop):
            return False
        self.pending.remove(attempt.start, attempt.stop)
        self.attempts[attempt.number] = attempt
        return True

    def adopt(self, rank: int, held: Held) -> Attempt | None:
        """Put an attempt of an earlier master in force, if all that it has to deliver is pending."""
        attempt = Attempt(held.attempt, rank, held.start, held.stop)
        if held.start >= held.stop or not self.revive(attempt):
            return None
        self._adopted.add(held.attempt)
        return attempt

    def knows(self, number: int) -> bool:
        """Whether an attempt is of this ledger; another was answered to an earlier master as well."""
        return number >= self._first_number or number in self._adopted

    def _end(self, attempt: Attempt) -> bool:
        if self.attempts.pop(attempt.number, None) is None:
            return False
        if attempt.twin is not None:
            attempt.twin.twin = None
            attempt.twin = None
        return True

    # ------------------------------------------------------------------- answers

    def commit(
        self, number: int, start: int, stop: int, units: tuple[Range, ...] | None
    ) -> tuple[Range, ...]:
        """Enter a delivered result; return the ranges of it that are the first answer.

        With `units`, a unit of which any item is done already is discarded whole; see
        `mpims.core.events.ChunkDone`.
        """
        done = self.done
        attempt = self.attempts.get(number)
        gap = (0, 0)
        if attempt is not None:
            gap = self._move_on(attempt, start, stop)
        fresh: tuple[Range, ...]
        if units is None and start < stop and done.add_new(start, stop):
            fresh = ((start, stop),)
        else:
            if units is not None:
                fresh = tuple(unit for unit in units if not done.intersects(*unit))
            else:
                fresh = tuple(done.missing(start, stop))
            for a, b in fresh:
                done.add(a, b)
        if self.pending.size:
            for a, b in fresh:
                self.pending.remove(a, b)
        if self.troubles:
            self.troubles.settle(fresh)
        if attempt is not None and units is not None:
            self._return_uncovered(start, stop)
        self._return_uncovered(*gap)
        return fresh

    def commit_next(
        self, attempt: Attempt, start: int, stop: int, units: tuple[Range, ...] | None
    ) -> tuple[Range, ...] | None:
        """Enter the next part of an attempt in force as `commit` does, in short, for the ordinary case.

        None, and nothing is entered, if it is not ordinary: it is not the next part, or anything is in
        trouble, or anybody else has its items or had them first.
        """
        if (
            attempt.start != start
            or attempt.stop < stop
            or attempt.twin is not None
            or attempt.care is not PLAIN
            or self.troubles
            or (units is not None and units != ((start, stop),))
            or not self.done.add_new(start, stop)
        ):
            return None
        attempt.start = stop
        if stop == attempt.stop:
            del self.attempts[attempt.number]
        return ((start, stop),)

    def commit_whole(self, attempts: Sequence[Attempt]) -> list[Range] | None:
        """Enter the results of attempts in force that are delivered whole and have no twins.

        Returns
        -------
        list of (int, int)
            What was first, neighbours as one range; None, and nothing is entered, if any item was done.
        """
        runs: list[Range] = []
        start = stop = -1
        for attempt in attempts:
            if attempt.start == stop:
                stop = attempt.stop
            else:
                if start >= 0:
                    runs.append((start, stop))
                start, stop = attempt.start, attempt.stop
        runs.append((start, stop))
        done, in_force = self.done, self.attempts
        if any(done.intersects(*run) for run in runs):
            return None
        for run in runs:
            done.add_new(*run)
        for attempt in attempts:
            del in_force[attempt.number]
            attempt.start = attempt.stop
        return runs

    def fail(self, number: int, start: int, stop: int, rank: int) -> Trouble | None:
        """Enter a block that failed on a rank; give its trouble, or None if it is done."""
        attempt = self.attempts.get(number)
        if attempt is not None:
            self._return_uncovered(self._move_on(attempt, start, stop)[0], stop)
        if self.done.intersects(start, stop):
            return None
        return self.troubles.fail(start, stop, rank)

    def strike(self, start: int, stop: int) -> None:
        """A rank died or fell silent within these items."""
        for a, b in self.done.missing(start, stop):
            self.troubles.strike(a, b)

    def skip(self, start: int, stop: int) -> None:
        """Enter items as done that have no result."""
        self.done.add(start, stop)
        self.pending.remove(start, stop)
        self.troubles.settle(((start, stop),))

    def _move_on(self, attempt: Attempt, start: int, stop: int) -> Range:
        """An attempt has delivered ``[start, stop)``; give what it left out, were a message to overtake."""
        gap = (min(attempt.start, start), start)
        attempt.start = max(attempt.start, stop)
        if stop >= attempt.stop:
            self._end(attempt)
        return gap

    def _return_uncovered(self, start: int, stop: int) -> None:
        """Make pending again what of a range is not done and no attempt in force has."""
        if start >= stop:
            return
        missing = self.done.missing(start, stop)
        if not missing:
            return
        covered = RangeSet()
        for attempt in self.attempts.values():
            covered.add(max(start, attempt.start), min(stop, attempt.stop))
        for a, b in missing:
            for uncovered in covered.missing(a, b):
                self.pending.add(*uncovered)

    # --------------------------------------------------------------------- checks

    def check(self) -> None:
        """Assert the rules of this file; for tests, in time linear in what the ledger holds."""
        covered = RangeSet(self.pending)
        assigned = RangeSet()
        for start, stop in self.done:
            assert not self.pending.intersects(start, stop), "pending and done"
            covered.add(start, stop)
        for attempt in self.attempts.values():
            assert not self.pending.intersects(attempt.start, attempt.stop), "pending and assigned"
            covered.add(attempt.start, attempt.stop)
            twin = attempt.twin
            if twin is not None:
                assert twin.twin is attempt, "a twin that does not know it"
                assert twin.number in self.attempts, "a twin out of force"
                assert twin.rank != attempt.rank, "twins on one rank"
            if twin is None or attempt.number < twin.number:
                start = attempt.start if twin is None else min(attempt.start, twin.start)
                assert not assigned.intersects(start, attempt.stop), "assigned to more than twins"
                assigned.add(start, attempt.stop)
        assert covered.missing(0, self.n_items) == [], "an item is neither pending, assigned nor done"
        for start, stop in (*self.pending, *self.done):
            assert start % self.block == 0, "a range begins within a block"
            assert stop % self.block == 0 or stop == self.n_items, "a range ends within a block"
            assert 0 <= start < stop <= self.n_items, "a range is out of bounds"
        at = 0
        for trouble in self.troubles:
            assert at <= trouble.start < trouble.stop, "troubles overlap or are empty"
            assert not self.done.intersects(trouble.start, trouble.stop), "done and in trouble"
            at = trouble.stop
