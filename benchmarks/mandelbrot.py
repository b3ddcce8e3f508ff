"""Irregular work on two cores: the farm on three ranks against the best split into two halves.

The split is what a programmer reaches for first: two processes, each with one contiguous half of the
rows, the cut placed where the measured costs balance best. It has no communication and no master,
so it is the floor for any contiguous division known in advance; the farm knows nothing in advance.

Runs of both are interleaved, and medians are compared. Run with ``python benchmarks/mandelbrot.py``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "jobs" / "mandelbrot.py"
N_PAIRS = int(os.environ.get("PAIRS", "7"))
TARGET_RATIO = 1.10
TARGET_MASTER = 0.03


def load_job():
    """The shipped job with its defaults."""
    from mpims.loading import load_job_class, read_source

    return load_job_class(read_source(str(JOB)))()


def best_cut() -> int:
    """The row at which two contiguous halves cost the same, by measurement."""
    job = load_job()
    job.setup()
    costs = []
    for row in range(job.height):
        began = time.perf_counter()
        job.kernel(range(row, row + 1))
        costs.append(time.perf_counter() - began)
    total, left = sum(costs), 0.0
    for row, cost in enumerate(costs):
        left += cost
        if left >= total / 2:
            return row + 1
    return job.height


def split_half(cut: int) -> None:
    """What each of the two ranks of the split does; rank 0 prints the seconds of the slower."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    job = load_job()
    job.setup()
    rows = range(cut) if comm.rank == 0 else range(cut, job.height)
    comm.Barrier()
    began = time.perf_counter()
    for row in rows:
        job.kernel(range(row, row + 1))
    seconds = comm.allreduce(time.perf_counter() - began, op=MPI.MAX)
    if comm.rank == 0:
        print(seconds)


def launched(n_ranks: int, program: list[str]) -> str:
    """Run a program on ranks and give what it prints."""
    from mpims.launch import command_here

    command = command_here(n_ranks, [sys.executable, *program])
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, check=True, timeout=300
    ).stdout


def farm() -> dict:
    """One run of the farm on three ranks: its summary."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "mpims", "run", str(JOB), "--json", "--quiet", "--run-dir", f"{folder}/run"]
        return json.loads(launched(3, arguments))


def main() -> None:
    """Measure and print."""
    cut = best_cut()
    cuts = [cut - 20, cut, cut + 20]
    by_cut = {c: min(float(launched(2, [__file__, str(c)])) for _ in range(2)) for c in cuts}
    cut = min(by_cut, key=by_cut.get)
    print(f"best cut at row {cut}: " + ", ".join(f"{c}: {s:.3f} s" for c, s in by_cut.items()))
    splits, farms, masters = [], [], []
    for _ in range(N_PAIRS):
        splits.append(float(launched(2, [__file__, str(cut)])))
        summary = farm()
        farms.append(summary["wall_s"])
        masters.append(summary["master_cpu_s"] / summary["wall_s"])
        print(
            f"split {splits[-1]:.3f} s  farm {farms[-1]:.3f} s  master {masters[-1]:.1%} of a core",
            flush=True,
        )
    ratio = statistics.median(f / s for f, s in zip(farms, splits, strict=True))
    master = statistics.median(masters)
    print(f"farm / best split: median {ratio:.3f} (asked: at most {TARGET_RATIO})")
    print(f"waiting master: median {master:.1%} of a core (asked: below {TARGET_MASTER:.0%})")
    sys.exit(0 if ratio <= TARGET_RATIO and master < TARGET_MASTER else 1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        split_half(int(sys.argv[1]))
    else:
        main()
