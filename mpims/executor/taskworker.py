"""A rank that computes tasks: for one executor after another, until the program ends.

Its master is a thread of the user's program. If that dies, so does all that the tasks are for: nobody
takes over, and this rank leaves. Nor does it judge the program's silence, which may be long.
"""

from __future__ import annotations

import os
import sys
import time
from math import inf
from typing import Any

from mpims.core.chunks import Range
from mpims.errors import ExitStatus, MpimsError, describe, user_traceback
from mpims.executor.calls import Calls, CallsPart, leave_child
from mpims.executor.cargo import LENT_BYTES, Batch, decode, empty_batch, encode, unpack
from mpims.executor.classes import forget_set
from mpims.executor.initialized import call_initializer, forget_initialized
from mpims.executor.serving import TASKS
from mpims.executor.spread import forget_spread
from mpims.processes import (
    Process,
    die_where_the_users_code_exits,
    forks,
    is_alive,
    send_signal,
    this_process,
)
from mpims.runtime.computing import MAX_UNSENT_BYTES, Computing
from mpims.runtime.holding import HeldChunk, Send
from mpims.runtime.stopping import leave_signals_to_master
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
    encode_trim,
    results_head,
)
from mpims.session import connect
from mpims.streams import say

IDLE_WAIT_S = 1.0
HOLD_BACK_S = 5e-3
"""Results of a map wait for each other no longer than this; those of single tasks do not wait."""
LEAST_BURST_S = 0.2e-3
AWAKE_S = 1.5e-3
"""After a single task its rank looks for the next without a sleep for so long."""
LOOKS_PER_SLEEP = 8
"""While large results leave a rank sleeps after so many looks: one that only yields keeps a good part of a
core from the master, who takes them, where there are more ranks than cores ..."""
LEAST_SLEEP_S = 1e-6
"""... and no longer than it must: where MPI moves them in pieces, the next ones wait for its look."""


class TaskComputing(Computing):
    """The chunks of tasks that a rank holds.

    The longest task and the squares of their times stay 0: an executor's deadline is the user's or none,
    and its chunks follow the mean alone.
    """

    def __init__(self, calls: Calls, options: Any, send: Send, ping: Any) -> None:
        super().__init__(
            calls,
            range(sys.maxsize),
            1,
            options,
            send=send,
            ping=ping,
            patience_s=lambda: options.timeout_s or inf,
            order=calls.order,
        )
        self._calls = calls
        self._part: CallsPart = CallsPart()
        self.was_single = False

    def spans(self) -> list[tuple[int, int]]:
        """The items that are still to be computed."""
        return [(attempt.at, attempt.stop) for attempt in self._queue]

    def give_back(self, number: int, stop: int) -> int:
        """Drop the end of a chunk as far as it is not begun; give from where on."""
        attempt = next((one for one in self._queue if one.number == number), None)
        if attempt is None or (attempt is self._queue[0] and attempt.care):
            return sys.maxsize
        attempt.stop = min(attempt.stop, max(attempt.at, stop))
        if attempt is self._queue[0]:
            self.report()  # what was computed of it is there before the answer
        elif attempt.at >= attempt.stop:
            self._queue.remove(attempt)
        return attempt.stop

    def _no_child(self, attempt: HeldChunk, computed: Range, reason: str) -> None:
        """The task has failed here: it is tried elsewhere, and others are not to end with it."""
        self._block_failed(attempt, computed, reason, "")

    def compute(self) -> None:
        """Compute tasks for a moment, or look how far the child is."""
        attempt = self._queue[0]
        if attempt.care:
            self._compute_with_care(attempt)
        else:
            self._compute_burst(attempt)

    def _compute_burst(self, attempt: HeldChunk) -> None:
        start = attempt.at
        began = time.perf_counter()
        outcomes = self._calls.compute(start, attempt.stop, LEAST_BURST_S)
        self.was_single = is_single = outcomes.are_single
        self._now = now = time.perf_counter()
        if self._part_start is None:
            self._part_start = start
        stop = attempt.at = start + len(outcomes.batch.values)
        self._part.add(start, stop, outcomes.batch)
        self._part.n_bytes += outcomes.n_bytes
        self._busy_s += now - began
        if (
            is_single
            or self._part.n_bytes >= LENT_BYTES
            or now - self._last_sent >= HOLD_BACK_S
            or stop >= attempt.stop  # the master is to know that the next one is begun
        ):
            self.report()

    def _encode(self, heads: list[bytes], payload: Batch | None) -> tuple[bytes, list[Buffer]]:
        return results_head(heads), encode((empty_batch() if payload is None else payload).bare())

    def _new_part(self) -> None:
        self._part = CallsPart()
        self._part_start = None
        self._busy_s = self._longest_s = self._squares_s2 = 0.0


