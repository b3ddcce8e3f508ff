"""The techniques that learn: their formulas, what they make of measurements, and of nonsense."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from math import inf, log, nan, pi, sqrt
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.policies import POLICIES, Sample, Sizer, parse_policy

LEARNING = [name for name, policy in POLICIES.items() if policy.learns]
AWF = ["AWF-B", "AWF-C", "AWF-D", "AWF-E"]


def sizer_of(spec, n_blocks, n_workers):
    text = POLICIES[spec].example(n_workers) if spec in POLICIES else spec
    return Sizer(parse_policy(text).make(n_blocks, n_workers))


def sample(rank, times, overhead_s=0.0):
    """What a rank measured of blocks with these times."""
    busy_s = sum(times)
    squares_s2 = sum(time * time for time in times)
    return Sample(rank, len(times), busy_s, squares_s2, busy_s + overhead_s, overhead_s)


def drive(sizer, n_blocks, speeds, overhead_s=0.0):
    """Blocks that each rank computes, ranks of these speeds asking when they are done; and all sizes."""
    remaining, done, sizes = n_blocks, Counter(), []
    asking = [(0.0, rank, 0) for rank in speeds]
    while asking:
        now, rank, n_done = heapq.heappop(asking)
        if n_done and sizer.learns:
            sizer.learn(sample(rank, [1 / speeds[rank]] * n_done, overhead_s))
        if not remaining:
            continue
        size = sizer.next_size(remaining, rank)
        remaining -= size
        done[rank] += size
        sizes.append((rank, size))
        heapq.heappush(asking, (now + size / speeds[rank] + overhead_s, rank, size))
    return done, sizes


# --------------------------------------------------------------------- the start


@pytest.mark.parametrize("name", ["auto", *AWF, "AF"])
def test_the_first_chunk_is_a_tenth_of_the_share_and_no_more_than_fac2s(name):
    assert sizer_of(name, 1000, 4).next_size(1000, 1) == 25
    assert sizer_of(name, 1000, 4).next_size(160, 1) == 20
    assert sizer_of(name, 7, 4).next_size(7, 1) == 1


@pytest.mark.parametrize("name", ["auto", *AWF, "AF"])
def test_a_rank_that_is_seen_late_begins_as_the_others_did(name):
    sizer = sizer_of(name, 10_000, 2)
    for rank in (1, 2):
        sizer.next_size(10_000, rank)
        sizer.learn(sample(rank, [1.0, 2.0, 3.0]))
    assert sizer.next_size(9000, 77) == 500
    sizer.learn(sample(77, [1.0, 2.0, 3.0]))
    assert [sizer.next_size(8000, rank) > 500 for rank in (1, 2, 77)] == [True] * 3


def test_only_those_learn_that_say_so():
    assert ["auto", *AWF, "AF", "BOLD"] == LEARNING
    for name in POLICIES:
        assert sizer_of(name, 10, 2).learns == (name in LEARNING)


# --------------------------------------------------------------------------- AWF


@pytest.mark.parametrize("name", ["auto", *AWF])
@pytest.mark.parametrize("n_workers", [2, 4, 16])
def test_a_rank_half_as_fast_gets_half_as_much(name, n_workers):
    speeds = dict.fromkeys(range(1, n_workers), 1.0) | {n_workers: 0.5}
    done, _ = drive(sizer_of(name, 100_000, n_workers), 100_000, speeds)
    assert done[n_workers] / mean(done[rank] for rank in range(1, n_workers)) == pytest.approx(
        0.5, rel=0.05
    )


@pytest.mark.parametrize("name", AWF)
@pytest.mark.parametrize("n_workers", [2, 4, 16])
def test_the_chunk_of_a_rank_half_as_fast_is_half_as_large(name, n_workers):
    sizer = sizer_of(name, 100_000, n_workers)
    for rank in range(n_workers):
        sizer.learn(sample(rank, [2.0 if rank else 4.0] * 10))
    sizes = [sizer.next_size(100_000, rank) for rank in range(n_workers)]
    assert sum(sizes) == pytest.approx(50_000, abs=n_workers)
    assert set(sizes[1:]) <= {2 * sizes[0] - 1, 2 * sizes[0]}


@pytest.mark.parametrize(("name", "counts_overhead"), [("AWF-C", False), ("AWF-E", True)])
def test_d_and_e_count_the_overhead(name, counts_overhead):
    sizer = sizer_of(name, 10_000, 2)
    sizer.learn(sample(1, [1.0] * 10, overhead_s=20.0))
    sizer.learn(sample(2, [1.0] * 10))
    # ceil(9000 / 4) = 2250; the speeds are 10 / 30 and 1, so the weights 0.5 and 1.5.
    assert sizer.next_size(9000, 1) == (1125 if counts_overhead else 2250)
    assert sizer.next_size(9000, 2) == (3375 if counts_overhead else 2250)


@pytest.mark.parametrize(("name", "counts_overhead"), [("AWF-B", False), ("AWF-D", True)])
def test_b_and_d_renew_the_weights_with_the_batch(name, counts_overhead):
    sizer = sizer_of(name, 10_000, 2)
    assert [sizer.next_size(10_000, rank) for rank in (1, 2)] == [500, 500]
    sizer.learn(sample(1, [1.0] * 10, overhead_s=20.0))
    sizer.learn(sample(2, [1.0] * 10))
    expected = [1125, 3375] if counts_overhead else [2250, 2250]
    assert sizer.next_size(9000, 1) == expected[0]
    sizer.learn(sample(1, [1000.0] * 10))
    assert sizer.next_size(7000, 2) == expected[1]  # of the batch that began with 9000
    assert sizer.next_size(4000, 1) < 100  # a new one


def test_b_does_not_weigh_the_few_that_were_first():
    sizer = sizer_of("AWF-B", 10_000, 5)
    for rank in range(1, 6):
        sizer.next_size(10_000, rank)
    sizer.learn(sample(1, [1.0] * 10))
    assert sizer.next_size(9000, 1) == 200


def test_later_chunks_count_for_more():
    sizer = sizer_of("AWF-C", 10_000, 2)
    sizer.learn(sample(1, [4.0]))
    sizer.learn(sample(1, [1.0]))
    sizer.learn(sample(2, [1.0]))
    # pi_1 = (1 x 4 + 2 x 1) / (1 + 2) = 2 and pi_2 = 1: the weights are 2 / 3 and 4 / 3 of 900.
    assert (sizer.next_size(3600, 1), sizer.next_size(3600, 2)) == (600, 1200)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_the_weights_of_the_ranks_are_those_of_the_formula(times):
    n_workers = len(times)
    sizer = sizer_of("AWF-C", 10**9, n_workers)
    for rank, time in enumerate(times):
        sizer.learn(sample(rank, [time] * 3))
    rho = [mean(times) / time for time in times]
    chunk = -(-(10**9) // (2 * n_workers))
    for rank in range(n_workers):
        expected = rho[rank] * n_workers / sum(rho) * chunk
        assert sizer.next_size(10**9, rank) == pytest.approx(max(1, expected), rel=1e-6, abs=1.0)


# ---------------------------------------------------------------------------- AF


def test_af_with_equal_ranks_gives_what_the_formula_says():
    sizer = sizer_of("AF", 10_000, 4)
    for rank in (1, 2, 3, 4):
        sizer.learn(sample(rank, [1.0, 2.0, 3.0]))
    # mu = 2, sigma**2 = 1: D = 4 / 2 = 2 and T = 2 / 4 = 0.5; with R = 1000
    # (2 + 1000 - sqrt(4 + 4000)) / 4 = (1002 - 63.277) / 4 = 234.68.
    assert [sizer.next_size(1000, rank) for rank in (1, 2, 3, 4)] == [235] * 4
    # With R = 100: (2 + 100 - sqrt(4 + 400)) / 4 = (102 - 20.0998) / 4 = 20.48.
    assert sizer.next_size(100, 3) == 21


def test_af_of_unequal_ranks_takes_the_variance_and_not_the_deviation():
    sizer = sizer_of("AF", 100_000, 2)
    sizer.learn(sample(1, [1.0, 1.0, 7.0]))  # mu = 3, sigma**2 = 12
    sizer.learn(sample(2, [4.0, 8.0]))  # mu = 6, sigma**2 = 8
    # D = 12 / 3 + 8 / 6 = 16 / 3, T = 1 / (1 / 3 + 1 / 6) = 2; with R = 1000
    # D + 4000 - sqrt(D**2 + 8000 D) = 4005.333 - 206.628 = 3798.705: a sixth and a twelfth of it.
    assert (sizer.next_size(1000, 1), sizer.next_size(1000, 2)) == (634, 317)


def test_af_without_spread_shares_by_speed():
    sizer = sizer_of("AF", 10_000, 2)
    sizer.learn(sample(1, [1.0] * 4))
    sizer.learn(sample(2, [3.0] * 4))
    assert (sizer.next_size(1000, 1), sizer.next_size(1000, 2)) == (750, 250)


def test_af_takes_the_measured_ranks_for_those_that_are_not():
    sizer = sizer_of("AF", 10_000, 4)
    sizer.learn(sample(3, [1.0, 2.0, 3.0]))
    assert sizer.next_size(1000, 3) == 235


def test_af_needs_two_blocks_for_a_variance():
    sizer = sizer_of("AF", 10_000, 2)
    sizer.learn(sample(1, [1.0]))
    assert sizer.next_size(9000, 1) == 500
    sizer.learn(sample(1, [3.0]))
    # mu = 2, sigma**2 = 2, the other rank alike: D = 2, T = 1: (2 + 18000 - sqrt(4 + 72000)) / 4 = 4433.4.
    assert sizer.next_size(9000, 1) == 4434


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5), min_size=2, max_size=10))
def test_the_variance_of_chunk_after_chunk_is_that_of_all_blocks(chunks):
    sizer = sizer_of("AF", 10**6, 1)
    for times in chunks:
        sizer.learn(sample(1, times))
    times = [time for chunk in chunks for time in chunk]
    mu = mean(times)
    variance = sum((time - mu) ** 2 for time in times) / (len(times) - 1)
    d, t, r = variance / mu, mu, 10**6
    expected = (d + 2 * t * r - sqrt(d * d + 4 * d * t * r)) / (2 * mu)
    assert sizer.next_size(r, 1) == pytest.approx(expected, abs=2, rel=1e-6)


def test_equal_times_have_no_variance_whatever_rounding_says():
    sizer = sizer_of("AF", 10**6, 2)
    for _ in range(1000):
        for rank in (1, 2):
            sizer.learn(Sample(rank, 3, 0.3, 0.03 - 1e-18, 0.3))
    assert sizer.next_size(1000, 1) == 500


# -------------------------------------------------------------------------- BOLD


def hagerups_size(remaining, unfinished, expected, n_workers, mu, sigma, h):
    """The strategy's size as it was published, step by step."""
    q = remaining / n_workers
    if q <= 1:
        return 1
    r = max(remaining, expected)
    t = r / n_workers
    a = 2 * (sigma / mu) ** 2
    b = 8 * a * log(8 * a)
    c1 = h / (mu * log(2))
    c2 = sqrt(2 * pi) * c1
    v = q / (b + q)
    d = remaining / (1 + 1 / log(q) - v)
    if d <= c2:
        return max(1, int(t))
    s = a * (log(d) - log(c2)) * (1 + unfinished / (r * n_workers))
    w = log(v * log(q)) + log(b) if b > 0 else log(log(q))
    return max(1, int(min(t + max(0, c1 * w) + s / 2 - sqrt(s * (t + s / 4)), t)))


