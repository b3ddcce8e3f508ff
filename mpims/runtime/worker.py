"""A worker's loop: receive, kernel, reply.

It looks for messages between blocks. What it has sent last it keeps for a while: a master that dies may
not have written it down. Then the lowest rank alive becomes the master; the others compute on what they
hold, and when its START comes they join it, with that and with what they sent last.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mpims.core.deadlines import FACTOR, FLOOR_S
from mpims.core.events import Care, Held, Range
from mpims.errors import ExitStatus, UsageError, describe, user_traceback
from mpims.job import Job, block_of
from mpims.outputs import Gather
from mpims.processes import send_signal, this_process
from mpims.runtime.isolation import BlockDone, IsolatedBlocks
from mpims.runtime.items import check_kernel, items_identity, resolve_items, take_items
from mpims.runtime.itemwise import ItemwiseBlock
from mpims.runtime.masterwatch import MasterWatch
from mpims.runtime.parts import Part, ResultError, check_results, new_part
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import (
    Buffer,
    End,
    Failed,
    Fence,
    Joined,
    Kind,
    Message,
    Start,
    decode_assign,
    decode_object,
    decode_recall,
    decode_trim,
    encode_object,
    encode_result,
)

PART_BYTES = 4 << 20
"""Results are sent when they have grown to this, so that a chunk of any size fits into memory."""
MAX_UNSENT_BYTES = 256 << 20
"""A worker computes nothing more while this much waits for the master to take it."""
KEPT_BYTES = 16 << 20
"""Results that were sent are kept up to this, and at least the last two, in case the master dies ..."""
KEPT_MESSAGES = 256
"""... but no more than so many."""
CLOGGED_WAIT_S = 1e-3
"""Then it looks this often whether enough has left."""
LOOK_INTERVAL_S = 5e-3
"""Between blocks that are shorter than this, messages are not looked for every time."""
IDLE_WAIT_S = 1.0
ISOLATED_WAIT_S = 5e-3
"""While a child computes, messages are looked for this often."""
LONGEST_REPORT_INTERVAL_S = 1.0
"""A worker reports at least this often, if its blocks are short enough ..."""
REPORTS_PER_TIMEOUT = 4
"""... and this often within the user's timeout."""

MakeJob = Callable[[Start], Job]
"""Makes the job of a START message."""


class _Attempt:
    """An assigned chunk; the items before `at` have been computed."""

    __slots__ = ("at", "care", "itemwise", "number", "stop")

    def __init__(self, number: int, start: int, stop: int, care: Care) -> None:
        self.number = number
        self.at = start
        self.stop = stop
        self.care = care
        self.itemwise: ItemwiseBlock | None = None


class _Sent(NamedTuple):
    """A message to the master that may have to be sent again."""

    kind: Kind
    head: bytes
    buffers: Sequence[Buffer]
    n_bytes: int