class TaskWorker:
    """Computes for the executors of the program on rank 0.

    Parameters
    ----------
    transport
        The way to it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._program: Process | None = None
        self._calls: Calls | None = None
        self._computing: TaskComputing | None = None
        self.is_dismissed = False
        self.has_ended = False
        self.master_is_lost = 0 in transport.lost

    def serve(self, *, once: bool = False) -> int:
        """Compute until the program ends, or with `once` until one executor has.

        Returns
        -------
        int
            The status with which this process is to exit: 0 unless the program died.
        """
        while not (self.is_dismissed or self.master_is_lost or (once and self.has_ended)):
            self.step()
        return ExitStatus.FAILED if self.master_is_lost else ExitStatus.DONE

    def step(self) -> None:
        """Look for messages, waiting only if there is nothing to compute, and compute for a moment."""
        computing = self._computing
        has_work = computing is not None and computing.has_work
        message = self._await_left() if has_work else self._await_next()
        if message is None:
            message = self._transport.receive(0.0 if has_work else IDLE_WAIT_S)
            if message is None and not has_work and self._program is not None:
                self._look_for_program(self._program)
        while message is not None:
            self._handle(message)
            # A task that somebody waits for is not to wait for another look.
            done = self.is_dismissed or self.has_ended or (message.kind is Kind.ASSIGN and self._is_awaited)
            message = None if done else self._transport.receive(0.0)
        computing = self._computing
        if computing is not None and computing.has_work and self._may_compute():
            self._compute(computing)

    def _compute(self, computing: TaskComputing) -> None:
        """Compute for a moment."""
        computing.compute()
        if not computing.has_work and self._calls is not None:
            self._calls.forget()

    @property
    def _is_awaited(self) -> bool:
        """Whether somebody waits for just the task that came last."""
        return self._calls is not None and self._calls.is_awaited

    def _may_compute(self) -> bool:
        """Whether nothing is lent that the next task could change, and not too much waits to leave."""
        calls, unsent_bytes = self._calls, self._transport.unsent_bytes
        if calls is not None and calls.packer.has_lent:
            calls.packer.has_lent = unsent_bytes >= LENT_BYTES
            return not calls.packer.has_lent
        return unsent_bytes < MAX_UNSENT_BYTES

    def _await_left(self) -> Message | None:
        """Call MPI, without which nothing moves, until results have left, or a message is there."""
        transport = self._transport
        n_looks = 0
        while not self._may_compute():
            message = transport.receive(0.0)
            if message is not None:
                return message
            n_looks += 1
            if n_looks % LOOKS_PER_SLEEP:
                os.sched_yield()
            else:
                time.sleep(LEAST_SLEEP_S)
        return None

    def _look_for_program(self, program: Process) -> None:
        """Leave if the program has: of a process that ended by os._exit MPI says nothing."""
        if is_alive(program) is False:
            self._transport.lose(0)
            self.master_is_lost = True

    def _await_next(self) -> Message | None:
        """Stay awake for a moment after a task that somebody waited for: the next may depend on it."""
        computing = self._computing
        if computing is None or not computing.was_single:
            return None
        until = time.perf_counter() + AWAKE_S
        while time.perf_counter() < until:
            message = self._transport.receive(0.0)
            if message is not None:
                return message
            os.sched_yield()
        computing.was_single = False
        return None

    def _handle(self, message: Message) -> None:
        kind = message.kind
        if kind is Kind.LOST:
            self.master_is_lost = self.master_is_lost or message.source == 0
        elif kind is Kind.PROGRAM:
            self._program = decode_object(message.buffers)
        elif kind is Kind.START:
            self._begin(decode_object(message.buffers))
        elif kind is Kind.DISMISS:
            self._lose(decode_object(message.buffers))
            self.is_dismissed = True
        elif kind is Kind.END:
            self._end(decode_object(message.buffers))
        elif kind is Kind.FENCE:
            fence: Fence = decode_object(message.buffers)
            send_signal(fence.process, fence.signal)
            self._send(Kind.FENCED, b"", encode_object(fence))
        elif self._computing is not None and self._calls is not None:
            self._obey(kind, message, self._computing, self._calls)

    def _obey(self, kind: Kind, message: Message, computing: TaskComputing, calls: Calls) -> None:
        if kind is Kind.ASSIGN:
            calls.supply(decode(message.buffers), computing.spans)
            computing.add(decode_assign(message.head))
        elif kind is Kind.RECALL:
            computing.drop(decode_recall(message.head))
        elif kind is Kind.TRIM:
            number, stop = decode_trim(message.head)
            self._send(Kind.RETURNED, encode_trim(number, computing.give_back(number, stop)))

    def _lose(self, ranks: Any) -> None:
        for rank in ranks:
            self._transport.lose(rank)

    def _end(self, end: End) -> None:
        self._lose(end.lost)
        if self._computing is not None:
            self._computing.clear()
        self._computing = self._calls = None
        self._transport.keep_memory()  # that of before is free
        forget_spread()
        forget_initialized()
        forget_set()
        self._send(Kind.GOODBYE)
        self.has_ended = True

    def _send(self, kind: Kind, head: bytes = b"", buffers: Any = ()) -> None:
        self._transport.send(0, kind, head, buffers)

    def _begin(self, start: Start) -> None:
        """Make ready for an executor; what goes wrong is the master's to tell."""
        self._transport.hosts[0] = start.master.host
        self._program = start.master
        self.has_ended = False
        if start.source != TASKS:
            cure = "mpirun alone starts a program that calls mpims.run, and `mpims run` the file of a job"
            self._refuse(f"this rank serves an executor (mpims script), not jobs: {cure}", "", True)
            return
        settings = start.parameters
        for folder in settings.get("path", ()):
            if folder not in sys.path:
                sys.path.append(folder)
        failure, n_forks = None, forks[0]
        try:
            if settings.get("initializer") is not None:
                call_initializer(*unpack(*settings["initializer"]))
        except BaseException as error:  # whatever the user's initializer raises
            failure = error
        if forks[0] != n_forks:
            leave_child(failure, user_traceback(failure) if failure is not None else "")
        if failure is not None:
            self._refuse(f"the initializer raised {describe(failure)}", user_traceback(failure))
            return
        where = self._transport.where(self._transport.rank)
        self._calls = Calls(where, settings.get("initializer"))
        self._computing = TaskComputing(
            self._calls, start.options, self._send, lambda: self._send(Kind.PING)
        )
        joined = Joined(
            host=self._transport.host,
            process=this_process(),
            holding=(),
            n_items=0,
            items_digest="",
            job=TASKS,
        )
        self._send(Kind.JOINED, b"", encode_object(joined))

    def _refuse(self, reason: str, detail: str, is_usage: bool = False) -> None:
        failed = Failed(attempt=0, start=0, stop=0, reason=reason, detail=detail, is_usage=is_usage)
        self._send(Kind.FAILED, b"", encode_object(failed))


def serve_tasks(transport: Transport, *, once: bool = False) -> int:
    """Compute tasks on this rank; give the status with which it is to exit."""
    from mpims.executor import serving
    from mpims.runtime.threads import one_thread

    with transport.engaged("an Executor"):
        serving.is_worker = True
        if not once:
            die_where_the_users_code_exits()
        worker = TaskWorker(transport)
        try:
            with one_thread():
                status = worker.serve(once=once)
        except BaseException:
            transport.abandon(ExitStatus.INTERNAL)  # or the others would wait for this rank for ever
            raise
        finally:
            serving.is_worker = not once
    if worker.master_is_lost and os.environ.get("MPIMS_STATUS_FILE") is None:
        program = transport.where(0)
        say(f"{program}, the program, has died: the ranks that served it end")
    return status


def serve_rank() -> int:
    """Be a rank that was started to compute tasks; give the status with which it is to exit."""
    leave_signals_to_master()
    try:
        transport = connect(share=False)
    except MpimsError:
        return ExitStatus.DONE  # rank 0 has the same error, and says so
    return ExitStatus.DONE if transport is None else serve_tasks(transport)
