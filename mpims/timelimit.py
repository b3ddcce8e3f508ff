"""When a run has to have ended: as the user says, or as SLURM does, whichever is sooner."""

from __future__ import annotations

import os
import time

from mpims.errors import UsageError
from mpims.slurm.allocation import find_allocation, find_end_time

RESERVE_S = 10.0
"""Kept free before the end, for the journal and for the launcher to end."""
LAST_S = 5.0
"""Of that, results may take so long that are late."""


def find_end(given_s: float | None) -> float | None:
    """When the run has to have ended, Unix time; None if nothing limits it.

    Parameters
    ----------
    given_s
        What the user says, Unix time.

    Raises
    ------
    UsageError
        It is past, or so soon that nothing could be computed.
    """
    now_s = time.time()
    if given_s is not None and given_s <= now_s:
        raise UsageError(
            f"the run was to have ended {now_s - given_s:,.0f} s ago, by end_time_s: give a time to come"
        )
    if given_s is not None and given_s - now_s <= RESERVE_S:
        raise UsageError(
            f"the run ends in {given_s - now_s:.0f} s, and the last {RESERVE_S:g} s are kept free for its "
            "journal and its launcher: give it more time"
        )
    allocation = find_allocation(os.environ)
    ends = [given_s, find_end_time(allocation, now_s) if allocation is not None else None]
    return min((end_s for end_s in ends if end_s is not None), default=None)


def computing_ends_at(end_time_s: float | None, end_at: float | None = None) -> float | None:
    """When computing has to have ended, monotonic seconds.

    Parameters
    ----------
    end_time_s
        When the run has to have ended, Unix time; None if nothing limits it.
    end_at
        The same in monotonic seconds, where it was taken before: the clock of the day may be set meanwhile.
    """
    if end_at is None and end_time_s is not None:
        end_at = time.monotonic() + end_time_s - time.time()
    return None if end_at is None else end_at - RESERVE_S
