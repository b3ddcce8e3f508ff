"""``mpims replay``: one item of a run, alone, in the foreground."""

from __future__ import annotations

import argparse
import faulthandler
from pathlib import Path
from typing import Any

from mpims.cli.resume import load_job
from mpims.errors import ExitStatus, RunFailed, UsageError, describe, user_traceback
from mpims.job import block_of
from mpims.outputs import ResultError
from mpims.report.summary import array_text
from mpims.report.wording import shorten
from mpims.runtime.items import check_kernel, resolve_items, take_items
from mpims.runtime.parts import check_results
from mpims.storage.manifest import check_computed
from mpims.storage.rundir import MANIFEST, read_json
from mpims.streams import say, show

DESCRIPTION = """\
Compute one item of a run again, alone, in this process: setup() and the kernel as a worker calls them,
with what they print on this terminal, and the whole traceback. Nothing of the run is changed.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "replay",
        help="compute one item of a run in the foreground, under a debugger if asked",
        description=DESCRIPTION,
    )
    parser.set_defaults(command=replay_command)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run directory")
    parser.add_argument("item", metavar="ITEM", type=int, help="its index, as in failed.json")
    parser.add_argument("--block", action="store_true", help="the whole block that the item is in")
    parser.add_argument("--pdb", action="store_true", help="step through the kernel in Python's debugger")


def replay_command(arguments: argparse.Namespace) -> int:
    """Compute the item; give the exit status."""
    manifest = read_json(arguments.run / MANIFEST)
    check_computed(manifest, arguments.run)
    job, _ = load_job(arguments.run, manifest["seed"])
    check_kernel(job)
    job._seed = manifest["seed"]
    items = resolve_items(job)
    item = arguments.item
    if not 0 <= item < len(items):
        raise UsageError(f"no item {item}: {job!r} has items 0 to {len(items) - 1}")
    start, stop = item, item + 1
    if arguments.block:
        block = block_of(job, len(items))
        start = item - item % block
        stop = min(start + block, len(items))
    say(f"{job!r}: items [{start}, {stop})")
    faulthandler.enable()  # a crash shows where it was
    job.indices = range(start, stop)
    what = "setup()"
    try:
        job.setup()
        what = f"items [{start}, {stop})"
        taken = take_items(items, start, stop)
        results: Any = debugger().runcall(job.kernel, taken) if arguments.pdb else job.kernel(taken)
        check_results(results, stop - start)
    except ResultError as error:
        raise RunFailed(f"{what} failed: {error}") from None
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        if arguments.pdb:
            debugger().post_mortem(error.__traceback__)
        raise RunFailed(f"{what} failed: {describe(error)}", user_traceback(error)) from None
    for index, result in zip(range(start, stop), results, strict=True):
        shown = array_text(result) if hasattr(result, "shape") else repr(result)
        show(f"item {index}: {shorten(shown, 200)}")
    return ExitStatus.DONE


def debugger() -> Any:
    """Python's own, imported when it is asked for."""
    import pdb

    return pdb
