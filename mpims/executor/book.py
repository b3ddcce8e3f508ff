"""The tasks that are outstanding, as the master knows them: by their place in the ledger."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from mpims.core.policies import Policy
from mpims.core.ranges import RangeSet
from mpims.executor.cargo import LARGE, NOTHING, Batch, mean_bytes
from mpims.executor.functions import Function
from mpims.executor.orders import Tasks

CHUNK_S = 20e-3
"""A chunk is to take no longer than this, so that what is done comes home ..."""
SINGLES_S = 1e-3
"""... and one of tasks that are waited for singly no longer than this."""
MOST_SINGLES = 64
"""Of those so many are a chunk at the most."""
CHUNK_BYTES = 4 << 20
"""Nor are its arguments to measure more, nor its results: what follows them would have to wait its turn."""
_MEMORY = 0.3
_SHORTEST_S = 1e-7


class Run:
    """Tasks that were given together: items ``[first, stop)`` of the ledger."""

    __slots__ = ("first", "is_started", "n_left", "stop", "tasks")

    def __init__(self, first: int, tasks: Tasks) -> None:
        n = len(tasks.batch.values)
        self.first = first
        self.stop = first + n
        self.tasks = tasks
        self.n_left = n
        self.is_started = False

    def drop(self) -> None:
        """Nobody wants these any more: they are handed out as nothing, and so are soon done."""
        n = len(self.tasks.batch)
        self.tasks.batch = Batch([None] * n, bytearray([NOTHING]) * n)


class Book:
    """The runs that are not done, in the order of the ledger.

    Attributes
    ----------
    n_items
        How many tasks there were.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._runs: list[Run | None] = []  # None: done
        self._by_key: dict[int, Run] = {}
        self._n_done = 0  # of the runs in the lists
        self.n_items = 0

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._by_key.values()))

    def add(self, tasks: Tasks) -> int:
        """Enter tasks; give their number."""
        run = Run(self.n_items, tasks)
        self._firsts.append(run.first)
        self._runs.append(run)
        self._by_key[tasks.key] = run
        self.n_items = run.stop
        return run.n_left

    @property
    def only(self) -> Run | None:
        """The run that is left, if there is one alone."""
        if len(self._by_key) != 1:
            return None
        (run,) = self._by_key.values()
        return run

    def find(self, key: int) -> Run | None:
        """The run of that key, if it is not done."""
        return self._by_key.get(key)

    def at(self, item: int) -> Run | None:
        """The run that an item is in, if it is not done."""
        i = bisect_right(self._firsts, item) - 1
        return self._runs[i] if i >= 0 else None

    def within(self, start: int, stop: int) -> Sequence[tuple[Run, int, int]]:
        """The runs of these items that are not done, each with what of it is among them."""
        i = max(0, bisect_right(self._firsts, start) - 1)
        run = self._runs[i] if self._runs else None
        if run is not None and run.first <= start and stop <= run.stop:
            return ((run, start, stop),)
        return list(self._from(i, start, stop))

    def _from(self, i: int, start: int, stop: int) -> Iterator[tuple[Run, int, int]]:
        while i < len(self._firsts) and self._firsts[i] < stop:
            run = self._runs[i]
            if run is not None and run.stop > start:
                yield run, max(start, run.first), min(stop, run.stop)
            i += 1

    def done(self, run: Run, n_items: int) -> None:
        """So many items of a run are done; a run that is done whole is forgotten."""
        run.n_left -= n_items
        if run.n_left:
            return
        del self._by_key[run.tasks.key]
        if not self._by_key:
            self.clear()
            return
        self._runs[bisect_right(self._firsts, run.first) - 1] = None
        self._n_done += 1
        if 2 * self._n_done > len(self._runs):
            self._runs = [kept for kept in self._runs if kept is not None]
            self._firsts = [kept.first for kept in self._runs if kept is not None]
            self._n_done = 0

    def clear(self) -> None:
        """Forget all."""
        self._firsts, self._runs, self._by_key, self._n_done = [], [], {}, 0


class TaskSizes(Policy):
    """How many tasks the next chunk has: half an equal share of what is pending, within some limits.

    That is FAC2's rule for what is there now; more may come. A chunk is of one function's tasks, and not
    longer than is good for whoever waits for the first of them; of a function that was never measured it
    is one task.

    Parameters
    ----------
    book, pending
        The tasks, and which of them are to be handed out.
    n_workers
        Workers that share them.
    """

    name = "tasks"
    source = "FAC2, Hummel et al. 1992"

    def __init__(self, book: Book, pending: RangeSet, n_workers: int) -> None:
        super().__init__(0, n_workers)
        self._book = book
        self._pending = pending

    def propose(self, remaining: int, rank: int) -> int:
        if remaining == 1:
            return 1
        at = self._pending.first[0] + self._pending.size - remaining
        run = self._book.at(at)
        if run is None:
            return 1
        function = run.tasks.function
        if function.mean_s is None:
            return 1
        single = run.tasks.is_single
        most = (SINGLES_S if single else CHUNK_S) / max(function.mean_s, _SHORTEST_S)
        size = min(remaining / (2 * self.n_workers), most)
        task_bytes = max(function.mean_bytes, function.result_bytes)
        if size * task_bytes > CHUNK_BYTES:
            size = CHUNK_BYTES / task_bytes
        if single:
            return self._of_same(function, at, int(min(size, MOST_SINGLES)))
        return max(1, int(min(size, run.stop - at)))

    def _of_same(self, function: Function, at: int, most: int) -> int:
        """How many tasks from one on are of the same function, at least 1."""
        size = 1
        while size < most:
            run = self._book.at(at + size)
            if run is None or run.tasks.function is not function:
                break
            size += 1
        return size


def learn(function: Function, results: Batch, busy_s: float) -> None:
    """Calls of a function gave this and took so long together."""
    mean_s = busy_s / len(results.values)
    if LARGE in results.flags or function.result_bytes:
        function.result_bytes = _upward(function.result_bytes, mean_bytes(results))
    before_s = function.mean_s
    function.mean_s = mean_s if before_s is None else before_s + _MEMORY * (mean_s - before_s)


def learn_bytes(tasks: Tasks) -> None:
    """Calls have these arguments; `MOST_SINGLES` small ones are never too many bytes for a chunk."""
    function = tasks.function
    if not tasks.is_single or function.mean_bytes or LARGE in tasks.batch.flags:
        function.mean_bytes = _upward(function.mean_bytes, mean_bytes(tasks.batch))


def _upward(before: float, now: float) -> float:
    """A mean that follows what grows at once, and what shrinks slowly."""
    return now if now > before else before + _MEMORY * (now - before)
