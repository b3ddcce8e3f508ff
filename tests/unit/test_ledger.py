"""The ledger's rules after every step of random histories, and single transitions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.chunks import PLAIN, Care, Held
from mpims.core.ledger import Attempt, Ledger


def numbers_in(ranges):
    return [i for start, stop in ranges for i in range(start, stop)]


@dataclass
class Book:
    """A ledger, and what its caller remembers: attempts given out and not wholly delivered."""

    ledger: Ledger
    committed: Counter = field(default_factory=Counter)
    known: list[Attempt] = field(default_factory=list)  # in force or not: a late answer may come
    at: dict[int, int] = field(default_factory=dict)  # how far each is
    reach: dict[int, int] = field(default_factory=dict)  # how far each may go that hears of no cut
    overtaken: list = field(default_factory=list)  # (number, start, stop) of parts still under way

    def open(self, attempt):
        self.known.append(attempt)
        self.at[attempt.number] = attempt.start
        self.reach[attempt.number] = attempt.stop

    def in_force(self):
        return [a for a in self.known if a.number in self.ledger.attempts]

    def out_of_force(self):
        return [a for a in self.known if a.number not in self.ledger.attempts]

    def move_on(self, attempt, stop):
        self.at[attempt.number] = attempt.start = stop
        if stop >= attempt.stop:
            self.known.remove(attempt)

    def deliver(self, attempt, start, stop, units):
        """Commit a part of an attempt, not before where it is."""
        if start > self.at[attempt.number]:
            self.overtaken.append((attempt.number, self.at[attempt.number], start))
        self.commit(attempt.number, start, stop, units)
        self.move_on(attempt, stop)

    def commit(self, number, start, stop, units):
        """Commit, and check what is said to be fresh."""
        before = set(self.committed)
        fresh = self.ledger.commit(number, start, stop, units)
        items = numbers_in(fresh)
        assert before.isdisjoint(items)
        assert all(start <= i < stop for i in items)
        if units is None:
            assert set(items) == set(range(start, stop)) - before
        else:
            assert list(fresh) == [u for u in units if before.isdisjoint(range(*u))]
        self.committed.update(items)

    def check(self):
        ledger = self.ledger
        ledger.check()
        assert set(numbers_in(ledger.done)) == set(self.committed)
        assert all(count == 1 for count in self.committed.values())
        assert ledger.complete == (len(self.committed) == ledger.n_items)
        assert all(a.start < a.stop for a in ledger.attempts.values())
        blocks = {i // ledger.block for i in numbers_in(ledger.pending)}
        assert ledger.n_pending_blocks == len(blocks)


def care_at(ledger, item):
    trouble = ledger.troubles.at(item)
    return PLAIN if trouble is None else trouble.care


def failed_on(ledger, item):
    trouble = ledger.troubles.at(item)
    return frozenset() if trouble is None else trouble.failed_on


def assign(data, book):
    """Hand something out to a rank, which gets nothing that failed there."""
    ledger, rank = book.ledger, data.draw(st.integers(1, 3))
    before = numbers_in(ledger.pending)
    suitable = [i for i in before if rank not in failed_on(ledger, i)]
    n_blocks = data.draw(st.integers(1, 6))
    attempt = ledger.assign(rank, n_blocks, lambda rank, trouble: rank not in trouble.failed_on)
    if attempt is None:
        assert suitable == []
        assert numbers_in(ledger.pending) == before
        return
    assert attempt.start == suitable[0]
    assert attempt.stop <= attempt.start + n_blocks * ledger.block
    for item in range(attempt.start, attempt.stop):
        assert care_at(ledger, item) == attempt.care
        assert ledger.troubles.at(item) is ledger.troubles.at(attempt.start), "two troubles in a chunk"
    book.open(attempt)


def draw_cut(data, attempt, start, block):
    """A place in what an attempt has still to deliver, between two blocks or at its end."""
    n_blocks = -(-(attempt.stop - start) // block)
    return min(start + block * data.draw(st.integers(1, n_blocks)), attempt.stop)


def draw_units(data, start, stop, block):
    """None, or ``[start, stop)`` cut between blocks."""
    if data.draw(st.booleans()):
        return None
    inner = range(start + block, stop, block)
    cuts = sorted(data.draw(st.sets(st.sampled_from(inner)))) if inner else []
    return tuple(zip([start, *cuts], [*cuts, stop], strict=True))


def step(data, book):
    """One thing that can happen to a ledger."""
    ledger, block = book.ledger, book.ledger.block
    single = [a for a in book.in_force() if a.twin is None]
    there = {
        "assign": ledger.pending.size,
        "deliver": book.known,
        "overtaken": book.overtaken,
        "release": book.in_force(),
        "reassign": single,
        "split": [a for a in single if a.stop - a.start > block],
        "duplicate": single,
        "revive": book.out_of_force(),
        "late": book.out_of_force(),
        "fail": book.known,
        "strike": book.known,
        "skip": not ledger.complete,
    }
    name = data.draw(st.sampled_from([name for name, is_there in there.items() if is_there]))
    some = data.draw(st.sampled_from(there[name])) if isinstance(there[name], list) else None
    if name == "assign":
        assign(data, book)
    elif name in ("deliver", "late"):
        deliver(data, book, some)
    elif name == "overtaken":
        book.overtaken.remove(some)
        book.commit(*some, draw_units(data, *some[1:], block))
    elif name == "release":
        assert ledger.release(some)
        assert not ledger.release(some)
    elif name == "reassign":
        book.open(ledger.reassign(some, 2))
    elif name == "split":
        at = data.draw(st.sampled_from(range(some.start + block, some.stop, block)))
        book.open(ledger.split(some, at, some.rank + 1))
    elif name == "duplicate":
        book.open(ledger.duplicate(some, some.rank + 1))
    elif name == "revive":
        was_pending = ledger.pending.contains(some.start, some.stop)
        assert ledger.revive(some) == was_pending
    elif name == "fail":
        fail(book, some)
    elif name == "strike":
        ledger.strike(some.start, some.stop)
        items = set(range(some.start, some.stop)) - set(book.committed)
        assert all(care_at(ledger, i) & Care.ISOLATED for i in items)
    else:
        missing = [i for a, b in ledger.done.missing(0, ledger.n_items) for i in range(a, b, block)]
        start = data.draw(st.sampled_from(missing))
        stop = min(start + block, ledger.n_items)
        ledger.skip(start, stop)
        book.committed.update(range(start, stop))


def deliver(data, book, attempt):
    """A part of what an attempt has still to deliver; it may overtake one, or go beyond a cut."""
    block, start = book.ledger.block, attempt.start
    if data.draw(st.sampled_from([False] * 4 + [True])):
        start = data.draw(st.sampled_from(range(attempt.start, attempt.stop, block)))
    stop = draw_cut(data, attempt, start, block)
    if stop == attempt.stop and data.draw(st.booleans()):
        stop = book.reach[attempt.number]
    book.deliver(attempt, start, stop, draw_units(data, start, stop, block))


def fail(book, attempt):
    """The next block of an attempt fails on its rank."""
    start = attempt.start
    stop = min(start + book.ledger.block, attempt.stop)
    known = book.ledger.troubles.at(start)
    n_failures = known.n_failures if known else 0
    trouble = book.ledger.fail(attempt.number, start, stop, attempt.rank)
    book.move_on(attempt, stop)
    if start in book.committed:
        assert trouble is None
        return
    assert (trouble.start, trouble.stop, trouble.n_failures) == (start, stop, n_failures + 1)
    assert attempt.rank in trouble.failed_on


@settings(max_examples=250, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.data())
def test_the_rules_hold_after_every_step_and_each_item_commits_once(n_items, block, data):
    indices = data.draw(st.sets(st.integers(0, (n_items - 1) // block), max_size=3))
    before = [(i * block, min((i + 1) * block, n_items)) for i in indices]
    book = Book(Ledger(n_items, block, done=before, first_attempt=100))
    book.committed.update(numbers_in(before))
    book.check()
    for _ in range(data.draw(st.integers(0, 30))):
        if book.ledger.complete:
            break
        step(data, book)
        book.check()
    while not book.ledger.complete:  # whatever has happened, the run can be ended
        if book.ledger.pending.size:
            book.open(book.ledger.assign(9, 4))
        attempt = next(iter(book.in_force()))
        book.deliver(attempt, attempt.start, attempt.stop, None)
        book.check()
    assert set(book.committed) == set(range(n_items))
    assert not book.ledger.troubles


# ---------------------------------------------------------------------- memory


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32))
def test_memory_is_bounded_by_the_attempts_outstanding(n_workers, seed):
    random = Random(seed)
    ledger = Ledger(10**12, 64)
    open_attempts = [ledger.assign(rank, 1 + rank % 7) for rank in range(n_workers)]
    for _ in range(300):
        attempt = open_attempts.pop(random.randrange(len(open_attempts)))
        ledger.commit(attempt.number, attempt.start, attempt.stop, None)
        open_attempts.append(ledger.assign(attempt.rank, random.randint(1, 9)))
        assert len(ledger.attempts) == n_workers
        assert len(ledger.done) <= n_workers + 1
        assert len(ledger.pending) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32))
def test_memory_is_bounded_when_attempts_come_back(n_workers, seed):
    random = Random(seed)
    ledger = Ledger(10**12, 64)
    open_attempts = [ledger.assign(rank, 1 + rank % 7) for rank in range(n_workers)]
    for _ in range(300):
        attempt = open_attempts.pop(random.randrange(len(open_attempts)))
        if random.random() < 0.3:
            ledger.release(attempt)
        else:
            ledger.commit(attempt.number, attempt.start, attempt.stop, None)
        open_attempts.append(ledger.assign(attempt.rank, random.randint(1, 9)))
        # Between two done ranges lies a gap; a gap is an attempt's, or has come back from one.
        assert len(ledger.done) + len(ledger.pending) <= 2 * n_workers + 2


def test_a_run_in_order_leaves_one_range():
    ledger = Ledger(1000, 1)
    while not ledger.complete:
        attempt = ledger.assign(0, 7)
        ledger.commit(attempt.number, attempt.start, attempt.stop, None)
        assert len(ledger.done) == 1
    assert len(ledger.pending) == 0
    assert ledger.attempts == {}


# ----------------------------------------------------------- single transitions


def as_tuple(attempt):
    return attempt.number, attempt.rank, attempt.start, attempt.stop


def test_attempts_are_numbered_from_one_and_take_whole_blocks_in_order():
    ledger = Ledger(25, 10)
    assert [as_tuple(ledger.assign(rank, n)) for rank, n in ((7, 1), (8, 5))] == [
        (1, 7, 0, 10),
        (2, 8, 10, 25),
    ]
    assert ledger.n_pending_blocks == 0


@given(
    n_items=st.integers(1, 60),
    block=st.integers(1, 4),
    n_before=st.integers(0, 20),
    n_most=st.integers(1, 12),
    size=st.integers(1, 9),
)
def test_chunks_of_one_size_are_those_that_would_be_asked_for(n_items, block, n_before, n_most, size):
    one, other = Ledger(n_items, block), Ledger(n_items, block)
    for ledger in (one, other):
        if n_before:
            ledger.assign(1, n_before)
    if one.pending.size:
        asked = one.assign_many(2, n_most, lambda n_left, rank: min(size, n_left))
        assert list(map(as_tuple, other.assign_alike(2, n_most, size))) == list(map(as_tuple, asked))
    assert list(other.pending) == list(one.pending)
    assert list(map(as_tuple, other.attempts.values())) == list(map(as_tuple, one.attempts.values()))
    assert as_tuple(other._attempt(3, 0, 1)) == as_tuple(one._attempt(3, 0, 1))


def test_a_cut_last_block_counts_as_one():
    assert Ledger(25, 10).n_pending_blocks == 3
    assert Ledger(0, 10).n_pending_blocks == 0


def test_no_items_are_complete_from_the_start():
    assert Ledger(0, 1).complete
    assert not Ledger(1, 1).complete


def test_the_first_answer_commits_and_the_late_one_is_discarded():
    ledger = Ledger(10, 1)
    slow = ledger.assign(1, 10)
    ledger.release(slow)
    fast = ledger.assign(2, 10)
    assert ledger.commit(fast.number, 0, 10, None) == ((0, 10),)
    assert ledger.commit(slow.number, 0, 10, None) == ()
    assert ledger.complete


def test_a_late_answer_is_welcome_while_it_is_needed():
    ledger = Ledger(10, 1)
    slow = ledger.assign(1, 10)
    ledger.release(slow)
    second = ledger.assign(2, 4)
    assert ledger.commit(slow.number, 0, 6, None) == ((0, 6),)
    assert list(ledger.pending) == [(6, 10)]
    assert ledger.commit(second.number, 0, 4, None) == ()
    ledger.check()


def test_a_late_answer_is_cut_where_it_can_be():
    ledger = Ledger(10, 1)
    slow = ledger.assign(1, 10)
    ledger.release(slow)
    fast = ledger.assign(2, 3)
    ledger.commit(fast.number, 0, 3, None)
    assert ledger.commit(slow.number, 0, 10, None) == ((3, 10),)
    assert ledger.complete


def test_a_unit_that_is_partly_done_is_discarded_whole_and_its_rest_comes_back():
    ledger = Ledger(8, 1)
    slow = ledger.assign(1, 4)
    ledger.release(slow)
    fast = ledger.assign(2, 8)
    assert ledger.commit(slow.number, 0, 3, ((0, 2), (2, 3))) == ((0, 2), (2, 3))
    assert ledger.commit(fast.number, 0, 8, ((0, 4), (4, 8))) == ((4, 8),)
    assert list(ledger.pending) == [(3, 4)]
    assert ledger.attempts == {}
    ledger.check()


def test_delivering_the_front_keeps_the_rest_open():
    ledger = Ledger(10, 2)
    attempt = ledger.assign(1, 5)
    assert ledger.commit(attempt.number, 0, 4, None) == ((0, 4),)
    assert as_tuple(ledger.attempts[attempt.number]) == (1, 1, 4, 10)
    ledger.release(attempt)
    assert list(ledger.pending) == [(4, 10)]


def test_a_released_attempt_is_revived_only_if_all_of_it_is_pending():
    ledger = Ledger(10, 1)
    attempt = ledger.assign(1, 6)
    ledger.release(attempt)
    assert ledger.revive(attempt)
    assert ledger.attempts == {1: attempt}
    assert list(ledger.pending) == [(6, 10)]
    ledger.release(attempt)
    ledger.assign(2, 1)
    assert not ledger.revive(attempt)
    assert list(ledger.pending) == [(1, 10)]


def test_reassigning_moves_what_is_still_open():
    ledger = Ledger(10, 1)
    attempt = ledger.assign(1, 6)
    ledger.commit(attempt.number, 0, 2, None)
    moved = ledger.reassign(attempt, 5)
    assert as_tuple(moved) == (2, 5, 2, 6)
    assert list(ledger.attempts) == [2]
    assert not ledger.release(attempt)
    ledger.check()


def test_a_new_ledger_knows_what_was_done_and_goes_on_with_the_numbers():
    ledger = Ledger(10, 2, done=[(2, 4), (8, 10)], first_attempt=77)
    assert list(ledger.pending) == [(0, 2), (4, 8)]
    assert as_tuple(ledger.assign(1, 9)) == (77, 1, 0, 2)
    assert as_tuple(ledger.assign(1, 9)) == (78, 1, 4, 8)
    assert Ledger(10, 2, done=[(0, 10)]).complete
    ledger.check()


def test_a_split_gives_the_items_behind_the_cut_away():
    ledger = Ledger(10, 2)
    attempt = ledger.assign(1, 5)
    attempt.care = Care.ISOLATED
    ledger.commit(attempt.number, 0, 2, None)
    second = ledger.split(attempt, 6, 2)
    assert (as_tuple(attempt), as_tuple(second)) == ((1, 1, 2, 6), (2, 2, 6, 10))
    assert second.care is Care.ISOLATED
    assert second.twin is None
    ledger.check()
    assert ledger.commit(attempt.number, 2, 6, None) == ((2, 6),)
    assert list(ledger.attempts) == [2]


def test_an_attempt_that_went_beyond_the_cut_is_at_its_end():
    ledger = Ledger(10, 1)
    attempt = ledger.assign(1, 10)
    second = ledger.split(attempt, 5, 2)
    assert ledger.commit(attempt.number, 0, 7, None) == ((0, 7),)
    assert list(ledger.attempts) == [second.number]
    assert ledger.commit(second.number, 5, 10, None) == ((7, 10),)
    assert ledger.complete


def test_a_twin_has_the_same_items_and_neither_returns_what_the_other_has():
    ledger = Ledger(10, 1)
    attempt = ledger.assign(1, 10)
    ledger.commit(attempt.number, 0, 2, None)
    twin = ledger.duplicate(attempt, 2)
    assert as_tuple(twin) == (2, 2, 2, 10)
    assert attempt.twin is twin
    assert twin.twin is attempt
    ledger.commit(twin.number, 2, 5, None)
    ledger.check()
    assert ledger.release(attempt)
    assert twin.twin is None
    assert attempt.twin is None
    assert ledger.pending.size == 0  # all that the one had, [2, 10), the other has, or it is done
    ledger.check()
    assert ledger.release(twin)
    assert list(ledger.pending) == [(5, 10)]


def test_what_only_the_slower_twin_has_comes_back_with_it():
    ledger = Ledger(10, 1)
    attempt = ledger.assign(1, 10)
    twin = ledger.duplicate(attempt, 2)
    ledger.commit(twin.number, 6, 10, None)  # it has overtaken [0, 6)
    assert ledger.pending.size == 0
    assert twin.number not in ledger.attempts
    ledger.release(attempt)
    assert list(ledger.pending) == [(0, 6)]
    ledger.check()


def test_a_part_that_overtakes_another_makes_that_pending():
    ledger = Ledger(10, 1)
    attempt = ledger.assign(1, 10)
    assert ledger.commit(attempt.number, 4, 6, None) == ((4, 6),)
    assert list(ledger.pending) == [(0, 4)]
    assert as_tuple(attempt) == (1, 1, 6, 10)
    assert ledger.commit(attempt.number, 0, 4, None) == ((0, 4),)
    assert list(ledger.pending) == []
    assert as_tuple(attempt) == (1, 1, 6, 10)
    ledger.check()


def test_a_failure_that_overtakes_a_part_makes_both_pending():
    ledger = Ledger(10, 2)
    attempt = ledger.assign(1, 5)
    assert ledger.fail(attempt.number, 4, 6, 1).n_failures == 1
    assert list(ledger.pending) == [(0, 6)]
    assert as_tuple(attempt) == (1, 1, 6, 10)
    ledger.check()


def test_a_failed_block_is_pending_unless_its_twin_has_it():
    ledger = Ledger(4, 1)
    attempt = ledger.assign(1, 4)
    twin = ledger.duplicate(attempt, 2)
    ledger.fail(attempt.number, 0, 1, 1)
    assert list(ledger.pending) == []
    trouble = ledger.fail(twin.number, 0, 1, 2)
    assert list(ledger.pending) == [(0, 1)]
    assert (trouble.n_failures, trouble.failed_on) == (2, {1, 2})
    ledger.check()


def test_a_failure_of_what_is_done_is_none():
    ledger = Ledger(4, 2)
    slow = ledger.assign(1, 2)
    ledger.release(slow)
    fast = ledger.assign(2, 1)
    ledger.commit(fast.number, 0, 2, None)
    assert ledger.fail(slow.number, 0, 2, 1) is None
    assert not ledger.troubles


def test_a_strike_leaves_out_what_is_done():
    ledger = Ledger(10, 1, done=[(3, 5)])
    ledger.strike(0, 8)
    assert [(t.start, t.stop, t.care) for t in ledger.troubles] == [
        (0, 3, Care.ISOLATED),
        (5, 8, Care.ISOLATED),
    ]


def test_a_chunk_has_one_care_and_a_failed_block_is_a_chunk():
    ledger = Ledger(10, 1)
    attempt = ledger.assign(1, 10)
    ledger.fail(attempt.number, 4, 5, 1)
    ledger.strike(7, 10)
    ledger.release(attempt)
    chunks = [ledger.assign(2, 10) for _ in range(4)]
    assert [(a.start, a.stop, a.care) for a in chunks] == [
        (0, 4, PLAIN),
        (4, 5, PLAIN),
        (5, 7, PLAIN),
        (7, 10, Care.ISOLATED),
    ]
    assert ledger.pending.size == 0


def test_what_does_not_suit_is_passed_over():
    ledger = Ledger(4, 1)
    attempt = ledger.assign(1, 4)
    ledger.fail(attempt.number, 0, 1, 1)
    ledger.release(attempt)

    def suits(rank, trouble):
        return rank not in trouble.failed_on

    assert as_tuple(ledger.assign(1, 9, suits)) == (2, 1, 1, 4)
    assert ledger.assign(1, 9, suits) is None
    assert list(ledger.pending) == [(0, 1)]
    assert as_tuple(ledger.assign(2, 9, suits)) == (3, 2, 0, 1)


def test_what_is_skipped_is_done_and_out_of_trouble():
    ledger = Ledger(4, 2)
    attempt = ledger.assign(1, 2)
    ledger.fail(attempt.number, 0, 2, 1)
    ledger.skip(0, 2)
    assert list(ledger.done) == [(0, 2)]
    assert list(ledger.pending) == []
    assert not ledger.troubles
    assert ledger.commit(attempt.number, 0, 2, None) == ()
    ledger.check()


def test_what_a_rank_holds_is_adopted_if_all_of_it_is_pending():
    ledger = Ledger(10, 1, done=[(0, 2)], first_attempt=50)
    adopted = ledger.adopt(3, Held(7, 2, 6))
    assert as_tuple(adopted) == (7, 3, 2, 6)
    assert adopted.care is PLAIN
    assert ledger.attempts == {7: adopted}
    assert ledger.adopt(4, Held(8, 1, 3)) is None  # done in part
    assert ledger.adopt(4, Held(9, 5, 8)) is None  # another's in part
    assert ledger.adopt(4, Held(10, 8, 8)) is None  # nothing
    assert list(ledger.pending) == [(6, 10)]
    assert ledger.commit(7, 2, 6, None) == ((2, 6),)
    ledger.check()


# ------------------------------------------------------------- the check itself


def break_pending_and_done(ledger):
    ledger.done.add(6, 8)


def break_pending_and_assigned(ledger):
    ledger.pending.add(0, 2)


def break_lost_items(ledger):
    ledger.pending.remove(4, 6)


def break_within_a_block(ledger):
    ledger.assign(1, 3)
    ledger.done.add(4, 5)


def break_out_of_bounds(ledger):
    ledger.pending.add(8, 12)


def break_assigned_twice(ledger):
    ledger._attempt(5, 0, 2)


def break_twins_on_one_rank(ledger):
    (attempt,) = ledger.attempts.values()
    ledger.duplicate(attempt, attempt.rank)


def break_one_sided_twins(ledger):
    (attempt,) = ledger.attempts.values()
    ledger.duplicate(attempt, 5).twin = None


def break_twin_out_of_force(ledger):
    (attempt,) = ledger.attempts.values()
    del ledger.attempts[ledger.duplicate(attempt, 5).number]


def break_done_and_in_trouble(ledger):
    ledger.skip(2, 4)
    ledger.troubles.strike(2, 4)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (break_pending_and_done, "pending and done"),
        (break_pending_and_assigned, "pending and assigned"),
        (break_lost_items, "neither pending, assigned nor done"),
        (break_within_a_block, "within a block"),
        (break_out_of_bounds, "out of bounds"),
        (break_assigned_twice, "assigned to more than twins"),
        (break_twins_on_one_rank, "twins on one rank"),
        (break_one_sided_twins, "a twin that does not know it"),
        (break_twin_out_of_force, "a twin out of force"),
        (break_done_and_in_trouble, "done and in trouble"),
    ],
)
def test_the_check_finds_a_broken_rule(damage, text):
    ledger = Ledger(10, 2)
    ledger.assign(0, 1)
    ledger.check()
    damage(ledger)
    with pytest.raises(AssertionError, match=text):
        ledger.check()
