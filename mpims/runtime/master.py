"""The master's loop: receive, handle, perform.

::

    transport --message--> Master --event, now--> Scheduler
                             |                        |
           checkpoint, ranks <----actions-------------+
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpims.core.events import (
    Action,
    Assign,
    ChunkDone,
    ChunkFailed,
    Drain,
    Event,
    Finish,
    GiveUp,
    Hire,
    MasterAway,
    Recall,
    Record,
    Skip,
    Stop,
    StopRequested,
    Tick,
    Trim,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
    WorkerSpoke,
)
from mpims.core.scheduler import Scheduler
from mpims.errors import MpimsError, RunFailed, Stopped, UsageError
from mpims.processes import Process, is_alive
from mpims.report.progress import NoProgress
from mpims.runtime.deliveries import Delivery, whole_runs
from mpims.runtime.parts import ResultError
from mpims.runtime.stopping import StopSignals
from mpims.runtime.transport.joint import JointTransport
from mpims.runtime.wire import (
    MOST_CHUNKS,
    Failed,
    Joined,
    Kind,
    Message,
    ResultHead,
    SkippedItem,
    Start,
    decode_object,
    decode_payload,
    decode_results,
    encode_assign,
    encode_object,
    encode_recall,
    encode_trim,
)
from mpims.runtime.worker import Worker
from mpims.storage.checkpoint import Checkpoint
from mpims.storage.commits import Failure
from mpims.storage.results import Results

LONGEST_WAIT_S = 1.0
"""The master looks around at least this often."""
AWAY_S = 2.0
"""A step that takes so much longer than it may says that the master itself was suspended."""
TICK_LATENESS_S = 0.05
"""Messages that are waiting are read before a deadline is judged, but for no longer than this."""
MESSAGES_PER_STEP = 16
"""So many messages are taken in before anything else is looked at."""
LOOK_INTERVAL_S = 0.1
"""While messages come without a pause, what is to be done now and then is done this often."""
NOTE_INTERVAL_S = 0.5
"""Figures for a master to come are noted this often."""
LEAST_PLACED_BYTES = 1 << 16
"""Smaller results are received anywhere and copied into their place."""
LIVENESS_INTERVAL_S = 0.25
LIVENESS_COST_S = 0.01
"""Whether the processes of this host live is looked at this often, or less often the more there are."""


@dataclass(slots=True)
class WorkerRecord:
    """What is known of one worker, for messages and the summary."""

    host: str
    process: Process
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
    checkpoint, results
        Where results go.
    identity
        Number and digest of the items as the master sees them.
    job
        The job as text, to compare.
    workers
        The ranks that compute; the master's own, if it is one of them, in this process.
    hire
        Makes a worker in this process when no other rank is left.
    stop_signals, grace_s
        Tells whether the run is to stop; and how long it then waits for results.
    stopping
        Called when it is.
    joined
        Called when a rank has joined.
    heartbeat
        Called now and then, all the time.
    stats
        Gives the figures to be noted for a master to come.
    progress
        Is told how far the run is.
    """

    def __init__(
        self,
        transport: JointTransport,
        scheduler: Scheduler,
        checkpoint: Checkpoint,
        results: Results,
        *,
        identity: tuple[int, str],
        job: str,
        workers: Sequence[int],
        hire: Callable[[bool], Worker],
        stop_signals: StopSignals,
        grace_s: float = 10.0,
        stopping: Callable[[], None] = lambda: None,
        joined: Callable[[], None] = lambda: None,
        heartbeat: Callable[[float], None] = lambda now: None,
        stats: Callable[[], Mapping[str, Any]] = dict,
        progress: NoProgress | None = None,
    ) -> None:
        self._transport = transport
        self._scheduler = scheduler
        self._checkpoint = checkpoint
        self._results = results
        self._identity = identity
        self._job = job
        self._workers = workers
        self._hire = hire
        self._own: Worker | None = None
        self._stop_signals = stop_signals
        self._grace_s = grace_s
        self._stopping = stopping
        self._is_stopping = False
        self._joined = joined
        self._heartbeat = heartbeat
        self._stats = stats
        self._progress = progress or NoProgress()
        self._skipped: dict[int, list[SkippedItem]] = {}  # attempt -> items given up in its next result
        self._began = self._stepped = self._looked = self._noted = self._checked = 0.0
        self._cpu_began = 0.0
        self.record = MasterRecord()
        self.ended = False
        self.error: MpimsError | None = None

    # ------------------------------------------------------------------ the loop

    def begin(self, start: Start, inheritance: Sequence[Message] = ()) -> None:
        """Send the job to the workers, and take in what was computed for the master before."""
        self._began, self._cpu_began = time.monotonic(), time.process_time()
        self._stepped = self._looked = self._noted = self._checked = self._began
        self._progress.begin(self._identity[0], len(self._workers), self._began)
        self._transport.place = self._place
        self._start_buffers = encode_object(start)
        for rank in self._workers:
            self._transport.send(rank, Kind.START, b"", self._start_buffers)
        if self._transport.rank in self._workers:
            self._own = self._hire(False)
        if self._scheduler.ledger.complete:
            self.ended = True
        for message in inheritance:
            self._handle(message, self._began)
        self._send_event(Tick(), self._began)

    def run(self) -> None:
        """Loop until the run has ended."""
        while not self.ended:
            deadline = self._scheduler.next_deadline()
            timeout_s = LONGEST_WAIT_S
            if deadline is not None:
                timeout_s = max(0.0, min(timeout_s, deadline - time.monotonic()))
            if self._own is not None:
                self._own.step(0.0)
                timeout_s = 0.0 if self._own.has_work else min(timeout_s, 0.01)
            self.step(timeout_s)

    def step(self, timeout_s: float) -> None:
        """Take in what has come, waiting for it at most that long, and do what follows."""
        message = self._transport.receive(timeout_s, self._scheduler.all_have_next)
        now = time.monotonic()
        away_s = now - self._stepped - timeout_s
        if away_s > AWAY_S:
            self._send_event(MasterAway(away_s), now)
        is_quiet = message is None
        n_taken = 0
        while message is not None:
            self._handle(message, now)
            n_taken += 1
            more = n_taken < MESSAGES_PER_STEP and not self.ended
            message = self._transport.receive(0.0) if more else None
            now = time.monotonic()
        self._stepped = now
        due = self._scheduler.next_deadline()
        lateness_s = 0.0 if n_taken < MESSAGES_PER_STEP else TICK_LATENESS_S
        is_due = is_quiet or (due is not None and due + lateness_s <= now)
        if is_due or now - self._looked > LOOK_INTERVAL_S:
            self._looked = now
            self._look_around(now, is_due)
        self._progress.update(self._scheduler.ledger.done.size, len(self._scheduler.workers), now)

    def _look_around(self, now: float, is_due: bool) -> None:
        """What is to be done when there is time, or now and then; deadlines are judged if that is due."""
        if self._stop_signals.requested_at is not None and not self._is_stopping:
            self._is_stopping = True
            self._stopping()
            self._send_event(StopRequested(self._grace_s), now)
        if is_due:
            self._send_event(Tick(), now)
        if self.ended:
            return
        if now - self._checked > max(LIVENESS_INTERVAL_S, LIVENESS_COST_S * len(self.record.workers)):
            self._checked = now
            self._look_for_dead(now)
        try:
            self._heartbeat(now)
            if now - self._noted > NOTE_INTERVAL_S:
                self._noted = now
                self._checkpoint.note(self._stats())
            self._checkpoint.poll(now)
        except MpimsError as error:
            self.fail(error)

    def _look_for_dead(self, now: float) -> None:
        """Find ranks of this host that have left without MPI noticing, as by ``os._exit``."""
        if not self._transport.survives_deaths:
            return
        for rank, worker in self.record.workers.items():
            if rank not in self._transport.lost and is_alive(worker.process) is False:
                self._transport.lose(rank)
                self._send_event(WorkerLost(rank), now)

    def stop(self) -> None:
        """Close the record; what still arrives is no longer received into the result."""
        self._progress.end()
        self._transport.place = None
        if self._own is not None:
            self._own.close()
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
        elif kind is Kind.PING:
            self._transport.send(rank, Kind.PONG)
            self._send_event(WorkerSpoke(rank), now)
        elif kind is Kind.FAILED:
            self._on_failed(rank, decode_object(message.buffers), now)
        elif kind is Kind.SKIPPED:
            attempt, items = decode_object(message.buffers)
            self._skipped[attempt] = items
        elif kind is Kind.DRAINED:
            self._send_event(WorkerDrained(rank), now)
        elif kind is Kind.LOST:
            self._send_event(WorkerLost(rank), now)

    def _on_result(self, message: Message, now: float) -> None:
        heads, array = decode_results(message.head)
        source = message.source
        worker = self.record.workers.get(source)
        actions: list[Action] = []
        records: list[tuple[int, Record]] = []  # with the place of what they speak of among the heads
        try:
            payload = decode_payload(array, message.buffers)
            units = None
            for i, units in enumerate(self._results.units(payload, heads)):
                number, start, stop, busy_s, longest_s, squares_s2 = heads[i]
                if worker is not None:
                    worker.busy_s += busy_s
                event = ChunkDone(source, number, start, stop, busy_s, longest_s, units, squares_s2)
                for action in self._scheduler.handle(event, now):
                    if type(action) is Record:
                        records.append((i, action))
                    else:
                        actions.append(action)
            self._perform(actions)  # the rank is fed before anything is stored
            buffers = message.buffers if array is None and len(heads) == 1 else None
            for delivery in whole_runs(heads, records, has_units=units is not None):
                failures = self._failures(source, delivery)
                part = self._results.select(payload, heads, delivery.first, delivery.last)
                self._checkpoint.commit(delivery.head, part, buffers, delivery.ranges, failures)
        except ResultError as error:
            items = _items_text(heads[0].start, heads[-1].stop, heads[0].attempt, self._where(source))
            self.fail(RunFailed(f"{items} failed: {error}"))
        except MpimsError as error:
            self.fail(error)

    def _on_joined(self, rank: int, joined: Joined, now: float) -> None:
        self.record.workers[rank] = WorkerRecord(joined.host, joined.process)
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
            self._send_event(WorkerJoined(rank, joined.holding), now)
            self._joined()

    def _on_failed(self, rank: int, failed: Failed, now: float) -> None:
        if failed.is_usage:
            self.fail(UsageError(failed.reason, failed.detail))
        elif failed.attempt == 0:
            self.fail(RunFailed(f"{failed.reason} (on {self._where(rank)})", failed.detail))
        else:
            event = ChunkFailed(
                rank,
                failed.attempt,
                failed.start,
                failed.stop,
                failed.reason,
                failed.detail,
                failed.is_final,
            )
            items = _items_text(failed.start, failed.stop, failed.attempt, self._where(rank))
            for action in self._scheduler.handle(event, now):
                if isinstance(action, GiveUp):
                    action = GiveUp(f"{items} failed: {action.reason}", action.detail)
                self._perform([action])

    def _where(self, rank: int) -> str:
        worker = self.record.workers.get(rank)
        return f"rank {rank} ({worker.host})" if worker else f"rank {rank}"

    def _place(self, source: int, kind: Kind, head: bytes, sizes: Sequence[int]) -> list[memoryview] | None:
        """Receive the results of items that are still needed straight into their place."""
        if kind is not Kind.RESULT or self.ended or sizes[0] < LEAST_PLACED_BYTES:
            return None
        heads, array = decode_results(head)
        result = heads[0]
        if len(heads) > 1 or self._scheduler.ledger.done.intersects(result.start, result.stop):
            return None
        try:
            place = self._results.place(result, array)
        except MpimsError as error:
            self.fail(error)
            return None
        return None if place is None else [place]

    # ------------------------------------------------------------------- actions

    def _send_event(self, event: Event, now: float) -> None:
        try:
            self._perform(self._scheduler.handle(event, now))
        except MpimsError as error:
            self.fail(error)

    def _perform(self, actions: Sequence[Action]) -> None:
        """Do what the scheduler says; chunks of one rank that follow each other leave in one message."""
        send = self._transport.send
        chunks: list[Assign] = []
        for action in actions:
            if chunks and not (
                isinstance(action, Assign) and action.rank == chunks[0].rank and len(chunks) < MOST_CHUNKS
            ):
                self._hand_out(chunks)
                chunks = []
            if isinstance(action, Assign):
                chunks.append(action)
            elif isinstance(action, Recall):
                send(action.rank, Kind.RECALL, encode_recall(action.attempt))
            elif isinstance(action, Trim):
                send(action.rank, Kind.TRIM, encode_trim(action.attempt, action.stop))
            elif isinstance(action, Drain):
                send(action.rank, Kind.DRAIN)
            elif isinstance(action, Skip):
                self._skip(action)
            elif isinstance(action, Hire):
                self._hire_own()
            elif isinstance(action, GiveUp):
                self.fail(RunFailed(action.reason, action.detail))
            elif isinstance(action, Stop):
                self.fail(Stopped("stopped"))
            elif isinstance(action, Finish):
                self.ended = True
        if chunks:
            self._hand_out(chunks)

    def _hand_out(self, chunks: Sequence[Assign]) -> None:
        self._checkpoint.assigned([(chunk.start, chunk.stop) for chunk in chunks])
        self._transport.send(chunks[0].rank, Kind.ASSIGN, encode_assign(chunks))

    def _failures(self, rank: int, delivery: Delivery) -> list[Failure]:
        """The items of a result that were given up, if it is this result that counts."""
        skipped = self._skipped.pop(delivery.head.attempt, None)
        if skipped is None:
            return []
        host = self.record.workers[rank].host if rank in self.record.workers else ""
        failures = [Failure(s.item, s.n_tries, rank, host, s.reason, s.detail) for s in skipped]
        return [f for f in failures if any(start <= f.item < stop for start, stop in delivery.ranges)]

    def _skip(self, action: Skip) -> None:
        """Commit an item that was given up."""
        worker = self.record.workers.get(action.rank)
        failure = Failure(
            action.item,
            action.n_tries,
            action.rank,
            worker.host if worker else "",
            action.reason,
            action.detail,
        )
        head = ResultHead(0, action.item, action.item + 1)
        self._checkpoint.commit(head, None, None, ((action.item, action.item + 1),), [failure])

    def _hire_own(self) -> None:
        """Compute in this process, which is the only one left: in a child, for this one is needed."""
        self._own = self._hire(True)
        self._transport.send(self._transport.rank, Kind.START, b"", self._start_buffers)
        self._progress.note("no rank is left to compute: the master does")


def _items_text(start: int, stop: int, attempt: int, where: str) -> str:
    return f"items [{start}, {stop}) attempt {attempt} on {where}"
