"""`mpims.Executor` on real ranks: the three ways in, real deaths, and how it all ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpims.launch import command_here
from mpims.supervise import find_marked
from tests.conftest import HARD_LIMIT_S, ROOT, clean_environment

HEAD = """
import os, signal, sys, threading, time, typing
from concurrent.futures import wait
import numpy as np
import mpims

def square(x):
    return x * x

def slow(x):
    time.sleep(0.003)
    return x * x

def pid(x):
    time.sleep(0.02)
    return os.getpid()

def all_pids(pool, n=3):
    found = set()
    while len(found) < n:
        found |= set(pool.map(pid, range(2 * n)))
    return sorted(found)

def die(x):
    os.kill(os.getpid(), signal.SIGKILL)

def hang(x):
    time.sleep(1000)

grown = np.zeros(400_000)

def grow(seconds):
    time.sleep(seconds)
    grown[:] += 1
    return grown

class Point:
    def __init__(self, x):
        self.x = x
    def __eq__(self, other):
        return type(other) is Point and other.x == self.x
"""


def on_ranks(n_ranks: int, program: list[str]) -> list[str]:
    """The command that starts a program on ranks."""
    return command_here(n_ranks, [sys.executable, *program])


def run_on_ranks(
    n_ranks: int, program: list[str], folder: Path, limit_s: float = HARD_LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """Run a program on ranks to its end, and give what it prints."""
    return subprocess.run(
        on_ranks(n_ranks, program),
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


WAYS = {
    "script": lambda path: on_ranks(4, ["-m", "mpims", "script", path, "word"]),
    "with": lambda path: on_ranks(4, [path, "word"]),
    "local": lambda path: [sys.executable, path, "word"],
}


def run(tmp_path: Path, body: str, way: str = "local") -> str:
    """Run a program one of the ways, and give what it prints; nothing of it is left."""
    (tmp_path / "program.py").write_text(
        HEAD + body.replace("POOL", "mpims.Executor(OPTIONS)").replace("OPTIONS", OPTIONS[way])
    )
    mark = f"TEST_EXECUTOR={os.getpid()}-{time.monotonic()}"
    name, value = mark.split("=")
    done = subprocess.run(
        WAYS[way](str(tmp_path / "program.py")),
        cwd=tmp_path,
        env={**clean_environment(), name: value},
        capture_output=True,
        text=True,
        timeout=HARD_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert find_marked(mark.encode()) == []
    return done.stdout


OPTIONS = {"script": "", "with": "", "local": "n=3"}


@pytest.mark.parametrize("way", WAYS)
def test_what_programs_do(tmp_path, way):
    output = run(
        tmp_path,
        """
factor = 3
class Slotted:
    __slots__ = ("a", "__b", "__weakref__")
    def __init__(self, a, b):
        self.a, self.__b = a, b
    def __repr__(self):
        return f"{self.a} {self.__b} {hasattr(self, '__dict__')}"
class Named(typing.NamedTuple):
    a: int
with POOL as pool:
    assert pool.n_workers == 3
    assert sys.argv[1:] == ["word"]
    assert pool.submit(pow, 2, 10).result() == 1024
    assert pool.submit(lambda x: x * factor, 5).result() == 15
    assert pool.submit(square, 1.5).result() == 2.25
    assert pool.submit(lambda p: Point(p.x + 1), Point(1)).result() == Point(2)
    assert list(pool.map(square, range(10_000))) == [i * i for i in range(10_000)]
    arrays = list(pool.map(np.negative, [np.full(100_000, i) for i in range(8)]))
    assert [int(array[-1]) for array in arrays] == [-i for i in range(8)]
    for array in pool.map(grow, [0] * 20 + [0.005] * 20):
        assert array.min() == array.max(), "a result that the next task has changed"
    assert len(all_pids(pool)) == 3
    error = pool.submit(square, "x").exception()
    assert type(error) is TypeError and "in square" in str(error.__cause__), error
    shared = pool.share(np.arange(10.0))
    assert pool.submit(lambda a: a.sum(), shared).result() == 45
    large = np.arange(500_000.0)
    assert np.array_equal(pool.submit(lambda a: a, pool.share(large)).result(), large)
    assert pool.submit(lambda a: a.flags.writeable, shared).result() is False
    assert pool.submit(sum, pool.bcast([1, 2])).result() == 3
    for slotted in (Slotted(1, 2), Named(1)):
        back = pool.submit(lambda x: x, slotted).result()
        assert type(back) is type(slotted) and repr(back) == repr(slotted), repr(back)
    nested = pool.submit(lambda: mpims.Executor()).exception()
    assert "within a task" in str(nested), nested
