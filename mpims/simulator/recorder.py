"""The trace of a simulated run, written as a master writes that of a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpims.core.chunks import Assign, AssignAlike, Result
from mpims.core.events import Action, ChunkDone, Event, WorkerJoined
from mpims.core.scheduler import Scheduler
from mpims.runtime.tracing import Tracing
from mpims.runtime.wire import encode_assign, encode_results
from mpims.simulator.costs import Costs
from mpims.storage.tracewriter import TraceWriter

_MOST = 3.4e38  # what a record has room for

FLUSH_INTERVAL = 1000
"""The policy's reason is asked for after so many results at the most."""


class Recorder:
    """Is told what happens in a simulated run, and writes it down.

    Parameters
    ----------
    folder
        The run directory.
    scheduler
        That of the run, which counts blocks ...
    costs
        ... of these items.
    n_workers, workers_per_host
        How many ranks there are, and how many of them share a host.
    """

    def __init__(
        self, folder: Path, scheduler: Scheduler, costs: Costs, n_workers: int, workers_per_host: int
    ) -> None:
        writer = TraceWriter(folder, host=host_of(0, workers_per_host), n_workers=n_workers, now=0.0)
        self._tracing = Tracing(writer, scheduler)
        self._block, self._n_items = costs.block, costs.n_items
        self._workers_per_host = workers_per_host
        self._n_results = 0

    def delivered(
        self, event: ChunkDone, ended_s: float, now: float, service_s: float, actions: Sequence[Action]
    ) -> None:
        """A rank has delivered what it had at `ended_s`."""
        items = self._items(event.start, event.stop)
        result = Result(
            event.attempt,
            *items,
            event.busy_s,
            event.longest_block_s,
            min(event.squares_s2, _MOST),
            event.overhead_s,
        )
        self._tracing.result(event.rank, encode_results([result], None, [ended_s])[0], now)
        self._said(actions)
        self._tracing.served(service_s)
        self._n_results += 1
        if self._n_results % FLUSH_INTERVAL == 0:
            self._tracing.flush(now)

    def told(self, event: Event, now: float, actions: Sequence[Action]) -> None:
        """Something else happened."""
        if isinstance(event, WorkerJoined):
            self._tracing.joined(event.rank, host_of(event.rank, self._workers_per_host), now)
        self._tracing.told(event, now)
        self._said(actions)

    def close(self) -> None:
        """The run is over."""
        self._tracing.close(None)

    def _said(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, (Assign, AssignAlike)):
                items = self._items(action.start, action.stop)
                sent = AssignAlike(action.rank, action.attempt, *items, action.size * self._block)
                self._tracing.sent(action.rank, encode_assign([sent]))
            else:
                self._tracing.said(action)

    def _items(self, start: int, stop: int) -> tuple[int, int]:
        return start * self._block, min(stop * self._block, self._n_items)


def host_of(rank: int, workers_per_host: int) -> str:
    """The name of a virtual host; rank 0 is on the first one, beside the first workers.

    Examples
    --------
    >>> [host_of(rank, 2) for rank in range(6)]
    ['virtual1', 'virtual1', 'virtual1', 'virtual2', 'virtual2', 'virtual3']
    """
    return f"virtual{max(rank - 1, 0) // workers_per_host + 1}"
