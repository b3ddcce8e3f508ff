"""A run on ranks that a launcher starts: it is waited for, stopped when asked, and never left behind.

::

    mpims run JOB -n 4         run_ranks: waits, passes signals on, gives the status of the run
      mpirun -n 4 ... python -m mpims run JOB    in a session of its own: Ctrl-C does not reach it
        rank 0                 report_status: writes the status into a file, then exits with 0
        ranks 1 ... 3

The status goes through a file because launchers do not hand it on reliably: Open MPI's prints six lines
of its own about any other than 0, and with some failures both lose it.

A run is asked to stop with SIGUSR1, whatever signal came here: that one both launchers hand to every
rank and do no more about, while Open MPI's answers SIGINT and SIGTERM by killing all ranks at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

from mpims.errors import ExitStatus, UsageError
from mpims.processes import Process, ending_with_parent, is_alive
from mpims.streams import say, show
from mpims.world import STATUS_FILE, STOP_SIGNAL

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_IMPATIENT_S = 1.0  # one Ctrl-C or `timeout` can send two signals at once: that is not a second request
_POLL_S = 0.2
_ALONE_S = 5.0  # so long after the end of their program the ranks should have ended
_LEFT_S = 0.3  # ranks have mostly left by then, and nothing of theirs need be looked for
_AT_ONCE_S = 3.0  # within which a run ends that is to stop at once

LACKING_S = 1.0
"""Ranks that are begun appear one after another within this time."""
MOST_STARTS = 3
"""So often ranks are started of which some are killed before they have begun."""
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""What a launcher ends with: killed by us; or a rank of its was, as it tells."""


def run_ranks(
    command: Sequence[str],
    *,
    grace_s: float = 10.0,
    stop_s: float = 20.0,
    tell_done: Callable[[str, dict[str, Any]], None] = lambda run_dir, summary: None,
) -> int:
    """Start a launcher, wait until it has ended, and give the exit status of the run.

    The first SIGINT, SIGTERM, SIGHUP or SIGUSR1 asks the run to stop (see `STOP_SIGNAL`); a second one, a
    second or more later, ends it. If a rank is killed before the run begins, all are started again, for
    they cannot go on without it. None of its processes on this host outlives this call, and none
    outlives this process for long, even if that is killed.

    Parameters
    ----------
    command
        As `mpims.launch.launch_command` gives it; its master must call `report_status`.
    grace_s
        So many seconds the launcher may go on after the run has told its status, before it is ended,
        and again after it has been told to end, before it is killed.
    stop_s
        So many seconds a run may take to stop.
    tell_done
        Called with the directory and the summary of a run that is done and of which no rank could tell.

    Returns
    -------
    int
        The status that the master told; else that of a run whose directory says that it is done; else
        `STOPPED` if a run had begun, for it can be resumed, or `INTERRUPTED` if a program had that was to
        stop; else the launcher's own, which is then never 0.

    Raises
    ------
    UsageError
        The launcher cannot be started, or there is no place for temporary files.
    RunFailed
        What the master wants to be printed (`report_output`) cannot be written.
    """
    with temporary_files():
        scratch = TemporaryDirectory(prefix="mpims-")
    with scratch as folder, _arrivals() as arrivals:
        status_file = os.path.join(folder, "status")
        for n_left in reversed(range(MOST_STARTS)):
            launcher = start_launcher(command, {STATUS_FILE: status_file})
            try:
                _wait(launcher, arrivals, status_file, grace_s, stop_s)
            finally:
                end_launcher(launcher, grace_s)
                kill_marked(f"{STATUS_FILE}={status_file}".encode())
            status = _told(status_file)
            if status is None:  # it ended early: a rank may have been about to begin, and unmarked yet
                time.sleep(_POLL_S)
                kill_marked(f"{STATUS_FILE}={status_file}".encode())
            resume = _read(f"{status_file}.resume")
            if _has_begun(status_file) or arrivals or launcher.returncode not in KILLED or not n_left:
                break
            say("a rank was killed before the run had begun: all are started again")
        output = _read(f"{status_file}.output")
    if output:
        show(output)
    if status is not None:
        return status
    status = launcher.returncode if launcher.returncode >= 0 else 128 - launcher.returncode
    if resume.startswith("\n"):  # a program, which is not resumed
        say(f"the program's ranks have ended (launcher: status {status})")
        return ExitStatus.INTERRUPTED if arrivals else status or ExitStatus.FAILED
    if resume:
        resume, run_dir = resume.split("\n", 1)
        summary = _summary_of_done(run_dir)
        if summary is not None:
            if not output:
                tell_done(run_dir, summary)
            return ExitStatus.SKIPPED if summary.get("n_skipped") else ExitStatus.DONE
        say(f"all ranks have ended (launcher: status {status}); resume with: {resume}")
        return ExitStatus.STOPPED
    if arrivals:
        say("stopped before the run began")
        return ExitStatus.INTERRUPTED
    say(f"the launcher ended with status {status} before the run began")
    return status or ExitStatus.FAILED


