r"""The journal: the append-only record of what is done, and so the checkpoint of a run.

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

Rules
-----
What a record says is computed again if the record is lost, so dropping one is always safe, and believing
one is safe only if the results it speaks of are there.

1. A record is appended when its results are in their place, at the earliest.
2. SYNCED with position P: the results that the records before P speak of were on disk before it was
   written. (The records themselves vouch for themselves, by their checksums.)
3. A record behind the last P counts only if it was written in this boot of this machine: the results it
   speaks of are in the page cache if not on disk. It must be of the epoch that the last OPENED before it
   began; else that epoch's OPENED is damaged, and nobody knows on which machine it was written. At the
   first record that does not count the journal is cut, and nothing behind it counts.
4. A stretch that is no record and goes on to the end is a torn tail: it is cut.
5. A stretch that is no record and has a record behind it is damage: it is skipped and reported. What
   comes next is found by its marker.
6. What looks whole and is not understood (magic, version, kind) is never cut: it is an error.

What was cut stays cut: `Journal.resume` removes it before it appends, for a later SYNCED would make it
count again. If the last SYNCED lies in what is cut, it is first written anew, at the cut; so what it
vouched for counts at every later reading, wherever this process is killed.

Invariants
----------
- P never exceeds the position of the SYNCED that says it; one that does is taken for its own position.
- After a failed sync no SYNCED is written any more: the kernel reports a lost page only once.
- `Journal.size` is the length of the file, and the beginning of the next record.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import struct
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, TypeAlias, overload
from zlib import crc32

from mpims.errors import UsageError
from mpims.processes import Process, this_process

MAGIC = b"MPIMSJ\r\n"
FORMAT = 1
"""Version of the journal's format."""

Buffer: TypeAlias = bytes | bytearray | memoryview

_MARKER = b"\xa5MJR"
_HEAD = struct.Struct("<4sBxHQI")
_CHECKED = struct.Struct("<BxHQ")  # bytes 4 … 15 of the head, which the checksum covers
_CHECKSUM = struct.Struct("<I")
_POSITION = struct.Struct("<Q")
_EPOCHS = 1 << 16  # that a head can tell apart
_IOV_MAX = max(os.sysconf("SC_IOV_MAX"), 16)


class RecordKind(IntEnum):
    """What a record speaks of."""

    OPENED = 1
    """A process has opened the journal and begins an epoch."""
    FORM = 2
    """What the results look like."""
    DONE = 3
    """Items are done, and their results are in place."""
    SKIPPED = 4
    """Items are given up."""
    STATS = 5
    """Something to count or to know, of which no result depends."""
    SYNCED = 6
    """The results of all records before a position are on disk."""
    CLOSED = 7
    """The run ended."""
    ASSIGNED = 8
    """Items were handed out: what is found so, and not done, was under way when everything died."""


_KIND_OF = {int(kind): kind for kind in RecordKind}  # faster than RecordKind(number)
_OPAQUE = _KIND_OF.keys() - {RecordKind.OPENED, RecordKind.SYNCED}
_RESULT_KINDS = (RecordKind.DONE, RecordKind.SKIPPED)


class Record(NamedTuple):
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
    records: Sequence[Record]
    end: int
    n_synced_bytes: int
    n_cut_bytes: int
    n_untrusted: int
    damages: list[str]


# -------------------------------------------------------------------------- reading


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

    def read(self) -> list[Record]:
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
        while (found := _check(view, at)) is not None:
            kind, _, stop = found
            records.append(Record(RecordKind(kind), self._at + at, view[at + _HEAD.size : stop]))
            at = stop
        self._at += at
        return records


def _refusal(path: Path, what: str) -> UsageError:
    return UsageError(f"cannot read journal {path}: {what}; start the run anew in another --run-dir")


