"""What somebody who has no part in a run can tell of it from its directory: does it live, how far is it?

Nothing is written there but, for a moment, a file without a name, which tells the file system's time: the
clocks of machines differ.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mpims.processes import Process, is_alive
from mpims.report.announcement import resume_command
from mpims.report.status import Status, read_status
from mpims.storage.lock import LOCK, STALE_S, read_owner, time_there
from mpims.storage.manifest import check_format
from mpims.storage.rundir import MANIFEST, STATUS, Damaged, read_json, read_summary


class State(Enum):
    """What a run does."""

    STARTING = "starting"
    RUNNING = "running"
    DEAD = "dead"
    """It did not come to its end, and nobody works on it."""
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    SIMULATED = "simulated"
    """It is the trace of `mpims simulate`, and nothing was computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A run as seen from outside.

    Attributes
    ----------
    folder
        The run directory, as the user named it.
    owner
        The master's process, where one holds the run's lock, or held it when it died.
    silence_s
        Seconds since the last sign of life in the run directory, by the file system's clock.
    status, summary
        What ``status.json`` and ``summary.json`` say; the summary only if it is this run's end.
    damage
        What is wrong with the summary, where it cannot be told how the run ended.
    manifest
        What the run is.
    """

    folder: Path
    state: State
    owner: Process | None
    silence_s: float | None
    status: Status | None
    summary: dict[str, Any] | None
    manifest: dict[str, Any]
    damage: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nobody works on it."""
        return self.state not in (State.STARTING, State.RUNNING)

    @property
    def can_resume(self) -> bool:
        """Whether somebody is to go on with it."""
        return self.is_over and self.state not in (State.DONE, State.SIMULATED)

    @property
    def resume(self) -> str:
        """What the user types to go on with it."""
        started = [self.manifest, *self.manifest.get("resumed", ())][-1]
        n_ranks = self.status.n_ranks if self.status is not None else started.get("n_ranks", 1)
        return resume_command(self.folder.absolute(), n_ranks, in_program=self.is_of_program)

    @property
    def is_of_program(self) -> bool:
        """Whether a program began it (`mpims.run`), which alone can go on: nobody typed a command."""
        return self.manifest.get("command") == []


def look_from_outside(folder: Path) -> Outside:
    """Read a run's directory.

    Raises
    ------
    UsageError
        There is no run, or what is in its directory, but for the summary, is damaged or of another
        version.
    """
    manifest = read_json(folder / MANIFEST)
    check_format(manifest, folder)
    owner = read_owner(folder)  # before the summary: it is written before the lock is given back
    is_locked = (folder / LOCK).exists()
    summary, damage = None, ""
    try:
        summary = read_summary(folder)
    except Damaged as error:
        damage = error.message
    silence_s = _silence_s(folder)
    if is_locked and _locked_state(owner, silence_s) is State.DEAD and _is_whole(folder, summary):
        is_locked = False  # its owner came to the end, but not to giving it back
    status = read_status(folder / STATUS) if is_locked or summary is None else None
    state = _locked_state(owner, silence_s) if is_locked else _ended_state(summary)
    if manifest.get("simulated"):
        state = State.SIMULATED
    if state is State.RUNNING and (status is None or status.process != (owner and owner.as_dict())):
        state = State.STARTING
    return Outside(
        folder=folder,
        state=state,
        owner=owner if is_locked else None,
        silence_s=silence_s,
        status=status,
        summary=None if is_locked else summary,
        manifest=manifest,
        damage="" if is_locked else damage,
    )


def _is_whole(folder: Path, summary: dict[str, Any] | None) -> bool:
    """Whether a run is done, and its result is there: one that is lost is made anew on resuming."""
    if summary is None or summary["status"] != "done":
        return False
    return (folder / Path(summary["result_file"]).name).exists()


def _ended_state(summary: dict[str, Any] | None) -> State:
    ended = (summary or {}).get("status")
    return State(ended) if ended in ("done", "stopped", "failed") else State.DEAD


def _locked_state(owner: Process | None, silence_s: float | None) -> State:
    """A lock that is there was not given back: its owner lives, or died with it."""
    alive = None if owner is None else is_alive(owner)
    if alive is None:  # on another machine: what it writes shows that it lives
        alive = silence_s is not None and silence_s < STALE_S
    return State.RUNNING if alive else State.DEAD


def _silence_s(folder: Path) -> float | None:
    """Seconds since the master touched its lock or wrote its status."""
    moments = []
    for name in (LOCK, STATUS):
        try:
            moments.append(os.stat(folder / name).st_mtime)
        except OSError:
            continue
    if not moments:
        return None
    try:
        now = time_there(folder)
    except OSError:  # nothing may be written there
        now = time.time()
    return max(0.0, now - max(moments))
