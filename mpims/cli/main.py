"""The commands, their options, and how every one of them ends."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mpims import __version__
from mpims.cli.helptext import HelpText
from mpims.errors import ExitStatus, Interrupted, MpimsError, UsageError, unforeseen
from mpims.runtime.lead import Lead
from mpims.session import connect, dismiss_workers
from mpims.streams import complain, say, settle, show, take_any_text
from mpims.world import STOP_SIGNAL, report_status

DESCRIPTION = """\
A task farm on MPI: many independent items of uneven cost, one NumPy kernel, any number of ranks.

  mpims run jobs/x.py                           one process
  mpims run jobs/x.py -n 4                      four ranks on this machine
  mpirun -n 4 python -m mpims run jobs/x.py     the same, your own launcher
  mpims resume runs/x-20260101-120000           go on with a stopped or dead run
  mpirun -n 4 python -m mpims                   a tour: does it work here?

A job, in a file x.py:

  import numpy as np, mpims
  class Squares(mpims.Job):
      n: int = 1000                        a parameter: --set n=5000
      def items(self):                     their number, or a sequence
          return self.n
      def kernel(self, items):             one block in, one result per item out
          return np.asarray(items) ** 2

Rank 0 hands the items out and takes the results in; the others compute. So N workers want N + 1
ranks: rank 0 sleeps most of the time and needs no core of its own.
"""
EPILOG = """\
exit status: 0 done, 1 failed, 2 wrong usage (nothing was computed), 3 done, but items failed and were
skipped, 75 stopped and resumable, 70 a defect of mpims, 130 stopped before there was anything to resume
"""


COMMANDS = (
    "run",
    "resume",
    "status",
    "report",
    "slurm",
    "replay",
    "drill",
    "policies",
    "simulate",
    "doctor",
    "script",
    "tour",
)
"""Each is a module beside this one."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; every help is set alike."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields, formatter_class=HelpText)

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of printing the usage and leaving."""
        raise UsageError(f"{message}; see {self.prog} --help")

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse all; point to the help of the command that has no such option."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            of = next((f"{self.prog} {name}" for name in args if name in COMMANDS), self.prog)
            raise UsageError(f"unrecognized arguments: {' '.join(rest)}; see {of} --help")
        return parsed

    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse itself takes what cannot be written for printed."""
        show(self.format_help().removesuffix("\n"))


def make_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The command line of these commands; only what belongs to them is imported."""
    parser = _Parser(
        prog="mpims",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"mpims {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for name in names:
        import_module(f"mpims.cli.{name}").add_parser(commands)
    return parser


def main_command(arguments: Sequence[str], lead: Lead | None = None) -> int:
    """Run rank 0; give the status that this process is to exit with.

    Parameters
    ----------
    arguments
        What the user typed.
    lead
        What this rank has from the master before, if it was not rank 0 from the start.
    """
    for number in (signal.SIGTERM, STOP_SIGNAL):
        signal.signal(number, signal.default_int_handler)
    if arguments[:1] != ["script"]:  # a program that is not of mpims has its streams as they are
        take_any_text()
    try:
        status = _run(arguments, lead)
    except SystemExit as leaving:  # --help and --version
        status = leaving.code if isinstance(leaving.code, int) else ExitStatus.DONE
        arguments = ()  # nothing was run
    told = report_status(_settled(status, arguments), os.environ)
    with contextlib.suppress(MpimsError):
        transport = connect(share=False)
        if transport is not None:
            transport.exit_status = told
        dismiss_workers(transport)
    return told


def _run(arguments: Sequence[str], lead: Lead | None) -> int:
    try:
        given = list(arguments) or ["tour"]
        parsed = make_parser([given[0]] if given[0] in COMMANDS else COMMANDS).parse_args(given)
        parsed.lead = lead
        status: int = parsed.command(parsed)
        return status
    except MpimsError as error:
        return _tell(error)
    except KeyboardInterrupt:
        return _tell(Interrupted("stopped by the user"))
    except Exception as error:  # the top of the command line
        import traceback  # for these lines alone

        return _tell(unforeseen(error, traceback.format_exc()))


def _settled(status: int, arguments: Sequence[str]) -> int:
    """The status, after what waits in the streams was written as far as it can be.

    On standard output it is the version, or what the user's code printed; a run has its result anyway.
    """
    error = settle(sys.stdout)
    if error is not None and not isinstance(error, BrokenPipeError):
        say(f"cannot write standard output: {error.strerror}")
        if status == ExitStatus.DONE and arguments[:1] not in (["run"], ["resume"]):
            status = ExitStatus.FAILED
    settle(sys.stderr)
    return status


def _tell(error: MpimsError) -> int:
    if error.detail:
        complain(error.detail)
    say(error.message)
    return error.exit_status