class _Records(Sequence[Record]):
    """The records at given bytes, made when they are asked for: there may be millions."""

    def __init__(self, view: memoryview, ats: array[int]) -> None:
        self._view = view
        self._ats = ats

    def __len__(self) -> int:
        return len(self._ats)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return _Records(self._view, self._ats[index])
        return self._record(self._ats[index])

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self._ats)

    def _record(self, at: int) -> Record:
        _, kind, _, n_bytes, _ = _HEAD.unpack_from(self._view, at)
        start = at + _HEAD.size
        return Record(_KIND_OF[kind], at, self._view[start : start + n_bytes])


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
            found = _check(self._view, at)
            if found is None and self._ats:
                at = self._skip(at)
                continue
            if found is None or not (self._ats or found[0] == RecordKind.OPENED):
                break
            kind, epoch, stop = found
            if kind not in _OPAQUE:
                self._read(kind, at, stop)
            self._ats.append(at)
            self._kinds.append(kind)
            self._epochs.append(epoch)
            self._stops.append(stop)
            at = stop
        if not self._ats:
            what = _fault(self._view, at) if at < len(self._view) else "missing"
            raise _refusal(self._path, f"its first record, which says of which run it is, is {what}")

    def _skip(self, at: int) -> int:
        """The next valid record behind a stretch that is none; the end of the file if it is torn."""
        after = self._data.find(_MARKER, at + 1)
        while after >= 0:
            if _check(self._view, after) is not None:
                number = len(self._ats) + len(self._damages)
                self._damages.append(f"record {number} at byte {at} is {_fault(self._view, at)}")
                return after
            after = self._data.find(_MARKER, after + 1)
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
            said = json.loads(bytes(self._view[at + _HEAD.size : stop]))
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
        self._openers[at] = epoch % _EPOCHS, process.boot

    def _read_synced(self, at: int, stop: int) -> None:
        if stop - at != _HEAD.size + _POSITION.size:
            raise _refusal(self._path, f"the SYNCED record at byte {at} is not understood")
        (position,) = _POSITION.unpack_from(self._view, at + _HEAD.size)
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
            n_untrusted=sum(map(dropped.count, _RESULT_KINDS)),
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
            elif kind in _OPAQUE and (boot is None or opener != (self._epochs[i], boot)):
                return i
        return len(self._ats)


def _check(view: memoryview, at: int) -> tuple[int, int, int] | None:
    """Kind, epoch and end of the record at a byte; None if there is no valid one."""
    start = at + _HEAD.size
    if start > len(view):
        return None
    marker, kind, epoch, n_bytes, checksum = _HEAD.unpack_from(view, at)
    stop = start + n_bytes
    if marker != _MARKER or stop > len(view):
        return None
    if crc32(view[start:stop], crc32(view[at + 4 : at + 16])) != checksum:
        return None
    return kind, epoch, stop


def _fault(view: memoryview, at: int) -> str:
    """In which way there is no valid record at a byte."""
    start = at + _HEAD.size
    if start > len(view):
        return f"incomplete ({len(view) - at} bytes of a head of {_HEAD.size})"
    marker, kind, _, n_bytes, checksum = _HEAD.unpack_from(view, at)
    if marker != _MARKER:
        return f"damaged (it begins with {marker!r} instead of {_MARKER!r})"
    if n_bytes > len(view) - start:
        return f"incomplete or damaged (a payload of {n_bytes} bytes, where {len(view) - start} follow)"
    found = crc32(view[start : start + n_bytes], crc32(view[at + 4 : at + 16]))
    if found != checksum:
        return f"damaged (checksum {found:#010x} instead of {checksum:#010x})"
    return f"of kind {kind}"


# -------------------------------------------------------------------------- writing


