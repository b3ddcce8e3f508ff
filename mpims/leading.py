"""A run as its master conducts it, from the options to the last word to the workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from mpims.errors import ExitStatus, InternalError, Interrupted, MpimsError, UsageError
from mpims.farm import Farm
from mpims.job import Job
from mpims.loading import JobSource
from mpims.options import RunOptions
from mpims.outcome import Outcome
from mpims.report.wording import name_ranks
from mpims.runtime.ending import end_workers
from mpims.runtime.lead import Lead
from mpims.runtime.stopping import signals_ignored
from mpims.runtime.transport.base import Transport
from mpims.streams import say


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
    engaged = nullcontext() if transport is None else transport.engaged("a run")
    with engaged, telling_workers(transport, farm):
        if not isinstance(job, Job):
            raise UsageError(f"run wants a job, found {_described(job)}")
        if isinstance(options, dict):
            options = make_options(options)
        farm.append(Farm(job, options, transport, source, lead))
        return farm[0].run(command)


def _described(job: Any) -> str:
    if not isinstance(job, type):
        return f"a {type(job).__name__}"
    hint = f": write {job.__name__}(...)" if issubclass(job, Job) else ""
    return f"the class {job.__name__}{hint}"


def make_options(fields: dict[str, Any]) -> RunOptions:
    """Options from keyword arguments.

    Raises
    ------
    UsageError
        There is no such option, or its value is none for it.
    """
    known = RunOptions.__dataclass_fields__
    for name in fields:
        if name not in known:
            raise UsageError(f"run has no option {name!r}: it has {', '.join(known)}")
    return RunOptions(**fields)


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
                refused: list[str] = []
                silent = end_workers(transport, error, processes, suspects, refused.append)
            if refused and error is None:
                more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
                say(f"done without a rank that could not begin{more}: {refused[0]}")
            if silent:
                ranks = name_ranks(
                    {rank: processes[rank].host if rank in processes else "" for rank in silent}
                )
                say(f"no answer from {ranks} after the end: all ranks are ended")
                transport.abandon(error.exit_status if error else ExitStatus.DONE)
