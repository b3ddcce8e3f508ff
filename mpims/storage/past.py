"""What the journal of earlier masters says, and their results put in their place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpims.core.chunks import Range, Result
from mpims.core.ranges import RangeSet
from mpims.errors import RunFailed, UsageError, describe
from mpims.outputs import ResultError
from mpims.report.wording import counted
from mpims.runtime.wire import Buffer, decode_object
from mpims.storage.commits import RANGE, Failure, parse_commit
from mpims.storage.records import RESULT_KINDS, RecordKind
from mpims.storage.results import Results

if TYPE_CHECKING:
    from mpims.storage.replay import JournalRecord, Replay


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
    valid
        The records that say what is done, without those whose results are lost.
    n_lost
        The items of those.
    """

    done: RangeSet = field(default_factory=RangeSet)
    failures: dict[int, Failure] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    suspicious: RangeSet = field(default_factory=RangeSet)
    notes: list[str] = field(default_factory=list)
    valid: list[JournalRecord] = field(default_factory=list)
    n_lost: int = 0


def read_past(path: Path, replay: Replay, results: Results, n_items: int) -> Past:
    """Put the results that a journal speaks of in their place, and give what else it says.

    Parameters
    ----------
    path
        The journal's file.
    replay
        What `read_journal` gave.
    results
        The result of the run, empty.
    n_items
        How many items the job has.

    Raises
    ------
    UsageError
        It is the journal of another job.
    RunFailed
        The results in it do not fit together: it is for this that the run ended.
    """
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
    return past


class _Reader:
    """Plays a journal's records into the results."""

    def __init__(self, path: Path, results: Results, n_items: int) -> None:
        self._path = path
        self._results = results
        self._n_items = n_items
        self._has_file = results.reopen()
        self._past = Past()
        self._under_way: list[RangeSet] = [RangeSet()]  # what each master had handed out

    def read(self, records: Sequence[JournalRecord]) -> Past:
        past = self._past
        fault = "missing"
        heads = [record.payload for record in records if record.kind is RecordKind.HEAD]
        if self._has_file and heads and bytes(heads[-1]) != self._results.head:
            fault = "damaged"
            self._results.forget()
            self._has_file = False
        for record in records:
            kind = record.kind
            if kind in RESULT_KINDS:
                n_lost = self._read_done(record)
                past.n_lost += n_lost
                if not n_lost:
                    past.valid.append(record)
            elif kind is RecordKind.ASSIGNED:
                for span in RANGE.iter_unpack(record.payload):
                    self._under_way[-1].add(*self._checked(*span))
            elif kind is RecordKind.STATS:
                past.stats = json.loads(bytes(record.payload))
            elif kind is RecordKind.OPENED:
                self._under_way.append(RangeSet())
            elif kind is RecordKind.CLOSED:
                self._under_way = [RangeSet()]
        if past.n_lost:
            past.notes.append(
                f"the file with the results of {counted(past.n_lost, 'item')} is {fault}: "
                "they are computed again"
            )
        self._find_suspicious()
        return past

    def _read_done(self, record: JournalRecord) -> int:
        """Take in a commit; give how many of its items have lost their results."""
        past = self._past
        ranges, buffers, failures = parse_commit(record.kind, record.payload)
        for start, stop in ranges:
            self._checked(start, stop)
        n_items = sum(stop - start for start, stop in ranges)
        if not buffers and not self._has_file and len(failures) < n_items:
            return n_items
        fresh = [span for span in ranges if not past.done.intersects(*span)]
        past.failures.update((failure.item, failure) for failure in failures)
        if buffers or not self._has_file:
            payload = self._decoded(buffers)
            head = Result(0, ranges[0][0], ranges[-1][1])
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
