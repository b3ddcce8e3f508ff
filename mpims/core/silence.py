"""Who has been silent past the deadline.

A rank's silence is looked at when its deadline is over, not at every message before: then it is seen
whether the rank has spoken meanwhile, and if so when to look again.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush

from mpims.core.deadlines import Deadlines
from mpims.core.workers import WorkerState


class Silence:
    """The watch over all ranks.

    Parameters
    ----------
    deadlines
        When a silent rank counts as timed out.
    """

    __slots__ = ("_checks", "_deadlines")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._checks: list[tuple[float, int]] = []  # heap of (time, rank)

    @property
    def allowance_s(self) -> float | None:
        """Seconds of silence allowed; None as long as nothing is known."""
        return self._deadlines.allowance_s

    @property
    def next_at(self) -> float | None:
        """When to look next."""
        return self._checks[0][0] if self._checks else None

    def learn(self, longest_block_s: float, workers: Mapping[int, WorkerState]) -> None:
        """Take in the longest block of a chunk that went well."""
        was_unknown = self._deadlines.allowance_s is None
        self._deadlines.learn(longest_block_s)
        if was_unknown:
            for worker in workers.values():
                self.watch(worker)

    def watch(self, worker: WorkerState) -> None:
        """Look at a rank with work when its deadline is over."""
        allowance = self._deadlines.allowance_s
        if allowance is not None and worker.queue and not worker.has_check and not worker.suspect:
            worker.has_check = True
            heappush(self._checks, (worker.silent_since + allowance, worker.rank))

    def overdue(self, workers: Mapping[int, WorkerState], now: float) -> list[WorkerState]:
        """The ranks that are past their deadline by now."""
        found = []
        checks = self._checks
        due = []
        while checks and checks[0][0] <= now:
            due.append(heappop(checks)[1])
        for rank in due:
            worker = workers.get(rank)
            if worker is None or not worker.has_check:
                continue
            worker.has_check = False
            if worker.queue and not worker.suspect and self._is_over(worker, now):
                found.append(worker)
            else:
                self.watch(worker)
        return found

    def _is_over(self, worker: WorkerState, now: float) -> bool:
        allowance = self._deadlines.allowance_s
        return allowance is not None and worker.silent_since + allowance <= now
