"""What policies are told beside measurements: other sizes than they said, and ranks that are gone."""

from __future__ import annotations

from math import inf

import pytest

from mpims.core.deadlines import Deadlines
from mpims.core.events import WorkerJoined, WorkerLost
from mpims.core.ledger import Ledger
from mpims.core.policies import Sample, Sizer, parse_policy
from mpims.core.scheduler import Scheduler

BOLD = "BOLD:mu=1,sigma=1,h=0.5"
ADAPTIVE = ("auto", "AWF-B", "AWF-C", "AWF-D", "AWF-E", "AF")


def sizer_of(text, n_blocks, n_workers, minimum=1, maximum=None):
    return Sizer(parse_policy(text).make(n_blocks, n_workers), minimum, maximum)


@pytest.mark.parametrize(("minimum", "maximum"), [(1, 10), (400, None), (1, None)])
def test_bold_knows_what_was_handed_out_whatever_it_said(minimum, maximum):
    sizer = sizer_of(BOLD, 1000, 4, minimum, maximum)
    remaining, handed_out = 1000, 0
    for rank in (1, 2, 1, 2):
        size = sizer.next_size(remaining, rank)
        remaining, handed_out = remaining - size, handed_out + size
        if not remaining:
            break
    assert sizer.policy._n_in_hand == handed_out
    running = [hand.sizes[0] for hand in sizer.policy._hands.values()]
    assert sizer.policy._speed == pytest.approx(sum(size / (size + 0.5) for size in running))


def test_a_limited_chunk_of_bold_leaves_more_for_the_others():
    free, limited = sizer_of(BOLD, 10_000, 4), sizer_of(BOLD, 10_000, 4, maximum=10)
    free.next_size(10_000, 1)
    limited.next_size(10_000, 1)
    assert limited.policy.propose(9000, 2) < free.policy.propose(9000, 2)  # fewer are unfinished


@pytest.mark.parametrize(
    "policy", [*ADAPTIVE, "FAC:mu=1,sigma=40", "TAP:mu=1,sigma=40", BOLD, "FAC2", "GSS"]
)
def test_a_rank_that_is_gone_does_not_count(policy):
    """What the others get is what they would get without it."""
    sizes = {}
    for n_workers in (3, 2):
        sizer = sizer_of(policy, 12_000, n_workers)
        for _ in range(10):
            for rank, speed in ((1, 1.0), (2, 3.0), (3, 50.0))[:n_workers]:
                seconds = 10 / speed
                sizer.learn(Sample(rank, 10, seconds, seconds**2 / 10, seconds))
        if n_workers == 3:
            sizer.lose(3)
        sizes[n_workers] = [sizer.next_size(3000, rank) for rank in (1, 2)]
    assert sizes[3] == pytest.approx(sizes[2], abs=1)


def test_bold_forgets_what_a_rank_that_is_gone_had():
    sizer = sizer_of(BOLD, 1000, 2)
    sizer.next_size(1000, 1)
    before = (sizer.policy._n_in_hand, sizer.policy._speed)
    sizer.next_size(700, 2)
    sizer.next_size(600, 2)
    sizer.lose(2)
    assert (sizer.policy._n_in_hand, sizer.policy._speed) == pytest.approx(before)
    sizer.lose(1)
    assert sizer.policy.n_workers == 1  # never fewer


def test_the_scheduler_says_so():
    sizer = sizer_of("GSS", 100, 2)
    scheduler = Scheduler(Ledger(100, 1), sizer, Deadlines(inf), 2)
    scheduler.handle(WorkerJoined(1), 0.0)
    scheduler.handle(WorkerLost(1), 1.0)
    assert sizer.policy.n_workers == 1
