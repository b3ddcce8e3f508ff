"""How the times of items are distributed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpims.pages.charts.style import BLUE, VERMILLION, label_counts, legend_below, unit_for
from mpims.pages.findings import Findings
from mpims.pages.slowest import spread
from mpims.pages.words import time_text

N_BINS = 50
_LOWEST = 1e-3  # the first bar has all the parts below this quantile
_WIDE = 20.0  # times that differ by more than this factor want a logarithmic axis


def height(findings: Findings) -> float:
    """Inches that it needs."""
    return 3.1


def draw(figure: Any, findings: Findings) -> str:
    """Draw it; give its caption."""
    history = findings.history
    parts = history.parts
    n_items = parts["stop"] - parts["start"]
    item_s = parts["busy_s"] / n_items
    its = spread(history)
    longest_s = float(item_s.max())
    unit = unit_for(longest_s)
    values = item_s / unit.seconds
    low, high = float(np.quantile(values, _LOWEST)), float(values.max())
    axes = figure.add_subplot()
    if high > _WIDE * low > 0:
        edges = np.geomspace(0.9 * low, 1.1 * high, N_BINS + 1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        margin = 0.02 * (high or 1.0)
        edges = np.linspace(max(low - margin, 0.0), high + margin, N_BINS + 1)
    axes.hist(np.clip(values, edges[0], edges[-1]), edges, weights=n_items, color=BLUE)
    label_counts(axes.yaxis)
    mean = its.mean_s / history.block / unit.seconds
    axes.axvline(mean, color=VERMILLION, ls="--", lw=1.2, label=f"mean {mean:.3g} {unit.name}")
    axes.set_xlabel(f"time per item ({unit.name})")
    axes.set_ylabel("items")
    legend_below(figure, *axes.get_legend_handles_labels())
    of_block = f" of {history.block:,} items" if history.block > 1 else ""
    return (
        f"Items by the mean time of the part that they were delivered in. A block{of_block} took "
        f"{time_text(its.mean_s)} in the mean, with a standard deviation of {its.cov:.2f} times that, and "
        f"{time_text(its.longest_s)} at most."
    )
