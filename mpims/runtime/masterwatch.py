"""How a worker that waits finds out that its master hangs, and what it does about it.

A master answers at once, whatever it does, but for the end of the run with the user's `finish`, before
which it says CLOSING: from then on only a process that is halted, as seen from its own host, is hung. A
worker that has nothing to compute asks it now and then (PING), and takes a silence for a hang that is
longer than a block may take: then the next master may be a rank that is still in its block. One that
gives a sign that it is at work (`mpims.runtime.busysign`) gets more time. A master that hangs is killed
by a worker of its host; so all others notice that it is dead, and one takes over.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from mpims.errors import Stopped
from mpims.processes import Process, is_alive, is_halted, send_signal
from mpims.report.wording import name_rank
from mpims.runtime.busysign import last_shown
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Kind, Start
from mpims.streams import say

PINGS_PER_PATIENCE = 4
LONGEST_INTERVAL_S = 1.0
MIN_PINGS = 2
"""So many must have been left unanswered before a master counts as hung."""
MOST_SPARED = 10
"""A master that is at work while it is silent is spared so many times."""
LIVENESS_INTERVAL_S = 1.0
MAX_FENCES = 3
"""After so many attempts to end a silent master the run is ended."""


class MasterSilent(Stopped):
    """The master hangs and cannot be ended; the run is, and can be resumed."""


class MasterWatch:
    """One worker's view of its master's silence.

    Only time in which this rank listened counts: it may have been suspended itself.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._looked = time.monotonic()
        self._silence_s = 0.0
        self._n_pings = 0
        self._is_closing = False
        self._n_fences = self._n_spared = 0
        self._sign: int | None = None  # that was there at the first unanswered PING
        self._heard = self._checked = self._looked
        self.interval_s = LONGEST_INTERVAL_S

    @property
    def unheard_s(self) -> float:
        """How long ago the master spoke, or died."""
        return time.monotonic() - self._heard

    def is_done(self, start: Start) -> bool:
        """Whether the master was at the end of the run, and has written down that all is done."""
        if not self._is_closing:
            return False
        summary = _read(Path(start.run_dir, "summary.json"))
        return isinstance(summary, dict) and summary.get("status") == "done"

    def heard(self) -> None:
        """The master has spoken, or there is a new one to come."""
        self._n_fences = self._n_spared = 0
        self._is_closing = False
        self.busy()
        self._heard = self._looked

    def busy(self) -> None:
        """This rank computes: it does not wait for the master."""
        self._looked = time.monotonic()
        self._silence_s = 0.0
        self._n_pings = 0

    def closing(self) -> None:
        """The master is at the end of the run, and may be silent as long as it runs."""
        self._is_closing = True

    def idle(self, master: int | None, start: Start | None, patience_s: float) -> None:
        """This rank waits; `master` is None between two.

        Raises
        ------
        MasterSilent
            The master is silent, and cannot be ended from here.
        """
        now = time.monotonic()
        if start is None or (self._is_closing and not is_halted(start.master)):
            self.busy()
            return
        self._silence_s += min(now - self._looked, self.interval_s)
        self._looked = now
        self.interval_s = min(LONGEST_INTERVAL_S, patience_s / PINGS_PER_PATIENCE)
        silent = min(self._transport.alive) if master is None else master
        if self._silence_s > patience_s and (self._is_closing or self._n_pings >= MIN_PINGS):
            self.busy()
            if (
                not self._is_closing
                and self._n_spared < MOST_SPARED
                and last_shown(start.run_dir) != self._sign
            ):
                self._n_spared += 1
            else:
                self._fence(silent, start if master is not None else None, start.run_dir, patience_s)
        elif not self._is_closing and self._silence_s > (1 + self._n_pings) * self.interval_s:
            if not self._n_pings:
                self._sign = last_shown(start.run_dir)
            self._n_pings += 1
            self._transport.send(silent, Kind.PING)

    def left(self, master: int | None, start: Start | None) -> int | None:
        """The rank that is waited for, if it has left without MPI noticing, as by ``exit()`` in C.

        That is the master, or the one to come. It is looked for now and then, on this host.
        """
        now = time.monotonic()
        if (
            start is None
            or not self._transport.survives_deaths
            or now - self._checked < LIVENESS_INTERVAL_S
        ):
            return None
        self._checked = now
        rank, process = master, start.master if master is not None else None
        if rank is None:
            rank = min(self._transport.alive)
            process = _process_of_rank(rank, Path(start.run_dir))
        return rank if process is not None and is_alive(process) is False else None

    def _fence(self, rank: int, start: Start | None, run_dir: str, patience_s: float) -> None:
        """End a silent rank, so that everybody knows that it is dead."""
        self._n_fences += 1
        process = start.master if start is not None else _process_of_rank(rank, Path(run_dir))
        silent = name_rank(rank, process.host if process is not None else None)
        if self._n_fences > MAX_FENCES or not self._transport.survives_deaths:
            from mpims.report.announcement import resume_command  # for this line alone

            in_program = start is not None and start.source is None
            raise MasterSilent(
                f"{silent}, the master, has been silent for {patience_s:g} s: the run is ended; "
                f"resume with: {resume_command(Path(run_dir), self._transport.size, in_program=in_program)}"
            )
        if process is not None and send_signal(process, signal.SIGKILL):
            say(
                f"{silent}, the master, has been silent for {patience_s:g} s: "
                "it is killed, and another takes over"
            )


def _process_of_rank(rank: int, run_dir: Path) -> Process | None:
    """Who a rank is, as far as its manifest says."""
    try:
        return Process.from_dict(_read(run_dir / "manifest.json")["ranks"][str(rank)])
    except (ValueError, KeyError, TypeError):
        return None


def _read(path: Path) -> Any:
    """What a file of the run directory says; None if it cannot be read."""
    import json  # for this line alone

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
