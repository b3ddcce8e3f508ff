"""The simulator on runs that are small enough to be worked out by hand."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from mpims.core.deadlines import Deadlines
from mpims.core.ledger import Ledger
from mpims.core.policies import Sizer, parse_policy
from mpims.core.scheduler import Scheduler
from mpims.drill.plan import Moment
from mpims.simulator.costs import Costs
from mpims.simulator.engine import Engine
from mpims.simulator.machine import Machine, Played


def play(
    block_s, policy: str = "SS", *, queue_length: int = 1, take_over: bool = False, **machine
) -> tuple[Played, Scheduler]:
    """One run; by default in the classic model."""
    costs = Costs(np.array(block_s, float), len(block_s))
    spec = parse_policy(policy)
    machine.setdefault("report_s", inf)
    scheduler = Scheduler(
        Ledger(costs.n_blocks, 1),
        Sizer(spec.make(costs.n_blocks, machine["n_workers"])),
        Deadlines(inf),
        machine["n_workers"],
        queue_length=queue_length,
        take_over=take_over,
    )
    played = Engine(scheduler, costs, Machine(**machine)).run()
    assert scheduler.ledger.complete
    return played, scheduler


def test_one_worker_takes_the_sum():
    played, scheduler = play([1, 2, 3], n_workers=1)
    assert played.makespan_s == 6
    assert scheduler.counters.n_chunks == 3
    assert played.n_messages == 3
    assert (played.largest, played.least) == (1, 1)


def test_whoever_is_free_gets_the_next():
    assert play([4, 1, 1, 1, 1], n_workers=2)[0].makespan_s == 4
    assert play([1, 1, 1, 1, 4], n_workers=2)[0].makespan_s == 6


def test_overhead_is_paid_for_every_chunk():
    assert play([1] * 6, "CSS:3", n_workers=2, overhead_s=0.5)[0].makespan_s == 3.5
    assert play([1] * 6, "CSS:1", n_workers=2, overhead_s=0.5)[0].makespan_s == 4.5


def test_the_policy_is_told_what_passes_between_two_chunks():
    """The overhead of a chunk that is there already; of one that is waited for, its way too."""
    _, scheduler = play([0.01] * 3000, "auto", n_workers=1, overhead_s=2e-4, queue_length=2)
    assert policy_of(scheduler).overhead_s == pytest.approx(2e-4)
    _, scheduler = play([0.01] * 3000, "auto", n_workers=1, overhead_s=2e-4, latency_s=1e-4)
    assert policy_of(scheduler).overhead_s == pytest.approx(4e-4)


def test_auto_does_not_hand_out_more_than_the_master_can():
    """A thousand workers are done with 100,000 blocks in a second; the master can serve 10,000 chunks."""
    costs = np.random.default_rng(0).uniform(0.0, 0.02, 200_000)
    machine = {"n_workers": 1000, "service_s": 1e-4, "queue_length": 2, "take_over": True}
    by_auto, _ = play(costs, "auto", **machine)
    by_fac2, _ = play(costs, "FAC2", **machine)
    assert by_auto.makespan_s < by_fac2.makespan_s


def policy_of(scheduler: Scheduler):
    return scheduler._dispatch._sizer.policy


def test_messages_are_under_way():
    """JOINED, then for each item ASSIGN and RESULT; the next ASSIGN follows at once."""
    assert play([1] * 3, n_workers=1, latency_s=0.25)[0].makespan_s == pytest.approx(0.25 + 3 * 1.5)


def test_a_chunk_held_in_advance_hides_the_way():
    played, _ = play([1] * 3, n_workers=1, latency_s=0.25, queue_length=2)
    assert played.makespan_s == pytest.approx(0.25 + 0.25 + 3 + 0.25)


def test_the_master_serves_one_after_another():
    """Three come at the same time: the last one's chunk is given out after three services."""
    played, _ = play([1] * 3, n_workers=3, service_s=0.125)
    assert played.makespan_s == pytest.approx(3 * 0.125 + 1 + 0.125)
    assert played.served_s == pytest.approx(6 * 0.125)


def test_results_wait_for_a_busy_master():
    """Two workers ask every 0.1 s for what takes the master 0.25 s: it is the one that limits."""
    played, _ = play([0.1] * 40, n_workers=2, service_s=0.25)
    assert played.makespan_s == pytest.approx((2 + 40) * 0.25)  # two that join, forty results
    assert played.served_s == pytest.approx(played.makespan_s)
    assert played.longest_wait_s == pytest.approx(0.15)


