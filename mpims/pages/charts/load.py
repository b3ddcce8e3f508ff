"""The load of each rank and each host: what their time went into."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpims.pages.accounts import NAMES, Use
from mpims.pages.charts.style import COLOURS, HATCHES, legend_below
from mpims.pages.findings import Findings
from mpims.report.wording import counted

MOST_BARS = 64
"""Of more ranks than this areas are drawn."""
MOST_HOSTS = 24


def height(findings: Findings) -> float:
    """Inches that it needs."""
    return 3.2 + (0.8 + 0.22 * min(len(_hosts(findings)), MOST_HOSTS) if len(_hosts(findings)) > 1 else 0)


def draw(figure: Any, findings: Findings) -> str:
    """Draw it; give its caption."""
    ranks, seconds = findings.accounts.of_ranks()
    shares = 100 * seconds / np.maximum(seconds.sum(axis=1, keepdims=True), 1e-12)
    hosts = _hosts(findings)
    uses = [use for use in Use if seconds[:, use].sum() > 0]
    if len(hosts) > 1:
        n_shown = min(len(hosts), MOST_HOSTS)
        top, bottom = figure.subplots(2, 1, height_ratios=[2.0, 0.5 + 0.2 * n_shown])
        _draw_hosts(bottom, _host_shares(hosts, ranks, seconds), uses)
    else:
        top = figure.add_subplot()
    _draw_ranks(top, ranks, shares, uses)
    legend_below(figure, *top.get_legend_handles_labels())
    if len(hosts) <= MOST_HOSTS:
        return "The time of each rank that computes, from the beginning to the end of the run."
    return f"The time of each rank; of {len(hosts)} hosts the {MOST_HOSTS} that computed the least."


def _draw_ranks(axes: Any, ranks: NDArray[np.int64], shares: NDArray[np.float64], uses: list[Use]) -> None:
    below = np.zeros(len(ranks))
    x = np.arange(len(ranks))
    for use in uses:
        style = {"color": COLOURS[use], "hatch": HATCHES.get(use), "edgecolor": "white", "linewidth": 0}
        if len(ranks) <= MOST_BARS:
            axes.bar(x, shares[:, use], bottom=below, width=0.8, label=NAMES[use], **style)
        else:
            style = {key: value for key, value in style.items() if key not in ("edgecolor", "hatch")}
            top = below + shares[:, use]
            axes.fill_between(x, below, top, step="mid", label=NAMES[use], **style)
        below = below + shares[:, use]
    ticks = x if len(x) <= 24 else np.unique(np.linspace(0, len(x) - 1, 12).astype(int))
    axes.set_xticks(ticks, [str(ranks[i]) for i in ticks])
    axes.set_xlim(-0.6, len(x) - 0.4)
    axes.set_ylim(0, 100)
    axes.set_xlabel("rank")
    axes.set_ylabel("share of its time (%)")


def _hosts(findings: Findings) -> dict[str, list[int]]:
    """The ranks that compute, by host."""
    found: dict[str, list[int]] = {}
    for rank in np.unique(findings.accounts.ranks).tolist():
        found.setdefault(findings.history.hosts.get(rank) or "unknown", []).append(rank)
    return found


def _host_shares(
    hosts: dict[str, list[int]], ranks: NDArray[np.int64], seconds: NDArray[np.float64]
) -> list[tuple[str, NDArray[np.float64]]]:
    """Name and shares of each host, in percent; the least busy if there are too many, else by name."""
    found = []
    for host, its in hosts.items():
        total = seconds[np.isin(ranks, its)].sum(axis=0)
        found.append((f"{host}: {counted(len(its), 'rank')}", 100 * total / total.sum()))
    if len(found) > MOST_HOSTS:
        found = sorted(found, key=lambda its: float(its[1][Use.COMPUTE]))[:MOST_HOSTS]
    return found


def _draw_hosts(axes: Any, rows: list[tuple[str, NDArray[np.float64]]], uses: list[Use]) -> None:
    left = np.zeros(len(rows))
    y = np.arange(len(rows))
    for use in uses:
        width = np.array([shares[use] for _, shares in rows])
        style = {"color": COLOURS[use], "hatch": HATCHES.get(use), "edgecolor": "white", "linewidth": 0}
        axes.barh(y, width, left=left, height=0.75, **style)
        left = left + width
    axes.set_yticks(y, [name if len(name) <= 32 else name[:29] + "..." for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of its ranks' time (%)")
