"""The end of the time for computing: nothing is begun that cannot be ended."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.chunks import Assign
from mpims.core.deadlines import Deadlines
from mpims.core.events import ChunkDone, Finish, Stop, Tick, WorkerJoined, WorkerLost
from mpims.core.ledger import Ledger
from mpims.core.policies import Sizer, parse_policy
from mpims.core.scheduler import Scheduler


def make(n_items, n_workers, end_at, policy="FAC2", block=1):
    """A scheduler whose time is over at `end_at`."""
    sizer = Sizer(parse_policy(policy).make(-(-n_items // block), n_workers, block))
    return Scheduler(Ledger(n_items, block), sizer, Deadlines(), n_workers, end_at=end_at)


def play(scheduler, n_workers, block_s, block=1):
    """Play the run; give when each rank ended its last block, and the last action."""
    queues = {rank: [] for rank in range(1, n_workers + 1)}
    free_at = dict.fromkeys(queues, 0.0)

    def obey(actions):
        for action in actions:
            if isinstance(action, Assign):
                queues[action.rank].append(action)

    for rank in queues:
        obey(scheduler.handle(WorkerJoined(rank), 0.0))
    now = 0.0
    while any(queues.values()):
        rank = min((r for r in queues if queues[r]), key=lambda r: free_at[r])
        chunk = queues[rank][0]
        stop = min(chunk.start + block, chunk.stop)  # every block is delivered by itself
        now = free_at[rank] = free_at[rank] + block_s
        queues[rank][0] = Assign(rank, chunk.attempt, stop, chunk.stop)
        if stop == chunk.stop:
            del queues[rank][0]
        actions = scheduler.handle(ChunkDone(rank, chunk.attempt, chunk.start, stop, block_s, block_s), now)
        obey(actions)
        if scheduler.ended:
            return free_at, actions[-1]
    actions = scheduler.handle(Tick(), now)
    obey(actions)
    assert not any(queues.values())
    return free_at, actions[-1]


@settings(max_examples=200, deadline=None)
@given(
    n_workers=st.integers(1, 5),
    end_at=st.floats(5, 50),
    block=st.integers(1, 7),
    policy=st.sampled_from(["SS", "FAC2", "GSS", "auto"]),
)
def test_every_block_ends_in_time_and_hardly_any_time_is_left(n_workers, end_at, block, policy):
    scheduler = make(10**6, n_workers, end_at, policy, block)
    # One block is measured before chunks are cut to the time: let none be larger than it allows.
    scheduler._dispatch._sizer._maximum = max(1, int(end_at / 4))
    free_at, last = play(scheduler, n_workers, 1.0, block)
    assert isinstance(last, Stop)
    for ended_at in free_at.values():
        assert end_at - 1.0 - 1e-9 <= ended_at <= end_at


@pytest.mark.parametrize("policy", ["SS", "CSS:3", "GSS"])
def test_a_rank_holds_no_more_chunks_ahead_than_there_is_time_for(policy):
    """Far from the end of the items it holds work for half a second; the time may end before."""
    scheduler = make(10**6, 1, 10.0, policy)
    scheduler._dispatch._sizer._maximum = 3
    (first,) = scheduler.handle(WorkerJoined(1), 0.0)[:1]
    busy_s = 0.01 * first.size
    scheduler.handle(ChunkDone(1, first.attempt, first.start, first.stop, busy_s, 0.01), 10.0 - 0.065)
    assert scheduler.workers[1].length > 10
    assert sum(held.stop - held.start for held in scheduler.workers[1].queue) == 6


def test_a_run_that_is_done_before_knows_nothing_of_it():
    scheduler = make(20, 2, 1000.0)
    _, last = play(scheduler, 2, 1.0)
    assert isinstance(last, Finish)
    undisturbed = make(20, 2, None)
    play(undisturbed, 2, 1.0)
    assert scheduler.counters.n_chunks == undisturbed.counters.n_chunks


def test_a_first_chunk_that_is_too_long_is_handed_out_for_nothing_is_known():
    scheduler = make(1000, 1, 10.0, "STATIC")
    (first,) = [a for a in scheduler.handle(WorkerJoined(1), 0.0) if isinstance(a, Assign)]
    assert (first.start, first.stop) == (0, 1000)


@pytest.mark.parametrize(("end_at", "takes_over"), [(10.0, False), (None, True)])
def test_an_idle_rank_takes_nothing_over_for_which_it_has_no_time(end_at, takes_over):
    scheduler = make(4, 2, end_at, "STATIC")
    for rank in (1, 2):
        scheduler.handle(WorkerJoined(rank), 0.0)
    scheduler.handle(ChunkDone(1, 1, 0, 1, 3.0, 3.0), 3.0)
    actions = scheduler.handle(ChunkDone(1, 1, 1, 2, 6.0, 6.0), 9.0)
    assert any(isinstance(action, Assign) for action in actions) is takes_over


@pytest.mark.parametrize("n_joined", [0, 1])
def test_nobody_is_there_at_the_end(n_joined):
    scheduler = make(10, 2, 10.0)
    for rank in range(1, n_joined + 1):
        scheduler.handle(WorkerJoined(rank), 0.0)
        scheduler.handle(WorkerLost(rank), 1.0)
    assert not any(isinstance(a, Stop) for a in scheduler.handle(Tick(), 9.0))
    assert scheduler.handle(Tick(), 10.0) == [Stop()]