@pytest.mark.parametrize("block_s", [0.01, 1e-5])
def test_chunks_that_are_given_with_a_result_cost_the_master_nothing_more(block_s):
    """Far from the end, and where they are short, a rank gets several at once, and later none."""
    played, scheduler = play([block_s] * 2000, n_workers=1, service_s=1e-6, queue_length=2, take_over=True)
    assert scheduler.counters.n_chunks == 2000
    assert played.served_s == pytest.approx((2 + 2000) * 1e-6)  # two when it joins


def test_a_slow_rank_gets_fewer():
    played, _ = play([1] * 12, n_workers=2, slowness={2: 3.0})
    assert played.makespan_s == 9  # nine by the fast one, three by the other


def test_what_a_dead_rank_held_is_computed_again():
    played, scheduler = play([4, 4], n_workers=2, detection_s=0.5, deaths=[(1, Moment(after_s=3.0))])
    assert played.makespan_s == 8
    assert scheduler.counters.n_lost == 1
    assert scheduler.counters.n_reissued == 1


def test_a_death_is_known_only_after_a_while():
    """The other rank has nothing to do until then."""
    played, _ = play([4, 1], n_workers=2, detection_s=2.5, deaths=[(1, Moment(after_s=3.0))])
    assert played.makespan_s == 3 + 2.5 + 4


def test_a_rank_can_die_at_a_share_of_the_work():
    played, scheduler = play([1] * 10, n_workers=2, detection_s=0.0, deaths=[(2, Moment(share=0.4))])
    assert scheduler.counters.n_lost == 1
    assert played.makespan_s == 8  # two by each, then six by one


def test_the_masters_rank_computes_when_all_others_are_dead():
    deaths = [(rank, Moment(after_s=1.5)) for rank in (1, 2)]
    played, scheduler = play([1] * 6, n_workers=2, detection_s=0.5, deaths=deaths)
    assert scheduler.counters.n_lost == 2
    assert played.makespan_s == 1.5 + 0.5 + 4


def test_long_chunks_are_delivered_in_parts():
    played, scheduler = play([0.4] * 10, "STATIC", n_workers=1, report_s=1.0)
    assert scheduler.counters.n_chunks == 1
    assert played.n_messages == 4  # of 3, 3, 3 and 1 blocks
    assert played.makespan_s == pytest.approx(4.0)


def test_an_idle_rank_takes_over_what_another_has_left():
    alone, _ = play([1] * 64, "STATIC", n_workers=2, slowness={2: 9.0}, report_s=1.0)
    helped, scheduler = play(
        [1] * 64, "STATIC", n_workers=2, slowness={2: 9.0}, report_s=1.0, take_over=True, queue_length=2
    )
    assert alone.makespan_s == 32 * 9
    assert scheduler.counters.n_split > 0
    assert helped.makespan_s < 70  # 57.6 if all was known before


def test_the_first_of_two_twins_wins():
    """One item takes a hundred times as long on the slow rank: the other computes it as well."""
    played, scheduler = play([1] * 20, n_workers=2, slowness={2: 100.0}, take_over=True, queue_length=2)
    assert scheduler.counters.n_twins == 1
    assert played.makespan_s < 30


@pytest.mark.parametrize("latency_s", [0.0, 0.3])
@pytest.mark.parametrize("service_s", [0.0, 0.02])
def test_a_run_is_a_function_of_its_arguments(latency_s, service_s):
    arguments = {"n_workers": 5, "latency_s": latency_s, "service_s": service_s, "take_over": True}
    block_s = np.random.default_rng(3).exponential(1.0, 300)
    first = play(block_s, "GSS", queue_length=2, **arguments)[0]
    assert play(block_s, "GSS", queue_length=2, **arguments)[0] == first


@pytest.mark.parametrize("queue_length", [1, 2])
@pytest.mark.parametrize("policy", ["SS", "GSS"])
def test_what_is_put_off_changes_nothing(monkeypatch, policy, queue_length):
    """As with thousands of ranks, of which most are not near."""
    block_s = np.random.default_rng(1).exponential(size=2000)
    options = {
        "n_workers": 100,
        "overhead_s": 0.01,
        "latency_s": 0.02,
        "service_s": 1e-3,
        "take_over": True,
    }
    options |= {
        "queue_length": queue_length,
        "deaths": [(3, Moment(after_s=2.0)), (5, Moment(after_s=0.0))],
    }
    near = play(block_s, policy, **options)[0]
    monkeypatch.setattr("mpims.simulator.agenda.FEW", 0)
    assert play(block_s, policy, **options)[0] == near
