"""Who is there when nobody is: since when no rank is in service, and when the master computes itself."""

from __future__ import annotations

from collections.abc import Mapping

from mpims.core.deadlines import FLOOR_S
from mpims.core.events import Action, Hire
from mpims.core.silence import Silence
from mpims.core.workers import WorkerState

STARTUP_PATIENCE = 10.0
"""Ranks that have yet to join are waited for so many deadlines before the master computes itself."""


class Desertion:
    """The watch over a run that no rank is in service of.

    Parameters
    ----------
    workers, silence
        The ranks that have joined and are not lost, and how long one may be silent.
    n_expected
        Ranks expected to join.

    Attributes
    ----------
    n_expected
        Ranks that are there or may yet join.
    """

    __slots__ = ("_hired", "_silence", "_since", "_workers", "n_expected")

    def __init__(self, workers: Mapping[int, WorkerState], silence: Silence, n_expected: int) -> None:
        self._workers = workers
        self._silence = silence
        self._since: float | None = None
        self._hired = False
        self.n_expected = n_expected

    def note(self, now: float) -> None:
        """Remember since when no rank is in service; ranks that have yet to join are not there."""
        if any(not worker.suspect for worker in self._workers.values()):
            self._since = None
        elif self._since is None:
            self._since = now

    def end(self) -> None:
        """A rank is in service."""
        self._since = None

    def shift(self, duration_s: float) -> None:
        """The master did not listen for so long, which does not count."""
        if self._since is not None:
            self._since += duration_s

    def hire_at(self) -> float | None:
        """When the master is to compute itself, if nothing changes."""
        if self._since is None or self._hired:
            return None
        allowance = self._silence.allowance_s or FLOOR_S
        all_joined = len(self._workers) >= self.n_expected
        return self._since + allowance * (1.0 if all_joined else STARTUP_PATIENCE)

    def hire(self) -> list[Action]:
        """Let the master compute itself, once."""
        if self._hired:
            return []
        self._hired = True
        self.n_expected += 1
        return [Hire()]
