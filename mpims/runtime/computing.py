"""What a rank does with the chunks it holds: compute them block by block.

Results leave when their chunk is complete, when they have grown large, or when it is time for a sign of
life. Of chunks that take less time than a message, the results of several leave in one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import TYPE_CHECKING, Any

from mpims.core.chunks import Care, Range
from mpims.errors import ExitStatus, UsageError, describe, user_traceback
from mpims.job import Job
from mpims.options import RunOptions
from mpims.outputs import Gather, ResultError, kept
from mpims.processes import forks
from mpims.runtime.holding import HeldChunk, Holding, Send
from mpims.runtime.items import call_kernel, take_items
from mpims.runtime.itemwise import ItemwiseBlock
from mpims.runtime.parts import check_results
from mpims.runtime.wire import (
    Kind,
    encode_object,
    pack_result,
)
from mpims.streams import flush_output

PART_BYTES = 4 << 20
"""Results are sent when they have grown to this, so that a chunk of any size fits into memory."""
MAX_UNSENT_BYTES = 256 << 20
"""Nothing more is computed while this much waits for the master to take it."""
BURST_S = 0.2e-3
"""Blocks are computed one after another for so long before messages are looked for."""
HOLD_BACK_S = 0.5e-3
"""Results wait for those of the next chunks no longer than this ..."""
HELD_BACK = 48
"""... and so many do not wait."""
LEAST_START_S = 60.0
"""A new Python in which a block is to be computed is given at least so long to begin, ..."""
START_FACTOR = 10.0
"""... or so many times what `setup` took on the rank."""
ISOLATED_WAIT_S = 5e-3
"""While a child computes, messages are looked for this often."""
LONGEST_REPORT_INTERVAL_S = 1.0
"""A worker reports at least this often, if its blocks are short enough ..."""
REPORTS_PER_TIMEOUT = 4
"""... and this often within the user's timeout."""

if TYPE_CHECKING:
    from mpims.runtime.isolation import BlockOutcome, IsolatedBlocks
    from mpims.runtime.spawnedchild import Order


def _references() -> int:
    value = object()
    return getrefcount(value)


ALONE = _references()
"""References to a local variable's value if there are no others, as `getrefcount` counts them there."""


