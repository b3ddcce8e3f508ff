"""A task that is the only one: its result is passed on before it is booked, by a master driven by hand."""

from __future__ import annotations

import pytest

from mpims.executor.cargo import Batch, decode, encode
from mpims.executor.functions import ITEM, Function
from mpims.executor.orders import Cancel, Close, Tasks
from mpims.runtime.wire import Kind, decode_assign, pack_result, results_head
from tests.unit.test_executor_sharing import Program

SQUARE = Function(1, (0, None))


class Results:
    """Keeps what was delivered."""

    def __init__(self):
        self.got = []

    def started(self, key):
        return True

    def delivered(self, key, offset, batch, busy_s):
        self.got.append((key, *batch.values))

    def cancel_rest(self):
        pass


class Alone(Program):
    """The same program, with ranks that answer when they are told to."""

    def __init__(self):
        self.results = Results()
        super().__init__(self.results)
        self.scheduler = self.master._scheduler
        for rank in (1, 2):
            self.join(rank)

    def call(self, key, value, *, is_single=True):
        """The program asks for something; who gets it?"""
        self.master.give(Tasks(key, SQUARE, ITEM, Batch([value], bytearray(1)), is_single))
        self.master._take_orders()
        return self.given()

    def given(self):
        """What each rank was sent since: rank, attempt, first, stop, value."""
        found = []
        for rank in (1, 2):
            while (message := self.ranks[rank - 1].receive(0.0)) is not None:
                if message.kind is Kind.ASSIGN:
                    ((number, start, stop, _),) = decode_assign(message.head)
                    ((*_, values, _),) = decode(message.buffers)[2]
                    found.append((rank, number, start, stop, *values))
        return found

    def answer(self, rank, number, start, stop, value):
        """A rank answers with the square."""
        head = results_head([pack_result(number, start, stop, 1e-6, 0.0, 0.0, 0.0, 0.0)])
        self.ranks[rank - 1].send(0, Kind.RESULT, head, encode(([value * value], bytearray(1))))

    def check(self):
        """Everything is booked, and the scheduler's books are in order."""
        self.master._turn(0.0)
        self.scheduler.ledger.check()
        assert not self.scheduler.ledger.attempts
        assert self.scheduler.ledger.done.size == self.scheduler.ledger.n_items == self.master._book.n_items
        assert not list(self.master._book)


@pytest.fixture
def program():
    return Alone()


def test_a_result_is_there_before_it_is_booked_and_the_next_task_goes_to_the_same_rank(program):
    ranks = set()
    for key in range(5):
        (task,) = program.call(key, key)
        ranks.add(task[0])
        assert program.scheduler.ledger.done.size == key  # that of the call before, by now
        program.answer(*task)
        program.master._turn(0.0)
        assert program.results.got[-1] == (key, key * key)
        assert program.scheduler.ledger.done.size == key, "not yet"
    assert len(ranks) == 1
    program.check()
    assert len(program.results.got) == 5


def test_an_answer_that_comes_again_counts_once(program):
    (task,) = program.call(7, 3)
    for _ in range(2):
        program.answer(*task)
        program.turn()
    (other,) = program.call(8, 4)
    program.answer(*task)
    program.turn()
    program.answer(*other)
    program.turn()
    assert program.results.got == [(7, 9), (8, 16)]
    program.check()


def test_what_was_passed_on_is_booked_before_its_rank_dies(program):
    (task,) = program.call(7, 3)
    program.answer(*task)
    program.master._turn(0.0)
    (next_task,) = program.call(8, 4)
    assert next_task[0] == task[0]
    (third,) = program.call(9, 5)
    program.ranks[task[0] - 1].send(0, Kind.LOST)
    program.answer(*third)
    program.turn()
    (again,) = program.given()  # and not the first one, too
    assert (again[0], again[4]) == (third[0], 4)
    program.answer(*again)
    program.turn()
    assert program.results.got == [(7, 9), (9, 25), (8, 16)]
    program.check()


def test_with_another_task_or_after_a_map_all_is_as_ever(program):
    (task,) = program.call(7, 3)
    (other,) = program.call(8, 4)
    program.answer(*task)
    program.master._turn(0.0)
    assert (program.results.got, program.scheduler.ledger.done.size) == ([(7, 9)], 1)
    program.answer(*other)
    program.turn()
    (mapped,) = program.call(9, 5, is_single=False)
    program.answer(*mapped)
    program.master._turn(0.0)
    assert program.results.got == [(7, 9), (8, 16), (9, 25)]
    program.check()


def test_the_end_comes_once_all_is_booked(program):
    (task,) = program.call(7, 3)
    program.answer(*task)
    program.master._turn(0.0)
    program.master.give(Cancel(7))
    program.master.give(Close())
    program.turn()
    assert program.master.ended
    assert program.master.error is None
    assert program.results.got == [(7, 9)]
