"""How long a rank with work may be silent."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.deadlines import FACTOR, FLOOR_S, Deadlines

durations = st.floats(0.0, 1e6)


def test_nothing_is_known_before_the_first_block():
    deadlines = Deadlines()
    assert deadlines.allowance_s is None


def test_the_users_limit_holds_from_the_start():
    deadlines = Deadlines(0.5)
    assert deadlines.allowance_s == 0.5


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 1e6), st.lists(durations))
def test_the_users_limit_is_never_learnt_away(timeout_s, blocks):
    deadlines = Deadlines(timeout_s)
    for longest_block_s in blocks:
        deadlines.learn(longest_block_s)
    assert deadlines.allowance_s == timeout_s


@settings(max_examples=100, deadline=None)
@given(st.lists(durations, min_size=1))
def test_a_learnt_limit_is_a_multiple_of_the_longest_block_and_has_a_floor(blocks):
    deadlines = Deadlines()
    seen = []
    for longest_block_s in blocks:
        deadlines.learn(longest_block_s)
        seen.append(deadlines.allowance_s)
    assert seen[-1] == max(FLOOR_S, FACTOR * max(blocks))
    assert seen == sorted(seen)


def test_blocks_too_short_to_be_measured_teach_the_floor():
    deadlines = Deadlines()
    deadlines.learn(0.0)
    assert deadlines.allowance_s == FLOOR_S
