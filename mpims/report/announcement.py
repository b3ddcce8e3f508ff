"""What is said of a run before it computes: what it is, what it survives, and how to go on with it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mpims.report.wording import counted, name_rank
from mpims.storage.rundir import as_argument


def opening_lines(
    *, job: str, n_items: int, block: int, n_ranks: int, policy: str, fault_tier: str, resume_command: str
) -> list[str]:
    """The first lines of a run on the terminal.

    Parameters
    ----------
    job
        The job as text.
    n_items, block
        How many items it has, and how many of them one kernel call computes.
    n_ranks
        How many ranks live, the master among them.
    policy
        The technique, with its parameters.
    fault_tier, resume_command
        As the functions of these names give them.
    """
    blocks = f" in {counted(-(-n_items // block), 'block')} of {block:,}" if block > 1 else ""
    return [
        f"{job}: {counted(n_items, 'item')}{blocks} on {counted(n_ranks, 'rank')}, {policy}",
        f"{fault_tier}; to resume: {resume_command}",
    ]


def takeover_line(rank: int, host: str, n_ranks: int) -> str:
    """Who is the master from now on, of so many ranks that live."""
    return f"{name_rank(rank, host)} is the master now, of {counted(n_ranks, 'rank')}"


def done_line(n_done: int, n_items: int) -> str:
    """How far a run is that is gone on with."""
    return f"{n_done:,} of {n_items:,} items are done already ({n_done / n_items:.0%})"


def advice_lines(
    n_ranks: int, n_workers: int, n_blocks: int, n_tasks: int | None, *, in_program: bool = False
) -> list[str]:
    """What would be a better number of ranks, where that can be told.

    Parameters
    ----------
    n_ranks
        How many ranks were started.
    n_workers
        How many of them compute.
    n_blocks
        How many blocks there are: a block is computed by one worker.
    n_tasks
        How many ranks SLURM has room for in this allocation; None outside of one.
    in_program
        A program called `mpims.run`: it has no ``-n``, and its launcher gets no flags from us.
    """
    if n_ranks == 1 and n_tasks == 1:
        return ["one process computes: SLURM gave one task; ask it for more, with --ntasks"]
    if n_ranks == 1:
        wanted = len(os.sched_getaffinity(0)) + 1
        how = f"mpirun -n {wanted} ... (Open MPI's: with --oversubscribe --bind-to none)"
        return [f"one process computes; for all cores here: {how if in_program else f'-n {wanted}'}"]
    if n_workers > n_blocks:
        given = f"{counted(n_workers, 'worker')} for {counted(n_blocks, 'block')}"
        return [f"{given}: {n_workers - n_blocks:,} will have nothing to do"]
    return []


def fault_tier(n_ranks: int, survives_deaths: bool) -> str:
    """What of ranks that die or hang a run survives, in one phrase."""
    if n_ranks == 1:
        return "one process: if it dies, nothing that is done is lost"
    if survives_deaths:
        return "ranks that die or hang are survived (ULFM)"
    return "ranks that hang are survived; one that dies ends the job (no ULFM)"


def resume_command(folder: Path, n_ranks: int, *, in_program: bool = False) -> str:
    """What the user types to go on with a run.

    Parameters
    ----------
    in_program
        A program called `mpims.run`: it has the job, and must be started again.
    """
    if in_program:
        return f"the same program, with mpims.run(..., run_dir={short_path(folder)!r}, resume=True)"
    ranks = f" -n {n_ranks}" if n_ranks > 1 else ""
    return f"python -m mpims resume {as_argument(short_path(folder))}{ranks}"


def printed_lines(folder: Path) -> list[str]:
    """Where to read what the ranks printed, if they did."""
    names: list[str] = []
    with suppress(OSError):  # somebody may be tidying up there
        names = sorted(path.name for path in folder.glob("rank-*.txt") if path.stat().st_size)
    if not names:
        return []
    files = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
    return [f"what the job printed is in {short_path(folder)}: {files}"]


def short_path(path: Path) -> str:
    """A path as the user would type it here."""
    with suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def say_nothing(line: str) -> None:
    """Keep quiet."""
