"""Run every check: format, lint, types, all tests, those on 1, 2, 3 and 5 ranks too, and those on SLURM.

SLURM's, and after them those of the compiled modules, go on beside the others from the start, and are
told of at the end. Each step's own output is shown; the exit status is the launcher's, because under
mpirun the last line is only one rank's. Ends with a line that counts the steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mpims.launch import command_here

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
CHAOS = "tests/faults/test_chaos.py"
EXECUTOR = "tests/executor"
SLURM = "tests/slurm"
COMPILED = "tests/compiled"
IN_ONE_PROCESS = ["mpims", "tests/unit", "tests/simulation"]
PYTEST = [PYTHON, "-m", "pytest", "-q"]
ON_RANKS = [*PYTEST, "--only-mpi", "tests/mpi", "-p", "no:cacheprovider"]
RANK_COUNTS = (1, 2, 3, 5)
STEP_LIMIT_S = 600
ABREAST = 2
"""So many tests that mostly wait for processes to start, or to end, go on at a time."""

Step = tuple[str, list[str]]

TYPES: Step = ("types", [PYTHON, "-m", "mypy"])


def lint_steps() -> list[Step]:
    """What reads the code without running it."""
    tool = [PYTHON, "-m", "ruff"]
    return [
        ("format", [*tool, "format", "--check", "--quiet", "."]),
        ("lint", [*tool, "check", "--quiet", "."]),
    ]


def test_steps() -> list[Step]:
    """The tests, those without ranks first: as many at a time as there are cores."""
    n_cores = len(os.sched_getaffinity(0))
    steps = [
        ("unit tests and simulation", [*PYTEST, f"-n{n_cores}", "--durations=5", *IN_ONE_PROCESS]),
        ("processes", [*PYTEST, f"-n{ABREAST}", "--durations=5", "tests/faults", f"--ignore={CHAOS}"]),
        ("executors", [*PYTEST, f"-n{ABREAST}", "-rs", EXECUTOR]),
        ("chaos", [*PYTEST, CHAOS]),
    ]
    for n_ranks in RANK_COUNTS:
        steps.append((f"tests on {n_ranks} ranks", command_here(n_ranks, ON_RANKS)))
    return steps


def steps_beside() -> list[Step]:
    """What takes a while but not all cores: it waits for a scheduler, for walltimes, for a compiler."""
    return [
        TYPES,
        ("slurm (beside the others; skipped where it cannot be installed)", [*PYTEST, SLURM]),
        ("compiled (beside the others)", [*PYTEST, "-rs", COMPILED]),
    ]


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
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of a thousand processes compiles every module
    is_lint = "--lint" in sys.argv
    others = [TYPES] if is_lint else [*test_steps(), *steps_beside()]
    steps = [*lint_steps(), *others]
    verdicts = []
    with ThreadPoolExecutor(max_workers=1) as lane:
        beside = {
            step[0]: lane.submit(run, step, subprocess.PIPE) for step in steps_beside() if step in steps
        }
        for step in steps:
            print(f"== {step[0]}", flush=True)
            verdict, printed = beside[step[0]].result() if step[0] in beside else run(step)
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
