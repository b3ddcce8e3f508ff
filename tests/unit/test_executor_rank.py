"""What ranks get with their tasks, how far they compute, and how they wait until a result has left."""

from __future__ import annotations

import errno
import os
import pickle
import sys
import time
from functools import partial
from random import Random
from unittest.mock import Mock

import numpy as np
import pytest

from mpims.core.chunks import Assign, Care
from mpims.executor import taskworker
from mpims.executor.book import Book
from mpims.executor.calls import MOST_ANEW_BYTES, Calls
from mpims.executor.cargo import (
    COPIED_BYTES_PER_S,
    LENT_BYTES,
    NOTHING,
    PLAIN,
    Batch,
    Packer,
    decode,
    unpack,
)
from mpims.executor.errors import TaskFailed
from mpims.executor.functions import ITEM, Function
from mpims.executor.orders import Tasks
from mpims.executor.supplies import Supplies
from mpims.executor.taskworker import LOOKS_PER_SLEEP, TaskComputing, TaskWorker
from mpims.options import RunOptions
from mpims.runtime.computing import MAX_UNSENT_BYTES
from mpims.runtime.wire import Kind, Message, decode_object


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


class Leaves:
    """What leaves Python where it is unpickled, as a module may that is imported for it."""

    def __reduce__(self):
        return sys.exit, (3,)


def test_a_function_that_leaves_where_it_is_unpickled_is_an_exception_of_its_tasks():
    calls = Calls("here")
    calls.supply(((), {1: (1, pickle.dumps(Leaves()))}, [(0, 1, ITEM, False, [5], bytearray(1))]), list)
    outcomes = calls.compute(0, 1, 0.0)
    assert type(unpack(outcomes.batch.flags[0], outcomes.batch.values[0])) is SystemExit


class LeavesAsItIsPickled(Exception):
    def __reduce__(self):
        raise SystemExit(3)


def make_new(of_type):
    return of_type()


def raise_new(of_type):
    raise of_type()


@pytest.mark.parametrize(
    ("function", "argument", "of_type"),
    [(make_new, LeavesAsItIsPickled, SystemExit), (raise_new, LeavesAsItIsPickled, TaskFailed)],
)
def test_what_leaves_where_it_is_pickled_is_an_exception_of_its_task(function, argument, of_type):
    calls, (flag, packed) = Calls("here"), Packer().pack(argument)
    supply = ((), {1: Packer().pack(function)}, [(0, 1, ITEM, False, [packed], bytearray((flag,)))])
    calls.supply(supply, list)
    outcomes = calls.compute(0, 1, 0.0)
    assert type(unpack(outcomes.batch.flags[0], outcomes.batch.values[0])) is of_type


def fork(how):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if isinstance(how, BaseException):
        raise how
    return how


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize(
    ("how", "status"), [(1, 0), (SystemExit(None), 0), (SystemExit(7), 7), (ValueError("none"), 1)]
)
def test_a_child_that_a_task_forks_ends_with_the_call(how, status):
    calls, rank = Calls("here"), os.getpid()
    flag, value = Packer().pack(how)
    supply = ((), {1: Packer().pack(fork)}, [(0, 1, ITEM, False, [value], bytearray((flag,)))])
    calls.supply(supply, list)
    try:
        outcomes = calls.compute(0, 1, 0.0)
    finally:
        if os.getpid() != rank:
            os._exit(99)
    assert outcomes.batch.values == [status]


class Counter:
    def __init__(self, ballast=b""):
        self.ballast = ballast
        self.n_calls = 0

    def count(self, by):
        self.n_calls += by
        return self.n_calls


@pytest.mark.parametrize(
    ("function", "results"),
    [
        (Counter().count, [1, 1, 1]),
        (partial(Counter.count, Counter()), [1, 1, 1]),
        (partial(Counter(np.zeros(100_000)).count), [1, 1, 1]),
        (Counter(bytes(MOST_ANEW_BYTES)).count, [1, 2, 3]),
        (abs, [1, 1, 1]),
    ],
)
def test_one_call_hands_no_state_on_to_the_next(function, results):
    calls = Calls("here")
    calls.supply(((), {1: Packer().pack(function)}, [(0, 1, ITEM, False, [1] * 3, bytearray(3))]), list)
    assert calls.compute(0, 3, 60.0).batch.values == results


