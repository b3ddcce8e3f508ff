"""What a batch system gave."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from mpims.doctor.finding import Finding, Verdict
from mpims.errors import UsageError
from mpims.report.wording import counted
from mpims.slurm.allocation import Allocation, find_allocation, find_end_time

THEME = "batch system"
_SHORT_S = 300.0


def batch_findings(environ: Mapping[str, str]) -> list[Finding]:
    """The allocation of SLURM that this process is in, and how much of its time is left."""
    try:
        allocation = find_allocation(environ)
        if allocation is None:
            return [Finding(THEME, "SLURM", "not in an allocation")]
        end_time_s = find_end_time(allocation)
    except UsageError as error:
        what, _, cure = error.message.partition(": ")
        return [Finding(THEME, "SLURM", what, Verdict.BAD, cure)]
    left_s = None if end_time_s is None else end_time_s - time.time()
    return [judge_allocation(allocation, left_s)]


def allocation_in(environ: Mapping[str, str]) -> Allocation | None:
    """The allocation that this process is in; None if what SLURM says of it cannot be read."""
    with suppress(UsageError):
        return find_allocation(environ)
    return None


def judge_allocation(allocation: Allocation, left_s: float | None) -> Finding:
    """What was allocated, and whether time is left to compute; None: for how long is not known."""
    nodes, tasks = counted(len(allocation.nodes), "node"), counted(allocation.n_tasks, "task")
    left = "its end is not known" if left_s is None else f"{left_s / 60:,.0f} min left"
    value = f"job {allocation.job_id}: {nodes}, {tasks}, {left}"
    figures = {**allocation.as_dict(), "nodes": list(allocation.nodes), "left_s": left_s}
    if left_s is not None and left_s < _SHORT_S:
        cure = "resume what does not get done (mpims resume), or ask for more with --time"
        return Finding(THEME, "SLURM", value, Verdict.DOUBTFUL, cure, figures)
    return Finding(THEME, "SLURM", value, figures=figures)
