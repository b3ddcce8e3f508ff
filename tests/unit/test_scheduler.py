"""The scheduler: exact actions for small scenarios, and its laws in random ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.deadlines import FLOOR_S, Deadlines
from mpims.core.events import (
    Assign,
    ChunkDone,
    ChunkFailed,
    Discard,
    Finish,
    GiveUp,
    Recall,
    Record,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from mpims.core.ledger import Ledger
from mpims.core.policies import Policy, Sizer, parse_policy
from mpims.core.scheduler import PATIENCE, Scheduler


def make(n_items, n_workers, policy="SS", timeout_s=None, block=1):
    technique, size = parse_policy(policy)
    n_blocks = -(-n_items // block)
    sizer = Sizer(technique(n_blocks, n_workers, size))
    return Scheduler(Ledger(n_items, block), sizer, Deadlines(timeout_s), n_workers)


def join(scheduler, *ranks, now=0.0):
    return [action for rank in ranks for action in scheduler.handle(WorkerJoined(rank), now)]


def done(scheduler, rank, attempt, start, stop, now=1.0, units=None, block_s=0.1):
    event = ChunkDone(rank, attempt, start, stop, block_s, block_s, units)
    return scheduler.handle(event, now)


def counters(scheduler):
    """The counters that are not 0."""
    names = type(scheduler.counters).__slots__
    values = {name: getattr(scheduler.counters, name) for name in names}
    return {name: value for name, value in values.items() if value}


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
    assert done(scheduler, 1, 1, 0, 1) == [Record(1, ((0, 1),))]
    assert done(scheduler, 2, 2, 1, 2) == [Record(2, ((1, 2),)), Finish()]
    assert scheduler.ended
    assert done(scheduler, 2, 2, 1, 2) == []
    for event in (Tick(), WorkerLost(1), WorkerLost(2), WorkerJoined(3), ChunkFailed(1, 1, 0, 1, "", "")):
        assert scheduler.handle(event, 99.0) == []


def test_an_answer_to_an_overtaken_attempt_can_be_the_last():
    scheduler = make(4, 2, "CSS:4", timeout_s=5.0)
    join(scheduler, 1, 2)
    assert scheduler.handle(Tick(), 5.0) == [Assign(2, 2, 0, 4)]
    assert done(scheduler, 2, 2, 0, 2, now=6.0) == [Record(2, ((0, 2),))]
    assert done(scheduler, 1, 1, 0, 4, now=7.0) == [Record(1, ((2, 4),)), Discard(1, 2), Finish()]
    assert counters(scheduler)["n_duplicates"] == 2


def test_a_failure_of_the_users_code_ends_the_run():
    scheduler = make(10, 2)
    join(scheduler, 1, 2)
    failed = ChunkFailed(1, 1, 0, 1, "ZeroDivisionError: division by zero", "Traceback ...")
    assert scheduler.handle(failed, 1.0) == [GiveUp(failed.reason, failed.detail)]
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
    assert done(scheduler, 2, 2, 2, 4) == [Recall(1, 3), Assign(2, 4, 4, 6), Record(2, ((2, 4),))]
    assert done(scheduler, 1, 1, 0, 2) == [Record(1, ((0, 2),))]
    assert done(scheduler, 1, 3, 4, 5) == [Record(3, ((4, 5),))]
    assert done(scheduler, 2, 4, 4, 6) == [Record(4, ((5, 6),)), Discard(4, 1), Finish()]
    assert counters(scheduler) == {"n_chunks": 4, "n_recalled": 1, "n_duplicates": 1}


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
    assert done(scheduler, 3, 3, 2, 3, now=4.0) == [Record(3, ((2, 3),))]
    assert scheduler.handle(Tick(), 4.9) == []
    assert scheduler.handle(Tick(), 5.0) == [Assign(3, 6, 0, 1)]
    assert counters(scheduler) == {"n_chunks": 6, "n_recalled": 1, "n_reissued": 1, "n_timeouts": 1}


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
    scheduler = make(10, 2, "CSS:9", timeout_s=5.0)
    join(scheduler, 1, 2)  # 1: [0, 9); 2: [9, 10)
    done(scheduler, 2, 2, 9, 10, now=1.0)
    for now in (4.0, 8.0, 12.0):
        done(scheduler, 1, 1, int(now) // 4 - 1, int(now) // 4, now=now)
        assert scheduler.handle(Tick(), now) == []
    assert not scheduler.workers[2].suspect
    assert scheduler.workers[2].silent_since == 1.0


def test_its_silence_begins_when_it_gets_work():
    scheduler = make(2, 2, "CSS:2", timeout_s=5.0)
    join(scheduler, 1, 2)
    assert scheduler.handle(Tick(), 50.0) == [Assign(2, 2, 0, 2)]
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
    assert done(scheduler, 1, 3, 6, 9, now=8.0) == [Record(3, ((6, 9),))]


def test_a_suspect_that_speaks_drops_what_others_have():
    scheduler = make(9, 2, "CSS:3", timeout_s=5.0)
    join(scheduler, 1, 2)  # 1: [0, 3) and [6, 9); 2: [3, 6)
    scheduler.handle(ChunkDone(2, 2, 3, 4, 1.0, 1.0), 4.0)
    scheduler.handle(Tick(), 5.0)
    assert done(scheduler, 2, 2, 4, 6, now=6.0) == [
        Assign(2, 4, 0, 3),
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
    assert done(scheduler, 2, 4, 0, 3, now=8.0) == [Record(4, ((1, 3),)), Discard(4, 1)]


def test_with_all_silent_the_users_limit_ends_the_run_after_a_while():
    scheduler = make(10, 2, timeout_s=5.0)
    join(scheduler, 1, 2)
    now = 0.0
    actions = []
    while not actions:
        now = scheduler.next_deadline()
        actions = scheduler.handle(Tick(), now)
    assert now == PATIENCE * 5.0
    assert actions == [GiveUp("every rank has been silent for 3 timeouts")]
    assert scheduler.handle(Tick(), now + 1) == []


def test_one_rank_that_speaks_keeps_the_run_going():
    scheduler = make(10, 2, timeout_s=5.0)
    join(scheduler, 1, 2)
    scheduler.handle(Tick(), 5.0)
    scheduler.handle(Tick(), 10.0)
    done(scheduler, 1, 1, 0, 1, now=14.0)
    assert scheduler.handle(Tick(), 15.0) == []
    assert not scheduler.ended


def test_a_learnt_limit_ends_no_run():
    scheduler = make(10, 1)
    join(scheduler, 1)
    done(scheduler, 1, 1, 0, 1, now=1.0)
    for _ in range(20):
        assert scheduler.handle(Tick(), scheduler.next_deadline()) == []
    assert not scheduler.ended


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
    done(scheduler, 3, 3, 2, 3)
    assert scheduler.handle(WorkerLost(1), 2.0) == [Assign(3, 4, 0, 1)]
    assert counters(scheduler) == {"n_chunks": 4, "n_lost": 1, "n_reissued": 1}


def test_what_a_lost_rank_held_waits_for_a_busy_one():
    scheduler = make(6, 2, "CSS:2")
    join(scheduler, 1, 2)  # 1: [0, 2) and [4, 6); 2: [2, 4)
    assert scheduler.handle(WorkerLost(1), 2.0) == []
    assert done(scheduler, 2, 2, 2, 4, now=3.0) == [
        Assign(2, 4, 0, 2),
        Assign(2, 5, 4, 6),
        Record(2, ((2, 4),)),
    ]


def test_a_lost_ranks_last_words_are_still_heard():
    scheduler = make(2, 2)
    join(scheduler, 1, 2)
    scheduler.handle(WorkerLost(1), 1.0)
    assert done(scheduler, 1, 1, 0, 1, now=1.1) == [Record(1, ((0, 1),))]
    assert done(scheduler, 2, 2, 1, 2, now=2.0) == [Record(2, ((1, 2),)), Finish()]


def test_the_last_loss_gives_up():
    scheduler = make(9, 2)
    join(scheduler, 1, 2)
    assert scheduler.handle(WorkerLost(2), 1.0) == []
    assert scheduler.handle(WorkerLost(1), 2.0) == [GiveUp("every worker is lost")]
    assert scheduler.handle(WorkerJoined(3), 3.0) == []


def test_a_rank_lost_before_it_joins_is_not_waited_for():
    scheduler = make(9, 2)
    assert scheduler.handle(WorkerLost(2), 0.0) == []
    assert join(scheduler, 1) == [Assign(1, 1, 0, 1), Assign(1, 2, 1, 2)]


def test_a_rank_lost_while_it_is_idle_gets_nothing_more():
    scheduler = make(3, 3)
    join(scheduler, 1, 2, 3)
    done(scheduler, 3, 3, 2, 3)
    assert scheduler.handle(WorkerLost(3), 2.0) == []
    assert scheduler.handle(WorkerLost(1), 3.0) == []
    assert done(scheduler, 2, 2, 1, 2, now=4.0) == [Assign(2, 4, 0, 1), Record(2, ((1, 2),))]


def test_a_lost_suspect_is_not_reissued_twice():
    scheduler = make(2, 2, "CSS:2", timeout_s=5.0)
    join(scheduler, 1, 2)
    assert scheduler.handle(Tick(), 5.0) == [Assign(2, 2, 0, 2)]
    assert scheduler.handle(WorkerLost(1), 6.0) == []
    assert counters(scheduler) == {"n_chunks": 2, "n_reissued": 1, "n_timeouts": 1, "n_lost": 1}


class Scripted(Policy):
    """Sizes from a list, then 1."""

    name = "SCRIPTED"
    source = "this test"

    def __init__(self, *sizes):
        super().__init__(0, 1)
        self.sizes = list(sizes)

    def propose(self, remaining):
        return self.sizes.pop(0) if self.sizes else 1


def test_what_comes_back_from_a_unit_partly_done_goes_to_the_idle_too():
    """A subtree of which half is done is discarded: its other half is pending again, as two chunks."""
    scheduler = Scheduler(Ledger(6, 1), Sizer(Scripted(4, 1, 1, 4)), Deadlines(10.0), 3)
    join(scheduler, 1, 2, 3)  # 1: [0, 4); 2: [4, 5); 3: [5, 6)
    done(scheduler, 3, 3, 5, 6, now=1.0)
    done(scheduler, 2, 2, 4, 5, now=1.0)
    assert scheduler.handle(Tick(), 10.0) == [Assign(3, 4, 0, 4)]
    assert done(scheduler, 1, 1, 0, 2, now=11.0, units=((0, 2),)) == [
        Recall(1, 1),
        Record(1, ((0, 2),)),
    ]
    actions = done(scheduler, 3, 4, 0, 4, now=12.0, units=((0, 4),))
    holders = {action.start: action.rank for action in actions if isinstance(action, Assign)}
    assert set(holders) == {2, 3}
    assert holders[2] != holders[3], "one rank holds both chunks, and two others idle"


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


@dataclass
class Ranks:
    """Ranks as the scheduler's actions leave them: what each holds, and how far it is."""

    queues: dict[int, list[list[int]]] = field(default_factory=dict)  # rank -> [attempt, at, stop]
    recorded: Counter = field(default_factory=Counter)
    n_discarded: int = 0
    endings: list = field(default_factory=list)

    def perform(self, actions):
        assert not (self.endings and actions), "an action after the end"
        for action in actions:
            if isinstance(action, Assign):
                assert action.start < action.stop
                self.queues[action.rank].append([action.attempt, action.start, action.stop])
            elif isinstance(action, Recall):
                queue = self.queues.get(action.rank, [])
                queue[:] = [held for held in queue if held[0] != action.attempt]
            elif isinstance(action, Record):
                self.recorded.update(i for start, stop in action.ranges for i in range(start, stop))
            elif isinstance(action, Discard):
                assert action.n_items > 0
                self.n_discarded += action.n_items
            else:
                self.endings.append(action)

    def next_part(self, rank, n_blocks, block):
        """Compute some blocks of the head of a rank's queue."""
        held = self.queues[rank][0]
        attempt, start, end = held
        held[1] = stop = min(start + n_blocks * block, end)
        if stop == end:
            self.queues[rank].pop(0)
        return attempt, start, stop


