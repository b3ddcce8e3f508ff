"""A trace becomes one history: all clocks on one axis, nothing counted twice, every attempt judged."""

from __future__ import annotations

import numpy as np
import pytest

from mpims.pages.history import read_history
from mpims.pages.outcomes import AttemptOutcome, find_outcomes
from mpims.storage.trace import What
from tests.traces import DONE, event, history, joined, section


def outcomes(its) -> dict[int, AttemptOutcome]:
    attempts = find_outcomes(its)
    return {int(one["attempt"]): AttemptOutcome(one["outcome"]) for one in attempts}


# ---------------------------------------------------------------------------- clocks


def test_the_quickest_message_of_a_clock_lays_it_beside_the_masters():
    """Rank 1's clock is 1,000 s ahead; its messages took 0.25 s and none, as far as anybody can tell."""
    its = history(
        section(
            *joined(1),
            parts=[(1, 1, 0, 10, 1.0, 1002.0, 2.25), (1, 2, 10, 20, 1.0, 1004.0, 4.0)],
        )
    )
    assert its.parts["ended_s"].tolist() == [2.0, 4.0]
    assert its.parts["started_s"].tolist() == [1.0, 3.0]


def test_ranks_of_one_host_have_one_clock():
    """The only message of rank 2 was slow: rank 1's shows how far the clock is off."""
    parts = [(1, 1, 0, 10, 1.0, 52.0, 2.0), (2, 2, 10, 20, 1.0, 52.0, 2.5)]
    its = history(section(*joined(1, 2), parts=parts))
    assert its.parts["ended_s"].tolist() == [2.0, 2.0]
    apart = history(section(*joined(1), *joined(2, host="there"), parts=parts))
    assert apart.parts["ended_s"].tolist() == [2.0, 2.5]


def test_a_busy_master_does_not_move_a_clock():
    """All results waited for 5 s; but the first chunk was picked up when it was sent."""
    sent = [(1, 1, 0, 10, 1.0), (1, 2, 10, 20, 1.0)]
    parts = [(1, 1, 0, 10, 2.0, 53.0, 8.0), (1, 2, 10, 20, 2.0, 55.0, 10.0)]
    its = history(section(*joined(1, host="there"), sent=sent, parts=parts))
    assert its.parts["started_s"].tolist() == pytest.approx([1.0, 3.0], abs=2e-3)


def test_the_clock_of_the_masters_host_is_the_masters():
    sent = [(1, 1, 0, 10, 1.0)]
    its = history(section(*joined(1), sent=sent, parts=[(1, 1, 0, 10, 2.0, 4.0, 8.0)]))
    assert its.parts[["started_s", "ended_s"]].tolist() == [(2.0, 4.0)]


def test_machines_of_one_name_are_told_apart_by_their_clocks():
    parts = [(1, 1, 0, 10, 1.0, 2.0, 2.0), (2, 2, 10, 20, 1.0, 9002.0, 2.5)]
    its = history(section(*joined(1, 2, host="localhost"), parts=parts))
    assert its.parts["ended_s"].tolist() == [2.0, 2.5]


def test_a_part_without_a_clock_ends_when_it_is_received():
    its = history(section(*joined(1), parts=[(1, 1, 0, 10, 1.0, float("nan"), 3.0)]))
    assert its.parts["ended_s"].tolist() == [3.0]


# -------------------------------------------------------------------------- sections


def test_a_resumed_run_goes_on_where_it_ended():
    first = section(event(What.STOPPING, 15.0), t=10.0, wall=1000.0)
    second = section(event(What.ENDED, 103.0, **DONE), t=100.0, cause="resumed", n_workers=5, wall=90000.0)
    its = history(first, second)
    assert [(s.begin_s, s.end_s, s.n_workers, s.is_whole) for s in its.stretches] == [
        (0.0, 5.0, 2, False),
        (5.0, 8.0, 5, True),
    ]
    assert [h.t for h in its.of(What.BEGAN, What.ENDED)] == [0.0, 5.0, 8.0]
    assert its.status == "done"


