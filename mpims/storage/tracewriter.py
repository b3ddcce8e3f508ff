"""Writes the trace of a run while it goes on; for the format see `mpims.storage.trace`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpims.errors import UsageError
from mpims.runtime.wire import ASSIGNMENTS, RESULTS
from mpims.storage.trace import (
    HEAD,
    PART,
    SENT,
    TRACE,
    Cause,
    What,
    check_head,
    encode_block,
    encode_head,
    encode_notes,
    split_blocks,
)

MOST_BYTES = 64 << 20
"""A trace's records do not grow beyond this: some 600,000 chunks ..."""
MOST_NOTES_BYTES = 4 << 20
"""... and its events, which go on when it is full, not beyond this."""
_MOST_WAITING = 1000


class TraceWriter:
    """Adds to the trace of a run; no run ends or waits for its sake.

    When it has grown to `MOST_BYTES`, or the disk takes no more, its records are left as they are.

    Parameters
    ----------
    folder
        The run directory; a trace that is there is gone on with.
    cause
        Why this master began.
    rank, host
        Who it is.
    n_workers
        How many ranks are to compute.
    now
        The time on the master's clock; by default that of `time.monotonic`.
    """

    def __init__(
        self,
        folder: Path,
        cause: Cause = Cause.STARTED,
        *,
        rank: int = 0,
        host: str = "",
        n_workers: int = 1,
        now: float | None = None,
    ) -> None:
        self._path = folder / TRACE
        # Whom, what as it travelled, when: converted only when it is written, all at once.
        self._assigns: list[tuple[int, bytes, float]] = []
        self._results: list[tuple[int, bytes, float, float]] = []
        self._notes: list[dict[str, Any]] = []
        self._descriptor = -1
        self._is_full = False
        self._room, self._notes_room = MOST_BYTES, MOST_NOTES_BYTES
        try:
            self._open()
        except OSError:
            self._give_up()
        about = {"rank": rank, "host": host, "n_workers": n_workers, "wall": time.time()}
        self.note(What.BEGAN, time.monotonic() if now is None else now, cause=cause.value, **about)
        self.flush()

    def _open(self) -> None:
        """Go on behind the last whole block, or begin anew where there is nothing to go on with."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        content = self._path.read_bytes()
        whole = HEAD.size
        try:
            check_head(content[: HEAD.size], self._path)
            for _, _, stop in split_blocks(content, self._path):
                whole = stop
        except UsageError:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, encode_head())
        else:
            os.ftruncate(self._descriptor, whole)
        self._room -= whole

    def sent(self, rank: int, assigns: bytes, now: float) -> None:
        """Add what was handed out to a rank at time `now`: records of `mpims.runtime.wire.ASSIGNMENTS`."""
        if not self._is_full:
            self._assigns.append((rank, assigns, now))

    def delivered(self, rank: int, results: bytes, now: float, service_s: float) -> None:
        """Add what one message delivered.

        Parameters
        ----------
        rank
            Who sent it.
        results
            Records of `mpims.runtime.wire.RESULTS`.
        now
            When it came.
        service_s
            Seconds that the master spent on it.
        """
        if not self._is_full:
            self._results.append((rank, results, now, service_s))
            if len(self._results) >= _MOST_WAITING:
                self.flush()

    def note(self, what: What, now: float, **about: Any) -> None:
        """Add what happened at time `now`."""
        if self._descriptor >= 0:
            self._notes.append({"what": what.value, "t": now, **about})

    def flush(self) -> None:
        """Write what was added."""
        if self._descriptor < 0:
            return
        records = b""
        if self._assigns:
            records += encode_block(b"SENT", self._packed_assigns().tobytes())
        if self._results:
            records += encode_block(b"PART", self._packed_results().tobytes())
        self._room -= len(records)
        if self._room < 0 and not self._is_full:
            self._is_full, records = True, b""
            self.note(What.FULL, self._results[-1][2] if self._results else self._assigns[-1][2])
        notes = encode_notes(self._notes) if self._notes else b""
        self._assigns, self._results, self._notes = [], [], []
        self._notes_room -= len(notes)
        if self._notes_room < 0:
            notes = b""
        self._write(notes + records)

    def _write(self, blocks: bytes) -> None:
        try:
            if blocks and os.write(self._descriptor, blocks) < len(blocks):
                self._give_up()  # the disk is full: nothing is to follow a block that is not whole
        except OSError:
            self._give_up()

    def _packed_assigns(self) -> NDArray[np.void]:
        ranks, assigns, sent_s = zip(*self._assigns, strict=True)
        counts = [len(its) // ASSIGNMENTS.itemsize for its in assigns]
        handed_out = np.frombuffer(b"".join(assigns), ASSIGNMENTS)
        n_chunks = -((handed_out["start"] - handed_out["stop"]) // handed_out["size"])
        chunks = np.repeat(handed_out, n_chunks)
        index = np.arange(len(chunks)) - np.repeat(np.cumsum(n_chunks) - n_chunks, n_chunks)
        records = np.empty(len(chunks), SENT)
        records["attempt"] = chunks["attempt"] + index
        records["start"] = chunks["start"] + index * chunks["size"]
        records["stop"] = np.minimum(records["start"] + chunks["size"], chunks["stop"])
        records["rank"] = np.repeat(np.repeat(ranks, counts), n_chunks)
        records["sent_s"] = np.repeat(np.repeat(sent_s, counts), n_chunks)
        return records

    def _packed_results(self) -> NDArray[np.void]:
        ranks, results, received_s, service_s = zip(*self._results, strict=True)
        counts = [len(its) // RESULTS.itemsize for its in results]
        delivered = np.frombuffer(b"".join(results), RESULTS)
        records = np.empty(len(delivered), PART)
        for name in ("attempt", "start", "stop", "busy_s", "squares_s2", "ended_s"):
            records[name] = delivered[name]
        records["longest_s"] = delivered["longest_block_s"]
        records["rank"] = np.repeat(ranks, counts)
        records["received_s"] = np.repeat(received_s, counts)
        records["service_s"] = np.repeat(np.divide(service_s, counts), counts)
        return records

    def close(self) -> None:
        """Write the rest, and close the file."""
        self.flush()
        self._give_up()

    def _give_up(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._is_full = True
