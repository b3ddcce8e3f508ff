"""`mpims.run` in a program of the user's own, alone and under a launcher; and what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mpims.launch import command_here
from tests.conftest import HARD_LIMIT_S, ROOT, clean_environment

SCRIPT = """
import sys
import numpy as np
import mpims

factor = 3                       # of this script: nothing is pickled

class Local(mpims.Job):
    n: int = 40
    output = mpims.Reduce(lambda a, b: a + b)
    def items(self):
        return self.n
    def task(self, item):
        return [item * factor]

def runs():
    for n in (40, 7):
        outcome = mpims.run(Local(n=n), quiet=True)
        if outcome is not None:
            print(n, sum(outcome.value), outcome.summary["n_ranks"])
    try:
        mpims.run(Local(n=0), quiet=True)
    except mpims.UsageError as error:
        sys.stderr.write("refused\\n")
    outcome = mpims.run(Local(n=3), quiet=True)
    if outcome is not None:
        print(outcome.value)

runs()
"""


def on_ranks(n_ranks: int, program: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = command_here(n_ranks, program)
    return subprocess.run(
        command if n_ranks > 1 else program,
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=HARD_LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize("n_ranks", [1, 3])
@pytest.mark.parametrize("head", ["", "from mpi4py import MPI\nMPI.COMM_WORLD.Barrier()\n"])
def test_run_after_run_in_a_script(tmp_path, n_ranks, head):
    (tmp_path / "script.py").write_text(head + SCRIPT)
    done = on_ranks(n_ranks, [sys.executable, "script.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    expected = [f"40 {3 * 780} {n_ranks}", f"7 {3 * 21} {n_ranks}", "[0, 3, 6]"]
    assert done.stdout.splitlines() == expected
    assert done.stderr.count("refused") == n_ranks


DEADLY = """
import os, signal, sys
import numpy as np
import mpims

class Deadly(mpims.Job):
    dies: int = -1                   # the rank that ends at its first item
    bad: int = -1
    def items(self):
        return 12
    def kernel(self, items):
        if int(os.environ["OMPI_COMM_WORLD_RANK"]) == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.bad in items:
            raise ValueError("bad item")
        return np.array(items)

first = mpims.run(Deadly(dies=2), run_dir="first", quiet=True)
if first is not None:
    print("first", first.summary["status"])
    os.remove("first/summary.json")
try:
    mpims.run(Deadly(), run_dir="first", quiet=True)
except mpims.UsageError as error:
    print(error)
second = mpims.run(Deadly(), run_dir="second", quiet=True)
if second is not None:
    print("second", second.summary["status"], "masters lost:", second.summary["n_masters"])
if sys.argv[1] == "own":
    raise OSError("an error of the program's own")
if sys.argv[1] == "raise":
    mpims.run(Deadly(bad=7), quiet=True)
try:
    mpims.run(Deadly(bad=7), quiet=True)
except mpims.RunFailed as error:
    sys.exit(error.exit_status if sys.argv[1] == "exit" else 0)
"""


@pytest.mark.parametrize("how", ["raise", "exit", "own"])
def test_a_program_goes_on_after_a_death_and_its_status_is_that_of_its_errors(tmp_path, how):
    (tmp_path / "script.py").write_text(DEADLY)
    done = on_ranks(4, [sys.executable, "script.py", how], tmp_path)
    assert done.stdout.splitlines()[0] == "first done", done.stderr
    assert "run directory first is not empty" in done.stdout
    assert "second done masters lost: 0" in done.stdout
    assert done.returncode == 1, done.stderr


def test_a_rank_that_died_before_the_first_run_hangs_nobody(tmp_path):
    dies = "if MPI.COMM_WORLD.rank == 0:\n    os.kill(os.getpid(), 9)\n"
    head = f"import os\nfrom mpi4py import MPI\nMPI.COMM_WORLD.Barrier()\n{dies}"
    (tmp_path / "script.py").write_text(head + SCRIPT)
    done = on_ranks(4, [sys.executable, "script.py"], tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("RunFailed: a rank of this program has died before its first run") == 3


UNEVEN = """
import atexit, os, sys
import mpims

class Job(mpims.Job):
    def items(self):
        return 9
    def task(self, item):
        return item

def more():
    try:
        mpims.run(Job(), quiet=True)
    except mpims.UsageError as error:
        print(rank, error)

rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
mpims.run(Job(), quiet=True)
child = os.fork()  # which is no rank, and may end as it likes
if child == 0:
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
how, *again = sys.argv[1:]
if rank in map(int, again):
    more()
    atexit.register(more) if how == "at exit" else more()
if rank == 0 and how == "finalised":
    from mpi4py import MPI
    MPI.Finalize()  # where the others wait for it at their end
"""


@pytest.mark.parametrize(("how", "again"), [("at exit", "0"), ("now", "12"), ("finalised", "02")])
def test_ranks_that_call_run_more_often_than_others_are_told(tmp_path, how, again):
    (tmp_path / "script.py").write_text(UNEVEN)
    done = on_ranks(3, [sys.executable, "script.py", how, *again], tmp_path)
    assert done.returncode == 0, done.stderr
    told = sorted(done.stdout.splitlines())
    missing = 0 if again == "12" else rf"[{'12' if again == '0' else '1'}]"
    assert len(told) == 2 * len(again), told
    for rank, line in zip(sorted(2 * again), told, strict=True):
        assert re.match(
            rf"{rank} rank {missing} .*has left the program: .*every rank calls mpims.run", line
        )


def test_the_tour_on_three_ranks(tmp_path):
    done = on_ranks(3, [sys.executable, "-m", "mpims"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ranks: 3" in done.stdout
    assert "are the same, bit for bit" in done.stdout
    assert "speed-up" in done.stdout


def test_the_readme_works_as_typed(tmp_path):
    readme = (ROOT / "README.md").read_text()
    job = re.search(r"```python\n# squares.py\n(.*?)```", readme, re.DOTALL)
    assert job is not None
    (tmp_path / "squares.py").write_text(job[1])
    commands = re.findall(r"^python -m mpims run squares[^#\n]*", readme, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        arguments = [*command.split()[1:], "--set", "n=40"]
        done = on_ranks(1, [sys.executable, *arguments], tmp_path)
        assert done.returncode == 0, done.stderr
    mpirun = re.search(r"^mpirun -n 3 python (-m mpims run .*)$", readme, re.MULTILINE)
    assert mpirun is not None
    done = on_ranks(3, [sys.executable, *mpirun[1].split()], tmp_path)
    assert done.returncode == 0, done.stderr
