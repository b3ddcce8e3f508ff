"""Memory for large arrays that are sent or received, used again.

Memory that is new costs more than the copy into it: a page is zeroed when it is touched first, one fault
for every 4 KiB.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

LEAST_BYTES = 1 << 16
"""Smaller arrays come from the heap, which keeps what was freed."""
MOST_BYTES = 64 << 20
"""So much is kept at the most, unless told otherwise, ..."""
MOST_KEPT = 64
"""... and so many, for each is looked at when memory is wanted; ..."""
LEAST_KEPT = 3
"""... but so many of any size: one is filled while one is sent, or written, and one before is kept."""

_REFERENCES = 2
"""That of the list and that of the call that counts them: nobody else has an array in this memory."""


class Buffers:
    """Arrays in memory that no other array lies in any more.

    Parameters
    ----------
    most_bytes
        So much is kept at the most, and no more than was in use at once.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._all: list[npt.NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """An array with anything in it.

        Parameters
        ----------
        shape, dtype
            Its form; no Python objects.
        """
        n_bytes = dtype.itemsize
        for length in shape:
            n_bytes *= length
        memory = self._memory(n_bytes) if n_bytes >= LEAST_BYTES else None
        array: npt.NDArray[Any] = np.ndarray(shape, dtype, memory)
        return array

    def copy(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A copy in C order."""
        if array.nbytes < LEAST_BYTES:
            copied: npt.NDArray[Any] = array.copy()
        else:
            copied = self.empty(array.shape, array.dtype)
            np.copyto(copied, array)
        return copied

    def _memory(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        buffers = self._all
        for i in range(len(buffers)):
            if n_bytes <= buffers[i].nbytes <= 2 * n_bytes and sys.getrefcount(buffers[i]) == _REFERENCES:
                return buffers[i]
        memory = np.empty(n_bytes, np.uint8)
        buffers.append(memory)
        n_kept = sum([buffer.nbytes for buffer in buffers])
        while len(buffers) > LEAST_KEPT and (n_kept > self._most_bytes or len(buffers) > MOST_KEPT):
            n_kept -= buffers.pop(0).nbytes
        return memory
