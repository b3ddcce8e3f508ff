r"""The fast driver: one event per chunk, so that a million hand-outs take seconds.

The scheduler is the real one; what is simulated is the ranks, the way to them, and the master's time::

    worker   overhead | block | block | block              overhead | block | ...
                                             \            /
                                      latency \          / latency
                                               \        /
    master                                      wait | service

The master is one server that takes messages in the order of their arrival. All are equally long under
way, so they arrive in the order in which they were sent: what the master does with one is worked out when
the worker sends it, and the agenda holds little but the ends of what the workers compute.

The unit is the block: the scheduler's ledger counts blocks of 1.
"""

from __future__ import annotations

import gc
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappop, heapreplace
from math import inf
from typing import NamedTuple, TypeAlias

from mpims.core.chunks import Assign, AssignAlike, Care, make
from mpims.core.events import (
    Action,
    ChunkDone,
    Event,
    Hire,
    MasterServed,
    Recall,
    Record,
    Tick,
    Trim,
    WorkerJoined,
    WorkerLost,
)
from mpims.core.scheduler import Scheduler
from mpims.errors import InternalError
from mpims.simulator.agenda import Agenda
from mpims.simulator.costs import Costs
from mpims.simulator.machine import Machine, Played
from mpims.simulator.recorder import Recorder


class _Death(NamedTuple):
    """A rank dies, and the master does not know yet."""

    rank: int


_Part: TypeAlias = tuple[float, int, int, int, int, float, float, int]
"""What a worker computes and will deliver next: when it ends, attempt (0: to be dropped), start and stop,
the end of the whole chunk, when its first block begins, how long its blocks take, care."""
_Held: TypeAlias = tuple[int, int, int, float, int]
"""A chunk that a worker has not begun: attempt, start, stop, when it arrives, care."""


