"""Is it the block, or the rank? Which rank may try what failed before.

A block that failed is tried on another rank while there is one. A rank on which block after block
fails, and nothing of it elsewhere, is *dubious*: it would soon have tried all there is, so it waits
until others have. What is given up no other will try; then whatever fails elsewhere lets it try one more.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpims.core.chunks import PLAIN
from mpims.core.ledger import Attempt
from mpims.core.troubles import Trouble, Troubles
from mpims.core.workers import WorkerState

DUBIOUS = 3
"""A rank on which so many blocks failed in a row waits until some of them fail elsewhere, too."""


class Blame:
    """Who may try what.

    Parameters
    ----------
    workers, troubles
        The scheduler's ranks, and what went wrong so far.
    """

    __slots__ = ("_troubles", "_workers")

    def __init__(self, workers: Mapping[int, WorkerState], troubles: Troubles) -> None:
        self._workers = workers
        self._troubles = troubles

    def count_failure(self, worker: WorkerState, trouble: Trouble | None, *, is_last: bool = False) -> None:
        """A block failed on a rank; if that was for the last time no other rank will try it as it is."""
        if trouble is not None and len(trouble.failed_on) > 1:  # it is the block
            for rank in trouble.failed_on & self._workers.keys():
                self._workers[rank].n_failed = 0
            return
        worker.n_failed += 1
        if is_last:
            for other in self._workers.values():
                if other is not worker:
                    other.n_failed = min(other.n_failed, DUBIOUS - 1)

    def is_dubious(self, worker: WorkerState) -> bool:
        """Whether a rank has to wait until others have tried what failed on it."""
        return worker.n_failed >= DUBIOUS and any(
            other.n_failed < DUBIOUS and not other.suspect for other in self._workers.values()
        )

    def suits(self, rank: int, trouble: Trouble) -> bool:
        """Whether a rank may try what failed: not where it failed before, while others are there.

        A dubious one is none of these: it waits for this rank, which would wait for it.
        """
        if rank not in trouble.failed_on:
            return True
        return all(
            r in trouble.failed_on or worker.suspect or self.is_dubious(worker)
            for r, worker in self._workers.items()
        )

    def may_try(self, rank: int, attempt: Attempt) -> bool:
        """Whether all that an attempt has still to deliver suits a rank."""
        troubles = self._troubles
        at: int | None = attempt.start
        while at is not None and at < attempt.stop:
            trouble = troubles.at(at)
            if trouble is not None and not self.suits(rank, trouble):
                return False
            at = troubles.next_after(at)
        return True

    def is_in_trouble(self, attempt: Attempt) -> bool:
        """Whether a rank failed, died or fell silent over what an attempt has still to deliver."""
        following = self._troubles.next_after(attempt.start)
        return (
            attempt.care is not PLAIN
            or self._troubles.at(attempt.start) is not None
            or (following is not None and following < attempt.stop)
        )