def test_bold_worked_by_hand():
    # a = 2, b = 16 ln 16 = 44.361, c1 = 0.72135, c2 = 1.80815, v = 250 / 294.361 = 0.84930, d = 3013.7;
    # s = 2 ln(1666.7) 1.25 = 18.547, w = ln(208.03) = 5.3377: 250 + 3.850 + 9.273 - 68.722 = 194.40.
    assert sizer_of("BOLD:mu=1,sigma=1,h=0.5", 1000, 4).next_size(1000, 1) == 194


@pytest.mark.parametrize(("sigma", "h"), [(1.0, 0.5), (0.2, 0.01), (3.0, 5.0), (0.1, 40.0)])
@pytest.mark.parametrize("n_workers", [1, 3, 20])
def test_bold_sees_in_the_samples_what_hagerup_sees_on_the_clock(n_workers, sigma, h):
    """Workers that ask when they have nothing left: the time, M and N are his."""
    draw = random.Random(n_workers)
    sizer = sizer_of(f"BOLD:mu=1,sigma={sigma},h={h}", 20_000, n_workers)
    remaining, running, sizes = 20_000, {}, []
    asking = [(0.0, rank) for rank in range(1, n_workers + 1)]
    while asking:
        now, rank = heapq.heappop(asking)
        if rank in running:
            begun, size = running.pop(rank)
            sizer.learn(Sample(rank, size, now - begun - h, 0.0, now - begun))
        if not remaining:
            continue
        unfinished = remaining + sum(size for _, size in running.values())
        computed = sum((now - begun) * size / (size + h) for begun, size in running.values())
        size = sizer.next_size(remaining, rank)
        expected = hagerups_size(remaining, unfinished, unfinished - computed, n_workers, 1, sigma, h)
        assert abs(size - min(remaining, expected)) <= (size > 1), (remaining, rank, now)
        sizes.append(size == min(remaining, expected))
        remaining -= size
        running[rank] = (now, size)
        heapq.heappush(asking, (now + h + draw.gammavariate(size, 1.0), rank))
    assert mean(sizes) > 0.99  # the rest are the last bits of a sum, on the edge of a whole number


