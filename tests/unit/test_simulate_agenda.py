"""The simulator's agenda gives what is to happen in the order of a heap, however much is put off."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpims.simulator.agenda import FEW, Agenda

TIMES = st.floats(0.0, 100.0) | st.integers(0, 400).map(lambda quarter: quarter / 4)
MANY = FEW + 1


def take(agenda):
    """The next entry, or None."""
    if not agenda.near and not agenda.refill():
        return None
    return heappop(agenda.near)


@given(
    first=st.lists(TIMES, max_size=50),
    later=st.lists(TIMES, max_size=50),
    gap_s=st.sampled_from([0.0, 1e-300, 1e-3, 0.01, 0.3, 1e3]),
    n_entries=st.sampled_from([1, MANY]),
)
def test_the_order_is_that_of_a_heap(first, later, gap_s, n_entries):
    """Entries come as in a simulation: some at the start, and one, later, for each that is taken out."""
    agenda, heap = Agenda(n_entries, gap_s), [(time, key) for key, time in enumerate(first)]
    heapify(heap)
    for entry in heap:
        agenda.push(entry)
    for key, delay in enumerate(later, len(first)):
        if not heap:
            break
        entry = heappop(heap)
        assert take(agenda) == entry
        following = (entry[0] + delay, key)
        heappush(heap, following)
        agenda.push(following)
    while heap:
        assert take(agenda) == heappop(heap)
    assert take(agenda) is None


def test_the_order_is_that_of_a_heap_in_a_long_run():
    """Of 300 entries the next comes, some 64 to a bucket, and each is followed by one that may be near."""
    random, n = Random(1), 300
    agenda, heap = Agenda(MANY, 1 / n), [(random.expovariate(1), key) for key in range(n)]
    heapify(heap)
    for entry in heap:
        agenda.push(entry)
    for key in range(n, 20 * n):
        entry = heappop(heap)
        assert take(agenda) == entry
        following = (entry[0] + random.expovariate(1), key)
        heappush(heap, following)
        agenda.push(following)


def test_of_few_entries_all_are_near():
    agenda = Agenda(FEW, 1.0)
    agenda.push((1e9, 1))
    assert (agenda.near, agenda.edge) == ([(1e9, 1)], inf)


def test_of_many_entries_few_are_near():
    agenda = Agenda(MANY, 0.01)
    for key in range(MANY):
        agenda.push((key * 0.01, key))
    assert agenda.near == []
    n_buckets = 0
    while agenda.refill():
        assert 0 < len(agenda.near) <= 128
        assert agenda.near[-1][0] < agenda.edge
        agenda.near.clear()
        n_buckets += 1
    assert n_buckets == pytest.approx(MANY / 64, rel=0.6)
