"""``mpims script``: a program of the user's on rank 0, unchanged; the other ranks serve its executors."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from runpy import run_path
from typing import Any

from mpims.cli.counts import check_ranks, check_started
from mpims.errors import ExitStatus, UsageError
from mpims.executor import serving
from mpims.processes import this_process
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Kind, encode_object
from mpims.session import connect
from mpims.streams import complain
from mpims.world import find_world, report_begun


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "script",
        help="run a program on rank 0; the other ranks compute for its mpims.Executor",
        description="Run a program unchanged: rank 0 runs it, the others compute what it gives to an "
        "mpims.Executor. Start it with mpirun -n N, or give -n.",
    )
    parser.add_argument("-n", dest="n_ranks", type=int, metavar="N", help="start N ranks on this machine")
    parser.add_argument("program", help="the program's file")
    rest = parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its own arguments")
    rest.required = (
        False  # or a program that was forgotten is said to be one of two things that are missing
    )
    parser.set_defaults(command=script_command)


def script_command(arguments: argparse.Namespace) -> int:
    """Run the program; give its exit status."""
    path = Path(arguments.program)
    if not os.path.isfile(path):  # nor if it lies where nobody may look
        raise UsageError(f"no program {arguments.program}: it is to be the file of a Python program")
    if arguments.n_ranks is not None and find_world(os.environ) is None:
        return _launch(arguments)
    transport = connect(share=False, threads=True)
    check_started(arguments.n_ranks, transport.size if transport is not None else 1)
    serving.is_script = transport is not None
    report_begun(this_process(), os.environ)
    if transport is not None:
        _tell_ranks(transport)
    sys.argv = [arguments.program, *arguments.arguments]
    sys.path.insert(0, str(path.resolve().parent))
    status = _run(arguments.program)
    _end_executors()
    return status


def _tell_ranks(transport: Transport) -> None:
    """Tell the others whom they compute for: its end is to be noticed before its first executor too."""
    program = encode_object(this_process())
    for rank in range(1, transport.size):
        transport.send(rank, Kind.PROGRAM, b"", program)


def _run(program: str) -> int:
    """Run a program as Python itself would; give its exit status."""
    try:
        run_path(program, run_name="__main__")
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or ExitStatus.DONE
        complain(str(leaving.code))
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        _end_executors(at_once=True)
        raise
    except BaseException as error:  # whatever the user's program raises
        _print_traceback(error)
        return ExitStatus.FAILED
    return ExitStatus.DONE


def _print_traceback(error: BaseException) -> None:
    """Print what Python would print: without the frames that ran the program."""
    trace = error.__traceback__
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).name in (
        Path(__file__).name,
        "<frozen runpy>",
        "runpy.py",
    ):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace or error.__traceback__)


def _end_executors(*, at_once: bool = False) -> None:
    """End what the program has left open, before the other ranks leave."""
    if "mpims.executor.pool" in sys.modules:
        from mpims.executor.pool import end_all

        end_all(at_once=at_once)


def _launch(arguments: argparse.Namespace) -> int:
    from mpims.launch import command_here
    from mpims.supervise import run_ranks

    check_ranks(arguments.n_ranks)
    program = [sys.executable, "-m", "mpims", "script", arguments.program, *arguments.arguments]
    return run_ranks(command_here(arguments.n_ranks, program, tells_status=True))
