"""Simulated runs in several processes: the same figures, errors that come through, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children

import numpy as np
import pytest

import mpims.simulator.study as simulated
from mpims.errors import InternalError, RunFailed, UsageError
from mpims.simulator.costs import Distribution, draw_costs
from mpims.simulator.machine import Machine
from mpims.simulator.sidebyside import compute_all
from mpims.simulator.study import Study, run_study
from mpims.world import STOP_SIGNAL

LIMIT_S = 30


def where(number: int) -> tuple[int, int]:
    time.sleep(0.01)
    return number, os.getpid()


def fail_at_two(number: int) -> int:
    if number == 2:
        raise InternalError("two")
    time.sleep(LIMIT_S if number > 2 else 0)
    return number


def die(number: int, large: bytes = b"") -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_order_and_from_several_processes():
    found = compute_all(where, ((number,) for number in range(40)), 3)
    assert [number for number, _ in found] == list(range(40))
    processes = {process for _, process in found}
    assert 1 < len(processes) <= 3
    assert os.getpid() not in processes
    assert not active_children()


@pytest.mark.parametrize(("n_cases", "n_processes"), [(3, 1), (1, 4)])
def test_what_gains_nothing_is_done_here(n_cases, n_processes):
    found = compute_all(where, ((number,) for number in range(n_cases)), n_processes)
    assert found == [(number, os.getpid()) for number in range(n_cases)]


def test_cases_are_made_as_they_are_needed():
    made = []

    def cases():
        for number in range(20):
            made.append(number)
            yield number, len(made)

    found = compute_all(pair, cases(), 2)
    assert found == [(number, number + 1) for number in range(20)]
    with pytest.raises(InternalError):
        compute_all(fail_at_two, ((made.append(number), (number,))[1] for number in range(1000)), 2)
    assert len(made) < 40


def pair(*case: int) -> tuple[int, ...]:
    return case


def test_an_error_comes_at_once_and_ends_the_others():
    start = time.monotonic()
    with pytest.raises(InternalError, match="two"):
        compute_all(fail_at_two, [(number,) for number in range(10)], 3)
    assert time.monotonic() - start < LIMIT_S / 2
    assert not active_children()


def test_an_error_of_the_cases_comes_through():
    def cases():
        yield (0,)
        yield (1,)
        raise UsageError("no such policy")

    with pytest.raises(UsageError, match="no such policy"):
        compute_all(where, cases(), 2)
    assert not active_children()


def test_a_killed_process_is_told_in_one_line():
    with pytest.raises(RunFailed, match="killed, perhaps for want of memory: try --processes 1"):
        compute_all(die, [(0,), (1,)], 2)
    assert not active_children()


def test_a_killed_process_is_told_whatever_waits_to_be_read_by_it():
    large = bytes(1 << 20)  # more than a pipe holds
    with pytest.raises(RunFailed, match="killed"):
        compute_all(die, [(number, large) for number in range(4)], 2)
    assert not active_children()


def test_a_study_gives_the_same_rows_on_any_number_of_processes():
    study = Study(
        policies=["all"], n_workers=[2, 5], machine=Machine(n_workers=1, overhead_s=0.1), n_runs=2
    )

    def draw(index: int):
        return draw_costs(Distribution.named("gamma", 1.0, 1.5), 200, 3, np.random.default_rng(index))

    alone = run_study(study, draw)
    assert len(alone) > 20
    assert run_study(study, draw, 2) == alone
    assert run_study(study, draw, 7) == alone


@pytest.mark.parametrize(
    ("most_blocks", "most_workers", "n_processes"), [(300, 99, 3), (999, 8, 2), (50, 99, 1)]
)
def test_all_processes_together_simulate_no_more_than_one_may(
    monkeypatch, most_blocks, most_workers, n_processes
):
    asked = []
    monkeypatch.setattr(simulated, "compute_all", lambda function, cases, n: asked.append(n) or [])
    monkeypatch.setattr(simulated, "MAX_BLOCKS", most_blocks)
    monkeypatch.setattr(simulated, "MAX_WORKERS", most_workers)
    study = Study(policies=["SS"], n_workers=[2, 4], machine=Machine(n_workers=1))
    costs = draw_costs(Distribution.named("gamma", 1.0, 1.5), 100, 1, np.random.default_rng(1))
    run_study(study, lambda index: costs, 64)
    assert asked == [n_processes]


@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, STOP_SIGNAL, signal.SIGKILL])
def test_a_signal_to_the_first_process_or_to_all_ends_all(number, to_all):
    options = ["--items", "1e6", "--repeat", "4", "--processes", "2"]
    command = [sys.executable, "-m", "mpims", "simulate", *options]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        children = _children(process.pid)
        (os.killpg if to_all else os.kill)(process.pid, number)
        # The children have the pipe, too: it is at its end when all are gone.
        _, told = process.communicate(timeout=LIMIT_S)
    assert len(children) == 2
    if number != signal.SIGKILL:
        assert told == "mpims: stopped by the user\n"
        assert process.returncode == 130


def _children(pid: int) -> list[str]:
    """The two children of a process, when it has them and they have begun to compute."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
        if len(children) == 2 and all(_cpu_ticks(child) > 20 for child in children):
            return children
        time.sleep(0.05)
    raise AssertionError("no processes that compute")


def _cpu_ticks(pid: str) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[11])
