"""What goes into the scheduler (events, past participles) and what comes out (actions, imperatives).

All are values that nobody changes. Those made for every chunk are named tuples, some of them in
`mpims.core.chunks`. Python is not asked to see to it that nobody changes the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from mpims.core.chunks import Assignment, Held, Range, Result, make


@dataclass(slots=True)
class WorkerJoined:
    """A rank is ready to compute; `holding` is what an earlier master gave it."""

    rank: int
    holding: tuple[Held, ...] = ()


class ChunkDone(NamedTuple):
    """A rank delivered the next part of an attempt: all of its chunk, or the front of what is left.

    ``units`` are the ranges that can only be taken whole, in order, such as the subtrees of a
    reduction. None says that the result can be cut between any two blocks. ``squares_s2`` is the sum of
    the squares of the blocks' times; ``overhead_s`` is what passed between the end of the rank's attempt
    before and the begin of this one, 0 but for its first part.
    """

    rank: int
    attempt: int
    start: int
    stop: int
    busy_s: float
    longest_block_s: float
    units: tuple[Range, ...] | None = None
    squares_s2: float = 0.0
    overhead_s: float = 0.0


def chunk_done(rank: int, result: Result, units: tuple[Range, ...] | None) -> ChunkDone:
    """The event that a rank delivered a result."""
    number, start, stop, busy_s, longest_s, squares_s2, overhead_s = result
    return make(ChunkDone, (rank, number, start, stop, busy_s, longest_s, units, squares_s2, overhead_s))


@dataclass(slots=True)
class ChunksDone:
    """A rank delivered of several attempts at once, in the order of its queue; `units` for each."""

    rank: int
    results: Sequence[Result]
    units: Sequence[tuple[Range, ...] | None]


@dataclass(slots=True)
class ChunkFailed:
    """The block ``[start, stop)`` of an attempt failed; the rank goes on behind it.

    What of the attempt lies before it has been delivered. `final` says that it was a single item,
    tried alone as often as may be.
    """

    rank: int
    attempt: int
    start: int
    stop: int
    reason: str
    detail: str
    final: bool = False


@dataclass(slots=True)
class WorkerSpoke:
    """A rank says that it is there, and nothing else."""

    rank: int


@dataclass(slots=True)
class WorkerDrained:
    """A rank that was told to stop has delivered what it had, and holds nothing more."""

    rank: int


@dataclass(slots=True)
class WorkerLost:
    """A rank is known to be dead."""

    rank: int


@dataclass(slots=True)
class Tick:
    """Time has passed; a deadline may be over."""


@dataclass(slots=True)
class MasterAway:
    """The master did not listen for so long, as when it was suspended: nobody's silence counts."""

    duration_s: float


@dataclass(slots=True)
class MasterServed:
    """The results that came kept the master busy for so long each, with what it handed out for them."""

    service_s: float


@dataclass(slots=True)
class StopRequested:
    """Hand out nothing more; take in what comes within `grace_s` seconds."""

    grace_s: float


@dataclass(slots=True)
class ItemsReturned:
    """A rank that was asked for the end of an attempt has dropped the items from `start` on, not begun."""

    rank: int
    attempt: int
    start: int


@dataclass(slots=True)
class ItemsAdded:
    """So many items more, behind those that there are: the input is open.

    The first of them are for the rank `near`, if that has room: it is awake, and has all at hand.
    """

    n_items: int
    near: int | None = None


@dataclass(slots=True)
class ItemsClosed:
    """No item more will be added: the run ends once all are done."""


Event: TypeAlias = (
    WorkerJoined
    | ChunkDone
    | ChunksDone
    | ChunkFailed
    | WorkerSpoke
    | WorkerDrained
    | WorkerLost
    | Tick
    | MasterAway
    | MasterServed
    | StopRequested
    | ItemsAdded
    | ItemsClosed
    | ItemsReturned
)


@dataclass(slots=True)
class Recall:
    """Tell a rank to drop an attempt: somebody else has its items, or had them first."""

    rank: int
    attempt: int


@dataclass(slots=True)
class Trim:
    """Tell a rank to end an attempt at `stop`, or where it is if that is later."""

    rank: int
    attempt: int
    stop: int


@dataclass(slots=True)
class Drain:
    """Tell a rank to deliver what it has and drop the rest."""

    rank: int


class Record(NamedTuple):
    """Commit these ranges of a delivered result: they are the first answer.

    Of `ChunksDone` it may speak of several results, from the attempt's on, whose items follow each other.
    """

    attempt: int
    ranges: tuple[Range, ...]


@dataclass(slots=True)
class Discard:
    """Drop a delivered result, or what of it is not in a Record: another answer was first."""

    attempt: int
    n_items: int


@dataclass(slots=True)
class Skip:
    """Commit an item without a result: it failed `n_tries` times, the last time on that rank."""

    item: int
    rank: int
    n_tries: int
    reason: str
    detail: str


@dataclass(slots=True)
class Hire:
    """No rank is in service: let the master's own compute."""


@dataclass(slots=True)
class GiveUp:
    """End the run as failed."""

    reason: str
    detail: str = ""


@dataclass(slots=True)
class Stop:
    """End the run unfinished, as was asked: nothing more is to be waited for."""


@dataclass(slots=True)
class Finish:
    """Every item is done."""


Action: TypeAlias = (
    Assignment | Recall | Trim | Drain | Record | Discard | Skip | Hire | GiveUp | Stop | Finish
)