class Engine:
    """Plays one run to its end.

    Parameters
    ----------
    scheduler
        The scheduler, new, with a ledger of ``costs.n_blocks`` items in blocks of 1. Its deadlines are
        infinite: no rank hangs here, and one that dies is reported.
    costs
        What the blocks cost.
    machine
        What they are computed on.
    learns
        Whether the policy wants to know how much the times of a chunk's blocks differ; they are 0 if not.
    recorder
        Is told of everything, for the trace of a run.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        costs: Costs,
        machine: Machine,
        *,
        learns: bool = True,
        recorder: Recorder | None = None,
    ) -> None:
        n_ranks = machine.n_workers + 1
        self._scheduler = scheduler
        self._prefix = costs.prefix
        self._squares = costs.squares if learns else None
        self._machine = machine
        self._recorder = recorder
        self._pace = [float(machine.slowness.get(rank, 1.0)) for rank in range(n_ranks)]
        self._running: list[_Part | None] = [None] * n_ranks
        self._waiting: list[list[_Held]] = [[] for _ in range(n_ranks)]
        self._dead: set[int] = set()
        mean_s = costs.prefix[-1] / max(1, costs.n_blocks)
        # (time, rank) at which a rank delivers; in place of a rank a negative key of `_rare`.
        self._agenda = Agenda(machine.n_workers, mean_s / machine.n_workers)
        self._rare: dict[int, Event | Action | _Death] = {}
        self._next_key = -(1 << 62)
        self._free_at = 0.0  # the master is busy until then
        self._sizes: set[int] = set()
        self._played = Played()
        # The deaths that come at a share of the work, the last one first.
        self._due = sorted(
            ((moment.share, rank) for rank, moment in machine.deaths if moment.share is not None),
            reverse=True,
        )

    def run(self) -> Played:
        """Play events in the order of their times until every block is done.

        Raises
        ------
        InternalError
            Nothing is left to happen, and blocks are left.
        """
        for rank, moment in self._machine.deaths:
            if moment.after_s is not None:
                self._plan(moment.after_s, _Death(rank))
        with _uncollected():
            for rank in range(1, self._machine.n_workers + 1):
                self._tell(WorkerJoined(rank), 0.0)
            # What a real master learns with every result is the same each time here.
            self._tell(MasterServed(self._machine.service_s), self._free_at)
            self._play()
        if not self._scheduler.ended:
            raise InternalError("a simulated run came to a stop before its end")
        played = self._played
        played.makespan_s = self._free_at
        played.largest, played.least = max(self._sizes), min(self._sizes)
        return played

    def _play(self) -> None:
        """The loop: what happens at every hand-out is written out, all else is elsewhere."""
        scheduler, running, waiting = self._scheduler, self._running, self._waiting
        agenda, heap = self._agenda, self._agenda.near
        prefix, squares, pace, due = self._prefix, self._squares, self._pace, self._due
        ended = [-1.0] * len(pace)  # when a rank was done with the last chunk, until it begins the next
        latency_s, service_s = self._machine.latency_s, self._machine.service_s
        overhead_s, report_s = self._machine.overhead_s, self._machine.report_s
        handle, begin, note_size = scheduler.handle, self._begin, self._sizes.add
        recorder = self._recorder
        n_messages, served_s = 0, 0.0
        deadline = self._next_deadline()
        while not scheduler.ended:
            if not heap:
                agenda.refill()
            if deadline < inf and (not heap or deadline <= heap[0][0] + latency_s):
                self._tell(Tick(), deadline - latency_s)
                deadline = self._next_deadline()
                continue
            if not heap:
                break
            time, rank = heap[0]
            part = running[rank] if rank >= 0 else None
            if (
                part is None or part[0] != time
            ):  # of a rank: it was trimmed or recalled, or the rank is dead
                heappop(heap)
                if rank < 0:
                    self._happen(self._rare.pop(rank), time)
                    deadline = self._next_deadline()
                continue
            _, number, start, stop, last, began, busy_s, care = part
            factor = pace[rank]
            queue = waiting[rank]
            if stop < last:
                end = begin(rank, number, stop, last, time, care)
            elif queue:
                following, a, b, there_at, care = queue.pop(0)
                origin = (there_at if there_at > time else time) + overhead_s
                its_s = (prefix[b] - prefix[a]) * factor
                if its_s > report_s:
                    end = begin(rank, following, a, b, origin, care)
                else:
                    end = origin + its_s
                    running[rank] = (end, following, a, b, b, origin, its_s, care)
            else:
                running[rank] = None
                end = inf
            if end < agenda.edge:
                heapreplace(heap, (end, rank))
            else:
                heappop(heap)
                if end < inf:
                    agenda.push_later((end, rank))
            if number:
                now = time + latency_s
                if self._free_at > now:
                    now = self._wait(now)
                squares_s2 = between_s = 0.0
                if squares:
                    squares_s2 = (squares[stop] - squares[start]) * factor * factor
                    if ended[rank] >= 0.0:
                        between_s = began - ended[rank]
                    ended[rank] = time if stop == last else -1.0
                longest_s = busy_s / (stop - start)
                event = make(
                    ChunkDone,
                    (rank, number, start, stop, busy_s, longest_s, None, squares_s2, between_s),
                )
                actions = handle(event, now)
                free_at = now + service_s
                there_at = free_at + latency_s
                for action in actions:
                    if type(action) is Record:
                        continue
                    if type(action) is Assign and action.rank == rank:
                        _, number, start, stop, care = action
                        note_size(stop - start)
                        if running[rank] is None:
                            end = begin(rank, number, start, stop, there_at + overhead_s, care)
                            agenda.push((end, rank))
                        else:
                            queue.append((number, start, stop, there_at, care))
                    elif type(action) is AssignAlike and action.rank == rank:
                        for one in action.singly():
                            self._hand_out(one, time, there_at)
                    else:
                        free_at = self._perform(action, time, free_at)
                self._free_at = free_at
                if recorder is not None:
                    recorder.delivered(event, time, now, free_at - now, actions)
                n_messages += 1
                served_s += free_at - now
                if due:
                    self._die_when_due(time)
            else:
                ended[rank] = time
            if deadline < inf or running[rank] is None:
                deadline = self._next_deadline()
        self._played.n_messages += n_messages
        self._played.served_s += served_s

    def _next_deadline(self) -> float:
        deadline = self._scheduler.next_deadline()
        return inf if deadline is None else deadline

    def _plan(self, time: float, what: Event | Action | _Death) -> None:
        """Let something happen at a time, before whatever workers deliver then."""
        self._rare[self._next_key] = what
        self._agenda.push((time, self._next_key))
        self._next_key += 1

    def _happen(self, what: Event | Action | _Death, time: float) -> None:
        if isinstance(what, _Death):
            self._die(what.rank, time)
        elif isinstance(what, (Recall, Trim)):
            self._obey(what, time)
        elif isinstance(what, (WorkerJoined, WorkerLost)):
            self._tell(what, time)

    # ------------------------------------------------------------------ the master

    def _tell(self, event: Event, time: float) -> None:
        """Let the master have an event that was sent at a time; a Tick or a death costs no service."""
        now = max(time + self._machine.latency_s, self._free_at)
        free_at = now
        actions = self._scheduler.handle(event, now)
        for action in actions:
            free_at = self._perform(action, time, free_at)
        if self._recorder is not None:
            self._recorder.told(event, now, actions)
        self._free_at = free_at
        self._played.served_s += free_at - now

    def _wait(self, arrival: float) -> float:
        """A result waits for the master; give the time at which it is served."""
        wait_s = self._free_at - arrival
        self._played.waited_s += wait_s
        self._played.longest_wait_s = max(self._played.longest_wait_s, wait_s)
        return self._free_at

    def _perform(self, action: Action, time: float, sent_at: float) -> float:
        """Do what the scheduler says, seen from `time`; give when the master has sent it."""
        if isinstance(action, Assign):
            sent_at += self._machine.service_s
            self._hand_out(action, time, sent_at + self._machine.latency_s)
        elif isinstance(action, AssignAlike):
            sent_at += self._machine.service_s
            for one in action.singly():
                self._hand_out(one, time, sent_at + self._machine.latency_s)
        elif isinstance(action, (Recall, Trim)):
            there_at = sent_at + self._machine.latency_s
            if there_at > time:
                self._plan(there_at, action)
            else:
                self._obey(action, time)
        elif isinstance(action, Hire):
            self._plan(sent_at, WorkerJoined(0))
        return sent_at

    def _hand_out(self, chunk: Assign, time: float, there_at: float) -> None:
        rank, start, stop = chunk.rank, chunk.start, chunk.stop
        self._sizes.add(stop - start)
        if rank not in self._dead:
            self._waiting[rank].append((chunk.attempt, start, stop, there_at, chunk.care))
            self._go_on(rank, time)

    # ----------------------------------------------------------------- the workers

    def _begin(self, rank: int, number: int, start: int, stop: int, origin: float, care: int) -> float:
        """A rank computes from `origin` on; give when it delivers: at the end, or before if that is far."""
        prefix, pace = self._prefix, self._pace[rank]
        part_stop = stop
        busy_s = (prefix[stop] - prefix[start]) * pace
        if stop - start > 1 and busy_s > self._machine.report_s:
            report_s = self._machine.report_s
            part_stop = bisect_left(prefix, prefix[start] + report_s / pace, start + 1, stop)
            busy_s = (prefix[part_stop] - prefix[start]) * pace
        end = origin + busy_s
        self._running[rank] = (end, number, start, part_stop, stop, origin, busy_s, care)
        return end

    def _go_on(self, rank: int, time: float) -> None:
        """An idle rank begins what it holds."""
        if self._running[rank] is None and self._waiting[rank]:
            number, start, stop, there_at, care = self._waiting[rank].pop(0)
            origin = max(there_at, time) + self._machine.overhead_s
            self._agenda.push((self._begin(rank, number, start, stop, origin, care), rank))

    def _obey(self, action: Recall | Trim, time: float) -> None:
        """A rank is told to drop an attempt or to end it early, which it does between two blocks."""
        rank, number = action.rank, action.attempt
        keep_to = action.stop if isinstance(action, Trim) else 0
        is_recall = isinstance(action, Recall)
        self._waiting[rank][:] = [
            (n, start, min(stop, keep_to) if n == number else stop, there_at, care)
            for n, start, stop, there_at, care in self._waiting[rank]
            if n != number or start < keep_to
        ]
        part = self._running[rank]
        if part is None or part[1] != number:
            return
        _, _, start, stop, last, origin, _, care = part
        last = min(last, max(self._under_way(part, self._pace[rank], time), keep_to))
        stop = min(stop, last)
        busy_s = (self._prefix[stop] - self._prefix[start]) * self._pace[rank]
        end = origin + busy_s
        if is_recall or stop == start:
            number = 0
        if stop == start or (is_recall and care & Care.ISOLATED):  # a child can be killed in a block
            end = time
        self._running[rank] = (end, number, start, stop, last, origin, busy_s, care)
        self._agenda.push((end, rank))

    def _under_way(self, part: _Part, pace: float, time: float) -> int:
        """The end of the block that is computed at a time; the start if none is yet."""
        _, _, start, stop, _, origin, _, _ = part
        if time <= origin:
            return start
        return bisect_right(self._prefix, self._prefix[start] + (time - origin) / pace, start + 1, stop)

    def _die(self, rank: int, time: float) -> None:
        if rank in self._dead:
            return
        self._dead.add(rank)
        self._running[rank] = None
        self._waiting[rank].clear()
        self._plan(time + max(self._machine.detection_s - self._machine.latency_s, 0.0), WorkerLost(rank))

    def _die_when_due(self, time: float) -> None:
        """Let the ranks die whose share of the work is done."""
        ledger, due = self._scheduler.ledger, self._due
        while due and due[-1][0] * ledger.n_items <= ledger.done.size:
            self._die(due.pop()[1], time)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no cycles: none are made, and what lives is more with every rank."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
