"""Every second of every rank is accounted for, once, under the right name."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from mpims.drill.plan import Moment
from mpims.pages.accounts import Use, make_accounts
from mpims.pages.history import read_history
from mpims.simulator.costs import Distribution, draw_costs
from mpims.simulator.machine import Machine
from mpims.simulator.recording import record_run
from mpims.simulator.study import Study
from mpims.storage.trace import What
from tests.traces import DONE, event, history, joined, section


def uses(its) -> dict[int, dict[Use, float]]:
    """What each rank's time went into, without what is 0."""
    accounts = make_accounts(its)
    ranks, seconds = accounts.of_ranks()
    return {
        int(rank): {Use(i): round(float(s), 6) for i, s in enumerate(row) if s > 1e-12}
        for rank, row in zip(ranks, seconds, strict=True)
    }


def test_the_time_of_a_rank_is_split_as_it_was_spent():
    """Joined at 1; idle until 2, when it is sent a chunk, begun at 2.5; 0.25 between that and the next."""
    its = history(
        section(
            *joined(1, t=1.0),
            event(What.ENDED, 10.0, **DONE),
            sent=[(1, 1, 0, 50, 2.0), (1, 2, 50, 100, 2.0)],
            parts=[(1, 1, 0, 50, 2.0, 4.5, 4.5), (1, 2, 50, 100, 3.0, 7.75, 7.75)],
            n_workers=1,
        )
    )
    assert uses(its) == {
        1: {Use.START: 1.0, Use.WAIT: 1.0, Use.COMMUNICATION: 0.75, Use.COMPUTE: 5.0, Use.TAIL: 2.25}
    }


def test_idling_is_the_tail_once_nothing_fresh_is_left():
    """Rank 1 idles from 2 to 8; the last fresh items left at 6; what it gets at 8 is taken over from 2."""
    its = history(
        section(
            *joined(1, 2),
            event(What.ENDED, 12.0, **DONE),
            sent=[(1, 1, 0, 10, 0.0), (2, 2, 10, 20, 0.0), (2, 3, 20, 40, 6.0), (1, 4, 30, 40, 8.0)],
            parts=[
                (1, 1, 0, 10, 2.0, 2.0, 2.0),
                (2, 2, 10, 20, 6.0, 6.0, 6.0),
                (1, 4, 30, 40, 2.0, 10.0, 10.0),
                (2, 3, 20, 40, 6.0, 12.0, 12.0),
            ],
        )
    )
    assert uses(its) == {
        1: {Use.COMPUTE: 4.0, Use.WAIT: 4.0, Use.TAIL: 4.0},
        2: {Use.COMPUTE: 9.0, Use.TAIL: 3.0},  # half of its last had been delivered by rank 1
    }


def test_dead_and_silent_ranks_and_failures_are_recovery():
    its = history(
        section(
            *joined(1, 2, 3),
            event(What.LOST, 5.0, rank=1),
            event(What.SUSPECT, 4.0, rank=2),
            event(What.FAILED, 6.0, rank=3, attempt=3, start=30, stop=31, reason="no"),
            event(What.ENDED, 10.0, **DONE),
            sent=[(1, 1, 0, 10, 0.0), (2, 2, 10, 20, 0.0), (3, 3, 20, 99, 0.0), (3, 4, 99, 100, 9.0)],
            parts=[
                (1, 1, 0, 10, 2.0, 2.0, 2.0),
                (2, 2, 10, 20, 1.0, 1.0, 1.0),
                (3, 3, 20, 30, 4.0, 4.0, 4.0),
                (3, 3, 31, 99, 2.0, 9.0, 9.0),
                (3, 4, 99, 100, 1.0, 10.0, 10.0),
            ],
            n_workers=3,
        )
    )
    assert uses(its) == {
        1: {Use.COMPUTE: 2.0, Use.RECOVERY: 8.0},
        2: {Use.COMPUTE: 1.0, Use.RECOVERY: 9.0},
        3: {Use.COMPUTE: 7.0, Use.RECOVERY: 3.0},
    }


def test_a_rank_that_becomes_the_master_computes_no_more():
    first = section(*joined(1, 2), parts=[(1, 1, 0, 10, 3.0, 3.0, 3.0), (2, 2, 10, 20, 3.0, 3.0, 3.0)])
    second = section(
        *joined(2),
        event(What.ENDED, 5.0, **DONE),
        parts=[(2, 3, 20, 30, 6.0, 9.0, 5.0)],
        cause="taken over",
        rank=1,
        wall=1004.0,
        n_workers=1,
    )
    assert uses(history(first, second)) == {1: {Use.COMPUTE: 3.0, Use.RECOVERY: 6.0}, 2: {Use.COMPUTE: 9.0}}


