r"""The records of a journal, as bytes.

Format
------
A file is 8 bytes of magic, ``b"MPIMSJ\r\n"``, and records, each a head of 20 bytes and its payload; all
numbers are little-endian:

=========  =====  ==============================================================================
bytes      type   meaning
=========  =====  ==============================================================================
0 … 3      4s     the marker ``b"\xa5MJR"``
4          u8     the kind, a `RecordKind`
5          u8     0
6 … 7      u16    the epoch of the process that wrote it, modulo 65536
8 … 15     u64    length of the payload
16 … 19    u32    CRC-32 of bytes 4 … 15 and the payload
=========  =====  ==============================================================================

Each process that opens the journal begins a new *epoch* with an OPENED record, which says who it is. The
payload of OPENED (JSON) and that of SYNCED (u64) are this file's; all others are the caller's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import TypeAlias
from zlib import crc32

MAGIC = b"MPIMSJ\r\n"
FORMAT = 1
"""Version of the journal's format."""

Buffer: TypeAlias = bytes | bytearray | memoryview

MARKER = b"\xa5MJR"
HEAD = struct.Struct("<4sBxHQI")
CHECKED = struct.Struct("<BxHQ")  # bytes 4 … 15 of the head, which the checksum covers
CHECKSUM = struct.Struct("<I")
POSITION = struct.Struct("<Q")
EPOCHS = 1 << 16  # that a head can tell apart


class RecordKind(IntEnum):
    """What a record speaks of."""

    OPENED = 1
    """A process has opened the journal and begins an epoch."""
    DONE = 2
    """Items are done, and their results are in place."""
    SKIPPED = 3
    """Items are given up."""
    STATS = 4
    """Something to count or to know, of which no result depends."""
    SYNCED = 5
    """The results of all records before a position are on disk."""
    CLOSED = 6
    """The run ended."""
    ASSIGNED = 7
    """Items were handed out: what is found so, and not done, was under way when everything died."""
    HEAD = 8
    """The head of the file of results as it was made."""


KIND_OF = {int(kind): kind for kind in RecordKind}  # faster than RecordKind(number)
OPAQUE_KINDS = KIND_OF.keys() - {RecordKind.OPENED, RecordKind.SYNCED}
RESULT_KINDS = (RecordKind.DONE, RecordKind.SKIPPED)


def encode_record(kind: RecordKind, epoch: int, parts: Sequence[Buffer]) -> tuple[list[Buffer], int]:
    """The bytes of a record, and how many they are."""
    n_bytes = sum([memoryview(part).nbytes for part in parts])
    checked = CHECKED.pack(kind, epoch % EPOCHS, n_bytes)
    checksum = crc32(checked)
    for part in parts:
        checksum = crc32(part, checksum)
    return [MARKER + checked + CHECKSUM.pack(checksum), *parts], HEAD.size + n_bytes


def check_record(view: memoryview, at: int) -> tuple[int, int, int] | None:
    """Kind, epoch and end of the record at a byte; None if there is no valid one."""
    start = at + HEAD.size
    if start > len(view):
        return None
    marker, kind, epoch, n_bytes, checksum = HEAD.unpack_from(view, at)
    stop = start + n_bytes
    if marker != MARKER or stop > len(view):
        return None
    if crc32(view[start:stop], crc32(view[at + 4 : at + 16])) != checksum:
        return None
    return kind, epoch, stop


def find_fault(view: memoryview, at: int) -> str:
    """In which way there is no valid record at a byte."""
    start = at + HEAD.size
    if start > len(view):
        return f"incomplete ({len(view) - at} bytes of a head of {HEAD.size})"
    marker, kind, _, n_bytes, checksum = HEAD.unpack_from(view, at)
    if marker != MARKER:
        return f"damaged (it begins with {marker!r} instead of {MARKER!r})"
    if n_bytes > len(view) - start:
        return f"incomplete or damaged (a payload of {n_bytes} bytes, where {len(view) - start} follow)"
    found = crc32(view[start : start + n_bytes], crc32(view[at + 4 : at + 16]))
    if found != checksum:
        return f"damaged (checksum {found:#010x} instead of {checksum:#010x})"
    return f"of kind {kind}"