TABLE, scale = None, 2
def set_up(start):
    global TABLE
    TABLE = [start]
    os.fork()  # the child ends where this does
def look_up(x):
    return (TABLE[0] + x) * scale
with mpims.Executor(initializer=set_up, initargs=(10,), OPTIONS) as pool:
    assert list(pool.map(look_up, range(3))) == [20, 22, 24]
    scale = 3
    assert pool.submit(Point(look_up).x, 1).result() == 33
    TABLE = [0]
    assert pool.submit(look_up, 1).result() == 3
class Kind:
    known = []
    def __init_subclass__(cls):
        Kind.known.append(cls.__name__)
class Settings(Kind):
    table, scale = None, 2
    def made(self):
        return Settings.table, scale
    def set_up(start):
        Settings.table = [start]
made = Settings.made
with mpims.Executor(initializer=Settings.set_up, initargs=(10,), OPTIONS) as pool:
    assert pool.submit(lambda: (Settings.table, Settings.scale)).result() == ([10], 2)
    future = pool.submit(Settings)
    Settings.scale = 3
    assert type(future.result()) is Settings
    assert Kind.known == ["Settings"], Kind.known
    assert (Settings.scale, Settings.table, Settings.made) == (3, None, made), "by what came home"
    assert pool.submit(lambda: (Settings.table, Settings.scale)).result() == ([10], 3)
TABLE = None
with POOL as pool:
    assert pool.submit(lambda: (Settings.table, Settings.scale)).result() == (None, 3)
    assert "NoneType" in str(pool.submit(look_up, 1).exception())
    assert list(pool.map(square, range(3))) == [0, 1, 4]
try:
    pool.submit(square, 1)
except RuntimeError as error:
    print(error)
if "mpi4py.MPI" in sys.modules:
    from mpi4py import MPI
    MPI.Finalize()  # which waits for the others
    try:
        mpims.Executor()
    except mpims.UsageError as error:
        print(error)
""",
        way,
    )
    refused, *late = output.splitlines()
    assert refused == "cannot schedule new futures after shutdown"
    assert way == "local" or late[0].startswith("MPI was finalised already: "), late


def test_what_a_task_does_beside_its_result_it_does_once(tmp_path):
    """Also where it is moved just as its rank begins it."""
    run(
        tmp_path,
        """
from collections import Counter
def note(x):
    i, name, seconds = x
    with open(name, "ab", buffering=0) as file:
        file.write(b"%d\\n" % i)
    time.sleep(seconds)
with POOL as pool:
    for k in range(30):
        tasks = [(i, f"noted-{k}", (0, 0, 1e-3, 3e-3)[(7 * i + k * i) % 4]) for i in range(60)]
        if k % 2:
            list(pool.map(note, tasks))
        else:
            wait([pool.submit(note, task) for task in tasks])
        times = Counter(open(f"noted-{k}").read().split())
        assert len(times) == 60 and set(times.values()) == {1}, times.most_common(3)
    began = time.monotonic()
    slow = [pool.submit(time.sleep, s) for s in (2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)]
    wait(slow[1:])
    assert time.monotonic() - began < 1.5, "others waited for a long task"
""",
        "with",
    )


@pytest.mark.parametrize("way", ["script", "local"])
def test_a_killed_rank_costs_nothing_but_time(tmp_path, way):
    run(
        tmp_path,
        """
with POOL as pool:
    pids = all_pids(pool)
    results = pool.map(slow, range(1000))
    first = [next(results) for _ in range(30)]
    os.kill(pids[0], signal.SIGKILL)
    assert first + list(results) == [i * i for i in range(1000)]
    futures = [pool.submit(slow, i) for i in range(200)]
    os.kill(pids[1], signal.SIGKILL)
    assert [future.result(20) for future in futures] == [i * i for i in range(200)]
""",
        way,
    )


@pytest.mark.parametrize("way", ["script", "local"])
def test_a_task_that_kills_its_ranks_is_given_up_and_the_others_are_not(tmp_path, way):
    run(
        tmp_path,
        """
