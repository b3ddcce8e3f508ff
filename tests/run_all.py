"""Run every check: format, lint, types, serial tests, then the MPI tests on 1, 2, 3 and 5 ranks.

Each step's own output is shown; the exit status is the launcher's, because under mpirun the last
line is only one rank's. Ends with a line that counts the steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from mpims.launch import find_launcher, launch_command

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
CHAOS = "tests/faults/test_chaos.py"
EXECUTOR = "tests/executor"
SLURM = "tests/slurm"
ELSEWHERE = [f"--ignore={path}" for path in ("tests/mpi", CHAOS, EXECUTOR, SLURM)]
SERIAL = [PYTHON, "-m", "pytest", "-q", "--durations=5", *ELSEWHERE]
ON_RANKS = [PYTHON, "-m", "pytest", "-q", "--only-mpi", "tests/mpi", "-p", "no:cacheprovider"]
RANK_COUNTS = (1, 2, 3, 5)
STEP_LIMIT_S = 500


def lint_steps() -> list[tuple[str, list[str]]]:
    """What reads the code without running it."""
    tool = [PYTHON, "-m", "ruff"]
    return [
        ("format", [*tool, "format", "--check", "--quiet", "."]),
        ("lint", [*tool, "check", "--quiet", "."]),
        ("types", [PYTHON, "-m", "mypy"]),
    ]


def test_steps() -> list[tuple[str, list[str]]]:
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
    steps.append(("slurm (skipped where it cannot be installed)", [PYTHON, "-m", "pytest", "-q", SLURM]))
    return steps


def main() -> int:
    """Run the steps; 1 if any failed."""
    steps = lint_steps() if "--lint" in sys.argv else [*lint_steps(), *test_steps()]
    failed = []
    for name, command in steps:
        began = time.monotonic()
        print(f"== {name}", flush=True)
        try:
            status = subprocess.run(command, cwd=ROOT, timeout=STEP_LIMIT_S, check=False).returncode
        except subprocess.TimeoutExpired:
            status = -1
            print(f"{name}: not over after {STEP_LIMIT_S} s", flush=True)
        print(
            f"== {name}: {'ok' if status == 0 else 'FAILED'} in {time.monotonic() - began:.1f} s\n",
            flush=True,
        )
        if status:
            failed.append(name)
    if failed:
        print("failed: " + ", ".join(failed))
    print(f"{len(steps) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
