"""When ranks get a shared array: once all are there, and after what was ordered before."""

from __future__ import annotations

import os
import resource
import time

import numpy as np
import pytest

from mpims.errors import MpimsError, UsageError
from mpims.executor import taskmaster
from mpims.executor.cargo import Batch, decode
from mpims.executor.functions import ITEM, Function
from mpims.executor.orders import Abort, Spread, Tasks
from mpims.executor.serving import TASKS
from mpims.executor.spread import (
    Form,
    Held,
    Named,
    forget_spread,
    keep_spread,
    share_here,
    spread_value,
)
from mpims.executor.taskmaster import TaskMaster
from mpims.options import RunOptions
from mpims.processes import this_process
from mpims.runtime.transport.local import local_transports
from mpims.runtime.wire import Joined, Kind, Start, encode_object


def test_too_many_shared_arrays_are_told_in_one_line_and_leave_the_program_some_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open, spare = len(os.listdir("/proc/self/fd")), os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    for n_left in (0, 1, 30):  # for the memory there is none, or none for the mapping, or few for the rest
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + n_left, hard))
        try:
            with pytest.raises(UsageError, match=r"5 bytes: Too many open files \(each .*ulimit -n"):
                share_here(np.zeros(5, np.uint8))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == n_open


class Anybody:
    """Wants everything, and does nothing with it."""

    def started(self, key):
        return True

    def delivered(self, key, offset, batch, busy_s):
        pass


class Program:
    """A master of two ranks of another host, driven by hand."""

    def __init__(self, customer=None):
        self.here, *self.ranks = local_transports(3)
        self.master = TaskMaster(self.here, [1, 2], customer or Anybody(), timeout_s=None, n_retries=0)
        start = Start(
            source=TASKS,
            parameters={},
            options=RunOptions(),
            run_id=TASKS,
            epoch=0,
            run_dir="",
            command=(),
            master=this_process(),
        )
        self.master.begin(start)
        for rank in (1, 2):
            self.sent(rank)

    def join(self, rank):
        process = this_process()._replace(host="n2", boot="another", pid=rank)
        joined = Joined(host="n2", process=process, holding=(), n_items=0, items_digest="", job=TASKS)
        self.ranks[rank - 1].send(0, Kind.JOINED, b"", encode_object(joined))
        self.turn()

    def give(self, *orders):
        for order in orders:
            self.master.give(order)
        self.turn()

    def turn(self):
        for _ in range(3):
            self.master._turn(0.0)

    def sent(self, rank):
        """What a rank was sent: what is spread, or how many tasks."""
        found = []
        while (message := self.ranks[rank - 1].receive(0.0)) is not None:
            if message.kind is Kind.ASSIGN:
                _, _, pieces, *spread = decode(message.buffers)
                found += [*spread[0].values()] if spread else [len(pieces)]
        return found


@pytest.fixture
def program():
    return Program()


@pytest.fixture
def shared():
    array, _ = share_here(np.arange(5))
    yield Spread(7, array)
    os.close(array.descriptor)


def task(key):
    return Tasks(key, Function(1, (0, None)), ITEM, Batch([key], bytearray(1)), True)


def test_an_array_waits_until_all_ranks_of_its_host_are_there(program, shared):
    program.join(1)
    program.give(task(1), shared, task(2))
    assert program.sent(1) == [1]  # what came before the array does not wait
    program.join(2)
    (held, *_), (named, *_) = program.sent(1), program.sent(2)
    assert isinstance(held, Held)
    assert isinstance(named, Named)
    assert held.names == (named.name,)


def test_a_rank_that_is_dead_is_not_waited_for(program, shared):
    program.join(1)
    program.here.lost.add(2)
    program.give(shared, task(2))
    (held, n_pieces) = program.sent(1)
    assert isinstance(held, Held)
    assert n_pieces == 1


def test_a_rank_that_does_not_come_is_not_waited_for_long(program, shared, monkeypatch):
    monkeypatch.setattr(taskmaster, "GATHERING_S", 0.05)
    program.join(1)
    program.give(shared)
    time.sleep(0.06)
    program.turn()
    assert [type(one) for one in program.sent(1)] == [Held]


def test_an_end_at_once_does_not_wait(program, shared):
    program.join(1)
    program.give(shared, Abort())
    assert program.master.ended


def test_a_value_waits_for_nobody(program):
    program.join(1)
    program.give(Spread(3, (0, "value")))
    assert program.sent(1) == [(0, "value")]


# ------------------------------------------------------------------ the ranks of another host

FOLDER = "/dev/shm"


def test_an_array_lies_once_on_the_host_and_leaves_no_name():
    array = np.arange(1000.0)
    name = f"mpims-test-{os.getpid()}"
    try:
        keep_spread(1, Held(array, (name,)))
        keep_spread(2, Named(name, Form(array.dtype, array.shape)))
        np.testing.assert_array_equal(spread_value(1), array)
        np.testing.assert_array_equal(spread_value(2), array)
        assert not spread_value(2).flags.writeable
    finally:
        forget_spread()
    assert not [left for left in os.listdir(FOLDER) if str(os.getpid()) in left]


def test_where_memory_has_no_room_all_ranks_of_the_host_say_so_at_once():
    room = os.statvfs(FOLDER)
    n = 1 + room.f_blocks * room.f_frsize // 8
    if n == 1:
        pytest.skip(f"{FOLDER} has room for anything")
    array = np.broadcast_to(np.float64(1.0), (n,))
    name = f"mpims-test-{os.getpid()}"
    try:
        keep_spread(1, Held(array, (name,)))
        keep_spread(2, Named(name, Form(array.dtype, array.shape)))
        for number in (1, 2):
            with pytest.raises(MpimsError, match=f"No space left.*{FOLDER}.*bcast"):
                spread_value(number)
    finally:
        forget_spread()
    assert not [left for left in os.listdir(FOLDER) if str(os.getpid()) in left]


def test_names_that_a_dead_rank_has_not_taken_are_removed_at_the_end(monkeypatch):
    at_end = []
    monkeypatch.setattr("atexit.register", lambda *call: at_end.append(call))
    array = np.arange(3)
    names = [f"mpims-test-{os.getpid()}-{i}" for i in range(2)]
    try:
        keep_spread(1, Held(array, tuple(names)))
        keep_spread(2, Named(names[0], Form(array.dtype, array.shape)))
    finally:
        forget_spread()
    assert [os.path.exists(f"{FOLDER}/{name}") for name in names] == [False, True]
    for function, *arguments in at_end:
        function(*arguments)
    assert not os.path.exists(f"{FOLDER}/{names[1]}")