@pytest.mark.parametrize(
    ("ending", "use"),
    [
        ([event(What.POLICY, 8.0, reason="x")], Use.UNDER_WAY),
        ([event(What.ENDED, 8.0, status="stopped", reason="")], Use.RECOVERY),
    ],
)
def test_what_is_not_delivered_is_under_way_or_lost(ending, use):
    sent = [(1, 1, 0, 10, 0.0), (1, 2, 10, 20, 0.0)]
    its = history(
        section(*joined(1), *ending, sent=sent, parts=[(1, 1, 0, 10, 5.0, 5.0, 5.0)], n_workers=1)
    )
    assert uses(its) == {1: {Use.COMPUTE: 5.0, use: 3.0}}


def test_a_rank_that_never_joined_was_starting_all_the_time():
    its = history(section(*joined(1), event(What.ENDED, 4.0, **DONE), parts=[(1, 1, 0, 9, 4.0, 4.0, 4.0)]))
    assert uses(its) == {1: {Use.COMPUTE: 4.0}, 2: {Use.START: 4.0}}


def test_a_master_that_died_before_it_told_anything_has_no_ranks():
    """Of the process alone that wrote no more than its begin nobody knows that it is rank 0."""
    its = history(
        section(n_workers=1),
        section(
            *joined(0, t=100.0),
            event(What.ENDED, 104.0, **DONE),
            parts=[(0, 1, 0, 100, 100.0, 104.0, 104.0)],
            n_workers=1,
            t=100.0,
            wall=1100.0,
            cause="resumed",
        ),
    )
    assert list(uses(its)) == [0]


def test_a_master_that_computes_at_last_is_counted_from_then_on():
    its = history(
        section(
            *joined(1),
            event(What.LOST, 2.0, rank=1),
            event(What.HIRED, 2.0),
            *joined(0, t=2.5),
            event(What.ENDED, 6.5, **DONE),
            sent=[(1, 1, 0, 10, 0.0), (0, 2, 0, 10, 2.5)],
            parts=[(0, 2, 0, 10, 4.0, 6.5, 6.5)],
            n_workers=1,
        )
    )
    assert uses(its) == {0: {Use.COMPUTE: 4.0}, 1: {Use.RECOVERY: 6.5}}


def test_one_process_alone_is_rank_0():
    its = history(
        section(
            *joined(0, t=0.5),
            event(What.ENDED, 3.0, **DONE),
            sent=[(0, 1, 0, 10, 0.5)],
            parts=[(0, 1, 0, 10, 2.5, 3.0, 3.0)],
            n_workers=1,
        )
    )
    assert uses(its) == {0: {Use.START: 0.5, Use.COMPUTE: 2.5}}


@pytest.mark.parametrize("policy", ["SS", "STATIC", "GSS", "FAC2", "auto"])
@pytest.mark.parametrize("seed", range(3))
def test_all_adds_up_to_ranks_times_wall(policy, seed, tmp_path):
    """Of simulated runs with slow and dying ranks; and compute is the work that there was."""
    random = np.random.default_rng(seed)
    costs = draw_costs(Distribution.named("gamma", 0.05, 1.5), 2000, 4, random)
    machine = Machine(
        n_workers=9,
        overhead_s=2e-3,
        service_s=1e-3 * seed,
        latency_s=1e-3,
        slowness={3: 2.5},
        deaths=[(5, Moment(share=0.3)), (7, Moment(after_s=2.0))],
        report_s=inf if seed == 2 else 1.0,
    )
    played = record_run(Study(policies=[policy], n_workers=[9], machine=machine), costs, tmp_path / "run")
    its = read_history(tmp_path / "run")
    accounts = make_accounts(its)
    assert its.wall_s == pytest.approx(played.makespan_s, rel=0.01)
    assert its.n_done == 2000
    assert accounts.seconds.min() >= 0
    assert accounts.totals.sum() == pytest.approx(9 * its.wall_s)
    assert accounts.seconds.sum(axis=1) == pytest.approx(its.wall_s)
    slow = its.parts["rank"] == 3
    fresh_s = its.parts["busy_s"] * its.parts["n_fresh"] / (its.parts["stop"] - its.parts["start"])
    work_s = fresh_s[~slow].sum() + fresh_s[slow].sum() / 2.5
    assert work_s == pytest.approx(costs.total_s, rel=0.05)  # a part that counts in part has its mean
    assert accounts.totals[Use.COMPUTE] == pytest.approx(fresh_s.sum(), rel=1e-6)
    dead_s = its.wall_s * 2 - sum(h.t for h in its.of(What.LOST))
    assert accounts.totals[Use.RECOVERY] >= dead_s
