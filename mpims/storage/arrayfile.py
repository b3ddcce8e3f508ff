"""The file of a gathered array: made in its full size, then filled piece by piece.

Pieces are written, not mapped: a page that is new costs a mapped write more than the copy into it, a disk
that has filled up is an error and no signal, and file systems that many nodes share are made for writes.
Large pieces are written in a thread, so that whoever hands out work is not held up by a slow disk.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

LARGE_BYTES = 1 << 20
"""Pieces from this size on are written in the background: to wake a thread costs as much as less."""
MOST_WAITING_BYTES = 64 << 20
"""So much may wait to be written before `write` waits itself."""


class ArrayFile:
    """A ``.npy`` file that is being filled, by one thread of one process.

    Made by `create` or `reopen`.

    Parameters
    ----------
    path
        Where it is.
    dtype, shape
        Of the whole array, in C order; it has at least one byte.
    offset
        Where its first byte is.

    Attributes
    ----------
    n_given
        Large pieces that were given so far.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> None:
        self.path, self.dtype, self.shape = path, dtype, shape
        self.n_given = 0
        self._row_bytes = prod(shape[1:]) * dtype.itemsize
        self._offset = offset
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._background: _Background | None = None

    @classmethod
    def create(cls, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> ArrayFile:
        """Make the file in its full size: whether there is room for it is known at once.

        Raises
        ------
        OSError
            It cannot be made; nothing is left of it.
        """
        try:
            array = np.lib.format.open_memmap(path, "w+", dtype, shape)
            file = cls(path, dtype, shape, array.offset)
            os.posix_fallocate(file._descriptor, 0, path.stat().st_size)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return file

    @classmethod
    def reopen(cls, path: Path) -> ArrayFile | None:
        """Go on with a file that an earlier process has left; None if that is not a whole one.

        Raises
        ------
        OSError, ValueError
            It cannot be read, or is no ``.npy`` file.
        """
        n_bytes = path.stat().st_size
        array = np.lib.format.open_memmap(path, "r+")
        if not array.nbytes or n_bytes < array.offset + array.nbytes:  # NumPy fills up what is missing
            return None
        return cls(path, array.dtype, array.shape, array.offset)

    @property
    def head(self) -> bytes:
        """The bytes before the array, which say its dtype and shape."""
        return os.pread(self._descriptor, self._offset, 0)

    def write(self, row: int, rows: memoryview) -> None:
        """Write rows to their place, at once or soon; nobody may change them any more.

        Raises
        ------
        OSError
            They, or some before, cannot be written.
        """
        at = self._offset + row * self._row_bytes
        if rows.nbytes < LARGE_BYTES:
            _write(self._descriptor, rows, at)
            return
        if self._background is None:
            self._background = _Background(self._descriptor)
        self._background.give(rows, at)
        self.n_given += 1

    @property
    def n_written(self) -> int:
        """How many of the large pieces are in their place: the first ones.

        Raises
        ------
        OSError
            One cannot be written.
        """
        if self._background is None:
            return 0
        self._background.raise_failure()
        return self._background.n_written

    def finish(self) -> None:
        """Wait until everything is in its place.

        Raises
        ------
        OSError
            Something cannot be written.
        """
        if self._background is not None:
            self._background.finish()

    def sync(self) -> None:
        """Force to the disk what is in its place; may be called from another thread."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close it; what waits is still written, but nobody waits for that."""
        if self._background is not None:
            self._background.leave()
        os.close(self._descriptor)


class _Background:
    """Writes in the order in which they are given, in a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)  # once the file is closed, its number may be reused
        self._waiting: deque[tuple[memoryview, int]] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._is_left = False
        self._failure: OSError | None = None
        self.n_written = 0
        threading.Thread(target=self._run, name="mpims-results", daemon=True).start()

    def give(self, rows: memoryview, at: int) -> None:
        with self._changed:
            while self._waiting and self._waiting_bytes + rows.nbytes > MOST_WAITING_BYTES:
                self.raise_failure()
                self._changed.wait()
            self.raise_failure()
            self._waiting.append((rows, at))
            self._waiting_bytes += rows.nbytes
            self._changed.notify_all()

    def finish(self) -> None:
        with self._changed:
            while self._waiting and self._failure is None:
                self._changed.wait()
            self.raise_failure()

    def leave(self) -> None:
        with self._changed:
            self._is_left = True
            self._changed.notify_all()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while self._write_next():
                pass
        except OSError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            os.close(self._descriptor)

    def _write_next(self) -> bool:
        """Write one; False once all is written and nothing more will come."""
        with self._changed:
            while not self._waiting:
                if self._is_left:
                    return False
                self._changed.wait()
            rows, at = self._waiting[0]
        _write(self._descriptor, rows, at)
        with self._changed:
            self._waiting.popleft()
            self._waiting_bytes -= rows.nbytes
            self.n_written += 1
            self._changed.notify_all()
        return True  # the memory of the rows is free to be used again


def _write(descriptor: int, rows: memoryview, at: int) -> None:
    n = os.pwrite(descriptor, rows, at)
    while n < rows.nbytes:  # a file system may take a part
        n += os.pwrite(descriptor, rows[n:], at + n)
