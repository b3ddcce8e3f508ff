"""The self-scheduling techniques: their published rows, and the laws that hold for all of them."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise
from math import ceil, floor, log, sqrt

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mpims.core.policies import POLICIES, Sample, Sizer, chunk_sizes, parse_policy

names = st.sampled_from(sorted(POLICIES))
counts = st.integers(0, 3000)
workers = st.integers(1, 80)


def sizer_of(spec, n_blocks, n_workers, minimum=1, maximum=None):
    """A policy with its limits; one that needs parameters and is named only gets an example of them."""
    text = POLICIES[spec].example(n_workers) if spec in POLICIES else spec
    return Sizer(parse_policy(text).make(n_blocks, n_workers), minimum, maximum)


def sizes_of(spec, n_blocks, n_workers, minimum=1, maximum=None):
    return chunk_sizes(sizer_of(spec, n_blocks, n_workers, minimum, maximum))


def equal(*runs):
    """``equal((2, 5), (1, 3))`` is [5, 5, 3]."""
    return [size for count, size in runs for _ in range(count)]


@st.composite
def specs(draw, n_workers):
    """A technique with any parameters in their ranges."""
    technique = POLICIES[draw(names)]
    texts = {}
    for parameter in technique.parameters:
        if parameter.name == "size":
            texts["size"] = str(draw(st.integers(1, 5000)))
        elif parameter.name == "weights":
            number = st.floats(parameter.least, parameter.most)
            texts["weights"] = "/".join(
                map(repr, draw(st.lists(number, min_size=n_workers, max_size=n_workers)))
            )
        elif parameter.default is None or draw(st.booleans()):
            texts[parameter.name] = repr(draw(st.floats(parameter.least, parameter.most)))
    given_ = ",".join(f"{name}={text}" for name, text in texts.items())
    return f"{technique.name}:{given_}" if given_ else technique.name


# ------------------------------------------------------------------ worked rows

GSS_ROW = [250, 188, 141, 106, 79, 59, 45, 33, 25, 19, 14, 11, 8, 6, 4, 3, 3, 2, 1, 1, 1, 1]
GSS_ROW_MINIMUM_10 = [250, 188, 141, 106, 79, 59, 45, 33, 25, 19, 14, 11, 10, 10, 10]
FAC2_ROW = equal(*((4, size) for size in (125, 63, 31, 16, 8, 4, 2, 1)))
WF_END = [16, 8, 4, 4, 8, 4, 2, 2, 4, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("spec", "minimum", "row"),
    [
        ("STATIC", 1, equal((4, 250))),
        ("SS", 1, equal((1000, 1))),
        ("CSS:120", 1, [*equal((8, 120)), 40]),
        ("GSS", 1, GSS_ROW),
        ("GSS", 10, GSS_ROW_MINIMUM_10),
        ("FAC2", 1, FAC2_ROW),
        # f = 125, n = 16, d = 124 / 15: the boundaries are round(125 n - d n (n - 1) / 2).
        ("TSS", 1, [125, 117, 108, 100, 92, 84, 75, 68, 58, 51, 42, 34, 26, 18, 2]),
        # The middles of TSS's batches of four: 125 - d (1.5, 5.5, 9.5, 13.5) = 112.6, 79.5, 46.5, 13.4.
        ("TFSS", 1, [*equal((4, 113), (4, 80), (4, 47), (2, 14)), 12]),
        # sqrt(2) 1000 0.1 / (4 sqrt(ln 4)) = 30.03; 30.03 ** (2 / 3) = 9.66.
        ("FSC:h=0.1,sigma=1", 1, equal((100, 10))),
        # t = 250: 0.55 + 250 ln 2 / ln 250 = 0.55 + 173.287 / 5.5215 = 31.93.
        ("mFSC", 1, [*equal((32, 31)), 8]),
        # No spread: the first batch is R / P for each, all there is.
        ("FAC:mu=1,sigma=0", 1, equal((4, 250))),
        # b = 1 / sqrt(250): x_0 = 1.0935, 228.6. Of 84: b**2 = 1 / 21, x_1 = 2.4866, 8.4; of 48: 1 / 12,
        # 2.6667, 4.5; of 28: 1 / 7, 2.9121, 2.4; of 16: 1 / 4, 3.2808, 1.2; of 8: below 1.
        (
            "FAC:mu=2,sigma=2",
            1,
            equal((4, 229), (4, 9), (4, 5), (4, 3), (4, 2), (8, 1)),
        ),
        # v = 2 and T = 250: 250 + 2 - 2 sqrt(501) = 207.23.
        # With T = 198: 160.2; with 157.75: 124.2; with 126.5: 96.6.
        ("TAP:mu=2,sigma=4,alpha=1", 100, [208, 161, 125, *equal((5, 100)), 6]),
        # B = 3: floor(1000 / 20) = 50, floor(2000 (1 - 3 / 5) / 24) = 33.
        ("FISS", 1, equal((4, 50), (4, 83), (4, 116), (1, 4))),
        # floor(1000 / 16) = 62; 62 (1.5, 1.75, 1.875) = 93, 108.5, 116.25.
        ("VISS", 1, equal((4, 62), (4, 93), (3, 108), (1, 56))),
        # 4 x 1000 0.4 / 4, then a quarter of what remains of 600.
        ("PLS:0.4", 40, [*equal((4, 100)), 150, 113, 85, 63, 48, 40, 40, 40, 21]),
        # The weights are 2, 1, 0.5, 0.5 of their mean: of 125, then ceil(499 / 8) = 63, ceil(246 / 8) = 31,
        # ceil(121 / 8) = 16, ceil(57 / 8) = 8, ceil(25 / 8) = 4 and ceil(9 / 8) = 2.
        (
            "WF:4/2/1/1",
            1,
            [250, 125, 63, 63, 126, 63, 32, 32, 62, 31, *equal((2, 16)), 32, 16, 8, 8, *WF_END],
        ),
    ],
)
def test_the_worked_rows_of_a_thousand_blocks_for_four_workers(spec, minimum, row):
    assert sum(row) == 1000
    assert sizes_of(spec, 1000, 4, minimum) == row


# ------------------------------------------------------------------- laws of all


@settings(max_examples=400, deadline=None)
@given(st.data(), counts, workers, st.integers(1, 60), st.none() | st.integers(1, 60))
def test_every_block_is_handed_out_once_whatever_the_parameters_and_limits(
    data, n_blocks, n_workers, minimum, maximum
):
    spec = data.draw(specs(n_workers))
    sizes = sizes_of(spec, n_blocks, n_workers, minimum, maximum)
    assert sum(sizes) == n_blocks
    assert all(size >= 1 for size in sizes)


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("n_workers", [1, 2, 3, 4, 7, 64, 1000])
def test_no_remainder_is_lost_for_any_small_number_of_blocks(name, n_workers):
    for n_blocks in range(40):
        sizes = sizes_of(name, n_blocks, n_workers)
        assert sum(sizes) == n_blocks
        assert 0 not in sizes


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_blocks_make_no_chunks_and_one_block_makes_one(name):
    for n_workers in (1, 5):
        assert sizes_of(name, 0, n_workers) == []
        assert sizes_of(name, 1, n_workers) == [1]


@settings(max_examples=200, deadline=None)
@given(names, counts, workers, st.integers(1, 100), st.integers(0, 100))
def test_the_limits_hold_but_for_the_last_chunk(name, n_blocks, n_workers, minimum, above):
    maximum = minimum + above
    sizes = sizes_of(name, n_blocks, n_workers, minimum, maximum)
    assert all(minimum <= size <= maximum for size in sizes[:-1])
    assert all(size <= maximum for size in sizes[-1:])


@settings(max_examples=100, deadline=None)
@given(names, counts, workers)
def test_the_same_requests_get_the_same_sizes(name, n_blocks, n_workers):
    assert sizes_of(name, n_blocks, n_workers) == sizes_of(name, n_blocks, n_workers)


@settings(max_examples=300, deadline=None)
@given(
    st.data(),
    st.integers(1, 500),
    workers,
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 99)), max_size=40),
)
def test_blocks_that_come_back_are_handed_out_too(data, n_blocks, n_workers, requests):
    """Ranges are reissued: what remains may grow, requests may outnumber the plan's, from any rank."""
    sizer = sizer_of(data.draw(specs(n_workers)), n_blocks, n_workers)
    for remaining, rank in requests:
        size = sizer.next_size(remaining, rank)
        assert type(size) is int
        assert 1 <= size <= remaining


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_huge_counts_are_whole_numbers_too(name):
    n_blocks = 10**15 + 1
    sizer = sizer_of(name, n_blocks, 7)
    for remaining in (n_blocks, n_blocks // 3, 10**9 + 7, 1):
        size = sizer.next_size(remaining, 1)
        assert type(size) is int
        assert 1 <= size <= remaining


# ----------------------------------------------------------------- laws of single ones


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers)
def test_static_gives_each_worker_at_most_one_chunk(n_blocks, n_workers):
    sizes = sizes_of("STATIC", n_blocks, n_workers)
    assert len(sizes) <= n_workers
    assert set(sizes[:-1]) <= {ceil(n_blocks / n_workers)}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10_000), st.integers(2, 80), st.floats(1e-6, 10), st.floats(1e-6, 10))
