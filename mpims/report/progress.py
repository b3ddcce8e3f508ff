"""How far a run is, told while it goes on: to a terminal, to a log file, and to who reads ``status.json``.

::

    master --look()--> Sight --> Status --+--> a view: the display of a terminal, or lines in a log
                                          +--> RUN/status.json

All of it costs a fixed share of the time at the most: what took long is done less often.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from mpims.processes import this_process
from mpims.report.pace import Pace
from mpims.report.status import Sight, Status, write_status
from mpims.report.views import LogLines, View
from mpims.report.wording import name_ranks

STATUS_INTERVAL_S = 5.0
"""``status.json`` is written this often, or as often as the log, and sooner at first ..."""
LEAST_STATUS_INTERVAL_S = 1.0
"""... but no more often than this."""
LOOK_SHARE = 1 / 250
WRITE_SHARE = 1 / 1000
"""Looking and showing, and writing the file, cost so much of the master's time at the most."""
TERMINAL = "MPIMS_TERMINAL"
"""Environment variable of ranks that a launcher started from a terminal: ``HOST:DEVICE``.

Launchers hand on only whole lines, so that a display that is renewed has to go there directly.
"""


class NoProgress:
    """Says nothing."""

    def begin(self, look: Callable[[], Sight], now: float) -> None:
        """The run begins at time `now` (monotonic seconds); `look` gives what the master sees."""

    def update(self, now: float) -> None:
        """Time has passed."""

    def note(self, text: str) -> None:
        """Something happened that the user wants to know at once."""

    def happened(self, text: str) -> None:
        """Something happened that is shown until something else does."""

    def end(self, now: float) -> None:
        """The run is over."""


