"""A master that dies in the middle: the next one goes on. Ranks are threads; the death is an exception."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import mpims
from mpims.errors import MpimsError, Stopped, UsageError
from mpims.farm import Farm
from mpims.leading import run_master
from mpims.options import RunOptions
from mpims.processes import this_process
from mpims.runtime.lead import Lead
from mpims.runtime.transport.local import LocalTransport, local_transports
from mpims.runtime.wire import Kind, Message, Start
from mpims.session import serve


class Death(BaseException):
    """What ends a master here."""


class Mortal(LocalTransport):
    """A rank's end that dies after so many messages of a kind: that one is not taken in any more."""

    def __init__(self, other: LocalTransport, kind: Kind, n_left: int) -> None:
        super().__init__(other.rank, other._inboxes)
        self.kind, self.n_left = kind, n_left

    def receive(self, timeout_s, slack_s=0.0):
        message = super().receive(timeout_s, slack_s)
        if message is not None and message.kind is self.kind:
            self.n_left -= 1
            if self.n_left < 0:
                raise Death
        return message


def announce(transports, rank):
    """What the transports of the others do that notice a death."""
    for other in transports:
        if other.rank != rank:
            other.lost.add(rank)
            other._inboxes[other.rank].put(Message(Kind.LOST, rank, b"", []))


class Rows(mpims.Job):
    """An array; the items are one, too, and some of them bad."""

    n: int = 120
    bad: tuple[int, ...] = ()
    block = 3

    def items(self):
        return np.linspace(0.0, 1.0, self.n)

    def check(self):
        time.sleep(0.001)
        for i in self.indices:
            if i in self.bad:
                raise ValueError(f"not {i}")

    def kernel(self, items):
        self.check()
        return np.sin(np.asarray(items))


class Text(Rows):
    """A reduction that does not commute."""

    output = mpims.Reduce(lambda left, right: left + right)

    def kernel(self, items):
        self.check()
        return [f"{i}," for i in self.indices]


