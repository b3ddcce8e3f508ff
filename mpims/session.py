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
from mpims.farm import Farm, Outcome, say
from mpims.job import Job
from mpims.loading import JobSource, load_job_class
from mpims.options import RunOptions
from mpims.runtime.master import GOODBYE_WAIT_S, end_workers
from mpims.runtime.threads import one_thread
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Kind, Start
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
        The fields of `mpims.options.RunOptions`: policy, chunk_min, chunk_max, timeout_s, seed,
        run_dir, quiet.

    Returns
    -------
    Outcome or None
        The outcome on rank 0; None on the others.

    Raises
    ------
    UsageError
        The job, an option or the run directory is wrong; on every rank.
    RunFailed
        The user's code failed, or the result could not be written; on every rank.

    Examples
    --------
    >>> import mpims
    >>> outcome = mpims.run(Squares(n=1000), policy="GSS")  # doctest: +SKIP
    """
    transport = connect()
    if transport is not None and transport.rank > 0:
        serve(transport, lambda start: job)
        return None
    return run_master(job, options, transport)


def serve(transport: Transport, make_job: Callable[[Start], Job]) -> bool:
    """Compute for the master until the run ends; False if this rank was dismissed instead.

    Raises
    ------
    MpimsError
        The error that the run ended with on the master.
    """
    try:
        with one_thread():
            end = Worker(transport, make_job).run()
    except BaseException:
        transport.abandon(ExitStatus.INTERNAL)  # or the others would wait for this rank for ever
        raise
    if 0 in transport.lost:
        transport.abandon(ExitStatus.FAILED)
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


def connect() -> MpiTransport | None:
    """The transport of this process's world, made once; None if it is alone.

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

    transport = world_transport()
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
def telling_workers(transport: Transport | None) -> Iterator[None]:
    """Whatever happens to the master, tell the workers how the run ended, and let none hang."""
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
        if transport is not None:
            silent = end_workers(transport, error)
            if silent:
                ranks = ", ".join(map(str, silent))
                say(f"no answer from rank {ranks} {GOODBYE_WAIT_S:.0f} s after the end: it is ended")
                transport.abandon(error.exit_status if error else ExitStatus.DONE)


def dismiss_workers(transport: Transport | None) -> None:
    """Let the workers of this program leave it."""
    if transport is not None:
        for rank in range(1, transport.size):
            transport.send(rank, Kind.DISMISS)


def job_from_start(start: Start) -> Job:
    """Make the job that a START message describes, from its source."""
    return load_job_class(start.source)(**start.parameters)


def run_master(
    job: Job,
    options: RunOptions | dict[str, Any],
    transport: Transport | None,
    source: JobSource | None = None,
    command: Sequence[str] = (),
) -> Outcome:
    """Run a job as rank 0: with the workers of a transport, or alone.

    Parameters
    ----------
    source
        Where the other ranks get the job from; None if they have it.
    command
        What the user typed, for the manifest.

    Raises
    ------
    MpimsError
        As `run`.
    """
    with telling_workers(transport):
        if not isinstance(job, Job):
            raise UsageError(f"run wants a job, found a {type(job).__name__}")
        if isinstance(options, dict):
            options = make_options(options)
        return Farm(job, options, transport, source).run(command)
