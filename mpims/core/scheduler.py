"""The scheduler: events and the time go in, actions come out.

State
-----
A worker has at most two attempts in its queue: the head, which it computes, and the next, which it
holds so that it need not wait. A rank that is silent with work past its deadline is *suspect*: what
it held is pending again and it gets nothing new until it speaks.

=============== ====================================================================
event           what happens
=============== ====================================================================
WorkerJoined    the rank gets its first chunk; once all have joined, each its next
ChunkDone       the rank is fed, then its result recorded or discarded; Finish at the end
ChunkFailed     the block is tried again, on another rank if there is one, then one item
                at a time; an item that fails alone too often is skipped, or ends the run
WorkerLost      what the rank held is pending again; Hire if it was the last in service
WorkerSpoke     the rank is there: its silence begins anew
Tick            ranks silent past their deadline become suspect; idle ranks get their work
MasterAway      nobody's silence counts for that time
StopRequested   nothing more is handed out; Drain; Stop once all are drained, or at the
                end of the grace
WorkerDrained   the rank holds nothing more
=============== ====================================================================

A range over which a rank died or became suspect is from then on computed in isolation. When nothing is
left to hand out, an idle rank takes over work of another: a chunk it has not begun, half of what is
left of the one that is expected to end last, or that one's last block as well (`mpims.core.tail`).

Invariants: those of `mpims.core.ledger`; a range is handed out only while it is pending, by taking it
from a rank, or as a twin; nothing is handed out after Finish, GiveUp or Stop.
"""

from __future__ import annotations

from heapq import heappop, heappush

