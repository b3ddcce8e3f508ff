"""The three sentences name what limited a run, with its figures, and follow from them."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from mpims.drill.plan import Moment
from mpims.pages.accounts import make_accounts
from mpims.pages.assessment import Assessment
from mpims.pages.findings import find
from mpims.pages.incidents import find_incidents
from mpims.pages.outcomes import find_outcomes
from mpims.pages.slowest import paces, slowest, spread
from mpims.simulator.costs import Costs, Distribution, draw_costs
from mpims.simulator.machine import Machine
from mpims.simulator.recording import record_run
from mpims.simulator.study import Study
from mpims.storage.trace import What
from tests.traces import DONE, event, history, joined, section


def simulated(
    tmp_path,
    policy="auto",
    n_items=4000,
    block=1,
    mean_s=0.01,
    cov=0.5,
    block_s=None,
    classic=False,
    **machine,
):
    """The findings of a simulated run on 8 workers."""
    machine = {"n_workers": 8, "report_s": inf, **machine}
    if block_s is None:
        random = np.random.default_rng(1)
        costs = draw_costs(Distribution.named("gamma", mean_s, cov), n_items, block, random)
    else:
        costs = Costs(np.array(block_s), len(block_s) * block, block)
    study = Study(
        policies=[policy], n_workers=[machine["n_workers"]], machine=Machine(**machine), classic=classic
    )
    record_run(study, costs, tmp_path / "run")
    return find(tmp_path / "run")


def test_a_run_that_computes_all_the_time_is_limited_by_its_kernel(tmp_path):
    found = simulated(tmp_path, "FAC2", mean_s=0.1, service_s=1e-4)
    limit, why, what_to_do = found.sentences
    assert "the kernel itself" in limit
    assert "A block takes 99 ms in the mean and 156 ms at most" in why
    assert what_to_do.startswith("More ranks would help, up to about ")


def test_of_a_run_that_goes_on_it_is_said_what_is_under_way():
    """That 70 % went into results and no loss is above 3 % does not add up."""
    parts = [(1, 1, 0, 100, 7.0, 7.0, 7.0), (2, 2, 100, 200, 10.0, 10.0, 10.0)]
    sent = [(1, 1, 0, 100, 0.0), (2, 2, 100, 200, 0.0), (1, 3, 200, 300, 0.0)]
    its = history(section(*joined(1, 2), sent=sent, parts=parts), n_items=1000)
    its.parts["longest_s"] = 0.1
    limit, _, what_to_do = Assessment(its, make_accounts(its), []).sentences()
    assert "85.0% of 20 core-seconds went into results, 15.0% into what is under way, and no loss" in limit
    assert ", on which what is done would have taken about " in what_to_do


def test_more_ranks_than_can_be_fed_are_not_asked_for(tmp_path):
    found = simulated(tmp_path, "SS", n_items=160, cov=0.01, mean_s=1.0)
    assert (
        "More than about 16 ranks would not help" in found.sentences[2]
        or "up to about 16 " in found.sentences[2]
    )


@pytest.mark.parametrize(("overhead_s", "lost", "n"), [(1e-4, "9.1%", 10), (2e-4, "16.7%", 20)])
def test_what_chunks_cost_is_answered_by_larger_ones(tmp_path, overhead_s, lost, n):
    """As the literature has it: a chunk costs its rank so much before the kernel begins."""
    found = simulated(tmp_path, "SS", overhead_s=overhead_s, cov=0.0, mean_s=1e-3)
    limit, why, what_to_do = found.sentences
    assert "what is done between two calls of the kernel" in limit
    assert f"{lost} into communication" in limit
    assert f"took its rank {1e6 * overhead_s:.0f} µs outside of the kernel, beside 1 ms in it" in why
    assert what_to_do.startswith(f"Chunks of at least {n} items (`--chunk {n}`; the mean was 1)")


def test_what_no_message_costs_is_said_to_be_something_else(tmp_path):
    found = simulated(tmp_path, "SS", overhead_s=5e-3, cov=0.0, mean_s=0.01)
    assert found.sentences[2].startswith("That is 5 ms a block, far more than messages take")


def test_a_busy_master_is_answered_by_larger_chunks(tmp_path):
    found = simulated(tmp_path, "SS", service_s=4e-3, mean_s=0.01)
    limit, why, what_to_do = found.sentences
    assert "the way to the master" in limit
    assert found.master_load > 0.9
    assert f"busy for {found.master_load:.0%} of the time, 4 ms for each" in why
    assert what_to_do.startswith("Chunks of at least 5 items (`--chunk 5`")


def test_one_long_item_is_named(tmp_path):
    block_s = [0.01] * 1999 + [5.0]
    found = simulated(tmp_path, "SS", block_s=block_s)
    limit, why, what_to_do = found.sentences
    assert "its end" in limit
    assert "item 1999 on rank" in why
    assert "took 5.0 s" in why
    assert "put the longest items first" in what_to_do


def test_blocks_of_many_items_are_to_be_smaller(tmp_path):
    found = simulated(tmp_path, "SS", n_items=1200, block=100, cov=2.0)
    limit, why, what_to_do = found.sentences
    assert "its end" in limit
    assert "There were 12 blocks of 100 items for 8 ranks" in why
    assert "`block = 12` in the job instead of 100" in what_to_do


def test_a_block_that_was_computed_twice_is_one_of_the_run():
    parts = [(1, 1, 0, 1, 1.0, 1.0, 1.0), (2, 2, 1, 2, 9.0, 9.0, 9.0), (1, 3, 1, 2, 9.5, 10.5, 10.5)]
    sent = [(1, 1, 0, 1, 0.0), (2, 2, 1, 2, 0.0), (1, 3, 1, 2, 1.0)]
    its = history(section(*joined(1, 2), event(What.ENDED, 9.0, **DONE), sent=sent, parts=parts), n_items=2)
    sentences = Assessment(its, make_accounts(its), []).sentences()
    assert spread(its).n_blocks == 3
    assert "There were 2 blocks for 2 ranks" in sentences[1]


def test_one_is_no_plural():
    parts = [(1, 1, 0, 1, 1.0, 5.0, 5.0)]
    events = [*joined(1), event(What.ENDED, 9.0, **DONE)]
    one = history(section(*events, sent=[(1, 1, 0, 1, 0.5)], parts=parts, n_workers=1), n_items=1)
    assessment = Assessment(one, make_accounts(one), [])
    assert assessment._about_tail()[0].startswith("There was 1 block for 1 rank, so that nothing was left")
    assert " for the one delivery, and " in assessment._about_waiting()[0]
    assert assessment._about_communication()[0].startswith("The one delivery took its rank 3.5 s outside")
    assert assessment._more_ranks().startswith(
        "More than about 1 rank would not help (there is 1 block, the longest of 1.0 s): "
    )


def test_what_one_rank_does_not_keep_within_is_not_said_of_it():
    """There are no ten blocks for one rank where there are three in all."""
    parts = [(1, 1, 0, 3, 1.0, 7.0, 6.0)]
    events = [*joined(1), event(What.ENDED, 9.0, **DONE)]
    its = history(section(*events, sent=[(1, 1, 0, 3, 0.5)], parts=parts, n_workers=1), n_items=3)
    its.parts["longest_s"] = 2.0
    said = Assessment(its, make_accounts(its), [])._more_ranks()
    assert said.startswith(
        "More than about 1 rank would not help (there are 3 blocks, the longest of 2.0 s): "
    )
    its.parts["longest_s"], its.parts["service_s"], its.n_items = 1e-3, 5.4, 300
    said = Assessment(its, make_accounts(its), [])._more_ranks()
    assert said.startswith(
        "More than about 1 rank would not help (the master is busy for 60% of the time): "
    )


def test_chunks_that_are_too_large_at_the_end_are_to_be_smaller(tmp_path):
    found = simulated(tmp_path, "CSS:450", cov=0.2, classic=True)
    limit, why, what_to_do = found.sentences
    assert "its end" in limit
    assert "chunks were of 444 items" in why
    assert "Chunks of at most " in what_to_do


def test_a_dead_rank_is_named(tmp_path):
    found = simulated(tmp_path, "FAC2", deaths=[(3, Moment(share=0.2))])
    limit, why, _ = found.sentences
    assert "what went wrong" in limit
    assert "One thing went wrong" in why
    assert "rank 3 (virtual1) died" in why


def test_a_slow_rank_limits_a_run_if_it_costs_much(tmp_path):
    found = simulated(tmp_path, "FAC2", cov=0.1, slowness={2: 3.0})
    limit, why, _ = found.sentences
    assert "a slow rank" in limit
    assert why.startswith("Rank 2 (virtual1) took 3.0 times as long per item")
    assert paces(found.history)[2] == pytest.approx(3.0, rel=0.05)


def test_the_spread_of_blocks_is_exact():
    parts = [(1, 1, 0, 1, 1.0, 1.0, 1.0), (1, 2, 1, 2, 3.0, 4.0, 4.0)]
    its = spread(history(section(parts=parts)))
    assert (its.n_blocks, its.mean_s, its.deviation_s, its.longest_s) == (2, 2.0, 1.0, 3.0)
    assert its.cov == 0.5
    assert slowest(history(section(parts=parts)), 1)["attempt"].tolist() == [2]


# ------------------------------------------------------------------------- incidents


def told(*events, sent=(), parts=()):
    its = history(section(*joined(1, 2), *events, sent=sent, parts=parts))
    return [(one.what, one.remedy) for one in find_incidents(its, find_outcomes(its))]


def test_who_got_what_a_dead_rank_held_is_told():
    lost = told(
        event(What.LOST, 2.0, rank=1),
        event(What.ENDED, 9.0, **DONE),
        sent=[(1, 1, 0, 10, 0.0), (1, 2, 10, 20, 0.0), (2, 3, 0, 10, 2.5), (2, 4, 10, 20, 2.75)],
        parts=[(2, 3, 0, 10, 1.0, 4.0, 4.0), (2, 4, 10, 20, 1.0, 5.0, 5.0)],
    )
    remedy = "what was left of 2 chunks (20 items) went to rank 2 (here), the first 500 ms later"
    assert lost == [("rank 1 (here) died", remedy)]


def test_all_who_got_it_are_named_with_their_hosts():
    lost = told(
        event(What.LOST, 2.0, rank=1),
        event(What.JOINED, 2.2, rank=3, host="there"),
        sent=[(1, 1, 0, 10, 0.0), (1, 2, 10, 20, 0.0), (2, 3, 0, 10, 2.5), (3, 4, 10, 20, 2.75)],
        parts=[(2, 3, 0, 10, 1.0, 4.0, 4.0), (3, 4, 10, 20, 1.0, 5.0, 5.0)],
    )
    assert "went to rank 2 (here), rank 3 (there), the first" in lost[0][1]


def test_what_nobody_had_computed_again_is_told():
    lost = told(event(What.LOST, 2.0, rank=1), sent=[(1, 1, 0, 10, 0.0)], parts=[(2, 3, 20, 30, 1, 1, 1)])
    assert lost == [
        (
            "rank 1 (here) died",
            "what was left of 1 chunk (10 items) had yet to be computed again when the record ended",
        )
    ]


def test_every_other_thing_that_went_wrong_is_told():
    kinds = told(
        event(What.SUSPECT, 1.0, rank=1),
        event(What.BACK, 2.0, rank=1),
        event(What.FAILED, 3.0, rank=2, attempt=1, start=4, stop=5, reason="ValueError: x"),
        event(What.SKIPPED, 4.0, rank=2, item=4, n_tries=3, reason="ValueError: x"),
        event(What.SKIPPED, 4.5, rank=2, item=5, n_tries=1, reason="ValueError: x"),
        event(What.HIRED, 5.0),
        event(What.AWAY, 5.5, duration_s=3.0),
        event(What.STOPPING, 6.0),
        event(What.FULL, 7.0),
        event(What.RECALLED, 7.0, rank=1, attempt=9),
        event(What.ENDED, 8.0, status="failed", reason="items [4, 5) failed"),
        sent=[(2, 1, 0, 10, 0.0), (1, 2, 4, 5, 3.5)],
        parts=[(2, 1, 0, 4, 1.0, 1.0, 1.0)],
    )
    assert kinds == [
        ("rank 1 (here) was silent past its deadline", "it held nothing"),
        ("rank 1 (here) spoke again", "it was given work again"),
        ("item 4 failed on rank 2 (here): ValueError: x", "tried again on rank 1 (here)"),
        ("item 4 failed 3 times: ValueError: x", "it was skipped"),
        ("item 5 failed 1 time: ValueError: x", "it was skipped"),
        ("no rank was left to compute", "the master computed itself"),
        ("the master was suspended for 3.0 s", "nobody's silence counted for that time"),
        ("the run was asked to stop", "nothing more was handed out"),
        ("the trace was full", "of the chunks after that nothing is on record"),
        ("the run failed", "items [4, 5) failed"),
    ]


@pytest.mark.parametrize(
    ("ended", "are_asked"),
    [
        ([event(What.ENDED, 3.0, status="stopped", reason="stopped")], [True, True, True]),
        ([event(What.ENDED, 3.0, status="stopped", reason="cannot write x: full")], [True, False, False]),
        ([], [True, False]),  # it was killed
    ],
)
def test_a_stop_by_request_and_going_on_after_it_are_no_faults(ended, are_asked):
    first = section(*joined(1), event(What.STOPPING, 2.0), *ended)
    second = section(event(What.LOST, 52.0, rank=1), t=50.0, cause="resumed", wall=2000.0)
    its = history(first, second)
    assert [one.is_asked for one in find_incidents(its, find_outcomes(its))] == [*are_asked, False]
