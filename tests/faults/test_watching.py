"""Real runs, watched: on terminals of two widths, in a log, from another process, and after a SIGKILL."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyte
import pytest

from mpims.storage.rundir import MANIFEST
from tests.conftest import HARD_LIMIT_S, clean_environment

SLOW = """
n: int = 200
block = 1

def kernel(self, items):
    time.sleep(0.0 if os.path.exists("quick") else 0.02)
    if items[0] == 3:
        print("item three")
    return np.asarray(items) * 2.0
"""


class Screen:
    """A command on a terminal of its own, and what stands there."""

    def __init__(self, folder: Path, columns: int, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._screen = pyte.Screen(columns, 40)
        self._stream = pyte.ByteStream(self._screen)
        self._until = time.monotonic() + HARD_LIMIT_S
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mpims", *arguments],
            cwd=folder,
            env={**clean_environment(), "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def wait_for(self, reached: Callable[[list[str]], bool]) -> list[str]:
        """Read until the lines on the screen are so, or the command has ended; give them."""
        while time.monotonic() < self._until and not reached(self.lines) and self._read():
            pass
        return self.lines

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def is_clean(self) -> bool:
        """Whether the cursor is to be seen, and at the beginning of a line."""
        return not self._screen.cursor.hidden and self._screen.cursor.x == 0

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            self._stream.feed(os.read(self._master, 10_000))
        except OSError:  # the other end is closed
            return False
        return True


@pytest.fixture
def on_terminal(tmp_path) -> Iterator[Callable[..., Screen]]:
    """Start ``python -m mpims`` on a terminal of so many columns."""
    screens: list[Screen] = []

    def start(columns: int, *arguments: str) -> Screen:
        screens.append(Screen(tmp_path, columns, *arguments))
        return screens[-1]

    yield start
    for screen in screens:
        screen.close()


def has_bar(lines: list[str]) -> bool:
    return any(re.search(r"━.* [1-9]\d?%$", line) for line in lines)


def tells_time_left(lines: list[str]) -> bool:
    return any(re.fullmatch(r"about .* left( .*)?", line) for line in lines)


def test_a_run_on_a_terminal_shows_how_far_it_is_and_leaves_it_clean(on_terminal, write_job):
    write_job(SLOW)
    screen = on_terminal(80, "run", "x.py", "-n", "2", "--run-dir", "r")
    shown = "\n".join(screen.wait_for(has_bar))
    assert re.search(r"^[\d,]+/100 items  \d+\.\d% of the work  [\d.]+ items/s$", shown, re.MULTILINE)
    assert re.search(r"^about [\d.]+ s left  [\d.]+ s gone$", shown, re.MULTILINE)
    assert "1 of 1 worker busy" in shown
    left = screen.wait_for(lambda lines: False)
    assert screen.process.wait(HARD_LIMIT_S) == 0
    assert screen.is_clean
    assert not any("━" in line or "worker busy" in line for line in left)
    assert "mpims: what the job printed is in r/output: rank-1.txt" in left
    assert "item three" not in left


def test_ctrl_c_on_a_narrow_terminal_leaves_it_clean(on_terminal, write_job):
    write_job(SLOW, items="3000")
    screen = on_terminal(40, "run", "x.py", "-n", "2", "--run-dir", "r")
    # What was read may end in the midst of a drawing.
    shown = screen.wait_for(lambda lines: has_bar(lines) and tells_time_left(lines))
    assert all(len(line) <= 40 for line in shown)
    assert tells_time_left(shown)
    screen.type(b"\x03")
    left = screen.wait_for(lambda lines: False)
    assert screen.process.wait(HARD_LIMIT_S) == 75
    assert screen.is_clean
    assert not any("━" in line for line in left)
    assert "resume with: python -m mpims resume r -n 2" in "".join(left)


def test_a_run_into_a_file_is_seen_from_outside_until_it_is_killed(mpims_cli, write_job, tmp_path):
    write_job(SLOW, items="1500")
    with open(tmp_path / "log", "wb") as log:
        command = [sys.executable, "-m", "mpims", "run", "x.py", "-n", "3", "--run-dir", "r"]
        run = subprocess.Popen(
            [*command, "--log-every", "0.5"], cwd=tmp_path, env=clean_environment(), stdout=log, stderr=log
        )
    try:
        lines = wait_for_lines(tmp_path / "log", 3)
        told = wait_for_status(mpims_cli, "r", lambda status: status["n_done"] > 0)
        kill_ranks(tmp_path / "r")
        assert run.wait(HARD_LIMIT_S) == 75
    finally:
        run.kill()
        run.wait()
    keys = "time done items work rate gone left walltime busy suspect lost reissued failures skipped last"
    assert all(re.findall(r"(\w+)=", line) == keys.split() for line in lines)
    assert told["state"] == "running"
    assert told["silence_s"] < 30
    assert told["status"]["n_done"] < 1500
    dead = mpims_cli("status", "r")
    assert "dead: its master" in dead.stdout
    resume = dead.stdout.splitlines()[-1].removeprefix("next     python -m mpims ").split()
    assert resume == ["resume", "r", "-n", "3"]
    (tmp_path / "quick").touch()
    assert mpims_cli(*resume, "--quiet").returncode == 0
    assert mpims_cli("status", "r").stdout.startswith("r: done\n")
    assert np.array_equal(np.load(tmp_path / "r" / "result.npy"), np.arange(1500) * 2.0)


def wait_for_lines(log: Path, n_lines: int) -> list[str]:
    """The lines on how far the run is, once there are so many."""
    until = time.monotonic() + HARD_LIMIT_S
    while time.monotonic() < until:
        lines = [line for line in log.read_text().splitlines() if line.startswith("mpims: time=")]
        if len(lines) >= n_lines:
            return lines
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def wait_for_status(mpims_cli, folder: str, is_so) -> dict:
    """What `mpims status --json` tells, once its figures are as they are to be."""
    until = time.monotonic() + HARD_LIMIT_S
    while time.monotonic() < until:
        told = json.loads(mpims_cli("status", folder, "--json").stdout)
        if told["status"] is not None and is_so(told["status"]):
            return told
        time.sleep(0.1)
    raise AssertionError(told)


def kill_ranks(folder: Path) -> None:
    """Kill all ranks at once, as a power cut would."""
    for rank in json.loads((folder / MANIFEST).read_text())["ranks"].values():
        os.kill(rank["pid"], signal.SIGKILL)


def test_what_a_crashed_rank_printed_last_is_there(mpims_cli, write_job, tmp_path):
    write_job(
        """
def kernel(self, items):
    if items[0] == 40 and os.environ.get("CRASH"):
        print("about to crash")
        os.kill(os.getpid(), 9)
    return np.asarray(items) * 2.0
"""
    )
    options = ["--on-error", "skip", "--retries", "0"]
    done = mpims_cli("run", "x.py", "-n", "3", "--run-dir", "r", *options, env={"CRASH": "1"})
    assert done.returncode == 3, done.stderr
    printed = "".join(path.read_text() for path in (tmp_path / "r" / "output").iterdir())
    assert re.search(r"^items \[40, 41\): about to crash$", printed, re.MULTILINE)
    assert re.search(r"rank [12] \(\S+\) lost", done.stderr)
