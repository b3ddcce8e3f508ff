"""The sizes of chunks over time, and why the policy chose them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from mpims.pages.charts.style import BLUE, DENSITY, label_counts, unit_for
from mpims.pages.findings import Findings
from mpims.pages.outcomes import AttemptOutcome

MOST_DOTS = 3000
"""Of more chunks than this it is shown how many there are where."""
_TWO_DECADES = 100.0

_ENDS = {
    AttemptOutcome.DONE: "done",
    AttemptOutcome.PART: "divided",
    AttemptOutcome.RECALLED: "recalled",
    AttemptOutcome.DUPLICATE: "had first by another",
    AttemptOutcome.LATE: "late",
    AttemptOutcome.FAILED: "failed",
    AttemptOutcome.TIMED_OUT: "timed out",
    AttemptOutcome.LOST: "lost",
    AttemptOutcome.DROPPED: "dropped",
    AttemptOutcome.OPEN: "under way",
}


def height(findings: Findings) -> float:
    """Inches that it needs."""
    return 3.2


def draw(figure: Any, findings: Findings) -> str:
    """Draw it; give its caption."""
    history, sent = findings.history, findings.history.sent
    unit = unit_for(history.wall_s)
    axes = figure.add_subplot()
    if len(sent):
        sizes, times = sent["stop"] - sent["start"], sent["sent_s"] / unit.seconds
        if len(sent) <= MOST_DOTS:
            axes.scatter(times, sizes, s=16, color=BLUE, alpha=0.6, linewidths=0, clip_on=False)
        else:
            _draw_density(figure, axes, times, sizes, history.wall_s / unit.seconds)
        if sizes.max() > 8 * sizes.min():
            _label_log(axes, 1.0 * sizes.max() / sizes.min())
        else:
            axes.set_ylim(0, 1.15 * sizes.max())
            label_counts(axes.yaxis)
    axes.set_xlim(0, history.wall_s / unit.seconds)
    axes.set_xlabel(f"handed out, since the run began ({unit.name})")
    axes.set_ylabel("items per chunk")
    reason = findings.policy_reason
    why = f": {reason}" if reason else ""
    outcomes = findings.attempts["outcome"]
    counted = ", ".join(
        f"{int((outcomes == outcome).sum()):,} {text}"
        for outcome, text in _ENDS.items()
        if (outcomes == outcome).any()
    )
    return f"Policy {findings.policy}{why}. Chunks: {counted}."


def _label_log(axes: Any, ratio: float) -> None:
    """A logarithmic axis with two labels at the least, none of them a power of ten with an exponent."""
    ticker = import_module("matplotlib.ticker")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(
        ticker.LogLocator(subs=(1.0, 2.0, 5.0) if ratio < _TWO_DECADES else (1.0,))
    )
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _draw_density(figure: Any, axes: Any, times: Any, sizes: Any, wall: float) -> None:
    low, high = sizes.min(), sizes.max()
    is_wide = high > 8 * low
    rows = np.geomspace(low * 0.9, high * 1.1, 41) if is_wide else np.linspace(0, 1.15 * high, 41)
    counts, x, y = np.histogram2d(times, sizes, [np.linspace(0, wall, 121), rows])
    shown = np.ma.masked_equal(counts.T, 0)
    scale = import_module("matplotlib.colors").LogNorm(1, max(counts.max(), 2))
    mesh = axes.pcolormesh(x, y, shown, cmap=DENSITY, norm=scale)
    figure.colorbar(mesh, ax=axes, label="chunks", pad=0.01)
