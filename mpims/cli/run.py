"""``mpims run``: compute a job."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mpims.core.policies import DEFAULT_POLICY, POLICIES
from mpims.errors import ExitStatus, UsageError
from mpims.launch import find_launcher, launch_command, run_ranks
from mpims.loading import load_job_class, read_source
from mpims.options import RunOptions
from mpims.parameters import parse_settings
from mpims.report.progress import TERMINAL, name_terminal
from mpims.session import connect, run_master, telling_workers
from mpims.world import find_world

DESCRIPTION = """\
Compute all items of a job. Under mpirun on its ranks; else on -n ranks that are started here; else
in this process.

The result does not depend on the number of ranks, nor on the policy: it is the same to the last bit.
What a run leaves is in its run directory: manifest.json, the result (result.npy, or result.pkl for
Python objects) and summary.json.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "run",
        help="compute a job",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run_command)
    add = parser.add_argument
    add("job", metavar="JOB", help="path.py, path.py:Class, or package.module:Class")
    add("-n", dest="n_ranks", type=int, metavar="N", help="start N ranks here: one master, N-1 workers")
    add(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of the job (again for each)",
    )
    add(
        "--policy",
        default=DEFAULT_POLICY,
        metavar="NAME",
        help=f"how large the chunks are: {', '.join(POLICIES)} (CSS with a size: CSS:100); "
        f"default {DEFAULT_POLICY}; `mpims policies` shows their sizes",
    )
    add("--chunk", default="1", metavar="MIN[:MAX]", help="items in a chunk at the least and at the most")
    add(
        "--timeout",
        dest="timeout_s",
        type=float,
        metavar="SECONDS",
        help="a rank silent for longer counts as hung and its items go to another; must exceed the "
        "longest kernel call; default: learnt from the first results on, ten times the longest and at "
        "least 30 s",
    )
    add("--seed", type=int, default=0, metavar="S", help="seed of the items' random numbers; default 0")
    add(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="where the run leaves its files, new or empty; default runs/NAME-DATE-TIME",
    )
    add("--json", action="store_true", help="print the summary as JSON, alone, on standard output")
    add("--quiet", action="store_true", help="say nothing but errors")


def run_command(arguments: argparse.Namespace) -> int:
    """Compute the job; give the exit status."""
    if arguments.n_ranks is not None and find_world(os.environ) is None:
        return _launch(arguments)
    transport = connect()
    with telling_workers(transport):
        if arguments.n_ranks not in (None, transport.size if transport else 1):
            raise UsageError(
                f"-n {arguments.n_ranks} under a launcher that started "
                f"{transport.size if transport else 1} ranks: give the number to one of them only"
            )
        chunk_min, chunk_max = _parse_chunk(arguments.chunk)
        options = RunOptions(
            policy=arguments.policy,
            chunk_min=chunk_min,
            chunk_max=chunk_max,
            timeout_s=arguments.timeout_s,
            seed=arguments.seed,
            run_dir=arguments.run_dir,
            quiet=arguments.quiet,
        )
        source = read_source(arguments.job)
        job_class = load_job_class(source)
        job = job_class(**parse_settings(job_class.__name__, job_class._parameters, arguments.settings))
    with _standard_output_kept() if arguments.json else nullcontext():
        outcome = run_master(job, options, transport, source, command=sys.argv)
    if arguments.json:
        print(json.dumps(outcome.summary, indent=2))
    return ExitStatus.DONE


@contextmanager
def _standard_output_kept() -> Iterator[None]:
    """Send what the user's code prints to standard error, so that the JSON stands alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _launch(arguments: argparse.Namespace) -> int:
    """Start the same command on ranks of its own."""
    if arguments.n_ranks < 1:
        raise UsageError(f"-n wants at least 1 rank, found {arguments.n_ranks}")
    program = [sys.executable, "-m", "mpims", *_without_n(sys.argv[1:])]
    command = launch_command(
        find_launcher(),
        arguments.n_ranks,
        program,
        n_cores=len(os.sched_getaffinity(0)),
        is_root=os.geteuid() == 0,
        in_allocation="SLURM_JOB_ID" in os.environ,
    )
    terminal = name_terminal(sys.stderr)
    if terminal:
        os.environ[TERMINAL] = terminal
    if not arguments.quiet:
        print(f"mpims: {shlex.join(command)}", file=sys.stderr, flush=True)
    return run_ranks(command)


def _without_n(arguments: list[str]) -> list[str]:
    """The command line less its ``-n N``."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "-n":
            next(rest, None)
        elif not (argument.startswith("-n") and argument[2:].lstrip("=").isdecimal()):
            kept.append(argument)
    return kept


def _parse_chunk(text: str) -> tuple[int, int | None]:
    least, colon, most = text.partition(":")
    try:
        return int(least or 1), int(most) if colon else None
    except ValueError:
        raise UsageError(f"--chunk wants MIN or MIN:MAX, found {text!r}") from None
