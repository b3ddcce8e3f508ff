r"""The trace of a run: what was handed out, what came back and when, as it can be read back.

Format
------
A file is 8 bytes of magic, ``b"MPIMST\r\n"``, the version of the format (u32), and blocks; all numbers are
little-endian. A block is its kind (4 bytes), the size of its content in bytes (u32), and the content:

========  =======================================================================================
kind      content
========  =======================================================================================
``NOTE``  a JSON list of events, objects with ``what`` (see `What`), ``t`` and what belongs to it
``SENT``  records, `SENT`: each attempt that was handed out
``PART``  records, `PART`: each part of an attempt that was delivered, in the order of delivery
========  =======================================================================================

A master begins with a `What.BEGAN` of its own; what follows it, up to the next, is its *section*. Times
are seconds of clocks that begin anywhere: the master's for ``t``, ``sent_s`` and ``received_s``, which
differs between sections, and the worker's for ``ended_s``. A file may end within a block, as when its
master was killed, or writes it just now.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpims.errors import UsageError
from mpims.storage.rundir import check_kinds

TRACE = "trace"
MAGIC = b"MPIMST\r\n"
FORMAT = 2
"""Version of the trace's format."""
HEAD = struct.Struct("<8sI")  # magic, version
_MOST_S = 1e30  # on any clock, of a simulation too
BLOCK = struct.Struct("<4sI")  # kind, size of the content in bytes

SENT = np.dtype(
    [
        ("rank", "<i4"),
        ("attempt", "<i8"),
        ("start", "<i8"),
        ("stop", "<i8"),
        ("sent_s", "<f8"),
    ]
)
"""An attempt: to whom, its number and items ``[start, stop)``, and when it was sent."""

PART = np.dtype(
    [
        ("rank", "<i4"),
        ("attempt", "<i8"),
        ("start", "<i8"),
        ("stop", "<i8"),
        ("busy_s", "<f8"),
        ("longest_s", "<f4"),
        ("squares_s2", "<f4"),
        ("service_s", "<f4"),
        ("ended_s", "<f8"),
        ("received_s", "<f8"),
    ]
)
"""A delivered part of an attempt: who computed it, its items ``[start, stop)`` (whole blocks), seconds in
the kernel, the longest block of it and the sum of the squares of its blocks' times, seconds that the master
spent on it with the next hand-out, when its last block ended, and when the master had it."""


class What(str, Enum):
    """What happened, and what else its event says."""

    BEGAN = "began"  # a master: rank, host, cause, n_workers, wall (seconds since 1970)
    JOINED = "joined"  # rank, host
    SUSPECT = "suspect"  # rank: silent past its deadline
    BACK = "back"  # rank: it has spoken
    LOST = "lost"  # rank: it is dead
    FAILED = "failed"  # rank, attempt, start, stop, reason
    SKIPPED = "skipped"  # rank, item, n_tries, reason
    RECALLED = "recalled"  # rank, attempt: to be dropped
    TRIMMED = "trimmed"  # rank, attempt, stop: to be ended there
    HIRED = "hired"  # no rank is left: the master computes
    AWAY = "away"  # duration_s: the master was suspended
    STOPPING = "stopping"  # nothing more is handed out
    DRAINED = "drained"  # rank: it holds nothing more
    POLICY = "policy"  # reason: why the chunks are as long as they are
    FULL = "full"  # the trace takes no more records, but for events
    ENDED = "ended"  # status, reason


_KINDS: dict[What, dict[str, type]] = {
    What.BEGAN: {"rank": int, "n_workers": int, "wall": float},
    **{what: {"rank": int} for what in (What.JOINED, What.SUSPECT, What.BACK, What.LOST, What.DRAINED)},
    What.FAILED: {"rank": int, "attempt": int, "start": int, "stop": int},
    What.SKIPPED: {"rank": int, "item": int, "n_tries": int},
    What.RECALLED: {"rank": int, "attempt": int},
    What.TRIMMED: {"rank": int, "attempt": int, "stop": int},
    What.AWAY: {"duration_s": float},
}
"""What an event must say, for whoever reads it."""


class Cause(str, Enum):
    """Why a master began."""

    STARTED = "started"
    RESUMED = "resumed"
    TAKEN_OVER = "taken over"


class TraceEvent(NamedTuple):
    """Something that happened at `t` of the master's clock; `about` has what belongs to it."""

    what: What
    t: float
    about: dict[str, Any]

    @property
    def rank(self) -> int:
        """The rank that it happened to; -1 if to none."""
        return int(self.about.get("rank", -1))


@dataclass(slots=True)
class Section:
    """What one master wrote.

    Attributes
    ----------
    began : TraceEvent
    sent : ndarray, shape (n_attempts,), dtype `SENT`
    parts : ndarray, shape (n_parts,), dtype `PART`
    events : list of TraceEvent
        The first of them is `began`.
    """

    began: TraceEvent
    sent: NDArray[np.void] = field(default_factory=lambda: np.empty(0, SENT))
    parts: NDArray[np.void] = field(default_factory=lambda: np.empty(0, PART))
    events: list[TraceEvent] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """A trace as it was read; of its end `n_cut_bytes` were not a whole block."""

    sections: list[Section]
    n_cut_bytes: int = 0

    @property
    def parts(self) -> NDArray[np.void]:
        """The delivered parts of all sections, shape (n_parts,), dtype `PART`."""
        return np.concatenate([np.empty(0, PART), *(section.parts for section in self.sections)])


def encode_head() -> bytes:
    """What a trace begins with."""
    return HEAD.pack(MAGIC, FORMAT)


