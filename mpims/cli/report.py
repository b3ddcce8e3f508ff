"""``mpims report``: what a run's time went into, what limited it, and what to change."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from mpims.errors import ExitStatus, RunFailed, UsageError
from mpims.pages.charts import draw_charts, has_matplotlib
from mpims.pages.findings import find
from mpims.pages.page import make_page
from mpims.pages.perfetto import write_perfetto
from mpims.pages.text import report_lines
from mpims.streams import say, show

DESCRIPTION = """\
Say where each core-second of a run went, what limited it, and what to change: as text here, and as one
page with charts in RUN/report (or --output): report.html, which needs nothing else, and the charts as PNG.
Of a run that goes on it says how it went so far.

  mpims report runs/x-20260101-120000
  mpims report runs/x-20260101-120000 --output here --perfetto
"""
PAGE, PERFETTO = "report.html", "trace.perfetto.json"
_NO_CHARTS = "no charts, for they need matplotlib: pip install 'mpims[plots]'"


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "report",
        help="what a run's time went into, what limited it, and what to change",
        description=DESCRIPTION,
    )
    parser.set_defaults(command=report_command)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run directory, of a run live or over")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to leave page and charts; default RUN/report"
    )
    parser.add_argument(
        "--perfetto",
        action="store_true",
        help=f"also leave {PERFETTO}, for ui.perfetto.dev (it is read there, not sent anywhere)",
    )


def report_command(arguments: argparse.Namespace) -> int:
    """Make the report; give the exit status."""
    findings = find(arguments.run)
    folder = _make_folder(arguments.output or arguments.run / "report")
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    show("\n".join(report_lines(findings, width)))
    can_draw = has_matplotlib()
    charts = draw_charts(findings, folder) if can_draw else []
    try:
        page = make_page(findings, charts, "" if can_draw else _NO_CHARTS.capitalize())
        (folder / PAGE).write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise RunFailed(f"cannot write {folder / PAGE}: {error.strerror}") from None
    left = [PAGE, *(chart.path.name for chart in charts)]
    if arguments.perfetto:
        write_perfetto(findings, folder / PERFETTO)
        left.append(PERFETTO)
    if not can_draw:
        say(_NO_CHARTS)
    say(f"in {folder}: {', '.join(left)}")
    return ExitStatus.DONE


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make {folder}: {error.strerror}; choose another folder with --output"
        ) from None
    return folder