def wasted_s(spec, n_blocks, n_workers, h, seed):
    """Hagerup's measure, of exponential times of mean 1 s: what a worker wastes, overhead and waiting."""
    draw = random.Random(seed)
    sizer = sizer_of(spec, n_blocks, n_workers)
    remaining, running, total_s, end_s = n_blocks, {}, 0.0, 0.0
    asking = [(0.0, rank) for rank in range(1, n_workers + 1)]
    while asking:
        now, rank = heapq.heappop(asking)
        end_s = max(end_s, now)
        if rank in running:
            sizer.learn(running.pop(rank))
        if remaining:
            size = sizer.next_size(remaining, rank)
            remaining -= size
            busy_s = draw.gammavariate(size, 1.0)
            total_s += busy_s
            running[rank] = Sample(rank, size, busy_s, 2 * busy_s**2 / size, busy_s + h, h)
            heapq.heappush(asking, (now + busy_s + h, rank))
    return end_s - total_s / n_workers


@pytest.mark.parametrize(
    ("spec", "n_workers", "published"),
    [
        ("BOLD:mu=1,sigma=1,h=0.5", 2, 4.8),
        ("BOLD:mu=1,sigma=1,h=0.5", 8, 6.7),
        ("BOLD:mu=1,sigma=1,h=0.5", 64, 8.7),
        ("FAC2", 2, 10.0),
        ("FAC2", 8, 10.3),
        ("FAC2", 64, 10.9),
    ],
)
def test_the_published_waste_comes_out(spec, n_workers, published):
    """Hagerup 1997, 524,288 tasks, h = 0.5 s: the mean of 20 runs."""
    waste = mean(wasted_s(spec, 524_288, n_workers, 0.5, seed) for seed in range(20))
    assert waste == pytest.approx(published, rel=0.1)


