"""What ranks get with their tasks, how far they compute, and how they wait until a result has left."""

from __future__ import annotations

import pickle
from random import Random

import numpy as np
import pytest

from mpims.core.chunks import Assign
from mpims.executor import taskworker
from mpims.executor.book import Book
from mpims.executor.calls import Calls
from mpims.executor.cargo import LENT_BYTES, NOTHING, PLAIN, Batch, decode
from mpims.executor.functions import ITEM, Function
from mpims.executor.orders import Tasks
from mpims.executor.supplies import Supplies
from mpims.executor.taskworker import LOOKS_PER_SLEEP, TaskWorker


@pytest.mark.parametrize("seed", range(50))
def test_a_supply_has_every_task_of_its_chunk_and_nothing_for_those_that_are_done(seed):
    random = Random(seed)
    book, done, n_items = Book(), set(), 0
    for key in range(random.randint(1, 8)):
        n = random.randint(1, 4)
        book.add(
            Tasks(key, Function(1 + key % 2, (1, b"")), ITEM, Batch(list(range(n)), bytearray(n)), False)
        )
        if random.random() < 0.4:
            done |= set(range(n_items, n_items + n))
        n_items += n
    for run in list(book):
        if run.first in done:
            book.done(run, run.n_left)
    stop = random.randint(1, n_items)
    chunk = Assign(1, 7, random.randrange(stop), stop)
    _, functions, pieces = decode(Supplies(book, lambda key: True).make(1, [chunk]))
    at = chunk.start
    for first, function, _, _, values, flags in pieces:
        assert first == at
        is_there = [item not in done for item in range(at, at + len(values))]
        assert list(flags) == [PLAIN if there else NOTHING for there in is_there]
        assert all(is_there) == (function in functions)
        at += len(values)
    assert at == chunk.stop


def array_of(n_bytes):
    return np.zeros(n_bytes, np.uint8)


@pytest.mark.parametrize(("n_bytes", "n_computed"), [(LENT_BYTES, 1), (LENT_BYTES // 2, 2), (0, 5)])
def test_nothing_is_computed_after_as_much_as_is_lent(n_bytes, n_computed):
    calls = Calls("here")
    functions = {1: (1, pickle.dumps(array_of))}
    calls.supply((False, functions, [(0, 1, ITEM, False, [n_bytes] * 5, bytearray(5))]), list)
    outcomes = calls.compute(0, 5, 60.0)
    assert len(outcomes.batch) == n_computed


class Leaving:
    """A transport whose result has left after so many looks."""

    lost = frozenset()

    def __init__(self, n_looks):
        self.n_looks = n_looks

    @property
    def unsent_bytes(self):
        return LENT_BYTES if self.n_looks > 0 else 0

    def receive(self, timeout_s):
        assert timeout_s == 0.0
        self.n_looks -= 1


def test_a_rank_whose_result_leaves_sleeps_between_looks(monkeypatch):
    naps = []
    monkeypatch.setattr(taskworker.time, "sleep", naps.append)
    transport = Leaving(3 * LOOKS_PER_SLEEP + 1)
    assert TaskWorker(transport)._await_left() is None
    assert transport.n_looks == 0
    assert len(naps) == 3
