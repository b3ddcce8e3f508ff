"""Who gets what next: from what is pending, and at the end from what another is not done with.

A worker has two attempts in its queue: the head, which it computes, and the next, which it holds so
that it need not wait; more where chunks are shorter than a hand-out takes, so that many travel in one
message, and far from the end, so that the master may be late. When nothing is left to hand out, an idle
rank takes over work of another (`mpims.core.takeover`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from mpims.core.blame import Blame
from mpims.core.chunks import PLAIN, Assign, AssignAlike, Result, make
from mpims.core.events import Action, Recall
from mpims.core.handover import Handover
from mpims.core.ledger import Attempt, Ledger
from mpims.core.measures import QUEUE_LENGTH, Measures
from mpims.core.policies import Sizer
from mpims.core.silence import Silence
from mpims.core.takeover import Takeover
from mpims.core.walltime import Walltime
from mpims.core.workers import Counters, WorkerState

MOST_SORTED = 1000
"""Among so many idle ranks, others each time, the fastest come first: to sort all of more takes long."""
MOST_COUNTED = 100
"""With more ranks than these there is always one that has just delivered: nobody counts what all have."""
MOST_ASKING = 10_000
"""With more idle ranks than these, none looks for work where another has just found that there is none."""


class Dispatch:
    """Hands out chunks.

    Parameters
    ----------
    ledger, sizer, workers
        The items, the policy within its limits, and the ranks.
    blame, silence, counters
        Who may try what; who is watched; what is counted.
    queue_length
        Attempts a worker holds at the least; with 1 it waits for each, however short they are.
    take_over
        Whether idle ranks take over what others are not done with.
    twins
        Whether they may also compute what others compute, beside them.
    handover
        How it is seen to that nothing taken over is computed twice; None if it is not.
    end_at
        When the time for computing is over; None if that is not known.

    Attributes
    ----------
    measures
        How long blocks and chunks take.
    idle
        Ranks without work.
    takeover
        Finds work for idle ranks in what others hold.
    closed
        Nothing more is handed out.
    """

    def __init__(
        self,
        ledger: Ledger,
        sizer: Sizer,
        workers: dict[int, WorkerState],
        *,
        blame: Blame,
        silence: Silence,
        counters: Counters,
        queue_length: int,
        take_over: bool,
        twins: bool,
        handover: Handover | None,
        end_at: float | None,
    ) -> None:
        self._ledger = ledger
        self._sizer = sizer
        self._workers = workers
        self._blame = blame
        self._silence = silence
        self._counters = counters
        self.measures = Measures(ledger, sizer, silence, workers, queue_length)
        self._walltime = Walltime(end_at, ledger.block, sizer) if end_at is not None else None
        self.takeover = Takeover(
            ledger,
            workers,
            self.measures,
            blame=blame,
            counters=counters,
            is_on=take_over,
            makes_twins=twins,
            handover=handover,
        )
        self._with_next = self.takeover.with_next
        self.idle: dict[int, None] = {}
        self.closed = False

    @property
    def n_ahead(self) -> int:
        """So many chunks each rank holds beside the one it computes, or more."""
        workers = self._workers
        if len(self._with_next) < len(workers):
            return 0
        return min([len(w.queue) for w in workers.values()]) - 1 if len(workers) <= MOST_COUNTED else 1

    def end_overtaken(self, start: int, stop: int, now: float) -> list[Action]:
        """A rank was beyond where its attempt was cut: who has these items too gets the rest anew."""
        actions: list[Action] = []
        ledger = self._ledger
        for attempt in [a for a in ledger.attempts.values() if a.start < stop and start < a.stop]:
            owner = self._workers.get(attempt.rank)
            if attempt.twin is None and owner is not None and attempt in owner.queue:
                ledger.release(attempt)
                self.advance(owner, attempt, attempt.stop)
                actions += [Recall(owner.rank, attempt.number), *self.feed(owner, now)]
        return actions

    def is_out_of_time(self, now: float) -> bool:
        """Whether no rank has work, or the time for another block before the end."""
        walltime = self._walltime
        return walltime is not None and walltime.is_over(self._workers.values(), self.measures.block_s, now)

    @property
    def has_idle(self) -> bool:
        """Whether any rank is without work, or was."""
        return bool(self.idle) or self.takeover.look_again_at is not None

    def explain(self) -> str:
        """Why the chunks were as long as they were, in a phrase, or nothing."""
        return self._sizer.explain()

    # ------------------------------------------------------------------- feeding

    def feed(self, worker: WorkerState, now: float, length: int | None = None) -> list[Action]:
        """Fill a rank's queue from what is pending, or with what another is not done with."""
        actions: list[Action] = []
        if worker.suspect or self.closed:
            return actions
        rank, queue = worker.rank, worker.queue
        if worker.n_failed and self._blame.is_dubious(worker):
            if not queue:
                self.idle.setdefault(rank)
            return actions
        if length is None:
            length = worker.length
        walltime, has_time = self._walltime, True
        if walltime is not None:
            has_time = walltime.allows(worker, self.measures.block_s, now)
            length = length if has_time else 0
        ledger, pending, suits = self._ledger, self._ledger.pending, self._blame.suits
        # With an end of the time each chunk is weighed; those held back take `LEAD_S` all together.
        in_bulk = length if walltime is None or worker.holds_back else 0
        while len(queue) + QUEUE_LENGTH < in_bulk and pending.size and not ledger.troubles:
            size, n_most = self._sizer.constant, length - len(queue)
            if size is None:
                attempts = ledger.assign_many(rank, n_most, self._sizer.next_size)
                actions += [make(Assign, (rank, a.number, a.start, a.stop, PLAIN)) for a in attempts]
            else:
                attempts = ledger.assign_alike(rank, n_most, size)
                first, last = attempts[0], attempts[-1]
                n_items = size * ledger.block
                actions.append(make(AssignAlike, (rank, first.number, first.start, last.stop, n_items)))
            queue += attempts
            self._counters.n_chunks += len(attempts)
        while len(queue) < length and pending.size:
            n_blocks = self._sizer.next_size(-(-pending.size // ledger.block), rank)
            attempt = ledger.assign(rank, n_blocks, suits)
            if attempt is None:
                break
            queue.append(attempt)
            self._counters.n_chunks += 1
            actions.append(make(Assign, (rank, attempt.number, attempt.start, attempt.stop, attempt.care)))
            if walltime is not None and not walltime.allows(worker, self.measures.block_s, now):
                break
        if not queue and has_time and (len(self.idle) <= MOST_ASKING or self.takeover.is_due(now)):
            actions += self.takeover.find(worker, now)
        if not queue:
            self.idle[rank] = None
            return actions
        if rank in self.idle:
            worker.silent_since = now
        if not (worker.is_listed and worker.has_check and rank in self._with_next):
            self.note_work(worker)
        return actions

    def follow(self, worker: WorkerState, attempt: Attempt, now: float) -> list[Action]:
        """Feed a rank that has delivered of the first attempt in its queue, in the ordinary case.

        As `advance` and `feed` do it, in short; no rank is idle, nothing in trouble.
        """
        rank, queue = worker.rank, worker.queue
        ledger = self._ledger
        if attempt.start == attempt.stop:
            del queue[0]
            if len(queue) == 1:
                self._with_next.pop(rank, None)
        n_wanted, n_pending = worker.length - len(queue), ledger.pending.size
        if not (n_pending or ledger.attempts):  # of an open ledger: nothing is to be taken over either
            self.idle[rank] = None
            return []
        if n_wanted != 1 or not n_pending or self.closed or self._walltime:
            return self.feed(worker, now) if n_wanted > 0 or not worker.is_listed else []
        following = ledger.assign_next(rank, self._sizer.next_size(-(-n_pending // ledger.block), rank))
        queue.append(following)
        self._counters.n_chunks += 1
        if len(queue) == 2:
            self._with_next[rank] = None
        if not worker.is_listed or not worker.has_check:
            self.note_work(worker)
        return [make(Assign, (rank, following.number, following.start, following.stop, PLAIN))]

    def feed_idle(self, now: float) -> list[Action]:
        """Feed the ranks without work, if there is a prospect."""
        actions: list[Action] = []
        pending = self._ledger.pending
        takeover = self.takeover
        if not pending.size and self.idle and not takeover.is_due(now):
            return actions
        takeover.look_now()
        if not (pending.size or takeover.is_possible):
            return actions
        ranks = list(self.idle)
        if len(ranks) > MOST_SORTED and not pending.size:
            ranks = ranks[:MOST_SORTED]
            for rank in ranks:
                self.idle[rank] = self.idle.pop(rank)
        # The fastest first: who gains nothing from taking over lets no slower one gain.
        for rank in sorted(ranks, key=lambda r: self._workers[r].block_s or 0.0):
            given = self.feed(self._workers[rank], now, 1)
            actions += given
            is_vain = takeover.look_again_at is not None and not given
            if not pending.size and (is_vain or not takeover.is_possible):
                break
        return actions

    def feed_added(self, now: float, near: int | None = None) -> list[Action]:
        """Hand out items that were just added: a chunk to each idle rank, then a next to who has none.

        Before them `near` gets one, if that rank holds no more than what it is about to deliver.
        """
        actions: list[Action] = []
        pending = self._ledger.pending
        nearest = self._workers.get(near) if near is not None else None
        if nearest is not None and len(nearest.queue) < QUEUE_LENGTH:
            actions += self.feed(nearest, now, QUEUE_LENGTH)
            if not pending.size:
                return actions
        # Who has just become idle is still awake, and has all at hand.
        for rank in list(islice(reversed(self.idle), pending.size)):
            actions += self.feed(self._workers[rank], now, 1)
        if pending.size and len(self._with_next) < len(self._workers):
            for worker in self._workers.values():
                if len(worker.queue) == 1 and pending.size:
                    actions += self.feed(worker, now)
        return actions

    def note_work(self, worker: WorkerState) -> None:
        """A rank has work."""
        self.idle.pop(worker.rank, None)
        if len(worker.queue) > 1:
            self._with_next[worker.rank] = None
        self.takeover.offer(worker)
        if not worker.has_check:
            self._silence.watch(worker)

    def advance(self, worker: WorkerState, attempt: Attempt | None, stop: int) -> None:
        """Move an attempt on, and out of its rank's queue if it is complete."""
        queue = worker.queue
        if attempt is None:
            return
        if stop > attempt.start:
            attempt.start = stop
        if attempt.start >= attempt.stop and attempt in queue:
            queue.remove(attempt)
            if len(queue) < 2:
                self._with_next.pop(worker.rank, None)

    def whole(self, worker: WorkerState, results: Sequence[Result]) -> list[Attempt] | None:
        """The attempts that results are of, if that is the ordinary case: the front of the queue, whole."""
        queue = worker.queue
        if len(results) > len(queue) or worker.suspect or self._ledger.troubles or self.has_idle:
            return None
        attempts = queue[: len(results)]
        in_force = self._ledger.attempts
        for attempt, result in zip(attempts, results, strict=True):
            number, start, stop, _, _, _, _ = result
            if (
                attempt.number != number
                or attempt.start != start
                or attempt.stop != stop
                or attempt.twin is not None
                or attempt.care
                or number not in in_force
            ):
                return None
        return attempts

    def advance_whole(self, worker: WorkerState, n: int) -> None:
        """The first `n` attempts of a rank's queue are done."""
        del worker.queue[:n]
        if len(worker.queue) < 2:
            self._with_next.pop(worker.rank, None)

    # --------------------------------------------------------------- taking back

    def release(self, worker: WorkerState) -> None:
        """What a rank held is pending again; it keeps its queue in case it speaks."""
        self._with_next.pop(worker.rank, None)
        for attempt in worker.queue:
            twin = attempt.twin
            self._counters.n_reissued += self._ledger.release(attempt)
            if twin is not None and twin.rank in self._workers:
                self.takeover.offer(self._workers[twin.rank])

    def revive(self, worker: WorkerState) -> list[Action]:
        """A suspect has spoken: it goes on with what nobody else has, and drops the rest."""
        worker.suspect = False
        kept: list[Attempt] = []
        actions: list[Action] = []
        for attempt in worker.queue:
            if self._ledger.revive(attempt):
                kept.append(attempt)
            else:
                actions.append(Recall(worker.rank, attempt.number))
        worker.queue = kept
        return actions

    def recall_all(self, worker: WorkerState) -> list[Action]:
        """Take everything from a rank."""
        recalls: list[Action] = [Recall(worker.rank, attempt.number) for attempt in worker.queue]
        self.drop_all(worker)
        return recalls

    def drop_all(self, worker: WorkerState) -> None:
        """A rank holds nothing more."""
        self.release(worker)
        worker.queue = []

    def forget(self, worker: WorkerState) -> None:
        """A rank is gone."""
        self.drop_all(worker)
        self.idle.pop(worker.rank, None)
        self._sizer.lose(worker.rank)

    def returned(self, worker: WorkerState, number: int, start: int, now: float) -> list[Action]:
        """A rank that was asked has dropped the items of an attempt from `start` on."""
        self.takeover.answered(number)
        attempt = worker.find(number)
        if attempt is not None and start < attempt.stop:
            self._ledger.give_back(attempt, max(start, attempt.start))
            self.advance(worker, attempt, attempt.start)
        actions = self.feed_idle(now)
        return [*actions, *self.feed(worker, now)] if not worker.queue else actions

    def end_twin(self, twin: Attempt, now: float) -> list[Action]:
        """The other one of two has moved on: this one is dropped if all that it has is done."""
        if self._ledger.done.missing(twin.start, twin.stop):
            return []
        self._ledger.release(twin)
        owner = self._workers.get(twin.rank)
        if owner is None:
            return []
        self.advance(owner, twin, twin.stop)
        return [Recall(twin.rank, twin.number), *self.feed(owner, now)]
