"""The tools that are measured, and how one of them is run once."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.children import ROOT, figures, run
from benchmarks.peers.measure import CASE, PARAMETERS
from benchmarks.work import SLOW_FILE

MPIMS = "mpims"
LIMIT = "raw mpi4py"
PEERS = ROOT / "benchmarks" / "peers"
JOBS = ROOT / "benchmarks" / "jobs.py"

Figures = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """What is the same for all measurements of a run.

    Attributes
    ----------
    speed
        Steps per second of `work.burn` on a free core.
    folder
        Where results and scratch files go.
    quick
        Whether it is only to be seen that everything runs.
    """

    speed: float
    folder: Path
    quick: bool = False

    def choose(self, value: Any, quick: Any) -> Any:
        """A value, or a smaller one for a quick run."""
        return quick if self.quick else value


def mpirun(n_ranks: int) -> list[str]:
    """The start of a command line that runs Python on ranks, which may be more than cores."""
    launcher = str(Path(sys.executable).with_name("mpirun"))
    return [launcher, "-n", str(n_ranks), "--oversubscribe", "--bind-to", "none", sys.executable]


def _module(name: str) -> list[str]:
    return ["-m", f"benchmarks.peers.{name}"]


def _charmrun(n_ranks: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "charmrun.start",
        f"+p{n_ranks}",
        str(PEERS / "charm4py_pool.py"),
        "++local",
    ]


COMMANDS: dict[str, Callable[[int], list[str]]] = {
    LIMIT: lambda n: [*mpirun(n + 1), *_module("raw_mpi4py")],
    "mpi4py.futures": lambda n: [*mpirun(n + 1), "-m", "mpi4py.futures", *_module("mpi4py_futures")],
    "schwimmbad": lambda n: [*mpirun(n + 1), *_module("schwimmbad_pool")],
    "dask-mpi": lambda n: [*mpirun(n + 2), *_module("dask_mpi_client")],
    "charm4py": lambda n: _charmrun(n + 1),
    "executorlib": lambda n: [sys.executable, *_module("executorlib_executor"), str(n)],
    "joblib": lambda n: [sys.executable, *_module("joblib_parallel"), str(n)],
    "loky": lambda n: [sys.executable, *_module("loky_executor"), str(n)],
    "ray": lambda n: [sys.executable, *_module("ray_pool"), str(n)],
}
"""How a peer is started with so many workers."""


def tools(n_workers: int) -> list[str]:
    """The peers that can hand work out to so many workers: joblib with one computes by itself."""
    return [tool for tool in COMMANDS if n_workers > 1 or tool != "joblib"]


def run_peer(
    tool: str, case: str, n_workers: int, parameters: Mapping[str, Any], environ: Mapping[str, str] = {}
) -> Figures:
    """Measure a peer once, in scratch of its own."""
    return run_program(COMMANDS[tool](n_workers), case, parameters, environ)


def run_program(
    command: list[str], case: str, parameters: Mapping[str, Any], environ: Mapping[str, str] = {}
) -> Figures:
    """Run a program that measures a case."""
    with TemporaryDirectory(prefix="mpims-bench-", ignore_cleanup_errors=True) as folder:
        scratch = {"BENCH_FOLDER": folder, SLOW_FILE: os.path.join(folder, "slow")}
        asked = {CASE: case, PARAMETERS: json.dumps(parameters)}
        return figures(run(command, {**scratch, **asked, **environ}))


@dataclass(frozen=True)
class MpimsRun:
    """What a run of mpims left: its summary, its result, and what the job wrote."""

    summary: dict[str, Any]
    result: Any
    started: float
    peak_mb: float


def run_mpims(
    job: str,
    n_workers: int,
    read: Callable[[MpimsRun], Figures],
    *options: str,
    settings: Mapping[str, Any] = {},
    launcher: list[str] | None = None,
    environ: Mapping[str, str] = {},
) -> Figures:
    """Run a job of ``jobs.py`` by the command line, and give the figures that `read` finds.

    Parameters
    ----------
    options, settings
        Further options; parameters of the job.
    launcher
        A command line to start the ranks with, in place of ``-n``.
    """
    with TemporaryDirectory(prefix="mpims-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        start = launcher or [sys.executable]
        ranks = [] if launcher else ["-n", str(n_workers + 1)]
        parameters = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        run_dir = folder / "run"
        command = [*start, "-m", "mpims", "run", f"{JOBS}:{job}", *ranks, "--quiet", *options, *parameters]
        started = time.time()
        run([*command, "--run-dir", str(run_dir)], {SLOW_FILE: str(folder / "slow"), **environ})
        peak = run_dir / "peak_mb"
        return read(
            MpimsRun(
                summary=json.loads((run_dir / "summary.json").read_text()),
                result=np.load(run_dir / "result.npy", mmap_mode="r"),
                started=started,
                peak_mb=float(peak.read_text()) if peak.exists() else 0.0,
            )
        )