@contextmanager
def temporary_files() -> Iterator[None]:
    """Within this, temporary files and folders are made.

    Raises
    ------
    UsageError
        There is no place for them.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot make temporary files: {error.strerror}; "
            "make room there, or set TMPDIR to a folder that has some"
        ) from None


@contextmanager
def _arrivals() -> Iterator[list[float]]:
    """The moments at which signals that stop a run arrived; those ignored so far stay ignored."""
    moments: list[float] = []
    heeded = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, lambda *_: moments.append(time.monotonic())) for number in heeded]
    try:
        yield moments
    finally:
        for number, handler in zip(heeded, before, strict=True):
            signal.signal(number, handler)


def start_launcher(command: Sequence[str], environ: Mapping[str, str]) -> Popen[bytes]:
    """Start a launcher, in a session of its own, with this in its environment too.

    Raises
    ------
    UsageError
        It cannot be started.
    """
    try:
        return Popen(
            command,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=ending_with_parent(signal.SIGTERM),
        )
    except OSError as error:
        raise UsageError(f"cannot start the launcher {command[0]}: {error.strerror}") from None


def _wait(
    launcher: Popen[bytes], arrivals: list[float], status_file: str, grace_s: float, stop_s: float
) -> None:
    """Wait until the launcher has ended, or is to be ended; ask the run to stop at the first signal."""
    asked_at: float | None = None
    pressed_at: float | None = None
    told_at: float | None = None
    whole_at = time.monotonic()
    while launcher.poll() is None:
        if _is_whole(launcher.pid, status_file):
            whole_at = time.monotonic()
        elif time.monotonic() - whole_at > (_ALONE_S if _has_begun(status_file) else LACKING_S):
            # A death is survived only when all ranks have found each other: the others wait for ever.
            launcher.kill()
        if arrivals and not os.path.exists(f"{status_file}.resume"):
            return  # ranks that are only starting may not hear it, and have nothing to lose
        if arrivals and asked_at is None:
            launcher.send_signal(STOP_SIGNAL)
            asked_at = time.monotonic()
        if arrivals and pressed_at is None and arrivals[-1] - arrivals[0] >= _IMPATIENT_S:
            launcher.send_signal(STOP_SIGNAL)
            pressed_at = time.monotonic()
        if pressed_at is not None and time.monotonic() - pressed_at > _AT_ONCE_S:
            return
        if asked_at is not None and time.monotonic() - asked_at > stop_s:
            say(f"the run did not stop within {stop_s:g} s; all ranks are ended")
            return
        if told_at is None and os.path.exists(status_file):
            told_at = time.monotonic()
        if told_at is not None and time.monotonic() - told_at > _LEFT_S:
            kill_left(launcher.pid, f"{STATUS_FILE}={status_file}".encode())
        if told_at is not None and time.monotonic() - told_at > grace_s:
            say(f"some rank did not end within {grace_s:g} s after the run; all are ended")
            return
        with suppress(TimeoutExpired):
            launcher.wait(_POLL_S)


def _is_whole(launcher: int, status_file: str) -> bool:
    """Whether what is under way can come to an end.

    A run that has begun survives deaths; a program does, but for its own.
    """
    if os.path.exists(status_file):
        return True
    resume = _read(f"{status_file}.resume")
    if not resume:
        return not lacks_ranks(launcher)
    return not resume.startswith("\n") or is_alive(Process.from_dict(json.loads(resume))) is not False


def _has_begun(status_file: str) -> bool:
    """Whether the master has told that a run is under way, or how it ended."""
    return os.path.exists(f"{status_file}.resume") or os.path.exists(status_file)


def lacks_ranks(launcher: int) -> bool:
    """Whether some of the ranks that Open MPI's launcher started on this host are dead, as /proc shows."""
    sizes = []
    with suppress(FileNotFoundError):
        for process in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError, ValueError, KeyError):
                if _parent(process) == launcher:
                    sizes.append(int(_environ(process)["OMPI_COMM_WORLD_LOCAL_SIZE"]))
    return bool(sizes) and len(sizes) < max(sizes)


