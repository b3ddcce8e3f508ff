"""The chunks that a rank holds, and what is computed of them and has not left yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpims.core.chunks import Care, Held
from mpims.errors import describe
from mpims.job import Job
from mpims.runtime.itemwise import ItemwiseBlock
from mpims.runtime.parts import Part, new_part
from mpims.runtime.wire import (
    MOST_RESULTS,
    Buffer,
    Failed,
    Kind,
    encode_object,
    encode_packed,
    pack_result,
    unpack_result,
)

if TYPE_CHECKING:
    from mpims.runtime.isolation import BlockHung, BlockRaised

Send = Callable[[Kind, bytes, Sequence[Buffer]], None]


class HeldChunk:
    """An attempt at a chunk, as the rank that has it sees it; the items before `at` have been computed.

    Attributes
    ----------
    failed_in_fork
        How its next block failed in a forked child; a new Python is to try it.
    """

    __slots__ = ("at", "care", "failed_in_fork", "itemwise", "number", "stop")

    def __init__(self, number: int, start: int, stop: int, care: Care) -> None:
        self.number = number
        self.at = start
        self.stop = stop
        self.care = care
        self.itemwise: ItemwiseBlock | None = None
        self.failed_in_fork: BlockRaised | BlockHung | None = None


class Holding:
    """What a rank holds in one run.

    Parameters
    ----------
    job, block, n_items
        What is computed.
    send
        Takes what is to reach the master, and a later one if this one dies now.

    Attributes
    ----------
    longest_s
        The longest block so far, in seconds.
    """

    def __init__(self, job: Job, block: int, n_items: int, send: Send) -> None:
        self._job = job
        self._block = block
        self._n_items = n_items
        self._send = send
        self._queue: deque[HeldChunk] = deque()
        self._part: Part = new_part(job.output, block, n_items)
        self._heads: list[bytes] = []  # of what is in the part and complete, packed
        self._part_start: int | None = None  # of what is in the part beside it
        self._busy_s = self._longest_s = self._squares_s2 = 0.0  # of the blocks that begin there
        self._overhead_s = 0.0  # of the attempt that begins there
        self._attempt_ended: float | None = None  # until the next one is begun
        self._now = self._last_report = self._last_sent = time.perf_counter()
        self.longest_s = 0.0

    @property
    def has_work(self) -> bool:
        """Whether there is something to compute."""
        return bool(self._queue)

    @property
    def holding(self) -> tuple[Held, ...]:
        """What is still to be delivered of each chunk."""
        return tuple(Held(attempt.number, attempt.at, attempt.stop) for attempt in self._queue)

    def add(self, chunks: Iterable[tuple[int, int, int, Care]]) -> None:
        """Take chunks on: number, start, stop, and how carefully."""
        self._queue += [HeldChunk(*chunk) for chunk in chunks]

    def report(self) -> None:
        """Send all that has been computed."""
        if self._queue:
            self._deliver(self._queue[0])
        self.send_results()

    # ---------------------------------------------------------------- deliveries

    def _fail(
        self, attempt: int, start: int, stop: int, reason: str, detail: str, *, is_final: bool = False
    ) -> None:
        failed = Failed(
            attempt=attempt, start=start, stop=stop, reason=reason, detail=detail, is_final=is_final
        )
        self._send(Kind.FAILED, b"", encode_object(failed))

    def _deliver(self, attempt: HeldChunk) -> None:
        """Close what has been computed of an attempt; end it if it is complete."""
        start = self._part_start
        if start is not None:
            longest_s = self._longest_s
            self._heads.append(
                pack_result(
                    attempt.number,
                    start,
                    attempt.at,
                    self._busy_s,
                    longest_s,
                    self._squares_s2,
                    self._overhead_s,
                    self._now,
                )
            )
            self._part.close()
            if longest_s > self.longest_s:
                self.longest_s = longest_s
            self._part_start = None
            self._busy_s = self._longest_s = self._squares_s2 = self._overhead_s = 0.0
        if attempt.at >= attempt.stop:
            self._attempt_ended = self._now
            queue = self._queue
            if queue and queue[0] is attempt:
                queue.popleft()
            elif attempt in queue:
                queue.remove(attempt)
        if len(self._heads) == MOST_RESULTS:
            self.send_results()

    def send_results(self, *, is_empty: bool = False) -> None:
        """Send what is complete."""
        heads = self._heads
        if not heads:
            return
        self._last_sent = self._last_report = self._now
        self._heads = []
        payload = self._part.take()
        try:
            head, buffers = self._encode(heads, None if is_empty else payload)
        except Exception as error:  # whatever an object of the user's raises when it is pickled
            reason = f"a result cannot be pickled: {describe(error)}"
            first = unpack_result(heads[0])
            self._fail(first.attempt, first.start, first.stop, reason, "", is_final=True)
            self._queue.clear()
            return
        self._send(Kind.RESULT, head, buffers)

    def _encode(self, heads: list[bytes], payload: Any) -> tuple[bytes, list[Buffer]]:
        """Head and buffers of the message that delivers these results."""
        return encode_packed(heads, payload)

    def _new_part(self) -> None:
        self._part = new_part(self._job.output, self._block, self._n_items)
        self._part_start = None
        self._busy_s = self._longest_s = self._squares_s2 = self._overhead_s = 0.0
        self._attempt_ended = self._now
