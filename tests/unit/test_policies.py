"""The self-scheduling techniques: their published rows, and the laws that hold for all of them."""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import ceil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpims.core.policies import (
    DEFAULT_POLICY,
    POLICIES,
    ChunkSelfScheduling,
    Factoring2,
    Sizer,
    chunk_sizes,
    parse_policy,
)

names = st.sampled_from(sorted(POLICIES))
counts = st.integers(0, 3000)
workers = st.integers(1, 80)


def sizes_of(name, n_blocks, n_workers, size=None, minimum=1, maximum=None):
    return chunk_sizes(Sizer(POLICIES[name](n_blocks, n_workers, size), minimum, maximum))


# ------------------------------------------------------------------ worked rows

GSS_ROW = [250, 188, 141, 106, 79, 59, 45, 33, 25, 19, 14, 11, 8, 6, 4, 3, 3, 2, 1, 1, 1, 1]
GSS_ROW_MINIMUM_10 = [250, 188, 141, 106, 79, 59, 45, 33, 25, 19, 14, 11, 10, 10, 10]
FAC2_ROW = [size for size in (125, 63, 31, 16, 8, 4, 2) for _ in range(4)] + [1] * 4


@pytest.mark.parametrize(
    ("name", "size", "minimum", "row"),
    [
        ("STATIC", None, 1, [250] * 4),
        ("SS", None, 1, [1] * 1000),
        ("CSS", 120, 1, [120] * 8 + [40]),
        ("GSS", None, 1, GSS_ROW),
        ("GSS", None, 10, GSS_ROW_MINIMUM_10),
        ("FAC2", None, 1, FAC2_ROW),
    ],
)
def test_the_worked_rows_of_a_thousand_blocks_for_four_workers(name, size, minimum, row):
    assert sizes_of(name, 1000, 4, size, minimum) == row


# ------------------------------------------------------------------- laws of all


@settings(max_examples=300, deadline=None)
@given(names, counts, workers, st.integers(1, 500), st.integers(1, 60), st.none() | st.integers(1, 60))
@example("TSS", 1, 1, 1, 1, None)
@example("FAC2", 3, 80, 1, 1, None)
def test_every_block_is_handed_out_once_whatever_the_limits(
    name, n_blocks, n_workers, size, minimum, maximum
):
    sizes = sizes_of(name, n_blocks, n_workers, size, minimum, maximum)
    assert sum(sizes) == n_blocks
    assert all(size >= 1 for size in sizes)


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("n_workers", [1, 2, 3, 4, 7, 64, 1000])
def test_no_remainder_is_lost_for_any_small_number_of_blocks(name, n_workers):
    for n_blocks in range(40):
        sizes = sizes_of(name, n_blocks, n_workers, 3)
        assert sum(sizes) == n_blocks
        assert 0 not in sizes


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_blocks_make_no_chunks_and_one_block_makes_one(name):
    for n_workers in (1, 5):
        assert sizes_of(name, 0, n_workers, 3) == []
        assert sizes_of(name, 1, n_workers, 3) == [1]


@settings(max_examples=200, deadline=None)
@given(names, counts, workers, st.integers(1, 100), st.integers(0, 100))
def test_the_limits_hold_but_for_the_last_chunk(name, n_blocks, n_workers, minimum, above):
    maximum = minimum + above
    sizes = sizes_of(name, n_blocks, n_workers, 7, minimum, maximum)
    assert all(minimum <= size <= maximum for size in sizes[:-1])
    assert all(size <= maximum for size in sizes[-1:])


@settings(max_examples=100, deadline=None)
@given(names, counts, workers)
def test_the_same_requests_get_the_same_sizes(name, n_blocks, n_workers):
    assert sizes_of(name, n_blocks, n_workers, 9) == sizes_of(name, n_blocks, n_workers, 9)


