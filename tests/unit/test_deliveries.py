"""What of the results of one message is committed together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mpims.core.events import Record
from mpims.runtime.deliveries import whole_runs
from mpims.runtime.wire import ResultHead


def runs(heads, records, has_units=True):
    delivered = [ResultHead(i, *span) for i, span in enumerate(heads)]
    found = whole_runs(delivered, records, has_units=has_units)
    return [(d.head.start, d.head.stop, d.first, d.last, d.ranges) for d in found]


def test_neighbours_that_count_whole_are_one():
    records = [(i, Record(i, (span,))) for i, span in enumerate([(0, 1), (1, 2), (2, 4)])]
    assert runs([(0, 1), (1, 2), (2, 4)], records) == [(0, 4, 0, 3, ((0, 1), (1, 2), (2, 4)))]
    assert runs([(0, 1), (1, 2), (2, 4)], records, has_units=False) == [(0, 4, 0, 3, ((0, 4),))]


def test_a_gap_in_the_items_or_in_what_counts_parts_them():
    assert runs([(0, 1), (2, 3)], [(0, Record(0, ((0, 1),))), (1, Record(1, ((2, 3),)))]) == [
        (0, 1, 0, 1, ((0, 1),)),
        (2, 3, 1, 2, ((2, 3),)),
    ]
    heads = [(0, 2), (2, 4), (4, 6)]
    assert runs(heads, [(0, Record(0, ((0, 2),))), (2, Record(2, ((4, 6),)))]) == [
        (0, 2, 0, 1, ((0, 2),)),
        (4, 6, 2, 3, ((4, 6),)),
    ]
    assert runs(heads, [(0, Record(0, ((0, 2),))), (1, Record(1, ((3, 4),)))]) == [
        (0, 2, 0, 1, ((0, 2),)),
        (2, 4, 1, 2, ((3, 4),)),
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()), max_size=12))
def test_all_that_counts_is_committed_once_and_in_order(drawn):
    """Each head begins so many items behind the last, has so many, and counts or does not."""
    heads, records, at = [], [], 0
    for i, (gap, length, counts) in enumerate(drawn):
        start = at + gap
        at = start + length
        heads.append((start, at))
        if counts:
            records.append((i, Record(i, ((start, at),))))
    found = runs(heads, records)
    assert [span for run in found for span in run[4]] == [heads[i] for i, _ in records]
    for start, stop, first, last, ranges in found:
        assert (start, stop) == (heads[first][0], heads[last - 1][1])
        assert sum(b - a for a, b in ranges) == stop - start
