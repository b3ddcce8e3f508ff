"""One contract for every transport; here within the process, in tests/mpi over MPI."""

from __future__ import annotations

from threading import Event

import pytest

from mpims.runtime.transport.local import local_transports
from mpims.runtime.transport.waiting import Waiting
from tests.transport_contract import check_pair


def test_the_local_transport_keeps_the_contract():
    first, second = local_transports(2)
    check_pair(first, second)


class Time:
    """A virtual time: a look costs 2 µs, a yield 1 µs; sleeps are counted."""

    def __init__(self):
        self.now = 0.0
        self.sleeps = []

    def clock(self):
        self.now += 2e-6
        return self.now

    def give_way(self):
        self.now += 1e-6

    def sleep(self, seconds):
        self.now += seconds
        self.sleeps.append(seconds)


def waiting_after(gap_s: float) -> tuple[Time, Waiting]:
    """A waiting that has seen messages come with that gap."""
    time = Time()
    waiting = Waiting(time.clock, time.sleep, time.give_way)
    for _ in range(100):
        time.now += gap_s
        waiting.arrived()
    return time, waiting


def wait(time: Time, waiting: Waiting, timeout_s: float, slack_s: float = 0.0) -> int:
    """Wait to the end; give the number of looks."""
    waiting.begin()
    n_looks = 0
    while waiting.pause(timeout_s, slack_s):
        n_looks += 1
    return n_looks


@pytest.mark.parametrize("gap_s", [1e-5, 1e-3, 0.1, 10.0])
@pytest.mark.parametrize("timeout_s", [1e-6, 1e-4, 0.05, 1.0])
def test_a_wait_ends_when_its_time_is_over(gap_s, timeout_s):
    time, waiting = waiting_after(gap_s)
    began = time.now
    wait(time, waiting, timeout_s)
    assert timeout_s <= time.now - began < timeout_s + 2e-5


def test_fast_answers_are_waited_for_without_sleep():
    time, waiting = waiting_after(20e-6)
    assert wait(time, waiting, 250e-6) > 50
    assert time.sleeps == []


def test_rare_answers_are_slept_for_and_the_sleeps_grow():
    time, waiting = waiting_after(0.1)
    n_looks = wait(time, waiting, 0.1)
    assert n_looks < 50
    assert time.sleeps[:4] == [50e-6, 100e-6, 200e-6, 400e-6]
    assert max(time.sleeps) == pytest.approx(0.1 / 20, rel=0.01)


@pytest.mark.parametrize("gap_s", [0.025, 0.5e-3])
def test_a_wait_with_slack_looks_but_now_and_then(gap_s):
    time, waiting = waiting_after(gap_s)
    wait(time, waiting, 0.035, slack_s=0.015)
    assert time.sleeps == pytest.approx([0.015, 0.015, 0.005], rel=0.01)


def test_while_a_large_message_is_under_way_mpi_is_called_all_the_time():
    time, waiting = waiting_after(0.025)
    waiting.begin()
    began = time.now
    while waiting.pause(0.2, 0.05, is_moving=True):
        if time.now - began < 0.1:
            assert not time.sleeps
    assert time.sleeps
    assert max(time.sleeps) <= 50e-6


def test_who_spins_never_sleeps():
    time, waiting = waiting_after(10.0)
    waiting.begin()
    for _ in range(1000):
        assert waiting.pause(1.0, 0.5, spins=True)
    assert time.sleeps == []
    time.now += 1.0
    assert not waiting.pause(1.0, 0.5, spins=True)


def test_slack_is_no_reason_to_miss_messages_that_come_fast():
    time, waiting = waiting_after(20e-6)
    wait(time, waiting, 200e-6, slack_s=0.05)
    assert time.sleeps == []


def test_a_wait_that_turns_out_long_costs_little():
    """Messages came fast, then none: the looks become rare although the mean gap is still short."""
    time, waiting = waiting_after(20e-6)
    assert wait(time, waiting, 1.0) < 350


def test_a_rank_whose_program_comes_to_mpims_alone_says_so(monkeypatch):
    """The duplicate of the world waits for all ranks, and for ever where the others do not make it."""
    from mpims.runtime.transport import mpi

    said, is_said = [], Event()

    class Alone:
        rank = 0

        def Dup(self):
            assert is_said.wait(10)
            return self

    def say(line):
        said.append(line)
        is_said.set()

    world = Alone()
    monkeypatch.setattr(mpi.MPI, "COMM_WORLD", world)
    monkeypatch.setattr(mpi, "_PATIENCE_S", 0.001)
    monkeypatch.setattr(mpi, "say", say)
    assert mpi._duplicate() is world
    assert len(said) == 1
    assert "rank 0" in said[0]
    assert "every rank of a program calls mpims.run or mpims.Executor" in said[0]
