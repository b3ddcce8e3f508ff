"""``mpims drill``: see whether a job survives faults, on this machine and for real."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mpims.cli.run import add_job, add_options
from mpims.drill.plan import PARSERS, Fault, FaultKind, check_plan, default_plan, draw_plan
from mpims.drill.play import Drill
from mpims.drill.report import DrillOutcome, Ending, outcome_dict, outcome_lines
from mpims.errors import ExitStatus, RunFailed, UsageError
from mpims.launch import find_launcher
from mpims.streams import show
from mpims.supervise import temporary_files
from mpims.world import find_world

DESCRIPTION = """\
Run a job twice on -n ranks of this machine, 2 at the least: once undisturbed, and once with faults that are
injected from outside, by real signals to its processes. Then say what that cost, and whether the result has
the same bits.

Without any fault a worker is killed at 40% of the items, and rank 0 at 60%. Each may be given again.
"""
EPILOG = """\
exit status: 0 the same bits and nothing lost, 1 anything else, or a fault that could not be injected,
2 wrong usage
"""

_PASSED_ON = {
    "policy": "--policy",
    "chunk": "--chunk",
    "timeout_s": "--timeout",
    "retries": "--retries",
    "on_error": "--on-error",
    "durability": "--durability",
    "grace_s": "--grace",
    "wait": "--wait",
    "seed": "--seed",
}


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "drill",
        help="kill and hang ranks of a job, and see whether its result is the same",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.set_defaults(command=drill_command)
    add_job(parser)
    add_options(parser, is_seen=False)
    for name, metavar, text in (
        ("kill", "RANK@40%", "kill a rank when so much is done, or RANK@1.5s after all have joined"),
        ("hang", "RANK@50%[:SECONDS]", "stop a rank, for so long or for ever"),
        ("slow", "RANK:3x", "let a rank go on only a third of the time, all the time"),
        ("crash", "@60%", "kill all ranks and the launcher, and resume the run"),
    ):
        parser.add_argument(
            f"--{name}",
            dest="plan",
            action="append",
            default=[],
            type=PARSERS[FaultKind(name)],
            metavar=metavar,
            help=text.replace("%", "%%"),
        )
    parser.add_argument(
        "--random",
        type=int,
        metavar="SEED",
        help="draw faults that can be survived, and print them as options",
    )


def drill_command(arguments: argparse.Namespace) -> int:
    """Run the job undisturbed and disturbed, and report; give the exit status."""
    plan = _plan(arguments)

    def say(line: str) -> None:
        if not (arguments.json or arguments.quiet):
            show(line)

    with temporary_files():
        folder = Path(tempfile.mkdtemp(prefix="mpims-drill-"))
    outcome: DrillOutcome | None = None
    try:
        drill = Drill(_passed_on(arguments), arguments.n_ranks, folder)
        say(f"drill        {' '.join(fault.option for fault in plan)}")
        before = _checked(drill.undisturbed())
        after, injections = drill.disturbed(plan, before.wall_s)
        outcome = DrillOutcome(arguments.job, arguments.n_ranks, before, after, injections)
    finally:
        if outcome is None or not outcome.damage:
            shutil.rmtree(folder, ignore_errors=True)
    for line in outcome_lines(outcome):
        say(line)
    if outcome.damage:
        say(f"kept         {folder}")
    if arguments.json:
        show(json.dumps(outcome_dict(outcome), indent=2))
    return ExitStatus.FAILED if outcome.trouble else ExitStatus.DONE


def _plan(arguments: argparse.Namespace) -> list[Fault]:
    """The faults that were asked for."""
    n_ranks: int | None = arguments.n_ranks
    if find_world(os.environ) is not None:
        raise UsageError("drill starts its own ranks: call it without a launcher, with -n")
    if n_ranks is None or n_ranks < 2:
        found = "found none" if n_ranks is None else f"found {n_ranks}"
        raise UsageError(f"drill wants -n with at least 2 ranks, as in -n 3, {found}")
    plan: list[Fault] = arguments.plan
    if arguments.random is not None:
        plan = [*plan, *draw_plan(arguments.random, n_ranks, for_ever=arguments.timeout_s is not None)]
    plan = plan or default_plan(n_ranks)
    check_plan(plan, n_ranks, survives_deaths=find_launcher().ulfm)
    return plan


def _passed_on(arguments: argparse.Namespace) -> list[str]:
    """What was typed that is for `mpims run`."""
    passed = [arguments.job, *(f"--set={setting}" for setting in arguments.settings)]
    for name, option in _PASSED_ON.items():
        value = getattr(arguments, name)
        if value is not None:
            passed.append(f"{option}={value}")
    return passed


def _checked(before: Ending) -> Ending:
    """The undisturbed run, if it came to a result."""
    if before.summary:
        return before
    message = f"undisturbed, {before.error}"
    raise UsageError(message) if before.status == ExitStatus.USAGE else RunFailed(message)
