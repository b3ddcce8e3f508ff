"""A journal as it is read: whole, by the rules of `mpims.storage.journal`, or as it grows."""

from __future__ import annotations

import json
import mmap
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

from mpims.errors import UsageError
from mpims.processes import Process
from mpims.storage.records import (
    EPOCHS,
    FORMAT,
    HEAD,
    KIND_OF,
    MAGIC,
    MARKER,
    OPAQUE_KINDS,
    POSITION,
    RESULT_KINDS,
    RecordKind,
    check_record,
    find_fault,
)


class JournalRecord(NamedTuple):
    """One record of a journal that was read."""

    kind: RecordKind
    at: int
    """The byte at which it begins."""
    payload: memoryview
    """A view of the file, which stays valid when the journal is resumed or rewritten."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a journal says.

    Parameters
    ----------
    run_id
        The run it belongs to.
    epoch
        The epoch of the last process that opened it.
    records
        The records that count, in order, OPENED and SYNCED among them.
    end
        The byte at which to go on appending.
    n_synced_bytes
        The results of the records before that byte are on disk.
    n_cut_bytes
        How much lies behind `end`, which will be removed.
    n_untrusted
        How many DONE and SKIPPED in there were whole, and do not count.
    damages
        One phrase for each damaged stretch that was skipped.
    """

    run_id: str
    epoch: int
    records: Sequence[JournalRecord]
    end: int
    n_synced_bytes: int
    n_cut_bytes: int
    n_untrusted: int
    damages: list[str]


