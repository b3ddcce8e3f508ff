"""Who gets what next: from what is pending, and at the end from what another is not done with.

A worker has two attempts in its queue: the head, which it computes, and the next, which it holds so
that it need not wait; more where chunks are shorter than a hand-out takes, so that many travel in one
message. When nothing is left to hand out, an idle rank takes over work of another: a chunk it has not
begun, half of what is left of the one that is expected to end last, or that one's last block as well
(`mpims.core.tail`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice

from mpims.core.blame import Blame
from mpims.core.events import PLAIN, Action, Assign, AssignAlike, Recall, Result, Trim, make
from mpims.core.handover import PATIENCE_S, Handover
from mpims.core.ledger import Attempt, Ledger
from mpims.core.measures import QUEUE_LENGTH, Measures
from mpims.core.policies import Sizer
from mpims.core.silence import Silence
from mpims.core.tail import cut, gains, is_worth_moving, last_to_end
from mpims.core.walltime import Walltime
from mpims.core.workers import Counters, WorkerState

N_CANDIDATES = 16
"""Among so many ranks, others each time, the one that ends last is looked for."""
MOST_SORTED = 1000
"""Among so many idle ranks, others each time, the fastest come first: to sort all of more takes long."""
_LEAST_TAIL_WAIT_S = 1e-3
_TAIL_FRACTION = 0.25
"""With idle ranks, the attempts under way are looked at this often, in mean times of a block."""


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
    tail_at
        With idle ranks, when to look again at the attempts under way.
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
        self._takes_over = take_over
        self._makes_twins = twins
        self._handover = handover
        self.measures = Measures(ledger.block, sizer, silence, workers, queue_length)
        self._walltime = Walltime(end_at, ledger.block, sizer) if end_at is not None else None
        # Ranks that hold a chunk they have not begun. A dict finds its first key slowly once many are gone.
        self._with_next: OrderedDict[int, None] = OrderedDict()
        self.idle: dict[int, None] = {}
        self._busy: deque[WorkerState] = deque()  # ranks to take over from, and some that had work
        self.tail_at: float | None = None
        self.closed = False

    @property
    def n_with_next(self) -> int:
        """How many ranks hold a chunk beside the one they compute."""
        return len(self._with_next)

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
        return bool(self.idle) or self.tail_at is not None

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
            self.idle.setdefault(rank)
            return actions
        if length is None:
            length = worker.length
        walltime, has_time = self._walltime, True
        if walltime is not None:
            has_time = walltime.allows(worker, self.measures.block_s, now)
            length = length if has_time else 0
        ledger, pending, suits = self._ledger, self._ledger.pending, self._blame.suits
        while len(queue) + QUEUE_LENGTH < length and pending.size and not ledger.troubles:
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
            actions.append(Assign(rank, attempt.number, attempt.start, attempt.stop, attempt.care))
            if walltime is not None and not walltime.allows(worker, self.measures.block_s, now):
                break
        if not queue and self._takes_over and has_time:
            actions += self._take_over(worker, now)
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
        if not pending.size and self.tail_at is not None and self.idle and now < self.tail_at:
            return actions
        self.tail_at = None
        if not (pending.size or self._may_take_over):
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
            is_vain = self.tail_at is not None and not given
            if not pending.size and (is_vain or not self._may_take_over):
                break
        return actions

    def feed_added(self, now: float) -> list[Action]:
        """Hand out items that were just added: a chunk to each idle rank, then a next to who has none."""
        actions: list[Action] = []
        pending = self._ledger.pending
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
        self._list(worker)
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
            number, start, stop, _, _, _ = result
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

    def _give(self, worker: WorkerState, attempt: Attempt) -> Assign:
        worker.queue.append(attempt)
        self._counters.n_chunks += 1
        return Assign(worker.rank, attempt.number, attempt.start, attempt.stop, attempt.care)

    # --------------------------------------------------------------- taking back

    def release(self, worker: WorkerState) -> None:
        """What a rank held is pending again; it keeps its queue in case it speaks."""
        self._with_next.pop(worker.rank, None)
        for attempt in worker.queue:
            twin = attempt.twin
            self._counters.n_reissued += self._ledger.release(attempt)
            if twin is not None and twin.rank in self._workers:
                self._list(self._workers[twin.rank])

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

    # ------------------------------------------------------------------ the tail

    @property
    def _may_take_over(self) -> bool:
        """Whether there is anybody to take work over from."""
        return self._takes_over and bool(self._with_next or self._busy)

    def _list(self, worker: WorkerState) -> None:
        """Others may take over from a rank."""
        if not worker.is_listed:
            worker.is_listed = True
            self._busy.append(worker)

    def _take_over(self, worker: WorkerState, now: float) -> list[Action]:
        """Give an idle rank work that another holds."""
        mean_s, block = self.measures.block_s, self._ledger.block
        for rank in islice(self._with_next, N_CANDIDATES):
            owner = self._workers[rank]
            if not self._blame.may_try(worker.rank, owner.queue[-1]):
                continue
            if mean_s is None or is_worth_moving(owner, block, owner.block_s or mean_s, now):
                moved = self._move_next(owner, worker, now)
                if moved:
                    return moved
        if mean_s is None:
            if self._handover is not None and self._with_next:
                self._look_again(now, 0.0)
            return []
        last = last_to_end(self._candidates(), block, mean_s, now)
        block_s = worker.block_s or mean_s
        if last is None or not gains(last, block_s):
            self._look_again(now, block_s)
            return []
        at = cut(last, block)
        if at is not None:
            return self._split(last.attempt, at, worker, now)
        if not self._makes_twins:
            self._look_again(now, block_s)
            return []
        self._counters.n_twins += 1
        return [self._give(worker, self._ledger.duplicate(last.attempt, worker.rank))]

    def _look_again(self, now: float, block_s: float) -> None:
        """Nothing is to be had at the moment."""
        if self._may_take_over:
            least_s = PATIENCE_S if self._handover is not None else _LEAST_TAIL_WAIT_S
            self.tail_at = now + max(least_s, _TAIL_FRACTION * block_s)

    def _ask(self, handover: Handover, attempt: Attempt, at: int, now: float) -> list[Action]:
        """Ask a rank for the end of an attempt; the idle one looks again when the answer is due."""
        self.tail_at = now + PATIENCE_S
        return handover.ask(attempt, at, now)

    def returned(self, worker: WorkerState, number: int, start: int, now: float) -> list[Action]:
        """A rank that was asked has dropped the items of an attempt from `start` on."""
        if self._handover is not None:
            self._handover.forget(number)
        attempt = worker.find(number)
        if attempt is not None and start < attempt.stop:
            self._ledger.give_back(attempt, max(start, attempt.start))
            self.advance(worker, attempt, attempt.start)
        self.tail_at = None
        actions = self.feed_idle(now)
        return [*actions, *self.feed(worker, now)] if not worker.queue else actions

    def _split(self, attempt: Attempt, at: int, worker: WorkerState, now: float) -> list[Action]:
        """Give an idle rank the end of an attempt under way."""
        handover = self._handover
        if handover is not None:
            if not (handover.is_exact(attempt) and handover.is_overdue(attempt, now)):
                return self._ask(handover, attempt, at, now)
            at = max(at, attempt.start + self._ledger.block)
            if at >= attempt.stop:
                return []
        self._counters.n_split += 1
        rest = self._ledger.split(attempt, at, worker.rank)
        return [Trim(attempt.rank, attempt.number, at), self._give(worker, rest)]

    def _candidates(self) -> list[WorkerState]:
        """Ranks with work that another may take over, others each time if there are many.

        Those of which nothing can be had before they are fed again leave the list: at the end of a run
        most work is computed twice already, and one would look at little else.
        """
        busy, block = self._busy, self._ledger.block
        is_in_trouble = self._blame.is_in_trouble if self._ledger.troubles else None
        found = []
        for _ in range(min(len(busy), N_CANDIDATES)):
            worker = busy.popleft()
            head = worker.queue[0] if worker.queue and not worker.suspect else None
            if (
                head is None
                or head.twin is not None
                or head.care
                or (is_in_trouble and is_in_trouble(head))
                or not (self._makes_twins or head.stop - head.start > block)
            ):
                worker.is_listed = False
            else:
                found.append(worker)
        busy += found
        return found

    def _move_next(self, owner: WorkerState, worker: WorkerState, now: float) -> list[Action]:
        """Give an idle rank the chunk that another holds and has not begun."""
        handover = self._handover
        if handover is not None and not handover.is_overdue(owner.queue[-1], now):
            return self._ask(handover, owner.queue[-1], owner.queue[-1].start, now)
        attempt = owner.queue.pop()
        if len(owner.queue) < 2:
            del self._with_next[owner.rank]
        self._counters.n_recalled += 1
        moved = self._ledger.reassign(attempt, worker.rank)
        return [Recall(owner.rank, attempt.number), self._give(worker, moved)]

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
