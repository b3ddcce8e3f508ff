"""The scheduler: events and the time go in, actions come out.

State
-----
A worker has at most two attempts in its queue: the head, which it computes, and the next, which it
holds so that it need not wait. A rank that is silent with work past its deadline is *suspect*: what
it held is pending again and it gets nothing new until it speaks.

============== =====================================================================
event          what happens
============== =====================================================================
WorkerJoined   the rank gets its first chunk; once all have joined, each its next
ChunkDone      the rank is fed, then its result recorded or discarded; Finish at the end
ChunkFailed    GiveUp
WorkerLost     what the rank held is pending again; GiveUp if it was the last
Tick           ranks silent past their deadline become suspect; idle ranks get their work
============== =====================================================================

Invariants: those of `mpims.core.ledger`; a range is handed out only while it is pending or by taking
it from a rank that has not begun it; nothing is handed out after Finish or GiveUp.
"""

from __future__ import annotations

from heapq import heappop, heappush

from mpims.core.deadlines import Deadlines
from mpims.core.events import (
    Action,
    Assign,
    ChunkDone,
    ChunkFailed,
    Discard,
    Event,
    Finish,
    GiveUp,
    Recall,
    Record,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from mpims.core.ledger import Attempt, Ledger
from mpims.core.policies import Sizer

QUEUE_LENGTH = 2
"""Attempts a worker holds: the one it computes and the next."""
PATIENCE = 3.0
"""With every rank suspect, the run is given up after this many of the user's timeouts."""


class WorkerState:
    """What the scheduler knows of one rank."""

    __slots__ = ("has_check", "queue", "rank", "silent_since", "suspect")

    def __init__(self, rank: int, now: float) -> None:
        self.rank = rank
        self.queue: list[Attempt] = []
        self.silent_since = now
        self.suspect = False
        self.has_check = False  # an entry in Scheduler._checks


class Counters:
    """What happened in a run, in numbers."""

    __slots__ = ("n_chunks", "n_duplicates", "n_lost", "n_recalled", "n_reissued", "n_timeouts")

    def __init__(self) -> None:
        self.n_chunks = 0  # chunks handed out, reissued ones included
        self.n_reissued = 0  # attempts whose rest went back to pending
        self.n_recalled = 0  # attempts moved to an idle rank before they were begun
        self.n_duplicates = 0  # items computed again: delivered after another answer
        self.n_timeouts = 0
        self.n_lost = 0


class Scheduler:
    """The state machine of one run.

    Parameters
    ----------
    ledger
        The items, all pending in a new run.
    sizer
        The policy within its limits.
    deadlines
        When a silent rank counts as timed out.
    n_workers
        Ranks expected to join.
    """

    def __init__(self, ledger: Ledger, sizer: Sizer, deadlines: Deadlines, n_workers: int) -> None:
        self.ledger = ledger
        self.counters = Counters()
        self.workers: dict[int, WorkerState] = {}
        self.ended = False
        self._sizer = sizer
        self._deadlines = deadlines
        self._n_expected = n_workers
        self._with_next: dict[int, None] = {}  # ranks that hold a chunk they have not begun
        self._idle: dict[int, None] = {}  # ranks without work
        self._checks: list[tuple[float, int]] = []  # heap of (time, rank): look at its silence then

    # ------------------------------------------------------------------ events

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event at time `now` (monotonic seconds); return what is to be done."""
        if self.ended:
            return []
        if isinstance(event, ChunkDone):
            return self._chunk_done(event, now)
        if isinstance(event, WorkerJoined):
            return self._worker_joined(event, now)
        if isinstance(event, Tick):
            return self._tick(now)
        if isinstance(event, WorkerLost):
            return self._worker_lost(event, now)
        return self._chunk_failed(event)

    def next_deadline(self) -> float | None:
        """The time at which a Tick is due, if any."""
        return self._checks[0][0] if self._checks else None

    @property
    def all_have_next(self) -> bool:
        """Whether every rank holds a chunk beside the one it computes, so that none waits for us."""
        return 0 < len(self.workers) == len(self._with_next)

    def _worker_joined(self, event: WorkerJoined, now: float) -> list[Action]:
        worker = WorkerState(event.rank, now)
        self.workers[event.rank] = worker
        # One chunk each until all are there, or the first to come would take the last one's.
        actions = self._feed(worker, now, 1)
        if len(self.workers) == self._n_expected:
            for other in self.workers.values():
                actions += self._feed(other, now, QUEUE_LENGTH)
        return actions

    def _chunk_done(self, event: ChunkDone, now: float) -> list[Action]:
        ledger = self.ledger
        in_force = event.attempt in ledger.attempts
        fresh = ledger.commit(event.attempt, event.start, event.stop, event.units)
        if ledger.complete:
            self.ended = True
            return [*self._recording(event, fresh), Finish()]
        if in_force:
            self._learn(event.longest_block_s, now)
        worker = self.workers.get(event.rank)
        if worker is None:
            return self._recording(event, fresh)
        worker.silent_since = now
        self._advance(worker, event)
        actions = self._take_back(worker) if worker.suspect else []
        actions += self._feed(worker, now, QUEUE_LENGTH)
        if self._idle:
            actions += self._feed_idle(now)
        actions += self._recording(event, fresh)
        return actions

    def _chunk_failed(self, event: ChunkFailed) -> list[Action]:
        self.ended = True
        return [GiveUp(event.reason, event.detail)]

    def _worker_lost(self, event: WorkerLost, now: float) -> list[Action]:
        self._n_expected -= 1
        self.counters.n_lost += 1
        worker = self.workers.pop(event.rank, None)
        if worker is not None:
            self._release(worker)
            self._idle.pop(event.rank, None)
        if self._n_expected == 0:
            self.ended = True
            return [GiveUp("every worker is lost")]
        return self._feed_idle(now)

    def _tick(self, now: float) -> list[Action]:
        due = []
        while self._checks and self._checks[0][0] <= now:
            due.append(heappop(self._checks)[1])
        for rank in due:
            worker = self.workers.get(rank)
            if worker is None or not worker.has_check:
                continue
            worker.has_check = False
            allowance = self._deadlines.allowance_s
            if not worker.queue or allowance is None:
                continue
            if worker.suspect:
                if self._all_silent(now):
                    self.ended = True
                    return [GiveUp(f"every rank has been silent for {PATIENCE:.0f} timeouts")]
            elif worker.silent_since + allowance <= now:
                self._suspect(worker)
            self._schedule_check(worker, now)
        return self._feed_idle(now)

    def _advance(self, worker: WorkerState, event: ChunkDone) -> None:
        """Move an attempt on, and out of its rank's queue if it is complete."""
        for i, attempt in enumerate(worker.queue):
            if attempt.number == event.attempt:
                attempt.start = max(attempt.start, event.stop)
                if attempt.start >= attempt.stop:
                    del worker.queue[i]
                    self._with_next.pop(worker.rank, None)
                return

    # ---------------------------------------------------------------- hand-outs

    def _feed(self, worker: WorkerState, now: float, length: int) -> list[Action]:
        """Fill a rank's queue from what is pending, or with what another has not begun."""
        actions: list[Action] = []
        queue = worker.queue
        if worker.suspect:
            return actions
        was_empty = not queue
        ledger = self.ledger
        while len(queue) < length and ledger.pending.size:
            n_blocks = self._sizer.next_size(ledger.n_pending_blocks)
            actions.append(self._give(worker, ledger.assign(worker.rank, n_blocks)))
        if not queue and self._with_next:
            actions += self._move_next_to(worker)
        if not queue:
            self._idle[worker.rank] = None
            return actions
        if was_empty:
            worker.silent_since = now
            self._idle.pop(worker.rank, None)
        if len(queue) > 1:
            self._with_next[worker.rank] = None
        if not worker.has_check:
            self._schedule_check(worker, now)
        return actions

    def _give(self, worker: WorkerState, attempt: Attempt) -> Assign:
        worker.queue.append(attempt)
        self.counters.n_chunks += 1
        return Assign(worker.rank, attempt.number, attempt.start, attempt.stop)

    def _move_next_to(self, worker: WorkerState) -> list[Action]:
        """Give an idle rank the chunk that another holds and has not begun."""
        owner = self.workers[next(iter(self._with_next))]
        del self._with_next[owner.rank]
        attempt = owner.queue.pop()
        self.counters.n_recalled += 1
        moved = self.ledger.reassign(attempt, worker.rank)
        return [Recall(owner.rank, attempt.number), self._give(worker, moved)]

    def _feed_idle(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for rank in list(self._idle):
            if not (self.ledger.pending.size or self._with_next):
                break
            actions += self._feed(self.workers[rank], now, 1)
        return actions

    def _recording(self, event: ChunkDone, fresh: tuple[tuple[int, int], ...]) -> list[Action]:
        """Record what was first of a result, and discard the rest."""
        actions: list[Action] = [Record(event.attempt, fresh)] if fresh else []
        n_late = event.stop - event.start - sum(stop - start for start, stop in fresh)
        if n_late:
            self.counters.n_duplicates += n_late
            actions.append(Discard(event.attempt, n_late))
        return actions

    # ---------------------------------------------------------------- deadlines

    def _learn(self, longest_block_s: float, now: float) -> None:
        nothing_known = self._deadlines.allowance_s is None
        self._deadlines.learn(longest_block_s)
        if nothing_known:
            for worker in self.workers.values():
                if worker.queue and not worker.has_check:
                    self._schedule_check(worker, now)

    def _schedule_check(self, worker: WorkerState, now: float) -> None:
        """Look at a rank's silence when its deadline is over, and not at every message before."""
        allowance = self._deadlines.allowance_s
        if allowance is None:
            return
        worker.has_check = True
        due = now + allowance if worker.suspect else worker.silent_since + allowance
        heappush(self._checks, (due, worker.rank))

    def _suspect(self, worker: WorkerState) -> None:
        worker.suspect = True
        self.counters.n_timeouts += 1
        self._release(worker)

    def _release(self, worker: WorkerState) -> None:
        """What a rank held is pending again; it keeps its queue in case it speaks."""
        self._with_next.pop(worker.rank, None)
        for attempt in worker.queue:
            self.counters.n_reissued += self.ledger.release(attempt)

    def _take_back(self, worker: WorkerState) -> list[Action]:
        """A suspect has spoken: it goes on with what nobody else has, and drops the rest."""
        worker.suspect = False
        kept: list[Attempt] = []
        actions: list[Action] = []
        for attempt in worker.queue:
            if self.ledger.revive(attempt):
                kept.append(attempt)
            else:
                actions.append(Recall(worker.rank, attempt.number))
        worker.queue = kept
        return actions

    def _all_silent(self, now: float) -> bool:
        """Whether the user's own limit says that nobody will ever answer."""
        allowance = self._deadlines.allowance_s
        return (
            self._deadlines.is_given
            and allowance is not None
            and all(
                worker.suspect and worker.silent_since + PATIENCE * allowance <= now
                for worker in self.workers.values()
            )
        )
