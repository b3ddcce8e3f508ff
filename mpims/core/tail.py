"""The end of a run: whose work an idle rank takes over when nothing is left to hand out.

The attempt expected to end last is cut in two where enough of it is left, and computed a second time
where it is down to one block; the first answer counts. A block that takes longer than expected is
expected to take as long again as it has taken (Lindy's rule), which needs no constant: a healthy block
is never computed twice, a rank that is slow or hung is overtaken soon.

The second computing is the backup task of Dean & Ghemawat, "MapReduce", OSDI 2004; the halving is that
of work stealing (Blumofe & Leiserson 1999).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mpims.core.ledger import Attempt
from mpims.core.workers import WorkerState

LEAST_MOVE_S = 0.5e-3
"""A chunk that its rank has not begun is moved if that rank needs at least this long until it does."""
LEAST_GAIN = 1.0
"""Work is moved if that saves at least so many of the idle rank's blocks."""


class Running(NamedTuple):
    """An attempt under way, as far as can be told from outside."""

    attempt: Attempt
    n_blocks: float  # expected to be still to compute, the one under way included
    left_s: float  # expected until its end


def expect(attempt: Attempt, block: int, block_s: float, silent_s: float) -> Running:
    """What is expected of an attempt whose rank was last heard of `silent_s` ago.

    Examples
    --------
    >>> expect(Attempt(1, 3, 0, 10), 1, 2.0, silent_s=4.0)[1:]
    (8.0, 16.0)
    >>> expect(Attempt(1, 3, 6, 10), 1, 1.0, silent_s=5.0)[1:]  # overdue: who knows how far it is
    (4, 5.0)
    """
    n_blocks = -(-(attempt.stop - attempt.start) // block)
    left_s = n_blocks * block_s - silent_s
    if left_s <= 0:
        return Running(attempt, n_blocks, silent_s)
    return Running(attempt, max(1.0, left_s / block_s), left_s)


def cut(running: Running, block: int) -> int | None:
    """Where to cut an attempt in two: amid what is expected to be left; None if that is one block."""
    attempt = running.attempt
    n_moved = max(1, int(running.n_blocks / 2))
    n_kept = -(-(attempt.stop - attempt.start) // block) - n_moved
    return attempt.start + n_kept * block if n_kept >= 1 else None


def gains(running: Running, block_s: float) -> bool:
    """Whether a rank that needs `block_s` for a block would be done before it."""
    return running.left_s > LEAST_GAIN * block_s


def last_to_end(
    workers: Iterable[WorkerState], block: int, mean_block_s: float, now: float
) -> Running | None:
    """The attempt expected to end last of the ones that these ranks compute; one with a twin is none."""
    last: WorkerState | None = None
    most_s = 0.0
    for owner in workers:
        head = owner.queue[0]
        if head.twin is None and not owner.suspect:
            # In short what `expect` says, which is asked about the last one only.
            silent_s = now - owner.silent_since
            left_s = -((head.start - head.stop) // block) * (owner.block_s or mean_block_s) - silent_s
            if left_s <= 0:
                left_s = silent_s
            if left_s > most_s or last is None:
                last, most_s = owner, left_s
    if last is None:
        return None
    return expect(last.queue[0], block, last.block_s or mean_block_s, now - last.silent_since)


def is_worth_moving(owner: WorkerState, block: int, block_s: float, now: float) -> bool:
    """Whether a rank will hardly begin the last chunk it holds before another could have it."""
    n_items = sum(attempt.stop - attempt.start for attempt in owner.queue[:-1])
    return max(block_s * n_items / block, now - owner.silent_since) >= LEAST_MOVE_S
