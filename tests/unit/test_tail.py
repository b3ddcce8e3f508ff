"""What is expected of the attempts under way, and what of them an idle rank takes over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.ledger import Attempt
from mpims.core.tail import Running, cut, expect, gains

attempts = st.builds(
    lambda first, n_blocks, block, missing: (
        Attempt(1, 3, first * block, (first + n_blocks) * block - min(missing, block - 1)),
        n_blocks,
        block,
    ),
    st.integers(0, 50),
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(0, 6),  # items that the last block lacks
)
times = st.floats(1e-3, 1e3)


def running(n_open, n_blocks, block=1, missing=0):
    """An attempt of so many blocks, of which so many are expected to be left."""
    return Running(Attempt(1, 3, 100 * block, (100 + n_open) * block - missing), n_blocks, 1.0)


# --------------------------------------------------------------------------- expect


def test_before_a_word_all_is_left():
    attempt = Attempt(1, 3, 0, 10)
    assert expect(attempt, 1, 2.0, silent_s=0.0) == Running(attempt, 10, 20.0)


def test_silence_is_time_spent_on_blocks():
    attempt = Attempt(1, 3, 4, 10)
    assert expect(attempt, 1, 2.0, silent_s=6.0) == Running(attempt, 3, 6.0)


def test_the_last_block_counts_as_one_until_it_is_done():
    attempt = Attempt(1, 3, 9, 10)
    assert expect(attempt, 1, 2.0, silent_s=1.5) == Running(attempt, 1, 0.5)


def test_a_block_that_is_cut_counts_as_one():
    attempt = Attempt(1, 3, 20, 45)
    assert expect(attempt, 10, 2.0, silent_s=0.0) == Running(attempt, 3, 6.0)


def test_what_is_overdue_takes_as_long_again_and_nothing_of_it_is_surely_done():
    attempt = Attempt(1, 3, 6, 10)
    assert expect(attempt, 1, 1.0, silent_s=4.0) == Running(attempt, 4, 4.0)
    assert expect(attempt, 1, 1.0, silent_s=9.0) == Running(attempt, 4, 9.0)


@settings(max_examples=200, deadline=None)
@given(attempts, times, st.floats(0, 1e4))
def test_between_one_and_all_blocks_are_left(made, block_s, silent_s):
    attempt, n_open, block = made
    left = expect(attempt, block, block_s, silent_s)
    assert left.attempt is attempt
    assert 1 <= left.n_blocks <= n_open * (1 + 1e-12)
    assert left.left_s > 0


@settings(max_examples=200, deadline=None)
@given(attempts, times, st.floats(0, 1e4), st.floats(0, 1e4))
def test_more_silence_leaves_less_until_it_is_overdue_and_then_more(made, block_s, a, b):
    attempt, n_open, block = made
    less, more = sorted((a, b))
    early, late = (expect(attempt, block, block_s, silent_s).left_s for silent_s in (less, more))
    if more < n_open * block_s:
        assert late <= early
    elif less >= n_open * block_s:
        assert late >= early


# ------------------------------------------------------------------------------ cut


@pytest.mark.parametrize(
    ("n_open", "n_blocks", "n_moved"),
    [(10, 10.0, 5), (10, 9.0, 4), (10, 2.0, 1), (10, 1.5, 1), (10, 1.0, 1), (2, 1.0, 1), (3, 3.0, 1)],
)
def test_half_of_what_is_left_is_moved_and_at_least_a_block(n_open, n_blocks, n_moved):
    assert cut(running(n_open, n_blocks), 1) == 100 + n_open - n_moved


def test_one_block_cannot_be_cut():
    assert cut(running(1, 1.0), 1) is None
    assert cut(running(1, 1.0, block=10), 10) is None
    assert cut(running(1, 1.0, block=10, missing=7), 10) is None


def test_a_cut_counts_whole_blocks_though_the_last_is_short():
    assert cut(running(3, 3.0, block=10, missing=5), 10) == 1020
    assert cut(running(2, 2.0, block=10, missing=9), 10) == 1010


@settings(max_examples=200, deadline=None)
@given(attempts, times, st.floats(0, 1e4))
def test_both_parts_of_a_cut_are_whole_blocks_and_the_owner_keeps_what_it_is_at(made, block_s, silent_s):
    attempt, n_open, block = made
    left = expect(attempt, block, block_s, silent_s)
    at = cut(left, block)
    if n_open == 1:
        assert at is None
        return
    assert attempt.start < at < attempt.stop
    assert at % block == 0
    n_moved = n_open - (at - attempt.start) // block
    assert n_moved <= max(1.0, left.n_blocks / 2)
    assert n_moved > left.n_blocks / 2 - 1


# ---------------------------------------------------------------------------- gains


@pytest.mark.parametrize(
    ("left_s", "block_s", "is_gain"), [(2.0, 1.0, True), (1.0, 1.0, False), (0.5, 1.0, False)]
)
def test_it_gains_if_the_idle_rank_would_be_done_before(left_s, block_s, is_gain):
    assert gains(Running(Attempt(1, 3, 0, 1), 1, left_s), block_s) is is_gain


@settings(max_examples=100, deadline=None)
@given(times, st.floats(0, 1))
def test_a_healthy_last_block_is_never_worth_a_second_computing(block_s, fraction):
    """Ranks of one speed: a block that takes what blocks take is over before a second one would be."""
    attempt = Attempt(1, 3, 0, 1)
    assert not gains(expect(attempt, 1, block_s, fraction * block_s), block_s)


@settings(max_examples=100, deadline=None)
@given(times, st.floats(1.001, 100))
def test_one_that_takes_longer_is(block_s, factor):
    attempt = Attempt(1, 3, 0, 1)
    assert gains(expect(attempt, 1, block_s, factor * block_s), block_s)
