"""Memory for what arrives: not zeroed, and used again when nobody has the arrays in it any more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpims.runtime.buffers import LEAST_BYTES, Buffers
from mpims.runtime.wire import Kind

_BYTE = np.dtype(np.uint8)


class Receiving:
    """As `mpims.runtime.transport.base.Place`, for messages of any kind.

    Parameters
    ----------
    most_bytes
        So much is kept at the most.
    """

    def __init__(self, most_bytes: int) -> None:
        self._buffers = Buffers(most_bytes)

    def place(self, source: int, kind: Kind, head: bytes, sizes: Sequence[int]) -> list[memoryview]:
        """Memory for the buffers of a message."""
        return [
            self._buffers.empty((size,), _BYTE).data if size >= LEAST_BYTES else memoryview(bytearray(size))
            for size in sizes
        ]
