"""The ledger's rules after every step of random histories, and single transitions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.ledger import Attempt, Ledger


def numbers_in(ranges):
    return [i for start, stop in ranges for i in range(start, stop)]


@dataclass
class Book:
    """A ledger, and what its caller remembers: attempts given out and not wholly delivered."""

    ledger: Ledger
    committed: Counter = field(default_factory=Counter)
    known: list[Attempt] = field(default_factory=list)  # in force or not: a late answer may come
    at: dict[int, int] = field(default_factory=dict)  # how far each has delivered

    def open(self, attempt):
        self.known.append(attempt)
        self.at[attempt.number] = attempt.start

    def in_force(self):
        return [a for a in self.known if a.number in self.ledger.attempts]

    def out_of_force(self):
        return [a for a in self.known if a.number not in self.ledger.attempts]

    def deliver(self, attempt, stop, units):
        """Commit the next part of an attempt, up to `stop`; check what is said to be fresh."""
        start = self.at[attempt.number]
        before = set(self.committed)
        fresh = self.ledger.commit(attempt.number, start, stop, units)
        items = numbers_in(fresh)
        assert before.isdisjoint(items)
        assert all(start <= i < stop for i in items)
        if units is None:
            assert set(items) == set(range(start, stop)) - before
        else:
            assert list(fresh) == [u for u in units if before.isdisjoint(range(*u))]
        self.committed.update(items)
        self.at[attempt.number] = attempt.start = stop
        if stop == attempt.stop:
            self.known.remove(attempt)

    def check(self):
        ledger = self.ledger
        ledger.check()
        assert set(numbers_in(ledger.done)) == set(self.committed)
        assert all(count == 1 for count in self.committed.values())
        assert ledger.complete == (len(self.committed) == ledger.n_items)
        assert all(a.start < a.stop for a in ledger.attempts.values())
        blocks = {i // ledger.block for i in numbers_in(ledger.pending)}
        assert ledger.n_pending_blocks == len(blocks)


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
    ledger = book.ledger
    choices = []
    if ledger.pending.size:
        choices.append("assign")
    if book.known:
        choices += ["deliver", "deliver"]
    if book.in_force():
        choices += ["release", "reassign"]
    if book.out_of_force():
        choices += ["revive", "late"]
    name = data.draw(st.sampled_from(choices))
    if name == "assign":
        book.open(ledger.assign(1, data.draw(st.integers(1, 6))))
    elif name in ("deliver", "late"):
        attempt = data.draw(st.sampled_from(book.known if name == "deliver" else book.out_of_force()))
        start = book.at[attempt.number]
        stop = draw_cut(data, attempt, start, ledger.block)
        book.deliver(attempt, stop, draw_units(data, start, stop, ledger.block))
    elif name == "release":
        attempt = data.draw(st.sampled_from(book.in_force()))
        assert ledger.release(attempt)
        assert not ledger.release(attempt)
    elif name == "reassign":
        attempt = data.draw(st.sampled_from(book.in_force()))
        book.open(ledger.reassign(attempt, 2))
    else:
        attempt = data.draw(st.sampled_from(book.out_of_force()))
        was_pending = ledger.pending.contains(attempt.start, attempt.stop)
        assert ledger.revive(attempt) == was_pending


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.data())
def test_the_rules_hold_after_every_step_and_each_item_commits_once(n_items, block, data):
    book = Book(Ledger(n_items, block))
    book.check()
    for _ in range(data.draw(st.integers(0, 25))):
        if not (book.ledger.pending.size or book.known):
            break
        step(data, book)
        book.check()
    while not book.ledger.complete:  # whatever has happened, the run can be ended
        if book.ledger.pending.size:
            book.open(book.ledger.assign(3, 4))
        attempt = next(iter(book.in_force()))
        book.deliver(attempt, attempt.stop, None)
        book.check()
    assert set(book.committed) == set(range(n_items))


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


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (break_pending_and_done, "pending and done"),
        (break_pending_and_assigned, "pending and assigned"),
        (break_lost_items, "neither pending, assigned nor done"),
        (break_within_a_block, "within a block"),
        (break_out_of_bounds, "out of bounds"),
    ],
)
def test_the_check_finds_a_broken_rule(damage, text):
    ledger = Ledger(10, 2)
    ledger.assign(0, 1)
    ledger.check()
    damage(ledger)
    with pytest.raises(AssertionError, match=text):
        ledger.check()
