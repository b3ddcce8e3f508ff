"""How far a run is: one line, renewed on a terminal; in a file one now and then, at first more often."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

TERMINAL_INTERVAL_S = 0.5
FIRST_LOG_INTERVAL_S = 5.0
LOG_INTERVAL_S = 30.0
TERMINAL_COLUMNS = "MPIMS_TERMINAL_COLUMNS"
"""Environment variable of ranks whose output reaches a terminal through the launcher: its width."""


class NoProgress:
    """Says nothing."""

    def begin(self, n_items: int, n_workers: int, now: float) -> None:
        """The run begins at time `now` (monotonic seconds)."""

    def update(self, n_done: int, n_joined: int, now: float) -> None:
        """So many items are done and so many workers have joined."""

    def end(self) -> None:
        """The run is over."""


class TextProgress(NoProgress):
    """Writes to a stream: in place on a terminal, else lines after 5, 10, 20, 40, 70 s and so on.

    Parameters
    ----------
    stream
        Where to; by default standard error.
    columns
        The width of the terminal, None if it is none; by default found out.
    """

    def __init__(self, stream: TextIO | None = None, columns: int | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._columns = columns or terminal_columns(self._stream)
        self._n_items = self._n_workers = 0
        self._began = self._next = 0.0
        self._shown = False

    def begin(self, n_items: int, n_workers: int, now: float) -> None:
        self._n_items, self._n_workers = n_items, n_workers
        self._began = now
        self._next = now + self._interval_s(0.0)

    def _interval_s(self, elapsed_s: float) -> float:
        if self._columns is not None:
            return TERMINAL_INTERVAL_S
        return min(max(elapsed_s, FIRST_LOG_INTERVAL_S), LOG_INTERVAL_S)

    def update(self, n_done: int, n_joined: int, now: float) -> None:
        if now < self._next:
            return
        self._next = now + self._interval_s(now - self._began)
        fields = self._fields(n_done, n_joined, now - self._began)
        if self._columns is None:
            self._stream.write(f"mpims: {'  '.join(fields)}\n")
        else:
            while len(fields) > 1 and len("  ".join(fields)) >= self._columns:
                del fields[-1]
            self._stream.write("\r\x1b[K" + "  ".join(fields)[: self._columns - 1])
            self._shown = True
        self._stream.flush()

    def _fields(self, n_done: int, n_joined: int, elapsed_s: float) -> list[str]:
        """What there is to say, the most important first: a narrow terminal shows only that."""
        fields = [f"{n_done / self._n_items:.0%}"]
        if n_joined < self._n_workers:
            fields.append(f"{n_joined} of {self._n_workers} workers ready")
        if n_done:
            fields.append(f"about {duration(elapsed_s * (self._n_items - n_done) / n_done)} left")
        fields.append(f"{n_done:,}/{self._n_items:,} items")
        fields.append(f"{duration(elapsed_s)} gone")
        if n_done:
            fields.append(f"{n_done / elapsed_s:,.4g} items/s")
        return fields

    def end(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def terminal_columns(stream: TextIO) -> int | None:
    """The width of the terminal that a stream leads to in the end; None if to none."""
    if TERMINAL_COLUMNS in os.environ:
        return int(os.environ[TERMINAL_COLUMNS])
    return shutil.get_terminal_size().columns if stream.isatty() else None


def duration(seconds: float) -> str:
    """A duration for people.

    Examples
    --------
    >>> duration(0.0123), duration(5.25), duration(75), duration(7300)
    ('0.012 s', '5.2 s', '1:15', '2:01:40')
    """
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
