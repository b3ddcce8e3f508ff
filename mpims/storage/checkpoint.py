"""What of a run is safe: results in their place, and the journal that says which.

A gathered array is in its file before the journal says so; everything else (the values of a reduction,
Python objects) is in the journal itself. What is read back is exactly what was committed, so a
resumed reduction combines the same operands along the same tree.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpims.core.chunks import Range, Result
from mpims.errors import UsageError, describe
from mpims.outputs import ResultError
from mpims.processes import boot_id
from mpims.runtime.wire import Buffer, encode_object
from mpims.storage.commits import RANGE, Failure, commit_record
from mpims.storage.journal import Journal
from mpims.storage.past import Past, read_past
from mpims.storage.records import RecordKind
from mpims.storage.results import Results, disk_error
from mpims.storage.rundir import JOURNAL

COMPACT_BYTES = 64 << 20
"""A journal is rewritten when it has grown to this, and to four times what it was after the last time."""
_GROWTH = 4


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
        self._assigned: list[Range] = []  # what is under way, and the journal does not know
        self._unsaid: list[Range] = []  # what is in its place, and the journal does not know
        # What is being written to its place, and how many must be written before it is there.
        self._behind: deque[tuple[int, Sequence[Range]]] = deque()
        self._n_said = 0  # items
        self._has_head = False  # in the journal, from this master
        self.past = Past()
        self.failures: dict[int, Failure] = self.past.failures
        self.done = self.past.done

    @property
    def n_done(self) -> int:
        """How many items are done as far as the journal knows: so many are done for a master to come."""
        return self.done.size + self._n_said

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
        try:
            path.unlink(missing_ok=True)  # of a run that died before it began
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
        from mpims.storage.replay import read_journal  # only a run that goes on reads one

        path = folder / JOURNAL
        replay = read_journal(path, boot_id())
        if replay.run_id != run_id:
            raise UsageError(
                f"journal {path} is of run {replay.run_id}, the manifest beside it of run {run_id}: "
                "files of two runs are mixed; restore the ones that belong together"
            )
        past = read_past(path, replay, results, n_items)
        try:
            journal = Journal.resume(path, replay, durability_s=durability_s, sync_results=results.sync)
            if past.n_lost:  # or these records would speak of the file that is made in its place
                stats = (RecordKind.STATS, [json.dumps(past.stats).encode()])
                journal.rewrite([stats, *((record.kind, [record.payload]) for record in past.valid)])
            past.valid.clear()  # they are views of the file
        except OSError as error:
            raise disk_error(error, path) from None
        checkpoint = cls(folder, journal, results)
        checkpoint.past, checkpoint.failures, checkpoint.done = past, past.failures, past.done
        return checkpoint

    # -------------------------------------------------------------------- writing

    def commit(
        self,
        head: Result,
        payload: Any,
        buffers: Sequence[Buffer] | None,
        ranges: Sequence[Range],
        failures: Sequence[Failure] = (),
    ) -> None:
        """Put those ranges of a delivered result into the result; `say` says so, if it is not said at once.

        Parameters
        ----------
        head, payload
            The result as it was delivered; the payload is None if all items were given up.
        buffers
            The payload as `encode_object` gives it, if it came so.
        ranges
            What of it counts.
        failures
            The items in those ranges that were given up.
        """
        self.failures.update((failure.item, failure) for failure in failures)
        if payload is None or self._results.keeps(payload):
            if payload is not None and not self._has_head:  # the file has no checksum of its own
                self._append(RecordKind.HEAD, [self._results.head])
                self._has_head = True
            self._results.commit(head, payload, ranges)
            if failures:
                self._results.finish()
                self._append_done(ranges, (), failures)
            elif self._results.n_given:
                self._behind.append((self._results.n_given, ranges))
            else:
                self._unsaid += ranges
            return
        first, last = ranges[0][0], ranges[-1][1]
        if (first, last) != (head.start, head.stop) and self._results.units(payload, [head])[0] is None:
            # It is read again as one that begins at its first range.
            payload = payload[first - head.start : last - head.start]
            head, buffers = head._replace(start=first, stop=last), None
        # A reduction may change its operands: first the record.
        self._append_done(ranges, encode_object(payload) if buffers is None else buffers, failures)
        self._results.commit(head, payload, ranges)
        if self._journal.size > max(COMPACT_BYTES, _GROWTH * self._compacted_bytes):
            self._compact()

    def assigned(self, ranges: Sequence[Range]) -> None:
        """Items are under way; `say` says so."""
        assigned = self._assigned
        for start, stop in ranges:
            if assigned and assigned[-1][1] == start:  # short chunks are handed out by the hundred
                assigned[-1] = assigned[-1][0], stop
            else:
                assigned.append((start, stop))

    @property
    def is_behind(self) -> bool:
        """Whether something is being written to its place; `say` says so when it is there."""
        return bool(self._behind)

    def say(self) -> None:
        """Say what is under way and what is done."""
        if self._behind:
            n_written = self._results.n_written
            while self._behind and self._behind[0][0] <= n_written:
                self._unsaid += self._behind.popleft()[1]
        records: list[tuple[RecordKind, Sequence[Buffer]]] = []
        if self._assigned:
            spans = [RANGE.pack(*span) for span in self._assigned]
            records.append((RecordKind.ASSIGNED, [b"".join(spans)]))
            self._assigned = []
        said, self._unsaid = self._unsaid, []
        if said:
            records.append(commit_record(said, (), ()))
        if records:
            self._writing(lambda: self._journal.append_all(records))
            self._n_said += sum([stop - start for start, stop in said])

    def finish(self) -> None:
        """Wait until all that is done is in its place, and say so."""
        self._results.finish()
        self.say()

    def note(self, stats: Mapping[str, Any]) -> None:
        """Note figures for a master to come."""
        self._noted = dict(stats)
        self._append(RecordKind.STATS, [json.dumps(self._noted).encode()])

    def poll(self, now: float) -> None:
        """Let the journal be forced to disk when that is due; call it often."""
        self._writing(lambda: self._journal.poll(now))

    def close(self, how: str) -> None:
        """Say how the run ended, and force everything to disk."""
        self.finish()
        self._append(RecordKind.CLOSED, [how.encode()])
        self._writing(self._journal.close)

    def abandon(self) -> None:
        """Leave the journal as it is."""
        self._journal.abandon()

    def _compact(self) -> None:
        """Write the journal anew, with one record in place of all that were combined."""
        payload = self._results.snapshot()
        if payload is not None:
            ranges = self._results.units(payload, [Result(0, 0, 0)])[0] or ()
            try:
                buffers = encode_object(payload)
            except Exception as error:  # whatever a combined value raises when it is pickled
                raise ResultError(f"a combined value cannot be pickled: {describe(error)}") from error
            record = commit_record(ranges, buffers, list(self.failures.values()))
            stats = (RecordKind.STATS, [json.dumps(self._noted).encode()])
            self._writing(lambda: self._journal.rewrite([record, stats]))
        self._compacted_bytes = self._journal.size

    def _append_done(
        self, ranges: Sequence[Range], buffers: Sequence[Buffer], failures: Sequence[Failure]
    ) -> None:
        self._append(*commit_record(ranges, buffers, failures))
        self._n_said += sum([stop - start for start, stop in ranges])

    def _append(self, kind: RecordKind, parts: Sequence[Buffer]) -> None:
        self._writing(lambda: self._journal.append(kind, *parts))

    def _writing(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            raise disk_error(error, self._path) from None