def test_a_takeover_is_a_part_of_the_same_stretch_at_its_true_distance():
    first = section(event(What.JOINED, 12.0, rank=1, host="here"), t=10.0, wall=1000.0)
    second = section(event(What.ENDED, 501.0, **DONE), t=500.0, cause="taken over", rank=1, wall=1003.5)
    (stretch,) = history(first, second).stretches
    assert (stretch.begin_s, stretch.end_s, stretch.n_workers) == (0.0, 4.5, 2)


def test_what_is_sent_again_to_the_next_master_counts_once():
    first = section(*joined(1), parts=[(1, 1, 0, 10, 1.0, 1.0, 1.0), (1, 2, 10, 20, 1.0, 2.0, 2.0)])
    again = [(1, 2, 10, 20, 1.0, 2.0, 3.0), (1, 2, 20, 30, 1.0, 3.0, 3.0)]
    its = history(first, section(parts=again, cause="taken over", wall=1002.5))
    assert its.parts["start"].tolist() == [0, 10, 20]
    assert its.parts["received_s"].tolist() == [1.0, 2.0, 5.5]
    assert its.parts["ended_s"].tolist() == [1.0, 2.0, 3.0]  # as its clock says, however late it came


def test_the_first_delivery_of_an_item_counts():
    parts = [
        (1, 1, 0, 10, 1.0, 1.0, 1.0),
        (2, 2, 5, 15, 1.0, 2.0, 2.0),
        (1, 3, 0, 20, 1.0, 3.0, 3.0),
        (1, 4, 20, 30, 1.0, 4.0, 4.0),
    ]
    its = history(section(*joined(1, 2), parts=parts))
    assert its.parts["n_fresh"].tolist() == [10, 5, 5, 10]
    assert its.n_done == 30


def test_a_skipped_item_is_not_delivered_though_its_block_is():
    parts = [(1, 1, 10, 20, 1.0, 1.0, 1.0), (2, 2, 0, 10, 1.0, 2.0, 2.0), (1, 3, 15, 20, 1.0, 3.0, 3.0)]
    skipped = [event(What.SKIPPED, 1.0, rank=1, item=item, n_tries=3) for item in (17, 3, 17, 25)]
    its = history(section(*joined(1, 2), *skipped, parts=parts), n_items=21, block=5)
    assert (its.n_done, its.n_skipped, its.n_blocks) == (18, 3, 5)
    assert history(section(*joined(1, 2), *skipped)).n_done == 0


@pytest.mark.parametrize(
    ("ending", "status"), [([], "unfinished"), ([event(What.ENDED, 9.0, **DONE)], "done")]
)
def test_a_run_without_an_end_goes_on_or_was_killed(ending, status):
    assert history(section(*ending, parts=[(1, 1, 0, 10, 1.0, 1.0, 1.0)])).status == status


def test_the_hand_out_of_each_part_is_found():
    sent = [(2, 7, 10, 20, 0.5), (1, 3, 0, 10, 0.25)]
    parts = [(1, 3, 0, 10, 1.0, 2.0, 2.0), (1, 99, 30, 40, 1.0, 3.0, 3.0), (2, 7, 10, 20, 1.0, 4.0, 4.0)]
    its = history(section(sent=sent, parts=parts))
    assert its.parts["sent_s"][[0, 2]].tolist() == [0.25, 0.5]
    assert np.isnan(its.parts["sent_s"][1])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(Exception, match="no run in"):
        read_history(tmp_path)


# -------------------------------------------------------------------------- outcomes