CACHED = """
from functools import cache, lru_cache, partial

@cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@lru_cache(5, typed=True)
def count(n):
    return count.cache_info()[1:]

cube = cache(partial(pow, exp=3))

class Squares:
    @cache
    def of(self, n):
        return n * n
"""


def test_a_function_of_the_program_with_a_cache_travels_and_keeps_it_there():
    program = {"__name__": "__main__"}
    exec(CACHED, program)
    calls, packer = Calls("here"), Packer()
    functions = {1: packer.pack(program["fibonacci"]), 2: packer.pack(program["count"])}
    calls.supply(((), functions, [(0, 1, ITEM, False, [90], bytearray(1))]), list)
    calls.supply(((), {}, [(1, 2, ITEM, False, [1, 1.0, 1], bytearray(3))]), list)
    assert calls.compute(0, 1, 60.0).batch.values == [2880067194370816120]
    assert [unpack(1, value) for value in calls.compute(1, 4, 60.0).batch.values] == [
        (1, 5, 0),
        (2, 5, 1),
        (1, 5, 0),
    ]
    assert program["fibonacci"].cache_info().currsize == 0
    assert unpack(*packer.pack(program["Squares"]())).of(3) == 9
    assert unpack(*packer.pack(program["cube"]))(2) == 8


DISPATCHING = """
from functools import singledispatch, singledispatchmethod

class Shape: pass
class Square(Shape): pass

@singledispatch
def name(it):
    "The name."
    return "other"

@name.register
def _(it: list): return [name(part) for part in it]

@name.register(Shape)
def _(it): return "shape"

name.note = 5

class Namer:
    @singledispatchmethod
    def name(self, it): return "other"
    @name.register(Shape)
    def _(self, it): return "shape"

def both(it): return name(it), Namer().name(it)
"""


def test_a_function_of_the_program_that_looks_at_the_type_travels():
    program = {"__name__": "__main__"}
    exec(DISPATCHING, program)
    name, both, square, namer = unpack(
        *Packer().pack([program["name"], program["both"], program["Square"](), program["Namer"]().name])
    )
    assert name([[square], 1]) == [["shape"], "other"]
    assert (name.__name__, name.__doc__, name.note) == ("name", "The name.", 5)
    assert both(square) == ("shape", "shape")
    assert both("") == ("other", "other")
    assert namer(square) == "shape"
    dispatch = unpack(*Packer().pack(program["name"].dispatch))
    assert dispatch(type(square))(square) == "shape"
    name.register(int, lambda it: "integer")
    assert (name(1), program["name"](1)) == ("integer", "other")
    with pytest.raises(TypeError, match="name requires at least"):
        name()


def array_of(n_bytes):
    return np.zeros(n_bytes, np.uint8)