def test_fsc_is_the_formula_and_no_more_than_a_share(n_blocks, n_workers, h, sigma):
    size = sizes_of(f"FSC:h={h},sigma={sigma}", n_blocks, n_workers)[0]
    optimum = (sqrt(2) * n_blocks * h / (sigma * n_workers * sqrt(log(n_workers)))) ** (2 / 3)
    share = ceil(n_blocks / n_workers)
    assert size == share if optimum >= share else abs(size - optimum - 0.5) <= 0.5 + 1e-6


@pytest.mark.parametrize(("spec", "n_workers"), [("FSC:h=1,sigma=0", 4), ("FSC:h=1,sigma=2", 1)])
def test_fsc_without_spread_or_company_shares_equally(spec, n_workers):
    assert sizes_of(spec, 1000, n_workers) == sizes_of("STATIC", 1000, n_workers)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**6), workers)
def test_mfsc_is_the_formula(n_blocks, n_workers):
    share = ceil(n_blocks / n_workers)
    expected = floor(0.55 + share * log(2) / log(share)) if share > 1 else 1
    assert sizes_of("mFSC", n_blocks, n_workers)[0] == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers)
def test_gss_gives_the_share_of_what_remains(n_blocks, n_workers):
    sizes = sizes_of("GSS", n_blocks, n_workers)
    given_before = [0, *accumulate(sizes)]
    assert sizes == [ceil((n_blocks - before) / n_workers) for before in given_before[:-1]]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers, st.fractions(Fraction(1, 100), 1, max_denominator=100))