with POOL as pool:
    bad = pool.submit(die, 1)
    good = [pool.submit(slow, i) for i in range(30)]
    error = bad.exception(20)
    assert type(error) is mpims.WorkerLost and "SIGKILL" in str(error), error
    assert f" ({os.uname().nodename}) (tried " in str(error), error
    assert [future.result(10) for future in good] == [i * i for i in range(30)]
    left = pool.submit(os._exit, 3).exception(20)
    assert type(left) is mpims.WorkerLost, left
    assert len(set(pool.map(pid, range(30)))) == 1
""",
        way,
    )


def test_a_task_under_way_on_a_rank_that_died_is_computed_in_a_new_python(tmp_path):
    """What it uses may not survive a fork; and it has all that its rank had from the program."""
    run(
        tmp_path,
        """
from functools import partial

owner = None

def begin(offset):
    global owner, base
    owner, base = os.getpid(), offset

def on_device(i, shared, text):
    assert os.getpid() == owner, "no device in a forked process"
    if i == 5 and not os.path.exists("once"):
        open("once", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return base + shared[i] + factor * len(text)

factor = 1000
with mpims.Executor(n=3, initializer=begin, initargs=(100,)) as pool:
    shared, text = pool.share(np.arange(50)), pool.bcast("abc")
    futures = [pool.submit(on_device, i, shared, text) for i in range(50)]
    assert [future.result(20) for future in futures] == [3100 + i for i in range(50)]
    os.remove("once")
    results = pool.map(partial(on_device, shared=shared, text=text), range(50))
    assert list(results) == [3100 + i for i in range(50)]
""",
    )


def test_a_task_that_hangs_is_given_up_where_there_is_a_limit(tmp_path):
    run(
        tmp_path,
        """
with mpims.Executor(n=3, timeout_s=0.5, retries=1) as pool:
    bad = pool.submit(hang, 1)
    assert list(pool.map(slow, range(300))) == [i * i for i in range(300)]
    error = bad.exception(20)
    assert type(error) is mpims.WorkerLost and "no answer for 0.5 s" in str(error), error
""",
    )


def test_a_forked_child_of_the_program_may_leave_as_it_likes(tmp_path):
    run(
        tmp_path,
        """
pool = mpims.Executor(n=1)
pending = pool.submit(time.sleep, 0.2)
child = os.fork()
if child == 0:
    try:
        pool.submit(square, 1)
    except mpims.ExecutorBroken as error:
        assert "forked" in str(error), error
    try:
        mpims.Executor(n=1)
    except mpims.UsageError as error:
        assert "forked" in str(error), error
        pending.cancel()
        pool.shutdown(cancel_futures=True)
        sys.exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
assert pending.result(10) is None
assert pool.submit(square, 4).result(10) == 16
pool.shutdown()
""",
    )


def test_when_no_rank_is_left_no_future_waits(tmp_path):
    run(
        tmp_path,
        """
with POOL as pool:
    pids = all_pids(pool)
    futures = [pool.submit(slow, i) for i in range(5000)]
    results = pool.map(slow, range(5000))
    for each in pids:
        os.kill(each, signal.SIGKILL)
    assert type(futures[-1].exception(20)) is mpims.ExecutorBroken
    assert not wait(futures, timeout=5).not_done
    for call in (lambda: list(results), lambda: pool.submit(square, 1)):
        try:
            call()
        except mpims.ExecutorBroken as error:
            assert "no rank is left" in str(error), error
        else:
            raise AssertionError("no error")
""",
    )


def test_a_shared_array_lies_once_on_each_of_several_hosts():
    done = run_on_ranks(6, ["-m", "tests.executor.several_hosts"], ROOT)
    assert done.stdout == "once on each host\n", done.stdout + done.stderr


def test_what_fails_in_the_program_is_told_as_by_python(tmp_path):
    (tmp_path / "program.py").write_text(HEAD + "def f():\n    raise KeyError('mine')\nf()\n")
    command = on_ranks(2, ["-m", "mpims", "script", "program.py"])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "KeyError: 'mine'" in done.stderr
    assert "runpy" not in done.stderr
    assert "mpims/cli" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["nothing.py"], "no program nothing.py"), (["-n", "0", "program.py"], "-n wants at least 1")],
)
def test_wrong_usage_of_script(mpims_cli, tmp_path, arguments, reason):
    (tmp_path / "program.py").write_text("")
    done = mpims_cli("script", *arguments)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_script_starts_ranks_itself_and_passes_the_status_on(mpims_cli, tmp_path):
    (tmp_path / "program.py").write_text(
        HEAD
        + "with mpims.Executor() as pool:\n"
        + "    print(sum(pool.map(square, range(10))), pool.n_workers, sys.argv[1:])\n"
        + "sys.exit(5)\n"
    )
    done = mpims_cli("script", "-n", "3", "program.py", "--option", "x")
    assert done.stdout.split("\n")[0] == "285 2 ['--option', 'x']", done.stderr
    assert done.returncode == 5


@pytest.mark.parametrize(
    ("heeds", "status", "said"),
    [(True, 4, ""), (False, 130, "mpims: stopped by the user\n")],
)
def test_ctrl_c_at_script_reaches_the_program(tmp_path, heeds, status, said):
    body = "    list(pool.map(slow, range(10**6)))\n"
    if heeds:
        body = f"    try:\n    {body}    except KeyboardInterrupt:\n        sys.exit(4)\n"
    (tmp_path / "program.py").write_text(
        HEAD
        + "with mpims.Executor() as pool:\n    print(pool.submit(square, 3).result(), flush=True)\n"
        + body
    )
    script = subprocess.Popen(
        [sys.executable, "-m", "mpims", "script", "-n", "2", "program.py"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "9\n"
    script.send_signal(signal.SIGINT)
    try:
        _, error = script.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        script.kill()
        raise
    assert (script.returncode, error) == (status, said)


def test_after_ctrl_c_in_shutdown_the_next_executor_gives_its_own_results(tmp_path):
    """Ranks that were started here end in a thread that Ctrl-C must not take for dead."""
    run(
        tmp_path,
        """
def late(x):
    time.sleep(0.3)
    return x
try:
    with POOL as pool:
        futures = [pool.submit(late, i) for i in range(6)]
        all_pids(pool)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
except KeyboardInterrupt:
    assert not pool._clients.link.join(0)
else:
    raise AssertionError("no Ctrl-C")
with POOL as pool:
    assert [future.result(0) for future in futures] == list(range(6))
    assert pool.submit(square, 3).result() == 9
""",
    )


def test_signals_to_a_rank_are_left_to_the_program(tmp_path):
    """Batch systems send them to every rank: what was under way is delivered, and the program decides."""
    run(
        tmp_path,
        """
def signal_itself(number):
    os.kill(os.getpid(), number)
    return number
with POOL as pool:
    for rank in all_pids(pool):
        os.kill(rank, signal.SIGINT)
        os.kill(rank, signal.SIGUSR1)
    assert list(pool.map(signal_itself, [2, 15, 10])) == [2, 15, 10]
    assert len(all_pids(pool)) == 3
""",
        "with",
    )


@pytest.mark.parametrize("when", ["before all ranks are there", "amid an executor"])
def test_a_program_that_ends_its_process_leaves_no_rank_waiting(mpims_cli, tmp_path, when):
    """MPI says nothing of such an end, and the launcher not always its status."""
    body = "with mpims.Executor() as pool:\n    pool.submit(square, 3).result()\n    os._exit(7)\n"
    (tmp_path / "program.py").write_text("import os\nos._exit(7)\n" if "before" in when else HEAD + body)
    began = time.monotonic()
    done = mpims_cli("script", "-n", "3", "program.py")
    assert time.monotonic() - began < 40
    assert done.returncode not in (0, 75, 130)
    assert "before the run began" not in done.stderr
    assert "mpims: the program's ranks have ended (launcher: status " in done.stderr


def test_a_program_that_ends_its_process_before_its_first_executor_leaves_no_rank_waiting(tmp_path):
    """Nor under a launcher that nobody watches."""
    (tmp_path / "program.py").write_text("import os, time\ntime.sleep(0.5)\nos._exit(7)\n")
    done = run_on_ranks(3, ["-m", "mpims", "script", "program.py"], tmp_path)
    assert "mpims: rank 0" in done.stderr
    assert "the program, has died: the ranks that served it end" in done.stderr


def test_a_program_that_is_killed_leaves_no_rank(tmp_path):
    (tmp_path / "program.py").write_text(
        HEAD + "pool = mpims.Executor(n=2)\nprint(pool.submit(square, 3).result(), flush=True)\n"
        "list(pool.map(hang, range(5)))\n"
    )
    mark = f"{os.getpid()}-killed"
    program = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**clean_environment(), "TEST_EXECUTOR": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "9\n"
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    until = time.monotonic() + 20
    while find_marked(f"TEST_EXECUTOR={mark}".encode()) and time.monotonic() < until:
        time.sleep(0.1)
    assert find_marked(f"TEST_EXECUTOR={mark}".encode()) == []
