"""A worker's loop: receive, kernel, reply."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mpims.errors import ExitStatus, UsageError, describe, user_traceback
from mpims.job import Job, block_of
from mpims.runtime.items import check_kernel, items_identity, resolve_items, take_items
from mpims.runtime.parts import Part, ResultError, check_results, new_part
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import (
    End,
    Failed,
    Joined,
    Kind,
    Message,
    Start,
    decode_assign,
    decode_object,
    decode_recall,
    encode_object,
    encode_result,
)

PART_BYTES = 4 << 20
"""Results are sent when they have grown to this, so that a chunk of any size fits into memory."""
MAX_UNSENT_BYTES = 256 << 20
"""A worker computes nothing more while this much waits for the master to take it."""
CLOGGED_WAIT_S = 1e-3
"""Then it looks this often whether enough has left."""
LOOK_INTERVAL_S = 5e-3
"""Between blocks that are shorter than this, messages are not looked for every time."""
IDLE_WAIT_S = 1.0

MakeJob = Callable[[Start], Job]
"""Makes the job of a START message."""


class _Attempt:
    """An assigned chunk; the items before `at` have been computed."""

    __slots__ = ("at", "number", "stop")

    def __init__(self, number: int, start: int, stop: int) -> None:
        self.number = number
        self.at = start
        self.stop = stop


class Worker:
    """Computes what the master of one run assigns.

    Parameters
    ----------
    transport
        The way to the master.
    make_job
        Makes this rank's job when the run starts.
    master
        The master's rank.
    """

    def __init__(self, transport: Transport, make_job: MakeJob, master: int = 0) -> None:
        self._transport = transport
        self._make_job = make_job
        self._master = master
        self._queue: deque[_Attempt] = deque()
        self._job: Job | None = None
        self._items: Sequence[Any] = ()
        self._block = 1
        self._part: Part
        self._part_start: int | None = None
        self._busy_s = 0.0
        self._longest_block_s = 0.0
        self._report_interval_s = 1.0
        self._last_report = 0.0
        self._last_look = 0.0
        self._pid = os.getpid()
        self.dismissed = False
        self.end: End | None = None
        if master in transport.lost:
            self._end_without_master()

    def run(self) -> End | None:
        """Work until the run ends; None if this rank was dismissed before one began."""
        while self.end is None and not self.dismissed:
            self.step(IDLE_WAIT_S)
        return self.end

    def step(self, timeout_s: float) -> None:
        """Look for a message, waiting only if there is nothing to compute, and compute one block."""
        clogged = self._transport.unsent_bytes > MAX_UNSENT_BYTES
        if self._queue:
            timeout_s = CLOGGED_WAIT_S if clogged else 0.0
        now = time.perf_counter()
        if timeout_s or not self._queue or now - self._last_look >= LOOK_INTERVAL_S:
            self._last_look = now
            message = self._transport.receive(timeout_s)
            while message is not None:
                self._handle(message)
                # What follows an END belongs to the next run.
                message = None if self.end or self.dismissed else self._transport.receive(0.0)
        if self._queue and not clogged:
            self._compute_block(self._queue[0])

    # ------------------------------------------------------------------ messages

    def _handle(self, message: Message) -> None:
        kind = message.kind
        if kind is Kind.ASSIGN:
            self._queue.append(_Attempt(*decode_assign(message.head)))
        elif kind is Kind.RECALL:
            self._drop(decode_recall(message.head))
        elif kind is Kind.START:
            self._start(decode_object(message.buffers))
        elif kind is Kind.END:
            self.end = decode_object(message.buffers)
            self._queue.clear()
            self._send(Kind.GOODBYE)
        elif kind is Kind.DISMISS:
            self.dismissed = True
        elif kind is Kind.LOST and message.source == self._master:
            self._end_without_master()

    def _end_without_master(self) -> None:
        self.end = End(status=ExitStatus.FAILED, message=f"rank {self._master}, the master, is lost")
        self._queue.clear()

    def _drop(self, number: int) -> None:
        if self._queue and self._queue[0].number == number:
            self._new_part()
        self._queue = deque(attempt for attempt in self._queue if attempt.number != number)

    def _send(self, kind: Kind, value: Any = None) -> None:
        self._transport.send(self._master, kind, b"", () if value is None else encode_object(value))

    def _start(self, start: Start) -> None:
        """Load the job and join; what goes wrong is the master's to tell."""
        self._report_interval_s = start.report_interval_s
        try:
            job = self._make_job(start)
            job._seed = start.seed
            check_kernel(job)
            self._items = resolve_items(job)
            n_items, items_digest = items_identity(self._items)
            self._block = block_of(job, n_items)
            self._job = job
            self._new_part()
            job.setup()
            self._last_report = time.perf_counter()
        except UsageError as error:
            self._fail(0, 0, 0, error.message, error.detail, is_usage=True)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's setup raises
            reason = f"setup() raised {describe(error)}"
            self._fail(0, 0, 0, reason, user_traceback(error))
        else:
            joined = Joined(
                host=self._transport.host,
                pid=os.getpid(),
                n_items=n_items,
                items_digest=items_digest,
                job=repr(job),
            )
            self._send(Kind.JOINED, joined)

    def _fail(
        self, attempt: int, start: int, stop: int, reason: str, detail: str = "", is_usage: bool = False
    ) -> None:
        self._queue.clear()
        failed = Failed(
            attempt=attempt, start=start, stop=stop, reason=reason, detail=detail, is_usage=is_usage
        )
        self._send(Kind.FAILED, failed)

    # ----------------------------------------------------------------- computing

    def _new_part(self) -> None:
        assert self._job is not None
        self._part = new_part(self._job.output, self._block, len(self._items))
        self._part_start = None
        self._busy_s = self._longest_block_s = 0.0

    def _compute_block(self, attempt: _Attempt) -> None:
        job = self._job
        assert job is not None
        start, stop = attempt.at, min(attempt.at + self._block, attempt.stop)
        if self._part_start is None:
            self._part_start = start
        began = time.perf_counter()
        job.indices = range(start, stop)
        try:
            results = job.kernel(take_items(self._items, start, stop))
            check_results(results, stop - start)
            self._part.add(start, stop, results)
        except ResultError as error:
            self._fail(attempt.number, start, stop, str(error))
            return
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's code raises
            if os.getpid() != self._pid:
                os._exit(ExitStatus.FAILED)  # a child that the user's code forked: not for it to reply
            reason = describe(error)
            self._fail(attempt.number, start, stop, reason, user_traceback(error))
            return
        ended = time.perf_counter()
        self._busy_s += ended - began
        self._longest_block_s = max(self._longest_block_s, ended - began)
        attempt.at = stop
        if (
            stop == attempt.stop
            or self._part.n_bytes >= PART_BYTES
            or ended - self._last_report >= self._report_interval_s
        ):
            self._last_report = ended
            self._report(attempt)

    def _report(self, attempt: _Attempt) -> None:
        """Send what has been computed since the last report."""
        start = self._part_start
        assert start is not None
        try:
            head, buffers = encode_result(
                attempt.number,
                start,
                attempt.at,
                self._busy_s,
                self._longest_block_s,
                self._part.take(),
            )
        except Exception as error:  # whatever an object of the user's raises when it is pickled
            reason = f"a result cannot be pickled: {describe(error)}"
            self._fail(attempt.number, start, attempt.at, reason)
            return
        self._transport.send(self._master, Kind.RESULT, head, buffers)
        self._part_start = None
        self._busy_s = self._longest_block_s = 0.0
        if attempt.at == attempt.stop:
            self._queue.popleft()