@pytest.mark.parametrize("n_workers", [2, 5, 40])
def test_bold_asked_ahead_leaves_the_others_their_share(n_workers):
    """Each rank asks for its next chunk before any has done anything."""
    sizer = sizer_of("BOLD:mu=1,sigma=1,h=0.5", 100_000, n_workers)
    remaining, had = 100_000, Counter()
    for _ in range(2):
        for rank in range(n_workers):
            size = sizer.next_size(remaining, rank)
            remaining -= size
            had[rank] += size
    assert max(had.values()) <= 100_000 / n_workers


# ---------------------------------------------------------------------- nonsense

seconds = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1e9) | st.just(0.0)
samples = st.builds(Sample, st.integers(-5, 40), st.integers(-1, 10**6), seconds, seconds, seconds)
requests = st.tuples(st.integers(-5, 40), st.integers(1, 10**6))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(LEARNING),
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.lists(samples | requests, max_size=60),
)
def test_no_sample_makes_a_size_that_is_none(name, n_blocks, n_workers, happenings):
    sizer = sizer_of(name, n_blocks, n_workers)
    for happening in happenings:
        if isinstance(happening, Sample):
            sizer.learn(happening)
        else:
            rank, remaining = happening
            size = sizer.next_size(remaining, rank)
            assert type(size) is int
            assert 1 <= size <= remaining


@pytest.mark.parametrize("name", [*AWF, "AF"])
@pytest.mark.parametrize("nonsense_s", [nan, inf, -inf, -1.0, 1e300])
def test_a_sample_that_cannot_be_true_is_left_out(name, nonsense_s):
    told, untold = sizer_of(name, 10_000, 2), sizer_of(name, 10_000, 2)
    for sizer in (told, untold):
        for rank in (1, 2):
            sizer.next_size(10_000, rank)
            sizer.learn(sample(rank, [1.0, 2.0, 3.0]))
    told.learn(Sample(1, 5, nonsense_s, nonsense_s, nonsense_s, nonsense_s))
    told.learn(Sample(1, 0, 1.0, 1.0, 1.0))
    assert [told.next_size(9000, rank) for rank in (1, 2)] == [
        untold.next_size(9000, rank) for rank in (1, 2)
    ]


@pytest.mark.parametrize("name", [*AWF, "AF"])
def test_one_wild_sample_is_forgotten_by_the_sums(name):
    """A block that seemed to take no time at all, then a thousand ordinary ones."""
    sizer = sizer_of(name, 10**6, 3)
    sizer.learn(sample(1, [0.0]))
    for _ in range(1000):
        for rank in (1, 2, 3):
            sizer.learn(sample(rank, [1.0, 1.5]))
    sizes = [sizer.next_size(600_000, rank) for rank in (1, 2, 3)]
    assert max(sizes) <= 1.01 * min(sizes)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(LEARNING),
    st.integers(0, 5000),
    st.dictionaries(st.integers(0, 100), st.sampled_from([0.01, 0.5, 1.0, 100.0]), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.1, 10.0]),
)
def test_a_run_of_any_ranks_ends_and_hands_out_every_block_once(name, n_blocks, speeds, overhead_s):
    done, sizes = drive(sizer_of(name, n_blocks, len(speeds)), n_blocks, speeds, overhead_s)
    assert sum(done.values()) == n_blocks
    assert all(size >= 1 for _, size in sizes)
