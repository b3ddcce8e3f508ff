"""What a rank without work takes over from another, once nothing is left to hand out.

A chunk that the other has not begun, half of what is left of the one that is expected to end last, or that
one's last block as well; which, says `mpims.core.tail`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice

from mpims.core.blame import Blame
from mpims.core.chunks import Assign
from mpims.core.events import Action, Recall, Trim
from mpims.core.handover import PATIENCE_S, Handover
from mpims.core.ledger import Attempt, Ledger
from mpims.core.measures import Measures
from mpims.core.tail import cut, gains, is_worth_moving, last_to_end
from mpims.core.workers import Counters, WorkerState

N_CANDIDATES = 8
"""Among so many ranks, others each time, the one that ends last is looked for."""
_LEAST_TAIL_WAIT_S = 1e-3
_TAIL_FRACTION = 0.25
"""With idle ranks, the attempts under way are looked at this often, in mean times of a block."""


class Takeover:
    """Finds work for idle ranks in what others hold.

    Parameters
    ----------
    ledger, workers, measures
        The items, the ranks, and how long blocks take.
    blame, counters
        Who may try what; what is counted.
    is_on
        Whether anything is taken over.
    makes_twins
        Whether idle ranks may also compute what others compute, beside them.
    handover
        How it is seen to that nothing taken over is computed twice; None if it is not.

    Attributes
    ----------
    with_next
        Ranks that hold a chunk they have not begun.
    look_again_at
        With idle ranks, when to look again at the attempts under way.
    """

    def __init__(
        self,
        ledger: Ledger,
        workers: dict[int, WorkerState],
        measures: Measures,
        *,
        blame: Blame,
        counters: Counters,
        is_on: bool,
        makes_twins: bool,
        handover: Handover | None,
    ) -> None:
        self._ledger = ledger
        self._workers = workers
        self._measures = measures
        self._blame = blame
        self._counters = counters
        self._is_on = is_on
        self._makes_twins = makes_twins
        self._handover = handover
        # A dict finds its first key slowly once many are gone.
        self.with_next: OrderedDict[int, None] = OrderedDict()
        self._busy: deque[WorkerState] = deque()  # ranks to take over from, and some that had work
        self.look_again_at: float | None = None

    @property
    def is_possible(self) -> bool:
        """Whether there is anybody to take work over from."""
        return self._is_on and bool(self.with_next or self._busy)

    def is_due(self, now: float) -> bool:
        """Whether it is time to look: no rank has just found nothing."""
        return self.look_again_at is None or now >= self.look_again_at

    def look_now(self) -> None:
        """It is looked now, whenever it was to be."""
        self.look_again_at = None

    def offer(self, worker: WorkerState) -> None:
        """Others may take over from a rank."""
        if not worker.is_listed:
            worker.is_listed = True
            self._busy.append(worker)

    def find(self, worker: WorkerState, now: float) -> list[Action]:
        """Give an idle rank work that another holds, if there is such."""
        if not self._is_on:
            return []
        mean_s, block = self._measures.block_s, self._ledger.block
        for rank in islice(self.with_next, N_CANDIDATES):
            owner = self._workers[rank]
            if not self._blame.may_try(worker.rank, owner.queue[-1]):
                continue
            if mean_s is None or is_worth_moving(owner, block, owner.block_s or mean_s, now):
                moved = self._move_next(owner, worker, now)
                if moved:
                    return moved
        if mean_s is None:
            if self._handover is not None and self.with_next:
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
        if self.is_possible:
            least_s = PATIENCE_S if self._handover is not None else _LEAST_TAIL_WAIT_S
            self.look_again_at = now + max(least_s, _TAIL_FRACTION * block_s)

    def _ask(self, handover: Handover, attempt: Attempt, at: int, now: float) -> list[Action]:
        """Ask a rank for the end of an attempt; the idle one looks again when the answer is due."""
        self.look_again_at = now + PATIENCE_S
        return handover.ask(attempt, at, now)

    def answered(self, number: int) -> None:
        """A rank that was asked for the end of an attempt has answered."""
        if self._handover is not None:
            self._handover.forget(number)
        self.look_now()

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
            del self.with_next[owner.rank]
        self._counters.n_recalled += 1
        moved = self._ledger.reassign(attempt, worker.rank)
        return [Recall(owner.rank, attempt.number), self._give(worker, moved)]

    def _give(self, worker: WorkerState, attempt: Attempt) -> Assign:
        worker.queue.append(attempt)
        self._counters.n_chunks += 1
        return Assign(worker.rank, attempt.number, attempt.start, attempt.stop, attempt.care)
