"""RESULTS.md: what was asked, what was measured, and on what."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks.case import Case, Table, Target, View
from benchmarks.environment import requirements
from benchmarks.tools import MPIMS, Settings

Outcome = tuple[Case, Table]
PLOT = "results.png"


def results_text(
    outcomes: Sequence[Outcome], settings: Settings, n_rounds: int, missing: dict[str, str]
) -> str:
    """The whole file."""
    parts = [
        "# Results",
        "Written by `make bench`; [README.md](README.md) says how things are measured. Every tool ran once "
        f"in each round ({n_rounds} of them). Figures are medians, with the least and the largest in "
        "brackets; ratios are medians of the ratios within a round.",
        *(
            ["**A quick run: it shows that everything runs, and its figures mean nothing.**"]
            if settings.quick
            else []
        ),
        machine_text(settings),
        "## What is asked",
        targets_text(outcomes),
        f"![all cases]({PLOT})",
    ]
    for case, table in outcomes:
        parts += case_parts(case, table)
    if missing:
        parts += ["## Not installed", "\n".join(f"- {peer}: {why}" for peer, why in missing.items())]
    return "\n\n".join(parts) + "\n"


# ------------------------------------------------------------------------------- the machine


def machine_text(settings: Settings) -> str:
    """The machine in general terms, and the versions of what ran."""
    from mpi4py import MPI

    library = MPI.Get_library_version().split(",")[0].strip("\0 ")
    packages = ", ".join(f"{name} {version}" for name, version in versions())
    return (
        f"{time.strftime('%Y-%m-%d')}; {len(os.sched_getaffinity(0))} cores, {cpu_model()}; "
        f"{platform.system()} {platform.release()}, results on {file_system(settings.folder)}; "
        f"Python {platform.python_version()}, {library}, {packages}. "
        f"One core did {settings.speed:,.0f} steps of the calibrated computing in a second."
    )


def versions() -> list[tuple[str, str]]:
    """The installed versions of mpims and of all that is required."""
    names = ["mpims"] + [line.split(">")[0].split("=")[0] for part in requirements() for line in part]
    found = []
    for name in names:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append((name, "not installed"))
    return found


def cpu_model() -> str:
    """What the system says of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine() or sys.platform


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    path = str(folder.resolve())
    under = [
        (place, kind) for place, kind in mounts if path.startswith(place.rstrip("/") + "/") or place == "/"
    ]
    return max(under, key=lambda mount: len(mount[0]))[1] if under else "an unknown file system"


# --------------------------------------------------------------------------------- the cases


def targets_text(outcomes: Sequence[Outcome]) -> str:
    """All targets of all cases."""
    rows = [["", "asked", "measured", "met"]]
    for case, table in outcomes:
        rows += [
            [case.key, target.asked, target.measured, verdict(target)] for target in case.targets(table)
        ]
    return markdown(rows, are_texts=True)


def verdict(target: Target) -> str:
    """Whether a target was met, in a word."""
    return {True: "yes", False: "**no**", None: "?"}[target.met]


def case_parts(case: Case, table: Table) -> list[str]:
    """The section of a case."""
    parts = [f"## {case.key}. {case.title}", case.how]
    for view in case.views:
        parts += [f"{view.title[0].upper()}{view.title[1:]}:", view_text(view, table)]
        if view.relative_to is not None and view.relative_to in table.figures:
            parts += [f"The same over {view.relative_to}:", ratios_text(view, table)]
    if table.failures:
        lines = [f"- {tool} was not measured: {why}" for tool, why in table.failures.items()]
        parts.append("\n".join(lines))
    return parts


def shown_tools(view: View, table: Table) -> list[str]:
    """The tools that have a figure in a view: the peers, and mpims below them."""
    tools = [tool for tool, found in table.figures.items() if any(name in found for name in view.columns)]
    return sorted(tools, key=lambda tool: tool.startswith(MPIMS))


def view_text(view: View, table: Table) -> str:
    """Medians and extremes, a line for each tool."""
    rows = [["", *view.columns.values()]]
    for tool in shown_tools(view, table):
        rows.append([tool, *(cell(view, table.values(tool, name)) for name in view.columns)])
    return markdown(rows)


def cell(view: View, values: Sequence[float]) -> str:
    """The median of some values, and between what they lie."""
    if not values:
        return ""
    ordered = sorted(values)
    half = len(ordered) // 2
    median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    least, most = view.form(ordered[0]), view.form(ordered[-1])
    return view.form(median) + (f" ({least}-{most})" if least != most else "")


def ratios_text(view: View, table: Table) -> str:
    """The ratios to the tool that stands for 1."""
    assert view.relative_to is not None
    rows = [["", *view.columns.values()]]
    for tool in shown_tools(view, table):
        ratios = [table.ratio(tool, view.relative_to, name) for name in view.columns]
        rows.append([tool, *("" if ratio is None else f"{ratio:.3g}" for ratio in ratios)])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]], *, are_texts: bool = False) -> str:
    """A table; the first row is its head. What is not text is aligned at the right."""
    rule = ["---"] + ["---" if are_texts else "---:"] * (len(rows[0]) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])