def read_journal(path: Path, boot: str | None) -> Replay:
    """Read a journal, changing nothing.

    Parameters
    ----------
    path
        Its file.
    boot
        The identity of this boot of this machine, None if it is not known: see `mpims.processes.boot_id`.

    Raises
    ------
    UsageError
        It cannot be read, is no journal, or is of another version of mpims.
    """
    try:
        with path.open("rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            data = mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_READ) if n_bytes else b""
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from None
    if data[: len(MAGIC)] != MAGIC:
        found = f"it begins with {data[: len(MAGIC)]!r}" if n_bytes else "it is empty"
        raise _refusal(path, f"{found}, where a journal begins with {MAGIC!r}")
    scan = _Scan(path, data)
    return scan.replay(boot)


class JournalTail:
    """The records of a journal that another process is writing, as they come.

    What is not whole yet is left for the next reading. When the journal is written anew, in a file that
    takes its name, all its records are given again.

    Parameters
    ----------
    path
        Its file, which may be yet to come.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_number = -1
        self._at = 0

    def read(self) -> list[JournalRecord]:
        """The records that have come since the last call."""
        try:
            with self._path.open("rb") as file:  # not mapped: it may become shorter
                number = os.fstat(file.fileno()).st_ino
                if number != self._file_number:
                    self._file_number, self._at = number, len(MAGIC)
                file.seek(self._at)
                view = memoryview(file.read())
        except FileNotFoundError:
            return []
        records, at = [], 0
        while (found := check_record(view, at)) is not None:
            kind, _, stop = found
            records.append(JournalRecord(RecordKind(kind), self._at + at, view[at + HEAD.size : stop]))
            at = stop
        self._at += at
        return records


def _refusal(path: Path, what: str) -> UsageError:
    return UsageError(f"cannot read journal {path}: {what}; start the run anew in another --run-dir")


class _Records(Sequence[JournalRecord]):
    """The records at given bytes, made when they are asked for: there may be millions."""

    def __init__(self, view: memoryview, ats: array[int]) -> None:
        self._view = view
        self._ats = ats

    def __len__(self) -> int:
        return len(self._ats)

    @overload
    def __getitem__(self, index: int) -> JournalRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[JournalRecord]: ...
    def __getitem__(self, index: int | slice) -> JournalRecord | Sequence[JournalRecord]:
        if isinstance(index, slice):
            return _Records(self._view, self._ats[index])
        return self._record(self._ats[index])

    def __iter__(self) -> Iterator[JournalRecord]:
        return map(self._record, self._ats)

    def _record(self, at: int) -> JournalRecord:
        _, kind, _, n_bytes, _ = HEAD.unpack_from(self._view, at)
        start = at + HEAD.size
        return JournalRecord(KIND_OF[kind], at, self._view[start : start + n_bytes])


class _Scan:
    """One pass over a journal's bytes: where its records are, and what they say of trust."""

    def __init__(self, path: Path, data: mmap.mmap | bytes) -> None:
        self._path = path
        self._data = data
        self._view = memoryview(data)
        self._ats = array("Q")  # of the valid records; by the same index, their kinds, epochs and ends
        self._kinds = bytearray()
        self._epochs = array("H")
        self._stops = array("Q")
        self._openers: dict[int, tuple[int, str | None]] = {}  # by byte: the epoch, and in which boot
        self._run_id = ""
        self._epoch = 0
        self._n_synced_bytes = 0
        self._damages: list[str] = []
        self._scan()

    def _scan(self) -> None:
        at = len(MAGIC)
        while at < len(self._view):
            found = check_record(self._view, at)
            if found is None and self._ats:
                at = self._skip(at)
                continue
            if found is None or not (self._ats or found[0] == RecordKind.OPENED):
                break
            kind, epoch, stop = found
            if kind not in OPAQUE_KINDS:
                self._read(kind, at, stop)
            self._ats.append(at)
            self._kinds.append(kind)
            self._epochs.append(epoch)
            self._stops.append(stop)
            at = stop
        if not self._ats:
            what = find_fault(self._view, at) if at < len(self._view) else "missing"
            raise _refusal(self._path, f"its first record, which says of which run it is, is {what}")

    def _skip(self, at: int) -> int:
        """The next valid record behind a stretch that is none; the end of the file if it is torn."""
        after = self._data.find(MARKER, at + 1)
        while after >= 0:
            if check_record(self._view, after) is not None:
                number = len(self._ats) + len(self._damages)
                self._damages.append(f"record {number} at byte {at} is {find_fault(self._view, at)}")
                return after
            after = self._data.find(MARKER, after + 1)
        return len(self._view)

    def _read(self, kind: int, at: int, stop: int) -> None:
        if kind == RecordKind.OPENED:
            self._read_opened(at, stop)
        elif kind == RecordKind.SYNCED:
            self._read_synced(at, stop)
        else:
            raise _refusal(self._path, f"the record at byte {at} is of unknown kind {kind}")

    def _read_opened(self, at: int, stop: int) -> None:
        try:
            said = json.loads(bytes(self._view[at + HEAD.size : stop]))
            if said["version"] != FORMAT:
                what = f"it is of format {said['version']}, and this mpims knows format {FORMAT}"
                raise _refusal(self._path, what)
            process = Process.from_dict(said["process"])
            run_id, epoch = said["run_id"], said["epoch"]
            if not (isinstance(run_id, str) and isinstance(epoch, int)):
                raise TypeError("run_id or epoch is of another type")
        except (ValueError, KeyError, TypeError) as error:
            what = f"the OPENED record at byte {at} is not understood ({type(error).__name__}: {error})"
            raise _refusal(self._path, what) from None
        self._run_id = self._run_id or run_id
        self._epoch = max(self._epoch, epoch)
        self._openers[at] = epoch % EPOCHS, process.boot

    def _read_synced(self, at: int, stop: int) -> None:
        if stop - at != HEAD.size + POSITION.size:
            raise _refusal(self._path, f"the SYNCED record at byte {at} is not understood")
        (position,) = POSITION.unpack_from(self._view, at + HEAD.size)
        self._n_synced_bytes = max(self._n_synced_bytes, min(position, at))

    def replay(self, boot: str | None) -> Replay:
        """What counts, for a reader in that boot."""
        n_kept = self._count_trusted(boot)
        end = self._stops[n_kept - 1]
        dropped = self._kinds[n_kept:]
        return Replay(
            run_id=self._run_id,
            epoch=self._epoch,
            records=_Records(self._view, self._ats[:n_kept]),
            end=end,
            n_synced_bytes=min(self._n_synced_bytes, end),
            n_cut_bytes=len(self._view) - end,
            n_untrusted=sum(map(dropped.count, RESULT_KINDS)),
            damages=self._damages,
        )

    def _count_trusted(self, boot: str | None) -> int:
        """The number of records before the first that does not count."""
        synced = self._n_synced_bytes
        openers = [opener for at, opener in self._openers.items() if at < synced]
        opener = openers[-1] if openers else None
        for i in range(bisect_left(self._ats, synced), len(self._ats)):
            kind = self._kinds[i]
            if kind == RecordKind.OPENED:
                opener = self._openers[self._ats[i]]
            elif kind in OPAQUE_KINDS and (boot is None or opener != (self._epochs[i], boot)):
                return i
        return len(self._ats)
