"""What was measured: how long blocks and chunks take, in general and on each rank, and what follows.

Three learn of it: the deadlines (the longest block), the policy (each whole chunk), and how many chunks a
rank is to hold: two, but more where chunks are shorter than a hand-out takes, and far from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from mpims.core.chunks import Result, make
from mpims.core.events import ChunkDone
from mpims.core.ledger import Attempt, Ledger
from mpims.core.policies import Sample, Sizer
from mpims.core.silence import Silence
from mpims.core.workers import WorkerState

QUEUE_LENGTH = 2
"""Attempts a worker holds by default: the one it computes and the next ..."""
LEAD_S = 1e-3
"""... and where chunks are short so many that they take this long ..."""
LONGEST_QUEUE = 1024
"""... but not more than these."""
FAR_LEAD_S = 0.5
"""Far from the end a rank has work for so long: it need not wait for a master that waits for a file system,
and a master that need not answer at once wakes seldom, for several results at a time ..."""
FAR_LENGTH = 50
"""... but not more attempts than these ..."""
FAR_SHARE = 1 / 4
"""... and all ranks together no more than this part of what is pending, so that it evens out at the end."""
FAR_STEP = 1 / 16
"""How many they are to be is asked anew each time when so much less is pending, or `FAR_LENGTH` chunks less
for each rank: blocks may have become longer, or short."""
SLACK_OF_SHORT, SLACK_OF_MEAN = 0.6, 0.125
"""A rank that holds a chunk beside the one it computes is unlikely to be done with both within this part
of what the chunk takes with short blocks, or with mean ones: where blocks are alike the first counts."""
_MEMORY = 0.3
"""What a new measurement counts in a mean ..."""
_RISE = 0.02
"""... and in what a short block takes, which follows a shorter one at once."""


class Measures:
    """The times of blocks and chunks.

    Parameters
    ----------
    ledger
        The items.
    sizer, silence, workers
        The policy, who watches the ranks, and the ranks.
    queue_length
        Attempts a worker holds at the least; with 1 it waits for each, however short they are.

    Attributes
    ----------
    block_s
        How long a block takes of late; None before any is measured.
    short_s
        How long a short one does: the mean in a chunk, where that was least.
    learns
        Whether the policy does.
    longest_queue
        Attempts a worker holds at the most, however short they are.
    """

    def __init__(
        self,
        ledger: Ledger,
        sizer: Sizer,
        silence: Silence,
        workers: dict[int, WorkerState],
        queue_length: int,
    ) -> None:
        self._block = ledger.block
        self._pending = ledger.pending
        self._sizer = sizer
        self.learns = sizer.learns
        self._silence = silence
        self._workers = workers
        self._least_length = queue_length
        self.longest_queue = LONGEST_QUEUE
        self._longest_s = -1.0
        self.block_s: float | None = None
        self.short_s = inf

    def slack_s(self, n_blocks: int) -> float:
        """For how long it does not matter to a rank that holds a chunk of so many blocks beside the one it
        computes that nobody looks.
        """
        if self.block_s is None:
            return 0.0
        return n_blocks * max(SLACK_OF_SHORT * self.short_s, SLACK_OF_MEAN * self.block_s)

    def learn(self, worker: WorkerState | None, attempt: Attempt, event: ChunkDone, now: float) -> None:
        """A result is there."""
        n_blocks = -((event.start - event.stop) // self._block)
        self.learn_blocks(worker, n_blocks, event.busy_s, event.longest_block_s, n_blocks)
        if self.learns and worker is not None:
            whole_s = now - worker.silent_since
            self.learn_part(
                worker, attempt, n_blocks, event.busy_s, event.squares_s2, whole_s, event.overhead_s
            )

    def learn_whole(
        self, worker: WorkerState, attempts: Sequence[Attempt], results: Sequence[Result], now: float
    ) -> None:
        """The results of whole chunks are there."""
        n_blocks, busy_s, longest_s = 0, 0.0, self._longest_s
        block, learns = self._block, self.learns
        whole_s = (now - worker.silent_since) / len(results)
        for attempt, (_, start, stop, its_s, its_longest_s, squares_s2, overhead_s) in zip(
            attempts, results, strict=True
        ):
            n_its = -((start - stop) // block)
            n_blocks += n_its
            busy_s += its_s
            if its_longest_s > longest_s:
                longest_s = its_longest_s
            if learns:
                self.learn_part(worker, attempt, n_its, its_s, squares_s2, whole_s, overhead_s)
        self.learn_blocks(worker, n_blocks, busy_s, longest_s, n_blocks / len(results))

    def learn_blocks(
        self, worker: WorkerState | None, n_blocks: int, busy_s: float, longest_s: float, of_chunk: float
    ) -> None:
        """Blocks, so many in a chunk, took so long."""
        block_s = busy_s / n_blocks
        if longest_s > self._longest_s:
            self._longest_s = longest_s
            self._silence.learn(longest_s, self._workers)
        mean_s, short_s = self.block_s, self.short_s
        self.short_s = block_s if block_s < short_s else short_s + _RISE * (block_s - short_s)
        self.block_s = block_s if mean_s is None else mean_s + _MEMORY * (block_s - mean_s)
        if worker is None:
            return
        before_s = worker.block_s
        if before_s is not None:
            block_s = before_s + _MEMORY * (block_s - before_s)
        worker.block_s = block_s
        if self._pending.size < worker.length_for:
            if worker.queue:  # a long chunk is delivered in parts, and the last one may be short
                newest = worker.queue[-1]
                of_chunk = max(of_chunk, -((newest.start - newest.stop) // self._block))
            self._set_length(worker, of_chunk, of_chunk * block_s)

    def learn_part(
        self,
        worker: WorkerState,
        attempt: Attempt,
        n_blocks: int,
        busy_s: float,
        squares_s2: float,
        whole_s: float,
        overhead_s: float,
    ) -> None:
        """Tell the policy what a chunk took, once all its parts are there."""
        part = worker.part
        if part is not None:
            if part[0] == attempt.number:
                n_blocks += part[1]
                busy_s += part[2]
                squares_s2 += part[3]
                whole_s += part[4]
                overhead_s += part[5]
            worker.part = None
        if attempt.start < attempt.stop:
            worker.part = attempt.number, n_blocks, busy_s, squares_s2, whole_s, overhead_s
        else:
            self._sizer.learn(
                make(Sample, (worker.rank, n_blocks, busy_s, squares_s2, whole_s, overhead_s))
            )

    def learn_service(self, service_s: float) -> None:
        """A result kept the master busy for so long."""
        self._sizer.learn_service(service_s)

    def _set_length(self, worker: WorkerState, n_blocks: float, chunk_s: float) -> None:
        """Say how many chunks of so many blocks and seconds a rank is to hold."""
        length, longest, n_pending = self._least_length, self.longest_queue, self._pending.size
        n_for_all = n_blocks * self._block * len(self._workers)
        worker.holds_back = is_short = length * chunk_s < LEAD_S
        few = min(FAR_STEP * n_pending, FAR_LENGTH * n_for_all)
        worker.length_for = inf if is_short else n_pending - few
        if length == 1:
            pass
        elif is_short:
            length = int(LEAD_S / chunk_s) if longest * chunk_s > LEAD_S else longest
        elif length * chunk_s < FAR_LEAD_S and length < longest:
            share = FAR_SHARE * n_pending / n_for_all
            if share > length:
                length = min(int(FAR_LEAD_S / chunk_s), int(share), FAR_LENGTH, longest)
        worker.length = length
