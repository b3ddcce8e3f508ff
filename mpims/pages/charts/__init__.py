"""The charts of a report, each a file; matplotlib draws them, which not everybody has."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from mpims.errors import RunFailed
from mpims.pages.findings import Findings

CHARTS = {
    "waterfall": "Where each core-second went",
    "gantt": "Ranks over time",
    "load": "Load per rank and host",
    "times": "Times of items",
    "sizes": "Chunks over time",
}
"""Each is a module beside this one, with ``draw(figure, findings)`` and ``height(findings)`` in inches."""

WIDTH = 7.0
DPI = 160
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.0,
    "figure.facecolor": "white",  # as legible on a dark page
    "savefig.facecolor": "white",
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


class Chart(NamedTuple):
    """A chart that was drawn."""

    title: str
    path: Path
    caption: str


def has_matplotlib() -> bool:
    """Whether anything can be drawn."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def draw_charts(findings: Findings, folder: Path) -> list[Chart]:
    """Draw all charts into a folder, each as ``NAME.png``.

    Raises
    ------
    RunFailed
        A file cannot be written.
    """
    matplotlib, figures = import_module("matplotlib"), import_module("matplotlib.figure")
    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, title in CHARTS.items():
            chart = import_module(f"mpims.pages.charts.{name}")
            figure = figures.Figure(figsize=(WIDTH, chart.height(findings)), layout="constrained")
            caption = chart.draw(figure, findings)
            path = folder / f"{name}.png"
            try:
                figure.savefig(path, dpi=DPI)
            except OSError as error:
                raise RunFailed(f"cannot write {path}: {error.strerror}") from None
            drawn.append(Chart(title, path, caption))
    return drawn
