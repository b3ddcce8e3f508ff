r"""The journal: the append-only record of what is done, and so the checkpoint of a run.

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

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mpims.processes import this_process
from mpims.storage.appendfile import AppendFile, BackgroundSync, sync_folder
from mpims.storage.records import (
    FORMAT,
    MAGIC,
    POSITION,
    RESULT_KINDS,
    Buffer,
    RecordKind,
    encode_record,
)

if TYPE_CHECKING:
    from mpims.storage.replay import Replay

NewRecord: TypeAlias = tuple[RecordKind, Sequence[Buffer]]
"""A kind, and the parts of a payload."""


class Journal:
    """A journal that is being written, by one thread of one process.

    Made by `create` or `resume`.

    Attributes
    ----------
    run_id
        The run it belongs to.
    epoch
        How many processes had opened it before this one.
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
        self._under_way: BackgroundSync | None = None
        self._failure: OSError | None = None  # of a sync
        self._n_synced_bytes = 0  # the position that the last SYNCED says
        self._n_flushed_bytes = 0  # how much of the file has been brought to disk
        self._news_end = 0  # where the last record ends that needs a SYNCED behind it
        self._file = AppendFile(path, flags)

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self._file.size

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
        """Write a record, whose payload is the parts one after the other: see `append_all`."""
        self.append_all([(kind, parts)])

    def append_all(self, records: Sequence[NewRecord]) -> None:
        """Write records, all or none.

        Raises
        ------
        OSError
            They cannot be written, and are not there; or they are there, and the sync that `durability_s`
            of 0 asks for failed.
        """
        self._append(records)
        if self._durability_s == 0 and any(kind in RESULT_KINDS for kind, _ in records):
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
            self._under_way = BackgroundSync(self._file, self._sync_results)
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

    def rewrite(self, records: Iterable[NewRecord]) -> None:
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
            for record in records:
                new._append([record])
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
        if not self._file.is_open:
            return
        try:
            self.sync()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; a sync under way ends by itself."""
        self._file.close()

    # ---------------------------------------------------------------- one record

    def _begin(self, magic: bytes = b"") -> None:
        said = {
            "version": FORMAT,
            "run_id": self.run_id,
            "epoch": self.epoch,
            "process": this_process().as_dict(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        buffers, n_bytes = encode_record(RecordKind.OPENED, self.epoch, [json.dumps(said).encode()])
        self._file.append([magic, *buffers], len(magic) + n_bytes)

    def _append(self, records: Iterable[NewRecord]) -> None:
        buffers: list[Buffer] = []
        n_bytes = 0
        for kind, parts in records:
            encoded, n_encoded = encode_record(kind, self.epoch, parts)
            buffers += encoded
            n_bytes += n_encoded
        self._file.append(buffers, n_bytes)
        self._news_end = self.size

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
            self._file.append(*encode_record(RecordKind.SYNCED, self.epoch, [POSITION.pack(position)]))
            self._n_synced_bytes = position

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _flush(self) -> None:
        if self._durability_s is None:
            return
        try:
            self._file.sync()
        except OSError as error:
            self._failure = error
            raise
        self._n_flushed_bytes = self.size

    def _flush_folder(self) -> None:
        """Bring the file's name to disk."""
        if self._durability_s is not None:
            sync_folder(self._path.parent)

    # ------------------------------------------------------------------ rewriting

    def _give_up(self, new: Journal) -> None:
        self._failure = new._failure
        new.abandon()

    def _become(self, new: Journal) -> None:
        """Go on in the file that has taken the old one's name."""
        self._file.close()
        self._file = new._file
        self._n_synced_bytes = new._n_synced_bytes
        self._n_flushed_bytes = new._n_flushed_bytes
        self._news_end = new._news_end


def _cut(path: Path, replay: Replay, *, durably: bool) -> None:
    """Remove what does not count from the file, and keep what the last SYNCED says."""
    with path.open("r+b") as file:
        file.seek(replay.end)
        if replay.n_synced_bytes:
            position = POSITION.pack(replay.n_synced_bytes)
            file.writelines(encode_record(RecordKind.SYNCED, replay.epoch, [position])[0])
            file.flush()
            if durably:
                os.fsync(file.fileno())
        file.truncate()
