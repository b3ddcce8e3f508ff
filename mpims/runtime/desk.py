"""The master's desk: messages come in and become events, what the scheduler says goes out.

What follows from several messages is done at once: chunks for one rank leave together, and ranks are fed
before anything is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mpims.core.chunks import Assign, AssignAlike, Assignment, Result
from mpims.core.events import (
    Action,
    ChunkFailed,
    ChunksDone,
    Drain,
    Event,
    Finish,
    GiveUp,
    Hire,
    ItemsReturned,
    MasterServed,
    Recall,
    Record,
    Skip,
    Stop,
    Trim,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
    WorkerSpoke,
    chunk_done,
)
from mpims.core.ledger import ATTEMPTS_PER_MASTER
from mpims.core.scheduler import Scheduler
from mpims.errors import MpimsError, RunFailed, Stopped, UsageError
from mpims.outputs import ResultError
from mpims.processes import Process
from mpims.report.wording import counted
from mpims.runtime.deliveries import Delivery, deliveries
from mpims.runtime.tracing import Tracing
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import (
    MOST_ASSIGNMENTS,
    Buffer,
    Failed,
    Joined,
    Kind,
    Message,
    SkippedItem,
    decode_object,
    decode_payload,
    decode_results,
    decode_trim,
    encode_assign,
    encode_recall,
    encode_trim,
)
from mpims.storage.checkpoint import Checkpoint
from mpims.storage.commits import Failure
from mpims.storage.results import Results

LARGE_BYTES = 1 << 16
"""A result of this size is passed on before the next message is looked at."""
MUCH_BYTES = 1 << 20
"""After a result of this size it is its reader's turn: what he drops is the memory for the next one."""
MOST_CHUNKS = 96
"""So many chunks are handed out before the next message is looked at."""


Supply: TypeAlias = Callable[[int, Sequence[Assignment]], Sequence[Buffer]]


def no_supply(rank: int, assignments: Sequence[Assignment]) -> Sequence[Buffer]:
    """Ranks have the items of a job themselves."""
    return ()


@dataclass(slots=True)
class WorkerRecord:
    """What is known of one worker, for messages and the summary."""

    host: str
    process: Process


