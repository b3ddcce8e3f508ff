"""What a commit says, as a record of the journal: which items, their results, what of them was given up."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import NamedTuple

from mpims.core.chunks import Range
from mpims.storage.records import Buffer, RecordKind

RANGE = struct.Struct("<QQ")
"""Start and stop of a range of items."""

_COUNTS = struct.Struct("<II")  # number of ranges, number of buffers
_SIZE = struct.Struct("<Q")


class Failure(NamedTuple):
    """An item that was given up; an entry of ``failed.json``.

    Attributes
    ----------
    item
        Its index.
    n_tries
        How often it was tried.
    rank, host
        Where it failed last.
    reason, detail
        The exception or the signal; the traceback.
    """

    item: int
    n_tries: int
    rank: int
    host: str
    reason: str
    detail: str


class Commit(NamedTuple):
    """What `commit_record` was given, read back; the buffers may be changed."""

    ranges: list[Range]
    buffers: list[memoryview]
    failures: list[Failure]


def commit_record(
    ranges: Sequence[Range], buffers: Sequence[Buffer], failures: Sequence[Failure]
) -> tuple[RecordKind, list[Buffer]]:
    """Kind and parts of the record that says what is done.

    All is in one record, so that no damage can lose one without the other.

    Parameters
    ----------
    ranges
        The items.
    buffers
        Their results, if the journal is to keep them.
    failures
        The items among them that were given up.
    """
    kept = list(buffers)
    if failures:
        kept.append(json.dumps([failure._asdict() for failure in failures]).encode())
    parts: list[Buffer] = [_COUNTS.pack(len(ranges), len(kept))]
    parts += [RANGE.pack(*span) for span in ranges]
    parts += [_SIZE.pack(memoryview(buffer).nbytes) for buffer in kept]
    kind = RecordKind.SKIPPED if failures else RecordKind.DONE
    return kind, [b"".join(parts), *kept]


def parse_ranges(payload: memoryview) -> list[Range]:
    """The ranges of a commit, without the rest."""
    n_ranges, _ = _COUNTS.unpack_from(payload)
    return [RANGE.unpack_from(payload, _COUNTS.size + i * RANGE.size) for i in range(n_ranges)]


def parse_commit(kind: RecordKind, payload: memoryview) -> Commit:
    """Read a record of kind DONE or SKIPPED."""
    n_ranges, n_buffers = _COUNTS.unpack_from(payload)
    ranges = parse_ranges(payload)
    at = _COUNTS.size + n_ranges * RANGE.size
    sizes = [_SIZE.unpack_from(payload, at + i * _SIZE.size)[0] for i in range(n_buffers)]
    at += n_buffers * _SIZE.size
    buffers: list[memoryview] = []
    for size in sizes:
        buffers.append(memoryview(bytearray(payload[at : at + size])))
        at += size
    failures: list[Failure] = []
    if kind is RecordKind.SKIPPED:
        failures = [Failure(**entry) for entry in json.loads(bytes(buffers.pop()))]
    return Commit(ranges, buffers, failures)
