"""Runs to be disturbed, and what has to be true of every one of them at its end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from mpims.digest import digest
from mpims.drill.watched import WatchedRun
from mpims.processes import Process, send_signal
from mpims.storage.results import read_result
from tests.conftest import clean_environment

# What Open MPI's launcher says of the connection to a rank that has died, when it was just using it.
LOST_CONNECTION = re.compile(
    r"\[\S+:\d+\] pmix_ptl_base: send_msg: write failed: Connection reset by peer .*"
    r"|\[\S+:\d+\] PMIX ERROR: PMIX_ERR_UNREACH in file \S*/pmix_server\.c at line \d+"
    r"|\[warn\] Epoll (ADD|MOD|DEL)\(\d+\) on fd \d+ failed\. .*: Bad file descriptor"
)
JOB = """
import ctypes, os, resource, signal, sys, time
from pathlib import Path
import numpy as np
import mpims


class Job(mpims.Job):
    n: int = 400
    ms: float = 4.0
    bad: int = -1               # this item ...
    how: str = "raised"         # ... ends so
    finish_s: float = 0.0

    def items(self):
        return self.n

    def kernel(self, items):
        if self.bad in items:
            globals()[self.how]()
        time.sleep(self.ms / 1000 * len(items))
        return self.results(items)

    def finish(self, result):
        Path(self.run_dir, "finishing").touch()
        time.sleep(self.finish_s)


class Arrays(Job):
    output = mpims.Gather()

    def results(self, items):
        return np.array([self.rng(i).normal(size=7) for i in items])


class Sum(Job):
    output = mpims.Reduce(np.add)

    def results(self, items):
        return np.array([self.rng(i).normal(size=3) * 10.0 ** self.rng(i).integers(-9, 9) for i in items])


class Product(Job):
    output = mpims.Reduce(lambda a, b: a @ b)

    def results(self, items):
        return np.array([np.linalg.qr(self.rng(i).normal(size=(3, 3)))[0] for i in items])


class Objects(Job):
    output = mpims.Gather()

    def results(self, items):
        return [{"item": i, "draws": list(self.rng(i).random(i % 4)), "x": "x" * (i % 50)} for i in items]


def raised():
    raise ValueError("this item is at fault")

def segfault():
    ctypes.string_at(0)

def memory():
    mine = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, mine[1]))
    try:
        np.empty(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, mine)

def oom():
    os.kill(os.getpid(), signal.SIGKILL)

def leave():
    os._exit(0)

def exit_in_c():
    ctypes.CDLL(None).exit(3)

def never():
    time.sleep(1e6)
"""

KINDS = ["Arrays", "Sum", "Product", "Objects"]
"""The jobs in that file."""
LIMIT_S = 60.0
"""No run may take longer, whatever is done to it. A master that hangs is given up after 30 s, and a
rank that is killed may leave it hanging (docs/faults.md, limits)."""
LEFT_S = 3.0
"""After the end of a run its last processes may take this long to be gone."""


class Chaos:
    """One scenario's folder, its runs, and what is asked of them."""

    def __init__(self, folder: Path, reference: Reference) -> None:
        self.folder = folder
        self._reference = reference
        self._n_runs = 0
        (folder / "x.py").write_text(JOB)

    def run(self, job: str = "Arrays", *options: str, n_ranks: int = 4, **parameters: Any) -> Disturbed:
        """Start a new run."""
        return self._start(
            ["run", f"x.py:{job}", *settings(parameters), "--run-dir", "r"], options, n_ranks
        )

    def resume(self, *options: str, n_ranks: int = 4) -> Disturbed:
        """Go on with the run."""
        return self._start(["resume", "r"], options, n_ranks)

    def _start(self, command: list[str], options: Sequence[str], n_ranks: int) -> Disturbed:
        self._n_runs += 1
        return Disturbed(
            [*command, "-n", str(n_ranks), "--chunk", "1:12", *options],
            self.folder / "r",
            n_ranks,
            self.folder / f"out-{self._n_runs}",
            limit_s=LIMIT_S,
            cwd=self.folder,
            environ={**clean_environment(), "PYTHONFAULTHANDLER": "1"},
        )

    def check(self, run: Disturbed, status: int = 0) -> dict[str, Any]:
        """Wait for the end, and hold what is left to what an undisturbed run leaves; give the summary."""
        run.ends(status)
        assert status in (0, 3)
        summary: dict[str, Any] = json.loads((run.run_dir / "summary.json").read_text())
        manifest = json.loads((run.run_dir / "manifest.json").read_text())
        wanted = self._reference.digest(manifest["job"], manifest["parameters"])
        assert summary["status"] == "done", run.log()
        assert summary["n_done"] == summary["n_items"], run.log()
        found = digest(read_result(run.run_dir / Path(summary["result_file"]).name))
        assert found == wanted, f"other bits\n{run.log()}"
        assert summary["result_digest"] == wanted, run.log()
        assert not (run.run_dir / "lock").exists(), run.log()
        return summary


