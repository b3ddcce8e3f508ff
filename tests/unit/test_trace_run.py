"""What a run leaves in its trace: every hand-out and result with its times, and what went wrong."""

from __future__ import annotations

import numpy as np
import pytest

import mpims
from mpims.core.deadlines import Deadlines
from mpims.core.events import StopRequested, Tick, WorkerJoined, WorkerLost, WorkerSpoke
from mpims.core.ledger import Ledger
from mpims.core.policies import Auto, Sizer, parse_policy
from mpims.core.scheduler import Scheduler
from mpims.errors import RunFailed, Stopped
from mpims.pages.findings import find
from mpims.pages.page import make_page
from mpims.pages.text import report_lines
from mpims.runtime.tracing import Tracing
from mpims.storage.trace import What, read_trace
from mpims.storage.tracewriter import TraceWriter


class Squares(mpims.Job):
    """Squares; one of them may fail."""

    n: int = 200
    bad: int = -1
    block = 4

    def items(self):
        return self.n

    def kernel(self, items):
        if self.bad in items:
            raise ValueError("bad")
        return np.asarray(items) ** 2


def events(folder) -> list[What]:
    return [event.what for section in read_trace(folder).sections for event in section.events]


def test_every_hand_out_and_every_result_is_there(tmp_path):
    outcome = mpims.run(Squares(), run_dir=tmp_path / "run", quiet=True, policy="CSS:8")
    (section,) = read_trace(outcome.run_dir).sections
    assert section.sent["start"].tolist() == list(range(0, 200, 8))
    assert section.parts[["start", "stop"]].tolist() == section.sent[["start", "stop"]].tolist()
    assert section.parts["attempt"].tolist() == section.sent["attempt"].tolist()
    sent_s, parts = section.sent["sent_s"], section.parts
    assert (sent_s <= parts["ended_s"] - parts["busy_s"]).all()
    assert (parts["ended_s"] <= parts["received_s"]).all()
    assert (np.diff(parts["ended_s"]) > 0).all()
    assert (parts["service_s"] > 0).all()
    assert section.began.t <= sent_s[0]
    whats = [event.what for event in section.events]
    assert whats[:2] == [What.BEGAN, What.JOINED]
    assert whats[-1] is What.ENDED
    assert section.events[-1].about["status"] == "done"
    assert section.events[-1].t >= parts["received_s"][-1]


def test_the_policy_is_told_what_results_cost_the_master(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Auto, "learn_service", lambda policy, service_s: told.append(np.float32(service_s)))
    outcome = mpims.run(Squares(), run_dir=tmp_path / "run", quiet=True)
    (section,) = read_trace(outcome.run_dir).sections
    assert set(told) == set(section.parts["service_s"][:-1])  # the last one ended the run


def test_failures_and_how_it_ended_are_there(tmp_path):
    with pytest.raises(RunFailed):
        mpims.run(Squares(bad=50), run_dir=tmp_path / "run", quiet=True)
    (section,) = read_trace(tmp_path / "run").sections
    failed = [event for event in section.events if event.what is What.FAILED]
    assert failed
    assert all((event.about["start"], event.about["stop"]) <= (50, 52) for event in failed)
    assert failed[0].about["reason"] == "ValueError: bad"
    ended = section.events[-1]
    assert (ended.what, ended.about["status"]) == (What.ENDED, "failed")
    assert "ValueError: bad" in ended.about["reason"]


def test_skipped_items_are_there(tmp_path):
    mpims.run(Squares(bad=50), run_dir=tmp_path / "run", quiet=True, on_error="skip")
    (section,) = read_trace(tmp_path / "run").sections
    (skipped,) = [event for event in section.events if event.what is What.SKIPPED]
    assert (skipped.about["item"], skipped.about["reason"]) == (50, "ValueError: bad")
    assert find(tmp_path / "run").incidents


