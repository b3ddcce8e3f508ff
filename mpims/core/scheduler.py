"""The scheduler: events and the time go in, actions come out.

State
-----
A rank that is silent with work past its deadline is *suspect*: what it held is pending again and it
gets nothing new until it speaks. What is handed out to whom is `mpims.core.dispatch`'s.

=============== ====================================================================
event           what happens
=============== ====================================================================
WorkerJoined    the rank gets its first chunk; once all have joined, each its next
ChunkDone       the rank is fed, then its result recorded or discarded; Finish at the end
ChunksDone      the same for several
ChunkFailed     the block is tried again, on another rank if there is one, then one item
                at a time; an item that fails alone too often is skipped, or ends the run
WorkerLost      what the rank held is pending again; Hire if it was the last in service
WorkerSpoke     the rank is there: its silence begins anew
Tick            ranks silent past their deadline become suspect; idle ranks get their work; Stop
                if there is no time for another block
MasterAway      nobody's silence counts for that time
MasterServed    the policy learns what a result costs the master
StopRequested   nothing more is handed out; Drain; Stop once all are drained, or at the
                end of the grace
WorkerDrained   the rank holds nothing more
ItemsAdded      they are pending; ranks that have room get some
ItemsClosed     from now on there is an end: Finish once all is done
ItemsReturned   what an idle rank was to have is pending, and so handed out
=============== ====================================================================

A range over which a rank died or became suspect is from then on computed in isolation.

Invariants: those of `mpims.core.ledger`; a range is handed out only while it is pending, by taking it
from a rank, or as a twin; nothing is handed out after Finish, GiveUp or Stop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpims.core.blame import Blame
from mpims.core.chunks import Care, make
from mpims.core.deadlines import Deadlines
from mpims.core.desertion import Desertion
from mpims.core.dispatch import Dispatch
from mpims.core.events import (
    Action,
    ChunkDone,
    ChunkFailed,
    ChunksDone,
    Drain,
    Event,
    Finish,
    GiveUp,
    ItemsAdded,
    ItemsClosed,
    ItemsReturned,
    MasterAway,
    MasterServed,
    Recall,
    Record,
    Skip,
    Stop,
    StopRequested,
    Tick,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
    WorkerSpoke,
    chunk_done,
)
from mpims.core.handover import Handover
from mpims.core.ledger import Ledger
from mpims.core.measures import QUEUE_LENGTH
from mpims.core.policies import Sizer
from mpims.core.recording import record_fresh, record_runs
from mpims.core.silence import Silence
from mpims.core.troubles import Trouble
from mpims.core.workers import Counters, WorkerState


class Scheduler:
    """The state machine of one master.

    Parameters
    ----------
    ledger
        The items.
    sizer
        The policy within its limits.
    deadlines
        When a silent rank counts as timed out.
    n_workers
        Ranks expected to join.
    n_retries
        A block, and then an item, that has failed more often than this is given up.
    skip
        Whether the run goes on without the items given up.
    queue_length
        Attempts a worker holds at the least; with 1 it waits for each, however short they are.
    longest_queue
        Attempts it holds at the most, if that is not to be found out.
    take_over
        Whether an idle rank takes over what another is not done with, once nothing is left to hand out.
    twins
        Whether it may also compute what another computes, beside it.
    handover
        How it is seen to that nothing taken over is computed twice; None if it is not.
    end_at
        When the time for computing is over: no block is handed out that is not expected to end before,
        and when no rank can do another, the run stops. None if there is no such time.
    """

    def __init__(
        self,
        ledger: Ledger,
        sizer: Sizer,
        deadlines: Deadlines,
        n_workers: int,
        *,
        n_retries: int = 2,
        skip: bool = False,
        queue_length: int = QUEUE_LENGTH,
        longest_queue: int | None = None,
        take_over: bool = True,
        twins: bool = True,
        handover: Handover | None = None,
        end_at: float | None = None,
    ) -> None:
        self.ledger = ledger
        self.counters = Counters()
        self.workers: dict[int, WorkerState] = {}
        self.ended = False
        self._silence = Silence(deadlines)
        self._blame = Blame(self.workers, ledger.troubles)
        self._desertion = Desertion(self.workers, self._silence, n_workers)
        self._n_retries = n_retries
        self._skip = skip
        self._dispatch = Dispatch(
            ledger,
            sizer,
            self.workers,
            blame=self._blame,
            silence=self._silence,
            counters=self.counters,
            queue_length=queue_length,
            take_over=take_over,
            twins=twins,
            handover=handover,
            end_at=end_at,
        )
        if longest_queue is not None:
            self._dispatch.measures.longest_queue = longest_queue
        self._queue_length = queue_length
        self._stop_at: float | None = None  # the end of the grace, once the run is to stop
        self._handlers: dict[type[Event], Callable[[Any, float], list[Action]]] = {
            ChunkDone: self._chunk_done,
            ChunksDone: self._chunks_done,
            ChunkFailed: self._chunk_failed,
            WorkerJoined: self._worker_joined,
            WorkerSpoke: self._worker_spoke,
            WorkerLost: self._worker_lost,
            WorkerDrained: self._worker_drained,
            Tick: self._tick,
            MasterAway: self._master_away,
            MasterServed: self._master_served,
            StopRequested: self._stop_requested,
            ItemsAdded: self._items_added,
            ItemsClosed: self._items_closed,
            ItemsReturned: self._items_returned,
        }

    # ------------------------------------------------------------------ events

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event at time `now` (monotonic seconds); return what is to be done."""
        if self.ended:
            return []
        actions = self._handlers[type(event)](event, now)
        if self._stop_at is not None:
            actions += self._stop_if_drained()
        return actions

    def next_deadline(self) -> float | None:
        """The time at which a Tick is due, if any."""
        due = self._silence.next_at
        for at in (self._dispatch.takeover.look_again_at, self._stop_at, self._desertion.hire_at()):
            if at is not None and (due is None or at < due):
                due = at
        return due

    @property
    def slack_s(self) -> float:
        """For how long probably no rank waits for us: each holds chunks beside the one it computes."""
        newest = self.ledger.newest  # there are no shorter ones: chunks get shorter, if they change
        n_ahead = self._dispatch.n_ahead if newest is not None else 0
        if newest is None or not n_ahead:
            return 0.0
        n_blocks = -((newest.start - newest.stop) // self.ledger.block)
        return n_ahead * self._dispatch.measures.slack_s(n_blocks)

    def explain(self) -> str:
        """Why the chunks were as long as they were, in a phrase, or nothing."""
        return self._dispatch.explain()

    @property
    def suspects(self) -> set[int]:
        """Ranks that are silent past their deadline."""
        return {rank for rank, worker in self.workers.items() if worker.suspect}

    def _worker_joined(self, event: WorkerJoined, now: float) -> list[Action]:
        worker = WorkerState(event.rank, now, self._queue_length)
        self.workers[event.rank] = worker
        self._desertion.end()
        actions: list[Action] = []
        for held in event.holding:
            attempt = self.ledger.adopt(event.rank, held)
            if attempt is None:
                actions.append(Recall(event.rank, held.attempt))
            else:
                worker.queue.append(attempt)
        if worker.queue:
            self._dispatch.note_work(worker)
            actions += [Drain(event.rank)] if self._stop_at is not None else []
        # One chunk each until all are there, or the first to come would take the last one's.
        actions += self._dispatch.feed(worker, now, 1)
        if len(self.workers) >= self._desertion.n_expected:
            for other in list(self.workers.values()):
                actions += self._dispatch.feed(other, now)
        return actions

    def _chunk_done(self, event: ChunkDone, now: float) -> list[Action]:
        """In short in the ordinary case; a hand-out is to cost microseconds."""
        rank, number, start, stop, busy_s, longest_s, units, squares_s2, overhead_s = event
        ledger, dispatch = self.ledger, self._dispatch
        attempt, worker = ledger.attempts.get(number), self.workers.get(rank)
        if (
            attempt is None
            or worker is None
            or worker.suspect
            or dispatch.idle
            or dispatch.takeover.look_again_at is not None
            or not worker.queue
            or worker.queue[0] is not attempt
        ):
            return self._any_chunk_done(event, now)
        fresh = ledger.commit_next(attempt, start, stop, units)
        if fresh is None:
            return self._any_chunk_done(event, now)
        if ledger.done.size == ledger.n_items and ledger.complete:
            self.ended = True
            return [Record(number, fresh), Finish()]
        measures, n_blocks = dispatch.measures, -((start - stop) // ledger.block)
        measures.learn_blocks(worker, n_blocks, busy_s, longest_s, n_blocks)
        if measures.learns:
            whole_s = now - worker.silent_since
            measures.learn_part(worker, attempt, n_blocks, busy_s, squares_s2, whole_s, overhead_s)
        worker.n_failed = 0
        worker.silent_since = now
        actions = dispatch.follow(worker, attempt, now)
        actions.append(make(Record, (number, fresh)))
        return actions

    def _any_chunk_done(self, event: ChunkDone, now: float) -> list[Action]:
        number, stop = event.attempt, event.stop
        ledger, dispatch = self.ledger, self._dispatch
        attempt = ledger.attempts.get(number)
        twin = attempt.twin if attempt is not None else None
        cut_at = attempt.stop if attempt is not None else stop
        fresh = ledger.commit(number, event.start, stop, event.units)
        if ledger.complete:
            self.ended = True
            return [*record_fresh(event, fresh, ledger, self.counters), Finish()]
        worker = self.workers.get(event.rank)
        if attempt is not None and not attempt.care:
            dispatch.measures.learn(worker, attempt, event, now)
        if worker is None:
            actions = []
        else:
            worker.n_failed = 0
            dispatch.advance(worker, attempt or worker.find(number), stop)
            actions = self._revive(worker) if worker.suspect else []
            worker.silent_since = now
            actions += dispatch.feed(worker, now)
        if twin is not None:
            actions += dispatch.end_twin(twin, now)
        if stop > cut_at:
            actions += dispatch.end_overtaken(cut_at, stop, now)
        if dispatch.has_idle:
            actions += dispatch.feed_idle(now)
        return actions + record_fresh(event, fresh, ledger, self.counters)

    def _chunks_done(self, event: ChunksDone, now: float) -> list[Action]:
        """In the ordinary case all at once; a hand-out of short chunks is to cost microseconds."""
        dispatch, results = self._dispatch, event.results
        worker = self.workers.get(event.rank)
        attempts = dispatch.whole(worker, results) if worker is not None else None
        runs = self.ledger.commit_whole(attempts) if attempts is not None else None
        if worker is None or attempts is None or runs is None:
            return self._one_by_one(event, now)
        records = record_runs(event, runs)
        if self.ledger.complete:
            self.ended = True
            return [*records, Finish()]
        dispatch.measures.learn_whole(worker, attempts, results, now)
        dispatch.advance_whole(worker, len(attempts))
        worker.n_failed = 0
        worker.silent_since = now
        return [*dispatch.feed(worker, now), *records]

    def _one_by_one(self, event: ChunksDone, now: float) -> list[Action]:
        actions: list[Action] = []
        for result, units in zip(event.results, event.units, strict=True):
            if not self.ended:
                actions += self._any_chunk_done(chunk_done(event.rank, result, units), now)
        return actions

    def _chunk_failed(self, event: ChunkFailed, now: float) -> list[Action]:
        self.counters.n_failures += 1
        trouble = self.ledger.fail(event.attempt, event.start, event.stop, event.rank)
        if event.final and trouble is not None:
            self.ended = True
            return [GiveUp(event.reason, event.detail)]
        actions: list[Action] = []
        is_last = trouble is not None and trouble.n_failures > self._n_retries
        if trouble is not None and is_last:
            if event.stop - event.start > 1:
                trouble.care |= Care.ITEMWISE
            elif self._skip:
                actions += self._give_up_item(event, trouble)
            else:
                self.ended = True
                times = f" (tried {trouble.n_failures} times)" if trouble.n_failures > 1 else ""
                return [GiveUp(event.reason + times, event.detail)]
        if self.ended:
            return actions
        worker = self.workers.get(event.rank)
        if worker is not None:
            self._dispatch.advance(worker, worker.find(event.attempt), event.stop)
            actions += self._heard(worker, now)
            self._blame.count_failure(worker, trouble, is_last=is_last)
            if self._blame.is_dubious(worker):
                actions += self._dispatch.recall_all(worker)
            actions += self._dispatch.feed(worker, now)
        return actions + self._dispatch.feed_idle(now)

    def _give_up_item(self, event: ChunkFailed, trouble: Trouble) -> list[Action]:
        self.ledger.skip(event.start, event.stop)
        self.counters.n_skipped += 1
        actions: list[Action] = [
            Skip(event.start, event.rank, trouble.n_failures, event.reason, event.detail)
        ]
        if self.ledger.complete:
            self.ended = True
            actions.append(Finish())
        return actions

    def _worker_spoke(self, event: WorkerSpoke, now: float) -> list[Action]:
        worker = self.workers.get(event.rank)
        if worker is None:
            return []
        was_suspect = worker.suspect
        actions = self._heard(worker, now)
        return [*actions, *self._dispatch.feed(worker, now)] if was_suspect else actions

    def _worker_lost(self, event: WorkerLost, now: float) -> list[Action]:
        self._desertion.n_expected -= 1
        self.counters.n_lost += 1
        worker = self.workers.pop(event.rank, None)
        if worker is not None:
            self._strike(worker)
            self._dispatch.forget(worker)
        if self._stop_at is not None:
            return []
        if self._desertion.n_expected == 0:
            return self._desertion.hire()
        self._desertion.note(now)
        return self._dispatch.feed_idle(now)

    def _tick(self, event: Tick, now: float) -> list[Action]:
        if self._stop_at is not None and self._stop_at <= now:
            self.ended = True
            return [Stop()]
        for worker in self._silence.overdue(self.workers, now):
            worker.suspect = True
            self.counters.n_timeouts += 1
            self._strike(worker)
            self._dispatch.release(worker)
        if self._stop_at is not None:
            return []
        if self._dispatch.is_out_of_time(now):
            self.ended = True
            return [Stop()]
        self._desertion.note(now)
        hire_at = self._desertion.hire_at()
        if self._desertion.n_expected == 0 or (hire_at is not None and hire_at <= now):
            return self._desertion.hire()
        return self._dispatch.feed_idle(now)

    def _items_added(self, event: ItemsAdded, now: float) -> list[Action]:
        self.ledger.add(event.n_items)
        return self._dispatch.feed_added(now, event.near)

    def _items_returned(self, event: ItemsReturned, now: float) -> list[Action]:
        worker = self.workers.get(event.rank)
        if worker is None:
            return []
        actions = self._dispatch.returned(worker, event.attempt, event.start, now)
        return [*actions, *self._worker_spoke(WorkerSpoke(event.rank), now)]

    def _items_closed(self, event: ItemsClosed, now: float) -> list[Action]:
        self.ledger.is_open = False
        if not self.ledger.complete:
            return []
        self.ended = True
        return [Finish()]

    def _master_away(self, event: MasterAway, now: float) -> list[Action]:
        for worker in self.workers.values():
            worker.silent_since += event.duration_s
        self._desertion.shift(event.duration_s)
        return []

    def _master_served(self, event: MasterServed, now: float) -> list[Action]:
        self._dispatch.measures.learn_service(event.service_s)
        return []

    # ------------------------------------------------------------------- stopping

    def _stop_requested(self, event: StopRequested, now: float) -> list[Action]:
        self._stop_at = now + event.grace_s
        self._dispatch.closed, self._dispatch.takeover.look_again_at = True, None
        return [Drain(rank) for rank, worker in self.workers.items() if worker.queue]

    def _worker_drained(self, event: WorkerDrained, now: float) -> list[Action]:
        worker = self.workers.get(event.rank)
        if worker is not None:
            self._dispatch.drop_all(worker)
        return []

    def _stop_if_drained(self) -> list[Action]:
        """Stop once nothing more can come in time; a suspect is not waited for."""
        if self.ended or any(w.queue and not w.suspect for w in self.workers.values()):
            return []
        self.ended = True
        return [Stop()]

    # ------------------------------------------------------------------- silence

    def _strike(self, worker: WorkerState) -> None:
        """What a rank was computing may be what killed it, or hung it."""
        for attempt in worker.begun:
            self.ledger.strike(attempt.start, attempt.stop)

    def _heard(self, worker: WorkerState, now: float) -> list[Action]:
        """A rank has spoken."""
        worker.silent_since = now
        return self._revive(worker) if worker.suspect else []

    def _revive(self, worker: WorkerState) -> list[Action]:
        self._desertion.end()
        return self._dispatch.revive(worker)
