"""Which results of a message a commit is of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mpims.core.chunks import Result
from mpims.core.events import Record
from mpims.runtime.deliveries import deliveries


def found(heads, records):
    results = [Result(number, *span) for number, span in enumerate(heads, 1)]
    return [
        (d.head.attempt, d.head.start, d.head.stop, d.first, d.last) for d in deliveries(results, records)
    ]


def test_a_record_may_be_of_several_results_that_follow_each_other():
    heads = [(0, 2), (2, 3), (3, 5), (8, 9)]
    records = [Record(1, ((0, 5),)), Record(4, ((8, 9),))]
    assert found(heads, records) == [(1, 0, 5, 0, 3), (4, 8, 9, 3, 4)]


def test_in_units_too():
    assert found([(0, 2), (2, 3)], [Record(1, ((0, 1), (1, 2), (2, 3)))]) == [(1, 0, 3, 0, 2)]


def test_a_record_may_be_of_a_part_of_a_result():
    assert found([(0, 9)], [Record(1, ((2, 3), (5, 7)))]) == [(1, 0, 9, 0, 1)]


def test_results_without_a_record_are_left_out():
    assert found([(0, 2), (2, 3), (3, 5)], [Record(2, ((2, 3),))]) == [(2, 2, 3, 1, 2)]
    assert found([(0, 2)], []) == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()), max_size=12), st.data())
def test_all_that_counts_is_found_in_its_place(drawn, data):
    """Each result begins so many items behind the last, has so many, and counts or does not."""
    heads, records, at = [], [], 0
    joins = False
    for number, (gap, length, counts) in enumerate(drawn, 1):
        start, at = at + gap, at + gap + length
        heads.append((start, at))
        if counts and joins and gap == 0 and data.draw(st.booleans()):
            (first, _) = records[-1].ranges[0]
            records[-1] = Record(records[-1].attempt, ((first, at),))
        elif counts:
            records.append(Record(number, ((start, at),)))
        joins = counts
    for record, (number, start, stop, first, last) in zip(records, found(heads, records), strict=True):
        assert ((start, stop),) == record.ranges
        assert number == record.attempt == first + 1
        assert (heads[first][0], heads[last - 1][1]) == (start, stop)