def _parent(process: str) -> int:
    with open(f"/proc/{process}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[1])


def _environ(process: str) -> dict[str, str]:
    """The environment that a process was started with; a dead one has none."""
    with open(f"/proc/{process}/environ", encoding="utf-8", errors="replace") as file:
        return dict(entry.partition("=")[::2] for entry in file.read().split("\0"))


def end_launcher(launcher: Popen[bytes], grace_s: float) -> None:
    """End the launcher if it has not ended."""
    if launcher.poll() is None:
        launcher.terminate()
        with suppress(TimeoutExpired):
            launcher.wait(grace_s)
        launcher.kill()
        launcher.wait()


def kill_marked(mark: bytes) -> None:
    """Kill the processes that carry `mark` in their environment."""
    for process in find_marked(mark):
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)


def kill_left(launcher: int, mark: bytes) -> None:
    """Kill the marked processes that ranks have left running, and whose rank has ended.

    They hold its streams, of which the launcher waits for the end. Their parent is init now, or who takes
    such processes in above the launcher; that of a rank may be anybody else, where it was not the launcher
    that started it but a daemon of SLURM's.
    """
    with suppress(OSError):
        takers = _ancestors(launcher)
        for process in find_marked(mark):
            with suppress(OSError):
                if process != launcher and _parent(str(process)) in takers:
                    os.kill(process, signal.SIGKILL)


def _ancestors(process: int) -> set[int]:
    ancestors = {1}
    while process > 1:
        process = _parent(str(process))
        ancestors.add(process)
    return ancestors


def find_marked(mark: bytes) -> list[int]:
    """The processes that carry ``NAME=value`` in their environment, where the system shows it in /proc."""
    found = []
    with suppress(FileNotFoundError):
        for process in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{process}/environ", "rb") as environ:
                if mark in environ.read().split(b"\0"):
                    found.append(int(process))
    return found


def _told(status_file: str) -> int | None:
    try:
        with open(status_file, encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return None


def _summary_of_done(run_dir: str) -> dict[str, Any] | None:
    """That of a run that is done though nobody told us: its last master died just then, or on another host.

    If the result is not there it was lost since, and was being made anew.
    """
    try:
        summary = json.loads(_read(os.path.join(run_dir, "summary.json")))
        is_done = summary["status"] == "done"
        path = os.path.join(run_dir, os.path.basename(summary["result_file"])) if is_done else ""
    except (ValueError, KeyError, TypeError):
        return None
    return summary if os.path.exists(path) else None


def _read(path: str) -> str:
    """What a file says; nothing if it is not there."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
