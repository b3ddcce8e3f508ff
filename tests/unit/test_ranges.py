"""RangeSet against a model: a plain set of integers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core import ranges as ranges_module
from mpims.core.ranges import RangeSet


@pytest.fixture(autouse=True, scope="module", params=[4, 8, ranges_module.MOST_BOUNDS])
def most_bounds(request):
    """Pages so short that a range set has several, and as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges_module, "MOST_BOUNDS", request.param)
        yield


LIMIT = 24
"""Small, so that ranges meet, touch and nest in most examples."""

integers = st.integers(0, LIMIT)
ranges = st.tuples(integers, integers).map(lambda pair: (min(pair), max(pair)))
changes = st.one_of(
    st.tuples(st.sampled_from(["add", "add_new", "remove"]), ranges),
    st.tuples(st.just("take_first"), st.integers(1, LIMIT)),
)


def members(ranges):
    return {i for start, stop in ranges for i in range(start, stop)}


def check_form(range_set):
    """Sorted, disjoint, not even touching, none empty, and the size right."""
    listed = list(range_set)
    assert all(start < stop for start, stop in listed)
    assert all(a[1] < b[0] for a, b in pairwise(listed))
    assert len(range_set) == len(listed)
    assert range_set.size == len(members(listed))
    pages = range_set._pages
    assert all(len(page) <= ranges_module.MOST_BOUNDS for page in pages)
    assert all(pages) or len(pages) == 1
    assert pages == [[]] or range_set._firsts == [page[0] for page in pages]


def first_run(model, length):
    """What `take_first` is to take: the front of the first unbroken run."""
    start = min(model)
    stop = start
    while stop in model and stop - start < length:
        stop += 1
    return start, stop


def change(range_set, model, name, argument):
    """Do the same to both."""
    if name == "add":
        range_set.add(*argument)
        model |= set(range(*argument))
    elif name == "add_new":
        if argument[0] < argument[1]:
            is_new = model.isdisjoint(range(*argument))
            assert range_set.add_new(*argument) == is_new
            model |= set(range(*argument)) if is_new else set()
    elif name == "remove":
        range_set.remove(*argument)
        model -= set(range(*argument))
    elif model:
        taken = first_run(model, argument)
        assert range_set.take_first(argument) == taken
        model -= set(range(*taken))


@settings(max_examples=300, deadline=None)
@given(st.lists(changes, max_size=25))
def test_it_holds_what_a_set_holds_after_every_change(steps):
    range_set, model = RangeSet(), set()
    for name, argument in steps:
        change(range_set, model, name, argument)
        check_form(range_set)
        assert members(range_set) == model


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(16)))
def test_ranges_that_come_to_touch_are_one_range(order):
    """Each is put in alone, so many lie apart for a while, in several pages, and every gap is filled."""
    range_set, model = RangeSet(), set()
    for i in order:
        change(range_set, model, "add_new", (i, i + 1))
        check_form(range_set)
        assert members(range_set) == model


@settings(max_examples=300, deadline=None)
@given(st.lists(ranges, max_size=6), ranges)
def test_questions_are_answered_as_a_set_answers_them(held, asked):
    range_set, model, wanted = RangeSet(held), members(held), set(range(*asked))
    assert range_set.contains(*asked) == (wanted <= model)
    assert members(range_set.missing(*asked)) == wanted - model
    if wanted:
        assert range_set.intersects(*asked) == bool(wanted & model)
    assert members(range_set) == model  # asking changes nothing


@settings(max_examples=100, deadline=None)
@given(st.lists(ranges, max_size=6), ranges)
def test_the_missing_parts_are_ranges_in_order_with_something_between_them(held, asked):
    gaps = RangeSet(held).missing(*asked)
    assert all(start < stop for start, stop in gaps)
    assert all(a[1] < b[0] for a, b in pairwise(gaps))


@settings(max_examples=100, deadline=None)
@given(st.permutations([(0, 3), (3, 5), (8, 9), (5, 8), (12, 20)]))
def test_the_order_of_additions_leaves_no_trace(order):
    assert list(RangeSet(order)) == [(0, 9), (12, 20)]


def test_an_empty_range_intersects_nothing():
    assert not RangeSet([(0, 10)]).intersects(5, 5)


def test_empty_ranges_change_nothing():
    range_set = RangeSet([(0, 10), (4, 4)])
    range_set.add(15, 15)
    range_set.remove(5, 5)
    range_set.remove(7, 3)
    assert list(range_set) == [(0, 10)]


def test_iterating_while_it_changes_gives_what_was_there():
    range_set = RangeSet([(0, 2), (4, 6), (8, 10)])
    for start, stop in range_set:
        range_set.remove(start, stop)
    assert list(range_set) == []


def test_nothing_can_be_taken_from_an_empty_set():
    with pytest.raises(IndexError):
        RangeSet().take_first(1)


def test_a_copy_is_its_own():
    first = RangeSet([(0, 4)])
    second = RangeSet(first)
    second.remove(1, 2)
    assert list(first) == [(0, 4)]
    assert repr(second) == "RangeSet([(0, 1), (2, 4)])"


def test_its_memory_is_its_gaps_and_not_its_numbers():
    range_set = RangeSet([(0, 10**15)])
    range_set.remove(5, 7)
    assert (len(range_set), range_set.size) == (2, 10**15 - 2)
