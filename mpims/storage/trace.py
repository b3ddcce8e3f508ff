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

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpims.errors import UsageError

TRACE = "trace"
MAGIC = b"MPIMST\r\n"
FORMAT = 1
"""Version of the trace's format."""
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