class Reference:
    """What undisturbed runs give, each made once: in one process, with what only takes time left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, str] = {}
        self._lock = Lock()
        (folder / "x.py").write_text(JOB)

    def digest(self, job: str, parameters: dict[str, Any]) -> str:
        """The digest of the result; an item at fault raises."""
        quick = {**parameters, "ms": 0, "finish_s": 0, "how": "raised"}
        arguments = [f"x.py:{job}", *settings(quick)]
        with self._lock:
            key = " ".join(arguments)
            if key not in self._digests:
                self._digests[key] = self._run([*arguments, "--on-error", "skip", "--quiet", "--json"])
            return self._digests[key]

    def _run(self, arguments: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mpims", "run", *arguments],
            cwd=self._folder,
            env=clean_environment(),
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode in (0, 3), done.stderr.decode()
        digest: str = json.loads(done.stdout)["result_digest"]
        return digest


def settings(parameters: dict[str, Any]) -> list[str]:
    """Parameters as options."""
    return [f"--set={name}={value}" for name, value in parameters.items()]


class Disturbed(WatchedRun):
    """A run with what the scenarios do to it."""

    def __enter__(self) -> Disturbed:
        return self

    def is_over(self) -> bool:
        """As of every run; one that takes too long first says where its ranks are."""
        if not self.overdue and time.monotonic() > self.limit and self.launcher.poll() is None:
            for rank, process in sorted(self.begun().items()):
                with self.errors.open("a") as file:
                    file.write(f"\nrank {rank}: {process_state(process.pid)}\n")
                self.strike(signal.SIGABRT, process)  # of which Python leaves a traceback
                time.sleep(0.2)
        return super().is_over()

    def log(self) -> str:
        """What the run was, and what it said."""
        texts = [path.read_text(errors="replace") for path in (self.errors, self.output)]
        return f"{self.launcher.args}\nstatus {self.launcher.poll()}\n" + "\n".join(texts)

    def ends(self, *statuses: int) -> int:
        """Wait for the end, within its limit; with one of these statuses, and with no process left over."""
        status = self.wait()
        assert not self.overdue, f"not over after {LIMIT_S:g} s\n{self.log()}"
        assert status in statuses, f"status {status} instead of {statuses[:4]}\n{self.log()}"
        deadline = time.monotonic() + LEFT_S
        while left := self.processes():
            assert time.monotonic() < deadline, f"left over: {left}\n{self.log()}"
            time.sleep(0.05)
        return status

    def last_line(self) -> str:
        """The last thing that it told the user, which must be a line of ours.

        Only the launcher's PMIx and libevent may say after it that a process has gone that they were just
        writing to: nothing keeps them from that.
        """
        lines = self.errors.read_text().strip().split("\n")
        while LOST_CONNECTION.fullmatch(lines[-1]):
            del lines[-1]
        assert lines[-1].startswith("mpims: "), self.log()
        return lines[-1]

    def reach(self, fraction: float, n_items: int = 400) -> None:
        """Wait until all have joined and so much is done."""
        assert self.wait_for(self.ranks), f"over before all ranks had joined\n{self.log()}"
        assert self.wait_for(lambda: self.n_done() >= fraction * n_items), f"over early\n{self.log()}"

    def send(self, number: int, *ranks: int) -> None:
        """Send a signal to ranks, which must be there."""
        for rank in ranks:
            assert self.signal(rank, number), f"rank {rank} is gone\n{self.log()}"

    def sigkill(self, *ranks: int) -> None:
        """Kill ranks."""
        self.send(signal.SIGKILL, *ranks)

    def strike(self, number: int, *processes: Process) -> None:
        """Send a signal to processes, which may be gone."""
        for process in processes:
            send_signal(process, number)

    def begun(self) -> dict[int, Process]:
        """The ranks as the launcher has begun them, joined or not."""
        found: dict[int, Process] = {}
        for process in self.processes():
            rank = variable(process.pid, "OMPI_COMM_WORLD_RANK")
            if rank is not None and variable(parent(process.pid), "OMPI_COMM_WORLD_RANK") is None:
                found[int(rank)] = process
        return found


def process_state(pid: int) -> str:
    """State, processor time in ticks, and where in the kernel a process waits."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        waits_in = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return "gone"
    return f"state {fields[0]}, {int(fields[11]) + int(fields[12])} ticks, waits in {waits_in}"


def variable(pid: int, name: str) -> str | None:
    """An environment variable of another process."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((e.decode().partition("=")[2] for e in entries if e.startswith(name.encode() + b"=")), None)


def parent(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
