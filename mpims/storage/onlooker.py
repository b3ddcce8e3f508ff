"""How far a run is, as another process sees it."""

from __future__ import annotations

from pathlib import Path

from mpims.core.ranges import RangeSet
from mpims.storage.commits import parse_ranges
from mpims.storage.records import RESULT_KINDS
from mpims.storage.replay import JournalTail
from mpims.storage.rundir import JOURNAL


class Onlooker:
    """How far a run is, read from its journal by a process that has no part in it.

    Parameters
    ----------
    folder
        The run directory, which may be yet to come.
    """

    def __init__(self, folder: Path) -> None:
        self._tail = JournalTail(folder / JOURNAL)
        self._done = RangeSet()

    def n_done(self) -> int:
        """The number of items that are done or given up by now."""
        for record in self._tail.read():
            if record.kind in RESULT_KINDS:
                for span in parse_ranges(record.payload):
                    self._done.add(*span)
        return self._done.size
