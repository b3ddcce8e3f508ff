"""What of a master's work goes into the trace: nothing is converted here, for it is done at every chunk."""

from __future__ import annotations

from collections.abc import Sequence

from mpims.core.events import (
    Action,
    ChunkFailed,
    Event,
    Hire,
    MasterAway,
    Recall,
    Skip,
    StopRequested,
    Trim,
    WorkerDrained,
    WorkerLost,
)
from mpims.core.scheduler import Scheduler
from mpims.errors import MpimsError, Stopped
from mpims.runtime.wire import SkippedItem, packed_results
from mpims.storage.trace import What
from mpims.storage.tracewriter import TraceWriter

REASON_INTERVAL = 0.25
"""The policy's reason is asked for after each such share of the time gone ..."""
_FIRST_REASON_S = 1.0
"""... but not more often than this."""


_NOTED = {WorkerLost, ChunkFailed, WorkerDrained, StopRequested, MasterAway}


class Tracing:
    """Tells the trace of one master what happens.

    Parameters
    ----------
    writer
        The trace.
    scheduler
        Knows who is suspect, and the policy's reason.
    """

    def __init__(self, writer: TraceWriter, scheduler: Scheduler) -> None:
        self._writer = writer
        self._scheduler = scheduler
        self._served: list[tuple[int, bytes, float]] = []  # whom, what they had delivered, and when
        self._suspects: set[int] = set()
        self._n_timeouts = 0
        self._reason = ""
        self._began: float | None = None
        self._ask_at = 0.0
        self._now = 0.0

    def result(self, rank: int, head: bytes, now: float) -> None:
        """A rank has delivered; `head` is that of its RESULT."""
        self._now = now
        self._served.append((rank, packed_results(head), now))

    def served(self, seconds: float) -> None:
        """All that was delivered since the last time took the master so long."""
        if self._served:
            each_s = seconds / len(self._served)
            for rank, results, now in self._served:
                self._writer.delivered(rank, results, now, each_s)
            self._served = []

    def sent(self, rank: int, assigns: bytes) -> None:
        """Chunks were handed out; `assigns` as for `TraceWriter.sent`."""
        self._writer.sent(rank, assigns, self._now)

    def joined(self, rank: int, host: str, now: float) -> None:
        """A rank has joined."""
        self._writer.note(What.JOINED, now, rank=rank, host=host)

    def skipped(self, rank: int, items: Sequence[SkippedItem], now: float) -> None:
        """Items, tried alone, are given up."""
        for item, n_tries, reason, _ in items:
            self._writer.note(What.SKIPPED, now, rank=rank, item=item, n_tries=n_tries, reason=reason[:500])

    def told(self, event: Event, now: float) -> None:
        """The scheduler was told of something rarer than a result."""
        self._now = now
        if type(event) not in _NOTED:
            return
        note = self._writer.note
        if isinstance(event, WorkerLost):
            note(What.LOST, now, rank=event.rank)
        elif isinstance(event, ChunkFailed):
            items = {"start": event.start, "stop": event.stop}
            note(
                What.FAILED, now, rank=event.rank, attempt=event.attempt, **items, reason=event.reason[:500]
            )
        elif isinstance(event, WorkerDrained):
            note(What.DRAINED, now, rank=event.rank)
        elif isinstance(event, StopRequested):
            note(What.STOPPING, now)
        elif isinstance(event, MasterAway):
            note(What.AWAY, now, duration_s=event.duration_s)

    def said(self, action: Action) -> None:
        """The scheduler said something rarer than to hand out."""
        note, now = self._writer.note, self._now
        if isinstance(action, Recall):
            note(What.RECALLED, now, rank=action.rank, attempt=action.attempt)
        elif isinstance(action, Trim):
            note(What.TRIMMED, now, rank=action.rank, attempt=action.attempt, stop=action.stop)
        elif isinstance(action, Skip):
            tried = {"n_tries": action.n_tries, "reason": action.reason[:500]}
            note(What.SKIPPED, now, rank=action.rank, item=action.item, **tried)
        elif isinstance(action, Hire):
            note(What.HIRED, now)

    def look(self) -> None:
        """Note who has become suspect, and who speaks again."""
        n_timeouts = self._scheduler.counters.n_timeouts
        if n_timeouts == self._n_timeouts and not self._suspects:
            return
        self._n_timeouts = n_timeouts
        suspects = self._scheduler.suspects
        for rank in sorted(suspects - self._suspects):
            self._writer.note(What.SUSPECT, self._now, rank=rank)
        for rank in sorted(self._suspects - suspects):
            if rank in self._scheduler.workers:
                self._writer.note(What.BACK, self._now, rank=rank)
        self._suspects = suspects

    def flush(self, now: float) -> None:
        """Write what has come together, now and then the policy's reason with it."""
        self._began = now if self._began is None else self._began
        if now >= self._ask_at:
            self._ask_at = now + max(_FIRST_REASON_S, REASON_INTERVAL * (now - self._began))
            self._note_reason(now)
        self._writer.flush()

    def close(self, error: MpimsError | None) -> None:
        """Write the rest: the master has ended, all done or with an error."""
        self.look()
        self._note_reason(self._now)
        status = "failed"
        if error is None or isinstance(error, Stopped):
            status = "done" if self._scheduler.ledger.complete else "stopped"
        reason = error.message[:500] if error is not None else ""
        self._writer.note(What.ENDED, self._now, status=status, reason=reason)
        self._writer.close()

    def _note_reason(self, now: float) -> None:
        reason = self._scheduler.explain()
        if reason and reason != self._reason:
            self._reason = reason
            self._writer.note(What.POLICY, now, reason=reason)