def test_pls_shares_a_part_and_guides_the_rest(n_blocks, n_workers, swr):
    assume(float(swr) >= 0.01)
    sizes = sizes_of(f"PLS:{float(swr)!r}", n_blocks, n_workers)
    given_before = [0, *accumulate(sizes)]
    for i, (size, before) in enumerate(zip(sizes, given_before, strict=False)):
        remaining = n_blocks - before
        wanted = ceil(n_blocks * swr / n_workers) if i < n_workers else ceil(Fraction(remaining, n_workers))
        assert size == min(remaining, wanted)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers, st.floats(0.01, 10), st.floats(0.0, 10), st.floats(0.0, 3))
def test_tap_is_gss_less_its_margin(n_blocks, n_workers, mu, sigma, alpha):
    sizes = sizes_of(f"TAP:mu={mu},sigma={sigma},alpha={alpha}", n_blocks, n_workers)
    v = alpha * sigma / mu
    for size, before in zip(sizes, [0, *accumulate(sizes)], strict=False):
        share = (n_blocks - before) / n_workers
        wanted = share + v**2 / 2 - v * sqrt(2 * share + v**2 / 4)
        assert size == 1 if wanted <= 1 else wanted - 1e-6 <= size < wanted + 1 + 1e-6
    if v == 0:
        assert sizes == sizes_of("GSS", n_blocks, n_workers)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers)
