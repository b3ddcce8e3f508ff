"""(g) From the command to the first item, and the files that a worker opens until then."""

import statistics
import time
from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_most
from benchmarks.children import ROOT
from benchmarks.tools import (
    COMMANDS,
    LIMIT,
    MPIMS,
    Settings,
    mpirun,
    run_mpims,
    run_peer,
    run_program,
)

N_WORKERS = 2
BARE = "bare mpi4py"
WITH_N = "mpims run -n"
ENVIRON = {"PYTHONPATH": str(ROOT / "benchmarks" / "opened")}


def make(settings: Settings) -> Case:
    """Make the case."""
    runs = [Run(BARE, _bare)]
    runs += [Run(tool, partial(_peer, tool)) for tool in COMMANDS if tool != LIMIT]
    runs.append(Run(WITH_N, _mpims))
    runs.append(Run(MPIMS, partial(_mpims, launcher=mpirun(N_WORKERS + 1))))
    return Case(
        key="g",
        title="Start-up",
        how=(
            f"From the start of the command to the end of the first item, on {N_WORKERS} workers. `bare "
            "mpi4py` imports NumPy and mpi4py, sends each worker a message and gets one back. `mpims` is "
            "`mpirun -n 3 python -m mpims run`; `mpims run -n` finds the launcher first. Files are those "
            "that the Python of a worker has opened until then, its compiled modules too, as an audit hook "
            "sees them; what C libraries open by themselves is the same for all that use them."
        ),
        runs=runs,
        views=[
            View("seconds to the first item", {"s": "s"}, "{:.2f}".format),
            View("files opened by a worker", {"files": "files"}, "{:.0f}".format),
        ],
        targets=_targets,
    )


def _bare() -> dict[str, float]:
    command = [*mpirun(N_WORKERS + 1), "-m", "benchmarks.peers.bare_mpi4py"]
    return _since(time.time(), run_program(command, "first", {}, ENVIRON))


def _peer(tool: str) -> dict[str, float]:
    began = time.time()
    return _since(began, run_peer(tool, "first", N_WORKERS, {"n_workers": N_WORKERS}, ENVIRON))


def _since(began: float, figures: dict[str, float]) -> dict[str, float]:
    return {"s": figures["at"] - began, "files": figures["files"]}


def _mpims(launcher: list[str] | None = None) -> dict[str, float]:
    def read(run):
        return {"s": float(run.result[:, 0].min()) - run.started, "files": float(run.result[:, 1].max())}

    return run_mpims("First", N_WORKERS, read, launcher=launcher, environ=ENVIRON)


def _targets(table: Table) -> list[Target]:
    def over_bare(name):
        pairs = list(zip(table.values(MPIMS, name), table.values(BARE, name), strict=False))
        return statistics.median(own - bare for own, bare in pairs) if pairs else None

    asked = (
        ("s", 0.15, "start-up over bare mpi4py", "{:.3f} s".format),
        ("files", 60, "files opened by a worker over bare mpi4py", "{:.0f}".format),
    )
    return [at_most(over_bare(name), limit, what, form) for name, limit, what, form in asked]
