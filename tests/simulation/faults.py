"""What goes wrong in a simulated run, what its ranks hold, and how it went."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from mpims.core.chunks import Care, Range
from mpims.core.events import Drain, Event, Finish, GiveUp, Recall, Trim
from mpims.core.scheduler import Scheduler

BlockTime: TypeAlias = Callable[[int], float]
"""Seconds that a block takes, from its index."""

RETAINED = 3
"""A rank keeps so many of its last answers for a new master."""


class MakeScheduler(Protocol):
    """Makes the scheduler of a new master."""

    def __call__(self, *, done: Sequence[Range], first_attempt: int, n_workers: int) -> Scheduler:
        """A scheduler that knows what is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong.

    Parameters
    ----------
    death, hang
        Probability that a rank dies, or is silent for `hang_s` seconds, in an attempt.
    late, twice
        Probability that an answer is under way for up to `late_s` seconds (and so may overtake one
        before it), or arrives twice.
    master_death, crash, stop, away
        Probability, at each event, that the master dies, that everything does, that the user stops the
        run, or that the master is suspended for `hang_s` seconds.
    spare
        So many ranks neither die nor hang as workers.
    most
        At most so many deaths of masters, crashes and stops, all together.
    poison
        Blocks at fault: "raise", "kill" or "hang", whoever computes them.
    """

    death: float = 0.0
    hang: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    master_death: float = 0.0
    crash: float = 0.0
    stop: float = 0.0
    away: float = 0.0
    hang_s: float = 100.0
    late_s: float = 100.0
    spare: int = 1
    most: int = 10
    poison: Mapping[int, str] = field(default_factory=dict)


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
        Every committed range that was not lost, in the order of the commits.
    skipped
        Items given up.
    outcome
        The Finish or GiveUp that ended the run; None if the events ran out before.
    n_masters, n_resumed
        How often another rank became the master, and how often the whole run was resumed.
    """

    makespan_s: float = 0.0
    busy_s: float = 0.0
    commits: list[Range] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    outcome: Finish | GiveUp | None = None
    n_masters: int = 0
    n_resumed: int = 0


class Chunk:
    """An attempt as the rank that has it sees it."""

    __slots__ = ("at", "care", "fault", "fault_at", "number", "stop")

    def __init__(self, number: int, start: int, stop: int, care: Care) -> None:
        self.number = number
        self.at = start
        self.stop = stop
        self.care = care
        self.fault = ""  # what happens to the rank in the block `fault_at`
        self.fault_at = -1


class VirtualWorker:
    """A rank that computes block by block."""

    __slots__ = ("busy", "dead", "drained", "hung", "part_start", "queue", "sent")

    def __init__(self) -> None:
        self.queue: deque[Chunk] = deque()
        self.sent: deque[Event] = deque(maxlen=RETAINED)
        self.part_start: int | None = None
        self.busy = False
        self.dead = False
        self.drained = False
        self.hung = False  # for ever

    def obey(self, action: Recall | Trim | Drain) -> None:
        """Note what the master says; it is done between two blocks."""
        if isinstance(action, Drain):
            self.drained = True
            return
        for chunk in self.queue:
            if chunk.number == action.attempt:
                end = chunk.at if isinstance(action, Recall) else max(chunk.at, action.stop)
                chunk.stop = min(chunk.stop, end)