def test_fac2_gives_half_of_what_remains_in_batches_of_equal_chunks(n_blocks, n_workers):
    sizes = sizes_of("FAC2", n_blocks, n_workers)
    remaining = n_blocks
    for first in range(0, len(sizes), n_workers):
        batch = sizes[first : first + n_workers]
        chunk = ceil(remaining / (2 * n_workers))
        assert set(batch[:-1]) <= {chunk}
        assert batch[-1] <= chunk
        remaining -= sum(batch)
    assert sizes == sorted(sizes, reverse=True)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers, st.floats(0.01, 10), st.floats(0.0, 10))
def test_fac_gives_the_published_part_in_batches_of_equal_chunks(n_blocks, n_workers, mu, sigma):
    sizes = sizes_of(f"FAC:mu={mu},sigma={sigma}", n_blocks, n_workers)
    remaining = n_blocks
    for first in range(0, len(sizes), n_workers):
        batch = sizes[first : first + n_workers]
        b = n_workers * sigma / (2 * mu * sqrt(remaining))
        x = 2 + b**2 + b * sqrt(b**2 + 4) if first else 1 + b**2 + b * sqrt(b**2 + 2)
        wanted = remaining / (x * n_workers)
        assert set(batch[:-1]) <= {batch[0]}
        assert min(remaining, wanted) - 1e-6 <= batch[0] < wanted + 1 + 1e-6
        remaining -= sum(batch)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers)
def test_wf_of_equal_ranks_is_fac2(n_blocks, n_workers):
    weights = "/".join(["0.1"] * n_workers)
    assert sizes_of(f"WF:{weights}", n_blocks, n_workers) == sizes_of("FAC2", n_blocks, n_workers)


def test_wf_takes_a_rank_it_has_no_weight_for_as_the_mean():
    sizer = sizer_of("WF:3/1", 1000, 2)
    assert [sizer.next_size(1000, rank) for rank in (1, 2)] == [375, 125]
    assert [sizer.next_size(500, rank) for rank in (0, 9)] == [125, 125]


def test_a_batch_of_wf_ends_sooner_if_fast_ranks_ask_more_often():
    sizer = sizer_of("WF:3/1", 1000, 2)
    # 1000 / 4 times 1.5 twice: 3 of the batch's 2 shares are gone, and the next is of 250 / 4 = 63.
    assert [sizer.next_size(remaining, 1) for remaining in (1000, 625, 250)] == [375, 375, 95]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**6), st.integers(3, 80))
def test_fiss_grows_by_the_same_step_and_fills_its_batches(n_blocks, n_workers):
    sizes = sizes_of("FISS", n_blocks, n_workers)
    b = n_workers - 1
    first = floor(Fraction(n_blocks, (2 + b) * n_workers))
    step = floor(2 * n_blocks * (1 - Fraction(b, 2 + b)) / (n_workers * b * (b - 1)))
    for i, size in enumerate(sizes[:-1]):
        assert size == max(1, first + i // n_workers * step)
    if first > 1 and step > b:
        assert b * n_workers <= len(sizes) <= n_workers * (b + 2)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 80))
