"""What can still be done before the time for computing is over, by what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from mpims.core.policies import Sizer
from mpims.core.workers import WorkerState

_SHORTEST_S = 1e-9


class Walltime:
    """The time until the end, in blocks.

    Parameters
    ----------
    end_at
        When the time is over.
    block
        Items in a block.
    sizer
        Is told for how many blocks of a chunk there is time.
    """

    def __init__(self, end_at: float, block: int, sizer: Sizer) -> None:
        self._end_at = end_at
        self._block = block
        self._sizer = sizer

    def allows(self, worker: WorkerState, mean_block_s: float | None, now: float) -> bool:
        """Whether a rank can probably do another block, after all that it holds.

        As if it began with that now: what it has done of its first chunk makes up for blocks that take
        longer than others. Before any block was measured there is time for all.
        """
        block_s = worker.block_s or mean_block_s
        if block_s is None:
            return now < self._end_at
        n_held = sum([-((attempt.start - attempt.stop) // self._block) for attempt in worker.queue])
        room = int((self._end_at - now) / max(block_s, _SHORTEST_S)) - n_held
        self._sizer.room = room
        return room >= 1

    def is_over(self, workers: Iterable[WorkerState], mean_block_s: float | None, now: float) -> bool:
        """Whether none of these ranks has work or can do another block; suspects do not count."""
        in_service = [worker for worker in workers if not worker.suspect]
        if not in_service:
            return self._end_at <= now
        return all(not w.queue and not self.allows(w, mean_block_s, now) for w in in_service)
