"""How far a run is: one line, renewed on a terminal; in a file one now and then, at first more often."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

TERMINAL_INTERVAL_S = 0.5
FIRST_LOG_INTERVAL_S = 5.0
LOG_INTERVAL_S = 30.0


class NoProgress:
    """Says nothing."""

    def begin(self, n_items: int, n_workers: int, now: float) -> None:
        """The run begins at time `now` (monotonic seconds)."""

    def update(self, n_done: int, n_joined: int, now: float) -> None:
        """So many items are done and so many workers have joined."""

    def end(self) -> None:
        """The run is over."""


class TextProgress(NoProgress):
    """Writes to a stream: in place on a terminal, else lines after 5, 10, 20, 40, 70 s and so on."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._n_items = self._n_workers = 0
        self._began = self._next = 0.0
        self._shown = False

    def begin(self, n_items: int, n_workers: int, now: float) -> None:
        self._n_items, self._n_workers = n_items, n_workers
        self._began = now
        self._next = now + self._interval_s(0.0)

    def _interval_s(self, elapsed_s: float) -> float:
        if self._on_terminal:
            return TERMINAL_INTERVAL_S
        return min(max(elapsed_s, FIRST_LOG_INTERVAL_S), LOG_INTERVAL_S)

    def update(self, n_done: int, n_joined: int, now: float) -> None:
        if now < self._next:
            return
        self._next = now + self._interval_s(now - self._began)
        self._write(self._line(n_done, n_joined, now - self._began))

    def _line(self, n_done: int, n_joined: int, elapsed_s: float) -> str:
        line = f"{n_done / self._n_items:4.0%}  {n_done:,}/{self._n_items:,} items"
        if n_done:
            rate = n_done / elapsed_s
            left_s = (self._n_items - n_done) / rate
            line += f"  {rate:,.4g} items/s  {duration(elapsed_s)} gone, about {duration(left_s)} left"
        else:
            line += f"  {duration(elapsed_s)} gone"
        if n_joined < self._n_workers:
            line += f"  ({n_joined} of {self._n_workers} workers ready)"
        return line

    def _write(self, line: str) -> None:
        if self._on_terminal:
            width = shutil.get_terminal_size().columns
            self._stream.write("\r\x1b[K" + line[: width - 1])
            self._shown = True
        else:
            self._stream.write(f"mpims: {line.strip()}\n")
        self._stream.flush()

    def end(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


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
