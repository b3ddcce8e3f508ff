"""A wait for messages that another thread ends; a master that several threads drive in turns."""

from __future__ import annotations

import signal
import threading
import time
from math import inf
from types import SimpleNamespace

import pytest

from mpims.core.scheduler import Scheduler
from mpims.executor.helping import REST_S, Bell, Turns
from mpims.executor.taskmaster import RESULT_WAIT_S, TaskMaster
from mpims.runtime.transport.joint import JointTransport
from mpims.runtime.transport.local import local_transports
from mpims.runtime.transport.waiting import Waiting
from mpims.runtime.wire import Kind


@pytest.mark.parametrize("ring", [Bell.set, Bell.strike])
@pytest.mark.parametrize("joint", [False, True])
def test_the_bell_ends_a_wait_once(joint, ring):
    inner, other = local_transports(2)
    transport = JointTransport(inner) if joint else inner
    bell = transport.bell = Bell()
    assert transport.bell is bell
    threading.Timer(0.02, ring, [bell]).start()
    began = time.monotonic()
    assert transport.receive(10.0) is None
    assert time.monotonic() - began < 5
    assert not bell.is_set()
    other.send(0, Kind.PING)
    message = transport.receive(1.0)
    assert message is not None
    assert message.kind is Kind.PING


@pytest.mark.parametrize("ring", [Bell.set, Bell.strike])
def test_waiting_hears_the_bell_between_two_looks(ring):
    waiting = Waiting()
    bell = waiting.bell = Bell()
    waiting.begin()
    assert waiting.pause(1.0)
    ring(bell)
    assert not waiting.pause(1.0)
    assert waiting.pause(1.0)
    waiting.bell = None
    assert waiting.bell is None


def test_a_result_does_not_wait_long_while_all_ranks_are_busy(monkeypatch):
    here, _ = local_transports(2)
    slacks = []
    monkeypatch.setattr(here, "receive", lambda timeout_s, slack_s=0.0: slacks.append(slack_s))
    monkeypatch.setattr(Scheduler, "slack_s", 5.0)
    TaskMaster(here, [1], SimpleNamespace(started=None), timeout_s=None, n_retries=0).step(0.0)
    assert slacks == [RESULT_WAIT_S]


def test_a_signal_that_comes_while_its_thread_has_the_bells_lock_is_heard():
    """Ctrl-C in the middle of a sleep that the bell may end: the handler may not wait for that lock."""
    work = Work()
    work.turns.open()

    def interrupted(timeout_s):
        with work.bell._cond:  # as in the middle of `wait`
            work.turns._hear(note, signal.SIGINT, None)
        work.drivers.append(threading.get_ident())

    def note(number, frame):
        heard.append(number)

    heard = []
    work.turns._drive = interrupted
    thread = threading.Thread(target=work.turns.help, args=(lambda: False, inf), daemon=True)
    thread.start()
    thread.join(10.0)
    assert heard == [signal.SIGINT]
    assert len(work.drivers) == 1


class TooLong(Exception):
    pass


def test_a_handler_that_is_new_spoils_no_turn_either_and_may_be_taken_away_again():
    def give_up(number, frame):
        raise TooLong

    def interrupted(timeout_s):
        signal.raise_signal(signal.SIGALRM)
        work.drivers.append(threading.get_ident())

    work = Work()
    work.turns.open()
    work.turns._drive = interrupted
    first = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    heard = []
    try:
        work.turns.guard_signals()
        guarded = signal.signal(signal.SIGALRM, give_up)
        with pytest.raises(TooLong):
            work.turns.help(lambda: False, inf)
        signal.signal(signal.SIGALRM, guarded)
        work.turns.help(lambda: bool(heard), inf)
        work.turns.unguard_signals()
        signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, first)
    assert heard == [signal.SIGALRM] * 2
    assert len(work.drivers) == 2
    assert not work.is_spoilt


class Work:
    """A master that counts its turns, and by whom they were driven."""

    def __init__(self):
        self.bell = Bell()
        self.is_over = self.is_spoilt = False
        self.drivers: list[int] = []
        self.n_orders = 0
        self.turns = Turns(self.drive, self.take, lambda: self.is_over, self.spoil, self.bell)

    def drive(self, timeout_s):
        self.drivers.append(threading.get_ident())
        self.bell.wait(min(timeout_s, 0.2))
        self.bell.clear()

    def take(self):
        self.n_orders += 1

    def spoil(self):
        self.is_spoilt = self.is_over = True


@pytest.fixture
def work():
    work = Work()
    thread = threading.Thread(target=work.turns.run, args=(0.2,))
    thread.start()
    yield work
    work.is_over = True
    work.bell.set()
    thread.join(5)
    assert not thread.is_alive()


def test_who_waits_drives_and_the_own_thread_rests(work):
    me = threading.get_ident()
    began = time.monotonic()
    work.turns.help(lambda: work.drivers.count(me) >= 3, inf)
    assert time.monotonic() - began < 5
    n = len(work.drivers)
    work.turns.ring()  # orders are taken at once, in this thread
    assert work.n_orders == 1
    time.sleep(20 * REST_S)
    assert len(work.drivers) > n
    assert work.drivers[-1] != me


def test_nobody_drives_a_master_that_has_not_begun():
    work = Work()
    work.turns.ring()
    assert work.n_orders == 0
    assert work.bell.is_set()
    driver = threading.Thread(target=work.turns.help, args=(lambda: True, inf))
    driver.start()
    driver.join(0.05)
    assert driver.is_alive()
    work.turns.open()
    driver.join(5)
    assert not driver.is_alive()


def test_help_ends_with_its_time(work):
    began = time.monotonic()
    work.turns.help(lambda: False, time.monotonic() + 0.05)
    assert 0.04 < time.monotonic() - began < 2


def test_a_turn_that_is_broken_off_spoils_the_master():
    work = Work()

    def break_off(timeout_s):
        raise KeyError("amid")

    turns = Turns(break_off, work.take, lambda: work.is_over, work.spoil, work.bell)
    turns.open()
    with pytest.raises(KeyError):
        turns.help(lambda: False, inf)
    assert work.is_spoilt