def test_what_became_of_attempts_in_an_ordinary_run():
    its = history(
        section(
            *joined(1, 2),
            event(What.RECALLED, 2.0, rank=1, attempt=3),
            event(What.TRIMMED, 2.0, rank=2, attempt=2, stop=15),
            event(What.ENDED, 5.0, **DONE),
            sent=[
                (1, 1, 0, 10, 0.0),
                (2, 2, 10, 20, 0.0),
                (1, 3, 20, 30, 0.0),
                (1, 4, 15, 30, 2.0),
                (2, 5, 15, 30, 3.0),
                (2, 6, 15, 30, 3.0),
            ],
            parts=[
                (1, 1, 0, 10, 1.0, 1.0, 1.0),
                (2, 2, 10, 15, 1.0, 2.0, 2.0),
                (1, 4, 15, 30, 1.0, 4.0, 4.0),
                (2, 5, 15, 30, 1.0, 5.0, 5.0),
            ],
        )
    )
    assert outcomes(its) == {
        1: AttemptOutcome.DONE,
        2: AttemptOutcome.PART,
        3: AttemptOutcome.RECALLED,
        4: AttemptOutcome.DONE,
        5: AttemptOutcome.DUPLICATE,
        6: AttemptOutcome.DROPPED,
    }


def test_what_became_of_attempts_when_ranks_die_fall_silent_and_fail():
    its = history(
        section(
            *joined(1, 2, 3),
            event(What.RECALLED, 0.5, rank=1, attempt=9),
            event(What.LOST, 1.5, rank=1),
            event(What.SUSPECT, 1.5, rank=2),
            event(What.FAILED, 2.0, rank=3, attempt=7, start=60, stop=61, reason="no"),
            event(What.ENDED, 9.0, **DONE),
            sent=[
                (1, 1, 0, 10, 0.0),
                (1, 2, 10, 20, 0.0),
                (2, 3, 20, 30, 0.0),
                (2, 4, 30, 40, 0.0),
                (2, 5, 40, 50, 0.0),
                (3, 6, 50, 60, 0.0),
                (3, 7, 60, 70, 0.0),
                (1, 9, 90, 99, 0.0),
            ],
            parts=[
                (1, 1, 0, 10, 1.0, 1.0, 1.0),
                (1, 2, 10, 12, 0.1, 1.2, 1.2),
                (2, 3, 20, 30, 1.0, 1.0, 1.0),
                (2, 4, 30, 40, 1.0, 4.0, 4.0),
                (3, 6, 50, 60, 1.0, 1.0, 1.0),
            ],
        )
    )
    assert outcomes(its) == {
        1: AttemptOutcome.DONE,
        2: AttemptOutcome.LOST,
        3: AttemptOutcome.DONE,
        4: AttemptOutcome.LATE,
        5: AttemptOutcome.TIMED_OUT,
        6: AttemptOutcome.DONE,
        7: AttemptOutcome.FAILED,
        9: AttemptOutcome.RECALLED,
    }


def test_what_is_under_way_is_open_while_the_run_goes_on():
    sent = [(1, 1, 0, 10, 0.0), (1, 2, 10, 20, 0.0)]
    parts = [(1, 1, 0, 10, 1.0, 1.0, 1.0)]
    assert outcomes(history(section(sent=sent, parts=parts)))[2] is AttemptOutcome.OPEN
    ended = event(What.ENDED, 2.0, status="stopped", reason="")
    assert outcomes(history(section(ended, sent=sent, parts=parts)))[2] is AttemptOutcome.DROPPED


def test_an_attempt_whose_hand_out_is_not_on_record_is_as_long_as_what_came():
    (attempt,) = find_outcomes(history(section(parts=[(1, 8, 4, 6, 0.5, 1.0, 1.5)])))
    assert (attempt["start"], attempt["stop"], attempt["outcome"]) == (4, 6, AttemptOutcome.DONE)
    assert np.isnan(attempt["sent_s"])
    assert (attempt["started_s"], attempt["received_s"], attempt["busy_s"]) == (1.0, 1.5, 0.5)
