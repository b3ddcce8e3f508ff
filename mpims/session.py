"""A run as every rank takes part in it: find the others, be master or worker, end together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpims.errors import (
    ExitStatus,
    InternalError,
    Interrupted,
    MpimsError,
    UsageError,
    error_with_status,
)
from mpims.farm import Farm
from mpims.job import Job
from mpims.loading import JobSource, load_job_class
from mpims.options import RunOptions
from mpims.outcome import Outcome
from mpims.report.announcement import say
from mpims.runtime.ending import end_workers
from mpims.runtime.lead import Lead
from mpims.runtime.stopping import signals_ignored
from mpims.runtime.threads import one_thread
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import End, Kind, Start, encode_object
from mpims.runtime.worker import Worker
from mpims.world import find_world

if TYPE_CHECKING:
    from mpims.runtime.transport.mpi import MpiTransport


def run(job: Job, **options: Any) -> Outcome | None:
    """Compute a job on all ranks of this program, or in this process if it is alone.

    Under ``mpirun`` every rank calls this with the same job.

    Parameters
    ----------
    job
        The job.
    **options
        The fields of `mpims.options.RunOptions`: policy, chunk_min, chunk_max, timeout_s, retries,
        on_error, durability_s, grace_s, seed, run_dir, resume, quiet.

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
    transport = connect()
    if transport is not None:
        served = serve(transport, lambda start: job)
        if not isinstance(served, Lead):
            return None
        if served.start is not None:
            options = {**options, "run_dir": Path(served.start.run_dir)}
        return run_master(job, options, transport, lead=served if transport.lost else None)
    return run_master(job, options, transport)


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
    master = min(set(range(transport.size)) - transport.lost)
    if master == transport.rank:
        return Lead()
    worker = Worker(transport, make_job, master, after=after)
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
        return Lead(worker.start, worker.job, worker.items, tuple(worker.inheritance()))
    if end is not None and end.status:
        raise error_with_status(end.status, end.message, end.detail)
    return end is not None


def make_options(fields: dict[str, Any]) -> RunOptions:
    """Options from keyword arguments.

    Raises
    ------
    UsageError
        There is no such option, or its value is out of range.
    """
    known = RunOptions.__dataclass_fields__
    for name in fields:
        if name not in known:
            raise UsageError(f"run has no option {name!r}: it has {', '.join(known)}")
    if isinstance(fields.get("run_dir"), str):
        fields = {**fields, "run_dir": Path(fields["run_dir"])}
    return RunOptions(**fields)


def connect(*, share: bool = True) -> MpiTransport | None:
    """The transport of this process's world, made once; None if it is alone.

    Parameters
    ----------
    share
        Whether the program may use the world for messages of its own.

    Raises
    ------
    UsageError
        A launcher started several processes, but MPI makes each of them a world of its own.
    """
    world = find_world(os.environ)
    mpi = sys.modules.get("mpi4py.MPI")
    if world is None and (mpi is None or not mpi.Is_initialized()):
        return None
    from mpims.runtime.transport.mpi import world_transport

    transport = world_transport(share=share)
    if transport.size == 1:
        if world is not None and world.size > 1:
            raise UsageError(
                f"the launcher started {world.size} processes, but MPI shows each only itself: "
                "the launcher and the MPI that mpi4py loads are not of one kind; "
                f"use the mpirun of {transport.library()}"
            )
        return None
    return transport


@contextmanager
def telling_workers(transport: Transport | None, farm: list[Farm] | None = None) -> Iterator[None]:
    """Whatever happens to the master, tell the workers how the run ended, and let none hang.

    Parameters
    ----------
    farm
        Where the run is put, if it comes to one: it knows who the ranks are. Without it only an error
        ends the run: it is yet to begin.
    """
    error: MpimsError | None = None
    try:
        yield
    except MpimsError as failure:
        error = failure
        raise
    except KeyboardInterrupt:
        error = Interrupted("stopped by the user")
        raise
    except BaseException as failure:
        error = InternalError(f"{type(failure).__name__}: {failure}")
        raise
    finally:
        if transport is not None and (farm is not None or error is not None):
            processes = farm[0].processes if farm else {}
            suspects = farm[0].suspects if farm else set()
            with signals_ignored():
                silent = end_workers(transport, error, processes, suspects)
            if silent:
                ranks = ", ".join(map(str, silent))
                say(f"no answer from rank {ranks} after the end: all ranks are ended")
                transport.abandon(error.exit_status if error else ExitStatus.DONE)


def dismiss_workers(transport: Transport | None, ended: End | None = None) -> None:
    """Let the workers of this program leave it.

    Parameters
    ----------
    ended
        How the last run ended, if the master died before it could tell all of them.
    """
    if transport is not None:
        for rank in set(range(transport.size)) - transport.lost - {transport.rank}:
            if ended is not None:
                transport.send(rank, Kind.END, b"", encode_object(ended))
            transport.send(rank, Kind.DISMISS, b"", encode_object(tuple(transport.lost)))


def job_from_start(start: Start) -> Job:
    """Make the job that a START message describes, from its source."""
    return load_job_class(start.source)(**start.parameters)


def run_master(
    job: Job,
    options: RunOptions | dict[str, Any],
    transport: Transport | None,
    source: JobSource | None = None,
    command: Sequence[str] = (),
    lead: Lead | None = None,
) -> Outcome:
    """Run a job as its master: with the workers of a transport, or alone.

    Parameters
    ----------
    source
        Where the other ranks get the job from; None if they have it.
    command
        What the user typed, for the manifest.
    lead
        What this rank has from the master before.

    Raises
    ------
    MpimsError
        As `run`.
    """
    farm: list[Farm] = []
    with telling_workers(transport, farm):
        if not isinstance(job, Job):
            raise UsageError(f"run wants a job, found a {type(job).__name__}")
        if isinstance(options, dict):
            options = make_options(options)
        farm.append(Farm(job, options, transport, source, lead))
        return farm[0].run(command)
