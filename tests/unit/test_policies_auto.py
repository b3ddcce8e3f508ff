"""The default policy: FAC2 as long as nothing speaks against it, and what it makes of measurements."""

from __future__ import annotations

from math import ceil, inf, nan, sqrt

import pytest

from mpims.core.policies import Sample, parse_policy
from mpims.core.policies.auto import DEAREST_S
from mpims.options import DEFAULT_POLICY


def auto(n_blocks=100_000, n_workers=4):
    return parse_policy("auto").make(n_blocks, n_workers)


def sample(rank, times, overhead_s=0.0):
    busy_s = sum(times)
    return Sample(rank, len(times), busy_s, sum(t * t for t in times), busy_s + overhead_s, overhead_s)


def learn(policy, times, n_times=1, overhead_s=0.0, ranks=(1, 2, 3, 4)):
    for _ in range(n_times):
        for rank in ranks:
            policy.learn(sample(rank, times, overhead_s))


def test_it_is_the_default():
    assert DEFAULT_POLICY == "auto"


def test_with_equal_ranks_and_even_blocks_it_is_fac2():
    policy = auto()
    learn(policy, [1.0] * 10)
    assert policy.propose(80_000, 1) == 10_000
    assert policy.propose(8, 1) == 1


def test_the_more_block_times_spread_the_smaller_the_part_that_is_handed_out():
    """Factoring's formula with the coefficient of variation that was measured."""
    policy = auto()
    learn(policy, [0.0, 2.0] * 50)  # of variation 1
    remaining = 400
    b = 4 / (2 * sqrt(remaining))
    x = 2 + b * b + b * sqrt(b * b + 4)
    assert policy.propose(remaining, 1) == ceil(remaining / (4 * x))
    assert policy.propose(remaining, 1) < 50


def test_the_spread_between_ranks_is_not_that_of_the_blocks():
    policy = auto()
    for rank, time in ((1, 1.0), (2, 3.0), (3, 1.0), (4, 3.0)):
        policy.learn(sample(rank, [time] * 100))
    assert "spread 0," in policy.explain()


def test_what_is_handed_out_is_worth_handing_out():
    """At 1 ms a hand-out and 10 µs a block, a chunk has at least 10,000 blocks ..."""
    policy = auto(10_000_000)
    learn(policy, [1e-5] * 100, n_times=2, overhead_s=1e-3)
    assert policy.propose(60_000, 1) == 10_000
    assert policy.propose(4_000, 1) == 1_000  # ... but no more than a share of what is left


def test_meanwhile_the_master_can_serve_all_ranks():
    """At 0.2 ms a result and 100 ranks, chunks last 20 ms, though hand-outs cost the ranks nothing ..."""
    policy = auto(10_000_000, n_workers=100)
    learn(policy, [1e-5] * 100, n_times=2, overhead_s=1e-6, ranks=range(1, 101))
    assert policy.propose(300_000, 1) == 1500
    policy.learn_service(2e-4)
    assert policy.propose(300_000, 1) == 2000
    assert policy.propose(100_000, 1) == 1000  # ... but are no longer than a share of what is left
    policy.lose(100)
    assert policy.propose(300_000, 1) == 1980


def test_a_master_that_had_no_core_for_once_is_not_slow():
    policy = auto(10_000_000, n_workers=100)
    learn(policy, [1e-5] * 100, n_times=2, ranks=range(1, 101))
    for service_s in [2e-4] * 10 + [2e-3, nan, -1.0, inf]:
        policy.learn_service(service_s)
    assert policy.propose(1_000, 1) == 10
    assert policy.propose(400_000, 1) == 2800
    policy.learn_service(2e-4)
    assert policy.propose(400_000, 1) == 2400


def test_large_results_do_not_make_chunks_endless():
    """A longer chunk has more of them: the master would not have more time."""
    policy = auto(10_000_000, n_workers=10)
    learn(policy, [1e-3] * 100, n_times=2, ranks=range(1, 11))
    for _ in range(100):
        policy.learn_service(0.4)
    assert policy.propose(150, 1) == 10