@dataclass(slots=True)
class MasterRecord:
    """What the master saw of a run."""

    workers: dict[int, WorkerRecord] = field(default_factory=dict)
    busy_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Desk:
    """What a master does with messages.

    Parameters
    ----------
    transport, scheduler, checkpoint, results
        As for `mpims.runtime.master.Master`.
    identity, job
        The items and the job as the master sees them, to compare.
    tracing
        Where it is written down what was handed out, what each result cost, and what went wrong.
    joined
        Called when a rank has joined, before it gets anything.
    hire
        Called when no other rank is left to compute.
    supply
        Gives what a rank needs beside their numbers for the chunks that it is to get: buffers.

    Attributes
    ----------
    record
        Who the workers are, and what they did.
    ended, error
        Whether the run is over, and what ended it if not that all is done.
    """

    def __init__(
        self,
        transport: Transport,
        scheduler: Scheduler,
        checkpoint: Checkpoint,
        results: Results,
        *,
        identity: tuple[int, str],
        job: str,
        tracing: Tracing,
        joined: Callable[[], None],
        hire: Callable[[], None],
        supply: Supply = no_supply,
    ) -> None:
        self._transport = transport
        self._scheduler = scheduler
        self._checkpoint = checkpoint
        self._results = results
        self._identity = identity
        self._job = job
        self._tracing = tracing
        self._joined = joined
        self._hire = hire
        self._supply = supply
        self._skipped: dict[int, list[SkippedItem]] = {}  # attempt -> items given up in its next result
        self._actions: list[Action] = []
        self._n_handed_out = 0
        self._n_results = 0  # taken in since it was last noted what that cost
        self._took_much = False  # with the last message
        self._deliveries: list[tuple[int, Delivery, Any, Sequence[Buffer] | None]] = []
        self.record = MasterRecord()
        self.ended = scheduler.ledger.complete
        self.error: MpimsError | None = None

    @property
    def is_full(self) -> bool:
        """Whether so much came, or is to be handed out, that it should not wait for more messages."""
        return self._took_much or self._scheduler.counters.n_chunks - self._n_handed_out >= MOST_CHUNKS

    def fail(self, error: MpimsError) -> None:
        """End the run with an error; the first one counts."""
        self.error = self.error or error
        self.ended = True

    # ------------------------------------------------------------------ messages

    def take(self, message: Message, now: float) -> None:
        """Take in a message that came at time `now`; what follows is done by `settle`."""
        kind, rank = message.kind, message.source
        self._took_much = False
        if kind is Kind.RESULT:
            self._on_result(message, now)
        elif kind is Kind.JOINED:
            self._on_joined(rank, decode_object(message.buffers), now)
        elif kind is Kind.PING:
            self._transport.send(rank, Kind.PONG)
            self.tell(WorkerSpoke(rank), now)
        elif kind is Kind.FAILED:
            self._on_failed(rank, decode_object(message.buffers), now)
        elif kind is Kind.SKIPPED:
            attempt, items = decode_object(message.buffers)
            self._skipped[attempt] = items
            self._tracing.skipped(rank, items, now)
        elif kind is Kind.RETURNED:
            attempt, start = decode_trim(message.head)
            self.tell(ItemsReturned(rank, attempt, start), now)
        elif kind is Kind.DRAINED:
            self.tell(WorkerDrained(rank), now)
        elif kind is Kind.LOST:
            self.tell(WorkerLost(rank), now)

    def _on_result(self, message: Message, now: float) -> None:
        heads, array = decode_results(message.head)
        self._n_results += len(heads)
        source = message.source
        self._tracing.result(source, message.head, now)
        has_joined = source in self.record.workers
        if has_joined:
            self.record.busy_s[source] += sum([head.busy_s for head in heads])
        try:
            payload = decode_payload(array, message.buffers)
            units = self._results.units(payload, heads)
            event: Event
            if len(heads) == 1:
                event = chunk_done(source, heads[0], units[0])
            else:
                event = ChunksDone(source, heads, units)
            records: list[Record] = []
            for action in self._scheduler.handle(event, now):
                if type(action) is Record:
                    records.append(action)
                else:
                    self._actions.append(action)
            buffers = message.buffers if array is None and len(heads) == 1 else None
            for delivery in deliveries(heads, records):
                first, last = delivery.first, delivery.last
                if not has_joined:  # sent to the master before, who has counted what it wrote down
                    self.record.busy_s[source] += sum([head.busy_s for head in heads[first:last]])
                part = self._results.select(payload, heads, first, last)
                self._deliveries.append((source, delivery, part, buffers))
        except MpimsError as error:
            self.fail(error)
        n_bytes = memoryview(message.buffers[-1]).nbytes
        self._took_much = n_bytes >= MUCH_BYTES
        if n_bytes >= LARGE_BYTES:
            self.settle()  # the next one may take a while to come in

    def _on_joined(self, rank: int, joined: Joined, now: float) -> None:
        if rank in self._transport.lost:  # it said so before it died
            return
        self.record.workers[rank] = WorkerRecord(joined.host, joined.process)
        self._transport.hosts[rank] = joined.host
        where, here = self._transport.where(rank), self._transport.where(self._transport.rank)
        if joined.job != self._job:
            self.fail(
                UsageError(f"the job differs between ranks: {joined.job} on {where}, {self._job} on {here}")
            )
        elif (joined.n_items, joined.items_digest) != self._identity:
            n_here = self._identity[0]
            difference = (
                f"{counted(joined.n_items, 'item')} on {where}, {n_here:,} on {here}"
                if joined.n_items != n_here
                else f"{counted(n_here, 'item')} on {where} too, but not the same or in another order"
            )
            self.fail(
                UsageError(
                    f"items() differs between ranks: {difference}; it must give the same on every rank"
                )
            )
        else:
            self._tracing.joined(rank, joined.host, now)
            self.tell(WorkerJoined(rank, joined.holding), now)
            self._joined()

    def _on_failed(self, rank: int, failed: Failed, now: float) -> None:
        if failed.is_usage:
            self.fail(UsageError(failed.reason, failed.detail))
        elif failed.attempt == 0:
            self.fail(RunFailed(f"{failed.reason} (on {self._transport.where(rank)})", failed.detail))
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
            self._tracing.told(event, now)
            items = _items_text(failed.start, failed.stop, failed.attempt, self._transport.where(rank))
            for action in self._scheduler.handle(event, now):
                if isinstance(action, GiveUp):
                    action = GiveUp(f"{items} failed: {action.reason}", action.detail)
                self._actions.append(action)

    def tell(self, event: Event, now: float) -> None:
        """Tell the scheduler what happened; what follows is done by `settle`."""
        self._tracing.told(event, now)
        self._actions += self._scheduler.handle(event, now)

    # ------------------------------------------------------------------- actions

    def settle(self) -> None:
        """Do what the scheduler has said since the last time: hand out, then store."""
        actions, delivered = self._actions, self._deliveries
        self._actions, self._deliveries = [], []
        self._n_handed_out = self._scheduler.counters.n_chunks
        self._tracing.look()
        try:
            if actions:
                self._perform(actions)
            for source, delivery, part, buffers in delivered:
                self._commit(source, delivery, part, buffers)
            self._checkpoint.say()
        except MpimsError as error:
            self.fail(error)

    def finish(self) -> None:
        """Wait until what was taken in is in its place, and say so, unless something has failed."""
        if self.error is None:
            try:
                self._checkpoint.finish()
            except MpimsError as error:
                self.fail(error)

    def note_service(self, seconds: float, now: float) -> None:
        """All that was taken in and settled since the last time took the master so long."""
        self._tracing.served(seconds)
        if self._n_results:
            self._scheduler.handle(MasterServed(seconds / self._n_results), now)  # nothing follows
            self._n_results = 0

    def write_trace(self, now: float) -> None:
        """Write what the trace has to say by now."""
        self._tracing.flush(now)

    def close_trace(self) -> None:
        """The run has ended: nothing more goes into the trace."""
        self._tracing.close(self.error)

    def _perform(self, actions: Sequence[Action]) -> None:
        """Do what was said; all chunks for one rank leave in one message."""
        send = self._transport.send
        chunks: dict[int, list[Assignment]] = {}
        rank = -1
        for_rank: list[Assignment] = []
        for action in actions:
            if type(action) is Assign or type(action) is AssignAlike:
                if action[0] != rank:
                    rank = action[0]
                    for_rank = chunks.setdefault(rank, [])
                for_rank.append(action)
                continue
            rank = -1
            self._tracing.said(action)
            if isinstance(action, Recall):
                self._hand_out(action.rank, chunks)  # what was said before reaches it before
                send(action.rank, Kind.RECALL, encode_recall(action.attempt))
            elif isinstance(action, Trim):
                self._hand_out(action.rank, chunks)
                send(action.rank, Kind.TRIM, encode_trim(action.attempt, action.stop))
            elif isinstance(action, Drain):
                self._hand_out(action.rank, chunks)
                send(action.rank, Kind.DRAIN)
            elif isinstance(action, Skip):
                self._skip(action)
            elif isinstance(action, Hire):
                self._hire()
            elif isinstance(action, GiveUp):
                self.fail(RunFailed(action.reason, action.detail))
            elif isinstance(action, Stop):
                self.fail(Stopped("stopped"))
            elif isinstance(action, Finish):
                self.ended = True
        for rank in list(chunks):
            self._hand_out(rank, chunks)

    def _hand_out(self, rank: int, chunks: dict[int, list[Assignment]]) -> None:
        """Send a rank the chunks that are for it."""
        for_rank = chunks.pop(rank, [])
        for i in range(0, len(for_rank), MOST_ASSIGNMENTS):
            some = for_rank[i : i + MOST_ASSIGNMENTS]
            self._checkpoint.assigned([(one.start, one.stop) for one in some])
            assigns = encode_assign(some)
            self._transport.send(rank, Kind.ASSIGN, assigns, self._supply(rank, some))
            self._tracing.sent(rank, assigns)

    def _commit(self, source: int, delivery: Delivery, part: Any, buffers: Sequence[Buffer] | None) -> None:
        try:
            failures = self._failures(source, delivery) if self._skipped else []
            self._checkpoint.commit(delivery.head, part, buffers, delivery.ranges, failures)
        except ResultError as error:
            head = delivery.head
            items = _items_text(head.start, head.stop, head.attempt, self._transport.where(source))
            self.fail(RunFailed(f"{items} failed: {error}"))

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
        head = Result(0, action.item, action.item + 1)
        self._checkpoint.commit(head, None, None, ((action.item, action.item + 1),), [failure])


def _items_text(start: int, stop: int, attempt: int, where: str) -> str:
    return f"items [{start}, {stop}) attempt {attempt % ATTEMPTS_PER_MASTER} on {where}"
