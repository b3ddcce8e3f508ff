"""A run that has to have ended at a time: it stops before, and can be gone on with."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

import mpims
from mpims import farm, timelimit
from mpims.errors import Stopped, UsageError
from mpims.options import RunOptions
from mpims.runtime.lead import Lead
from mpims.timelimit import RESERVE_S, computing_ends_at, find_end

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "2"}


class Slow(mpims.Job):
    """Items of 10 ms."""

    n: int = 200
    block = 1

    def items(self):
        return self.n

    def kernel(self, items):
        time.sleep(0.01)
        return np.sqrt(np.array(items))


@pytest.fixture(autouse=True)
def outside_of_slurm(monkeypatch):
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)


def test_nothing_limits_a_run_by_itself():
    assert find_end(None) is None
    assert computing_ends_at(None) is None


def test_some_seconds_before_the_end_are_kept_free():
    left_s = computing_ends_at(time.time() + 100.0) - time.monotonic()
    assert left_s == pytest.approx(100.0 - RESERVE_S, abs=0.1)


@pytest.mark.parametrize(
    ("given_s", "slurm_s", "expected_s"), [(100, 200, 100), (300, 200, 200), (None, 200, 200)]
)
def test_the_sooner_end_counts(monkeypatch, given_s, slurm_s, expected_s):
    now_s = int(time.time())
    for name, value in {**SLURM, "SLURM_JOB_END_TIME": str(now_s + slurm_s)}.items():
        monkeypatch.setenv(name, value)
    assert find_end(given_s and now_s + given_s) == now_s + expected_s


def test_an_end_that_is_past_is_refused():
    with pytest.raises(UsageError, match=r"was to have ended 60 s ago.*give a time to come"):
        find_end(time.time() - 60)


@pytest.mark.parametrize("left_s", [1.0, RESERVE_S])
def test_an_end_that_leaves_no_time_to_compute_is_refused(left_s):
    said = rf"ends in {left_s:g} s, and the last {RESERVE_S:g} s are kept free.*: give it more time"
    with pytest.raises(UsageError, match=said):
        find_end(time.time() + left_s)
    assert find_end(end_s := time.time() + RESERVE_S + 1.0) == end_s


def test_the_allocation_may_be_about_to_end(monkeypatch):
    """Whoever waits for the next one gets a run that can be resumed."""
    end_s = int(time.time()) + 5
    for name, value in {**SLURM, "SLURM_JOB_END_TIME": str(end_s)}.items():
        monkeypatch.setenv(name, value)
    assert find_end(None) == end_s


def test_a_run_stops_in_time_and_is_gone_on_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timelimit, "RESERVE_S", 0.0)
    began = time.monotonic()
    with pytest.raises(Stopped, match="stopped, the time is over") as stopped:
        mpims.run(Slow(), run_dir=tmp_path / "run", end_time_s=time.time() + 0.7)
    assert time.monotonic() - began < 1.5
    n_done = int(re.search(r"(\d+) of 200 items", str(stopped.value)).group(1))
    assert 10 < n_done < 70
    outcome = mpims.run(Slow(), run_dir=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(outcome.value, np.sqrt(np.arange(200)))
    assert f"{n_done} of 200 items are done already" in capsys.readouterr().err


def test_a_run_that_takes_over_keeps_the_end_it_is_told(monkeypatch):
    """It does not ask again: the time was counted from the start of the first master."""
    monkeypatch.setattr(farm, "find_end", lambda given_s: pytest.fail("asked"))
    end_time_s = time.time() + 1000.0
    run = farm.Farm(Slow(), RunOptions(end_time_s=end_time_s), None, None, Lead())
    assert run._options.end_time_s == end_time_s


def test_a_clock_of_the_day_that_was_set_does_not_move_the_end_of_a_run_that_is_taken_over():
    end_at = time.monotonic() + 500.0
    options = RunOptions(end_time_s=time.time() - 3600.0)  # by that clock it is over
    run = farm.Farm(Slow(), options, None, None, Lead(end_at=end_at))
    assert run._stop_signals.end_at == end_at - RESERVE_S