def test_a_resumed_run_goes_on_in_its_trace(tmp_path):
    class Stopping(Squares):
        def kernel(self, items):
            if 100 in items and not (tmp_path / "again").exists():
                (tmp_path / "again").touch()
                raise KeyboardInterrupt
            return np.asarray(items) ** 2

    with pytest.raises(Stopped):
        mpims.run(Stopping(), run_dir=tmp_path / "run", quiet=True, policy="SS")
    mpims.run(Stopping(), run_dir=tmp_path / "run", quiet=True, policy="SS", resume=True)
    trace = read_trace(tmp_path / "run")
    assert [section.began.about["cause"] for section in trace.sections] == ["started", "resumed"]
    assert [section.events[-1].about["status"] for section in trace.sections] == ["stopped", "done"]
    findings = find(tmp_path / "run")
    history = findings.history
    assert (history.n_done, len(history.stretches)) == (200, 2)
    lines = report_lines(findings)
    assert lines[lines.index("nothing went wrong") + 2] == "stopped by request"
    assert "it was resumed on 1 worker" in lines[-1]
    page = make_page(findings, [])
    assert "<p>Nothing did.</p>" in page
    assert "it was resumed on 1 worker" in page.split("<h2>Stopped by request</h2>")[1]


# ------------------------------------------------------------------- the rarer events


@pytest.fixture
def traced(tmp_path):
    """A scheduler with two workers and what of it goes into a trace."""
    scheduler = Scheduler(Ledger(100, 1), Sizer(parse_policy("SS").make(100, 2, 1)), Deadlines(1.0), 2)
    tracing = Tracing(TraceWriter(tmp_path, now=0.0), scheduler)

    def tell(event, now):
        tracing.told(event, now)
        actions = scheduler.handle(event, now)
        for action in actions:
            tracing.said(action)
        tracing.look()
        return actions

    tell(WorkerJoined(1), 0.0)
    tell(WorkerJoined(2), 0.0)
    return tracing, tell, tmp_path


def test_silence_and_its_end_are_there(traced):
    tracing, tell, folder = traced
    tell(Tick(), 5.0)
    tell(Tick(), 5.5)
    tell(WorkerSpoke(2), 6.0)
    tracing.close(None)
    (section,) = read_trace(folder).sections
    told = [(event.what, event.rank, event.t) for event in section.events]
    assert told[1:3] == [(What.SUSPECT, 1, 5.0), (What.SUSPECT, 2, 5.0)]
    assert (What.BACK, 2, 6.0) in told
    assert [what for what, *_ in told].count(What.SUSPECT) == 2
    assert section.events[-1].about["status"] == "stopped"


def test_deaths_and_orders_are_there(traced):
    tracing, tell, folder = traced
    tell(WorkerLost(1), 1.0)
    tell(StopRequested(9.0), 2.0)
    tell(WorkerLost(2), 3.0)
    tracing.close(Stopped("stopped"))
    whats = events(folder)
    assert whats == [What.BEGAN, What.LOST, What.STOPPING, What.LOST, What.ENDED]


def test_a_rank_that_dies_while_it_is_silent_does_not_speak_again(traced):
    tracing, tell, folder = traced
    tell(Tick(), 5.0)
    tell(WorkerLost(1), 6.0)
    tracing.close(None)
    assert What.BACK not in events(folder)


def test_the_policys_reason_is_asked_for_now_and_then(tmp_path):
    class Explains:
        ledger = Ledger(10, 1)
        counters = Scheduler(ledger, Sizer(parse_policy("SS").make(10, 1, 1)), Deadlines(1.0), 1).counters
        n_asked = 0

        def explain(self):
            self.n_asked += 1
            return f"reason {self.n_asked}"

    scheduler = Explains()
    tracing = Tracing(TraceWriter(tmp_path, now=0.0), scheduler)
    for i in range(100_000):
        tracing.flush(0.5 * i)
    tracing.close(None)
    assert 20 < scheduler.n_asked < 100  # more rarely the longer it takes
    (section,) = read_trace(tmp_path).sections
    reasons = [event for event in section.events if event.what is What.POLICY]
    assert len(reasons) == scheduler.n_asked
    assert reasons[1].t - reasons[0].t == 1.0