def encode_block(kind: bytes, content: bytes) -> bytes:
    """A block: ``b"NOTE"``, ``b"SENT"`` or ``b"PART"`` with its content."""
    return BLOCK.pack(kind, len(content)) + content


def encode_notes(events: list[dict[str, Any]]) -> bytes:
    """A block of events."""
    return encode_block(b"NOTE", json.dumps(events, default=str).encode())


def split_blocks(content: bytes, path: Path) -> Iterator[tuple[bytes, int, int]]:
    """The kind, start and stop of each whole block's content.

    Raises
    ------
    UsageError
        Something else is between them: the file was damaged, or is not whole.
    """
    sizes = {b"NOTE": 1, b"SENT": SENT.itemsize, b"PART": PART.itemsize}
    at = HEAD.size
    while at + BLOCK.size <= len(content):
        kind, size = BLOCK.unpack_from(content, at)
        if kind not in sizes or size % sizes[kind]:
            raise UsageError(
                f"{path} is damaged: at byte {at} of {len(content)} there is no block of a trace; "
                "was a part of it lost when it was copied?"
            )
        start = at + BLOCK.size
        at = start + size
        if at > len(content):
            return
        yield kind, start, at


def read_trace(folder: Path) -> Trace:
    """Read the trace of a run, live or over, as far as it goes.

    Parameters
    ----------
    folder
        The run directory.

    Raises
    ------
    UsageError
        There is none, it cannot be read, is empty, of another version, or damaged.
    """
    path = folder / TRACE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no trace in {folder}: there is no {path.name}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    check_head(content[: HEAD.size], path)
    found: list[tuple[TraceEvent, dict[bytes, list[NDArray[np.void]]], list[TraceEvent]]] = []
    whole = HEAD.size
    for kind, start, stop in split_blocks(content, path):
        whole = stop
        if kind == b"NOTE":
            for event in _read_notes(content[start:stop], path, start):
                if event.what is What.BEGAN:
                    found.append((event, {b"SENT": [], b"PART": []}, []))
                elif found:
                    found[-1][2].append(event)
        elif found:
            records = np.frombuffer(content[start:stop], SENT if kind == b"SENT" else PART)
            if not _make_sense(records):
                raise UsageError(f"{path} is damaged: at byte {start} there are no records of chunks")
            found[-1][1][kind].append(records)
        if not found:
            raise UsageError(f"{path} is damaged: it does not begin with a master")
    sections = [
        Section(
            began,
            np.concatenate([np.empty(0, SENT), *records[b"SENT"]]),
            np.concatenate([np.empty(0, PART), *records[b"PART"]]),
            [began, *events],
        )
        for began, records, events in found
    ]
    return Trace(sections, len(content) - whole)


def check_records(records: NDArray[np.void], n_items: int, block: int) -> None:
    """Refuse records that no run of so many items in such blocks writes.

    Parameters
    ----------
    records
        Of dtype `SENT` or `PART`.

    Raises
    ------
    UsageError
        There is one.
    """
    starts, stops = records["start"], records["stop"]
    wrong = (starts < 0) | (starts >= stops) | (stops > n_items) | (starts % block != 0)
    if wrong.any():
        its = records[int(np.argmax(wrong))]
        what = "part" if records.dtype == PART else "chunk"
        raise UsageError(
            f"the trace has a {what} [{its['start']}, {its['stop']}), which is not one of {n_items} items "
            f"in blocks of {block}: it is damaged, or of another run"
        )


def _read_notes(content: bytes, path: Path, at: int) -> Iterator[TraceEvent]:
    """The events of a block; those of a kind that is not known are left out."""
    known = {what.value for what in What}
    try:
        for note in json.loads(content):
            if note["what"] in known:
                event = TraceEvent(What(note["what"]), float(note["t"]), note)
                if not abs(event.t) < _MOST_S:
                    raise ValueError
                kinds = _KINDS.get(event.what, {})
                check_kinds(path, note, kinds, () if event.what is What.BEGAN else kinds)
                yield event
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UsageError(f"{path} is damaged: at byte {at} there are no events") from None


def _make_sense(records: NDArray[np.void]) -> bool:
    """Whether records can be what was written: nobody knows it better, for they have no checksum."""
    is_sane = (records["rank"] >= 0) & (records["start"] >= 0) & (records["stop"] > records["start"])
    for name in records.dtype.names or ():
        if name == "squares_s2":
            is_sane &= np.isfinite(records[name]) & (records[name] >= 0.0)
        elif name.endswith("_s"):
            least = 0.0 if name in ("busy_s", "longest_s", "service_s") else -_MOST_S
            is_unknown = np.isnan(records[name]) if name == "ended_s" else False
            is_sane &= ((records[name] >= least) & (records[name] <= _MOST_S)) | is_unknown
    return bool(is_sane.all())


def check_head(head: bytes, path: Path) -> None:
    """Refuse what is no trace, or one of another version.

    Raises
    ------
    UsageError
        It is.
    """
    if not head:
        raise UsageError(f"{path} is empty: the run ended before it wrote anything")
    if len(head) < HEAD.size:
        raise UsageError(f"{path} was cut: it has {len(head)} bytes of a head of {HEAD.size}")
    magic, version = HEAD.unpack(head)
    if magic != MAGIC:
        raise UsageError(f"{path} is no trace: it begins with {magic!r} instead of {MAGIC!r}")
    if version != FORMAT:
        raise UsageError(
            f"{path} has format {version}, this mpims reads format {FORMAT}: use the version that wrote it"
        )