def test_viss_grows_towards_twice_its_first_size(n_blocks, n_workers):
    sizes = sizes_of("VISS", n_blocks, n_workers)
    first = n_blocks // n_workers**2
    for i, size in enumerate(sizes[:-1]):
        wanted = first * (1 - Fraction(1, 2) ** (i // n_workers + 1)) * 2
        assert size == max(1, floor(wanted))


def ideal_trapezoid(n_blocks, n_workers):
    """Tzen & Ni's sizes as real numbers."""
    first = ceil(n_blocks / (2 * n_workers))
    n_chunks = ceil(2 * n_blocks / (first + 1))
    return [first - i * (first - 1) / (n_chunks - 1) for i in range(n_chunks)]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(3, 200))
def test_tss_follows_the_real_trapezoid_within_one_block(n_workers, chunks_per_worker):
    n_blocks = n_workers * chunks_per_worker * 2
    ideal = ideal_trapezoid(n_blocks, n_workers)
    sizes = sizes_of("TSS", n_blocks, n_workers)
    assert len(sizes) <= len(ideal)  # the trapezoid's area is N or a little more
    pairs = list(zip(sizes[:-1], ideal, strict=False))
    assert all(abs(size - wanted) <= 1 for size, wanted in pairs)
    assert all(later <= size + 1 for size, later in pairwise(sizes))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(3, 200))
def test_tfss_gives_the_means_of_the_trapezoids_batches(n_workers, chunks_per_worker):
    n_blocks = n_workers * chunks_per_worker * 2
    ideal = ideal_trapezoid(n_blocks, n_workers)
    sizes = sizes_of("TFSS", n_blocks, n_workers)
    assert len(sizes) <= ceil(len(ideal) / n_workers) * n_workers
    for i, size in enumerate(sizes[:-1]):
        mean = sum(ideal[i - i % n_workers :][:n_workers]) / n_workers
        assert mean - 1e-6 <= size < mean + 1 + 1e-6


@pytest.mark.parametrize("name", ["TSS", "TFSS"])
def test_past_the_trapezoid_there_are_single_blocks(name):
    sizer = sizer_of(name, 1000, 4)
    sizes = [sizer.next_size(10**6, 1) for _ in range(100)]
    assert sizes[16:] == [1] * 84


@pytest.mark.parametrize(("n_blocks", "n_workers"), [(1000, 16), (1000, 32), (5000, 32), (400, 8)])
def test_tss_sizes_fall_where_an_integer_decrement_would_be_none(n_blocks, n_workers):
    assert n_blocks < 8 * n_workers**2
    sizes = sizes_of("TSS", n_blocks, n_workers)
    first = ceil(n_blocks / (2 * n_workers))
    quarter = len(sizes) // 4
    assert sizes[0] == first
    assert sizes[-2] <= max(2, first // 5)
    assert sum(sizes[-quarter:]) < sum(sizes[:quarter]) / 3
    assert len(set(sizes)) > 0.7 * first


def test_the_sizer_passes_on_what_is_learnt():
    sizer = sizer_of("AF", 1000, 1)
    assert sizer.learns
    before = sizer.next_size(1000, 1)
    sizer.learn(Sample(1, 10, 10.0, 10.0, 10.0))
    assert sizer.next_size(1000, 1) > before
    fixed = sizer_of("GSS", 1000, 1)
    fixed.learn(Sample(1, 10, 10.0, 10.0, 10.0))
    assert not fixed.learns


@pytest.mark.parametrize("name", POLICIES)
def test_a_size_that_is_said_to_be_constant_is(name):
    for minimum, maximum in ((1, None), (5, None), (1, 3), (2, 2)):
        sizer = sizer_of(name, 1000, 4, minimum, maximum)
        constant = sizer.constant
        if constant is not None:
            assert {sizer.next_size(remaining, 1) for remaining in range(300, 1001, 50)} == {constant}
    sizer.room = 1
    assert sizer.constant is None
