"""Troubles against a dict that knows each item by itself."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.chunks import PLAIN, Care
from mpims.core.troubles import Troubles

N_ITEMS = 30
ISOLATED, ITEMWISE = Care.ISOLATED, Care.ITEMWISE
NOTHING = (PLAIN, 0, frozenset())

ranges = st.tuples(st.integers(0, N_ITEMS - 1), st.integers(1, 8)).map(
    lambda r: (r[0], min(r[0] + r[1], N_ITEMS))
)
troubling = st.one_of(
    st.tuples(st.just("strike"), ranges),
    st.tuples(st.just("fail"), ranges, st.integers(0, 4), st.booleans()),
)
changes = troubling | st.tuples(st.just("settle"), st.lists(ranges, min_size=1, max_size=2).map(tuple))


class Model:
    """Every item in trouble, with what is known of it: its care, n_failures and failed_on."""

    def __init__(self):
        self.items = {}

    def strike(self, start, stop):
        for item in range(start, stop):
            care, n_failures, failed_on = self.items.get(item, NOTHING)
            self.items[item] = (care | ISOLATED, n_failures, failed_on)

    def fail(self, start, stop, rank, itemwise):
        """All of the block is in the worst that was known of any of its items, and failed once more."""
        care, n_failures, failed_on = PLAIN, 0, frozenset()
        for item in range(start, stop):
            of_item = self.items.get(item, NOTHING)
            care |= of_item[0]
            n_failures = max(n_failures, of_item[1])
            failed_on |= of_item[2]
        if itemwise:
            care |= ITEMWISE
        now = (care, n_failures + 1, failed_on | {rank})
        self.items.update(dict.fromkeys(range(start, stop), now))
        return now

    def settle(self, settled):
        for start, stop in settled:
            for item in range(start, stop):
                self.items.pop(item, None)


def known(trouble):
    return trouble.care, trouble.n_failures, trouble.failed_on


def as_tuples(troubles):
    return [(t.start, t.stop, *known(t)) for t in troubles]


def apply(troubles, model, change):
    name, *arguments = change
    if name == "strike":
        troubles.strike(*arguments[0])
        model.strike(*arguments[0])
    elif name == "settle":
        troubles.settle(*arguments)
        model.settle(*arguments)
    else:
        (start, stop), rank, itemwise = arguments
        trouble = troubles.fail(start, stop, rank)
        if itemwise:
            trouble.care |= ITEMWISE  # as the scheduler does
        assert (trouble.start, trouble.stop) == (start, stop)
        assert known(trouble) == model.fail(start, stop, rank, itemwise)
        assert troubles.at(start) is trouble


def check(troubles, model):
    at = 0
    for trouble in troubles:
        assert at <= trouble.start < trouble.stop, "out of order, overlapping or empty"
        at = trouble.stop
    assert {i: known(t) for t in troubles for i in range(t.start, t.stop)} == model.items
    assert bool(troubles) == bool(model.items)
    for item in range(N_ITEMS):
        trouble = troubles.at(item)
        assert (trouble and known(trouble)) == model.items.get(item)
        behind = item if trouble is None else trouble.stop
        assert troubles.next_after(item) == min((i for i in model.items if i >= behind), default=None)


@settings(max_examples=300, deadline=None)
@given(st.lists(changes, max_size=15))
def test_troubles_are_what_is_known_of_each_item(history):
    troubles, model = Troubles(), Model()
    check(troubles, model)
    for change in history:
        apply(troubles, model, change)
        check(troubles, model)


@settings(max_examples=100, deadline=None)
@given(st.lists(changes, max_size=15))
def test_when_all_is_done_no_trouble_is_left(history):
    troubles, model = Troubles(), Model()
    for change in history:
        apply(troubles, model, change)
    troubles.settle(((0, N_ITEMS),))
    assert not troubles
    assert list(troubles) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(changes, max_size=10), ranges)
def test_a_second_strike_says_nothing_new(history, struck):
    troubles, model = Troubles(), Model()
    for change in history:
        apply(troubles, model, change)
    troubles.strike(*struck)
    once = as_tuples(troubles)
    troubles.strike(*struck)
    assert as_tuples(troubles) == once


@settings(max_examples=100, deadline=None)
@given(st.lists(troubling, max_size=15))
def test_trouble_only_grows_until_it_is_done(history):
    troubles, model = Troubles(), Model()
    for change in history:
        before = dict(model.items)
        apply(troubles, model, change)
        for item, (care, n_failures, failed_on) in before.items():
            trouble = troubles.at(item)
            assert trouble.care & care == care
            assert trouble.n_failures >= n_failures
            assert trouble.failed_on >= failed_on


def test_a_failure_cuts_what_surrounds_it():
    troubles = Troubles()
    troubles.strike(0, 9)
    troubles.fail(3, 6, 2)
    assert as_tuples(troubles) == [
        (0, 3, ISOLATED, 0, frozenset()),
        (3, 6, ISOLATED, 1, {2}),
        (6, 9, ISOLATED, 0, frozenset()),
    ]


def test_a_strike_keeps_what_failed_and_fills_what_lies_between():
    troubles = Troubles()
    troubles.fail(2, 3, 1)
    troubles.fail(5, 6, 1)
    troubles.strike(1, 6)
    assert as_tuples(troubles) == [
        (1, 2, ISOLATED, 0, frozenset()),
        (2, 3, ISOLATED, 1, {1}),
        (3, 5, ISOLATED, 0, frozenset()),
        (5, 6, ISOLATED, 1, {1}),
    ]


def test_the_two_ends_of_a_cut_trouble_are_no_longer_one():
    troubles = Troubles()
    troubles.fail(0, 9, 1)
    troubles.settle(((3, 6),))
    troubles.fail(0, 3, 2)
    assert as_tuples(troubles) == [(0, 3, PLAIN, 2, {1, 2}), (6, 9, PLAIN, 1, {1})]
