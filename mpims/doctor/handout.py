"""How fast rank 0 hands out: a real run of items without work."""

from __future__ import annotations

from pathlib import Path

from mpims.doctor.finding import Finding, Verdict
from mpims.doctor.noop import Noop
from mpims.errors import Interrupted, MpimsError, Stopped
from mpims.leading import run_master
from mpims.loading import JobSource
from mpims.options import RunOptions
from mpims.report.wording import counted
from mpims.runtime.transport.base import Transport

_RUN_S = 0.5
_FEW, _MANY = 500, 50_000
_HUNG_S = 30.0
_SLOW_PER_S = 1000.0
_CHUNK_S = 0.1


def handout_finding(transport: Transport, folder: Path, trip_s: float) -> Finding:
    """Farm out items without work one by one, and see how many a second there are.

    Parameters
    ----------
    folder
        Where the run is to leave its files.
    trip_s
        How long a message and its answer take: by it the run is kept short.
    """
    job = Noop(n=int(min(max(_RUN_S / max(trip_s, 1e-6), _FEW), _MANY)))
    options = RunOptions(run_dir=folder / "run", policy="SS", timeout_s=_HUNG_S, quiet=True)
    try:
        summary = run_master(
            job, options, transport, JobSource(Noop.__module__, Noop.__name__, None)
        ).summary
    except Stopped as error:
        if error.at_once:
            raise Interrupted("stopped by the user") from None
        return _failed(error)
    except MpimsError as error:
        return _failed(error)
    return judge_rate(summary["n_chunks"] / summary["wall_s"], transport.size - 1)


def _failed(error: MpimsError) -> Finding:
    cure = "cure what is said above first; if there is nothing, please report it"
    return Finding("messages", "hand-outs", f"a run of {Noop.__name__}: {error.message}", Verdict.BAD, cure)


def judge_rate(per_s: float, n_workers: int) -> Finding:
    """What so many chunks a second are enough for."""
    value = f"{float(f'{per_s:.2g}'):,.0f} chunks a second to {counted(n_workers, 'worker')}"
    figures = {"chunks_s": per_s, "n_workers": n_workers}
    if per_s < _SLOW_PER_S:
        cure = "cure what is doubtful above; or blocks of more items (`block` of the job, --chunk)"
        return Finding("messages", "hand-outs", value, Verdict.DOUBTFUL, cure, figures)
    value += f": with chunks of {_CHUNK_S:g} s enough for {float(f'{per_s * _CHUNK_S:.2g}'):,.0f} workers"
    return Finding("messages", "hand-outs", value, figures=figures)