def halves(start, stop, block):
    middle = start + (stop - start) // (2 * block) * block
    return tuple((a, b) for a, b in ((start, middle), (middle, stop)) if a < b)


def laws(scheduler, ranks):
    scheduler.ledger.check()
    assert all(count == 1 for count in ranks.recorded.values()), "an item was recorded twice"
    assert set(ranks.recorded) == {i for a, b in scheduler.ledger.done for i in range(a, b)}
    assert len(ranks.endings) <= 1
    assert scheduler.ended == bool(ranks.endings)
    if scheduler.ended:
        return
    held = {attempt for queue in ranks.queues.values() for attempt, _, _ in queue}
    assert set(scheduler.ledger.attempts) <= held, "an attempt in force that nobody holds"
    for rank, worker in scheduler.workers.items():
        assert len(worker.queue) <= 2
        idle = not worker.suspect and not worker.queue
        assert not (idle and scheduler.ledger.pending.size), f"rank {rank} idles while items are pending"


def random_step(data, scheduler, ranks, block, waiting, now):
    """One event that can come now, performed."""
    busy = [rank for rank, queue in ranks.queues.items() if queue]
    choices = [name for name, there in (("join", waiting), ("part", busy)) if there]
    name = data.draw(st.sampled_from([*choices, *choices, *choices, "tick", "lose"]))
    if name == "join":
        rank = waiting.pop()
        ranks.queues[rank] = []
        actions = scheduler.handle(WorkerJoined(rank), now)
    elif name == "part":
        rank = data.draw(st.sampled_from(busy))
        attempt, start, stop = ranks.next_part(rank, data.draw(st.integers(1, 8)), block)
        units = halves(start, stop, block) if data.draw(st.booleans()) else None
        actions = scheduler.handle(ChunkDone(rank, attempt, start, stop, 1.0, 1.0, units), now)
    elif name == "lose" and len(ranks.queues) > 1:
        rank = data.draw(st.sampled_from(sorted(ranks.queues)))
        del ranks.queues[rank]
        actions = scheduler.handle(WorkerLost(rank), now)
    else:
        actions = scheduler.handle(Tick(), now)
    ranks.perform(actions)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from(["SS", "CSS:3", "GSS", "FAC2", "STATIC", "TSS"]),
    st.data(),
)
def test_each_item_is_recorded_once_whatever_happens(n_items, block, n_workers, policy, data):
    scheduler = make(n_items, n_workers, policy, timeout_s=3.0, block=block)
    ranks, now = Ranks(), 0.0
    waiting = list(range(1, n_workers + 1))
    for _ in range(data.draw(st.integers(0, 40))):
        if scheduler.ended:
            break
        now += data.draw(st.sampled_from([0.0, 0.5, 2.0]))
        random_step(data, scheduler, ranks, block, waiting, now)
        laws(scheduler, ranks)
    while waiting and not scheduler.ended:
        rank = waiting.pop()
        ranks.queues[rank] = []
        ranks.perform(scheduler.handle(WorkerJoined(rank), now))
    while not scheduler.ended:  # from here all goes well: the run must end, and not for want of a Tick
        rank = next(rank for rank, queue in ranks.queues.items() if queue)
        attempt, start, stop = ranks.next_part(rank, 10**6, block)
        ranks.perform(scheduler.handle(ChunkDone(rank, attempt, start, stop, 1.0, 1.0), now))
        laws(scheduler, ranks)
    if ranks.endings == [Finish()]:
        assert set(ranks.recorded) == set(range(n_items))
    else:
        assert ranks.endings == [GiveUp("every rank has been silent for 3 timeouts")]
