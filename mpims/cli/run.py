"""``mpims run``: compute a job."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpims.cli.counts import check_ranks, check_started
from mpims.core.policies import POLICIES
from mpims.errors import UsageError
from mpims.job import Job
from mpims.launch import command_here, ranks_to_start
from mpims.leading import run_master, telling_workers
from mpims.loading import JobSource, construct, load_job_class, read_source
from mpims.options import DEFAULT_POLICY, RunOptions
from mpims.outcome import Outcome
from mpims.parameters import parse_settings
from mpims.processes import dying_where_the_users_code_exits
from mpims.report.announcement import short_path
from mpims.report.progress import TERMINAL, name_terminal
from mpims.runtime.lead import Lead
from mpims.runtime.transport.base import Transport
from mpims.session import connect
from mpims.slurm.allocation import find_allocation
from mpims.storage.rundir import SUMMARY
from mpims.streams import say, settle, show
from mpims.timelimit import RESERVE_S
from mpims.world import find_world, report_output

DESCRIPTION = """\
Compute all items of a job. Under mpirun on its ranks; else on -n ranks that are started here, in an
allocation of SLURM on all its tasks; else in this process.

The result does not depend on the number of ranks, nor on the policy: it is the same to the last bit.
What a run leaves is in its run directory: manifest.json, the result (result.npy, or result.pkl for
Python objects), summary.json, the journal that `mpims resume` goes on from, and failed.json if items
were skipped.
"""


_AS_TYPED = (
    *("policy", "timeout_s", "retries", "on_error", "grace_s", "wait", "log_every_s", "prints"),
    "end_time_s",
)
_STOP_S = 10.0  # to take in the results that came, and to end the ranks


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "run",
        help="compute a job",
        description=DESCRIPTION,
    )
    parser.set_defaults(command=run_command)
    add_job(parser)
    add = parser.add_argument
    add(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="where the run leaves its files, new or empty; default runs/NAME-DATE-TIME",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with the run in --run-dir if there is one, as `mpims resume` does",
    )
    add_options(parser)
    add_time(parser)


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the job, and the options that are part of what it computes."""
    add = parser.add_argument
    add("job", metavar="JOB", help="path.py, path.py:Class, or package.module:Class")
    add(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of the job (again for each)",
    )
    add("--seed", type=int, default=0, metavar="S", help="seed of the items' random numbers; default 0")


def add_options(parser: argparse.ArgumentParser, *, of_run: bool = False, is_seen: bool = True) -> None:
    """Add the options that do not change the result.

    Parameters
    ----------
    of_run
        Whether what is not given is as it was in a run that is there already.
    is_seen
        Whether the run is one that its user watches, and so what it says a matter of theirs.
    """
    known = RunOptions()
    add = parser.add_argument

    def default(value: object) -> str:
        return "" if of_run else f"; default {value}"

    add("-n", dest="n_ranks", type=int, metavar="N", help="start N ranks here: one master, N-1 workers")
    add(
        "--policy",
        metavar="SPEC",
        help=f"how large the chunks are: {', '.join(POLICIES)}, some with parameters (CSS:100, "
        f"FAC:mu=1e-3,sigma=5e-4){default(DEFAULT_POLICY)}; `mpims policies` shows them all",
    )
    add("--chunk", metavar="MIN[:MAX]", help="items in a chunk at the least and at the most")
    add(
        "--timeout",
        dest="timeout_s",
        type=float,
        metavar="SECONDS",
        help="a rank silent for longer counts as hung and its items go to another; must exceed the longest "
        "kernel call"
        + default("learnt from the first results on, ten times the longest and at least 30 s"),
    )
    add(
        "--retries",
        type=int,
        metavar="K",
        help=f"try what fails so many times more, on another rank if there is one{default(known.retries)}",
    )
    add(
        "--on-error",
        choices=["abort", "skip"],
        help="what an item that fails again and again does: end the run, or be left out and named in "
        f"failed.json{default(known.on_error)}",
    )
    add(
        "--durability",
        metavar="SECONDS",
        help="force what is done to the disk this often (0: every result, off: leave it to the system), so "
        f"that a crash of the machine costs no more; a crash of the run alone costs nothing{default(1)}",
    )
    add(
        "--grace",
        dest="grace_s",
        type=float,
        metavar="SECONDS",
        help=f"a run that is to stop takes in what comes within this time{default(f'{known.grace_s:g}')}",
    )
    add(
        "--wait",
        choices=["sleep", "spin"],
        help="how ranks wait for messages: give the core away, or keep it, where each rank has one of its "
        f"own{default(known.wait)}",
    )
    if is_seen:
        add(
            "--log-every",
            dest="log_every_s",
            type=float,
            metavar="SECONDS",
            help="where there is no terminal, say this often how far the run is (sooner at first)"
            f"{default(f'{known.log_every_s:g}')}; `mpims status RUN` asks from outside",
        )
        add(
            "--prints",
            choices=["file", "terminal"],
            help="where what the kernel prints goes: into output/rank-N.txt of the run directory, labelled "
            f"with its items, or through to the terminal{default(known.prints)}",
        )
    add("--json", action="store_true", help="print the summary as JSON, alone, on standard output")
    add("--quiet", action="store_true", help="say nothing but errors")


