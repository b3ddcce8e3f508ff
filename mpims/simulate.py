"""A discrete-event driver of the real scheduler: virtual workers, a virtual clock, planned faults.

Nothing here waits and nothing is random but what the caller's generator decides, so a run is a
function of its arguments: a failure found with a seed can be replayed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import TypeAlias

from mpims.core.events import (
    Action,
    Assign,
    ChunkDone,
    Discard,
    Event,
    Finish,
    GiveUp,
    Range,
    Recall,
    Record,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from mpims.core.scheduler import Scheduler

BlockTime: TypeAlias = Callable[[int], float]
"""Seconds that a block takes, from its index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, as probabilities per attempt.

    Parameters
    ----------
    death
        The rank dies while it computes.
    hang
        The rank is silent for `hang_s` seconds and then goes on.
    late
        The answer is under way for `late_s` seconds instead of the latency.
    twice
        The answer arrives twice.
    spare
        So many ranks neither die nor hang.
    """

    death: float = 0.0
    hang: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    hang_s: float = 100.0
    late_s: float = 100.0
    spare: int = 1


@dataclass(slots=True)
class Simulated:
    """How a simulated run went.

    Attributes
    ----------
    makespan_s
        Virtual seconds from the start to the last result.
    busy_s
        Virtual seconds in kernels, all workers together.
    commits
        Every committed range, in the order of the commits.
    outcome
        The Finish or GiveUp that ended the run; None if the events ran out before.
    """

    makespan_s: float = 0.0
    busy_s: float = 0.0
    commits: list[Range] = field(default_factory=list)
    outcome: Finish | GiveUp | None = None


class _VirtualWorker:
    __slots__ = ("busy", "dead", "queue")

    def __init__(self) -> None:
        self.queue: deque[Assign] = deque()
        self.busy = False
        self.dead = False


class Simulation:
    """Runs a scheduler to its end on a virtual clock.

    Parameters
    ----------
    scheduler
        A new scheduler.
    ranks
        The workers.
    block_time
        Seconds that each block takes.
    latency_s
        Seconds that a message is under way.
    faults
        What goes wrong.
    random
        Decides about the faults.
    whole_chunks
        Results come as one indivisible unit per chunk part, as in a reduction.
    after_event
        Called after every event, for checks.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        ranks: Sequence[int],
        block_time: BlockTime,
        *,
        latency_s: float = 1e-4,
        faults: Faults | None = None,
        random: Random | None = None,
        whole_chunks: bool = False,
        after_event: Callable[[], None] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._workers = {rank: _VirtualWorker() for rank in ranks}
        self._block_time = block_time
        self._latency_s = latency_s
        self._faults = faults or Faults()
        self._random = random or Random(0)
        self._whole_chunks = whole_chunks
        self._after_event = after_event or (lambda: None)
        self._now = 0.0
        self._n_scheduled = 0
        # Heap of (time, order of scheduling, what happens then).
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._n_mortal = max(0, len(ranks) - self._faults.spare)
        self.result = Simulated()

    def run(self) -> Simulated:
        """Play events in the order of their times until the run ends or nothing is left to happen."""
        for rank in self._workers:
            self._at(self._latency_s * self._random.random(), self._deliver, WorkerJoined(rank))
        while self.result.outcome is None:
            deadline = self._scheduler.next_deadline()
            if deadline is not None and (not self._agenda or deadline <= self._agenda[0][0]):
                self._now = max(self._now, deadline)
                self._deliver(Tick())
            elif self._agenda:
                self._now, _, happen = heappop(self._agenda)
                happen()
            else:
                break
        self.result.makespan_s = self._now
        return self.result

    def _at(self, delay_s: float, function: Callable[..., None], *arguments: object) -> None:
        self._n_scheduled += 1
        heappush(self._agenda, (self._now + delay_s, self._n_scheduled, lambda: function(*arguments)))

    # ------------------------------------------------------------------ the master

    def _deliver(self, event: Event) -> None:
        for action in self._scheduler.handle(event, self._now):
            self._perform(action)
        self._after_event()

    def _perform(self, action: Action) -> None:
        if isinstance(action, Assign):
            self._at(self._latency_s, self._assigned, action)
        elif isinstance(action, Recall):
            self._at(self._latency_s, self._recalled, action)
        elif isinstance(action, Record):
            self.result.commits += action.ranges
        elif isinstance(action, (Finish, GiveUp)):
            self.result.outcome = action
        else:
            assert isinstance(action, Discard)

    # ----------------------------------------------------------------- the workers

    def _assigned(self, action: Assign) -> None:
        worker = self._workers[action.rank]
        worker.queue.append(action)
        self._begin(action.rank)

    def _recalled(self, action: Recall) -> None:
        worker = self._workers[action.rank]
        running = worker.queue[0] if worker.busy else None
        worker.queue = deque(a for a in worker.queue if a is running or a.attempt != action.attempt)

    def _begin(self, rank: int) -> None:
        """Begin the next attempt, and decide what will become of it."""
        worker = self._workers[rank]
        if worker.busy or worker.dead or not worker.queue:
            return
        worker.busy = True
        attempt = worker.queue[0]
        faults, random = self._faults, self._random
        block = self._scheduler.ledger.block
        blocks = range(attempt.start // block, -(-attempt.stop // block))
        busy_s = sum(map(self._block_time, blocks))
        if faults.death and rank <= self._n_mortal and random.random() < faults.death:
            self._at(busy_s * random.random(), self._die, rank)
            return
        if faults.hang and rank <= self._n_mortal and random.random() < faults.hang:
            busy_s += faults.hang_s
        self._at(busy_s, self._computed, rank, attempt, busy_s)

    def _die(self, rank: int) -> None:
        self._workers[rank].dead = True
        self._at(self._latency_s, self._deliver, WorkerLost(rank))

    def _computed(self, rank: int, attempt: Assign, busy_s: float) -> None:
        """Send the answer, in one part or, now and then, in two."""
        worker = self._workers[rank]
        self.result.busy_s += busy_s
        faults, random = self._faults, self._random
        block = self._scheduler.ledger.block
        cut = attempt.stop
        if attempt.stop - attempt.start > block and random.random() < 0.3:
            n_blocks = (attempt.stop - attempt.start - 1) // block
            cut = attempt.start + block * random.randint(1, n_blocks)
        late = faults.late_s if faults.late and random.random() < faults.late else 0.0
        for start, stop in ((attempt.start, cut), (cut, attempt.stop)):
            if start == stop:
                continue
            units = ((start, stop),) if self._whole_chunks else None
            event = ChunkDone(rank, attempt.attempt, start, stop, busy_s, busy_s, units)
            self._at(self._latency_s + late, self._deliver, event)
            if faults.twice and random.random() < faults.twice:
                self._at(2 * self._latency_s + late, self._deliver, event)
        worker.busy = False
        worker.queue.popleft()
        self._begin(rank)
