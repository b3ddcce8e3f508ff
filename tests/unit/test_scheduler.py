"""The scheduler: exact actions for small scenarios, and its laws in random ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from inspect import isfunction
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.blame import DUBIOUS
from mpims.core.chunks import PLAIN, Assign, Care, Held
from mpims.core.deadlines import FLOOR_S, Deadlines
from mpims.core.desertion import STARTUP_PATIENCE
from mpims.core.dispatch import MOST_COUNTED
from mpims.core.events import (
    ChunkDone,
    ChunkFailed,
    Discard,
    Drain,
    Finish,
    GiveUp,
    Hire,
    MasterAway,
    MasterServed,
    Recall,
    Record,
    Skip,
    Stop,
    StopRequested,
    Tick,
    Trim,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
    WorkerSpoke,
)
from mpims.core.ledger import Ledger
from mpims.core.measures import FAR_LENGTH
from mpims.core.policies import Policy, Sizer, parse_policy
from mpims.core.scheduler import Scheduler
from mpims.core.takeover import Takeover
from mpims.core.workers import Counters

ISOLATED, ITEMWISE = Care.ISOLATED, Care.ITEMWISE


def make(n_items, n_workers, policy="SS", timeout_s=None, block=1, *, done=(), first_attempt=1, **options):
    sizer = Sizer(parse_policy(policy).make(-(-n_items // block), max(1, n_workers)))
    ledger = Ledger(n_items, block, done=done, first_attempt=first_attempt)
    return Scheduler(ledger, sizer, Deadlines(timeout_s), n_workers, **options)


def make_with_sizes(sizes, timeout_s=None, **options):
    """A scheduler of blocks of one item, with a rank and a first chunk of that size for each."""
    sizer = Sizer(Scripted(*sizes))
    return Scheduler(Ledger(sum(sizes), 1), sizer, Deadlines(timeout_s), len(sizes), **options)


class Scripted(Policy):
    """Sizes from a list, then 1."""

    name = "SCRIPTED"
    source = "this test"

    def __init__(self, *sizes):
        super().__init__(0, 1)
        self.sizes = list(sizes)

    def propose(self, remaining, rank):
        return self.sizes.pop(0) if self.sizes else 1


def join(scheduler, *ranks, now=0.0):
    return [action for rank in ranks for action in scheduler.handle(WorkerJoined(rank), now)]


def done(scheduler, rank, attempt, start, stop, now=1.0, units=None, block_s=0.1):
    n_blocks = -(-(stop - start) // scheduler.ledger.block)
    event = ChunkDone(rank, attempt, start, stop, n_blocks * block_s, block_s, units)
    return scheduler.handle(event, now)


def failed(scheduler, rank, attempt, start, stop, now=1.0, reason="boom", final=False):
    return scheduler.handle(ChunkFailed(rank, attempt, start, stop, reason, "Traceback", final), now)


def tick(scheduler, now):
    return scheduler.handle(Tick(), now)


def troubles(scheduler):
    return [(t.start, t.stop, t.care, t.n_failures, set(t.failed_on)) for t in scheduler.ledger.troubles]


def counters(scheduler):
    """The counters that are not 0."""
    return {name: value for name, value in scheduler.counters.by_name().items() if value}


def test_all_counters_are_told_by_name():
    told = Counters().by_name()
    assert {name: 0 for name in dir(Counters()) if name.startswith("n_")} == told


# ------------------------------------------------------------------ joining, feeding


def test_one_chunk_each_until_all_are_there_then_each_its_next():
    scheduler = make(10, 3)
    assert join(scheduler, 2) == [Assign(2, 1, 0, 1)]
    assert join(scheduler, 1) == [Assign(1, 2, 1, 2)]
    assert join(scheduler, 3) == [
        Assign(3, 3, 2, 3),
        Assign(2, 4, 3, 4),
        Assign(1, 5, 4, 5),
        Assign(3, 6, 5, 6),
    ]


def test_a_single_worker_gets_two_at_once():
    scheduler = make(10, 1, "CSS:4")
    assert join(scheduler, 1) == [Assign(1, 1, 0, 4), Assign(1, 2, 4, 8)]


def test_a_rank_is_fed_before_its_result_is_recorded():
    scheduler = make(10, 1, "CSS:3")
    join(scheduler, 1)
    assert done(scheduler, 1, 1, 0, 3) == [Assign(1, 3, 6, 9), Record(1, ((0, 3),))]


def test_the_front_of_a_chunk_is_recorded_and_its_rest_stays_out():
    scheduler = make(10, 1, "CSS:4")
    join(scheduler, 1)
    assert done(scheduler, 1, 1, 0, 1) == [Record(1, ((0, 1),))]
    assert done(scheduler, 1, 1, 1, 3) == [Record(1, ((1, 3),))]
    assert done(scheduler, 1, 1, 3, 4) == [Assign(1, 3, 8, 10), Record(1, ((3, 4),))]


def test_the_units_of_a_result_are_recorded_one_by_one():
    scheduler = make(10, 1, "CSS:5")
    join(scheduler, 1)
    assert done(scheduler, 1, 1, 0, 5, units=((0, 4), (4, 5))) == [Record(1, ((0, 4), (4, 5)))]


def test_chunks_are_whole_blocks_and_the_last_is_cut():
    scheduler = make(25, 1, "CSS:2", block=10)
    assert join(scheduler, 1) == [Assign(1, 1, 0, 20), Assign(1, 2, 20, 25)]


def test_a_late_joiner_finds_work_that_others_left():
    scheduler = make(6, 2, "CSS:2")
    join(scheduler, 1)
    assert done(scheduler, 1, 1, 0, 2) == [
        Assign(1, 2, 2, 4),
        Assign(1, 3, 4, 6),
        Record(1, ((0, 2),)),
    ]
    assert join(scheduler, 2) == [Recall(1, 3), Assign(2, 4, 4, 6)]


# ----------------------------------------------------------------------------- the end


def test_finish_comes_once_after_the_last_record_and_nothing_after_it():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    assert done(scheduler, 1, 1, 0, 1, block_s=1.0) == [Record(1, ((0, 1),))]
    assert done(scheduler, 2, 2, 1, 2) == [Record(2, ((1, 2),)), Finish()]
    assert scheduler.ended
    assert done(scheduler, 2, 2, 1, 2) == []
    for event in (
        Tick(),
        WorkerLost(1),
        WorkerLost(2),
        WorkerJoined(3),
        ChunkFailed(1, 1, 0, 1, "", ""),
        WorkerSpoke(1),
        WorkerDrained(1),
        MasterAway(1.0),
        MasterServed(1.0),
        StopRequested(1.0),
    ):
        assert scheduler.handle(event, 99.0) == []


def test_an_answer_to_an_overtaken_attempt_can_be_the_last():
    scheduler = make(4, 2, "CSS:4", timeout_s=5.0)
    join(scheduler, 1, 2)
    assert scheduler.handle(Tick(), 5.0) == [Assign(2, 2, 0, 4, ISOLATED)]
    assert done(scheduler, 2, 2, 0, 2, now=6.0) == [Record(2, ((0, 2),))]
    assert done(scheduler, 1, 1, 0, 4, now=7.0) == [Record(1, ((2, 4),)), Discard(1, 2), Finish()]
    assert counters(scheduler)["n_duplicates"] == 2


def test_a_failure_ends_the_run_at_once_if_nothing_is_to_be_tried_again():
    scheduler = make(10, 2, n_retries=0)
    join(scheduler, 1, 2)
    event = ChunkFailed(1, 1, 0, 1, "ZeroDivisionError: division by zero", "Traceback ...")
    assert scheduler.handle(event, 1.0) == [GiveUp(event.reason, event.detail)]
    assert scheduler.ended
    assert done(scheduler, 2, 2, 1, 2) == []


# --------------------------------------------------------------------- idle, recalled


def test_an_idle_rank_gets_what_another_has_not_begun():
    scheduler = make(4, 2)
    assert join(scheduler, 1, 2) == [
        Assign(1, 1, 0, 1),
        Assign(2, 2, 1, 2),
        Assign(1, 3, 2, 3),
        Assign(2, 4, 3, 4),
    ]
    assert done(scheduler, 1, 1, 0, 1) == [Record(1, ((0, 1),))]
    assert done(scheduler, 1, 3, 2, 3) == [Recall(2, 4), Assign(1, 5, 3, 4), Record(3, ((2, 3),))]
    # Nobody holds a chunk that is not begun: rank 2 has nothing to get.
    assert done(scheduler, 2, 2, 1, 2) == [Record(2, ((1, 2),))]
    assert done(scheduler, 1, 5, 3, 4) == [Record(5, ((3, 4),)), Finish()]
    assert counters(scheduler) == {"n_chunks": 5, "n_recalled": 1}


def test_a_recall_that_comes_too_late_does_no_harm():
    scheduler = make(4, 2)
    join(scheduler, 1, 2)
    done(scheduler, 1, 1, 0, 1)
    done(scheduler, 1, 3, 2, 3)  # recalls attempt 4 from rank 2, hands its item out as attempt 5
    assert done(scheduler, 2, 2, 1, 2) == [Record(2, ((1, 2),))]
    assert done(scheduler, 2, 4, 3, 4) == [Record(4, ((3, 4),)), Finish()]


def test_what_two_ranks_computed_counts_once():
    scheduler = make(6, 2, "CSS:2")
    join(scheduler, 1, 2)  # 1: [0, 2) and [4, 6); 2: [2, 4)
    assert done(scheduler, 2, 2, 2, 4, now=2.0, block_s=1.0) == [
        Recall(1, 3),
        Assign(2, 4, 4, 6),
        Record(2, ((2, 4),)),
    ]
    # Rank 1 had begun attempt 3 before the Recall came.
    assert done(scheduler, 1, 1, 0, 2, now=2.0, block_s=1.0) == [
        Trim(2, 4, 5),
        Assign(1, 5, 5, 6),
        Record(1, ((0, 2),)),
    ]
    assert done(scheduler, 1, 3, 4, 5, now=3.0, block_s=1.0) == [Record(3, ((4, 5),))]
    assert done(scheduler, 2, 4, 4, 5, now=3.0, block_s=1.0) == [Discard(4, 1)]
    assert done(scheduler, 1, 5, 5, 6, now=4.0, block_s=1.0) == [Record(5, ((5, 6),)), Finish()]
    assert counters(scheduler) == {"n_chunks": 5, "n_recalled": 1, "n_split": 1, "n_duplicates": 1}


# ------------------------------------------------------------------------- timeouts


def test_there_is_no_deadline_before_anything_is_known():
    scheduler = make(10, 2)
    join(scheduler, 1, 2)
    assert scheduler.next_deadline() is None
    assert scheduler.handle(Tick(), 1e9) == []


def test_the_deadline_of_the_user_is_set_when_work_is():
    scheduler = make(10, 2, timeout_s=5.0)
    assert scheduler.next_deadline() is None
    join(scheduler, 1, now=100.0)
    join(scheduler, 2, now=103.0)
    assert scheduler.next_deadline() == 105.0


def test_a_deadline_is_learnt_from_the_first_result():
    scheduler = make(10, 2)
    join(scheduler, 1, 2, now=100.0)
    done(scheduler, 1, 1, 0, 1, now=107.0, block_s=7.0)
    assert scheduler.next_deadline() == 170.0
    assert scheduler.handle(Tick(), 169.0) == []
    scheduler.handle(Tick(), 170.0)
    assert scheduler.workers[2].suspect
    assert not scheduler.workers[1].suspect
    assert scheduler.next_deadline() == 177.0


def test_a_learnt_deadline_has_a_floor():
    scheduler = make(10, 1)
    join(scheduler, 1, now=0.0)
    done(scheduler, 1, 1, 0, 1, now=0.5, block_s=0.5)
    scheduler.handle(Tick(), 0.5 + FLOOR_S - 0.01)
    assert not scheduler.workers[1].suspect
    scheduler.handle(Tick(), 0.5 + FLOOR_S)
    assert scheduler.workers[1].suspect


def test_a_late_answer_teaches_nothing():
    scheduler = make(4, 2, "CSS:2", timeout_s=None)
    join(scheduler, 1, 2)  # 1: [0, 2); 2: [2, 4)
    scheduler.handle(WorkerLost(1), 1.0)
    done(scheduler, 1, 1, 0, 1, now=2.0, block_s=500.0)
    assert scheduler.next_deadline() is None


def test_what_a_silent_rank_held_is_handed_out_again():
    scheduler = make(4, 3, timeout_s=5.0)
    join(scheduler, 1, 2, 3)  # 1: [0, 1) and [3, 4); 2: [1, 2); 3: [2, 3)
    assert done(scheduler, 2, 2, 1, 2, now=4.0) == [Recall(1, 4), Assign(2, 5, 3, 4), Record(2, ((1, 2),))]
    assert scheduler.handle(WorkerSpoke(3), 4.0) == []
    assert tick(scheduler, 4.9) == []
    assert not scheduler.suspects
    assert tick(scheduler, 5.0) == []
    assert scheduler.suspects == {1}
    assert done(scheduler, 3, 3, 2, 3, now=5.5) == [Assign(3, 6, 0, 1, ISOLATED), Record(3, ((2, 3),))]
    assert counters(scheduler) == {"n_chunks": 6, "n_recalled": 1, "n_reissued": 1, "n_timeouts": 1}


def test_an_idle_rank_gets_it_at_once():
    scheduler = make(4, 2, "CSS:4", timeout_s=5.0)
    join(scheduler, 1, 2)
    assert tick(scheduler, 4.9) == []
    assert tick(scheduler, 5.0) == [Assign(2, 2, 0, 4, ISOLATED)]


def test_every_word_puts_the_deadline_off():
    scheduler = make(9, 1, "CSS:9", timeout_s=5.0)
    join(scheduler, 1)
    for item in range(4):
        done(scheduler, 1, 1, item, item + 1, now=4.0 * (item + 1))
        scheduler.handle(Tick(), 4.0 * (item + 1))
        assert not scheduler.workers[1].suspect
    scheduler.handle(Tick(), 20.9)
    assert not scheduler.workers[1].suspect
    scheduler.handle(Tick(), 21.0)
    assert scheduler.workers[1].suspect


def test_a_rank_without_work_may_be_silent():
    scheduler = make(2, 2, timeout_s=5.0)
    join(scheduler, 1, 2)
    assert done(scheduler, 2, 2, 1, 2, now=4.0, block_s=4.0) == [Record(2, ((1, 2),))]
    for now in (4.0, 8.0, 12.0):
        assert scheduler.handle(WorkerSpoke(1), now) == []
        assert tick(scheduler, now + 3.9) == []
    assert scheduler.suspects == set()
    assert scheduler.workers[2].silent_since == 4.0


def test_its_silence_begins_when_it_gets_work():
    scheduler = make(2, 2, "CSS:2", timeout_s=5.0)
    join(scheduler, 1, 2)
    assert scheduler.handle(Tick(), 50.0) == [Assign(2, 2, 0, 2, ISOLATED)]
    scheduler.handle(Tick(), 54.0)
    assert not scheduler.workers[2].suspect
    scheduler.handle(Tick(), 55.0)
    assert scheduler.workers[2].suspect


def test_a_suspect_gets_nothing_new_and_its_front_counts_when_it_speaks():
    scheduler = make(9, 2, "CSS:3", timeout_s=5.0)
    join(scheduler, 1, 2)  # 1: [0, 3) and [6, 9); 2: [3, 6)
    assert done(scheduler, 2, 2, 3, 4, now=4.0) == [Record(2, ((3, 4),))]
    assert scheduler.handle(Tick(), 5.0) == []  # rank 2 has work; nobody is idle
    assert list(scheduler.ledger.pending) == [(0, 3), (6, 9)]
    # Rank 1 speaks while all that it held is still there to have: it goes on with it.
    assert done(scheduler, 1, 1, 0, 1, now=6.0) == [Record(1, ((0, 1),))]
    assert list(scheduler.ledger.pending) == []
    assert not scheduler.workers[1].suspect
    assert done(scheduler, 1, 1, 1, 3, now=7.0) == [Record(1, ((1, 3),))]
    assert done(scheduler, 1, 3, 6, 9, now=8.0) == [
        Trim(2, 2, 5),
        Assign(1, 4, 5, 6),
        Record(3, ((6, 9),)),
    ]


def test_a_suspect_that_speaks_drops_what_others_have():
    scheduler = make(9, 2, "CSS:3", timeout_s=5.0)
    join(scheduler, 1, 2)  # 1: [0, 3) and [6, 9); 2: [3, 6)
    scheduler.handle(ChunkDone(2, 2, 3, 4, 1.0, 1.0), 4.0)
    scheduler.handle(Tick(), 5.0)
    assert done(scheduler, 2, 2, 4, 6, now=6.0) == [
        Assign(2, 4, 0, 3, ISOLATED),
        Assign(2, 5, 6, 9),
        Record(2, ((4, 6),)),
    ]
    assert done(scheduler, 1, 1, 0, 1, now=7.0) == [
        Recall(1, 1),
        Recall(1, 3),
        Recall(2, 5),
        Assign(1, 6, 6, 9),
        Record(1, ((0, 1),)),
    ]
    assert done(scheduler, 2, 4, 0, 3, now=8.0) == [
        Trim(1, 6, 8),
        Assign(2, 7, 8, 9),
        Record(4, ((1, 3),)),
        Discard(4, 1),
    ]


def test_one_rank_that_speaks_keeps_the_master_from_computing():
    scheduler = make(10, 2, timeout_s=5.0)
    join(scheduler, 1, 2)
    assert tick(scheduler, 5.0) == []
    assert scheduler.next_deadline() == 10.0  # for the Hire
    assert scheduler.handle(WorkerSpoke(1), 9.0) == []
    assert scheduler.next_deadline() == 14.0
    assert tick(scheduler, 10.0) == []
    assert scheduler.suspects == {2}
    assert scheduler.next_deadline() == 14.0  # the silence of rank 1


@pytest.mark.timeout(2)
def test_a_tick_ends_even_if_the_clock_cannot_tell_the_timeout():
    """At a time of 1e6 s a timeout of 1e-12 s is lost in rounding: now + timeout is now."""
    scheduler = make(1, 2, timeout_s=1e-12)
    join(scheduler, 1, 2, now=1e6)
    scheduler.handle(Tick(), 1e6 + 1)
    scheduler.handle(Tick(), 1e6 + 2)


# ---------------------------------------------------------------------------- losses


def test_what_a_lost_rank_held_goes_to_an_idle_one():
    scheduler = make(3, 3)
    join(scheduler, 1, 2, 3)
    assert done(scheduler, 3, 3, 2, 3, block_s=1.0) == [Record(3, ((2, 3),))]
    assert scheduler.handle(WorkerLost(1), 2.0) == [Assign(3, 4, 0, 1, ISOLATED)]
    assert counters(scheduler) == {"n_chunks": 4, "n_lost": 1, "n_reissued": 1}


def test_what_a_lost_rank_held_waits_for_a_busy_one():
    scheduler = make(6, 2, "CSS:2")
    join(scheduler, 1, 2)  # 1: [0, 2) and [4, 6); 2: [2, 4)
    assert scheduler.handle(WorkerLost(1), 2.0) == []
    assert done(scheduler, 2, 2, 2, 4, now=3.0) == [
        Assign(2, 4, 0, 2, ISOLATED),
        Assign(2, 5, 4, 6),
        Record(2, ((2, 4),)),
    ]


def test_a_lost_ranks_last_words_are_still_heard():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    scheduler.handle(WorkerLost(1), 1.0)
    assert done(scheduler, 1, 1, 0, 1, now=1.1) == [Record(1, ((0, 1),))]
    assert done(scheduler, 2, 2, 1, 2, now=2.0) == [Record(2, ((1, 2),)), Finish()]


def test_a_rank_lost_before_it_joins_is_not_waited_for():
    scheduler = make(9, 2)
    assert scheduler.handle(WorkerLost(2), 0.0) == []
    assert join(scheduler, 1) == [Assign(1, 1, 0, 1), Assign(1, 2, 1, 2)]


def test_a_rank_lost_while_it_is_idle_gets_nothing_more():
    scheduler = make(3, 3)
    join(scheduler, 1, 2, 3)
    assert done(scheduler, 3, 3, 2, 3, block_s=1.0) == [Record(3, ((2, 3),))]
    assert scheduler.handle(WorkerLost(3), 2.0) == []
    assert scheduler.handle(WorkerLost(1), 3.0) == []
    assert done(scheduler, 2, 2, 1, 2, now=4.0) == [Assign(2, 4, 0, 1, ISOLATED), Record(2, ((1, 2),))]


def test_a_lost_suspect_is_not_reissued_twice():
    scheduler = make(2, 2, "CSS:2", timeout_s=5.0)
    join(scheduler, 1, 2)
    assert scheduler.handle(Tick(), 5.0) == [Assign(2, 2, 0, 2, ISOLATED)]
    assert scheduler.handle(WorkerLost(1), 6.0) == []
    assert counters(scheduler) == {"n_chunks": 2, "n_reissued": 1, "n_timeouts": 1, "n_lost": 1}


def test_what_comes_back_from_a_unit_partly_done_goes_to_the_idle_too():
    """A subtree of which half is done is discarded: its other half is pending again, as two chunks."""
    scheduler = Scheduler(Ledger(4, 1), Sizer(Scripted(4, 4, 1, 1)), Deadlines(10.0), 3)
    join(scheduler, 1, 2, 3)  # 1: [0, 4)
    assert tick(scheduler, 10.0) == [Assign(2, 2, 0, 4, ISOLATED)]
    assert done(scheduler, 1, 1, 0, 2, now=11.0, units=((0, 2),)) == [Recall(1, 1), Record(1, ((0, 2),))]
    assert done(scheduler, 2, 2, 0, 4, now=12.0, units=((0, 4),)) == [
        Assign(2, 3, 2, 3, ISOLATED),
        Assign(2, 4, 3, 4, ISOLATED),
        Recall(2, 4),
        Assign(3, 5, 3, 4, ISOLATED),
        Discard(2, 4),
    ]


# ------------------------------------------------------------------- blocks that fail


def test_a_failed_block_is_tried_again_on_another_rank():
    scheduler = make(6, 2, "CSS:3")
    join(scheduler, 1, 2)  # 1: [0, 3); 2: [3, 6)
    assert failed(scheduler, 1, 1, 0, 1) == []  # rank 1 goes on behind it
    assert done(scheduler, 1, 1, 1, 2) == [Record(1, ((1, 2),))]
    assert done(scheduler, 2, 2, 3, 4) == [Assign(2, 3, 0, 1), Record(2, ((3, 4),))]
    assert counters(scheduler) == {"n_chunks": 3, "n_failures": 1}


def test_a_single_rank_tries_its_failed_block_again_itself():
    scheduler = make(3, 1, "CSS:3")
    join(scheduler, 1)
    assert failed(scheduler, 1, 1, 0, 1) == [Assign(1, 2, 0, 1)]
    assert done(scheduler, 1, 1, 1, 3) == [Record(1, ((1, 3),))]
    assert done(scheduler, 1, 2, 0, 1) == [Record(2, ((0, 1),)), Finish()]


def test_a_block_that_failed_everywhere_is_tried_again_by_whoever_comes():
    scheduler = make(6, 2, "CSS:3")
    join(scheduler, 1, 2)
    assert failed(scheduler, 1, 1, 0, 1) == []
    assert done(scheduler, 2, 2, 3, 6) == [Assign(2, 3, 0, 1), Record(2, ((3, 6),))]
    assert failed(scheduler, 2, 3, 0, 1) == [Assign(2, 4, 0, 1)]


def test_a_lost_rank_is_not_waited_for_with_a_failed_block():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    assert failed(scheduler, 1, 1, 0, 1) == []
    assert scheduler.handle(WorkerLost(2), 2.0) == [Assign(1, 3, 0, 1)]


def test_a_suspect_is_not_waited_for_with_a_failed_block():
    scheduler = make(2, 2, timeout_s=5.0)
    join(scheduler, 1, 2)
    assert failed(scheduler, 1, 1, 0, 1, now=1.0) == []
    assert tick(scheduler, 5.0) == [Assign(1, 3, 0, 1)]


def test_an_idle_rank_where_a_block_failed_does_not_keep_it_from_the_next():
    scheduler = make(3, 3)
    join(scheduler, 1, 2, 3)
    assert failed(scheduler, 1, 1, 0, 1) == []  # rank 1 is idle from here
    assert done(scheduler, 2, 2, 1, 2, block_s=1.0) == [Assign(2, 4, 0, 1), Record(2, ((1, 2),))]
    assert done(scheduler, 3, 3, 2, 3, block_s=1.0) == [Record(3, ((2, 3),))]
    assert scheduler.handle(WorkerLost(2), 1.0) == [Assign(3, 5, 0, 1, ISOLATED)]


def test_a_failed_block_is_not_taken_back_to_where_it_failed():
    scheduler = make(4, 2)
    join(scheduler, 1, 2)  # 1: [0, 1) and [2, 3); 2: [1, 2) and [3, 4)
    assert failed(scheduler, 1, 1, 0, 1) == []
    assert done(scheduler, 2, 2, 1, 2) == [Assign(2, 5, 0, 1), Record(2, ((1, 2),))]
    # Rank 1 is idle, and rank 2 has not begun attempt 5; but rank 1 is where that failed.
    assert done(scheduler, 1, 3, 2, 3, block_s=1.0) == [Record(3, ((2, 3),))]
    assert done(scheduler, 2, 4, 3, 4) == [Record(4, ((3, 4),))]


def test_a_failed_block_gets_no_twin_where_it_failed():
    scheduler = make(2, 2, n_retries=1)
    join(scheduler, 1, 2)
    assert failed(scheduler, 1, 1, 0, 1) == []
    assert done(scheduler, 2, 2, 1, 2, now=1.0, block_s=1.0) == [Assign(2, 3, 0, 1), Record(2, ((1, 2),))]
    assert tick(scheduler, 20.0) == []  # far overdue: but a second failure would end the run
    assert scheduler.next_deadline() == 30.0  # a deadline: nobody watches


def test_a_block_of_several_items_is_at_last_computed_one_by_one():
    scheduler = make(4, 1, block=4)
    join(scheduler, 1)
    assert failed(scheduler, 1, 1, 0, 4) == [Assign(1, 2, 0, 4)]
    assert failed(scheduler, 1, 2, 0, 4) == [Assign(1, 3, 0, 4)]
    assert failed(scheduler, 1, 3, 0, 4) == [Assign(1, 4, 0, 4, ITEMWISE)]
    assert done(scheduler, 1, 4, 0, 4) == [Record(4, ((0, 4),)), Finish()]


def test_one_by_one_and_in_isolation_if_it_killed_a_rank_before():
    scheduler = make(4, 2, block=4, n_retries=0)
    join(scheduler, 1, 2)
    assert scheduler.handle(WorkerLost(1), 1.0) == [Assign(2, 2, 0, 4, ISOLATED)]
    assert failed(scheduler, 2, 2, 0, 4) == [Assign(2, 3, 0, 4, ISOLATED | ITEMWISE)]


def test_a_final_failure_ends_the_run_with_its_reason():
    scheduler = make(4, 1, block=4, n_retries=0)
    join(scheduler, 1)
    assert failed(scheduler, 1, 1, 0, 4) == [Assign(1, 2, 0, 4, ITEMWISE)]
    assert failed(scheduler, 1, 2, 0, 4, reason="item 2: boom", final=True) == [
        GiveUp("item 2: boom", "Traceback")
    ]
    assert scheduler.ended


def test_a_block_of_one_item_ends_the_run_when_it_has_failed_too_often():
    scheduler = make(9, 1, "CSS:4", block=4)  # the last block is a single item
    join(scheduler, 1)
    assert done(scheduler, 1, 1, 0, 8) == [Record(1, ((0, 8),))]
    assert failed(scheduler, 1, 1, 8, 9) == [Assign(1, 2, 8, 9)]
    assert failed(scheduler, 1, 2, 8, 9) == [Assign(1, 3, 8, 9)]
    assert failed(scheduler, 1, 3, 8, 9) == [GiveUp("boom (tried 3 times)", "Traceback")]


def test_an_item_that_fails_too_often_is_skipped_if_that_was_asked():
    scheduler = make(2, 1, n_retries=1, skip=True)
    join(scheduler, 1)  # [0, 1) and [1, 2)
    assert failed(scheduler, 1, 1, 0, 1) == [Assign(1, 3, 0, 1)]
    assert done(scheduler, 1, 2, 1, 2) == [Record(2, ((1, 2),))]
    assert failed(scheduler, 1, 3, 0, 1) == [Skip(0, 1, 2, "boom", "Traceback"), Finish()]
    assert scheduler.ended
    assert counters(scheduler) == {"n_chunks": 3, "n_failures": 2, "n_skipped": 1}


def test_the_run_goes_on_behind_a_skipped_item():
    scheduler = make(3, 1, n_retries=0, skip=True)
    join(scheduler, 1)
    assert failed(scheduler, 1, 1, 0, 1) == [Skip(0, 1, 1, "boom", "Traceback"), Assign(1, 3, 2, 3)]
    assert troubles(scheduler) == []
    assert list(scheduler.ledger.done) == [(0, 1)]


@pytest.mark.parametrize("final", [False, True])
def test_a_late_failure_of_what_is_done_meanwhile_counts_nothing(final):
    scheduler = make(3, 2, "CSS:2", timeout_s=5.0, n_retries=0)
    join(scheduler, 1, 2)  # 1: [0, 2); 2: [2, 3)
    scheduler.handle(WorkerSpoke(2), 4.0)
    assert tick(scheduler, 5.0) == []
    assert done(scheduler, 2, 2, 2, 3, now=6.0, block_s=1.0) == [
        Assign(2, 3, 0, 2, ISOLATED),
        Record(2, ((2, 3),)),
    ]
    assert done(scheduler, 2, 3, 0, 1, now=7.0) == [Record(3, ((0, 1),))]
    assert failed(scheduler, 1, 1, 0, 1, now=8.0, final=final) == [Recall(1, 1)]
    assert troubles(scheduler) == [(1, 2, ISOLATED, 0, set())]
    assert not scheduler.ended


# --------------------------------------------------- where a rank died or fell silent


def test_a_loss_speaks_against_what_the_rank_computed_and_not_its_next_chunk():
    scheduler = make(6, 2, "CSS:2")
    join(scheduler, 1, 2)  # 1: [0, 2) and [4, 6); 2: [2, 4)
    assert done(scheduler, 1, 1, 0, 1) == [Record(1, ((0, 1),))]
    assert scheduler.handle(WorkerLost(1), 2.0) == []
    assert troubles(scheduler) == [(1, 2, ISOLATED, 0, set())]
    assert done(scheduler, 2, 2, 2, 4, now=3.0) == [
        Assign(2, 4, 1, 2, ISOLATED),
        Assign(2, 5, 4, 6, PLAIN),
        Record(2, ((2, 4),)),
    ]


def test_so_does_silence():
    scheduler = make(6, 2, "CSS:2", timeout_s=5.0)
    join(scheduler, 1, 2)  # 1: [0, 2) and [4, 6); 2: [2, 4)
    scheduler.handle(WorkerSpoke(2), 1.0)
    assert tick(scheduler, 5.0) == []
    assert troubles(scheduler) == [(0, 2, ISOLATED, 0, set())]
    assert done(scheduler, 2, 2, 2, 4, now=5.5) == [
        Assign(2, 4, 0, 2, ISOLATED),
        Assign(2, 5, 4, 6, PLAIN),
        Record(2, ((2, 4),)),
    ]


def test_a_loss_without_work_speaks_against_nothing():
    scheduler = make(1, 2)
    join(scheduler, 1, 2)
    assert scheduler.handle(WorkerLost(2), 1.0) == []
    assert troubles(scheduler) == []


def test_a_range_in_trouble_is_cleared_as_it_is_done():
    scheduler = make(4, 2, "CSS:4")
    join(scheduler, 1, 2)
    assert scheduler.handle(WorkerLost(1), 2.0) == [Assign(2, 2, 0, 4, ISOLATED)]
    assert troubles(scheduler) == [(0, 4, ISOLATED, 0, set())]
    assert done(scheduler, 2, 2, 0, 1) == [Record(2, ((0, 1),))]
    assert troubles(scheduler) == [(1, 4, ISOLATED, 0, set())]
    assert failed(scheduler, 2, 2, 1, 2) == [Assign(2, 3, 1, 2, ISOLATED)]
    assert troubles(scheduler) == [(1, 2, ISOLATED, 1, {2}), (2, 4, ISOLATED, 0, set())]
    assert done(scheduler, 2, 2, 2, 4) == [Record(2, ((2, 4),))]
    assert done(scheduler, 2, 3, 1, 2) == [Record(3, ((1, 2),)), Finish()]
    assert troubles(scheduler) == []


def test_a_chunk_ends_where_trouble_begins_and_where_it_changes():
    scheduler = make(12, 2, "CSS:6")
    join(scheduler, 2, 1)  # 2: [0, 6); 1: [6, 12)
    assert failed(scheduler, 2, 1, 3, 4) == [Assign(2, 3, 0, 3)]  # [0, 3) is still to come, or lost
    assert scheduler.handle(WorkerLost(2), 1.0) == []
    assert list(scheduler.ledger.pending) == [(0, 6)]
    assert troubles(scheduler) == [(3, 4, PLAIN, 1, {2}), (4, 6, ISOLATED, 0, set())]
    assert done(scheduler, 1, 2, 6, 12) == [
        Assign(1, 4, 0, 3),
        Assign(1, 5, 3, 4),
        Record(2, ((6, 12),)),
    ]
    assert done(scheduler, 1, 4, 0, 3) == [Assign(1, 6, 4, 6, ISOLATED), Record(4, ((0, 3),))]


# ------------------------------------------------------------------------- the tail


def test_the_attempt_expected_to_end_last_is_cut_in_its_middle():
    scheduler = make_with_sizes([10, 4, 1])  # 1: [0, 10); 2: [10, 14); 3: [14, 15)
    join(scheduler, 1, 2, 3)
    # Rank 1 has 9 blocks to go: rank 3 takes 4, and rank 1 keeps 5 and the one it has computed.
    assert done(scheduler, 3, 3, 14, 15, now=1.0, block_s=1.0) == [
        Trim(1, 1, 6),
        Assign(3, 4, 6, 10),
        Record(3, ((14, 15),)),
    ]
    assert counters(scheduler) == {"n_chunks": 4, "n_split": 1}


def test_a_slow_rank_with_little_left_can_be_the_last():
    scheduler = make_with_sizes([10, 4, 1])
    join(scheduler, 1, 2, 3)
    assert done(scheduler, 2, 2, 10, 11, now=5.0, block_s=5.0) == [Record(2, ((10, 11),))]
    assert done(scheduler, 1, 1, 0, 5, now=5.0, block_s=1.0) == [Record(1, ((0, 5),))]
    # Rank 1 has 5 blocks of 1 s to go, rank 2 has 3 of 5 s.
    assert done(scheduler, 3, 3, 14, 15, now=5.0, block_s=1.0) == [
        Trim(2, 2, 13),
        Assign(3, 4, 13, 14),
        Record(3, ((14, 15),)),
    ]


def test_a_cut_is_between_two_blocks():
    scheduler = make(36, 2, "CSS:3", block=10)  # 1: [0, 30); 2: [30, 36)
    join(scheduler, 1, 2)
    assert done(scheduler, 2, 2, 30, 36, now=0.0, block_s=1.0) == [
        Trim(1, 1, 20),
        Assign(2, 3, 20, 30),
        Record(2, ((30, 36),)),
    ]


def test_what_was_computed_behind_a_cut_counts():
    scheduler = make_with_sizes([4, 1])  # 1: [0, 4); 2: [4, 5)
    join(scheduler, 1, 2)
    assert done(scheduler, 2, 2, 4, 5, now=0.0, block_s=1.0) == [
        Trim(1, 1, 2),
        Assign(2, 3, 2, 4),
        Record(2, ((4, 5),)),
    ]
    assert done(scheduler, 1, 1, 0, 3, now=0.0, block_s=1.0) == [
        Trim(2, 3, 3),
        Assign(1, 4, 3, 4),
        Recall(2, 3),
        Record(1, ((0, 3),)),
    ]


def test_what_is_not_begun_goes_before_what_is():
    scheduler = make(12, 2, "CSS:4")  # 1: [0, 4) and [8, 12); 2: [4, 8)
    join(scheduler, 1, 2)
    assert done(scheduler, 2, 2, 4, 8, now=1.0, block_s=1.0) == [
        Recall(1, 3),
        Assign(2, 4, 8, 12),
        Record(2, ((4, 8),)),
    ]


def test_a_healthy_attempt_is_cut_to_its_last_block_and_computed_once():
    scheduler = make_with_sizes([10, 1])
    join(scheduler, 1, 2)
    # Rank 1 is silent, as ranks with short blocks are, and expected to be within its last but one.
    assert done(scheduler, 2, 2, 10, 11, now=8.5, block_s=1.0) == [
        Trim(1, 1, 9),
        Assign(2, 3, 9, 10),
        Record(2, ((10, 11),)),
    ]


def test_a_last_block_that_is_overdue_gets_a_twin():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    assert done(scheduler, 1, 1, 0, 1, now=1.0, block_s=1.0) == [Record(1, ((0, 1),))]
    assert tick(scheduler, 1.25) == [Assign(1, 3, 1, 2, ISOLATED)]
    assert scheduler.next_deadline() == 30.0  # a deadline: nobody watches any more
    assert done(scheduler, 1, 3, 1, 2, now=2.25) == [Record(3, ((1, 2),)), Finish()]
    assert counters(scheduler) == {"n_chunks": 3, "n_twins": 1}


def test_a_healthy_block_gets_no_twin():
    scheduler = make(4, 2)
    join(scheduler, 1, 2)  # 1: [0, 1) and [2, 3); 2: [1, 2) and [3, 4)
    done(scheduler, 1, 1, 0, 1, now=1.0, block_s=1.0)
    done(scheduler, 2, 2, 1, 2, now=1.0, block_s=1.0)
    assert done(scheduler, 1, 3, 2, 3, now=1.5, block_s=0.5) == [Record(3, ((2, 3),))]
    for now in (1.6, 1.7, 1.8, 1.9, 1.99):
        assert tick(scheduler, now) == []
    assert done(scheduler, 2, 4, 3, 4, now=2.0) == [Record(4, ((3, 4),)), Finish()]
    assert counters(scheduler) == {"n_chunks": 4}


def test_idle_ranks_watch_as_often_as_blocks_are_short():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    assert scheduler.next_deadline() is None
    done(scheduler, 1, 1, 0, 1, now=1.0, block_s=1.0)
    assert scheduler.next_deadline() == 1.25
    scheduler.handle(WorkerSpoke(2), 1.2)
    assert tick(scheduler, 1.25) == []
    assert scheduler.next_deadline() == 1.5
    # Rank 2 is expected to be done at 2.2, and overdue for as long as it was then silent.
    for now in (1.5, 1.75, 2.0, 2.25):
        assert tick(scheduler, now) == [] if now < 2.2 else [Assign(1, 3, 1, 2)]


def test_watching_has_a_least_interval():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    done(scheduler, 1, 1, 0, 1, now=1e-6, block_s=1e-6)
    assert scheduler.next_deadline() == 1e-6 + 1e-3


def test_a_twin_is_recalled_when_the_other_is_done():
    scheduler = make(3, 3)
    join(scheduler, 1, 2, 3)
    assert done(scheduler, 2, 2, 1, 2, now=1.0, block_s=1.0) == [Record(2, ((1, 2),))]
    assert tick(scheduler, 1.25) == [Assign(2, 4, 0, 1, ISOLATED)]
    # Rank 1 is done and gets the twin of the last; rank 2 drops what is done, and there is no more.
    assert done(scheduler, 1, 1, 0, 1, now=1.5, block_s=1.0) == [
        Assign(1, 5, 2, 3, ISOLATED),
        Recall(2, 4),
        Record(1, ((0, 1),)),
    ]
    scheduler.ledger.check()
    assert counters(scheduler) == {"n_chunks": 5, "n_twins": 2}


def test_an_item_is_computed_by_two_at_most():
    scheduler = make(3, 3)
    join(scheduler, 1, 2, 3)
    assert done(scheduler, 2, 2, 1, 2, now=1.0, block_s=1.0) == [Record(2, ((1, 2),))]
    assert done(scheduler, 3, 3, 2, 3, now=1.0, block_s=1.0) == [Record(3, ((2, 3),))]
    assert tick(scheduler, 1.25) == [Assign(2, 4, 0, 1, ISOLATED)]
    assert tick(scheduler, 20.0) == []
    assert scheduler.next_deadline() == 30.0


def test_the_twin_of_a_lost_rank_goes_on_and_is_not_doubled_for_it_is_in_isolation():
    scheduler = make(3, 3)
    join(scheduler, 1, 2, 3)
    done(scheduler, 2, 2, 1, 2, now=1.0, block_s=1.0)
    done(scheduler, 3, 3, 2, 3, now=1.0, block_s=1.0)
    assert tick(scheduler, 1.25) == [Assign(2, 4, 0, 1, ISOLATED)]
    assert scheduler.handle(WorkerLost(1), 1.5) == []
    assert list(scheduler.ledger.pending) == []
    assert tick(scheduler, 2.5) == []


def test_what_is_computed_with_care_is_neither_cut_nor_doubled():
    scheduler = make(5, 3, "CSS:4")
    join(scheduler, 1, 2, 3)  # 1: [0, 4); 2: [4, 5)
    assert scheduler.handle(WorkerLost(1), 1.0) == [Assign(3, 3, 0, 4, ISOLATED)]
    assert done(scheduler, 2, 2, 4, 5, now=2.0, block_s=1.0) == [Record(2, ((4, 5),))]
    assert tick(scheduler, 20.0) == []
    assert scheduler.next_deadline() == 30.0  # a deadline: nobody watches


def test_what_a_suspect_held_is_neither_cut_nor_doubled():
    scheduler = make(3, 3, timeout_s=5.0)
    join(scheduler, 1, 2, 3)
    assert done(scheduler, 2, 2, 1, 2, now=4.0, block_s=4.0) == [Record(2, ((1, 2),))]
    scheduler.handle(WorkerSpoke(3), 4.0)
    assert tick(scheduler, 5.0) == [Assign(2, 4, 0, 1, ISOLATED)]
    assert done(scheduler, 3, 3, 2, 3, now=8.0, block_s=4.0) == [Record(3, ((2, 3),))]


def test_a_slow_rank_takes_nothing_over_that_the_owner_would_do_sooner():
    scheduler = make_with_sizes([10, 1])
    join(scheduler, 1, 2)
    assert done(scheduler, 1, 1, 0, 2, now=9.0, block_s=1.0) == [Record(1, ((0, 2),))]
    # Rank 1 is expected to need 7 s more; rank 2 needs 10 s for one block.
    assert done(scheduler, 2, 2, 10, 11, now=10.0, block_s=10.0) == [Record(2, ((10, 11),))]
    assert scheduler.next_deadline() == 12.5


def test_a_careful_chunk_that_is_not_begun_moves_with_its_care():
    scheduler = Scheduler(Ledger(4, 1), Sizer(Scripted(2, 2, 1, 1, 1)), Deadlines(), 2)
    join(scheduler, 1, 2)  # 1: [0, 2); 2: [2, 4)
    assert scheduler.handle(WorkerLost(1), 1.0) == []
    assert done(scheduler, 2, 2, 2, 4, now=1.0, block_s=1.0) == [
        Assign(2, 3, 0, 1, ISOLATED),
        Assign(2, 4, 1, 2, ISOLATED),
        Record(2, ((2, 4),)),
    ]
    assert join(scheduler, 3, now=2.0) == [Recall(2, 4), Assign(3, 5, 1, 2, ISOLATED)]


# -------------------------------------------------------------------------- stopping


def stop(scheduler, now, grace_s=10.0):
    return scheduler.handle(StopRequested(grace_s), now)


def test_a_stop_drains_the_busy_and_comes_when_all_are_drained():
    scheduler = make(2, 3, "CSS:1")
    join(scheduler, 1, 2, 3)  # rank 3 has nothing
    assert stop(scheduler, 1.0) == [Drain(1), Drain(2)]
    assert scheduler.next_deadline() == 11.0
    assert scheduler.handle(WorkerDrained(2), 2.0) == []
    assert not scheduler.ended
    assert scheduler.handle(WorkerDrained(1), 3.0) == [Stop()]
    assert scheduler.ended
    assert list(scheduler.ledger.pending) == [(0, 2)]


def test_nobody_watches_for_work_once_the_run_is_to_stop():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    done(scheduler, 1, 1, 0, 1, now=1.0, block_s=1.0)
    assert scheduler.next_deadline() == 1.25
    assert stop(scheduler, 1.1) == [Drain(2)]
    assert scheduler.next_deadline() == 11.1


def test_a_stop_with_nobody_at_work_is_immediate():
    assert stop(make(2, 2), 1.0) == [Stop()]


def test_a_stop_comes_at_the_end_of_the_grace():
    scheduler = make(10, 2, timeout_s=100.0)
    join(scheduler, 1, 2)
    assert stop(scheduler, 1.0) == [Drain(1), Drain(2)]
    assert tick(scheduler, 10.9) == []
    assert tick(scheduler, 11.0) == [Stop()]


def test_a_suspect_is_not_waited_for_to_stop():
    scheduler = make(10, 2, timeout_s=5.0)
    join(scheduler, 1, 2)
    scheduler.handle(WorkerSpoke(2), 3.0)
    assert tick(scheduler, 5.0) == []
    assert scheduler.suspects == {1}
    assert stop(scheduler, 6.0) == [Drain(1), Drain(2)]  # it may still hear it
    assert scheduler.handle(WorkerDrained(2), 7.0) == [Stop()]


def test_a_rank_that_becomes_suspect_is_not_waited_for_any_longer():
    scheduler = make(10, 1, timeout_s=5.0)
    join(scheduler, 1)
    assert stop(scheduler, 1.0) == [Drain(1)]
    assert tick(scheduler, 5.0) == [Stop()]


def test_a_lost_rank_is_not_waited_for_to_stop():
    scheduler = make(10, 2)
    join(scheduler, 1, 2)
    assert stop(scheduler, 1.0) == [Drain(1), Drain(2)]
    assert scheduler.handle(WorkerLost(1), 2.0) == []
    assert scheduler.handle(WorkerLost(2), 3.0) == [Stop()]  # and no Hire


def test_nothing_is_handed_out_after_a_stop_was_requested():
    scheduler = make(20, 3, "CSS:3")
    join(scheduler, 1, 2)  # 1: [0, 3); 2: [3, 6)
    assert stop(scheduler, 1.0) == [Drain(1), Drain(2)]
    assert join(scheduler, 3) == []
    assert done(scheduler, 1, 1, 0, 1) == [Record(1, ((0, 1),))]
    assert failed(scheduler, 1, 1, 1, 2) == []
    assert done(scheduler, 1, 1, 2, 3) == [Record(1, ((2, 3),))]
    assert scheduler.handle(WorkerSpoke(1), 2.0) == []
    assert tick(scheduler, 3.0) == []
    assert scheduler.handle(WorkerLost(3), 4.0) == []
    assert scheduler.handle(WorkerDrained(2), 5.0) == [Stop()]


def test_there_is_one_stop_however_many_are_idle():
    scheduler = make(3, 3, "CSS:1")
    join(scheduler, 1, 2, 3)
    done(scheduler, 1, 1, 0, 1, now=1.0, block_s=1.0)
    done(scheduler, 2, 2, 1, 2, now=1.0, block_s=1.0)
    assert stop(scheduler, 1.0) == [Drain(3)]
    assert failed(scheduler, 3, 3, 2, 3) == [Stop()]


def test_the_last_result_is_recorded_before_the_stop():
    scheduler = make(3, 2)
    join(scheduler, 1, 2)  # 1: [0, 1) and [2, 3); 2: [1, 2)
    assert stop(scheduler, 1.0) == [Drain(1), Drain(2)]
    assert scheduler.handle(WorkerDrained(1), 1.0) == []
    assert done(scheduler, 2, 2, 1, 2) == [Record(2, ((1, 2),)), Stop()]


def test_a_run_that_is_done_while_it_stops_is_finished():
    scheduler = make(2, 1, "CSS:2")
    join(scheduler, 1)
    assert stop(scheduler, 1.0) == [Drain(1)]
    assert done(scheduler, 1, 1, 0, 2) == [Record(1, ((0, 2),)), Finish()]


# -------------------------------------------------------------------- nobody is there


def test_the_last_loss_makes_the_master_compute():
    scheduler = make(9, 2, "CSS:3")
    join(scheduler, 1, 2)  # 1: [0, 3) and [6, 9); 2: [3, 6)
    assert scheduler.handle(WorkerLost(2), 1.0) == []
    assert scheduler.handle(WorkerLost(1), 2.0) == [Hire()]
    assert tick(scheduler, 3.0) == []
    assert join(scheduler, 7, now=4.0) == [Assign(7, 4, 0, 3, ISOLATED), Assign(7, 5, 3, 6, ISOLATED)]


def test_with_all_silent_the_master_computes_after_one_more_allowance():
    scheduler = make(10, 2, timeout_s=5.0)
    join(scheduler, 1, 2)
    assert scheduler.next_deadline() == 5.0
    assert tick(scheduler, 5.0) == []
    assert scheduler.suspects == {1, 2}
    assert scheduler.next_deadline() == 10.0
    assert tick(scheduler, 9.9) == []
    assert tick(scheduler, 10.0) == [Hire()]
    assert scheduler.next_deadline() is None
    assert tick(scheduler, 99.0) == []


def test_so_it_does_if_the_limit_was_learnt():
    scheduler = make(10, 1)
    join(scheduler, 1)
    done(scheduler, 1, 1, 0, 1, now=1.0)
    assert tick(scheduler, 1.0 + FLOOR_S) == []
    assert scheduler.next_deadline() == 1.0 + 2 * FLOOR_S
    assert tick(scheduler, 1.0 + 2 * FLOOR_S) == [Hire()]


def test_the_master_hires_once_even_if_all_fall_silent_and_are_lost():
    scheduler = make(10, 2, "CSS:5", timeout_s=5.0)
    join(scheduler, 1, 2)
    assert tick(scheduler, 5.0) == []
    assert tick(scheduler, 10.0) == [Hire()]
    assert join(scheduler, 0, now=10.0) == [Assign(0, 3, 0, 5, ISOLATED), Assign(0, 4, 5, 10, ISOLATED)]
    assert tick(scheduler, 15.0) == []
    assert tick(scheduler, 99.0) == []
    assert scheduler.handle(WorkerLost(1), 99.0) == []
    assert scheduler.handle(WorkerLost(2), 99.0) == []
    assert tick(scheduler, 999.0) == []


def test_ranks_that_have_yet_to_join_are_waited_for_longer():
    scheduler = make(10, 3, timeout_s=5.0)
    join(scheduler, 1, 2)
    assert tick(scheduler, 5.0) == []
    assert scheduler.next_deadline() == 5.0 + STARTUP_PATIENCE * 5.0
    assert tick(scheduler, 10.0) == []
    assert tick(scheduler, 5.0 + STARTUP_PATIENCE * 5.0) == [Hire()]


def test_none_may_ever_join():
    scheduler = make(10, 3, timeout_s=5.0)
    assert tick(scheduler, 1.0) == []
    assert scheduler.next_deadline() == 1.0 + STARTUP_PATIENCE * 5.0
    assert tick(scheduler, 1.0 + STARTUP_PATIENCE * 5.0) == [Hire()]


def test_a_rank_that_joins_ends_the_waiting():
    scheduler = make(10, 3, timeout_s=5.0)
    assert tick(scheduler, 1.0) == []
    join(scheduler, 1, now=40.0)
    assert scheduler.next_deadline() == 45.0
    assert tick(scheduler, 45.0) == []
    assert scheduler.next_deadline() == 95.0


def test_with_no_worker_at_all_the_first_tick_hires():
    scheduler = make(3, 0, "CSS:2")
    assert tick(scheduler, 0.0) == [Hire()]
    assert tick(scheduler, 0.0) == []
    assert join(scheduler, 0) == [Assign(0, 1, 0, 2), Assign(0, 2, 2, 3)]
    assert done(scheduler, 0, 1, 0, 2) == [Record(1, ((0, 2),))]
    assert done(scheduler, 0, 2, 2, 3) == [Record(2, ((2, 3),)), Finish()]


# ------------------------------------------------------- a master away, and a new one


def test_nobodys_silence_counts_while_the_master_is_away():
    scheduler = make(10, 2, timeout_s=5.0)
    join(scheduler, 1, now=0.0)
    join(scheduler, 2, now=1.0)
    assert scheduler.handle(MasterAway(100.0), 103.0) == []
    assert tick(scheduler, 104.9) == []
    assert scheduler.suspects == set()
    assert tick(scheduler, 105.0) == []
    assert scheduler.suspects == {1}
    assert tick(scheduler, 106.0) == []
    assert scheduler.suspects == {1, 2}


def test_nor_does_it_count_towards_a_hire():
    scheduler = make(10, 1, timeout_s=5.0)
    join(scheduler, 1)
    assert tick(scheduler, 5.0) == []
    assert scheduler.handle(MasterAway(100.0), 106.0) == []
    assert scheduler.next_deadline() == 110.0
    assert tick(scheduler, 109.9) == []
    assert tick(scheduler, 110.0) == [Hire()]


def test_nor_does_it_make_a_block_overdue():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    assert done(scheduler, 1, 1, 0, 1, now=1.0, block_s=1.0) == [Record(1, ((0, 1),))]
    assert scheduler.handle(MasterAway(100.0), 101.0) == []
    assert tick(scheduler, 101.0) == []
    assert tick(scheduler, 101.25) == [Assign(1, 3, 1, 2, ISOLATED)]


def test_a_new_master_adopts_what_is_pending_and_recalls_the_rest():
    scheduler = make(20, 2, "CSS:4", done=[(0, 4)], first_attempt=1001)
    holding = (Held(7, 6, 10), Held(9, 2, 4))  # what it says of attempt 9 is done
    assert scheduler.handle(WorkerJoined(1, holding), 0.0) == [Recall(1, 9)]
    assert list(scheduler.ledger.pending) == [(4, 6), (10, 20)]
    # What rank 2 holds is in part rank 1's. Once all are there, each gets its next.
    assert scheduler.handle(WorkerJoined(2, (Held(8, 8, 12),)), 0.0) == [
        Recall(2, 8),
        Assign(2, 1001, 4, 6),
        Assign(1, 1002, 10, 14),
        Assign(2, 1003, 14, 18),
    ]
    assert done(scheduler, 1, 7, 6, 10) == [Assign(1, 1004, 18, 20), Record(7, ((6, 10),))]
    scheduler.ledger.check()


def test_two_adopted_attempts_are_all_that_a_rank_gets():
    scheduler = make(20, 1)
    assert scheduler.handle(WorkerJoined(1, (Held(3, 0, 4), Held(5, 8, 9))), 0.0) == []
    assert scheduler._dispatch.n_ahead == 1


def test_what_is_done_is_not_handed_out_and_numbers_go_on():
    scheduler = make(10, 1, "CSS:4", done=[(0, 3), (5, 9)], first_attempt=42)
    assert join(scheduler, 1) == [Assign(1, 42, 3, 5), Assign(1, 43, 9, 10)]
    assert done(scheduler, 1, 42, 3, 5) == [Record(42, ((3, 5),))]
    assert done(scheduler, 1, 43, 9, 10) == [Record(43, ((9, 10),)), Finish()]


# -------------------------------------------------------------- messages out of order


def test_a_part_that_overtakes_another_leaves_no_item_behind():
    scheduler = make(6, 2, "CSS:3")
    join(scheduler, 1, 2)  # 1: [0, 3); 2: [3, 6)
    assert done(scheduler, 1, 1, 1, 3, block_s=1.0) == [Assign(1, 3, 0, 1), Record(1, ((1, 3),))]
    assert done(scheduler, 1, 1, 0, 1, block_s=1.0) == [Record(1, ((0, 1),))]
    assert done(scheduler, 1, 3, 0, 1, block_s=1.0)[-1] == Discard(3, 1)
    assert done(scheduler, 2, 2, 3, 6)[-1] == Finish()


def test_a_failure_that_overtakes_a_part_leaves_no_item_behind():
    scheduler = make(6, 2, "CSS:3")
    join(scheduler, 1, 2)  # 1: [0, 3); 2: [3, 6)
    # [0, 2) may yet come; [2, 3) is for rank 2 to try.
    assert failed(scheduler, 1, 1, 2, 3) == [Assign(1, 3, 0, 2)]
    assert done(scheduler, 1, 1, 0, 2) == [Record(1, ((0, 2),))]
    assert done(scheduler, 2, 2, 3, 6) == [Assign(2, 4, 2, 3), Record(2, ((3, 6),))]
    assert done(scheduler, 2, 4, 2, 3) == [Record(4, ((2, 3),)), Finish()]


# --------------------------------------------------------------- what is learnt, and not


def make_learning(sizes):
    deadlines = Deadlines()
    return deadlines, Scheduler(Ledger(sum(sizes), 1), Sizer(Scripted(*sizes)), deadlines, 2)


def test_an_attempt_in_force_teaches_the_deadline():
    deadlines, scheduler = make_learning([2, 2])
    join(scheduler, 1, 2)
    done(scheduler, 1, 1, 0, 1, now=4.0, block_s=4.0)
    assert deadlines.allowance_s == 40.0
    done(scheduler, 2, 2, 2, 3, now=5.0, block_s=5.0)
    assert deadlines.allowance_s == 50.0


def test_an_attempt_that_was_handed_out_again_teaches_nothing():
    deadlines, scheduler = make_learning([2, 2])
    join(scheduler, 1, 2)  # 1: [0, 2); 2: [2, 4)
    done(scheduler, 1, 1, 0, 1, now=4.0, block_s=4.0)
    assert tick(scheduler, 40.0) == []
    assert scheduler.suspects == {2}
    assert done(scheduler, 2, 2, 2, 3, now=41.0, block_s=41.0) == [Record(2, ((2, 3),))]
    assert deadlines.allowance_s == 40.0
    assert scheduler.workers[2].block_s is None


def test_a_careful_chunk_teaches_nothing():
    deadlines, scheduler = make_learning([2, 2])
    join(scheduler, 1, 2)  # 1: [0, 2); 2: [2, 4)
    assert scheduler.handle(WorkerLost(2), 1.0) == []
    assert done(scheduler, 1, 1, 0, 2, now=8.0, block_s=4.0)[0] == Assign(1, 3, 2, 3, ISOLATED)
    assert done(scheduler, 1, 3, 2, 3, now=58.0, block_s=50.0) == [Record(3, ((2, 3),))]
    assert deadlines.allowance_s == 40.0
    assert scheduler.workers[1].block_s == 4.0


# ------------------------------------------------------- for how long nobody need look


def slack_after(block_times, n_items=1000):
    """What is said once rank 1 has delivered blocks that took so long, with rank 2 at its first."""
    scheduler = make(n_items, 2)
    join(scheduler, 1, 2)
    for block_s in block_times:
        held = scheduler.workers[1].queue[0]
        done(scheduler, 1, held.number, held.start, held.stop, block_s=block_s)
    return scheduler.slack_s


def test_before_anything_is_measured_it_is_not_known():
    assert slack_after([]) == 0.0


def test_where_chunks_are_alike_it_is_a_good_part_of_one():
    assert slack_after([1.0] * 20) == pytest.approx(0.6)


def test_one_short_chunk_is_enough_to_look_again_soon():
    assert slack_after([1.0] * 20 + [0.02]) == pytest.approx(0.125 * 0.7, rel=0.1)


def test_a_short_chunk_is_forgotten_slowly():
    short, later, at_last = (slack_after([1.0] * 20 + [0.02] + [1.0] * n) for n in (1, 10, 200))
    assert short < later < at_last
    assert later < 0.25
    assert at_last > 0.55


def test_where_chunks_get_shorter_those_in_hand_count():
    scheduler = make_learning([40, 40, 20, 20, 10, 10])[1]
    join(scheduler, 1, 2)  # 1: [0, 40), [80, 100); 2: [40, 80), [100, 120)
    done(scheduler, 1, 1, 0, 40, block_s=0.1)  # it took 4 s; the next one is of 10 blocks
    assert scheduler.slack_s == pytest.approx(0.6 * 10 * 0.1)


def test_a_rank_without_a_next_chunk_cannot_wait():
    assert slack_after([1.0] * 5, n_items=8) == 0.0


# ------------------------------------------------------------------- far from the end


def play(scheduler, block_s, until=1.0, n_ranks=2):
    """Ranks deliver in turn until that part of the items is done; what they then hold, in attempts."""
    join(scheduler, *range(1, n_ranks + 1))
    ledger, now = scheduler.ledger, 0.0
    while ledger.done.size < until * ledger.n_items:
        for rank in range(1, n_ranks + 1):
            now += block_s
            held = scheduler.workers[rank].queue[0]
            done(scheduler, rank, held.number, held.start, held.stop, now=now, block_s=block_s)
    return [len(worker.queue) for worker in scheduler.workers.values()]


@pytest.mark.parametrize(("block_s", "length"), [(0.3, 2), (0.1, 5), (0.025, 20), (0.001, FAR_LENGTH)])
def test_far_from_the_end_ranks_have_work_for_half_a_second(block_s, length):
    assert play(make(2000, 2), block_s, until=0.01) == [length, length]


def test_the_nearer_the_end_the_less_they_hold():
    """All together a quarter of what is pending, a fifth of what is left; and two each."""
    for until, n_held in ((0.1, 180 / 5), (0.25, 150 / 5), (0.5, 100 / 5), (0.75, 50 / 5), (0.9, 4)):
        assert sum(play(make(200, 2), 0.01, until)) == pytest.approx(n_held, abs=1.5)


def test_of_blocks_of_several_items_they_hold_as_many():
    for until, n_held in ((0.1, 180 / 5), (0.5, 100 / 5)):
        assert sum(play(make(1000, 2, block=5), 0.01, until)) == pytest.approx(n_held, abs=1.5)


def test_where_blocks_are_short_it_is_asked_at_each_result_how_many():
    scheduler = make(100_000, 2)
    assert play(scheduler, 1e-4, until=2e-4) == [10, 10]
    for _ in range(30):
        held = scheduler.workers[1].queue[0]
        done(scheduler, 1, held.number, held.start, held.stop, block_s=5e-5)
    assert len(scheduler.workers[1].queue) == pytest.approx(20, abs=1)


@pytest.mark.parametrize(("before_s", "after_s", "length"), [(0.01, 1.0, 2), (0.3, 1e-5, 100)])
def test_blocks_that_become_longer_or_shorter_are_noticed_soon(before_s, after_s, length):
    scheduler = make(10**9, 2)
    play(scheduler, before_s, until=2e-7)
    for _ in range(2 * FAR_LENGTH):
        for rank in (1, 2):
            held = scheduler.workers[rank].queue[0]
            done(scheduler, rank, held.number, held.start, held.stop, block_s=after_s)
    assert len(scheduler.workers[1].queue) == pytest.approx(length, abs=1)


def test_what_a_rank_is_to_hold_at_the_most_counts_there_too():
    assert play(make(2000, 2, longest_queue=2), 0.01, until=0.01) == [2, 2]
    assert play(make(2000, 2, longest_queue=7), 0.01, until=0.01) == [7, 7]
    assert play(make(2000, 2, queue_length=1), 0.01, until=0.01) == [1, 1]


def test_with_large_chunks_left_nobody_holds_more():
    assert play(make(4000, 2, "FAC2"), 1e-4, until=0.01) == [2, 2]


def test_the_short_last_part_of_a_long_chunk_lets_nobody_hold_more():
    scheduler = make(40_000, 2, "CSS:100")
    join(scheduler, 1, 2)
    queues = [scheduler.workers[rank].queue for rank in (1, 2)]

    def deliver(rank, n_left):
        held = queues[rank - 1][0]
        done(scheduler, rank, held.number, held.start, held.stop - n_left, block_s=0.01)

    deliver(2, 1)
    for _ in range(150):
        deliver(1, 1)
        deliver(2, 0)  # it gets a chunk: less is pending when rank 1 delivers its last part
        deliver(1, 0)
        deliver(2, 1)
        assert [len(queue) for queue in queues] == [2, 2]


def test_with_more_in_hand_nobody_need_look_for_longer():
    scheduler = make(2000, 2)
    assert play(scheduler, 0.05, until=0.01) == [10, 10]
    assert scheduler.slack_s == pytest.approx(9 * 0.6 * 0.05)
    for _ in range(3):
        scheduler.workers[2].queue.pop()
    assert scheduler.slack_s == pytest.approx(6 * 0.6 * 0.05)


def test_among_many_ranks_it_is_not_counted():
    scheduler = make(100 * MOST_COUNTED, MOST_COUNTED + 1)
    assert min(play(scheduler, 0.05, until=0.1, n_ranks=MOST_COUNTED + 1)) > 2
    assert scheduler.slack_s == pytest.approx(0.6 * 0.05)


def test_of_long_chunks_only_the_first_can_have_killed_its_rank():
    scheduler = make(2000, 2)
    assert play(scheduler, 0.05, until=0.01) == [10, 10]
    first, *others = [(a.start, a.stop) for a in scheduler.workers[2].queue]
    scheduler.handle(WorkerLost(2), 10.0)
    assert scheduler.ledger.troubles.at(first[0]).care == ISOLATED
    assert all(scheduler.ledger.troubles.at(start) is None for start, _ in others)


def test_of_short_ones_each_can_whose_result_waits():
    scheduler = make(2000, 2)
    assert play(scheduler, 1e-4, until=0.01) == [10, 10]
    spans = [(a.start, a.stop) for a in scheduler.workers[2].queue]
    scheduler.handle(WorkerLost(2), 10.0)
    struck = [scheduler.ledger.troubles.at(start) is not None for start, _ in spans]
    assert struck == [True] * 9 + [False]


# ---------------------------------------------------------------- a rank that fails all


def fail_three(scheduler):
    """Rank 1 fails its first three blocks of [0, 8); rank 2 has [8, 16)."""
    join(scheduler, 1, 2)
    for item in range(DUBIOUS - 1):
        assert failed(scheduler, 1, 1, item, item + 1) == []
    return failed(scheduler, 1, 1, DUBIOUS - 1, DUBIOUS)


def test_a_rank_on_which_all_fails_gets_nothing_more():
    scheduler = make(40, 2, "CSS:8")
    assert fail_three(scheduler) == [Recall(1, 1), Recall(1, 3)]
    assert scheduler.ledger.pending.contains(0, 8)
    assert scheduler.handle(Tick(), 2.0) == []


def test_until_others_fail_there_too():
    scheduler = make(40, 2, "CSS:8")
    fail_three(scheduler)
    assert done(scheduler, 2, 2, 8, 16)[0] == Assign(2, 5, 0, 1)
    assert done(scheduler, 2, 4, 24, 32)[0] == Assign(2, 6, 1, 2)
    assert Assign(1, 7, 2, 3) not in done(scheduler, 2, 6, 1, 2)
    assert [a.rank for a in failed(scheduler, 2, 5, 0, 1) if isinstance(a, Assign)] == [2, 1]


def test_until_any_fail_elsewhere_if_nothing_is_tried_twice():
    """What failed was given up: it will never fail elsewhere, too."""
    scheduler = make(40, 2, "CSS:8", n_retries=0, skip=True)
    join(scheduler, 1, 2)
    for item in range(DUBIOUS):
        failed(scheduler, 1, 1, item, item + 1)
    assert not scheduler.workers[1].queue
    assert [a.rank for a in failed(scheduler, 2, 2, 8, 9) if isinstance(a, Assign)] == [1]
    again = scheduler.workers[1].queue[0]
    assert (again.start, again.stop) == (3, 8)
    actions = failed(scheduler, 1, again.number, 3, 4)  # it has tried one more
    assert not [a for a in actions if isinstance(a, Assign)]
    assert scheduler.ledger.pending.contains(4, 8)


def test_a_rank_that_was_alone_when_all_failed_is_not_idle_when_another_joins():
    """It has work: when it falls silent over that, it is noticed, whatever others do."""
    scheduler = make(40, 1, timeout_s=5.0, queue_length=4)
    join(scheduler, 1)
    for i in range(DUBIOUS):
        failed(scheduler, 1, i + 1, i, i + 1)
    join(scheduler, 2, now=1.0)
    done(scheduler, 1, 4, 3, 4, now=2.0)
    for now in (3.0, 4.0, 5.0, 6.0):
        head = scheduler.workers[2].queue[0]
        done(scheduler, 2, head.number, head.start, head.stop, now=now)
    tick(scheduler, 7.5)
    assert scheduler.suspects == {1}


def test_a_success_between_failures_clears_a_rank():
    scheduler = make(40, 2, "CSS:8")
    join(scheduler, 1, 2)
    for item in range(0, 8, 2):
        assert not [a for a in failed(scheduler, 1, 1, item, item + 1) if isinstance(a, Recall)]
        done(scheduler, 1, 1, item + 1, item + 2)


def test_the_only_rank_goes_on_whatever_fails():
    scheduler = make(5, 1)
    join(scheduler, 1)
    for item in range(4):
        assert failed(scheduler, 1, item + 1, item, item + 1)[0].rank == 1


# ------------------------------------------------------------------- who takes over


def test_the_fastest_idle_rank_is_asked_first():
    """A slow rank that would gain nothing does not keep a fast one from taking over."""
    scheduler = make_with_sizes([4, 1, 1])
    join(scheduler, 1, 2, 3)  # 1: [0, 4); 2: [4, 5); 3: [5, 6)
    done(scheduler, 1, 1, 0, 1, now=1.0, block_s=10.0)
    done(scheduler, 2, 2, 4, 5, now=1.0, block_s=300.0)
    taken = done(scheduler, 3, 3, 5, 6, now=1.0, block_s=1.0)
    assert [a.rank for a in taken if isinstance(a, Assign)] == [3]


def test_a_rank_that_was_beyond_where_it_was_cut_leaves_the_other_only_the_rest():
    scheduler = Scheduler(Ledger(20, 1), Sizer(parse_policy("STATIC").make(20, 2)), Deadlines(), 2)
    for rank in (1, 2):
        scheduler.handle(WorkerJoined(rank), 0.0)
    actions = scheduler.handle(ChunkDone(2, 2, 10, 20, 5.0, 0.5), 5.0)
    (trim,) = [action for action in actions if isinstance(action, Trim)]
    (half,) = [action for action in actions if isinstance(action, Assign)]
    assert (trim.rank, trim.attempt, half.rank) == (1, 1, 2)
    assert (half.start, half.stop) == (trim.stop, 10)
    reached = trim.stop + 1
    assert reached < 10
    actions = scheduler.handle(ChunkDone(1, 1, 0, reached, 5.2, 0.7), 5.2)
    assert Recall(2, half.attempt) in actions
    open_parts = sorted((a.start, a.stop) for a in scheduler.ledger.attempts.values())
    assert min(start for start, _ in open_parts) == reached
    scheduler.ledger.check()


def test_what_is_in_trouble_is_not_split_or_doubled():
    scheduler = make(8, 3, "CSS:4", timeout_s=5.0)
    join(scheduler, 1, 2)  # 1: [0, 4), 2: [4, 8)
    tick(scheduler, 5.0)  # both are suspect, and struck
    scheduler.handle(WorkerSpoke(1), 5.1)
    scheduler.handle(WorkerSpoke(2), 5.1)
    done(scheduler, 1, 1, 0, 1, now=5.2)
    assert all(a.care is not PLAIN for a in join(scheduler, 3, now=9.0) if isinstance(a, Assign))


def test_who_joins_while_the_run_stops_is_told_to():
    scheduler = make(9, 3, "CSS:3")
    join(scheduler, 1, 2)
    scheduler.handle(StopRequested(10.0), 1.0)
    actions = scheduler.handle(WorkerJoined(3, (Held(77, 6, 9),)), 2.0)
    assert actions == [Drain(3)]


def test_without_any_sign_of_a_rank_the_master_computes_after_all():
    scheduler = make(9, 2)
    scheduler.handle(Tick(), 0.0)
    assert scheduler.next_deadline() == STARTUP_PATIENCE * FLOOR_S
    assert tick(scheduler, STARTUP_PATIENCE * FLOOR_S) == [Hire()]


# --------------------------------------------------------------------- time, and laws


def test_time_is_an_argument():
    """The same events at times moved by a constant give the same actions and moved deadlines."""

    def play(offset):
        scheduler = make(12, 3, "FAC2", timeout_s=4.0)
        log = [join(scheduler, 1, 2, 3, now=offset)]
        log.append(done(scheduler, 1, 1, 0, 2, now=offset + 1))
        log.append(scheduler.handle(Tick(), offset + 4))
        log.append(done(scheduler, 2, 2, 2, 4, now=offset + 4.5))
        log.append(scheduler.handle(WorkerLost(3), offset + 5))
        return log, scheduler.next_deadline() - offset

    assert play(0.0) == play(4096.0)


def test_what_failed_does_not_wait_for_a_rank_that_waits_itself():
    """Rank 1 waits until 2 has tried what failed on it; what fails on 2 then is for 2 again."""
    scheduler = make(8, 2, n_retries=9)
    join(scheduler, 1, 2)
    for number, item in ((1, 0), (3, 2), (5, 4)):
        failed(scheduler, 1, number, item, item + 1)
    while not scheduler.ended:
        held = [attempt for worker in scheduler.workers.values() for attempt in worker.queue]
        assert held, "both wait for each other"
        assert {attempt.rank for attempt in held} == {2}
        attempt = held[0]
        if attempt.start == 7 and scheduler.counters.n_failures == 3:
            failed(scheduler, 2, attempt.number, 7, 8)
        else:
            done(scheduler, 2, attempt.number, attempt.start, attempt.stop)
    assert scheduler.counters.n_failures == 4


@dataclass
class Ranks:
    """Ranks as the scheduler's actions leave them, and their messages that have not yet arrived."""

    scheduler: Scheduler
    block: int
    waiting: list[int]  # have yet to join
    n_retries: int
    skip: bool
    queues: dict[int, list[list]] = field(default_factory=dict)  # rank -> [attempt, at, stop, care]
    flying: list = field(default_factory=list)
    recorded: Counter = field(default_factory=Counter)  # skipped items too
    n_failures: Counter = field(default_factory=Counter)  # of the block that begins there
    told_to_drain: set[int] = field(default_factory=set)
    grace_ends: float | None = None
    n_hired: int = 0
    endings: list = field(default_factory=list)

    def handle(self, event, now):
        ledger = self.scheduler.ledger
        if isinstance(event, ChunkFailed) and not ledger.done.intersects(event.start, event.stop):
            self.n_failures[event.start] += 1
        for action in self.scheduler.handle(event, now):
            assert not self.endings, "an action after the end"
            getattr(self, f"_{type(action).__name__.lower()}")(action)
        laws(self)

    def _assign(self, action):
        assert self.grace_ends is None, "handed out although the run is to stop"
        assert action.start < action.stop
        for start in range(action.start, action.stop, self.block):
            assert may_try(self.scheduler, action.rank, start), "back to where it failed"
        self.queues[action.rank].append([action.attempt, action.start, action.stop, action.care])

    def _recall(self, action):
        queue = self.queues[action.rank]
        queue[:] = [held for held in queue if held[0] != action.attempt]

    def _trim(self, action):
        for held in self.queues[action.rank]:
            if held[0] == action.attempt:
                held[2] = min(held[2], max(held[1], action.stop))
        self.queues[action.rank] = [held for held in self.queues[action.rank] if held[1] < held[2]]

    def _drain(self, action):
        assert self.grace_ends is not None
        self.told_to_drain.add(action.rank)

    def _record(self, action):
        self.recorded.update(i for start, stop in action.ranges for i in range(start, stop))

    def _discard(self, action):
        assert action.n_items > 0

    def _skip(self, action):
        assert self.skip
        assert action.n_tries == self.n_failures[action.item] > self.n_retries
        self.recorded[action.item] += 1

    def _hire(self, action):
        assert self.scheduler.suspects == set(self.scheduler.workers), "hired although one is there"
        self.n_hired += 1
        self.waiting.append(0)

    def _giveup(self, action):
        assert not self.skip
        if "tried" in action.reason:
            assert action.reason == f"boom (tried {self.n_retries + 1} times)"
            assert self.n_retries + 1 in self.n_failures.values()
        self.endings.append(action)

    def _finish(self, action):
        assert len(self.recorded) == self.scheduler.ledger.n_items
        self.endings.append(action)

    def _stop(self, action):
        assert self.grace_ends is not None
        self.endings.append(action)

    # ---- what ranks do

    def join(self, now, holding=()):
        rank = self.waiting.pop()
        self.queues[rank] = [[*held, PLAIN] for held in holding]
        self.handle(WorkerJoined(rank, tuple(holding)), now)

    def compute(self, rank, n_blocks, units=lambda start, stop: None):
        """Compute some blocks of the head of a rank's queue, and send the result."""
        attempt, start, end, _ = held = self.queues[rank][0]
        held[1] = stop = min(start + n_blocks * self.block, end)
        if stop == end:
            self.queues[rank].pop(0)
        n_blocks = -(-(stop - start) // self.block)
        self.flying.append(ChunkDone(rank, attempt, start, stop, n_blocks, 1.0, units(start, stop)))

    def fail(self, rank):
        """Fail in the first block of the head of a rank's queue; one at a time an item may be skipped."""
        *_, care = self.queues[rank][0]
        self.compute(rank, 1)
        done = self.flying[-1]
        is_final = bool(care & ITEMWISE)
        if not (is_final and self.skip):
            self.flying[-1] = ChunkFailed(rank, done.attempt, done.start, done.stop, "boom", "", is_final)

    def drain(self, rank):
        self.told_to_drain.discard(rank)
        self.queues[rank].clear()
        self.flying.append(WorkerDrained(rank))

    def lose(self, rank, now):
        self.queues.pop(rank, None)
        self.told_to_drain.discard(rank)
        if rank in self.waiting:
            self.waiting.remove(rank)
        self.handle(WorkerLost(rank), now)

    def in_flight(self):
        """The attempts of which a part has not arrived, and the ranks whose last word has not."""
        drained = {event.rank for event in self.flying if isinstance(event, WorkerDrained)}
        numbers = {event.attempt for event in self.flying if not isinstance(event, WorkerDrained)}
        return numbers, drained


def may_try(scheduler, rank, item):
    """Whether a rank may compute an item: not if it failed there, while others are there to try."""
    trouble = scheduler.ledger.troubles.at(item)
    there = {r for r in set(scheduler.workers) - scheduler.suspects if not is_dubious(scheduler, r)}
    return trouble is None or rank not in trouble.failed_on or there <= trouble.failed_on


def is_dubious(scheduler, rank):
    """Whether a rank has to wait: blocks fail on it in a row, and others are there that do better."""
    there = [worker for worker in scheduler.workers.values() if not worker.suspect]
    failing = scheduler.workers[rank].n_failed >= DUBIOUS
    return failing and any(worker.n_failed < DUBIOUS for worker in there)


def halves(start, stop, block):
    middle = start + (stop - start) // (2 * block) * block
    return tuple((a, b) for a, b in ((start, middle), (middle, stop)) if a < b)


def laws(ranks):
    scheduler, ledger = ranks.scheduler, ranks.scheduler.ledger
    ledger.check()
    assert all(count == 1 for count in ranks.recorded.values()), "an item was recorded twice"
    assert set(ranks.recorded) == {i for a, b in ledger.done for i in range(a, b)}
    assert len(ranks.endings) <= 1
    assert ranks.n_hired <= 1
    assert scheduler.ended == bool(ranks.endings)
    if scheduler.ended:
        return
    flying, drained = ranks.in_flight()
    held = {attempt for queue in ranks.queues.values() for attempt, *_ in queue}
    for attempt in ledger.attempts.values():
        assert attempt.number in held | flying or attempt.rank in drained, "in force, but nobody's"
    for rank, worker in scheduler.workers.items():
        assert len(worker.queue) <= 2
        if worker.queue or worker.suspect or ranks.grace_ends is not None or is_dubious(scheduler, rank):
            continue
        for start, stop in ledger.pending:
            for item in range(start, stop, ranks.block):
                assert not may_try(scheduler, rank, item), f"rank {rank} idles while items are pending"


def draw_done(data, n_items, block):
    """Blocks that were done before."""
    indices = data.draw(st.sets(st.integers(0, (n_items - 1) // block), max_size=4))
    return [(i * block, min((i + 1) * block, n_items)) for i in indices]


def draw_holding(data, n_items, block, numbers):
    """What a rank has of an earlier master: at most two attempts, whatever may have become of them."""
    last = (n_items - 1) // block
    holding = []
    for _ in range(data.draw(st.sampled_from([0, 0, 1, 2]))):
        first = data.draw(st.integers(0, last))
        stop = min((data.draw(st.integers(first, last)) + 1) * block, n_items)
        holding.append(Held(next(numbers), first * block, stop))
    return holding


def random_step(data, ranks, numbers, now):
    """One event that can come now, performed; return the time."""
    busy = [rank for rank, queue in ranks.queues.items() if queue]
    mortal = sorted({*ranks.queues, *ranks.waiting} - {0})
    often = {"join": ranks.waiting, "compute": busy, "arrive": ranks.flying}
    seldom = {
        "fail": busy,
        "tick": True,
        "speak": ranks.queues,
        "lose": mortal,
        "away": True,
        "drain": ranks.told_to_drain,
    }
    names = [name for name, there in often.items() if there]
    name = data.draw(st.sampled_from(names * 3 + [name for name, there in seldom.items() if there]))
    n_items, block = ranks.scheduler.ledger.n_items, ranks.block
    if name == "join":
        is_worker = ranks.waiting[-1] != 0
        ranks.join(now, draw_holding(data, n_items, block, numbers) if is_worker else ())
    elif name == "compute":
        is_whole = data.draw(st.booleans())
        ranks.compute(
            data.draw(st.sampled_from(busy)),
            data.draw(st.integers(1, 8)),
            (lambda start, stop: None) if is_whole else lambda start, stop: halves(start, stop, block),
        )
    elif name == "fail":
        ranks.fail(data.draw(st.sampled_from(busy)))
    elif name == "arrive":
        event = ranks.flying.pop(data.draw(st.integers(0, len(ranks.flying) - 1)))
        if isinstance(event, ChunkDone) and data.draw(st.sampled_from([False] * 9 + [True])):
            ranks.flying.append(event)  # it will come again
        ranks.handle(event, now)
    elif name == "lose":
        ranks.lose(data.draw(st.sampled_from(mortal)), now)
    elif name == "drain":
        ranks.drain(min(ranks.told_to_drain))
    elif name == "speak":
        ranks.handle(WorkerSpoke(data.draw(st.sampled_from(sorted(ranks.queues)))), now)
    elif name == "away":
        now += 5.0
        ranks.handle(MasterAway(5.0), now)
    else:
        ranks.handle(Tick(), now)
    return now


def go_well(ranks, now):
    """From here all goes well: the run must end, and for want of no Tick but that of a stop."""
    while not ranks.scheduler.ended:
        busy = [rank for rank, queue in ranks.queues.items() if queue]
        if ranks.flying:
            ranks.handle(ranks.flying.pop(0), now)
        elif ranks.waiting:
            ranks.join(now)
        elif busy:
            ranks.compute(busy[0], 10**6)
        else:
            assert ranks.grace_ends is not None, "nobody has anything to do"
            ranks.handle(Tick(), ranks.grace_ends)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(0, 5),
    st.sampled_from(["SS", "CSS:3", "GSS", "FAC2", "STATIC", "TSS"]),
    st.integers(0, 2),
    st.booleans(),
    st.data(),
)
def test_each_item_is_recorded_once_whatever_happens(
    n_items, block, n_workers, policy, n_retries, skip, data
):
    before = draw_done(data, n_items, block)
    options = {"done": before, "first_attempt": 1000, "n_retries": n_retries, "skip": skip}
    scheduler = make(n_items, n_workers, policy, timeout_s=3.0, block=block, **options)
    ranks = Ranks(scheduler, block, list(range(1, n_workers + 1)), n_retries, skip)
    ranks.recorded.update(i for start, stop in before for i in range(start, stop))
    if scheduler.ledger.complete:
        return  # there is nothing to run
    numbers, now = iter(range(1, 1000)), 0.0
    ranks.handle(Tick(), now)
    n_steps = data.draw(st.integers(0, 60))
    stop_at_step = data.draw(st.none() | st.integers(0, 60))
    for step in range(n_steps):
        if scheduler.ended:
            break
        now += data.draw(st.sampled_from([0.0, 0.5, 2.0]))
        if step == stop_at_step:
            ranks.grace_ends = now + 4.0
            ranks.handle(StopRequested(4.0), now)
        else:
            now = random_step(data, ranks, numbers, now)
    go_well(ranks, now)


@pytest.fixture
def tried(monkeypatch):
    """The ranks that look for work in what others hold: in vain, and so not again within a second."""
    if not isfunction(Takeover.find):
        pytest.skip("compiled: nothing can be put in its place")
    ranks = []

    def find(takeover, worker, now):
        ranks.append(worker.rank)
        takeover.look_again_at = now + 1.0
        return []

    monkeypatch.setattr(Takeover, "find", find)
    return ranks


@pytest.mark.parametrize("most", [2, 1000])
def test_of_very_many_idle_ranks_others_are_looked_at_each_time(monkeypatch, tried, most):
    monkeypatch.setattr("mpims.core.dispatch.MOST_SORTED", most)
    scheduler = make(1, 7, timeout_s=inf)
    join(scheduler, *range(1, 8))
    tried.clear()
    for now in (10.0, 20.0, 30.0):
        tick(scheduler, now)
    assert len(scheduler._dispatch.idle) == 6
    assert len(set(tried)) == (3 if most == 2 else 1)


@pytest.mark.parametrize(("most", "asking"), [(3, [2, 3, 4, 5]), (10_000, [2, 3, 4, 5, 6])])
def test_of_very_many_idle_ranks_none_looks_where_another_has_just_found_nothing(
    monkeypatch, tried, most, asking
):
    monkeypatch.setattr("mpims.core.dispatch.MOST_ASKING", most)
    scheduler = make(1, 9, timeout_s=inf)
    join(scheduler, *range(1, 7))
    assert tried == asking
    join(scheduler, 7, now=1.0)
    assert tried == [*asking, 7]
    tick(scheduler, 1.9)
    assert tried == [*asking, 7]