@settings(max_examples=100, deadline=None)
@given(names, st.integers(1, 500), workers, st.lists(st.integers(1, 500), max_size=40))
def test_blocks_that_come_back_are_handed_out_too(name, n_blocks, n_workers, remainders):
    """Ranges are reissued: what remains may grow, and requests may outnumber the plan's."""
    sizer = Sizer(POLICIES[name](n_blocks, n_workers, 5))
    for remaining in remainders:
        assert 1 <= sizer.next_size(remaining) <= remaining


# ----------------------------------------------------------------- laws of single ones


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers)
def test_static_gives_each_worker_at_most_one_chunk(n_blocks, n_workers):
    sizes = sizes_of("STATIC", n_blocks, n_workers)
    assert len(sizes) <= n_workers
    assert set(sizes[:-1]) <= {ceil(n_blocks / n_workers)}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), workers)
def test_gss_gives_the_share_of_what_remains(n_blocks, n_workers):
    sizes = sizes_of("GSS", n_blocks, n_workers)
    given_before = [0, *accumulate(sizes)]
    assert sizes == [ceil((n_blocks - before) / n_workers) for before in given_before[:-1]]


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


def test_tss_of_a_thousand_blocks_for_four_workers():
    # f = 125, n = 16, d = 124/15: the boundaries are round(125 n - d n (n - 1) / 2).
    assert sizes_of("TSS", 1000, 4) == [125, 117, 108, 100, 92, 84, 75, 68, 58, 51, 42, 34, 26, 18, 2]


def test_a_size_of_none_is_one_block():
    assert ChunkSelfScheduling(5, 2).propose(5) == 1


# ------------------------------------------------------------------------ parsing


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("FAC2", (Factoring2, None)),
        ("fac2", (Factoring2, None)),
        ("CSS:1", (ChunkSelfScheduling, 1)),
        ("css:100", (ChunkSelfScheduling, 100)),
    ],
)
def test_a_policy_is_found_by_its_name_in_either_case(spec, expected):
    assert parse_policy(spec) == expected


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_is_found_and_says_where_it_is_from(name):
    policy, size = parse_policy(f"{name}:7" if POLICIES[name].takes_size else name)
    assert policy.name == name
    assert policy.source
    assert size == (7 if policy.takes_size else None)


def test_the_default_is_one_of_them():
    assert parse_policy(DEFAULT_POLICY)[1] is None


@pytest.mark.parametrize(
    ("spec", "nearest"), [("GS", "GSS"), ("fac", "FAC2"), ("STATTIC", "STATIC"), ("TTS", "TSS")]
)
def test_an_unknown_policy_is_answered_with_the_list_and_the_nearest(spec, nearest):
    with pytest.raises(ValueError, match="no policy") as caught:
        parse_policy(spec)
    text = str(caught.value)
    assert repr(spec) in text
    assert ", ".join(POLICIES) in text
    assert text.endswith(f"did you mean {nearest}?")


@pytest.mark.parametrize("spec", ["", "quixotic", ":5", "GSS,FAC2 "])
def test_what_is_near_to_nothing_gets_the_list_alone(spec):
    with pytest.raises(ValueError, match="there are STATIC, SS, CSS, GSS, TSS, FAC2"):
        parse_policy(spec)


@pytest.mark.parametrize("spec", ["GSS:5", "FAC2:", "SS:1"])
def test_a_policy_without_a_size_takes_none(spec):
    with pytest.raises(ValueError, match="takes no size, found") as caught:
        parse_policy(spec)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("spec", ["CSS:0", "CSS:-3", "CSS:x", "CSS:", "CSS:1.5", "CSS:1:2", "CSS:²"])
def test_a_size_must_be_a_positive_integer(spec):
    with pytest.raises(ValueError, match=r"needs a chunk size in items, found .*: write CSS:100") as caught:
        parse_policy(spec)
    assert repr(spec) in str(caught.value)


def test_a_missing_size_is_said_to_be_missing():
    with pytest.raises(ValueError, match="needs a chunk size in items, it has none: write CSS:100"):
        parse_policy("CSS")
