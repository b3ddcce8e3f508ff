"""One call of `map`: how its input becomes tasks, and how results become an iterator.

The input is taken in parts, so many at a time that the ranks have work for a moment: a longer one than the
memory has room for is no matter. A generator is advanced in the thread that takes the results, and only as
they are taken; a list, a range and their like also while nobody looks, as `concurrent.futures` does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from itertools import islice
from math import inf
from threading import Condition, RLock, get_ident
from typing import Any

from mpims.executor.cargo import ERROR, NOTHING, Batch, Packer, empty_batch, mean_bytes, unpack
from mpims.executor.functions import Function
from mpims.executor.orders import Tasks

AHEAD_S = 0.1
"""Every rank is to have work for so long ..."""
LEAST_AHEAD = 4
"""... and at least so many tasks ..."""
MOST_AHEAD = 1 << 16
"""... but there are no more than so many under way or not yet taken ..."""
MOST_BYTES = 64 << 20
"""... nor more bytes of arguments than this, beside one task for every rank."""
_LEAST_S = 1e-7
_MEMORY = 0.3


class Mapping:
    """The tasks of one call.

    Parameters
    ----------
    function, mode
        What is called, and how, see `mpims.executor.functions`.
    source
        The arguments of each call.
    is_background
        Whether the source may be advanced by the master's thread.
    ordered
        Whether results are given in the order of the arguments, or as they come.
    most
        So many tasks there are at the most that are not taken; None for as many as are good.
    give
        Gives tasks to the master; raises if it takes none.
    help
        Does the master's work in place of a wait.
    new_key
        Gives a key and remembers that it is of this mapping.
    """

    def __init__(
        self,
        function: Function,
        mode: int,
        source: Iterator[Any],
        *,
        packer: Packer,
        n_workers: int,
        is_background: bool,
        ordered: bool,
        most: int | None,
        give: Callable[[Tasks], None],
        help: Callable[[Callable[[], bool], float], None],
        new_key: Callable[[Mapping], int],
        ended: Callable[[Mapping], None],
    ) -> None:
        self._function, self._mode, self._source = function, mode, source
        self._packer, self._n_workers = packer, n_workers
        self.is_background = is_background
        self._ordered = ordered
        self._most = most
        self._give, self._new_key, self._tell_ended = give, new_key, ended
        self._help = help
        self._lock = RLock()  # taken as it is: where a signal breaks off Condition.__enter__, it is kept
        self._changed = Condition(self._lock)
        self._runs: dict[int, tuple[int, int]] = {}  # key -> first of its tasks, how many are to come
        self._ready: dict[int, Batch] = {}  # by the first of their tasks
        self._arrived: deque[Batch] = deque()  # unordered
        self._n_given = self._n_delivered = self._next = self._n_taken = 0
        self._mean_s: float | None = None
        self._mean_bytes = 0.0
        self._error: BaseException | None = None
        self._input_error: BaseException | None = None
        self._feeder: int | None = None  # the thread that advances the input now
        self.is_exhausted = self.is_started = self.is_dropped = self._is_over = False
        self._is_stopped = self._is_cut = False

    # ---------------------------------------------------------------------- input

    def feed(self) -> None:
        """Make tasks of the input as far as there is room for them."""
        while not self.is_exhausted:
            n = self._room()
            if n <= 0 or not self._advance(n):
                return

    def _room(self) -> int:
        """How many tasks more there may be."""
        mean_s = self._mean_s
        each = LEAST_AHEAD if mean_s is None else max(LEAST_AHEAD, AHEAD_S / max(mean_s, _LEAST_S))
        most = min(MOST_AHEAD, int(each * self._n_workers))
        if self._mean_bytes * most > MOST_BYTES:
            most = max(self._n_workers + 1, int(MOST_BYTES / self._mean_bytes))
        n_there = self._n_given - (self._n_delivered if self.is_background else self._n_taken)
        if self._most is not None:
            most = min(most, self._most)
        n = most - n_there
        return n if 4 * n >= most else 0  # not one by one

    def _advance(self, n: int) -> bool:
        """Make at most so many tasks; False if there were none, or the input is being advanced already.

        That is without the lock: the user's iterator may wait for whatever it likes, results of this very
        executor included.
        """
        is_ours = False
        try:
            with self._lock:
                if self._feeder is not None or self.is_exhausted:
                    return False
                is_ours, self._feeder = True, get_ident()
            return self._make_tasks(min(n, 4096))
        finally:
            if is_ours:
                self._feeder = None
                with self._lock:
                    self._changed.notify_all()

    def _make_tasks(self, n: int) -> bool:
        batch, error = empty_batch(), None
        try:
            self._fill(batch, n)
        except Exception as failure:  # whatever the user's iterator raises, or an argument that is pickled
            error = failure
        with self._lock:
            if self.is_exhausted:  # meanwhile: nobody wants them any more
                return False
            if len(batch) < n:
                self.is_exhausted, self._input_error = True, error
            if not len(batch):
                self._end_if_done()
                return False
            self._mean_bytes = max(mean_bytes(batch), 0.7 * self._mean_bytes)
            key = self._new_key(self)
            self._runs[key] = self._n_given, len(batch)
            self._n_given += len(batch)
        self._give(Tasks(key, self._function, self._mode, batch, False))
        return True

    def _fill(self, batch: Batch, n: int) -> None:
        """Add the next arguments, packed, at most so many; those before one that fails are there.

        What a generator gives it may change before it gives the next, so that is packed by then. If the
        first is a number or the like the others are taken for that, and all at once: it takes less time.
        """
        if not self.is_background and not self._fill_at_once(batch, 1):
            return
        if any(batch.flags):
            for value in islice(self._source, n - 1):
                batch.append(self._packer.pack(value, "an argument"))
        else:
            self._fill_at_once(batch, n - len(batch))

    def _fill_at_once(self, batch: Batch, n: int) -> int:
        """Add so many, all of which are made before the first is packed; give how many there were."""
        values: list[Any] = []
        try:
            values.extend(islice(self._source, n))
        finally:
            self._packer.pack_all(values, "an argument", are_tuples=self._mode != 0, into=batch)
        return len(values)

    # -------------------------------------------------------- the master's thread

    def started(self) -> bool:
        """Tasks are handed out; False if they are not wanted any more."""
        return not (self._is_over or self._is_stopped)

    def take(self, key: int, offset: int, batch: Batch, busy_s: float) -> int:
        """Results are there; give how many of that key are still to come."""
        n = len(batch)
        with self._lock:
            first, n_left = self._runs[key]
            n_left -= n
            self._runs[key] = first, n_left
            if not n_left:
                del self._runs[key]
            self._n_delivered += n
            mean_s = busy_s / n
            self._mean_s = (
                mean_s if self._mean_s is None else self._mean_s + _MEMORY * (mean_s - self._mean_s)
            )
            if self.is_dropped or self._is_over:
                pass
            elif self._ordered:
                self._ready[first + offset] = batch
                if first + offset == self._next:
                    self._changed.notify_all()
            else:
                self._arrived.append(batch)
                self._changed.notify_all()
            self._end_if_done()
        if self.is_background and not self.is_exhausted:
            try:
                self.feed()
            except BaseException as error:  # the program's input is no reason to end the executor
                self.end_input(error)
        return n_left

    def end_input(self, error: BaseException) -> None:
        """Take no more input; whoever takes results gets those of the tasks that are, and then an error."""
        with self._lock:
            if not self.is_exhausted:
                self._input_error, self.is_exhausted = error, True
                self._end_if_done()

    def _end_if_done(self) -> None:
        if self.is_exhausted and not self._runs:
            self._changed.notify_all()
            self._tell_ended(self)

    def failed(self, error: BaseException) -> None:
        """There will be no more results."""
        with self._lock:
            self._error = self._error or error
            self._changed.notify_all()

    # -------------------------------------------------------------------- results

    def results(self, until: float | None, owner: object = None) -> Iterator[Any]:
        """The results, one after another, until that time (monotonic seconds); `owner` is kept so long."""
        self.is_started = True
        try:
            while True:
                batch = self._next_batch(until)
                if batch is None:
                    return
                if batch.is_plain:
                    yield from batch.values
                    continue
                for flag, packed in zip(batch.flags, batch.values, strict=True):
                    if flag == ERROR:
                        raise unpack(flag, packed)
                    if flag == NOTHING:
                        raise CancelledError
                    yield unpack(flag, packed)  # no name here: the result is the caller's alone
        finally:
            self.abandon()

    def _next_batch(self, until: float | None) -> Batch | None:
        """The next results, as many as there are together; None at the end."""
        while True:
            if not self.is_exhausted:
                self.feed()
            with self._lock:
                batch = self._ready.pop(self._next, None) if self._ordered else self._first_arrived()
                if batch is not None:
                    self._next += len(batch)
                    self._n_taken += len(batch)
                    return batch
                if self.is_exhausted and not self._runs:
                    if self._is_cut:
                        raise CancelledError
                    if self._input_error is not None:
                        raise self._input_error
                    return None
                if self._error is not None:
                    raise self._error
            self._wait(inf if until is None else until)

    def _wait(self, until: float) -> None:
        """Wait for the next results.

        Raises
        ------
        TimeoutError
            They do not come by that time.
        """
        self._help(self._has_news, until)
        with self._lock:
            while not self._has_news():
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise FutureTimeoutError
                self._changed.wait(None if left_s == inf else left_s)

    def _has_news(self) -> bool:
        """Whether there is something to be looked at."""
        return bool(
            self._next in self._ready
            or self._arrived
            or (not self._runs and self._feeder is None)
            or self._error is not None
        )

    def _first_arrived(self) -> Batch | None:
        if not self._arrived:
            return None
        whole = empty_batch()
        while self._arrived:
            whole.extend(self._arrived.popleft())
        return whole

    def abandon(self) -> None:
        """Nobody takes any more results."""
        with self._lock:
            self._is_over = self.is_exhausted = True
            self._ready.clear()
            self._arrived.clear()
            self._end_if_done()

    def cut_off(self) -> None:
        """Make no more calls than were handed out; whoever takes results gets these and then an error."""
        with self._lock:
            self._is_stopped, self._is_cut = True, not self.is_exhausted
            self.is_exhausted = True
            self._end_if_done()

    def drop_results(self) -> None:
        """Nobody can take the results: the iterator was thrown away. The calls are made all the same."""
        with self._lock:
            self.is_dropped = True
            self._ready.clear()
            self._arrived.clear()

    @property
    def is_promised(self) -> bool:
        """Whether its calls are made though nobody takes the results, as by `concurrent.futures`."""
        return self.is_background or not (self.is_started or self._most is not None)

    @property
    def unseen_error(self) -> BaseException | None:
        """What the input raised, if nobody has begun to take the results."""
        return None if self.is_started else self._input_error

    def finish(self) -> None:
        """Make tasks of all the input, waiting for room where it is long."""
        while not (self.is_exhausted or self._error is not None or self._feeder == get_ident()):
            n = self._room()
            if n <= 0 and self._n_given - self._n_delivered <= MOST_AHEAD // 2:
                n = 1024
            if n <= 0 or not self._advance(n):
                with self._lock:
                    self._changed.wait(0.05)
