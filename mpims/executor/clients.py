"""Those who wait for results: futures and mappings, by the keys of their tasks.

The master's thread knows these and not the executor, so that an executor which the program has dropped
is shut down, and ends.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count

from mpims.errors import MpimsError, Stopped
from mpims.executor.cargo import Batch
from mpims.executor.errors import ExecutorBroken
from mpims.executor.futures import TaskFuture
from mpims.executor.mapping import Mapping
from mpims.executor.orders import Cancel, CancelRest, Close, Link, Nowhere, Order

_LEFT = "cannot schedule new futures after shutdown, which came before all input was taken"


class Clients:
    """As `mpims.executor.orders.Customer`.

    Attributes
    ----------
    link
        The way to the master, once there is one.
    mappings
        Those whose results are still to come.
    is_closed, has_ended
        Whether calls are still taken; whether nothing more will come.
    error
        What ended the executor, if not that it was shut down.
    shared
        Descriptors of memory that ranks map.
    """

    link: Link
    _keys = count()  # of all executors: a handle of an earlier one is not to stand for a value of this

    def __init__(self) -> None:
        self._sinks: dict[int, TaskFuture | Mapping] = {}
        self.mappings: set[Mapping] = set()
        self.is_closed = self.has_ended = self._is_close_given = False
        self.error: ExecutorBroken | None = None
        self.shared: list[int] = []

    def key(self) -> int:
        """A number that was not used before."""
        return next(self._keys)

    def new_future(self) -> tuple[int, TaskFuture]:
        """A new key, and the future that its result goes to."""
        key = next(self._keys)
        future = self._sinks[key] = TaskFuture(self, key)
        return key, future

    def key_for(self, mapping: Mapping) -> int:
        """A new key for tasks of a mapping."""
        key = next(self._keys)
        self._sinks[key] = mapping
        return key

    def give(self, order: Order) -> None:
        """Pass an order on to the master."""
        self.link.give(order)
        if self.has_ended:  # it may have ended in between: nobody would tell
            self._fail_all()

    def cancelled(self, key: int) -> None:
        """A future was cancelled."""
        self.link.give(Cancel(key))

    def finish(self) -> None:
        """See to it that all calls are made that were asked for, and close.

        Of a generator whose results are being taken, and of what `buffersize` limits, no more is taken.

        Raises
        ------
        Exception
            What an input raised of which nobody has looked at the results.
        """
        if self.is_closed:
            return
        mappings = list(self.mappings)
        try:
            for mapping in mappings:
                if mapping.is_promised:
                    mapping.finish()
            unseen = [error for mapping in mappings if (error := mapping.unseen_error) is not None]
        finally:
            for mapping in list(self.mappings):
                mapping.end_input(RuntimeError(_LEFT))
            self.close()
        if unseen:
            raise unseen[0]

    def close(self) -> None:
        """Take no more calls; the master ends when all are done, those of a list yet to come included."""
        if not self.is_closed:
            self.is_closed = True
            for mapping in list(self.mappings):
                if not mapping.is_background:
                    mapping.end_input(RuntimeError(_LEFT))
            self._close_if_given()

    def cancel(self) -> None:
        """Cancel what was not handed out, and close."""
        self.link.give(CancelRest())
        self.is_closed = True
        self._close_if_given()

    def mapping_ended(self, mapping: Mapping) -> None:
        """All its results are there; that its input failed is to be told in `finish`, if not before."""
        if mapping.unseen_error is None:
            self.mappings.discard(mapping)
        if self.is_closed:
            self._close_if_given()

    def _close_if_given(self) -> None:
        """Let the master end, once there is nothing more to give it."""
        if not self._is_close_given and all(mapping.is_exhausted for mapping in list(self.mappings)):
            self._is_close_given = True
            self.link.give(Close())

    def disown(self) -> None:
        """Leave all to the program: this is a child that was forked of it."""
        self.is_closed = self.has_ended = True
        self.error = ExecutorBroken("the executor is of the process that this one was forked of")
        self.link = Nowhere()

    def broken(self) -> ExecutorBroken:
        """What ended the executor, for one caller: an error that all raise has the tracebacks of all."""
        if self.error is None:
            return ExecutorBroken("the executor has ended")
        return ExecutorBroken(self.error.message, self.error.detail)

    # -------------------------------------------------------- the master's thread

    def started(self, key: int) -> bool:
        """Tasks are handed out for the first time; False if they are not wanted any more."""
        sink = self._sinks.get(key)
        return sink is not None and sink.started()

    def delivered(self, key: int, offset: int, batch: Batch, busy_s: float) -> None:
        """Results are there."""
        sink = self._sinks.get(key)
        if isinstance(sink, TaskFuture):
            del self._sinks[key]
            sink.delivered(batch)
        elif sink is not None and not sink.take(key, offset, batch, busy_s):
            self._sinks.pop(key, None)

    def cancel_rest(self) -> None:
        """Cancel all that was not handed out."""
        for sink in {*self._sinks.values(), *self.mappings}:
            if isinstance(sink, TaskFuture):
                sink.cancel()
            else:
                sink.cut_off()

    def ended(self, error: MpimsError | None) -> None:
        """Nothing more will come."""
        if error is not None and not isinstance(error, ExecutorBroken):
            how = "was ended at once" if isinstance(error, Stopped) else f"has failed: {error.message}"
            error = ExecutorBroken(f"the executor {how}", error.detail)
        self.error = error
        self.has_ended = True
        while self.shared:
            os.close(self.shared.pop())
        self._fail_all()

    def _fail_all(self) -> None:
        for mapping in list(self.mappings):
            mapping.failed(self.broken())
        while self._sinks:
            with suppress(KeyError):
                _, sink = self._sinks.popitem()
                sink.failed(self.broken())
