"""The master's loop: receive, handle, perform.

::

    transport --message--> Master --event, now--> Scheduler
                             |                        |
                    results, ranks <----actions-------+
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mpims.core.events import (
    Action,
    Assign,
    ChunkDone,
    ChunkFailed,
    Event,
    Finish,
    GiveUp,
    Recall,
    Record,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from mpims.core.scheduler import Scheduler
from mpims.errors import ExitStatus, MpimsError, RunFailed, UsageError
from mpims.report.progress import NoProgress
from mpims.runtime.parts import ResultError
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import (
    End,
    Failed,
    Joined,
    Kind,
    Message,
    ResultHead,
    Start,
    decode_object,
    decode_payload,
    decode_result_head,
    encode_assign,
    encode_object,
    encode_recall,
)
from mpims.storage.results import Results

LONGEST_WAIT_S = 1.0
"""The master looks around at least this often."""
GOODBYE_WAIT_S = 5.0
"""After the end, workers have this long to finish the block that they are in."""


@dataclass(slots=True)
class WorkerRecord:
    """What is known of one worker, for messages and the summary."""

    host: str
    pid: int
    busy_s: float = 0.0


@dataclass(slots=True)
class MasterRecord:
    """What the master saw of a run."""

    workers: dict[int, WorkerRecord] = field(default_factory=dict)
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Master:
    """Runs one job on the workers of a transport.

    Parameters
    ----------
    transport
        The way to the workers.
    scheduler
        The state machine, new.
    results
        Where results go.
    identity
        Number and digest of the items as the master sees them.
    job
        The job as text, to compare.
    workers
        The ranks that compute.
    alone
        The worker is this process itself: to the user, both are rank 0.
    progress
        Is told how far the run is.
    """

    def __init__(
        self,
        transport: Transport,
        scheduler: Scheduler,
        results: Results,
        *,
        identity: tuple[int, str],
        job: str,
        workers: Sequence[int],
        alone: bool = False,
        progress: NoProgress | None = None,
    ) -> None:
        self._transport = transport
        self._scheduler = scheduler
        self._results = results
        self._identity = identity
        self._job = job
        self._workers = workers
        self._alone = alone
        self._progress = progress or NoProgress()
        self._began = 0.0
        self._cpu_began = 0.0
        self.record = MasterRecord()
        self.ended = False
        self.error: MpimsError | None = None

    # ------------------------------------------------------------------ the loop

    def begin(self, start: Start) -> None:
        """Send the job to the workers."""
        self._began, self._cpu_began = time.monotonic(), time.process_time()
        self._progress.begin(self._identity[0], len(self._workers), self._began)
        self._transport.place = self._place
        buffers = encode_object(start)
        for rank in self._workers:
            self._transport.send(rank, Kind.START, b"", buffers)

    def run(self) -> None:
        """Loop until the run has ended."""
        while not self.ended:
            deadline = self._scheduler.next_deadline()
            timeout_s = LONGEST_WAIT_S
            if deadline is not None:
                timeout_s = max(0.0, min(timeout_s, deadline - time.monotonic()))
            self.step(timeout_s)

    def step(self, timeout_s: float) -> None:
        """Take in one message, waiting for it at most that long, and do what follows."""
        message = self._transport.receive(timeout_s, self._scheduler.all_have_next)
        now = time.monotonic()
        if message is not None:
            self._handle(message, now)
        if message is None or (self._scheduler.next_deadline() or now + 1) <= now:
            self._perform(self._scheduler.handle(Tick(), now))
        self._progress.update(self._scheduler.ledger.done.size, len(self._scheduler.workers), now)

    def stop(self) -> None:
        """Close the record; what still arrives is no longer received into the result."""
        self._progress.end()
        self._transport.place = None
        self.record.wall_s = time.monotonic() - self._began
        self.record.cpu_s = time.process_time() - self._cpu_began

    def fail(self, error: MpimsError) -> None:
        """End the run with an error; the first one counts."""
        self.error = self.error or error
        self.ended = True

    # ------------------------------------------------------------------ messages

    def _handle(self, message: Message, now: float) -> None:
        kind, rank = message.kind, message.source
        if kind is Kind.RESULT:
            self._on_result(message, now)
        elif kind is Kind.JOINED:
            self._on_joined(rank, decode_object(message.buffers), now)
        elif kind is Kind.FAILED:
            self._on_failed(rank, decode_object(message.buffers), now)
        elif kind is Kind.LOST:
            self._send_event(WorkerLost(rank), now)

    def _on_result(self, message: Message, now: float) -> None:
        head = decode_result_head(message.head)
        self.record.workers[message.source].busy_s += head.busy_s
        payload = decode_payload(head.array, message.buffers)
        event = ChunkDone(
            message.source,
            head.attempt,
            head.start,
            head.stop,
            head.busy_s,
            head.longest_block_s,
            self._results.units(payload),
        )
        try:
            self._perform(self._scheduler.handle(event, now), head, payload)
        except ResultError as error:
            items = _items_text(head.start, head.stop, head.attempt, self._where(message.source))
            self.fail(RunFailed(f"{items} failed: {error}"))
        except MpimsError as error:
            self.fail(error)

    def _on_joined(self, rank: int, joined: Joined, now: float) -> None:
        self.record.workers[rank] = WorkerRecord(joined.host, joined.pid)
        where = self._where(rank)
        if joined.job != self._job:
            self.fail(
                UsageError(f"the job differs between ranks: {joined.job} on {where}, {self._job} here")
            )
        elif (joined.n_items, joined.items_digest) != self._identity:
            n_here = self._identity[0]
            difference = (
                f"{joined.n_items} items on {where}, {n_here} on rank 0"
                if joined.n_items != n_here
                else f"{n_here} items on {where} too, but not the same or in another order"
            )
            self.fail(
                UsageError(
                    f"items() differs between ranks: {difference}; it must give the same on every rank"
                )
            )
        else:
            self._send_event(WorkerJoined(rank), now)

    def _on_failed(self, rank: int, failed: Failed, now: float) -> None:
        if failed.is_usage:
            self.fail(UsageError(failed.reason, failed.detail))
        elif failed.attempt == 0:
            self.fail(RunFailed(f"{failed.reason} (on {self._where(rank)})", failed.detail))
        else:
            items = _items_text(failed.start, failed.stop, failed.attempt, self._where(rank))
            event = ChunkFailed(
                rank,
                failed.attempt,
                failed.start,
                failed.stop,
                f"{items} failed: {failed.reason}",
                failed.detail,
            )
            self._send_event(event, now)

    def _where(self, rank: int) -> str:
        worker = self.record.workers.get(rank)
        name = f"rank {0 if self._alone else rank}"
        return f"{name} ({worker.host})" if worker else name

    def _place(self, source: int, kind: Kind, head: bytes, sizes: Sequence[int]) -> list[memoryview] | None:
        """Receive the results of items that are still needed straight into their place."""
        if kind is not Kind.RESULT or self.ended:
            return None
        result = decode_result_head(head)
        if self._scheduler.ledger.done.intersects(result.start, result.stop):
            return None
        try:
            place = self._results.place(result)
        except MpimsError as error:
            self.fail(error)
            return None
        return None if place is None else [place]

    # ------------------------------------------------------------------- actions

    def _send_event(self, event: Event, now: float) -> None:
        self._perform(self._scheduler.handle(event, now))

    def _perform(
        self, actions: Sequence[Action], head: ResultHead | None = None, payload: Any = None
    ) -> None:
        for action in actions:
            if isinstance(action, Assign):
                self._transport.send(
                    action.rank, Kind.ASSIGN, encode_assign(action.attempt, action.start, action.stop)
                )
            elif isinstance(action, Record):
                assert head is not None
                self._results.commit(head, payload, action.ranges)
            elif isinstance(action, Recall):
                self._transport.send(action.rank, Kind.RECALL, encode_recall(action.attempt))
            elif isinstance(action, GiveUp):
                self.fail(RunFailed(action.reason, action.detail))
            elif isinstance(action, Finish):
                self.ended = True


def end_workers(transport: Transport, error: MpimsError | None) -> list[int]:
    """Tell the workers that the run has ended and wait for their goodbyes; give the silent ones.

    What they had sent before is taken in and dropped, so that nothing of this run is under way
    when the next begins.
    """
    end = End(status=ExitStatus.DONE)
    if error is not None:
        end = End(status=error.exit_status, message=error.message, detail=error.detail)
    buffers = encode_object(end)
    waiting = set(range(1, transport.size)) - transport.lost
    for rank in waiting:
        transport.send(rank, Kind.END, b"", buffers)
    deadline = time.monotonic() + GOODBYE_WAIT_S
    while waiting:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        message = transport.receive(left_s)
        if message is not None and message.kind in (Kind.GOODBYE, Kind.LOST):
            waiting.discard(message.source)
    return sorted(waiting)


def _items_text(start: int, stop: int, attempt: int, where: str) -> str:
    return f"items [{start}, {stop}) attempt {attempt} on {where}"