from mpims.core.deadlines import FLOOR_S, Deadlines
from mpims.core.events import (
    PLAIN,
    Action,
    Assign,
    Care,
    ChunkDone,
    ChunkFailed,
    Discard,
    Drain,
    Event,
    Finish,
    GiveUp,
    Hire,
    MasterAway,
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
from mpims.core.ledger import Attempt, Ledger
from mpims.core.policies import Sizer
from mpims.core.tail import cut, expect, gains
from mpims.core.troubles import Trouble

DUBIOUS = 3
"""A rank on which so many blocks failed in a row waits until some of them fail elsewhere, too."""
QUEUE_LENGTH = 2
"""Attempts a worker holds by default: the one it computes and the next."""
STARTUP_PATIENCE = 10.0
"""Ranks that have yet to join are waited for so many deadlines before the master computes itself."""
_MEMORY = 0.3
"""What a new measurement counts in a rank's mean time of a block."""
_LEAST_TAIL_WAIT_S = 1e-3
_TAIL_FRACTION = 0.25
"""With idle ranks, the attempts under way are looked at this often, in mean times of a block."""


class WorkerState:
    """What the scheduler knows of one rank."""

    __slots__ = ("block_s", "has_check", "n_failed", "queue", "rank", "silent_since", "suspect")

    def __init__(self, rank: int, now: float) -> None:
        self.rank = rank
        self.queue: list[Attempt] = []
        self.silent_since = now
        self.suspect = False
        self.has_check = False  # an entry in Scheduler._checks
        self.block_s: float | None = None  # mean time of a block here
        self.n_failed = 0  # blocks that failed here, one after another, and have not failed elsewhere


class Counters:
    """What happened in a run, in numbers."""

    __slots__ = (
        "n_chunks",
        "n_duplicates",
        "n_failures",
        "n_lost",
        "n_recalled",
        "n_reissued",
        "n_skipped",
        "n_split",
        "n_timeouts",
        "n_twins",
    )

    def __init__(self) -> None:
        self.n_chunks = 0  # chunks handed out, reissued ones included
        self.n_reissued = 0  # attempts whose rest went back to pending
        self.n_recalled = 0  # attempts moved to an idle rank before they were begun
        self.n_split = 0  # attempts of which an idle rank got the second half
        self.n_twins = 0  # attempts handed to an idle rank as well
        self.n_duplicates = 0  # items computed again: delivered after another answer
        self.n_failures = 0  # blocks that failed
        self.n_skipped = 0  # items given up
        self.n_timeouts = 0
        self.n_lost = 0


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
        Attempts a worker holds: the one it computes, and those that it need not wait for.
    take_over
        Whether an idle rank takes over what another is not done with, once nothing is left to hand out.
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
        take_over: bool = True,
    ) -> None:
        self.ledger = ledger
        self.counters = Counters()
        self.workers: dict[int, WorkerState] = {}
        self.ended = False
        self._sizer = sizer
        self._deadlines = deadlines
        self._n_expected = n_workers
        self._n_retries = n_retries
        self._skip = skip
        self._queue_length = queue_length
        self._takes_over = take_over
        self._with_next: dict[int, None] = {}  # ranks that hold a chunk they have not begun
        self._idle: dict[int, None] = {}  # ranks without work
        self._checks: list[tuple[float, int]] = []  # heap of (time, rank): look at its silence then
        self._mean_block_s: float | None = None
        self._tail_at: float | None = None  # look at the attempts under way then
        self._deserted_since: float | None = None  # no rank is in service since then
        self._hired = False
        self._stop_at: float | None = None  # the end of the grace, once the run is to stop

    # ------------------------------------------------------------------ events

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event at time `now` (monotonic seconds); return what is to be done."""
        if self.ended:
            return []
        actions = self._take_in(event, now)
        if self._stop_at is not None:
            actions += self._stop_if_drained()
        return actions

    def _take_in(self, event: Event, now: float) -> list[Action]:
        if isinstance(event, ChunkDone):
            return self._chunk_done(event, now)
        if isinstance(event, WorkerJoined):
            return self._worker_joined(event, now)
        if isinstance(event, Tick):
            return self._tick(now)
        if isinstance(event, ChunkFailed):
            return self._chunk_failed(event, now)
        if isinstance(event, WorkerSpoke):
            return self._worker_spoke(event, now)
        if isinstance(event, WorkerLost):
            return self._worker_lost(event, now)
        if isinstance(event, WorkerDrained):
            return self._worker_drained(event)
        if isinstance(event, StopRequested):
            return self._stop_requested(event, now)
        return self._master_away(event)

    def next_deadline(self) -> float | None:
        """The time at which a Tick is due, if any."""
        due = [at for at in (self._tail_at, self._stop_at, self._hire_at()) if at is not None]
        if self._checks:
            due.append(self._checks[0][0])
        return min(due, default=None)

    @property
    def all_have_next(self) -> bool:
        """Whether every rank holds a chunk beside the one it computes, so that none waits for us."""
        return 0 < len(self.workers) == len(self._with_next)

    @property
    def suspects(self) -> set[int]:
        """Ranks that are silent past their deadline."""
        return {rank for rank, worker in self.workers.items() if worker.suspect}

    def _worker_joined(self, event: WorkerJoined, now: float) -> list[Action]:
        worker = WorkerState(event.rank, now)
        self.workers[event.rank] = worker
        self._deserted_since = None
        actions: list[Action] = []
        for held in event.holding:
            attempt = self.ledger.adopt(event.rank, held)
            if attempt is None:
                actions.append(Recall(event.rank, held.attempt))
            else:
                worker.queue.append(attempt)
        if worker.queue:
            self._note_work(worker, now)
            actions += [Drain(event.rank)] if self._stop_at is not None else []
        # One chunk each until all are there, or the first to come would take the last one's.
        actions += self._feed(worker, now, 1)
        if len(self.workers) >= self._n_expected:
            for other in list(self.workers.values()):
                actions += self._feed(other, now, self._queue_length)
        return actions

    def _chunk_done(self, event: ChunkDone, now: float) -> list[Action]:
        ledger = self.ledger
        attempt = ledger.attempts.get(event.attempt)
        twin = attempt.twin if attempt is not None else None
        fresh = ledger.commit(event.attempt, event.start, event.stop, event.units)
        if ledger.complete:
            self.ended = True
            return [*self._recording(event, fresh), Finish()]
        worker = self.workers.get(event.rank)
        if attempt is not None and attempt.care is PLAIN:
            self._learn(worker, event, now)
        actions: list[Action] = []
        if worker is not None:
            worker.n_failed = 0
            self._advance(worker, event.attempt, event.stop)
            actions += self._heard(worker, now)
            actions += self._feed(worker, now, self._queue_length)
        if twin is not None:
            actions += self._end_twin(twin, now)
        if self._idle:
            actions += self._feed_idle(now)
        actions += self._recording(event, fresh)
        return actions

    def _chunk_failed(self, event: ChunkFailed, now: float) -> list[Action]:
        self.counters.n_failures += 1
        trouble = self.ledger.fail(event.attempt, event.start, event.stop, event.rank)
        if event.final and trouble is not None:
            self.ended = True
            return [GiveUp(event.reason, event.detail)]
        actions: list[Action] = []
        if trouble is not None and trouble.n_failures > self._n_retries:
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
            self._advance(worker, event.attempt, event.stop)
            actions += self._heard(worker, now)
            actions += self._count_failure(worker, trouble)
            actions += self._feed(worker, now, self._queue_length)
        return actions + self._feed_idle(now)

    def _count_failure(self, worker: WorkerState, trouble: Trouble | None) -> list[Action]:
        """Is it the block, or the rank? A rank that fails whatever it gets would soon have tried all."""
        if trouble is not None and len(trouble.failed_on) > 1:  # it is the block
            for rank in trouble.failed_on & self.workers.keys():
                self.workers[rank].n_failed = 0
            return []
        worker.n_failed += 1
        if not self._is_dubious(worker):
            return []
        recalls: list[Action] = [Recall(worker.rank, attempt.number) for attempt in worker.queue]
        self._release(worker)
        worker.queue = []
        return recalls

    def _is_dubious(self, worker: WorkerState) -> bool:
        """Whether a rank has to wait until others have tried what failed on it."""
        return worker.n_failed >= DUBIOUS and any(
            other.n_failed < DUBIOUS and not other.suspect for other in self.workers.values()
        )

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
        return [*actions, *self._feed(worker, now, self._queue_length)] if was_suspect else actions

    def _worker_lost(self, event: WorkerLost, now: float) -> list[Action]:
        self._n_expected -= 1
        self.counters.n_lost += 1
        worker = self.workers.pop(event.rank, None)
        if worker is not None:
            self._strike(worker)
            self._release(worker)
            self._idle.pop(event.rank, None)
        if self._stop_at is not None:
            return []
        if self._n_expected == 0:
            return self._hire()
        self._note_desertion(now)
        return self._feed_idle(now)

    def _tick(self, now: float) -> list[Action]:
        if self._stop_at is not None and self._stop_at <= now:
            self.ended = True
            return [Stop()]
        due = []
        while self._checks and self._checks[0][0] <= now:
            due.append(heappop(self._checks)[1])
        for rank in due:
            worker = self.workers.get(rank)
            if worker is not None and worker.has_check:
                worker.has_check = False
                self._look_at(worker, now)
        if self._stop_at is not None:
            return []
        self._note_desertion(now)
        hire_at = self._hire_at()
        if self._n_expected == 0 or (hire_at is not None and hire_at <= now):
            return self._hire()
        return self._feed_idle(now)

    def _master_away(self, event: MasterAway) -> list[Action]:
        for worker in self.workers.values():
            worker.silent_since += event.duration_s
        if self._deserted_since is not None:
            self._deserted_since += event.duration_s
        return []

    # ------------------------------------------------------------------- stopping

    def _stop_requested(self, event: StopRequested, now: float) -> list[Action]:
        self._stop_at = now + event.grace_s
        self._tail_at = None
        return [Drain(rank) for rank, worker in self.workers.items() if worker.queue]

    def _worker_drained(self, event: WorkerDrained) -> list[Action]:
        worker = self.workers.get(event.rank)
        if worker is not None:
            self._release(worker)
            worker.queue = []
        return []

    def _stop_if_drained(self) -> list[Action]:
        """Stop once nothing more can come in time; a suspect is not waited for."""
        if self.ended or any(w.queue and not w.suspect for w in self.workers.values()):
            return []
        self.ended = True
        return [Stop()]

    # ---------------------------------------------------------------- hand-outs

    def _advance(self, worker: WorkerState, number: int, stop: int) -> None:
        """Move an attempt on, and out of its rank's queue if it is complete."""
        for i, attempt in enumerate(worker.queue):
            if attempt.number == number:
                attempt.start = max(attempt.start, stop)
                if attempt.start >= attempt.stop:
                    del worker.queue[i]
                    self._with_next.pop(worker.rank, None)
                return

    def _feed(self, worker: WorkerState, now: float, length: int) -> list[Action]:
        """Fill a rank's queue from what is pending, or with what another is not done with."""
        actions: list[Action] = []
        queue = worker.queue
        if worker.suspect or self._stop_at is not None:
            return actions
        if self._is_dubious(worker):
            self._idle.setdefault(worker.rank)
            return actions
        ledger = self.ledger
        while len(queue) < length and ledger.pending.size:
            n_blocks = self._sizer.next_size(ledger.n_pending_blocks)
            attempt = ledger.assign(worker.rank, n_blocks, self._suits)
            if attempt is None:
                break
            actions.append(self._give(worker, attempt))
        if not queue and self._takes_over:
            actions += self._take_over(worker, now)
        if not queue:
            self._idle[worker.rank] = None
            return actions
        if worker.rank in self._idle:
            worker.silent_since = now
        self._note_work(worker, now)
        return actions

    def _suits(self, rank: int, trouble: Trouble) -> bool:
        """Whether a rank may try what failed: not where it failed before, while others are there."""
        if rank not in trouble.failed_on:
            return True
        others = {r for r, worker in self.workers.items() if not worker.suspect}
        return others <= trouble.failed_on

    def _is_in_trouble(self, attempt: Attempt) -> bool:
        """Whether a rank failed, died or fell silent over what an attempt has still to deliver."""
        troubles = self.ledger.troubles
        following = troubles.next_after(attempt.start)
        return (
            attempt.care is not PLAIN
            or troubles.at(attempt.start) is not None
            or (following is not None and following < attempt.stop)
        )

    def _may_try(self, rank: int, attempt: Attempt) -> bool:
        """Whether all that an attempt has still to deliver suits a rank."""
        troubles = self.ledger.troubles
        at: int | None = attempt.start
        while at is not None and at < attempt.stop:
            trouble = troubles.at(at)
            if trouble is not None and not self._suits(rank, trouble):
                return False
            at = troubles.next_after(at)
        return True

    def _note_work(self, worker: WorkerState, now: float) -> None:
        self._idle.pop(worker.rank, None)
        if len(worker.queue) > 1:
            self._with_next[worker.rank] = None
        if not worker.has_check:
            self._schedule_check(worker, now)

    def _give(self, worker: WorkerState, attempt: Attempt) -> Assign:
        worker.queue.append(attempt)
        self.counters.n_chunks += 1
        return Assign(worker.rank, attempt.number, attempt.start, attempt.stop, attempt.care)

    def _feed_idle(self, now: float) -> list[Action]:
        actions: list[Action] = []
        self._tail_at = None
        # The fastest first: who gains nothing from taking over lets no slower one gain.
        for rank in sorted(self._idle, key=lambda r: self.workers[r].block_s or 0.0):
            actions += self._feed(self.workers[rank], now, 1)
            if self._tail_at is not None and not self.ledger.pending.size:
                break
        return actions

    def _recording(self, event: ChunkDone, fresh: tuple[tuple[int, int], ...]) -> list[Action]:
        """Record what was first of a result, and discard the rest."""
        actions: list[Action] = [Record(event.attempt, fresh)] if fresh else []
        n_late = event.stop - event.start - sum(stop - start for start, stop in fresh)
        if n_late:
            if self.ledger.knows(event.attempt):  # and not sent again to a new master
                self.counters.n_duplicates += n_late
            actions.append(Discard(event.attempt, n_late))
        return actions

    # ------------------------------------------------------------------ the tail

    def _take_over(self, worker: WorkerState, now: float) -> list[Action]:
        """Give an idle rank work that another holds."""
        for rank in self._with_next:
            owner = self.workers[rank]
            if self._may_try(worker.rank, owner.queue[-1]):
                return self._move_next(owner, worker)
        if self._mean_block_s is None:
            return []
        block, block_s = self.ledger.block, worker.block_s or self._mean_block_s
        running = [
            expect(head, block, owner.block_s or self._mean_block_s, now - owner.silent_since)
            for owner in self.workers.values()
            for head in owner.queue[:1]
            if head.twin is None and not owner.suspect and not self._is_in_trouble(head)
        ]
        if not running:
            return []
        last = max(running, key=lambda r: r.left_s)
        if not gains(last, block_s):
            self._tail_at = now + max(_LEAST_TAIL_WAIT_S, _TAIL_FRACTION * block_s)
            return []
        at = cut(last, block)
        if at is not None:
            self.counters.n_split += 1
            attempt = self.ledger.split(last.attempt, at, worker.rank)
            trim = Trim(last.attempt.rank, last.attempt.number, at)
            return [trim, self._give(worker, attempt)]
        self.counters.n_twins += 1
        return [self._give(worker, self.ledger.duplicate(last.attempt, worker.rank))]

    def _move_next(self, owner: WorkerState, worker: WorkerState) -> list[Action]:
        """Give an idle rank the chunk that another holds and has not begun."""
        del self._with_next[owner.rank]
        attempt = owner.queue.pop()
        self.counters.n_recalled += 1
        moved = self.ledger.reassign(attempt, worker.rank)
        return [Recall(owner.rank, attempt.number), self._give(worker, moved)]

    def _end_twin(self, twin: Attempt, now: float) -> list[Action]:
        """The other one of two has moved on: this one is dropped if all that it has is done."""
        if self.ledger.done.missing(twin.start, twin.stop):
            return []
        self.ledger.release(twin)
        owner = self.workers.get(twin.rank)
        if owner is None:
            return []
        self._advance(owner, twin.number, twin.stop)
        return [Recall(twin.rank, twin.number), *self._feed(owner, now, self._queue_length)]

    # ---------------------------------------------------------------- deadlines

    def _learn(self, worker: WorkerState | None, event: ChunkDone, now: float) -> None:
        """Learn how long blocks take: in general, and on that rank."""
        nothing_known = self._deadlines.allowance_s is None
        self._deadlines.learn(event.longest_block_s)
        if nothing_known:
            for other in self.workers.values():
                if other.queue and not other.has_check:
                    self._schedule_check(other, now)
        block_s = event.busy_s / -(-(event.stop - event.start) // self.ledger.block)
        self._mean_block_s = _mixed(self._mean_block_s, block_s)
        if worker is not None:
            worker.block_s = _mixed(worker.block_s, block_s)

    def _schedule_check(self, worker: WorkerState, now: float) -> None:
        """Look at a rank's silence when its deadline is over, and not at every message before."""
        allowance = self._deadlines.allowance_s
        if allowance is None or worker.suspect:
            return
        worker.has_check = True
        heappush(self._checks, (worker.silent_since + allowance, worker.rank))

    def _look_at(self, worker: WorkerState, now: float) -> None:
        """A rank may have been silent for too long."""
        allowance = self._deadlines.allowance_s
        if not worker.queue or allowance is None or worker.suspect:
            return
        if worker.silent_since + allowance > now:
            self._schedule_check(worker, now)
            return
        worker.suspect = True
        self.counters.n_timeouts += 1
        self._strike(worker)
        self._release(worker)

    def _strike(self, worker: WorkerState) -> None:
        """What a rank was computing may be what killed it, or hung it."""
        if worker.queue:
            head = worker.queue[0]
            self.ledger.strike(head.start, head.stop)

    def _release(self, worker: WorkerState) -> None:
        """What a rank held is pending again; it keeps its queue in case it speaks."""
        self._with_next.pop(worker.rank, None)
        for attempt in worker.queue:
            self.counters.n_reissued += self.ledger.release(attempt)

    def _heard(self, worker: WorkerState, now: float) -> list[Action]:
        """A rank has spoken; a suspect goes on with what nobody else has, and drops the rest."""
        worker.silent_since = now
        if not worker.suspect:
            return []
        worker.suspect = False
        self._deserted_since = None
        kept: list[Attempt] = []
        actions: list[Action] = []
        for attempt in worker.queue:
            if self.ledger.revive(attempt):
                kept.append(attempt)
            else:
                actions.append(Recall(worker.rank, attempt.number))
        worker.queue = kept
        return actions

    # ----------------------------------------------------------- nobody is there

    def _note_desertion(self, now: float) -> None:
        """Remember since when no rank is in service; ranks that have yet to join are not there."""
        in_service = any(not worker.suspect for worker in self.workers.values())
        if in_service:
            self._deserted_since = None
        elif self._deserted_since is None:
            self._deserted_since = now

    def _hire_at(self) -> float | None:
        if self._deserted_since is None or self._hired:
            return None
        allowance = self._deadlines.allowance_s or FLOOR_S
        all_joined = len(self.workers) >= self._n_expected
        return self._deserted_since + allowance * (1.0 if all_joined else STARTUP_PATIENCE)

    def _hire(self) -> list[Action]:
        if self._hired:
            return []
        self._hired = True
        self._n_expected += 1
        return [Hire()]


def _mixed(mean: float | None, new: float) -> float:
    return new if mean is None else mean + _MEMORY * (new - mean)
