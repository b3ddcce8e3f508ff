"""Several results at once: what the ledger knows afterwards is what it knows of them one by one."""

from __future__ import annotations

import pytest

from mpims.core.chunks import Assign, AssignAlike, Result
from mpims.core.deadlines import Deadlines
from mpims.core.events import ChunkDone, ChunksDone, Record, Tick, WorkerJoined
from mpims.core.ledger import Ledger
from mpims.core.policies import Sizer, parse_policy
from mpims.core.scheduler import Scheduler

N_ITEMS = 40


def begin():
    """Two ranks that hold four chunks of one item each: 1, 3, 5, 7 and 2, 4, 6, 8 are their attempts."""
    sizer = Sizer(parse_policy("SS").make(N_ITEMS, 2))
    scheduler = Scheduler(Ledger(N_ITEMS, 1), sizer, Deadlines(5.0), 2, queue_length=4)
    for rank in (1, 2):
        scheduler.handle(WorkerJoined(rank), 0.0)
    return scheduler


def held(scheduler, rank):
    return [Result(a.number, a.start, a.stop, 0.1, 0.1) for a in scheduler.workers[rank].queue]


def recorded(actions):
    return sorted(span for action in actions if isinstance(action, Record) for span in action.ranges)


def assigned(actions):
    """The chunks that are handed out, each by itself."""
    return [
        chunk
        for action in actions
        if isinstance(action, (Assign, AssignAlike))
        for chunk in (action.singly() if isinstance(action, AssignAlike) else [action])
    ]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_front_of_a_queue_is_taken_in_at_once(n):
    together, apart = begin(), begin()
    results = held(together, 1)[:n]
    actions = together.handle(ChunksDone(1, results, [None] * n), 1.0)
    single = []
    for r in results:
        single += apart.handle(ChunkDone(1, r.attempt, r.start, r.stop, 0.1, 0.1), 1.0)
    together.ledger.check()
    assert list(together.ledger.done) == list(apart.ledger.done)
    assert sum(stop - start for start, stop in recorded(actions)) == n
    assert assigned(actions) == assigned(single)
    assert len(assigned(actions)) == n
    assert [held(together, rank) for rank in (1, 2)] == [held(apart, rank) for rank in (1, 2)]


def test_units_stay_whole():
    """Neighbours are one range where they can be cut anywhere, and several where they cannot."""
    for has_units in (False, True):
        scheduler = begin()
        first, *rest = held(scheduler, 1)
        scheduler.handle(ChunkDone(1, first.attempt, first.start, first.stop, 0.1, 0.1), 1.0)
        spans = [(r.start, r.stop) for r in rest]
        assert spans[0][1] == spans[1][0]
        units = [(span,) if has_units else None for span in spans]
        taken = recorded(scheduler.handle(ChunksDone(1, rest, units), 2.0))
        assert taken == (spans if has_units else [(spans[0][0], spans[-1][1])])


def test_what_another_answered_first_is_not_committed_again():
    """Rank 1 is silent, all that it held goes to rank 2 and is done; then it answers all the same."""
    scheduler = begin()
    late = held(scheduler, 1)
    scheduler.handle(ChunkDone(2, 99, late[1].start, late[1].stop, 0.1, 0.1), 1.0)
    actions = scheduler.handle(ChunksDone(1, late, [None] * 4), 2.0)
    scheduler.ledger.check()
    assert (late[1].start, late[1].stop) not in recorded(actions)
    assert sum(stop - start for start, stop in recorded(actions)) == 3


def test_a_rank_that_was_given_up_may_answer():
    scheduler = begin()
    late = held(scheduler, 1)
    scheduler.handle(ChunkDone(2, held(scheduler, 2)[0].attempt, 1, 2, 0.1, 0.1), 4.0)
    scheduler.handle(Tick(), 6.0)
    assert scheduler.workers[1].suspect
    scheduler.handle(ChunksDone(1, late, [None] * 4), 7.0)
    scheduler.ledger.check()
    assert not scheduler.workers[1].suspect


@pytest.mark.parametrize(("policy", "n_items"), [("SS", 40), ("CSS:3", 11), ("GSS", 40)])
def test_chunks_of_one_size_are_handed_out_as_one(policy, n_items):
    """What a rank is told is what the ledger has, in one action if the sizes are known before."""
    sizer = Sizer(parse_policy(policy).make(n_items, 1))
    scheduler = Scheduler(Ledger(n_items, 1), sizer, Deadlines(5.0), 1, queue_length=20)
    actions = [a for a in scheduler.handle(WorkerJoined(1), 0.0) if isinstance(a, (Assign, AssignAlike))]
    queue = [(a.number, a.start, a.stop) for a in scheduler.workers[1].queue]
    assert [(a.attempt, a.start, a.stop) for a in assigned(actions)] == queue
    is_constant = not policy.startswith("GSS")
    assert any(isinstance(action, AssignAlike) for action in actions) is is_constant
    assert (len(actions) < len(queue)) is is_constant
    assert sum(getattr(action, "n_chunks", 1) for action in actions) == len(queue)
