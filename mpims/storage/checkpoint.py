"""What of a run is safe: results in their place, and the journal that says which.

A gathered array is in its file before the journal says so; everything else (the values of a reduction,
Python objects) is in the journal itself. What is read back is exactly what was committed, so a
resumed reduction combines the same operands along the same tree.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mpims.core.events import Range
from mpims.core.ranges import RangeSet
from mpims.errors import RunFailed, UsageError, describe
from mpims.processes import boot_id
from mpims.runtime.parts import ResultError
from mpims.runtime.wire import Buffer, ResultHead, decode_object, encode_object
from mpims.storage.journal import Journal
from mpims.storage.records import RecordKind
from mpims.storage.replay import JournalTail, Record, read_journal
from mpims.storage.results import Results, disk_error
from mpims.storage.rundir import JOURNAL

COMPACT_BYTES = 64 << 20
"""A journal is rewritten when it has grown to this, and to four times what it was after the last time."""
_GROWTH = 4

_DONE = struct.Struct("<II")  # number of ranges, number of buffers
_RANGE = struct.Struct("<QQ")
_SIZE = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Failure:
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


@dataclass(slots=True)
class Past:
    """What a journal says of the masters before.

    Attributes
    ----------
    done
        What is done.
    failures
        The items given up, by index.
    stats
        The figures that the last master noted.
    epoch
        How many masters there were.
    suspicious
        Ranges that were under way both times when everything last died: one of them may be the reason.
    notes
        What was wrong with the journal, as phrases for the user.
    """

    done: RangeSet = field(default_factory=RangeSet)
    failures: dict[int, Failure] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    suspicious: RangeSet = field(default_factory=RangeSet)
    notes: list[str] = field(default_factory=list)


class Checkpoint:
    """The results of a run and its journal, kept in step.

    Made by `create` or `resume`. Every method that writes raises `Stopped` if the disk does not take it.
    """

    def __init__(self, folder: Path, journal: Journal, results: Results) -> None:
        self._path = folder / JOURNAL
        self._journal = journal
        self._results = results
        self._compacted_bytes = journal.size
        self._noted: dict[str, Any] = {}
        self.past = Past()
        self.failures: dict[int, Failure] = self.past.failures
        self.done = self.past.done

    @property
    def epoch(self) -> int:
        """How many masters there were before this one."""
        return self._journal.epoch

    @classmethod
    def create(
        cls, folder: Path, run_id: str, results: Results, *, durability_s: float | None
    ) -> Checkpoint:
        """Begin the journal of a new run."""
        path = folder / JOURNAL
        path.unlink(missing_ok=True)  # of a run that died before it began
        try:
            journal = Journal.create(path, run_id, durability_s=durability_s, sync_results=results.sync)
        except OSError as error:
            raise disk_error(error, path) from None
        return cls(folder, journal, results)

    @classmethod
    def resume(
        cls, folder: Path, run_id: str, results: Results, n_items: int, *, durability_s: float | None
    ) -> Checkpoint:
        """Read the journal of an earlier master, put the results in their place, and go on with it.

        Raises
        ------
        UsageError
            It is no journal, or that of another run.
        RunFailed
            The results in it do not fit together: it is for this that the run ended.
        Stopped
            It cannot be written.
        """
        path = folder / JOURNAL
        replay = read_journal(path, boot_id())
        if replay.run_id != run_id:
            raise UsageError(
                f"journal {path} is of run {replay.run_id}, the manifest beside it of run {run_id}: "
                "files of two runs are mixed; restore the ones that belong together"
            )
        try:
            past = _Reader(path, results, n_items).read(replay.records)
        except ResultError as error:  # the run ended with it, after it had written it down
            raise RunFailed(f"what is in journal {path} does not fit together: {error}") from None
        past.epoch = replay.epoch + 1
        past.notes += [f"{damage}: what it said is computed again" for damage in replay.damages]
        if replay.n_cut_bytes:
            past.notes.append(
                f"the last {replay.n_cut_bytes} bytes of the journal are unfinished or not known "
                "to be on disk: what they said is computed again"
            )
        try:
            journal = Journal.resume(path, replay, durability_s=durability_s, sync_results=results.sync)
        except OSError as error:
            raise disk_error(error, path) from None
        checkpoint = cls(folder, journal, results)
        checkpoint.past, checkpoint.failures, checkpoint.done = past, past.failures, past.done
        return checkpoint

    # -------------------------------------------------------------------- writing

    def commit(
        self,
        head: ResultHead,
        payload: Any,
        buffers: Sequence[Buffer],
        ranges: Sequence[Range],
        failures: Sequence[Failure] = (),
    ) -> None:
        """Put those ranges of a delivered result into the result, and say so.

        Parameters
        ----------
        head, payload, buffers
            The result as it was delivered; the payload is None if all items were given up.
        ranges
            What of it counts.
        failures
            The items in those ranges that were given up.
        """
        self.failures.update((failure.item, failure) for failure in failures)
        if payload is None or self._results.keeps(payload):
            self._results.commit(head, payload, ranges)
            self._append_done(ranges, (), failures)
            return
        first, last = ranges[0][0], ranges[-1][1]
        if (first, last) != (head.start, head.stop) and self._results.units(payload) is None:
            # It is read again as one that begins at its first range.
            payload = payload[first - head.start : last - head.start]
            head, buffers = head._replace(start=first, stop=last, array=None), encode_object(payload)
        # A reduction may change its operands: first the record.
        self._append_done(ranges, buffers if head.array is None else encode_object(payload), failures)
        self._results.commit(head, payload, ranges)
        if self._journal.size > max(COMPACT_BYTES, _GROWTH * self._compacted_bytes):
            self._compact()

    def assigned(self, start: int, stop: int) -> None:
        """Say that items are under way."""
        self._append(RecordKind.ASSIGNED, _RANGE.pack(start, stop))

    def note(self, stats: Mapping[str, Any]) -> None:
        """Note figures for a master to come."""
        self._noted = dict(stats)
        self._append(RecordKind.STATS, json.dumps(self._noted).encode())

    def poll(self, now: float) -> None:
        """Let the journal be forced to disk when that is due; call it often."""
        self._writing(lambda: self._journal.poll(now))

    def close(self, how: str) -> None:
        """Say how the run ended, and force everything to disk."""
        self._append(RecordKind.CLOSED, how.encode())
        self._writing(self._journal.close)

    def abandon(self) -> None:
        """Leave the journal as it is."""
        self._journal.abandon()

    def _compact(self) -> None:
        """Write the journal anew, with one record in place of all that were combined."""
        payload = self._results.snapshot()
        if payload is not None:
            ranges = self._results.units(payload) or ()
            try:
                buffers = encode_object(payload)
            except Exception as error:  # whatever a combined value raises when it is pickled
                raise ResultError(f"a combined value cannot be pickled: {describe(error)}") from error
            record = _done_record(ranges, buffers, list(self.failures.values()))
            stats = (RecordKind.STATS, [json.dumps(self._noted).encode()])
            self._writing(lambda: self._journal.rewrite([record, stats]))
        self._compacted_bytes = self._journal.size

    def _append_done(
        self, ranges: Sequence[Range], buffers: Sequence[Buffer], failures: Sequence[Failure]
    ) -> None:
        kind, parts = _done_record(ranges, buffers, failures)
        self._append(kind, *parts)

    def _append(self, kind: RecordKind, *parts: Buffer) -> None:
        try:
            self._journal.append(kind, *parts)
        except OSError as error:
            raise disk_error(error, self._path) from None

    def _writing(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            raise disk_error(error, self._path) from None


def _done_record(
    ranges: Sequence[Range], buffers: Sequence[Buffer], failures: Sequence[Failure]
) -> tuple[RecordKind, list[Buffer]]:
    """What is done: the ranges, the payload if the journal is to keep it, and what was given up.

    All in one record, so that no damage can lose one without the other.
    """
    kept = list(buffers)
    if failures:
        kept.append(json.dumps([asdict(failure) for failure in failures]).encode())
    parts: list[Buffer] = [_DONE.pack(len(ranges), len(kept))]
    parts += [_RANGE.pack(*span) for span in ranges]
    parts += [_SIZE.pack(memoryview(buffer).nbytes) for buffer in kept]
    kind = RecordKind.SKIPPED if failures else RecordKind.DONE
    return kind, [b"".join(parts), *kept]


def _parse_ranges(payload: memoryview) -> list[Range]:
    n_ranges, _ = _DONE.unpack_from(payload)
    return [_RANGE.unpack_from(payload, _DONE.size + i * _RANGE.size) for i in range(n_ranges)]


def _parse_done(payload: memoryview) -> tuple[list[Range], list[memoryview]]:
    n_ranges, n_buffers = _DONE.unpack_from(payload)
    ranges = _parse_ranges(payload)
    at = _DONE.size + n_ranges * _RANGE.size
    sizes = [_SIZE.unpack_from(payload, at + i * _SIZE.size)[0] for i in range(n_buffers)]
    at += n_buffers * _SIZE.size
    buffers = []
    for size in sizes:
        buffers.append(memoryview(bytearray(payload[at : at + size])))  # it may be changed
        at += size
    return ranges, buffers


class Onlooker:
    """How far a run is, read from its journal by a process that has no part in it.

    Parameters
    ----------
    folder
        The run directory, which may be yet to come.
    """

    def __init__(self, folder: Path) -> None:
        self._tail = JournalTail(folder / JOURNAL)
        self._done = RangeSet()

    def n_done(self) -> int:
        """The number of items that are done or given up by now."""
        for record in self._tail.read():
            if record.kind in (RecordKind.DONE, RecordKind.SKIPPED):
                for span in _parse_ranges(record.payload):
                    self._done.add(*span)
        return self._done.size


class _Reader:
    """Plays a journal's records into the results."""

    def __init__(self, path: Path, results: Results, n_items: int) -> None:
        self._path = path
        self._results = results
        self._n_items = n_items
        self._has_file = results.reopen()
        self._past = Past()
        self._under_way: list[RangeSet] = [RangeSet()]  # what each master had handed out

    def read(self, records: Sequence[Record]) -> Past:
        past = self._past
        n_lost = 0
        was_closed = False
        for record in records:
            kind = record.kind
            if kind in (RecordKind.DONE, RecordKind.SKIPPED):
                n_lost += self._read_done(record)
            elif kind is RecordKind.ASSIGNED:
                self._under_way[-1].add(*self._checked(*_RANGE.unpack(record.payload)))
            elif kind is RecordKind.STATS:
                past.stats = json.loads(bytes(record.payload))
            elif kind is RecordKind.OPENED and not was_closed:
                self._under_way.append(RangeSet())
            was_closed = kind is RecordKind.CLOSED
            if was_closed:
                self._under_way = [RangeSet()]
        if n_lost:
            past.notes.append(
                f"the file with the results of {n_lost} items is missing: they are computed again"
            )
        self._find_suspicious()
        return past

    def _read_done(self, record: Record) -> int:
        """Take in a commit; give how many of its items have lost their results."""
        past = self._past
        ranges, buffers = _parse_done(record.payload)
        for start, stop in ranges:
            self._checked(start, stop)
        failures: list[Failure] = []
        if record.kind is RecordKind.SKIPPED:
            failures = [Failure(**entry) for entry in json.loads(bytes(buffers.pop()))]
        n_items = sum(stop - start for start, stop in ranges)
        if not buffers and not self._has_file and len(failures) < n_items:
            return n_items
        fresh = [span for span in ranges if not past.done.intersects(*span)]
        past.failures.update((failure.item, failure) for failure in failures)
        if buffers or not self._has_file:
            payload = self._decoded(buffers)
            head = ResultHead(0, ranges[0][0], ranges[-1][1], 0.0, 0.0, None)
            self._results.commit(head, payload, fresh)
        for start, stop in fresh:
            past.done.add(start, stop)
        return 0

    def _decoded(self, buffers: Sequence[Buffer]) -> Any:
        try:
            return decode_object(buffers) if buffers else None
        except Exception as error:  # whatever an object of the user's raises when it is unpickled
            raise RunFailed(
                f"a result in journal {self._path} cannot be unpickled: {describe(error)}; "
                "see that what it is made of can be imported, as when it was written"
            ) from error

    def _checked(self, start: int, stop: int) -> Range:
        if not 0 <= start < stop <= self._n_items:
            raise UsageError(
                f"journal {self._path} speaks of items [{start}, {stop}), the job has {self._n_items}: "
                "it is of another job"
            )
        return start, stop

    def _find_suspicious(self) -> None:
        """What was under way at both of the last two deaths."""
        deaths = [ranges for ranges in self._under_way if ranges.size]
        if len(deaths) < 2:
            return
        for start, stop in deaths[-1]:
            for a, b in deaths[-2]:
                for gap in self._past.done.missing(max(start, a), min(stop, b)):
                    self._past.suspicious.add(*gap)
