"""What a run gave, for the program that ran it, and for others later."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpims.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from mpims.loading import JobSource
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


def load(run_dir: str | os.PathLike[str]) -> Any:
    """The result of a run that is done.

    That is also read where it is made of classes that the job's file defines: ``pickle`` alone knows
    nothing of that file.

    Parameters
    ----------
    run_dir
        The run directory.

    Returns
    -------
    Any
        As `Outcome.value`: a gathered array is mapped from its file.

    Raises
    ------
    UsageError
        There is no run, it is not done, or its result cannot be read.
    """
    from mpims.storage.manifest import check_computed
    from mpims.storage.results import read_result
    from mpims.storage.rundir import MANIFEST, as_argument, read_job, read_json, read_summary

    folder = Path(run_dir)
    check_computed(read_json(folder / MANIFEST), folder)
    summary = read_summary(folder)
    if summary is None or summary["status"] != "done":
        raise UsageError(f"run {folder} is not done: python -m mpims status {as_argument(folder)}")
    path = folder / Path(summary["result_file"]).name  # the folder may have been moved
    source: JobSource | None = read_job(folder)["source"] if path.suffix == ".pkl" else None
    if source is not None:
        _make_known(source)
    return read_result(path)


@lru_cache(maxsize=1)  # so that values of two runs are of one class, if their job is one
def _make_known(source: JobSource) -> None:
    """Let pickle find what the job's file defines."""
    from mpims.loading import load_job_class

    load_job_class(source)
