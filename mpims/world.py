"""What a rank knows of the launcher that started it: its world, and how to tell it the status."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from mpims.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from mpims.processes import Process

STATUS_FILE = "MPIMS_STATUS_FILE"
"""The environment variable that names the file for the status of the run."""

STOP_SIGNAL = signal.SIGUSR1
"""What the ranks get when the run is to stop: rank 0 stops it, the others ignore the signal."""


class World(NamedTuple):
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


_LOCAL_RANK_VARIABLES = (
    "OMPI_COMM_WORLD_LOCAL_RANK",  # Open MPI
    "MPI_LOCALRANKID",  # MPICH, Intel MPI
    "MV2_COMM_WORLD_LOCAL_RANK",  # MVAPICH2
    "SLURM_LOCALID",  # srun; last, for the ranks of a launcher in a batch script inherit the script's, 0
)


def local_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Give this rank's number among the ranks of its host, from 0 on; 0 if no launcher says one.

    It is for what each rank of a host needs for itself, such as a GPU, and to be asked in `Job.setup` or in
    an executor's initializer; results must not depend on it.

    Examples
    --------
    >>> local_rank({"OMPI_COMM_WORLD_LOCAL_RANK": "2", "SLURM_LOCALID": "0"})
    2
    >>> local_rank({})
    0
    """
    for name in _LOCAL_RANK_VARIABLES:
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return 0


_RANK_PREFIXES = ("OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "PMIX_", "PMI_")


def without_world(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that a rank starts and that is no rank: MPI is alone in it.

    Its `local_rank` is that of the rank.
    """
    return {
        name: value
        for name, value in environ.items()
        if name in _LOCAL_RANK_VARIABLES or not name.startswith(_RANK_PREFIXES)
    }


def check_launcher(library: str, environ: Mapping[str, str]) -> None:
    """Refuse a launcher whose PMI is known to make the MPI library end this process when it is initialised.

    Parameters
    ----------
    library
        What the MPI library calls itself.

    Raises
    ------
    UsageError
        An MPICH that was built without PMIx was started by a launcher that speaks nothing else.
    """
    if "PMIX_RANK" in environ and library.startswith("MPICH") and "pmix" not in library.lower():
        raise _of_two_kinds("mpi4py loads MPICH, which speaks another PMI", library, environ)


def alone_error(size: int, library: str, environ: Mapping[str, str]) -> UsageError:
    """The error that a launcher started `size` processes, each of which MPI shows only itself."""
    return _of_two_kinds(f"MPI shows each of {size} processes only itself", library, environ)


def _of_two_kinds(what: str, library: str, environ: Mapping[str, str]) -> UsageError:
    """The launcher and the library do not understand each other: what to use instead."""
    name = " ".join(library.split("\n")[0].split(",")[0].split())
    if "SLURM_STEP_ID" in environ and "OMPI_COMM_WORLD_SIZE" not in environ:
        pmi = "pmix" if "Open MPI" in library else "pmi2"
        return UsageError(
            f"srun started this without the PMI that {name} speaks: {what}; leave srun out "
            f"(`mpims run` starts a rank for each task by itself), or say srun --mpi={pmi}"
        )
    return UsageError(
        f"the launcher and the MPI that mpi4py loads are not of one kind: {what}; "
        f"use the mpirun of {name}, or none: `mpims run -n` finds it"
    )


def report_resume(command: str, run_dir: str, environ: Mapping[str, str]) -> None:
    """Tell `run_ranks` how to go on with the run, should all ranks die, and where it is."""
    if STATUS_FILE in environ:
        _put(f"{environ[STATUS_FILE]}.resume", f"{command}\n{run_dir}")  # it is read at any moment


def report_begun(program: Process, environ: Mapping[str, str]) -> None:
    """Tell `run_ranks` that a program is under way in that process, which cannot be resumed."""
    import json  # not for workers

    report_resume("", json.dumps(program.as_dict()), environ)


def is_status_told(environ: Mapping[str, str]) -> bool:
    """Whether some master has told `run_ranks` the status of the run, its last word."""
    return STATUS_FILE in environ and os.path.exists(environ[STATUS_FILE])


def report_status(status: int, environ: Mapping[str, str]) -> int:
    """Tell `run_ranks` the status of the run; give the one that this process is to exit with.

    The last thing that the master does. It is 0 if the status has been told, else the status itself:
    nobody asked, or who asked is on another host.
    """
    path = environ.get(STATUS_FILE)
    if path is None:
        return status
    return ExitStatus.DONE if _put(path, f"{int(status)}\n") else status


def report_output(text: str, environ: Mapping[str, str]) -> bool:
    """Give `run_ranks` what it is to print on standard output; whether it takes it.

    A launcher, which hands on what a rank prints, keeps to itself that it could not.
    """
    return STATUS_FILE in environ and _put(f"{environ[STATUS_FILE]}.output", text)


def _put(path: str, text: str) -> bool:
    """Write a file, whole or not at all; whether it is there."""
    try:
        with open(f"{path}.part", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(f"{path}.part", path)
    except OSError:
        return False
    return True