def run_with_deaths(make_job, folder, deaths, n_ranks=4, never_there=(), **options):
    """Ranks 0, 1, … are the master in turn, and die as `deaths` says; give the last one's outcome.

    Ranks that are `never_there` are found to be dead when the first master is.
    """
    options = RunOptions(run_dir=folder, quiet=True, policy="SS", **options)
    transports = local_transports(n_ranks)
    transports[: len(deaths)] = [
        Mortal(transport, *death) for transport, death in zip(transports, deaths, strict=False)
    ]
    outcomes = []

    def rank(transport):
        job = make_job()
        try:
            served = serve(transport, lambda start: job)
            if not isinstance(served, Lead):
                return
            lead = served if transport.lost else None
            if isinstance(transport, Mortal):
                Farm(job, options, transport, None, lead).run(())
            else:
                outcomes.append(run_master(job, options, transport, lead=lead))
        except Death:
            for dead in [*never_there, transport.rank]:
                announce(transports, dead)
        except MpimsError as error:
            outcomes.append(error)

    threads = [
        threading.Thread(target=rank, args=(t,), daemon=True)
        for t in transports
        if t.rank not in never_there
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len({getattr(outcome, "message", "") for outcome in outcomes}) == 1  # an error is everybody's
    return outcomes[0]


DEATHS = [
    [(Kind.JOINED, 0)],
    [(Kind.JOINED, 2)],
    [(Kind.RESULT, 0)],
    [(Kind.RESULT, 7)],
    [(Kind.RESULT, 39)],
    [(Kind.RESULT, 5), (Kind.RESULT, 5)],
    [(Kind.RESULT, 5), (Kind.JOINED, 1)],
    [(Kind.RESULT, 5), (Kind.RESULT, 5), (Kind.RESULT, 3)],
]


def test_what_ranks_computed_for_the_master_before_is_in_the_figures(tmp_path):
    """Its results come before their ranks join the next master, or are that one's own."""
    both_compute = threading.Barrier(2)

    class Together(Rows):
        def kernel(self, items):
            if not hasattr(self, "began"):  # or one may be done before the other has joined
                self.began = both_compute.wait(10)
            return super().kernel(items)

    outcome = run_with_deaths(Together, tmp_path / "run", [(Kind.RESULT, 0)], n_ranks=3, chunk_min=60)
    busy_s = outcome.summary["busy_s"]
    assert busy_s.keys() == {"1", "2"}
    assert sum(busy_s.values()) > 0.9 * 40 * 0.001  # 40 blocks


@pytest.mark.parametrize("job_class", [Rows, Text])
@pytest.mark.parametrize("deaths", DEATHS, ids=str)
def test_the_result_is_that_of_an_undisturbed_run(job_class, deaths, tmp_path):
    expected = mpims.run(job_class(), run_dir=tmp_path / "undisturbed", quiet=True)
    outcome = run_with_deaths(job_class, tmp_path / "run", deaths)
    assert outcome.summary["result_digest"] == expected.summary["result_digest"]
    assert outcome.summary["n_done"] == 120
    assert outcome.summary["n_masters"] == len(deaths)
    assert outcome.summary["n_resumed"] == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert len(manifest["taken_over"]) == len(deaths)


@pytest.mark.parametrize("job_class", [Rows, Text])
@pytest.mark.parametrize("n_skips", [0, 1, 2])
def test_what_was_skipped_is_skipped_by_the_next_master_too(job_class, n_skips, tmp_path):
    """The master dies between an item's name and the results that lack it, or before both."""

    def make():
        return job_class(bad=(4, 50, 51, 100))

    expected = mpims.run(make(), run_dir=tmp_path / "undisturbed", quiet=True, on_error="skip", retries=0)
    for kind in (Kind.SKIPPED, Kind.FAILED):
        folder = tmp_path / kind.name
        outcome = run_with_deaths(make, folder, [(kind, n_skips)], on_error="skip", retries=0)
        assert outcome.summary["result_digest"] == expected.summary["result_digest"]
        failed = json.loads((folder / "failed.json").read_text())
        assert [entry["item"] for entry in failed["items"]] == [4, 50, 51, 100]
        assert {entry["reason"] for entry in failed["items"]} == {
            f"ValueError: not {i}" for i in make().bad
        }


class Scaled(Rows):
    """What it computes with is made of its parameters in their place."""

    factor: float = 2.0
    names: list[str]

    def setup(self):
        self.factor *= 10
        self.names.append("b")

    def kernel(self, items):
        self.check()
        return np.asarray(items) * self.factor


@pytest.mark.parametrize("deaths", [[], [(Kind.RESULT, 5)], [(Kind.RESULT, 5), (Kind.RESULT, 5)]])
def test_setup_may_change_the_parameters(deaths, tmp_path):
    outcome = run_with_deaths(lambda: Scaled(names=["a"]), tmp_path / "run", deaths)
    assert outcome.value.tolist() == (np.linspace(0.0, 1.0, 120) * 20.0).tolist()
    assert outcome.summary["job"] == "Scaled(n=120, bad=(), factor=2.0, names=['a'])"


def test_a_failure_ends_the_run_under_the_next_master_too(tmp_path):
    error = run_with_deaths(lambda: Rows(bad=(50,)), tmp_path / "run", [(Kind.FAILED, 1)], retries=1)
    assert isinstance(error, mpims.RunFailed)
    assert error.message.startswith("items [50, 51) attempt ")
    assert "failed: ValueError: not 50 (alone, tried 2 times)" in error.message


def test_a_stop_that_the_master_before_was_asked_for_goes_on(tmp_path):
    options = RunOptions(run_dir=tmp_path / "run", quiet=True)
    with pytest.raises(Stopped, match=r"^stopped: \d+ of 120 items are done; resume with"):
        Farm(Rows(), options, None, None, Lead(is_stopping=True)).run(())


def test_a_stopped_run_is_resumed_though_its_first_master_dies_before_it_begins(tmp_path):
    options = RunOptions(run_dir=tmp_path / "run", quiet=True)
    with pytest.raises(Stopped):
        Farm(Rows(), options, None, None, Lead(is_stopping=True)).run(())
    with pytest.raises(UsageError, match="is not empty"):  # it was not asked for that run
        Farm(Rows(), options, None, None, Lead()).run(())
    outcome = Farm(Rows(), replace(options, resume=True), None, None, Lead()).run(())
    assert outcome.summary["status"] == "done"


def test_the_next_master_has_the_end_that_its_rank_heard_of_before_the_clock_was_set(tmp_path, monkeypatch):
    true_time = time.time

    class Setting(Rows):
        def kernel(self, items):
            monkeypatch.setattr(time, "time", lambda: true_time() + 3600.0)
            return super().kernel(items)

    end_time_s = true_time() + 1000.0
    deaths = [(Kind.RESULT, 5)]
    outcome = run_with_deaths(Setting, tmp_path / "run", deaths, n_ranks=2, end_time_s=end_time_s)
    assert outcome.summary["n_done"] == Rows.n


@pytest.mark.parametrize("never_there", [(), (2,), (2, 4)], ids=str)
def test_ranks_that_died_with_the_master_are_counted_by_the_next_one(never_there, tmp_path):
    deaths = [(Kind.RESULT, 5)]
    outcome = run_with_deaths(Rows, tmp_path / "run", deaths, n_ranks=5, never_there=never_there)
    assert (outcome.summary["n_lost"], outcome.summary["n_masters"]) == (len(never_there), 1)


def test_who_takes_over_does_not_wait_for_a_rank_that_has_left_before(tmp_path):
    """MPI has not noticed it, nor can the rank join; only the last master knew who it is."""

    class Fails(Rows):
        fails = True

        def check(self):
            if self.fails and max(self.indices) > 60:
                raise ValueError("not yet")

    folder = tmp_path / "run"
    with pytest.raises(MpimsError, match="not yet"):
        mpims.run(Fails(), run_dir=folder, quiet=True, retries=0)
    Fails.fails = False
    manifest = json.loads((folder / "manifest.json").read_text())
    gone = this_process()._replace(started=1)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "ranks": {"2": gone.as_dict()}}))
    _, here, _ = local_transports(3)
    here.lost, here.survives_deaths = {0}, True
    options = RunOptions(run_dir=folder, quiet=True)
    start = Start(None, {}, options, manifest["run_id"], 0, str(folder), (), this_process())
    lead = Lead(start, job=Fails())
    outcomes = []
    leading = threading.Thread(
        target=lambda: outcomes.append(run_master(lead.job, options, here, lead=lead)), daemon=True
    )
    leading.start()
    leading.join(10)
    assert [outcome.summary["n_done"] for outcome in outcomes] == [120]
    assert 2 in here.lost


def test_who_the_ranks_were_counts_for_one_part_of_a_run(tmp_path):
    """Else those of the next part would be taken for dead until they have joined."""
    folder = tmp_path / "run"
    mpims.run(Rows(), run_dir=folder, quiet=True)
    (folder / "summary.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "ranks": {"7": {}}}))
    mpims.run(Rows(), run_dir=folder, resume=True, quiet=True)
    assert "7" not in json.loads((folder / "manifest.json").read_text()).get("ranks", {})
