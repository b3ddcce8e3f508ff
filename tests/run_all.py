"""Run every check: format, lint, types, serial tests, then the MPI tests on 1, 2, 3 and 5 ranks, and SLURM.

What waits for walltimes goes on beside the others from the start, and is told of at the end. Each step's
own output is shown; the exit status is the launcher's, because under mpirun the last line is only one
rank's. Ends with a line that counts the steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mpims.launch import find_launcher, launch_command

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
CHAOS = "tests/faults/test_chaos.py"
EXECUTOR = "tests/executor"
SLURM = "tests/slurm"
WALLTIME = "tests/slurm/test_walltime.py"
ELSEWHERE = [f"--ignore={path}" for path in ("tests/mpi", CHAOS, EXECUTOR, SLURM)]
SERIAL = [PYTHON, "-m", "pytest", "-q", "--durations=5", *ELSEWHERE]
ON_RANKS = [PYTHON, "-m", "pytest", "-q", "--only-mpi", "tests/mpi", "-p", "no:cacheprovider"]
RANK_COUNTS = (1, 2, 3, 5)
STEP_LIMIT_S = 600

Step = tuple[str, list[str]]


def lint_steps() -> list[Step]:
    """What reads the code without running it."""
    tool = [PYTHON, "-m", "ruff"]
    return [
        ("format", [*tool, "format", "--check", "--quiet", "."]),
        ("lint", [*tool, "check", "--quiet", "."]),
        ("types", [PYTHON, "-m", "mypy"]),
    ]


def test_steps() -> list[Step]:
    """The tests, serial first."""
    launcher = find_launcher()
    steps = [
        ("serial tests", SERIAL),
        ("executors", [PYTHON, "-m", "pytest", "-q", "-rs", EXECUTOR]),
        ("chaos", [PYTHON, "-m", "pytest", "-q", CHAOS]),
    ]
    for n_ranks in RANK_COUNTS:
        command = launch_command(
            launcher,
            n_ranks,
            ON_RANKS,
            n_cores=len(os.sched_getaffinity(0)),
            is_root=os.geteuid() == 0,
            in_allocation=False,
        )
        steps.append((f"tests on {n_ranks} ranks", command))
    command = [PYTHON, "-m", "pytest", "-q", SLURM, f"--ignore={WALLTIME}"]
    steps.append(("slurm (skipped where it cannot be installed)", command))
    return steps


def step_beside() -> Step:
    """What takes minutes but hardly any processor: it waits for walltimes to run out."""
    return ("walltimes on slurm (beside the others)", [PYTHON, "-m", "pytest", "-q", WALLTIME])


def run(step: Step, output: int | None = None) -> tuple[str, str]:
    """Run a step; give its verdict, and what it printed if that was not to be shown at once."""
    _, command = step
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=output, text=True, timeout=STEP_LIMIT_S, check=False
        )
        verdict, printed = "FAILED" if done.returncode else "ok", (done.stdout or "") + (done.stderr or "")
    except subprocess.TimeoutExpired:
        verdict, printed = f"FAILED, not over after {STEP_LIMIT_S} s,", ""
    return f"{verdict} in {time.monotonic() - began:.1f} s", printed


def main() -> int:
    """Run the steps; 1 if any failed."""
    is_lint = "--lint" in sys.argv
    steps = lint_steps() if is_lint else [*lint_steps(), *test_steps(), step_beside()]
    verdicts = []
    with ThreadPoolExecutor() as threads:
        beside = None if is_lint else threads.submit(run, steps[-1], subprocess.PIPE)
        for step in steps:
            print(f"== {step[0]}", flush=True)
            verdict, printed = beside.result() if beside and step is steps[-1] else run(step)
            print(f"{printed}== {step[0]}: {verdict}\n", flush=True)
            verdicts.append(verdict)
    failed = [
        step[0] for step, verdict in zip(steps, verdicts, strict=True) if verdict.startswith("FAILED")
    ]
    if failed:
        print("failed: " + ", ".join(failed))
    print(f"{len(steps) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
