"""Signals that stop a run: asked politely, pressed, and left as they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mpims.runtime import stopping
from mpims.runtime.stopping import STOPPING, StopSignals


@pytest.fixture(autouse=True)
def handlers():
    """Handlers of this test's own, as before afterwards."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    heard = []
    for number in STOPPING:
        signal.signal(number, lambda number, frame: heard.append(number))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_a_request(number, handlers):
    before = time.monotonic()
    with StopSignals() as signals:
        assert signals.requested_at is None
        os.kill(os.getpid(), number)
        assert before <= signals.requested_at <= time.monotonic()
    os.kill(os.getpid(), number)
    assert handlers == [number]


def test_signals_at_once_are_one_request():
    with StopSignals() as signals:
        for number in STOPPING:
            os.kill(os.getpid(), number)
        first = signals.requested_at
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested_at == first


def test_a_later_signal_is_an_order(monkeypatch, handlers):
    monkeypatch.setattr(stopping, "IMPATIENT_S", 0.02)
    with pytest.raises(KeyboardInterrupt), StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.03)
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert handlers == [signal.SIGTERM]


def test_a_second_is_what_makes_it_later():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        signals.requested_at -= 0.9
        os.kill(os.getpid(), signal.SIGINT)
        signals.requested_at -= 0.1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_was_ignored_stays_ignored():
    """As under ``nohup``, or in a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested_at is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested_at is not None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_leaves_signals_alone():
    before = [signal.getsignal(number) for number in STOPPING]
    found = []

    def work():
        with StopSignals() as signals:
            found.append([signal.getsignal(number) for number in STOPPING])
            found.append(signals.requested_at)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before, None]


def test_handlers_are_as_before_whatever_happens():
    before = [signal.getsignal(number) for number in STOPPING]
    with pytest.raises(ZeroDivisionError), StopSignals():
        assert [signal.getsignal(number) for number in STOPPING] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in STOPPING] == before


RANK = """
import os, signal, subprocess, time
from mpims.runtime.isolation import IsolatedBlocks
from mpims.runtime.stopping import STOPPING, leave_signals_to_master

def starts_others(start, stop):
    for number in STOPPING:
        os.kill(os.getpid(), number)
    sleeper = subprocess.Popen(["sleep", "60"])
    sleeper.terminate()
    assert sleeper.wait(10) == -signal.SIGTERM
    for _ in range(50):  # the signal may come before the child has done anything
        child = os.fork()
        if child == 0:
            time.sleep(60)
        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGUSR1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)
    return ["there still"]

leave_signals_to_master()
print(*starts_others(0, 1))
with IsolatedBlocks(starts_others, [(0, 1)]) as child:
    outcome = None
    while outcome is None:
        outcome = child.poll(1.0)
    print(*outcome[2])
"""


def test_a_rank_that_leaves_signals_to_the_master_passes_the_end_by_sigterm_on():
    done = subprocess.run(
        [sys.executable, "-c", RANK], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (0, "there still\n" * 2), done.stderr
