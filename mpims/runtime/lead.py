"""What a worker brings along when it becomes the master."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mpims.job import Job
from mpims.runtime.wire import Message, Start


class Lead(NamedTuple):
    """A worker that is to be the master, for the one before is dead.

    Attributes
    ----------
    start
        What the one before said; None if it died before it could.
    job, items
        As this rank has them.
    inheritance
        What this rank had computed for it.
    is_stopping
        The one before had said that the run is to stop.
    end_at
        When the run has to have ended (monotonic seconds of this rank), as it was when the job came;
        None if nothing limits it.
    """

    start: Start | None = None
    job: Job | None = None
    items: Sequence[Any] = ()
    inheritance: tuple[Message, ...] = ()
    is_stopping: bool = False
    end_at: float | None = None