class Computing(Holding):
    """The chunks of one rank in one run, and how they are computed.

    Parameters
    ----------
    job, items, block
        What is computed.
    options
        How it is to be run.
    send
        Takes what is to reach the master, and a later one if this one dies now.
    ping
        Says that this rank is there.
    patience_s
        How long a child may be silent.
    isolated
        Compute everything in child processes: this rank is needed alive.
    order
        Gives what a child needs that is a new Python, for items from start to stop, or raises UsageError;
        None if there can be none.

    Attributes
    ----------
    report_interval_s, burst_s, hold_back_s
        How often to report, and how long to compute without a look, or to keep results back.
    """

    def __init__(
        self,
        job: Job,
        items: Sequence[Any],
        block: int,
        options: RunOptions,
        *,
        send: Send,
        ping: Callable[[], None],
        patience_s: Callable[[], float],
        isolated: bool = False,
        order: Callable[[int, int], Order] | None = None,
    ) -> None:
        super().__init__(job, block, len(items), send)
        self._items = items
        self._options = options
        self._ping = ping
        self._patience_s = patience_s
        self._isolated = isolated
        self._order = order
        # Whether children have to be new Pythons; None: that is found out when a block fails in a fork.
        self._spawns = job.start_method == "spawn" or (None if order is not None else False)
        self._counts = isinstance(items, range) and items == range(len(items))
        self._child: IsolatedBlocks | None = None
        self._child_silent_s = self._child_looked = 0.0
        self._n_forks = forks[0]
        timeout_s = options.timeout_s or LONGEST_REPORT_INTERVAL_S * REPORTS_PER_TIMEOUT
        self.report_interval_s = min(LONGEST_REPORT_INTERVAL_S, timeout_s / REPORTS_PER_TIMEOUT)
        self.burst_s, self.hold_back_s = BURST_S, HOLD_BACK_S

    # -------------------------------------------------------------------- orders

    def drop(self, number: int) -> None:
        """Forget a chunk."""
        queue = self._queue
        if queue and queue[0].number == number:
            self._end_child()
            self.send_results()
            self._new_part()
        self._queue = deque([attempt for attempt in queue if attempt.number != number])

    def trim(self, number: int, stop: int) -> None:
        """End a chunk earlier."""
        for attempt in self._queue:
            if attempt.number == number:
                attempt.stop = max(attempt.at, min(attempt.stop, stop))
        if self._queue and self._queue[0].at == self._queue[0].stop:
            self.report()

    def drop_careful(self) -> None:
        """Forget what is to be computed with care: another master has it from the others."""
        if any(attempt.care for attempt in self._queue):
            self._end_child()
            self._queue = deque([attempt for attempt in self._queue if not attempt.care])

    def clear(self) -> None:
        """Forget everything."""
        self._end_child()
        self._queue.clear()

    # ----------------------------------------------------------------- computing

    def compute(self) -> None:
        """Compute the next block, or several short ones, or look how far the child is."""
        attempt = self._queue[0]
        if self._isolated or attempt.care:
            self._compute_with_care(attempt)
            return
        self._compute_plain()

    def _compute_plain(self) -> None:
        """Compute ordinary blocks until results have left, or it is time to look for messages.

        All in one function, for where items take no time this is what they cost.
        """
        job, items, block, clock = self._job, self._items, self._block, time.perf_counter
        kernel, counts, n_forks = job.kernel, self._counts, self._n_forks
        queue, heads, last_sent = self._queue, self._heads, self._last_sent
        now = clock()
        until, hold_until = now + self.burst_s, last_sent + self.hold_back_s
        while now <= until and queue and self._last_sent == last_sent:
            attempt = queue[0]
            if attempt.care:
                return
            start, stop = attempt.at, attempt.stop
            if stop - start > block:
                stop = start + block
            job.indices = items_here = range(start, stop)
            began = clock()
            try:
                results = kernel(items_here if counts else take_items(items, start, stop))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever the user's code raises
                self._kernel_raised(attempt, (start, stop), error)
                return
            self._now = now = clock()
            if forks[0] != n_forks:
                self._leave_child(ExitStatus.DONE)
            busy_s = now - began
            if self._attempt_ended is not None:
                self._overhead_s = began - self._attempt_ended
                self._attempt_ended = None
            is_ours = getrefcount(results) == ALONE
            if (
                stop < attempt.stop
                or self._part_start is not None
                or not self._part.add_alike(stop - start, results, is_ours)
            ):
                self._block_done(attempt, start, stop, results, busy_s, is_ours)
                continue
            # A chunk of one block, with results like those before it: what `_block_done` does, in short.
            queue.popleft()
            squares_s2, overhead_s = busy_s * busy_s, self._overhead_s
            heads.append(
                pack_result(attempt.number, start, stop, busy_s, busy_s, squares_s2, overhead_s, now)
            )
            self._overhead_s, self._attempt_ended = 0.0, now
            if busy_s > self.longest_s:
                self.longest_s = busy_s
            if len(queue) <= 1 or now >= hold_until or len(heads) >= HELD_BACK:
                self.send_results()
                return

    def _compute_with_care(self, attempt: HeldChunk) -> None:
        if attempt.care & Care.ITEMWISE and attempt.itemwise is None:
            attempt.itemwise = ItemwiseBlock(attempt.at, attempt.stop, 1 + self._options.retries)
        if self._isolated or attempt.care & Care.ISOLATED:
            self._compute_isolated(attempt)
        else:
            self._compute_block(attempt, *self._upcoming(attempt)[0])

    def _compute_block(self, attempt: HeldChunk, start: int, stop: int) -> None:
        began = time.perf_counter()
        try:
            results = self._kernel(start, stop)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's code raises
            self._kernel_raised(attempt, (start, stop), error)
            return
        self._now = now = time.perf_counter()
        self._leave_child(ExitStatus.DONE)
        self._block_done(attempt, start, stop, results, now - began)

    def _kernel_raised(self, attempt: HeldChunk, computed: Range, error: BaseException) -> None:
        self._leave_child(ExitStatus.FAILED)
        self._block_failed(attempt, computed, describe(error), user_traceback(error))

    def _leave_child(self, status: ExitStatus) -> None:
        """End this process if it is a child that the user's code forked: not for it to reply."""
        if forks[0] != self._n_forks:
            flush_output()
            os._exit(status)

    def _kernel(self, start: int, stop: int) -> Any:
        return call_kernel(self._job, self._items, start, stop)

    def _upcoming(self, attempt: HeldChunk) -> list[Range]:
        """The kernel calls that a careful attempt is to make, as far as is known."""
        if attempt.itemwise is not None:
            return attempt.itemwise.upcoming()
        block, stop = self._block, attempt.stop
        return [(start, min(start + block, stop)) for start in range(attempt.at, stop, block)]

    def _compute_isolated(self, attempt: HeldChunk) -> None:
        from mpims.runtime.isolation import BlockHung  # rarely needed

        now = time.perf_counter()
        if self._child is None:
            try:
                self._child = self._new_child(attempt)
            except OSError as error:
                reason = (
                    f"no child process to compute it in, see ulimit -u and the memory: {error.strerror}"
                )
                self._no_child(attempt, self._upcoming(attempt)[0], reason)
                return
            self._child_silent_s, self._child_looked = 0.0, now
        child, current, was_ready = self._child, self._child.current, self._child.is_ready
        limit_s = self._patience_s()
        if not was_ready:
            limit_s = max(limit_s, LEAST_START_S, START_FACTOR * self._job._setup_s)
        outcome = child.poll(ISOLATED_WAIT_S)
        self._now = time.perf_counter()
        # Longer between two looks: this rank was suspended, and its child, too.
        self._child_silent_s += min(self._now - self._child_looked, self.report_interval_s)
        self._child_looked = self._now
        if outcome is not None or child.is_ready != was_ready:
            self._child_silent_s = 0.0
        if outcome is None and self._child_silent_s > limit_s and current is not None:
            outcome = BlockHung(*current, f"no answer for {limit_s:g} s: killed")
        if outcome is not None:
            self._child_ended_block(attempt, child, outcome)
        elif now - self._last_report >= self.report_interval_s:
            self._last_report = now
            self._ping()  # the child may be long silent: the rank is not

    def _new_child(self, attempt: HeldChunk) -> IsolatedBlocks:
        from mpims.runtime.isolation import IsolatedBlocks

        if self._order is not None and (self._spawns or attempt.failed_in_fork is not None):
            try:
                return IsolatedBlocks(self._order(attempt.at, attempt.stop), self._upcoming(attempt))
            except UsageError:  # the job is of a program, and cannot be pickled
                self._spawns = False
        return IsolatedBlocks(self._kernel, self._upcoming(attempt))

    def _child_ended_block(self, attempt: HeldChunk, child: IsolatedBlocks, outcome: BlockOutcome) -> None:
        from mpims.runtime.isolation import BlockDied, BlockDone

        before, attempt.failed_in_fork = attempt.failed_in_fork, None
        if child.over:
            self._end_child()
        if isinstance(outcome, BlockDone):
            self._spawns = self._spawns or before is not None
            self._block_done(attempt, outcome.start, outcome.stop, outcome.results, outcome.busy_s)
            return
        self._end_child()
        if child.is_forked and self._spawns is None and not isinstance(outcome, BlockDied):
            attempt.failed_in_fork = outcome  # perhaps only because what it uses does not survive a fork
            return
        if before is not None:
            if not child.is_ready:
                outcome = before  # the new Python could not even begin
            if outcome.reason == before.reason:
                self._spawns = False
        computed, detail = (outcome.start, outcome.stop), getattr(outcome, "detail", "")
        self._block_failed(attempt, computed, outcome.reason, detail)

    def _no_child(self, attempt: HeldChunk, computed: Range, reason: str) -> None:
        """End the run: a block that may kill this rank cannot be computed, and is not at fault."""
        self.report()
        self._fail(attempt.number, *computed, reason, "", is_final=True)
        self._queue.remove(attempt)

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    # ------------------------------------------------------------------ outcomes

    def _block_done(
        self, attempt: HeldChunk, start: int, stop: int, results: Any, busy_s: float, is_ours: bool = False
    ) -> None:
        try:
            check_results(results, stop - start)
            if attempt.itemwise is None:
                if self._part_start is None:
                    self._part_start = start
                self._part.add(start, stop, results, is_ours)
            elif isinstance(self._job.output, Gather):
                self._job.output.pack(results)  # what fits no array is the item's fault
        except ResultError as error:
            self._block_failed(attempt, (start, stop), str(error), "")
            return
        except (Exception, SystemExit) as error:  # whatever the user's objects and reduce function raise
            self._block_failed(attempt, (start, stop), describe(error), user_traceback(error))
            return
        self._busy_s += busy_s
        self._squares_s2 += busy_s * busy_s
        if busy_s > self._longest_s:
            self._longest_s = busy_s
        if attempt.itemwise is not None:
            attempt.itemwise.done((start, stop), kept(results))
            self._end_itemwise(attempt)
            return
        attempt.at = stop
        if stop == attempt.stop:
            self._deliver(attempt)
            # The chunks that are left give the master time to send more.
            if (
                len(self._queue) <= 1
                or len(self._heads) >= HELD_BACK
                or self._now - self._last_sent >= self.hold_back_s
            ):
                self.send_results()
        elif self._part.n_bytes >= PART_BYTES or self._now - self._last_report >= self.report_interval_s:
            self.report()

    def _block_failed(self, attempt: HeldChunk, computed: Range, reason: str, detail: str) -> None:
        """Deliver what comes before the block, say what happened, and go on behind it."""
        if attempt.itemwise is not None:
            attempt.itemwise.failed(computed, reason, detail)
            self._end_itemwise(attempt)
            return
        start, stop = computed
        if self._part_start == start:  # its results were refused
            self.send_results()
            self._new_part()
        self.report()
        self._fail(attempt.number, start, stop, reason, detail)
        attempt.at = stop
        if stop >= attempt.stop and attempt in self._queue:
            self._queue.remove(attempt)
            self._attempt_ended = self._now

    def _end_itemwise(self, attempt: HeldChunk) -> None:
        """Deliver a block whose items were tried alone, once all is known of it."""
        block = attempt.itemwise
        assert block is not None
        if block.upcoming():
            if self._child is not None and self._child.current is None:
                self._end_child()
            return
        self._end_child()
        self.send_results()
        start, stop = attempt.at, attempt.stop
        if block.skipped and self._options.on_error == "abort":
            item, n_tries, reason, detail = block.skipped[0]
            times = f" (alone, tried {n_tries} times)" if n_tries > 1 else ""
            self._fail(attempt.number, item, item + 1, reason + times, detail, is_final=True)
            self._queue.remove(attempt)
            return
        if block.skipped:
            self._send(Kind.SKIPPED, b"", encode_object((attempt.number, block.skipped)))
        self._part_start = start
        attempt.at = stop
        try:
            if block.whole is not None:
                self._part.add(start, stop, block.whole)
            elif block.results:
                self._part.add_items(start, stop, block.results)
        except (Exception, SystemExit) as error:  # whatever the user's objects and reduce function raise
            self._new_part()
            self._queue.remove(attempt)
            self._fail(attempt.number, start, stop, describe(error), user_traceback(error), is_final=True)
            return
        self._deliver(attempt)
        self.send_results(is_empty=not block.results)
