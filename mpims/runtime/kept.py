"""What a worker has sent and keeps for a while: a master that dies may not have written it down."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mpims.runtime.wire import Buffer, Kind

KEPT_BYTES = 16 << 20
"""Messages are kept up to this, and at least the last two ..."""
KEPT_MESSAGES = 256
"""... but no more than so many."""


class Sent(NamedTuple):
    """A message to the master that may have to be sent again."""

    kind: Kind
    head: bytes
    buffers: Sequence[Buffer]
    n_bytes: int


class KeptMessages:
    """The last messages, in order.

    Attributes
    ----------
    n_bytes
        Bytes of their buffers.
    """

    def __init__(self) -> None:
        self._all: deque[Sent] = deque()
        self.n_bytes = 0

    def __iter__(self) -> Iterator[Sent]:
        return iter(list(self._all))

    def add(self, kind: Kind, head: bytes, buffers: Sequence[Buffer]) -> None:
        """Keep one more."""
        n_bytes = sum([memoryview(buffer).nbytes for buffer in buffers])
        self._all.append(Sent(kind, head, buffers, n_bytes))
        self.n_bytes += n_bytes

    def trim(self) -> None:
        """Forget the oldest as far as there are too many."""
        kept = self._all
        while len(kept) > 2 and (self.n_bytes > KEPT_BYTES or len(kept) > KEPT_MESSAGES):
            dropped = kept.popleft()
            self.n_bytes -= dropped.n_bytes
            if dropped.kind is Kind.SKIPPED:  # without it the results behind it would look whole
                self.n_bytes -= kept.popleft().n_bytes

    def clear(self) -> None:
        """Forget them all."""
        self._all.clear()
        self.n_bytes = 0