class Progress(NoProgress):
    """Looks at the run now and then, and tells what it sees.

    Parameters
    ----------
    make_view
        Makes what shows it, when the run begins: a display takes a moment to import.
    job
        The job as text.
    n_ranks
        How many ranks were started.
    path
        The file for the status; None writes none.
    status_every_s
        How often it is written.
    end_time_s
        When the allocation ends, Unix time; None if it does not, or that is not known.
    hosts
        Of ranks that joined a master before this one.
    cpu_clock, clock
        Give the seconds that this thread has computed, and those that have passed.
    """

    def __init__(
        self,
        make_view: Callable[[], View],
        *,
        job: str,
        n_ranks: int,
        path: Path | None = None,
        status_every_s: float = STATUS_INTERVAL_S,
        end_time_s: float | None = None,
        hosts: Mapping[int, str] = MappingProxyType({}),
        cpu_clock: Callable[[], float] = time.thread_time,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._make_view, self._view = make_view, View()
        self._job, self._n_ranks = job, n_ranks
        self._path = path
        self._status_every_s = status_every_s
        self._end_time_s = end_time_s
        self._hosts = hosts
        self._cpu_clock, self._clock = cpu_clock, clock
        self._look: Callable[[], Sight] | None = None
        self._pace = Pace()
        self._process = this_process().as_dict()
        self._last = ""
        self._last_at: float | None = None
        self._suspects: set[int] = set()
        self._lost: set[int] = set()
        self._began = self._now = self._next = self._write_at = 0.0

    def begin(self, look: Callable[[], Sight], now: float) -> None:
        sight = look()
        self._look, self._view = look, self._make_view()
        self._suspects, self._lost = set(sight.suspects), set(sight.lost)
        self._began = self._now = now
        self._renew(now, sight)

    def update(self, now: float) -> None:
        if now >= self._next and self._look is not None:
            self._renew(now, self._look())

    def _renew(self, now: float, sight: Sight) -> None:
        began_s = self._cpu_clock()
        self._note_changes(sight)
        status = self._see(sight, now)
        self._tell(lambda view: view.show(status))
        if now >= self._write_at:
            self._write(status)
        cost_s = self._cpu_clock() - began_s
        self._next = now + max(self._view.interval_s, cost_s / LOOK_SHARE)

    def _see(self, sight: Sight, now: float) -> Status:
        pace, figures, written_at = self._pace, sight.figures, time.time()
        pace.add(now, sight.n_done, sum(figures["busy_s"].values()))
        self._now = now
        return Status(
            job=self._job,
            n_items=sight.n_items,
            n_done=sight.n_done,
            n_skipped=figures["n_skipped"],
            work=pace.work(sight.n_items),
            rate=pace.rate,
            elapsed_s=now - self._began,
            left_s=pace.left_s(sight.n_items),
            walltime_left_s=None if self._end_time_s is None else self._end_time_s - written_at,
            n_ranks=self._n_ranks,
            n_workers=sight.n_workers,
            n_joined=sight.n_joined,
            n_busy=sight.n_busy,
            suspects={str(rank): host for rank, host in self._hosts_of(sight.suspects, sight).items()},
            lost={str(rank): host for rank, host in self._hosts_of(sight.lost, sight).items()},
            n_chunks=figures["n_chunks"],
            n_reissued=figures["n_reissued"],
            n_failures=figures["n_failures"],
            n_timeouts=figures["n_timeouts"],
            last=self._last,
            last_at=self._last_at,
            process=self._process,
            written_at=written_at,
        )

    def _hosts_of(self, ranks: Collection[int], sight: Sight) -> dict[int, str]:
        """Where ranks are, or were; nothing for one that never joined."""
        return {rank: sight.hosts.get(rank) or self._hosts.get(rank, "") for rank in sorted(ranks)}

    def _write(self, status: Status) -> None:
        """Write the file; what is wrong with the file system the journal will find."""
        if self._path is None:
            return
        began = self._clock()
        with suppress(OSError):
            write_status(self._path, status)
        cost_s = self._clock() - began
        every_s = min(max(self._now - self._began, LEAST_STATUS_INTERVAL_S), self._status_every_s)
        self._write_at = self._now + max(every_s, cost_s / WRITE_SHARE)

    # ----------------------------------------------------------------- what happened

    def _note_changes(self, sight: Sight) -> None:
        """Say which ranks died, fell silent or spoke again since the last look."""
        suspects, lost = set(sight.suspects), set(sight.lost)
        for ranks, what in (
            (lost - self._lost, "lost: what was under way there is computed elsewhere"),
            (
                suspects - self._suspects,
                "silent past the deadline: what was under way there goes to others",
            ),
            (self._suspects - suspects - lost, "heard of again"),
        ):
            if ranks:
                self.note(f"{name_ranks(self._hosts_of(ranks, sight))} {what}")
        self._suspects, self._lost = suspects, lost

    def note(self, text: str) -> None:
        self.happened(text)
        self._tell(lambda view: view.note(text))

    def happened(self, text: str) -> None:
        self._last, self._last_at = text, time.time()

    def end(self, now: float) -> None:
        if self._look is not None:
            sight = self._look()
            self._note_changes(sight)
            self._write(self._see(sight, now))
        self._tell(lambda view: view.end())

    def _tell(self, tell: Callable[[View], None]) -> None:
        """Tell the view; a terminal that is gone, or a full disk under a log, does not end the run."""
        try:
            tell(self._view)
        except OSError:
            self._view = View()


def make_progress(
    *,
    job: str,
    n_ranks: int,
    path: Path,
    log_every_s: float,
    quiet: bool = False,
    end_time_s: float | None = None,
    hosts: Mapping[int, str] = MappingProxyType({}),
) -> Progress:
    """What tells how far a run is, on the user's terminal if there is one, else on standard error.

    Parameters
    ----------
    path
        The file for the status.
    log_every_s
        How often a log gets a line.
    quiet
        Show nothing, and only write the file.
    end_time_s
        When the allocation ends, Unix time; None if that is not known.
    hosts
        Of ranks that joined a master before this one.
    """
    stream: TextIO | None = sys.stderr
    return Progress(
        View
        if quiet or stream is None
        else lambda: make_view(stream, log_every_s, os.environ.get(TERMINAL)),
        job=job,
        n_ranks=n_ranks,
        path=path,
        status_every_s=max(LEAST_STATUS_INTERVAL_S, min(STATUS_INTERVAL_S, log_every_s)),
        end_time_s=end_time_s,
        hosts=hosts,
    )


def make_view(stream: TextIO, every_s: float, terminal_name: str | None = None) -> View:
    """A display if the stream, or what has that name, is a terminal; else lines on the stream.

    Parameters
    ----------
    every_s
        How often there is a line.
    terminal_name
        As `name_terminal` gives it.
    """
    terminal = open_terminal(terminal_name or name_terminal(stream))
    if terminal is None or os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return LogLines(stream, every_s)
    from mpims.report.display import LiveDisplay  # only the master of a run on a terminal shows one

    return LiveDisplay(terminal)


def name_terminal(stream: TextIO) -> str | None:
    """What the variable `TERMINAL` is to say for that stream; None if it leads to no terminal."""
    try:
        return f"{platform.node()}:{os.ttyname(stream.fileno())}"
    except (OSError, ValueError):
        return None


def open_terminal(name: str | None) -> TextIO | None:
    """Open what `name_terminal` named, if it is on this host; to write to it blocks never."""
    host, _, device = (name or "").partition(":")
    if host != platform.node() or not device:
        return None
    try:
        descriptor = os.open(device, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        return open(descriptor, "w", encoding="utf-8")
    except OSError:
        return None
