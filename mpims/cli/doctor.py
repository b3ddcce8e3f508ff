"""``mpims doctor``: what of this machine is good for a run, what is not, and what cures it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpims import __version__
from mpims.doctor.batch import allocation_in, batch_findings
from mpims.doctor.disk import disk_findings, nearest_folder
from mpims.doctor.examine import alone_findings, world_findings
from mpims.doctor.finding import Finding, Verdict, worst
from mpims.doctor.library import Library, ask_library, launcher_findings, library_findings, own_launcher
from mpims.doctor.page import closing_line, finding_lines
from mpims.doctor.started import started_findings
from mpims.errors import ExitStatus, RunFailed, UsageError
from mpims.launch import Launcher, launch_command, ranks_to_start
from mpims.report.wording import counted
from mpims.slurm.allocation import Allocation
from mpims.streams import show
from mpims.world import find_world

DESCRIPTION = """\
Examine this machine: MPI and its launcher, cores and threads, the batch system, the file system of the
run directory, messages between ranks, and how fast they are handed work. Each line is good, doubtful (a
run works, but is slower or survives less than it could) or bad, with its cure.

  mpims doctor                          starts some ranks itself
  mpirun -n 64 python -m mpims doctor   on the ranks of your launcher

The exit status is 1 if something is bad, else 0. docs/doctor.md says what each line means.
"""
_MOST_STARTED = 4
_WIDTH = 100  # where there is no terminal


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="examine this machine: MPI, cores, file system, messages; and what cures it",
        description=DESCRIPTION,
    )
    parser.set_defaults(command=doctor_command)
    add = parser.add_argument
    add(
        "-n",
        dest="n_ranks",
        type=int,
        metavar="N",
        help="start N ranks; default as many as SLURM has tasks, elsewhere one more than there are cores, "
        f"{_MOST_STARTED} at the most",
    )
    add(
        "--run-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where runs are to leave their files; default runs",
    )
    add(
        "--limit",
        dest="limit_s",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="end the ranks that are started here after this time; default 120",
    )
    add("--json", action="store_true", help="print what was found as JSON")
    add("--ranks-only", action="store_true", help=argparse.SUPPRESS)  # what the started ranks do


def doctor_command(arguments: argparse.Namespace) -> int:
    """Examine and tell; give the exit status."""
    if arguments.lead is not None:
        raise RunFailed("rank 0 died while the ranks were examined: start it again, and see why")
    _check(arguments)
    findings = []
    page = None if arguments.json else _Page()
    for finding in _findings(arguments):
        findings.append(finding)
        if page:
            page.show(finding)
    if page:
        show(f"\n{closing_line(findings)}")
    else:
        show(_as_json(findings, whole=not arguments.ranks_only))
    return ExitStatus.FAILED if worst(findings) is Verdict.BAD else ExitStatus.DONE


def _check(arguments: argparse.Namespace) -> None:
    if arguments.n_ranks is not None:
        if arguments.n_ranks < 2:
            raise UsageError(f"-n wants at least 2 ranks to measure between, found {arguments.n_ranks}")
        world = find_world(os.environ)
        if world is not None:
            raise UsageError(
                f"-n {arguments.n_ranks} under a launcher that started {counted(world.size, 'rank')}: "
                "give the number to one of them only"
            )
    if not arguments.limit_s > 0:
        raise UsageError(f"--limit wants a number of seconds above 0, found {arguments.limit_s:g}")
    try:
        is_folder = stat.S_ISDIR(os.stat(arguments.run_dir).st_mode)
    except FileNotFoundError:
        return  # the run makes it
    except OSError as error:
        raise UsageError(
            f"cannot make run directory {arguments.run_dir}: {error.strerror}; choose another --run-dir"
        ) from None
    if not is_folder:
        raise UsageError(f"run directory {arguments.run_dir} is not a folder: choose another --run-dir")


class _Page:
    """The findings on standard output, each as soon as it is there, below the heading of its theme."""

    def __init__(self) -> None:
        self._theme = ""
        self._width = shutil.get_terminal_size((_WIDTH, 24)).columns
        # Open MPI gives its ranks a terminal of its own, wherever their output goes.
        on_terminal = sys.stdout.isatty() and find_world(os.environ) is None
        self._coloured = on_terminal and "NO_COLOR" not in os.environ
        versions = " ".join(f"{name} {version}" for name, version in _versions().items())
        show(f"{versions} on {platform.node()}")

    def show(self, finding: Finding) -> None:
        """Show one finding."""
        if finding.theme != self._theme:
            self._theme = finding.theme
            show(f"\n{finding.theme}")
        for line in finding_lines(finding, self._width, coloured=self._coloured):
            show(line)


def _as_json(findings: Sequence[Finding], *, whole: bool) -> str:
    """The findings alone in one line, or with the verdict on all of them."""
    listed = [finding.as_dict() for finding in findings]
    if not whole:
        return json.dumps(listed)
    return json.dumps(
        {
            "verdict": worst(findings).value,
            "host": platform.node(),
            "versions": _versions(),
            "findings": listed,
        },
        indent=2,
    )


def _versions() -> dict[str, str]:
    return {"mpims": __version__, "Python": platform.python_version(), "NumPy": np.__version__}


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Everything, that which needs no MPI first: starting that may end this process."""
    folder = nearest_folder(arguments.run_dir)
    library = ask_library()
    launcher = own_launcher(library)
    world = find_world(os.environ)
    if not arguments.ranks_only:
        yield from library_findings(library)
        if isinstance(library, Library):
            yield from launcher_findings(library, launcher)
        yield from batch_findings(os.environ)
        yield from disk_findings(folder)
    allocation = allocation_in(os.environ)
    if world is not None:
        n_nodes = len(allocation.nodes) if allocation else 0
        known = launcher if isinstance(launcher, Launcher) else None
        yield from world_findings(world, folder, known, n_nodes)
    elif isinstance(launcher, Launcher):
        yield from _start(arguments, folder, launcher, allocation)
    else:
        yield from alone_findings("no others can be started", "cure MPI, above", Verdict.BAD)


def _start(
    arguments: argparse.Namespace, folder: Path, launcher: Launcher, allocation: Allocation | None
) -> Iterator[Finding]:
    n_cores = len(os.sched_getaffinity(0))
    n_ranks = ranks_to_start(arguments.n_ranks, allocation)
    if n_ranks is None and allocation is not None:
        yield from alone_findings("none can be started here", "ask SLURM for more tasks, with --ntasks")
        return
    n_ranks = n_ranks or min(n_cores + 1, _MOST_STARTED)
    program = [sys.executable, "-m", "mpims", "doctor", "--ranks-only", "--json", "--run-dir", str(folder)]
    command = launch_command(
        launcher,
        n_ranks,
        program,
        n_cores=n_cores,
        is_root=os.geteuid() == 0,
        in_allocation=allocation is not None,
    )
    yield from started_findings(command, n_ranks, arguments.limit_s)