class Journal:
    """A journal that is being written, by one thread of one process.

    Made by `create` or `resume`.

    Attributes
    ----------
    run_id
        The run it belongs to.
    epoch
        How many processes had opened it before this one.
    size
        Length of the file in bytes.
    """

    def __init__(
        self,
        path: Path,
        run_id: str,
        epoch: int,
        durability_s: float | None,
        sync_results: Callable[[], None],
        flags: int,
    ) -> None:
        self.run_id = run_id
        self.epoch = epoch
        self._path = path
        self._durability_s = durability_s
        self._sync_results = sync_results
        self._sync_began = -math.inf
        self._under_way: _BackgroundSync | None = None
        self._failure: OSError | None = None  # of a sync
        self._n_synced_bytes = 0  # the position that the last SYNCED says
        self._n_flushed_bytes = 0  # how much of the file has been brought to disk
        self._news_end = 0  # where the last record ends that needs a SYNCED behind it
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o644)
        self.size = os.fstat(self._descriptor).st_size

    @classmethod
    def create(
        cls, path: Path, run_id: str, *, durability_s: float | None, sync_results: Callable[[], None]
    ) -> Journal:
        """Make the journal of a new run.

        Parameters
        ----------
        path
            Its file, which does not exist.
        run_id
            The run it belongs to.
        durability_s
            How often what is done is brought to disk: so long after the last time, in the background; after
            each result for 0; never for None, and then only this boot of this machine can resume the run.
        sync_results
            Brings to disk the results that are in place. It is called in another thread too, and tells a
            failure by an `OSError`.

        Raises
        ------
        OSError
            The file exists, or cannot be written.
        """
        journal = cls(path, run_id, 0, durability_s, sync_results, os.O_CREAT | os.O_EXCL)
        try:
            journal._begin(MAGIC)
            journal._flush()
            journal._flush_folder()
        except OSError:
            journal.abandon()
            path.unlink(missing_ok=True)
            raise
        return journal

    @classmethod
    def resume(
        cls, path: Path, replay: Replay, *, durability_s: float | None, sync_results: Callable[[], None]
    ) -> Journal:
        """Go on with a journal: remove what does not count, and begin a new epoch.

        Parameters
        ----------
        path
            Its file.
        replay
            What `read_journal` gave; the file has not changed since.
        durability_s, sync_results
            As for `create`.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        if replay.n_cut_bytes:
            _cut(path, replay, durably=durability_s is not None)
        journal = cls(path, replay.run_id, replay.epoch + 1, durability_s, sync_results, 0)
        journal._news_end = replay.end  # of this boot, or synced: the next SYNCED vouches for them all
        try:
            journal._begin()
            # What was cut must be gone from the disk before a SYNCED can stand behind it.
            journal._flush()
        except OSError:
            journal.abandon()
            raise
        return journal

    def append(self, kind: RecordKind, *parts: Buffer) -> None:
        """Write a record, whose payload is the parts one after the other.

        Raises
        ------
        OSError
            It cannot be written, and is not there; or it is there, and the sync that `durability_s` of 0
            asks for failed.
        """
        self._append(kind, *parts)
        if self._durability_s == 0 and kind in _RESULT_KINDS:
            self.sync()

    def poll(self, now: float) -> None:
        """Begin and end the syncs in the background: to be called often.

        Parameters
        ----------
        now
            Monotonic seconds.

        Raises
        ------
        OSError
            A sync failed. Nothing more will be synced, and each further call raises it again.
        """
        if not self._durability_s:
            return
        if self._under_way is not None:
            if self._under_way.is_alive():
                return
            self._end_sync()
        self._raise_failure()
        if now - self._sync_began >= self._durability_s and self._is_sync_due():
            self._sync_began = now
            self._under_way = _BackgroundSync(self._descriptor, self.size, self._sync_results)
            self._under_way.start()

    def sync(self) -> None:
        """Bring everything to disk, and wait for it; nothing if `durability_s` is None.

        Raises
        ------
        OSError
            That failed, now or earlier.
        """
        self._end_sync()
        self._raise_failure()
        if self._durability_s is None or not self._is_sync_due():
            return
        position = self.size
        try:
            self._sync_results()
        except OSError as error:
            self._failure = error
            raise
        self._say_synced(position)
        self._flush()

    def rewrite(self, records: Iterable[tuple[RecordKind, Sequence[Buffer]]]) -> None:
        """Put other records in the place of all, in a new file that replaces the old one when it is whole.

        Parameters
        ----------
        records
            Kinds and parts of payloads, which say the same as what was appended so far. They may be views
            of the old file.

        Raises
        ------
        OSError
            The new file cannot be written; the old one stays.
        """
        self._end_sync()
        part = self._path.with_name(self._path.name + ".part")
        part.unlink(missing_ok=True)
        flags = os.O_CREAT | os.O_EXCL
        new = Journal(part, self.run_id, self.epoch, self._durability_s, self._sync_results, flags)
        new._failure = self._failure
        with ExitStack() as undo:
            undo.callback(part.unlink, missing_ok=True)
            undo.callback(self._give_up, new)
            new._begin(MAGIC)
            for kind, parts in records:
                new._append(kind, *parts)
            new.sync()
            part.rename(self._path)
            undo.pop_all()
        self._become(new)
        self._flush_folder()

    def close(self) -> None:
        """Sync, unless `durability_s` is None, and close the file; nothing the second time.

        Raises
        ------
        OSError
            The sync failed; the file is closed nevertheless.
        """
        if self._descriptor < 0:
            return
        try:
            self.sync()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; a sync under way ends by itself."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    # ---------------------------------------------------------------- one record

    def _begin(self, magic: bytes = b"") -> None:
        said = {
            "version": FORMAT,
            "run_id": self.run_id,
            "epoch": self.epoch,
            "process": this_process().as_dict(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        buffers, n_bytes = _encode(RecordKind.OPENED, self.epoch, [json.dumps(said).encode()])
        self._write([magic, *buffers], len(magic) + n_bytes)

    def _append(self, kind: RecordKind, *parts: Buffer) -> None:
        self._write(*_encode(kind, self.epoch, parts))
        self._news_end = self.size

    def _write(self, buffers: Sequence[Buffer], n_bytes: int) -> None:
        """Append bytes, all or none, also if a signal handler raises in between."""
        stop = self.size + n_bytes
        try:
            n = os.writev(self._descriptor, buffers[:_IOV_MAX])
            if n != n_bytes:
                _write_rest(self._descriptor, buffers, n)
            self.size = stop
        finally:
            if self.size != stop:
                self._take_back()

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:  # the reader will skip the fragment
            self.size = os.fstat(self._descriptor).st_size

    # --------------------------------------------------------------------- syncs

    def _is_sync_due(self) -> bool:
        return self.size > self._n_flushed_bytes or self._news_end > self._n_synced_bytes

    def _end_sync(self) -> None:
        """Wait for the sync in the background, if one is under way, and say how far it came."""
        sync, self._under_way = self._under_way, None
        if sync is None:
            return
        sync.join()
        if sync.error is not None:
            self._failure = sync.error
            return
        self._n_flushed_bytes = sync.position
        self._say_synced(sync.position)

    def _say_synced(self, position: int) -> None:
        if self._news_end > self._n_synced_bytes:
            self._write(*_encode(RecordKind.SYNCED, self.epoch, [_POSITION.pack(position)]))
            self._n_synced_bytes = position

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _flush(self) -> None:
        if self._durability_s is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._failure = error
            raise
        self._n_flushed_bytes = self.size

    def _flush_folder(self) -> None:
        """Bring the file's name to disk; a file system that cannot is one where nothing is to be done."""
        if self._durability_s is None:
            return
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(folder)

    # ------------------------------------------------------------------ rewriting

    def _give_up(self, new: Journal) -> None:
        self._failure = new._failure
        new.abandon()

    def _become(self, new: Journal) -> None:
        """Go on in the file that has taken the old one's name."""
        os.close(self._descriptor)
        self._descriptor = new._descriptor
        self.size = new.size
        self._n_synced_bytes = new._n_synced_bytes
        self._n_flushed_bytes = new._n_flushed_bytes
        self._news_end = new._news_end


