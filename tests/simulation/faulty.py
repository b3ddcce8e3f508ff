"""A discrete-event driver of the real scheduler: virtual ranks, a virtual clock, planned faults.

Nothing here waits and nothing is random but what the caller's generator decides, so a run is a
function of its arguments: a failure found with a seed can be replayed.

A virtual rank computes block by block, as a real one does, and looks at its messages in between. A
master that dies is followed by the lowest rank alive, with a scheduler that knows what the journal
says; the others join it with what they hold and send again what they sent last. When everything dies,
or the run was stopped, it is resumed on all ranks, without what the journal had not yet on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random

from mpims.core.chunks import Assign, AssignAlike, Care, Held, Range
from mpims.core.events import (
    Action,
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
)
from mpims.core.ledger import ATTEMPTS_PER_MASTER
from mpims.core.ranges import RangeSet
from mpims.core.scheduler import Scheduler
from tests.simulation.faults import BlockTime, Chunk, Faults, MakeScheduler, Simulated, VirtualWorker

_TAKEOVER_S = 0.05


class Simulation:
    """Runs a job to its end on a virtual clock, through any number of masters.

    Parameters
    ----------
    make_scheduler
        Makes the scheduler of each master.
    ranks
        The workers; rank 0 is the first master.
    block_time
        Seconds that each block takes.
    latency_s
        Seconds that a message is under way.
    faults
        What goes wrong.
    random
        Decides about the faults.
    whole_chunks
        Results come as one indivisible unit per part, as in a reduction.
    skip
        Whether the run goes on without the items that fail.
    after_event
        Called after every event with the scheduler, for checks.
    """

    def __init__(
        self,
        make_scheduler: MakeScheduler,
        ranks: Sequence[int],
        block_time: BlockTime,
        *,
        latency_s: float = 1e-4,
        faults: Faults | None = None,
        random: Random | None = None,
        whole_chunks: bool = False,
        skip: bool = False,
        after_event: Callable[[Scheduler], None] | None = None,
    ) -> None:
        self._make_scheduler = make_scheduler
        self._ranks = list(ranks)
        self._block_time = block_time
        self._latency_s = latency_s
        self.faults = faults or Faults()
        self._random = random or Random(0)
        self._whole_chunks = whole_chunks
        self.skip = skip
        self._after_event = after_event or (lambda scheduler: None)
        self._now = 0.0
        self._n_scheduled = 0
        # Heap of (time, order of scheduling, what happens then).
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._n_mortal = max(0, len(ranks) - self.faults.spare)
        self._n_upsets = 0
        self._life = 0  # of the whole run: what was under way in an earlier one is gone
        self.master = 0
        self._master_life = 0  # what was sent to an earlier master is lost
        self._workers: dict[int, VirtualWorker] = {}
        self.result = Simulated()
        self._begin_run()

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler of the present master."""
        return self._scheduler

    def run(self) -> Simulated:
        """Play events in the order of their times until the run ends or nothing is left to happen."""
        while self.result.outcome is None:
            deadline = self._scheduler.next_deadline() if self._has_master else None
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
        """Plan what the ranks of this life do."""
        self._n_scheduled += 1
        life = self._life

        def happen() -> None:
            if life == self._life:
                function(*arguments)

        heappush(self._agenda, (self._now + delay_s, self._n_scheduled, happen))

    # ------------------------------------------------------------------ the master

    def _begin_run(self) -> None:
        """All ranks begin, with what the journal has."""
        self._life += 1
        self._workers = {rank: VirtualWorker() for rank in self._ranks}
        self._lead(0)

    def _lead(self, rank: int) -> None:
        """A rank becomes the master; the others join it."""
        self.master = rank
        self._has_master = True
        self._master_life += 1
        alive = [r for r, worker in self._workers.items() if not worker.dead and r != rank]
        self._scheduler = self._make_scheduler(
            done=list(RangeSet(self.result.commits)),
            first_attempt=1 + self._master_life * ATTEMPTS_PER_MASTER,
            n_workers=len(alive),
        )
        self._block, self._n_items = self._scheduler.ledger.block, self._scheduler.ledger.n_items
        if self._scheduler.ledger.complete:
            self.result.outcome = Finish()
        for r in alive:
            self._at(self._latency_s * (1 + self._random.random()), self._join, r, self._master_life)
        if not alive:
            self._deliver(Tick())

    def _deliver(self, event: Event) -> None:
        if self.result.outcome is not None:
            return
        self._perform(self._scheduler.handle(event, self._now))
        self._after_event(self._scheduler)
        if self.result.outcome is None:
            self._upset()

    def _upset(self) -> None:
        """What may befall the master at any moment."""
        faults, random = self.faults, self._random
        if self._n_upsets >= faults.most:
            return
        draw = random.random()
        for name in ("master_death", "crash", "stop", "away"):
            probability: float = getattr(faults, name)
            if draw < probability:
                self._n_upsets += 1
                getattr(self, f"_{name}")()
                return
            draw -= probability

    def _master_death(self) -> None:
        """The lowest rank alive takes over, once it is done with its block."""
        if self.master in self._workers:
            self._workers[self.master].dead = True
        self._master_life += 1
        self._has_master = False
        self._at(_TAKEOVER_S, self._take_over, self._master_life)

    def _take_over(self, master_life: int) -> None:
        heirs = [rank for rank, worker in self._workers.items() if not worker.dead]
        while heirs and self._workers[min(heirs)].hung:  # the others wait for it in vain, and fence it
            self._workers[min(heirs)].dead = True
            heirs.remove(min(heirs))
        if not heirs:
            self._crash()
            return
        rank = min(heirs)
        heir = self._workers.pop(rank)
        for event in heir.sent:  # what it had computed itself
            if isinstance(event, ChunkDone):
                self._at(self._latency_s, self._arrive, event, master_life + 1)
        self._lead(rank)
        self.result.n_masters += 1

    def _crash(self) -> None:
        """Everything dies: what was not yet on disk has to be computed again."""
        commits = self.result.commits
        del commits[len(commits) - self._random.randint(0, min(3, len(commits))) :]
        self.result.n_resumed += 1
        self._begin_run()

    def _stop(self) -> None:
        self._perform(self._scheduler.handle(StopRequested(1.0), self._now))

    def _away(self) -> None:
        self._now += self.faults.hang_s
        self._deliver(MasterAway(self.faults.hang_s))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Assign):
                self._at(self._latency_s, self._assigned, action, self._master_life)
            elif isinstance(action, AssignAlike):
                for one in action.singly():
                    self._at(self._latency_s, self._assigned, one, self._master_life)
            elif isinstance(action, (Recall, Trim, Drain)):
                self._at(self._latency_s, self._told, action, self._master_life)
            elif isinstance(action, Record):
                self.result.commits += action.ranges
            elif isinstance(action, Skip):
                self.result.commits.append((action.item, action.item + 1))
                self.result.skipped.append(action.item)
            elif isinstance(action, Hire):
                self._workers[self.master] = VirtualWorker()
                self._at(0.0, self._join, self.master, self._master_life)
            elif isinstance(action, Stop):
                self.result.n_resumed += 1
                self._begin_run()
                return
            elif isinstance(action, (Finish, GiveUp)):
                self.result.outcome = action
            else:
                assert isinstance(action, Discard)

    # ----------------------------------------------------------------- the workers

    def _join(self, rank: int, master_life: int) -> None:
        """Join the master with what this rank holds, and send again what may have been lost."""
        worker = self._workers.get(rank)
        if worker is None or worker.dead or master_life != self._master_life:
            return
        worker.drained = False
        self._report(rank)
        holding = [chunk for chunk in worker.queue if not chunk.care]
        if not worker.busy:
            worker.queue = deque(holding)
        held = tuple(Held(chunk.number, chunk.at, chunk.stop) for chunk in holding)
        self._at(self._latency_s, self._arrive, WorkerJoined(rank, held), master_life)
        for event in worker.sent:
            self._at(2 * self._latency_s, self._arrive, event, master_life)

    def _assigned(self, action: Assign, master_life: int) -> None:
        worker = self._workers.get(action.rank)
        if worker is None or worker.dead or master_life != self._master_life:
            return
        chunk = Chunk(action.attempt, action.start, action.stop, action.care)
        self._draw_fault(action.rank, chunk)
        worker.queue.append(chunk)
        self._begin(action.rank)

    def _draw_fault(self, rank: int, chunk: Chunk) -> None:
        faults, random = self.faults, self._random
        if rank > self._n_mortal:
            return
        for name in ("death", "hang"):
            if random.random() < getattr(faults, name):
                chunk.fault = name
                chunk.fault_at = random.randrange(*self._blocks(chunk.at, chunk.stop))

    def _blocks(self, start: int, stop: int) -> Range:
        block = self._block
        return start // block, -(-stop // block)

    def _told(self, action: Recall | Trim | Drain, master_life: int) -> None:
        worker = self._workers.get(action.rank)
        if worker is None or worker.dead or master_life != self._master_life:
            return
        worker.obey(action)
        if not worker.busy:
            self._begin(action.rank)

    def _begin(self, rank: int) -> None:
        """Begin the next block, and decide what will become of it."""
        worker = self._workers.get(rank)
        if worker is None or worker.busy or worker.dead:
            return
        if worker.drained:
            self._report(rank)
            worker.queue.clear()
            self._send(rank, WorkerDrained(rank))
            worker.drained = False
        while worker.queue and worker.queue[0].at >= worker.queue[0].stop:
            self._report(rank)
            worker.queue.popleft()
        if not worker.queue:
            return
        chunk = worker.queue[0]
        index = chunk.at // self._block
        poison = self.faults.poison.get(index, "")
        worker.busy = True
        busy_s = self._block_time(index)
        is_isolated = chunk.care & Care.ISOLATED or rank == self.master
        if not is_isolated and (poison == "kill" or self._is_fault(chunk, index, "death")):
            self._at(busy_s * self._random.random(), self._die, rank, worker)
            return
        if not is_isolated and poison == "hang":
            worker.hung = True
            return
        if self._is_fault(chunk, index, "hang"):
            busy_s += self.faults.hang_s
        self._at(busy_s, self._computed, rank, worker, chunk, busy_s, poison)

    def _is_fault(self, chunk: Chunk, index: int, name: str) -> bool:
        return chunk.fault == name and chunk.fault_at == index

    def _die(self, rank: int, worker: VirtualWorker) -> None:
        if self._workers.get(rank) is not worker:  # it is the master by now
            return
        worker.dead = True
        self._at(self._latency_s, self._arrive, WorkerLost(rank), self._master_life)

    def _computed(self, rank: int, worker: VirtualWorker, chunk: Chunk, busy_s: float, poison: str) -> None:
        """A block is done, or has failed; go on."""
        if self._workers.get(rank) is not worker or worker.dead:
            return
        worker.busy = False
        if chunk not in worker.queue:
            self._begin(rank)
            return
        self.result.busy_s += busy_s
        start, stop = chunk.at, min(chunk.at + self._block, self._n_items)
        if poison and not (chunk.care & Care.ITEMWISE and self.skip):
            self._report(rank)
            chunk.at = stop
            final = bool(chunk.care & Care.ITEMWISE)
            self._send(rank, ChunkFailed(rank, chunk.number, start, stop, poison, "", final))
        else:
            if poison:
                self.result.skipped.append(start)
            if worker.part_start is None:
                worker.part_start = start
            chunk.at = stop
            if chunk.at >= chunk.stop or self._random.random() < 0.2:
                self._report(rank)
        self._begin(rank)

    def _report(self, rank: int) -> None:
        worker = self._workers[rank]
        if worker.part_start is None or not worker.queue:
            worker.part_start = None
            return
        chunk = worker.queue[0]
        start, stop = worker.part_start, chunk.at
        worker.part_start = None
        if start >= stop:
            return
        units = ((start, stop),) if self._whole_chunks else None
        n_blocks = -(-(stop - start) // self._block)
        busy_s = self._block_time(start // self._block)
        event = ChunkDone(rank, chunk.number, start, stop, busy_s * n_blocks, busy_s, units)
        worker.sent.append(event)
        self._send(rank, event)

    def _send(self, rank: int, event: Event) -> None:
        """Send an answer; it may be late, or arrive twice."""
        faults, random = self.faults, self._random
        late = 0.0
        if not isinstance(event, WorkerDrained) and faults.late and random.random() < faults.late:
            late = faults.late_s * random.random()
        self._at(self._latency_s + late, self._arrive, event, self._master_life)
        if faults.twice and random.random() < faults.twice:
            self._at(2 * self._latency_s + late, self._arrive, event, self._master_life)

    def _arrive(self, event: Event, master_life: int) -> None:
        """A message of the ranks reaches its master, unless that is dead."""
        if master_life == self._master_life:
            self._deliver(event)
