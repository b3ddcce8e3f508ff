"""Chunks as they travel: handed out, held, delivered.

What every rank needs. What else the scheduler is told and says is in `mpims.core.events`, which only a
master needs and which takes ten milliseconds to import. Where microseconds count `make` makes these tuples,
in half the time that a call of the class takes.
"""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple, TypeAlias

Range: TypeAlias = tuple[int, int]
"""A half-open range of items, ``(start, stop)``."""


make = tuple.__new__
"""``make(Assign, (rank, attempt, start, stop, care))`` makes a named tuple of all its fields."""


class Care(IntFlag):
    """How carefully a chunk is to be computed; 0 is the ordinary way."""

    ISOLATED = 1
    """In a child process: a rank died or fell silent over it."""
    ITEMWISE = 2
    """One item at a time: the block failed again and again, and one of its items is at fault."""


PLAIN = Care(0)


class Held(NamedTuple):
    """An attempt of an earlier master that a rank goes on with: what it has still to deliver."""

    attempt: int
    start: int
    stop: int


class Result(NamedTuple):
    """What is delivered of one attempt, and how long it took: see `ChunkDone`."""

    attempt: int
    start: int
    stop: int
    busy_s: float = 0.0
    longest_block_s: float = 0.0
    squares_s2: float = 0.0
    overhead_s: float = 0.0


class Assign(NamedTuple):
    """Send items ``[start, stop)`` to a rank, as the attempt of that number."""

    rank: int
    attempt: int
    start: int
    stop: int
    care: Care = PLAIN

    @property
    def size(self) -> int:
        """Items in the chunk."""
        return self.stop - self.start


class AssignAlike(NamedTuple):
    """Send items ``[start, stop)`` to a rank in chunks of `size` items, the attempts from that number on.

    The last chunk is shorter if they do not come out even. It says the same as an `Assign` for each chunk,
    for what takes less time than an action of its own.
    """

    rank: int
    attempt: int
    start: int
    stop: int
    size: int

    @property
    def care(self) -> Care:
        """The ordinary way."""
        return PLAIN

    @property
    def n_chunks(self) -> int:
        """How many chunks they are."""
        return -((self.start - self.stop) // self.size)

    def singly(self) -> list[Assign]:
        """The same, chunk by chunk."""
        rank, first, start, stop, size = self
        return [
            Assign(rank, number, at, min(at + size, stop))
            for number, at in enumerate(range(start, stop, size), first)
        ]


Assignment: TypeAlias = Assign | AssignAlike
