"""A block that failed as a whole, tried one item at a time: which of its items are at fault?"""

from __future__ import annotations

from typing import Any

from mpims.core.chunks import Range
from mpims.runtime.wire import SkippedItem


class ItemwiseBlock:
    """What is known of the items of one block.

    Every item is tried alone, as often as may be. Where none fails so, the whole block gets a last try,
    because a kernel may give other last bits for a block than for its items; only if that fails too
    do the results of the items count.

    Parameters
    ----------
    start, stop
        The block.
    n_tries
        How often an item may fail before it is given up.
    """

    def __init__(self, start: int, stop: int, n_tries: int) -> None:
        self._block = (start, stop)
        self._next = start
        self._n_tries = n_tries
        self._n_failed = 0  # tries of the item `_next`
        self._whole_is_tried = False
        self.results: dict[int, Any] = {}
        self.skipped: list[SkippedItem] = []
        self.whole: Any = None

    def upcoming(self) -> list[Range]:
        """What is to be computed next, in order; nothing once all is known."""
        start, stop = self._block
        if self._next < stop:
            return [(item, item + 1) for item in range(self._next, stop)]
        if self.skipped or self._whole_is_tried:
            return []
        return [(start, stop)]

    def done(self, computed: Range, results: Any) -> None:
        """One of them went well."""
        if computed == self._block:
            self._whole_is_tried = True
            self.whole = results
        else:
            self.results[self._next] = results
            self._go_on()

    def failed(self, computed: Range, reason: str, detail: str) -> None:
        """One of them failed."""
        if computed == self._block:
            self._whole_is_tried = True
            return
        self._n_failed += 1
        if self._n_failed >= self._n_tries:
            self.skipped.append(SkippedItem(self._next, self._n_failed, reason, detail))
            self._go_on()

    def _go_on(self) -> None:
        self._next += 1
        self._n_failed = 0
