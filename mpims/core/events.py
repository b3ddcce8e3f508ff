"""What goes into the scheduler (events, past participles) and what comes out (actions, imperatives).

All are immutable values. They are named tuples and not dataclasses because one of each is made for
every chunk, and a named tuple costs a quarter of a frozen dataclass.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

Range: TypeAlias = tuple[int, int]
"""A half-open range of items, ``(start, stop)``."""


class WorkerJoined(NamedTuple):
    """A rank is ready to compute."""

    rank: int


class ChunkDone(NamedTuple):
    """A rank delivered the next part of an attempt: all of its chunk, or the front of what is left.

    ``units`` are the ranges that can only be taken whole, in order, such as the subtrees of a
    reduction. None says that the result can be cut between any two blocks.
    """

    rank: int
    attempt: int
    start: int
    stop: int
    busy_s: float
    longest_block_s: float
    units: tuple[Range, ...] | None = None


class ChunkFailed(NamedTuple):
    """The user's code failed on a rank, in items ``[start, stop)`` of an attempt."""

    rank: int
    attempt: int
    start: int
    stop: int
    reason: str
    detail: str


class WorkerLost(NamedTuple):
    """A rank is known to be dead."""

    rank: int


class Tick(NamedTuple):
    """Time has passed; a deadline may be over."""


Event: TypeAlias = WorkerJoined | ChunkDone | ChunkFailed | WorkerLost | Tick


class Assign(NamedTuple):
    """Send items ``[start, stop)`` to a rank, as the attempt of that number."""

    rank: int
    attempt: int
    start: int
    stop: int


class Recall(NamedTuple):
    """Tell a rank to drop an attempt: somebody else has its items."""

    rank: int
    attempt: int


class Record(NamedTuple):
    """Commit these ranges of a delivered result: they are the first answer."""

    attempt: int
    ranges: tuple[Range, ...]


class Discard(NamedTuple):
    """Drop a delivered result, or what of it is not in a Record: another answer was first."""

    attempt: int
    n_items: int


class GiveUp(NamedTuple):
    """End the run as failed."""

    reason: str
    detail: str = ""


class Finish(NamedTuple):
    """Every item is done."""


Action: TypeAlias = Assign | Recall | Record | Discard | GiveUp | Finish
