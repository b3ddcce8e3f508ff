"""The tasks that are outstanding, and how many of them make a chunk."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from mpims.core.ranges import RangeSet
from mpims.executor.book import CHUNK_BYTES, CHUNK_S, MOST_SINGLES, Book, TaskSizes, learn_bytes
from mpims.executor.cargo import Batch, Packer
from mpims.executor.functions import Function
from mpims.executor.orders import Tasks


def tasks(key, n, function=None, *, is_single=False):
    function = function or Function(1, (1, b""))
    return Tasks(key, function, 0, Batch(list(range(n)), bytearray(n)), is_single)


def test_tasks_are_found_until_they_are_done():
    random = Random(1)
    book, expected = Book(), {}
    at = 0
    for key in range(300):
        n = random.randint(1, 5)
        assert book.add(tasks(key, n)) == n
        expected[key] = set(range(at, at + n))
        at += n
    items = list(range(at))
    random.shuffle(items)
    for done, item in enumerate(items):
        ((run, start, stop),) = list(book.within(item, item + 1))
        assert (start, stop) == (item, item + 1)
        assert item in expected[run.tasks.key]
        book.done(run, 1)
        expected[run.tasks.key].discard(item)
        if done % 50 == 0:
            live = {key for key, left in expected.items() if left}
            assert {run.tasks.key for run in book} == live
            assert {run.tasks.key for run, _, _ in book.within(0, at)} == live
    assert list(book) == []
    assert book.n_items == at


def sizes(book, n_workers=2, pending=None):
    pending = pending or RangeSet([(0, book.n_items)])
    policy = TaskSizes(book, pending, n_workers)
    return policy.propose(pending.size, 1)


def test_a_function_that_was_never_measured_is_tried_one_call_at_a_time():
    book = Book()
    book.add(tasks(0, 1000))
    assert sizes(book) == 1


def measured(mean_s, mean_bytes=10.0):
    function = Function(1, (1, b""))
    function.mean_s, function.mean_bytes = mean_s, mean_bytes
    return function


def test_a_chunk_is_half_a_share_and_not_too_long_nor_too_large():
    book = Book()
    book.add(tasks(0, 1000, measured(1e-6)))
    assert sizes(book) == 1000 // 4
    book = Book()
    book.add(tasks(0, 1000, measured(CHUNK_S / 8)))
    assert sizes(book) == pytest.approx(8, abs=1)
    book = Book()
    book.add(tasks(0, 1000, measured(1e-6, CHUNK_BYTES / 3)))
    assert sizes(book) == pytest.approx(3, abs=1)
    book = Book()
    book.add(tasks(0, 1000, measured(100.0, 1e9)))
    assert sizes(book) == 1


def test_large_arguments_of_single_calls_are_learnt_and_small_ones_only_after_them():
    def learnt(function, n_bytes):
        packed = Packer().pack(np.zeros(n_bytes, np.uint8))
        learn_bytes(Tasks(0, function, 0, Batch([packed[1]], bytearray([packed[0]])), True))
        return function.mean_bytes

    function = measured(1e-6, 0.0)
    assert learnt(function, 100) == 0.0  # as many as a chunk may have are not too much
    large = learnt(function, 1_000_000)
    assert large >= 1_000_000
    assert learnt(function, 100) < large


def test_a_chunk_is_of_one_function():
    book, one, other = Book(), measured(1e-6), measured(1e-6)
    book.add(tasks(0, 3, one))
    book.add(tasks(1, 1000, other))
    assert sizes(book) == 3
    book = Book()
    for key in range(10):
        book.add(tasks(key, 1, one if key < 4 else other, is_single=True))
    assert sizes(book, n_workers=1) == 4
    book = Book()
    for key in range(10 * MOST_SINGLES):
        book.add(tasks(key, 1, one, is_single=True))
    assert sizes(book, n_workers=1) == MOST_SINGLES