class Worker:
    """Computes what the masters of one run assign.

    Parameters
    ----------
    transport
        The way to the master.
    make_job
        Makes this rank's job when the run starts.
    master
        The master's rank.
    isolated
        Compute everything in child processes: this rank is needed alive.
    after
        The run before, whose master is to say what comes next.

    Attributes
    ----------
    end
        How the run ended, if it did.
    dismissed
        This rank is to leave the program.
    must_lead
        The master is dead and this rank is the next: see `start`, `job`, `items` and `inheritance`.
    """

    def __init__(
        self,
        transport: Transport,
        make_job: MakeJob,
        master: int = 0,
        *,
        isolated: bool = False,
        after: Start | None = None,
    ) -> None:
        self._transport = transport
        self._make_job = make_job
        self._master: int | None = master
        self._isolated = isolated
        self._queue: deque[_Attempt] = deque()
        self._kept: deque[_Sent] = deque()
        self._kept_bytes = 0
        self._block = 1
        self._part: Part
        self._part_start: int | None = None
        self._busy_s = 0.0
        self._longest_block_s = 0.0
        self._ever_longest_s = 0.0
        self._report_interval_s = LONGEST_REPORT_INTERVAL_S
        self._last_report = 0.0
        self._last_look = 0.0
        self._child: IsolatedBlocks | None = None
        self._child_since = 0.0
        self._pid = os.getpid()
        self._watch = MasterWatch(transport)
        self._after = after
        self.start: Start | None = None
        self.job: Job | None = None
        self.items: Sequence[Any] = ()
        self.dismissed = False
        self.must_lead = False
        self.end: End | None = None
        if master in transport.lost:
            self._lose_master()

    def run(self) -> End | None:
        """Work until the run ends; None if this rank was dismissed before one began, or must lead."""
        while self.end is None and not self.dismissed and not self.must_lead:
            self.step(IDLE_WAIT_S)
        return self.end

    def step(self, timeout_s: float) -> None:
        """Look for a message, waiting only if there is nothing to compute, and compute one block."""
        clogged = self._unsent_bytes() > MAX_UNSENT_BYTES
        if self._queue:
            timeout_s = CLOGGED_WAIT_S if clogged else 0.0
        else:
            timeout_s = min(timeout_s, self._watch.interval_s)
        now = time.perf_counter()
        if timeout_s or not self._queue or now - self._last_look >= LOOK_INTERVAL_S:
            self._last_look = now
            message = self._transport.receive(timeout_s)
            while message is not None:
                self._handle(message)
                # What follows an END belongs to the next run.
                over = self.end or self.dismissed or self.must_lead
                message = None if over else self._transport.receive(0.0)
        if self.must_lead or self.end is not None:
            return
        if self._queue and not clogged:
            self._compute(self._queue[0])
            self._watch.busy()
        else:
            if self.start is None:  # between two runs the master does not answer
                self._watch.closing()
            self._watch.idle(self._master, self.start or self._after, self._patience_s())

    @property
    def has_work(self) -> bool:
        """Whether there is something to compute."""
        return bool(self._queue)

    def close(self) -> None:
        """End what is under way."""
        self._clear()

    def _unsent_bytes(self) -> int:
        return self._kept_bytes if self._master is None else self._transport.unsent_bytes

    def _patience_s(self) -> float:
        """How long a kernel, or a master, may be silent."""
        start = self.start or self._after
        given = start.options.timeout_s if start is not None else None
        return given or max(FLOOR_S, FACTOR * self._ever_longest_s)

    # ------------------------------------------------------------------ messages

    def _handle(self, message: Message) -> None:
        kind = message.kind
        if kind is Kind.LOST:
            if message.source == self._master or self._master is None:
                self._lose_master()
        elif kind is Kind.START:
            self._on_start(message.source, decode_object(message.buffers))
        elif kind is Kind.DISMISS:
            self._lose(decode_object(message.buffers))
            self.dismissed = True
        elif message.source == self._master or (kind is Kind.END and self._master is None):
            self._watch.heard()
            self._obey(kind, message)

    def _obey(self, kind: Kind, message: Message) -> None:
        """Do what the master says."""
        if kind is Kind.ASSIGN:
            self._queue.append(_Attempt(*decode_assign(message.head)))
        elif kind is Kind.RECALL:
            self._drop(decode_recall(message.head))
        elif kind is Kind.TRIM:
            self._trim(*decode_trim(message.head))
        elif kind is Kind.DRAIN:
            self._drain()
        elif kind is Kind.CLOSING:
            self._watch.closing()
        elif kind is Kind.FENCE:
            fence: Fence = decode_object(message.buffers)
            send_signal(fence.process, fence.signal)
            self._send(Kind.FENCED, fence)
        elif kind is Kind.END:
            self.end = decode_object(message.buffers)
            self._lose(self.end.lost if self.end else ())
            self._clear()
            self._send(Kind.GOODBYE)

    def _lose(self, ranks: Sequence[int]) -> None:
        """Take it from the master that ranks are dead: MPI may not have noticed here."""
        for rank in ranks:
            self._transport.lose(rank)

    def _drop(self, number: int) -> None:
        if self._queue and self._queue[0].number == number:
            self._end_child()
            self._new_part()
        self._queue = deque(attempt for attempt in self._queue if attempt.number != number)

    def _trim(self, number: int, stop: int) -> None:
        for attempt in self._queue:
            if attempt.number == number:
                attempt.stop = max(attempt.at, min(attempt.stop, stop))
        if self._queue and self._queue[0].at == self._queue[0].stop:
            self._report(self._queue[0])

    def _drain(self) -> None:
        if self._queue:
            self._report(self._queue[0])
        self._clear()
        self._send(Kind.DRAINED)

    def _clear(self) -> None:
        self._end_child()
        self._queue.clear()

    def _send(self, kind: Kind, value: Any = None) -> None:
        if self._master is not None:
            self._transport.send(self._master, kind, b"", () if value is None else encode_object(value))

    def _send_kept(self, kind: Kind, head: bytes, buffers: Sequence[Buffer]) -> None:
        """Send what the next master is to have too, should this one die now."""
        n_bytes = sum(memoryview(buffer).nbytes for buffer in buffers)
        self._kept.append(_Sent(kind, head, buffers, n_bytes))
        self._kept_bytes += n_bytes
        if self._master is None:
            return
        while len(self._kept) > 2 and (self._kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_MESSAGES):
            dropped = self._kept.popleft()
            self._kept_bytes -= dropped.n_bytes
            if dropped.kind is Kind.SKIPPED:  # without it the results behind it would look whole
                self._kept_bytes -= self._kept.popleft().n_bytes
        self._transport.send(self._master, kind, head, buffers)

    # ------------------------------------------------------------------- masters

    def _lose_master(self) -> None:
        """Lead if this is the lowest rank alive, else compute on until the one that is says START."""
        self._master = None
        alive = set(range(self._transport.size)) - self._transport.lost
        self.must_lead = min(alive) == self._transport.rank
        self._watch.heard()

    def _on_start(self, source: int, start: Start) -> None:
        if self.start is None or self.start.run_id != start.run_id or self.job is None:
            self._master, self.start = source, start
            self._begin(start)
        elif start.epoch > self.start.epoch:
            self._follow(source, start)
        self._watch.heard()

    def _begin(self, start: Start) -> None:
        """Load the job and join; what goes wrong is the master's to tell."""
        self._clear()
        self._kept.clear()
        self._kept_bytes = 0
        timeout_s = start.options.timeout_s or LONGEST_REPORT_INTERVAL_S * REPORTS_PER_TIMEOUT
        self._report_interval_s = min(LONGEST_REPORT_INTERVAL_S, timeout_s / REPORTS_PER_TIMEOUT)
        try:
            job = self._make_job(start)
            job._seed = start.options.seed
            check_kernel(job)
            self.items = resolve_items(job)
            self._identity = items_identity(self.items)
            self._block = block_of(job, self._identity[0])
            self.job = job
            self._new_part()
            if job._set_up_for != start.run_id:  # a worker that became the master may compute again
                job.setup()
                job._set_up_for = start.run_id
            self._last_report = time.perf_counter()
        except UsageError as error:
            self._fail(0, 0, 0, error.message, error.detail, is_usage=True)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's setup raises
            reason = f"setup() raised {describe(error)}"
            self._fail(0, 0, 0, reason, user_traceback(error))
        else:
            self._join(())

    def _join(self, holding: tuple[Held, ...]) -> None:
        joined = Joined(
            host=self._transport.host,
            process=this_process(),
            holding=holding,
            n_items=self._identity[0],
            items_digest=self._identity[1],
            job=repr(self.job),
        )
        self._send(Kind.JOINED, joined)

    def _follow(self, master: int, start: Start) -> None:
        """Join the next master, with all that the one before may not have written down."""
        self._master = None  # what is reported now goes with all that was kept
        if self._queue:
            self._report(self._queue[0])
        self._master, self.start = master, start
        if any(attempt.care for attempt in self._queue):
            self._end_child()
            self._queue = deque(attempt for attempt in self._queue if not attempt.care)
        # Results first, or what they hold would be handed out again.
        for kind, head, buffers, _ in list(self._kept):
            self._transport.send(master, kind, head, buffers)
        self._join(tuple(Held(attempt.number, attempt.at, attempt.stop) for attempt in self._queue))

    def inheritance(self) -> list[Message]:
        """What this rank has computed and the master that died may not have written down."""
        if self._queue:
            self._report(self._queue[0])
        self._clear()
        rank = self._transport.rank
        return [Message(kind, rank, head, list(buffers)) for kind, head, buffers, _ in self._kept]

    # ----------------------------------------------------------------- computing

    def _new_part(self) -> None:
        assert self.job is not None
        self._part = new_part(self.job.output, self._block, len(self.items))
        self._part_start = None
        self._busy_s = self._longest_block_s = 0.0

    def _compute(self, attempt: _Attempt) -> None:
        """Compute the next block of an attempt, or look how far the child is with it."""
        if attempt.care & Care.ITEMWISE and attempt.itemwise is None:
            assert self.start is not None
            attempt.itemwise = ItemwiseBlock(attempt.at, attempt.stop, 1 + self.start.options.retries)
        if self._isolated or attempt.care & Care.ISOLATED:
            self._compute_isolated(attempt)
            return
        start, stop = self._upcoming(attempt)[0]
        began = time.perf_counter()
        try:
            results = self._kernel(start, stop)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's code raises
            if os.getpid() != self._pid:
                os._exit(ExitStatus.FAILED)  # a child that the user's code forked: not for it to reply
            self._block_failed(attempt, (start, stop), describe(error), user_traceback(error))
            return
        self._block_done(attempt, (start, stop), results, time.perf_counter() - began)

    def _kernel(self, start: int, stop: int) -> Any:
        assert self.job is not None
        self.job.indices = range(start, stop)
        return self.job.kernel(take_items(self.items, start, stop))

    def _upcoming(self, attempt: _Attempt) -> list[Range]:
        """The kernel calls that an attempt is to make, as far as is known; for a plain one the next."""
        if attempt.itemwise is not None:
            return attempt.itemwise.upcoming()
        block, stop = self._block, attempt.stop
        last = stop if self._isolated or attempt.care else min(attempt.at + block, stop)
        return [(start, min(start + block, stop)) for start in range(attempt.at, last, block)]

    def _compute_isolated(self, attempt: _Attempt) -> None:
        now = time.perf_counter()
        if self._child is None:
            self._child = IsolatedBlocks(self._kernel, self._upcoming(attempt))
            self._child_since = now
        child, current = self._child, self._child.current
        outcome = child.poll(ISOLATED_WAIT_S)
        if outcome is not None:
            self._child_since = time.perf_counter()
            if child.over:
                self._end_child()
            computed = (outcome.start, outcome.stop)
            if isinstance(outcome, BlockDone):
                self._block_done(attempt, computed, outcome.results, outcome.busy_s)
            else:
                self._end_child()
                self._block_failed(attempt, computed, outcome.reason, getattr(outcome, "detail", ""))
        elif now - self._child_since > self._patience_s() and current is not None:
            self._end_child()
            self._block_failed(attempt, current, f"no answer for {self._patience_s():g} s: killed", "")
        elif now - self._last_report >= self._report_interval_s:
            self._last_report = now
            self._send(Kind.PING)  # the child may be long silent: the rank is not

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    # ------------------------------------------------------------------ outcomes

    def _block_done(self, attempt: _Attempt, computed: Range, results: Any, busy_s: float) -> None:
        start, stop = computed
        try:
            check_results(results, stop - start)
            if attempt.itemwise is None:
                if self._part_start is None:
                    self._part_start = start
                self._part.add(start, stop, results)
            elif self.job is not None and isinstance(self.job.output, Gather):
                self.job.output.pack(results)  # what fits no array is the item's fault
        except ResultError as error:
            self._block_failed(attempt, computed, str(error), "")
            return
        except Exception as error:  # whatever the user's objects and reduce function raise
            self._block_failed(attempt, computed, describe(error), user_traceback(error))
            return
        now = time.perf_counter()
        self._busy_s += busy_s
        self._longest_block_s = max(self._longest_block_s, busy_s)
        if attempt.itemwise is not None:
            attempt.itemwise.done(computed, results)
            self._end_itemwise(attempt)
            return
        attempt.at = stop
        if (
            stop == attempt.stop
            or self._part.n_bytes >= PART_BYTES
            or now - self._last_report >= self._report_interval_s
        ):
            self._last_report = now
            self._report(attempt)

    def _block_failed(self, attempt: _Attempt, computed: Range, reason: str, detail: str) -> None:
        """Deliver what comes before the block, say what happened, and go on behind it."""
        if attempt.itemwise is not None:
            attempt.itemwise.failed(computed, reason, detail)
            self._end_itemwise(attempt)
            return
        start, stop = computed
        if self._part_start == start:  # its results were refused
            self._new_part()
        self._report(attempt)
        self._fail(attempt.number, start, stop, reason, detail)
        attempt.at = stop
        if stop >= attempt.stop and attempt in self._queue:
            self._queue.remove(attempt)

    def _end_itemwise(self, attempt: _Attempt) -> None:
        """Deliver a block whose items were tried alone, once all is known of it."""
        block = attempt.itemwise
        assert block is not None
        assert self.start is not None
        if block.upcoming():
            if self._child is not None and self._child.current is None:
                self._end_child()
            return
        self._end_child()
        start, stop = attempt.at, attempt.stop
        if block.skipped and self.start.options.on_error == "abort":
            item, n_tries, reason, detail = block.skipped[0]
            times = f" (alone, tried {n_tries} times)" if n_tries > 1 else ""
            self._fail(attempt.number, item, item + 1, reason + times, detail, is_final=True)
            self._queue.remove(attempt)
            return
        if block.skipped:
            self._send_kept(Kind.SKIPPED, b"", encode_object((attempt.number, block.skipped)))
        self._part_start = start
        attempt.at = stop
        try:
            if block.whole is not None:
                self._part.add(start, stop, block.whole)
            elif block.results:
                self._part.add_items(start, stop, block.results)
        except Exception as error:  # whatever the user's objects and reduce function raise
            self._new_part()
            self._queue.remove(attempt)
            self._fail(attempt.number, start, stop, describe(error), user_traceback(error), is_final=True)
            return
        self._report(attempt, is_empty=not block.results)

    def _fail(
        self,
        attempt: int,
        start: int,
        stop: int,
        reason: str,
        detail: str = "",
        *,
        is_usage: bool = False,
        is_final: bool = False,
    ) -> None:
        failed = Failed(
            attempt=attempt,
            start=start,
            stop=stop,
            reason=reason,
            detail=detail,
            is_usage=is_usage,
            is_final=is_final,
        )
        self._send_kept(Kind.FAILED, b"", encode_object(failed))

    def _report(self, attempt: _Attempt, *, is_empty: bool = False) -> None:
        """Send what has been computed since the last report, if anything; end an attempt that is whole."""
        start = self._part_start
        if start is not None:
            payload = None if is_empty else self._part.take()
            try:
                head, buffers = encode_result(
                    attempt.number, start, attempt.at, self._busy_s, self._longest_block_s, payload
                )
            except Exception as error:  # whatever an object of the user's raises when it is pickled
                reason = f"a result cannot be pickled: {describe(error)}"
                self._fail(attempt.number, start, attempt.at, reason, is_final=True)
                self._queue.clear()
                return
            self._send_kept(Kind.RESULT, head, buffers)
            self._ever_longest_s = max(self._ever_longest_s, self._longest_block_s)
            self._part_start = None
            self._busy_s = self._longest_block_s = 0.0
        if attempt.at >= attempt.stop and attempt in self._queue:
            self._queue.remove(attempt)
