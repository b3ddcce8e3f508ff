"""Whether the run directory is one for all nodes: found at the start, and not when it is needed."""

from __future__ import annotations

import time
from pathlib import Path

from mpims.errors import UsageError
from mpims.report.wording import name_rank
from mpims.runtime.wire import Start

_MANIFEST = "manifest.json"  # as in storage.rundir, which brings more than a worker runs
_PATIENCE_S = 3.0
"""A network file system may show a new file late; but what is found must be said by `GOODBYE_WAIT_S`."""
_POLL_S = 0.2


def check_shared(start: Start, rank: int, host: str) -> None:
    """Make sure that this rank sees the run directory that the master works in.

    One of its ranks may have to go on as the master; and what lies on one node alone is lost with it, or
    is not there when the run is resumed on others.

    Raises
    ------
    UsageError
        This is another host than the master's, and that run is not in the directory here.
    """
    until = time.monotonic() + _PATIENCE_S
    while start.master.host != host and not _holds_run(Path(start.run_dir), start.run_id):
        if time.monotonic() > until:
            raise UsageError(
                f"run directory {start.run_dir} of the master ({start.master.host}) is not the same on "
                f"{name_rank(rank, host)}: put it on a file system that all nodes share, with --run-dir"
            )
        time.sleep(_POLL_S)


def _holds_run(folder: Path, run_id: str) -> bool:
    """Whether the manifest of this run is there, and not that of another."""
    try:
        return run_id in (folder / _MANIFEST).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