class _BackgroundSync(threading.Thread):
    """A sync in a thread of its own, which a slow disk may keep for seconds."""

    def __init__(self, descriptor: int, position: int, sync_results: Callable[[], None]) -> None:
        super().__init__(name="mpims-journal-sync", daemon=True)
        self.position = position
        self.error: OSError | None = OSError(errno.EIO, "the sync did not come to its end")
        self._descriptor = os.dup(descriptor)  # the journal may be closed meanwhile, and its number reused
        self._sync_results = sync_results

    def run(self) -> None:
        try:
            self._sync_results()
            os.fsync(self._descriptor)
            self.error = None
        except OSError as error:
            self.error = error
        finally:
            os.close(self._descriptor)


def _encode(kind: RecordKind, epoch: int, parts: Sequence[Buffer]) -> tuple[list[Buffer], int]:
    """The bytes of a record, and how many they are."""
    n_bytes = sum([memoryview(part).nbytes for part in parts])
    checked = _CHECKED.pack(kind, epoch % _EPOCHS, n_bytes)
    checksum = crc32(checked)
    for part in parts:
        checksum = crc32(part, checksum)
    return [_MARKER + checked + _CHECKSUM.pack(checksum), *parts], _HEAD.size + n_bytes


def _write_rest(descriptor: int, buffers: Sequence[Buffer], n_written: int) -> None:
    """Write what one call has left over: a file system may take a part, and the system many buffers."""
    for buffer in buffers:
        view = memoryview(buffer)
        skipped = min(n_written, view.nbytes)
        n_written -= skipped
        while skipped < view.nbytes:
            skipped += os.write(descriptor, view.cast("B")[skipped:])


def _cut(path: Path, replay: Replay, *, durably: bool) -> None:
    """Remove what does not count from the file, and keep what the last SYNCED says."""
    with path.open("r+b") as file:
        file.seek(replay.end)
        if replay.n_synced_bytes:
            position = _POSITION.pack(replay.n_synced_bytes)
            file.writelines(_encode(RecordKind.SYNCED, replay.epoch, [position])[0])
            file.flush()
            if durably:
                os.fsync(file.fileno())
        file.truncate()
