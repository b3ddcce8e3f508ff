"""``mpims status``: how far a run is, and whether it lives, read from its directory."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpims.errors import ExitStatus
from mpims.report.liveness import Outside, State, look_from_outside
from mpims.report.progress import make_view
from mpims.report.status import Status, is_short_of_time, items_text, ranks_text, time_text
from mpims.report.views import View
from mpims.report.wording import counted, duration, name_ranks
from mpims.storage.rundir import as_argument
from mpims.streams import show, showing

DESCRIPTION = """\
How far a run is, whether it lives, and what to do next, read from its directory: on any machine that sees
the directory, without MPI, while the run goes on or afterwards. The run is not disturbed: its master writes
status.json every few seconds.
"""

WATCH_INTERVAL_S = 2.0
LOG_INTERVAL_S = 30.0


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "status",
        help="how far a run is, and whether it lives, from outside",
        description=DESCRIPTION,
    )
    parser.set_defaults(command=status_command)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run directory")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print all that is known as JSON")
    how.add_argument("--watch", action="store_true", help="show it until the run is over; Ctrl-C leaves")


def status_command(arguments: argparse.Namespace) -> int:
    """Say how far the run is; give the exit status."""
    outside = look_from_outside(arguments.run)
    if arguments.watch and not outside.is_over:
        outside = watch(arguments.run, make_view(sys.stdout, LOG_INTERVAL_S))
    if arguments.json:
        show(json.dumps(as_dict(outside), indent=2))
    else:
        show("\n".join(outside_lines(outside)))
    return ExitStatus.DONE


def watch(
    folder: Path,
    view: View,
    sleep: Callable[[float], None] = time.sleep,
) -> Outside:
    """Show a run until it is over, or until its reader has seen enough; give how it was last."""
    outside = look_from_outside(folder)
    try:
        while not outside.is_over:
            if outside.state is State.RUNNING and outside.status is not None:
                with showing():
                    view.show(outside.status)
            sleep(WATCH_INTERVAL_S)
            outside = look_from_outside(folder)
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        view.end()
    return outside


def as_dict(outside: Outside) -> dict[str, Any]:
    """What is known, for JSON.

    ``state`` is starting, running, dead, done, stopped, failed or simulated; ``resume`` the command that
    goes on with the run, null where there is nothing to go on with; ``status`` and ``summary`` what these
    files say.
    """
    return {
        "run_dir": str(outside.folder.absolute()),
        "state": outside.state.value,
        "silence_s": outside.silence_s,
        "master": outside.owner.as_dict() if outside.owner is not None else None,
        "resume": outside.resume if outside.can_resume and not outside.is_of_program else None,
        "status": asdict(outside.status) if outside.status is not None else None,
        "summary": outside.summary,
    }


def outside_lines(outside: Outside) -> list[str]:
    """What is known, for people."""
    lines = [f"{outside.folder}: {_what(outside)}"]
    if outside.summary is not None:
        lines += _summary_lines(outside, outside.summary)
    elif outside.status is not None:
        lines += _status_lines(outside.status, is_over=outside.is_over)
    lines.append(f"next     {_next(outside)}")
    return lines


def _what(outside: Outside) -> str:
    """The state in a phrase."""
    owner, silence_s = outside.owner, outside.silence_s
    heard = "" if silence_s is None else f"; last sign of life {duration(silence_s)} ago"
    where = f" (process {owner.pid} on {owner.host})" if owner is not None else ""
    if outside.state is State.RUNNING:
        return f"running{where}{heard}"
    if outside.state is State.STARTING:
        return f"starting{where}{heard}"
    if outside.damage:
        return f"nobody knows how it ended: {outside.damage}; resume writes it anew"
    if outside.state is State.DEAD:
        return f"dead: its master{where} is gone without a last word{heard}"
    return "done (simulated)" if outside.state is State.SIMULATED else str(outside.state.value)


def _status_lines(status: Status, *, is_over: bool) -> list[str]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.written_at))
    lines = [f"job      {status.job}", f"done     {items_text(status)}, at {at}"]
    if not is_over:
        lines += [f"time     {time_text(status)}", f"ranks    {ranks_text(status)}"]
    for hosts, what in ((status.lost, "lost"), (status.suspects, "suspect")):
        if hosts:
            lines.append(f"{what:8} {name_ranks({int(rank): host for rank, host in hosts.items()})}")
    if status.last and status.last_at is not None:
        at = time.strftime("%H:%M:%S", time.localtime(status.last_at))
        lines.append(f"last     {at} {status.last}")
    return lines


def _summary_lines(outside: Outside, summary: dict[str, Any]) -> list[str]:
    """What the summary says; keys may be missing in a run that ended early."""
    n_done, n_items = summary.get("n_done", 0), summary.get("n_items", 0)
    lines = [
        f"job      {summary.get('job')}",
        f"done     {n_done:,} of {n_items:,} items, in {duration(summary.get('wall_s', 0.0))}",
    ]
    if summary.get("n_skipped"):
        n_skipped = summary["n_skipped"]
        them = "it" if n_skipped == 1 else "them"
        lines.append(f"skipped  {counted(n_skipped, 'item')} failed: failed.json names {them}")
    if "error" in summary:
        lines.append(f"error    {summary['error']}")
    if "result_file" in summary:
        path = outside.folder / Path(summary["result_file"]).name  # the folder may have been moved
        lines += [f"result   {path}", f"sha256   {summary['result_digest']}"]
    return lines


def _next(outside: Outside) -> str:
    if outside.state is State.DONE:
        return "nothing is left to do"
    if outside.state is State.SIMULATED:
        return f"python -m mpims report {as_argument(outside.folder)}"
    if outside.can_resume:
        return outside.resume
    status = outside.status
    if status is not None and is_short_of_time(status):
        return f"its allocation ends before it does; then: {outside.resume}"
    return "wait, or watch it: --watch"
