"""What simulated items cost: the distributions, the sums of ranges, and what a trace tells."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from mpims.errors import UsageError
from mpims.simulator.costs import (
    MAX_BLOCKS,
    MAX_ITEMS,
    Costs,
    Distribution,
    Shape,
    check_size,
    draw_costs,
    trace_costs,
)
from mpims.storage.trace import PART


def random(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def parts(*rows: tuple[int, int, float, float]) -> np.ndarray:
    """Delivered parts of rank 1, from start, stop, busy_s and squares_s2."""
    return np.array(
        [(1, i, a, b, busy, 0, squares, 2e-5, 0, 0) for i, (a, b, busy, squares) in enumerate(rows)], PART
    )


# --------------------------------------------------------------------- distributions


@pytest.mark.parametrize(
    ("shape", "cov"),
    [
        ("exponential", 1.0),
        ("gamma", 0.1),
        ("gamma", 2.0),
        ("uniform", 0.0),
        ("uniform", 0.5),
        ("constant", 0.0),
    ],
)
def test_a_distribution_has_the_mean_and_the_spread_that_were_asked_for(shape, cov):
    times = Distribution.named(shape, 0.02, cov).draw(random(), 200_000)
    assert times.mean() == pytest.approx(0.02, rel=0.02)
    assert times.std() == pytest.approx(0.02 * cov, rel=0.03, abs=1e-12)
    assert times.min() >= 0


def test_the_widest_uniform_distribution_begins_at_zero():
    times = Distribution(Shape.UNIFORM, 1.0, 1 / sqrt(3)).draw(random(), 100_000)
    assert 0 <= times.min() < 1e-3
    assert times.max() == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize("cov", [1e-9, 1e-200])
def test_a_spread_that_no_number_can_show_is_none(cov):
    assert Distribution(Shape.GAMMA, 3.0, cov).draw(random(), 3).tolist() == [3.0] * 3


@pytest.mark.parametrize(
    ("name", "mean_s", "cov", "text"),
    [
        ("normal", 1.0, None, "exponential, gamma, uniform, constant or trace:RUN, found 'normal'"),
        ("gamma", -1.0, None, "--mean wants seconds above 0, found -1"),
        ("gamma", 0.0, None, "--mean wants seconds above 0"),
        ("gamma", float("nan"), None, "--mean wants seconds above 0, found nan"),
        ("gamma", float("inf"), None, "--mean wants seconds above 0, found inf"),
        ("gamma", 1.0, -0.1, "--cov wants a number of at least 0"),
        ("gamma", 1.0, float("nan"), "--cov wants a number of at least 0"),
        ("exponential", 1.0, 0.5, "that of the exponential distribution is 1"),
        ("constant", 1.0, 0.5, "that of the constant distribution is 0"),
        ("uniform", 1.0, 0.6, "would be negative"),
    ],
)
def test_an_impossible_distribution_is_refused_in_one_line(name, mean_s, cov, text):
    with pytest.raises(UsageError) as caught:
        Distribution.named(name, mean_s, cov)
    assert text in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("mean_s", "cov"), [(1.0, 1e6), (1e307, 1.0), (1e308, 1.0)])
def test_times_that_sum_to_nothing_or_to_infinity_are_refused(mean_s, cov):
    with pytest.raises(UsageError, match="take others"):
        draw_costs(Distribution(Shape.GAMMA, mean_s, cov), 100, 1, random())


@pytest.mark.parametrize(
    ("n_items", "block", "text"),
    [
        (0, 1, "--items wants 1 to"),
        (-5, 1, "--items wants 1 to"),
        (MAX_ITEMS + 1, 1, "--items wants 1 to"),
        (10, 0, "--block wants at least 1"),
        (MAX_BLOCKS + 1, 1, "take --block 2 or more"),
    ],
)
def test_an_impossible_size_is_refused(n_items, block, text):
    with pytest.raises(UsageError, match=text):
        check_size(n_items, block)


@pytest.mark.parametrize(
    ("n_items", "block"), [(1, 1), (10, 3), (7, 100), (4_300_000, 1), (9_000_000, 5_000_000)]
)
def test_blocks_are_the_sums_of_their_items(n_items, block):
    """However the items are drawn: they come in slabs of some millions."""
    costs = draw_costs(Distribution(Shape.CONSTANT, 0.5, 0.0), n_items, block, random())
    n_blocks = -(-n_items // block)
    assert costs.n_blocks == n_blocks
    assert costs.prefix[0] == 0
    expected = [0.5 * min(k * block, n_items) for k in (1, n_blocks // 2, n_blocks)]
    assert [costs.prefix[k] for k in (1, n_blocks // 2, n_blocks)] == pytest.approx(expected)


def test_the_sums_of_any_range_are_differences():
    costs = Costs(np.array([1.0, 2.0, 3.0]), 6, 2)
    assert costs.prefix == [0.0, 1.0, 3.0, 6.0]
    assert costs.squares == [0.0, 1.0, 5.0, 14.0]
    assert costs.total_s == 6.0
    assert costs.mean_s == 1.0
    assert costs.sigma_s == pytest.approx(sqrt(2 / 3) / sqrt(2))  # of an item, of which two make a block


# ---------------------------------------------------------------------------- traces


def test_parts_of_one_block_have_their_measured_times():
    trace = parts((4, 6, 0.3, 0.09), (0, 2, 0.1, 0.01), (2, 4, 0.2, 0.04), (6, 7, 0.4, 0.16))
    costs = trace_costs(trace, 7, 2, random())
    assert np.diff(costs.prefix).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_parts_of_several_blocks_keep_their_sum_and_spread():
    n = 50_000
    trace = parts((0, n, 100.0, 2 * 100.0**2 / n), (n, n + 4, 8.0, 16.0))  # cov 1, and equal times
    block_s = np.diff(trace_costs(trace, n + 4, 1, random()).prefix)
    assert block_s[:n].sum() == pytest.approx(100.0)
    assert block_s[:n].std() == pytest.approx(100.0 / n, rel=0.05)
    assert block_s[n:].tolist() == pytest.approx([2.0] * 4)
    assert block_s.min() >= 0


def test_the_first_result_counts_and_what_is_missing_costs_the_mean():
    trace = parts((0, 1, 1.0, 1.0), (0, 1, 9.0, 81.0), (1, 2, 3.0, 9.0))
    assert np.diff(trace_costs(trace, 3, 1, random()).prefix).tolist() == pytest.approx([1.0, 3.0, 2.0])


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        (parts(), "the trace is empty"),
        (parts((0, 9, 1.0, 1.0)), r"a part \[0, 9\), which is not one of 6 items"),
        (parts((1, 2, 1.0, 1.0)), r"a part \[1, 2\)"),
        (parts((2, 2, 1.0, 1.0)), r"a part \[2, 2\)"),
        (parts((0, 2, float("nan"), 1.0)), "it is damaged"),
        (parts((0, 2, -1.0, 1.0)), "it is damaged"),
        (parts((0, 2, 0.0, 0.0)), "it is damaged"),
    ],
)
def test_a_trace_that_cannot_be_is_refused(trace, text):
    with pytest.raises(UsageError, match=text):
        trace_costs(trace, 6, 2, random())


def test_a_run_of_more_blocks_than_can_be_simulated_is_refused():
    trace = parts((0, 2, 1.0, 1.0))
    with pytest.raises(UsageError, match="has 1,000,000,000,000 blocks, more than the 50,000,000"):
        trace_costs(trace, 2 * 10**12, 2, random())
