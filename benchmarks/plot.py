"""One picture of all cases: the first view of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.case import Table, View
from benchmarks.report import Outcome, shown_tools
from benchmarks.tools import LIMIT, MPIMS

COLUMNS = 2
SHADES = ("#154360", "#2471a3", "#5dade2", "#aed6f1")
OWN_SHADES = ("#943126", "#cb4335", "#e59866", "#f5cba7")
GREY = "#7f8c8d"


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw all cases into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    n_rows = -(-len(outcomes) // COLUMNS)
    figure, axes = plt.subplots(
        n_rows, COLUMNS, figsize=(14, 4.9 * n_rows), squeeze=False, layout="constrained"
    )
    for place, outcome in zip(axes.flat, outcomes, strict=False):
        case, table = outcome
        place.set_title(f"({case.key}) {case.title}", fontsize=11, loc="left")
        (draw_lines if case.views[0].is_line else draw_bars)(place, case.views[0], table)
    for place in axes.flat[len(outcomes) :]:
        place.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_bars(axes: Any, view: View, table: Table) -> None:
    """A group of bars for each tool, with its extremes."""
    tools = shown_tools(view, table)[::-1]
    thickness = 0.8 / len(view.columns)
    for k, (name, heading) in enumerate(view.columns.items()):
        for row, tool in enumerate(tools):
            values = sorted(table.values(tool, name))
            median = table.median(tool, name)
            if median is None:
                continue
            axes.barh(
                row + 0.4 - (k + 0.5) * thickness,
                median,
                thickness * 0.9,
                xerr=[[median - values[0]], [values[-1] - median]],
                error_kw={"ecolor": "black", "elinewidth": 0.8},
                color=(OWN_SHADES if tool.startswith(MPIMS) else SHADES)[k],
                label=heading if tool == tools[0] else None,
            )
    axes.set_yticks(range(len(tools)), tools)
    axes.set_xlabel(view.title)
    if view.is_log:
        axes.set_xscale("log")
    if view.limit is not None:
        axes.axvline(view.limit, color=GREY, linestyle="--", linewidth=1)
    axes.grid(axis="x", alpha=0.3)
    if len(view.columns) > 1:
        bars = [axes.barh(0, 0, color=shade) for shade in SHADES[: len(view.columns)]]
        n_columns = 2 if max(map(len, view.columns.values())) > 25 else len(bars)  # or they are cut off
        axes.legend(bars, view.columns.values(), fontsize=8, loc="upper center", ncols=n_columns, **BELOW)


BELOW = {"bbox_to_anchor": (0.5, -0.14), "frameon": False}
"""Where a legend covers nothing: under the axis."""


def draw_lines(axes: Any, view: View, table: Table) -> None:
    """A line for each tool over the columns, which are numbers."""
    for i, tool in enumerate(shown_tools(view, table)):
        points = [(float(name), table.median(tool, name)) for name in view.columns]
        known = [(x, y) for x, y in points if y is not None]
        is_own = tool == MPIMS
        axes.plot(
            [x for x, _ in known],
            [y for _, y in known],
            marker="osD^v<>ph*Xd"[i % 12],
            linewidth=3 if is_own else 1.4,
            color=OWN_SHADES[1] if is_own else "black" if tool == LIMIT else f"C{i}",
            linestyle="-" if tool.startswith((MPIMS, LIMIT)) else "--",
            label=tool,
        )
    axes.set_xscale("log")
    if view.is_log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks([float(name) for name in view.columns], view.columns.values())
    axes.minorticks_off()
    axes.set_xlabel(view.along)
    axes.set_ylabel(view.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
