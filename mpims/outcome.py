"""What a run gave, for the program that ran it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpims.errors import ExitStatus

if TYPE_CHECKING:
    from mpims.report.summary import Summary


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave.

    Attributes
    ----------
    value
        The job's result; a gathered array is mapped from its file.
    summary
        The contents of ``summary.json``.
    run_dir
        The run directory.
    """

    value: Any
    summary: Summary
    run_dir: Path

    @property
    def exit_status(self) -> ExitStatus:
        """Done, or done without the items that were skipped."""
        return ExitStatus.SKIPPED if self.summary.get("n_skipped") else ExitStatus.DONE