def run_command(arguments: argparse.Namespace) -> int:
    """Compute the job; give the exit status."""
    if must_launch(arguments):
        return launch(arguments)

    def prepare() -> tuple[Job, RunOptions, JobSource]:
        options = options_from(
            arguments, RunOptions(seed=arguments.seed), run_dir=arguments.run_dir, resume=arguments.resume
        )
        job, source = job_from(arguments)
        return job, options, source

    return compute(arguments, prepare)


def job_from(arguments: argparse.Namespace) -> tuple[Job, JobSource]:
    """The job that was typed, with its settings, and its source."""
    source = read_source(arguments.job)
    job_class = load_job_class(source)
    settings = parse_settings(job_class.__name__, job_class._parameters, arguments.settings)
    return construct(job_class, settings), source


def compute(
    arguments: argparse.Namespace,
    prepare: Callable[[], tuple[Job, RunOptions, JobSource | None]],
) -> int:
    """Run what `prepare` gives as the master; give the exit status."""
    transport = connect(share=False)
    with dying_where_the_users_code_exits(_last_words):
        return _compute(arguments, prepare, transport)


def _last_words(status: int) -> None:
    sys.stderr = sys.__stderr__  # not the file of what the kernel prints
    say(f"the job called os._exit({status}) amid the run, which is no end of it: this process is killed")


def _compute(
    arguments: argparse.Namespace,
    prepare: Callable[[], tuple[Job, RunOptions, JobSource | None]],
    transport: Transport | None,
) -> int:
    lead: Lead | None = arguments.lead
    with telling_workers(transport):
        check_started(arguments.n_ranks, transport.size if transport else 1)
        if lead is not None and lead.start is not None and lead.job is not None:
            job, source = lead.job, lead.start.source
            options = replace(lead.start.options, run_dir=Path(lead.start.run_dir))
        else:
            job, options, source = prepare()
    with _standard_output_kept() if arguments.json else nullcontext():
        outcome: Outcome = run_master(job, options, transport, source, command=sys.argv, lead=lead)
    if arguments.json:
        text = json.dumps(outcome.summary, indent=2)
        if not report_output(text, os.environ):
            show(text)
    return outcome.exit_status


def options_from(arguments: argparse.Namespace, base: RunOptions, **fixed: Any) -> RunOptions:
    """The options that were typed, in place of those of `base`."""
    typed: dict[str, Any] = {
        name: value for name in _AS_TYPED if (value := getattr(arguments, name, None)) is not None
    }
    if arguments.chunk is not None:
        typed["chunk_min"], typed["chunk_max"] = _parse_chunk(arguments.chunk)
    if arguments.durability is not None:
        typed["durability_s"] = _parse_durability(arguments.durability)
    return replace(base, **typed, quiet=arguments.quiet, **fixed)


@contextmanager
def _standard_output_kept() -> Iterator[None]:
    """Send what the user's code prints to standard error, so that the JSON stands alone."""
    settle(sys.stdout)
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        settle(sys.stdout)
        os.dup2(kept, 1)
        os.close(kept)


def add_time(parser: argparse.ArgumentParser) -> None:
    """Add the option that ends a run in time; `mpims slurm` has one of that name for SLURM."""
    parser.add_argument(
        "--time",
        dest="end_time_s",
        type=_parse_end,
        metavar="TIME",
        help="stop in time, as resumable, if the run is not done after so long: MINUTES, HH:MM:SS or "
        f"D-HH:MM:SS, as sbatch has it; the last {RESERVE_S:g} s are kept free for its journal and its "
        "launcher; default the end of SLURM's allocation",
    )


def _parse_end(text: str) -> float | None:
    """When the time that is given from now on is over, Unix time."""
    from mpims.slurm.script import parse_time

    time_s = parse_time(text)
    return None if time_s is None else time.time() + time_s


def must_launch(arguments: argparse.Namespace) -> bool:
    """Whether ranks are to be started here: for ``-n``, or for all tasks of an allocation."""
    if find_world(os.environ) is None:
        arguments.n_ranks = ranks_to_start(arguments.n_ranks, find_allocation(os.environ))
        return arguments.n_ranks is not None
    return False


def launch(arguments: argparse.Namespace) -> int:
    """Start the same command on ranks of its own."""
    from mpims.supervise import run_ranks  # only where ranks are started

    check_ranks(arguments.n_ranks)
    program = [sys.executable, "-m", "mpims", *_without_n(sys.argv[1:])]
    command = command_here(arguments.n_ranks, program, tells_status=True)
    terminal = name_terminal(sys.stderr)
    if terminal:
        os.environ[TERMINAL] = terminal
    if not arguments.quiet:
        say(shlex.join(command))
    grace_s = RunOptions().grace_s if arguments.grace_s is None else arguments.grace_s

    def tell_done(run_dir: str, summary: dict[str, Any]) -> None:
        if not arguments.quiet:
            path = short_path(Path(run_dir, SUMMARY))
            say(f"done, as {path} says: the rank that was to tell it has died")
        if arguments.json:
            show(json.dumps(summary, indent=2))

    return run_ranks(command, stop_s=grace_s + _STOP_S, tell_done=tell_done)


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


def _parse_durability(text: str) -> float | None:
    if text in ("off", "none"):
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--durability wants a number of seconds or off, found {text!r}") from None


def _parse_chunk(text: str) -> tuple[int, int | None]:
    least, colon, most = text.partition(":")
    try:
        return int(least or 1 if colon else least), int(most) if colon else None
    except ValueError:
        raise UsageError(f"--chunk wants MIN or MIN:MAX, found {text!r}") from None
