"""A run as every rank takes part in it: find the others, be master or worker.

What only the master needs is imported where this rank turns out to be the master: the start of thousands
of workers is a storm on the file system.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpims.errors import ExitStatus, MpimsError, UsageError, describe, error_with_status
from mpims.job import Job
from mpims.runtime.lead import Lead
from mpims.runtime.sharing import check_shared
from mpims.runtime.threads import one_thread
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import End, Failed, Kind, Start, decode_object, encode_object
from mpims.runtime.worker import Worker
from mpims.streams import say
from mpims.world import alone_error, check_launcher, find_world

if TYPE_CHECKING:
    from mpims.outcome import Outcome
    from mpims.runtime.transport.mpi import MpiTransport

LEFT = "has left the program: under a launcher every rank calls mpims.run as often as the others"
ENDED = "the program is at its end: an atexit handler registered before a run comes too late for another"
LEAVING_WAIT_S = 1.0
"""Who leaves a program looks this often at least who leads."""
LEAVING_LOOK_S = 0.05
"""Who leads looks so long before it leaves whether ranks have died: MPI tells it only who looks."""


def run(job: Job, **options: Any) -> Outcome | None:
    """Compute a job on all ranks of this program, or in this process if it is alone.

    Under ``mpirun`` every rank calls this with the same job.

    Parameters
    ----------
    job
        The job.
    **options
        The fields of `mpims.options.RunOptions`: policy, chunk_min, chunk_max, timeout_s, retries,
        on_error, durability_s, grace_s, wait, log_every_s, prints, end_time_s, seed, run_dir, resume,
        quiet.

    Returns
    -------
    Outcome or None
        The outcome on rank 0, or on the rank that took over from it; None on the others.

    Raises
    ------
    UsageError
        The job, an option or the run directory is wrong; on every rank.
    RunFailed
        The user's code failed; on every rank.
    Stopped
        The run was stopped, or the disk is full; what is done is kept, and `resume` goes on from there.

    Examples
    --------
    >>> import mpims
    >>> outcome = mpims.run(Squares(n=1000), policy="GSS")  # doctest: +SKIP
    """
    try:
        return _run(job, options)
    finally:
        if isinstance(job, Job):
            job._began_with = None


def _run(job: Job, options: dict[str, Any]) -> Outcome | None:
    transport = connect()
    if transport is None:
        return _lead(job, options, None, None)
    transport.check_free("a run")
    if transport.over:
        raise UsageError(transport.over)
    # Each time: what the program has registered by now comes after it, and may run again. That of before
    # stays: not every Python calls what was registered while handlers are called.
    atexit.register(_leave_together, transport)
    transport.leave = partial(_leave_together, transport)
    try:
        served = serve(transport, lambda start: job)
        outcome = None
        if not served:
            transport.over = f"{transport.where(min(transport.alive))} {LEFT}"
            raise UsageError(transport.over)
        if isinstance(served, Lead):
            # Of ranks lost in a run before, none can have begun this one.
            others = transport.lost - transport.lost_before
            outcome = _lead(
                job, options, transport, served if min(others, default=inf) < transport.rank else None
            )
        transport.exit_status = ExitStatus.DONE
        return outcome
    except MpimsError as error:
        transport.exit_status = error.exit_status
        raise
    finally:
        transport.lost_before = frozenset(transport.lost)


def _leave_together(transport: Transport) -> None:
    """At the end of the program: who leads tells the others, and they wait for that.

    Whoever has left would be waited for by a run that others begin. So they learn it: from the one that
    leads, or by an answer to its START. `MPI_Finalize`, which comes next, waits for all ranks as well.
    """
    if transport.over:
        return
    try:
        _wait_for_leader(transport)
    finally:
        transport.over = ENDED


def _wait_for_leader(transport: Transport) -> None:
    error: BaseException | None = getattr(sys, "last_value", None)  # not of SystemExit
    why = LEFT if error is None else f"has left the program: {describe(error)}"
    left = f"{transport.where(transport.rank)} {why}"
    first = leader = min(transport.alive)
    while transport.is_open and leader != transport.rank:
        message = transport.receive(LEAVING_WAIT_S)
        leader = min(transport.alive)
        if message is None:
            continue
        source = message.source
        if message.kind is Kind.DISMISS:
            leader = source
            for rank in decode_object(message.buffers):  # or this one would wait for it in MPI_Finalize
                transport.lose(rank)
            break
        if message.kind is Kind.START:
            refusal = Failed(attempt=0, start=0, stop=0, reason=left, detail="", is_usage=error is None)
            transport.send(source, Kind.FAILED, b"", encode_object(refusal))
        elif message.kind is Kind.END:
            transport.send(source, Kind.GOODBYE)
    if leader != first:  # what it was to do here after the runs is not done
        transport.exit_status = transport.exit_status or ExitStatus.FAILED
    if leader == transport.rank:
        if leader != first:
            say(f"{transport.where(first)} has died in the program, after its runs")
        until = time.monotonic() + LEAVING_LOOK_S
        while transport.is_open and (left_s := until - time.monotonic()) > 0:
            transport.receive(left_s)
        lost = tuple(transport.lost)
        dismiss_workers(transport, None if error is None else End(ExitStatus.FAILED, left, lost=lost))


def _lead(job: Job, options: dict[str, Any], transport: Transport | None, lead: Lead | None) -> Outcome:
    """Be the master; `lead` is what this rank has from the one before, if there was one."""
    from mpims.leading import run_master

    if lead is not None and lead.start is not None:
        options = {**options, "run_dir": Path(lead.start.run_dir)}
    return run_master(job, options, transport, lead=lead)


def serve(
    transport: Transport, make_job: Callable[[Start], Job], after: Start | None = None
) -> bool | Lead:
    """Compute for the masters until the run ends.

    Parameters
    ----------
    make_job
        Makes this rank's job when the run starts.
    after
        The run before in this program, if there was one.

    Returns
    -------
    bool or Lead
        True if a run has ended, False if this rank was dismissed before one began; a `Lead` if this
        rank is the master now: rank 0 at once, another when all below it are dead.

    Raises
    ------
    MpimsError
        The error that the run ended with on the master.
    """
    master = min(transport.alive)
    if master == transport.rank:
        return Lead()

    end_at: float | None = None

    def make_shared_job(start: Start) -> Job:
        nonlocal end_at
        end_time_s = start.options.end_time_s
        if end_time_s is not None:  # now: later the clock of the day may have been set
            end_at = time.monotonic() + end_time_s - time.time()
        check_shared(start, transport.rank, transport.host)
        job = make_job(start)
        if isinstance(job, Job):  # or the master has refused it
            job._begin_run()
        return job

    with transport.engaged("a run"):
        worker = Worker(transport, make_shared_job, master, after=after)
        try:
            with one_thread():
                end = worker.run()
        except MpimsError as error:
            transport.abandon(error.exit_status)
            raise
        except BaseException:
            transport.abandon(ExitStatus.INTERNAL)  # or the others would wait for this rank for ever
            raise
    if worker.must_lead:
        inheritance = tuple(worker.inheritance())
        return Lead(worker.start, worker.job, worker.items, inheritance, worker.is_stopping, end_at)
    if end is not None and end.status:
        raise error_with_status(end.status, end.message, end.detail)
    return end is not None


def connect(*, share: bool = True, threads: bool = False) -> MpiTransport | None:
    """The transport of this process's world, made once; None if it is alone.

    Parameters
    ----------
    share
        Whether the program may use the world for messages of its own.
    threads
        Whether another thread than this one is to use it, where this is what initialises MPI.

    Raises
    ------
    UsageError
        The launcher and the MPI that mpi4py loads are not of one kind: there are several processes, but
        MPI makes each of them a world of its own, or would end it. Or MPI was finalised already.
    """
    world = find_world(os.environ)
    mpi = sys.modules.get("mpi4py.MPI")
    if world is None and (mpi is None or not mpi.Is_initialized()):
        return None
    if mpi is not None and mpi.Is_finalized():
        raise UsageError("MPI was finalised already: call mpims.run and mpims.Executor before MPI.Finalize")
    from mpims.runtime.transport.mpi import library_version, world_transport

    check_launcher(library_version(), os.environ)
    transport = world_transport(share=share, threads=threads)
    if transport.size == 1:
        if world is not None and world.size > 1:
            raise alone_error(world.size, transport.library(), os.environ)
        return None
    return transport


def dismiss_workers(transport: Transport | None, ended: End | None = None) -> None:
    """Let the workers of this program leave it.

    Parameters
    ----------
    ended
        How the last run ended, for those whom its master could not tell.
    """
    if transport is not None and transport.is_open:
        for rank in transport.alive - {transport.rank}:
            if ended is not None:
                transport.send(rank, Kind.END, b"", encode_object(ended))
            transport.send(rank, Kind.DISMISS, b"", encode_object(tuple(transport.lost)))