@pytest.mark.parametrize(("n_bytes", "n_computed"), [(LENT_BYTES, 1), (LENT_BYTES // 2, 2), (0, 5)])
def test_nothing_is_computed_after_as_much_as_is_lent(n_bytes, n_computed):
    calls = Calls("here")
    functions = {1: (1, pickle.dumps(array_of))}
    calls.supply(((), functions, [(0, 1, ITEM, False, [n_bytes] * 5, bytearray(5))]), list)
    outcomes = calls.compute(0, 5, 60.0)
    assert len(outcomes.batch) == n_computed


KEPT = np.zeros(LENT_BYTES, np.uint8)
COPY_S = LENT_BYTES / COPIED_BYTES_PER_S
addresses = []
now = [0.0]


def fresh(seconds):
    now[0] += seconds
    array = np.zeros(LENT_BYTES, np.uint8)
    addresses.append(array.ctypes.data)
    return array


def kept(seconds):
    now[0] += seconds
    addresses.append(KEPT.ctypes.data)
    return KEPT


def view(seconds):
    return kept(seconds)[:]


def in_a_dict(seconds):
    return {"array": kept(seconds)}


@pytest.mark.parametrize(
    ("function", "seconds", "is_copied", "is_lent"),
    [
        (fresh, 0.0, False, False),
        (fresh, 2 * COPY_S, False, False),
        (kept, 0.0, False, True),
        (kept, 2 * COPY_S, True, False),
        (view, 0.0, False, True),
        (view, 2 * COPY_S, True, False),
        (in_a_dict, 0.0, False, True),
        (in_a_dict, 2 * COPY_S, True, False),
    ],
)
def test_what_of_a_result_is_copied_and_what_is_lent(monkeypatch, function, seconds, is_copied, is_lent):
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    calls = Calls("here")
    functions = {1: (1, pickle.dumps(function))}
    calls.supply(((), functions, [(0, 1, ITEM, False, [seconds], bytearray(1))]), list)
    packed = calls.compute(0, 1, 0.0).batch.values[0]
    assert (packed[1][0].ctypes.data != addresses.pop()) == is_copied
    assert calls.packer.has_lent == is_lent


class Leaving:
    """A transport by which so much is to leave, all at once after so many looks."""

    lost = frozenset()

    def __init__(self, n_bytes, n_looks):
        self.n_bytes, self.n_looks = n_bytes, n_looks

    @property
    def unsent_bytes(self):
        return self.n_bytes if self.n_looks > 0 else 0

    def receive(self, timeout_s):
        assert timeout_s == 0.0
        self.n_looks -= 1


def waiting_rank(n_bytes, n_looks, *, lent=False):
    """A rank by whose transport so much is to leave, and that transport."""
    transport = Leaving(n_bytes, n_looks)
    rank = TaskWorker(transport)
    rank._calls = Calls("here")
    if lent:
        rank._calls.packer.pack(np.zeros(n_bytes, np.uint8), took_s=0.0)
    return rank, transport


def test_a_rank_whose_result_leaves_sleeps_between_looks(monkeypatch):
    naps = []
    monkeypatch.setattr(taskworker.time, "sleep", naps.append)
    rank, transport = waiting_rank(LENT_BYTES, 3 * LOOKS_PER_SLEEP + 1, lent=True)
    assert rank._await_left() is None
    assert transport.n_looks == 0
    assert len(naps) == 3


def test_a_rank_waits_until_what_is_lent_has_left_once():
    rank, transport = waiting_rank(LENT_BYTES, 2, lent=True)
    rank._await_left()
    assert transport.n_looks == 0
    transport.n_looks = 1  # a copy, sent afterwards
    assert rank._may_compute()


@pytest.mark.parametrize(("n_bytes", "computes"), [(MAX_UNSENT_BYTES - 1, True), (MAX_UNSENT_BYTES, False)])
def test_a_rank_computes_while_copies_leave_unless_they_are_too_much(n_bytes, computes):
    rank, _ = waiting_rank(n_bytes, 1)
    assert rank._may_compute() is computes


def test_a_message_that_comes_meanwhile_lets_nothing_be_computed():
    rank, transport = waiting_rank(LENT_BYTES, 3, lent=True)
    transport.receive = lambda timeout_s: messages.pop(0)
    messages = [Message(Kind.LOST, 5, b"", []), None]
    computing = rank._computing = Mock(has_work=True)
    rank.step()
    assert not messages
    assert not computing.compute.called
    transport.n_looks = 0
    messages = [None]
    rank.step()
    assert computing.compute.called


def test_a_task_for_which_there_is_no_child_fails_and_no_other(monkeypatch):
    monkeypatch.setattr(os, "posix_spawn", Mock(side_effect=BlockingIOError(errno.EAGAIN, "Try again")))
    sent = []
    computing = TaskComputing(Calls("here"), RunOptions(), lambda *message: sent.append(message), Mock())
    computing.add([(7, 3, 4, Care.ISOLATED)])
    computing.compute()
    ((kind, _, buffers),) = sent
    failed = decode_object(buffers)
    assert (kind, failed.attempt, failed.start, failed.stop) == (Kind.FAILED, 7, 3, 4)
    assert "no child process to compute it in" in failed.reason
    assert not failed.is_final
    assert not computing.has_work
