"""What the ranks other than 0 do: compute for the master until they are dismissed."""

from __future__ import annotations

import os
import signal
import sys

from mpims.errors import ExitStatus, MpimsError
from mpims.job import Job
from mpims.loading import make_job
from mpims.processes import die_where_the_users_code_exits
from mpims.runtime.lead import Lead
from mpims.runtime.masterwatch import MasterSilent
from mpims.runtime.stopping import leave_signals_to_master
from mpims.runtime.wire import End, Start
from mpims.session import connect, dismiss_workers, serve
from mpims.streams import say
from mpims.world import STOP_SIGNAL, is_status_told, report_status

LEAVE_S = 30
"""All ranks leave within this time, once they are dismissed."""


def serve_command() -> int:
    """Serve run after run; the master tells the user what happened, and with which status.

    If the master dies and this rank is the next, it does what rank 0 would have done.
    """
    leave_signals_to_master()
    # Of this one it is remembered that it came: a master may die before it could act on it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {STOP_SIGNAL})
    output = os.dup(1)
    os.dup2(2, 1)  # standard output is rank 0's, where --json prints
    try:
        transport = connect(share=False)
    except MpimsError:
        return ExitStatus.DONE  # rank 0 has the same error, and says so
    die_where_the_users_code_exits()
    ended: End | None = None
    last = Lead()

    def make_its_job(start: Start) -> Job:
        nonlocal last
        job = make_job(start.source, start.parameters)
        last = Lead(start, job)
        return job

    while transport is not None:
        try:
            served = serve(transport, make_its_job, last.start if ended is not None else None)
        except MasterSilent as error:
            say(error.message)
            return error.exit_status
        except MpimsError as error:
            ended = End(status=error.exit_status, message=error.message, detail=error.detail)
            continue
        if isinstance(served, Lead):
            if served.start is not None or ended is None:
                return _lead(served, output)
            # The master died, or has left, after the end of the run: could it still tell of it?
            if is_status_told(os.environ):
                dismiss_workers(transport, ended)
                return ExitStatus.DONE
            if ended.status == ExitStatus.DONE:
                return _lead(last, output)
            say(ended.message)
            dismiss_workers(transport, ended)
            return report_status(ended.status, os.environ)
        if not served:
            if transport.survives_deaths:  # MPI_Finalize waits for all ranks: for one that dies now, too
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(LEAVE_S)
            break
        ended = End(status=ExitStatus.DONE)
    return ExitStatus.DONE


def _lead(lead: Lead, output: int) -> int:
    """Go on as the master would."""
    from mpims.cli.main import main_command

    os.dup2(output, 1)
    lead = lead._replace(is_stopping=lead.is_stopping or STOP_SIGNAL in signal.sigpending())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP_SIGNAL})
    return main_command(sys.argv[1:], lead)
