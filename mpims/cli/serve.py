"""What the ranks other than 0 do: compute for the master until they are dismissed."""

from __future__ import annotations

import os
import signal
import sys

from mpims.errors import ExitStatus, MpimsError
from mpims.session import connect, job_from_start, serve
from mpims.world import STOP_SIGNAL


def serve_command() -> int:
    """Serve run after run; the master tells the user what happened, and with which status."""
    for number in (signal.SIGINT, STOP_SIGNAL):
        signal.signal(number, signal.SIG_IGN)  # they reach every rank; the master decides
    os.dup2(2, 1)  # standard output is rank 0's, where --json prints
    try:
        transport = connect()
    except MpimsError:
        return ExitStatus.DONE  # rank 0 has the same error, and says so
    while transport is not None:
        try:
            if not serve(transport, job_from_start):
                break
        except MpimsError as error:
            if 0 in transport.lost:
                if transport.rank == min(set(range(transport.size)) - transport.lost):
                    print(f"mpims: {error.message}: the run ends", file=sys.stderr, flush=True)
                return error.exit_status
    return ExitStatus.DONE
