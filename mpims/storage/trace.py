r"""The trace of a run: what each delivered part cost, as it can be read back.

Format
------
A file is 8 bytes of magic, ``b"MPIMST\r\n"``, the version of the format (u32), the size of a record in
bytes (u32), and records, `PART`, one for each part of a chunk that was delivered, in the order of their
delivery; all numbers are little-endian:

============  =====  ===========================================================================
field         type   meaning
============  =====  ===========================================================================
rank          i4     who computed it
attempt       i8     the number of the attempt that it is a part of
start, stop   i8     its items, ``[start, stop)``: whole blocks
busy_s        f8     seconds in the kernel
squares_s2    f8     the sum of the squares of the blocks' times in the kernel, in square seconds
service_s     f8     seconds that the master spent on it, the next hand-out included
============  =====  ===========================================================================
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpims.errors import UsageError
from mpims.runtime.wire import RESULTS

TRACE = "trace"
MAGIC = b"MPIMST\r\n"
FORMAT = 1
"""Version of the trace's format."""
MOST_BYTES = 64 << 20
"""A trace does not grow beyond this: more than a million parts."""
_MOST_WAITING = 1000
HEAD = struct.Struct("<8sII")  # magic, version, size of a record

PART = np.dtype(
    [
        ("rank", "<i4"),
        ("attempt", "<i8"),
        ("start", "<i8"),
        ("stop", "<i8"),
        ("busy_s", "<f8"),
        ("squares_s2", "<f8"),
        ("service_s", "<f8"),
    ]
)
"""A record: one delivered part."""


def encode_head() -> bytes:
    """What a trace begins with."""
    return HEAD.pack(MAGIC, FORMAT, PART.itemsize)


class TraceWriter:
    """Adds to the trace of a run; no run ends or waits for its sake.

    When it has grown to `MOST_BYTES`, or the disk takes no more, it is left as it is.

    Parameters
    ----------
    folder
        The run directory; a trace that is there is gone on with.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRACE
        self._messages: list[tuple[int, bytes, float]] = []
        self._descriptor = -1
        self._room = MOST_BYTES
        try:
            self._open()
        except OSError:
            self._give_up()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._descriptor).st_size
        whole = size - (size - HEAD.size) % PART.itemsize
        if os.pread(self._descriptor, HEAD.size, 0) != encode_head():
            os.ftruncate(self._descriptor, 0)
            whole = os.write(self._descriptor, encode_head())
        elif whole < size:  # it died over a record
            os.ftruncate(self._descriptor, whole)
        self._room = MOST_BYTES - whole

    def add(self, rank: int, results: bytes, service_s: float) -> None:
        """Add what one message delivered.

        Parameters
        ----------
        rank
            Who sent it.
        results
            Records of `mpims.runtime.wire.RESULTS`.
        service_s
            Seconds that the master spent on it.
        """
        if self._descriptor >= 0:
            self._messages.append((rank, results, service_s))
            if len(self._messages) >= _MOST_WAITING:
                self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if self._descriptor < 0 or not self._messages:
            return
        ranks, results, service_s = zip(*self._messages, strict=True)
        self._messages = []
        counts = [len(its) // RESULTS.itemsize for its in results]
        delivered = np.frombuffer(b"".join(results), RESULTS)
        parts = np.empty(len(delivered), PART)
        for name in ("attempt", "start", "stop", "busy_s", "squares_s2"):
            parts[name] = delivered[name]
        parts["rank"] = np.repeat(ranks, counts)
        parts["service_s"] = np.repeat(np.divide(service_s, counts), counts)
        try:
            self._room -= os.write(self._descriptor, parts.tobytes())
        except OSError:
            self._room = 0
        if self._room <= 0:
            self._give_up()

    def close(self) -> None:
        """Write the rest, and close the file."""
        self.flush()
        self._give_up()

    def _give_up(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def read_trace(folder: Path) -> NDArray[np.void]:
    """Read the trace of a run.

    Parameters
    ----------
    folder
        The run directory.

    Returns
    -------
    ndarray, shape (n_parts,), dtype `PART`

    Raises
    ------
    UsageError
        There is none, it cannot be read, is of another version, or was cut.
    """
    path = folder / TRACE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no trace in {folder}: there is no {path.name}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    _check_head(content[: HEAD.size], path)
    n_left = (len(content) - HEAD.size) % PART.itemsize
    if n_left:
        raise UsageError(
            f"{path} was cut: its last record has {n_left} bytes of {PART.itemsize}; copy it again, or cut "
            f"it to {len(content) - n_left} bytes to do without that record"
        )
    return np.frombuffer(content, PART, offset=HEAD.size)


def _check_head(head: bytes, path: Path) -> None:
    if len(head) < HEAD.size:
        raise UsageError(f"{path} was cut: it has {len(head)} bytes of a head of {HEAD.size}")
    magic, version, size = HEAD.unpack(head)
    if magic != MAGIC:
        raise UsageError(f"{path} is no trace: it begins with {magic!r} instead of {MAGIC!r}")
    if version != FORMAT:
        raise UsageError(
            f"{path} has format {version}, this mpims reads format {FORMAT}: use the version that wrote it"
        )
    if size != PART.itemsize:
        raise UsageError(
            f"{path} is damaged: records of {size} bytes, in format {FORMAT} they have {PART.itemsize}"
        )
