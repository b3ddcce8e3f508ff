"""How far a run is: one line, renewed on a terminal; in a file one now and then, at first more often."""

from __future__ import annotations

import os
import platform
import sys
from typing import TextIO

TERMINAL_INTERVAL_S = 0.5
FIRST_LOG_INTERVAL_S = 5.0
LOG_INTERVAL_S = 30.0
TERMINAL = "MPIMS_TERMINAL"
"""Environment variable of ranks that a launcher started from a terminal: ``HOST:DEVICE``.

Launchers hand on only whole lines, so that a line that is renewed has to go there directly.
"""


class NoProgress:
    """Says nothing."""

    def begin(self, n_items: int, n_workers: int, now: float) -> None:
        """The run begins at time `now` (monotonic seconds)."""

    def update(self, n_done: int, n_joined: int, now: float) -> None:
        """So many items are done and so many workers have joined."""

    def note(self, text: str) -> None:
        """Something happened that the user wants to know."""

    def end(self) -> None:
        """The run is over."""


class TextProgress(NoProgress):
    """Writes to a stream: in place on a terminal, else lines after 5, 10, 20, 40, 70 s and so on.

    Parameters
    ----------
    stream
        Where to; by default the user's terminal, or standard error if there is none.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = open_terminal(os.environ.get(TERMINAL)) or sys.stderr if stream is None else stream
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
        fields = self._fields(n_done, n_joined, now - self._began)
        if self._on_terminal:
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            self._stream.write("\r\x1b[K" + fitted(fields, columns - 1))
            self._shown = True
        else:
            self._stream.write(f"mpims: {'  '.join(fields)}\n")
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

    def note(self, text: str) -> None:
        clear = "\r\x1b[K" if self._shown else ""
        self._stream.write(f"{clear}mpims: {text}\n")
        self._stream.flush()

    def end(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def fitted(fields: list[str], width: int) -> str:
    """As many of the fields as fit, whole, the first ones first.

    Examples
    --------
    >>> fitted(["60%", "about 40 s left", "600/1,000 items"], 25)
    '60%  about 40 s left'
    """
    kept = list(fields)
    while len(kept) > 1 and len("  ".join(kept)) > width:
        del kept[-1]
    return "  ".join(kept)[:width]


def name_terminal(stream: TextIO) -> str | None:
    """What the variable `TERMINAL` is to say for that stream; None if it leads to no terminal."""
    try:
        return f"{platform.node()}:{os.ttyname(stream.fileno())}"
    except OSError:
        return None


def open_terminal(name: str | None) -> TextIO | None:
    """Open what `name_terminal` named, if it is on this host."""
    host, _, device = (name or "").partition(":")
    if host != platform.node() or not device:
        return None
    try:
        return open(os.open(device, os.O_WRONLY | os.O_NOCTTY), "w", encoding="utf-8")
    except OSError:
        return None


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