def test_ranks_that_wait_for_a_core_do_not_make_chunks_endless():
    policy = auto(10_000_000)
    learn(policy, [1e-3] * 100, n_times=20, overhead_s=0.5)
    assert policy.overhead_s == pytest.approx(DEAREST_S)
    assert policy.propose(1000, 1) == 125  # and not 250: a hundredth of 100 ms is a millisecond
    assert policy.propose(500, 1) == 100


def test_a_single_dear_hand_out_says_nothing():
    policy = auto(10_000_000)
    learn(policy, [1e-5] * 100, n_times=20, overhead_s=1e-5)
    policy.learn(sample(1, [1e-5] * 100, overhead_s=1e-3))
    assert policy.overhead_s == pytest.approx(1.1e-4, rel=0.1)


def test_what_passes_between_blocks_is_no_hand_out():
    """Nor is the time that a result lay with a master that slept: it comes later, the next one sooner."""
    policy = auto(10_000_000)
    learn(policy, [5e-3] * 100, overhead_s=1e-4)
    for late_s in (0.01, -0.01) * 10:
        policy.learn(sample(1, [5e-3] * 100, overhead_s=1e-4)._replace(whole_s=0.5 + 100 * 7e-5 + late_s))
    assert policy.overhead_s == pytest.approx(1e-4)


def test_the_start_of_a_rank_is_no_hand_out():
    policy = auto(10_000_000)
    learn(policy, [1e-5] * 100, overhead_s=0.05)
    assert policy.overhead_s is None
    learn(policy, [1e-5] * 100, overhead_s=1e-5)
    assert policy.overhead_s == pytest.approx(1e-5)


def test_one_odd_block_makes_no_rank_slow():
    policy = auto()
    learn(policy, [0.1, 0.1, 0.1, 5.7] * 8)
    before = policy.propose(80_000, 1)
    policy.learn(sample(1, [6.0]))  # one long block of a job that has such ones
    assert policy.propose(80_000, 1) > 0.8 * before


def test_a_rank_that_becomes_slow_is_noticed():
    policy = auto()
    learn(policy, [1.0] * 100, n_times=10)
    before = policy.propose(80_000, 2)
    learn(policy, [4.0] * 100, n_times=5, ranks=(2,))
    assert policy.propose(80_000, 2) < 0.6 * before
    assert policy.propose(80_000, 1) > before


def test_it_tells_of_the_master_where_that_counts():
    policy = auto(10_000_000)
    learn(policy, [1e-5] * 100, n_times=2, overhead_s=1e-6)
    policy.learn_service(2e-5)
    assert policy.explain() == "1 µs a hand-out, block times spread 0"
    policy.learn_service(1e-3)
    assert policy.explain() == "1 µs a hand-out, 120 µs of the master's time, block times spread 0"


@pytest.mark.parametrize("block_s", [0.1, 0.3, 1e-5, 0.7, 1.1])
@pytest.mark.parametrize("n_blocks", [3, 7, 100])
def test_blocks_that_take_the_same_time_do_not_spread(block_s, n_blocks):
    policy = auto()
    learn(policy, [block_s] * n_blocks, n_times=2)
    assert policy.explain() == "0 µs a hand-out, block times spread 0"


def test_it_explains_itself():
    policy = auto()
    assert policy.explain() == ""
    for _ in range(20):
        for rank, time in ((1, 0.5), (2, 0.5), (3, 2.0), (4, 0.5)):
            policy.learn(sample(rank, [time * 0.5, time * 1.5] * 100, overhead_s=38e-6))
    assert policy.explain() == "38 µs a hand-out, block times spread 0.5, rank 3 at 0.31 of the mean speed"


@pytest.mark.parametrize(
    ("n_slow", "said"), [(1, "rank 1 at"), (3, "rank 3 at"), (5, "2 more slower than 0.8")]
)
def test_it_does_not_name_a_thousand_ranks(n_slow, said):
    policy = auto(n_workers=20)
    for rank in range(1, 21):
        policy.learn(sample(rank, [4.0 if rank <= n_slow else 1.0] * 1000))
    assert said in policy.explain()
    assert policy.explain().count("rank") <= 3
