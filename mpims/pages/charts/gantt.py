"""Ranks over time: every chunk where there is room for it, else how busy the ranks were."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpims.pages.charts.style import BLUE, DENSITY, PURPLE, VERMILLION, legend_below, unit_for
from mpims.pages.findings import Findings
from mpims.pages.history import History
from mpims.pages.words import time_text
from mpims.storage.trace import Cause, What

MOST_ROWS = 40
MOST_BARS = 4000
"""With more ranks or parts than this, shares of time are shown instead."""
MOST_BANDS = 256
"""So many rows of shares at the most: then each is of several ranks."""
N_BINS = 480
_MARKERS = {
    What.LOST: ("X", "rank died"),
    What.SUSPECT: ("^", "rank silent"),
    What.FAILED: ("v", "block failed"),
}
_OTHER_BLUE = "#4FA3D1"  # of every other chunk, so that one can tell them apart


def height(findings: Findings) -> float:
    """Inches that it needs."""
    n = len(_ranks(findings.history))
    return 1.6 + (0.22 * max(n, 3) if n <= MOST_ROWS else 4.5)


def _ranks(history: History) -> NDArray[np.int64]:
    known = {h.rank for h in history.of(What.JOINED)}
    return np.union1d(history.parts["rank"], np.array(sorted(known), dtype=np.int64))


def draw(figure: Any, findings: Findings) -> str:
    """Draw it; give its caption."""
    history = findings.history
    ranks = _ranks(history)
    unit = unit_for(history.wall_s)
    axes = figure.add_subplot()
    axes.set_xlim(0, history.wall_s / unit.seconds)
    axes.set_xlabel(f"time since the run began ({unit.name})")
    axes.set_ylabel("rank")
    if len(ranks) <= MOST_ROWS and len(history.parts) <= MOST_BARS:
        caption = _draw_bars(axes, history, ranks, unit.seconds)
        rows = np.arange(len(ranks), dtype=float)
    else:
        caption, per_row = _draw_shares(figure, axes, history, ranks, unit.seconds)
        rows = np.arange(len(ranks)) / per_row
    _draw_events(axes, findings, ranks, rows, unit.seconds)
    legend_below(figure, *axes.get_legend_handles_labels())
    return caption


def _draw_bars(axes: Any, history: History, ranks: NDArray[np.int64], unit_s: float) -> str:
    parts = history.parts
    y = np.searchsorted(ranks, parts["rank"])
    left, right = parts["started_s"] / unit_s, parts["ended_s"] / unit_s
    is_again = parts["n_fresh"] < parts["stop"] - parts["start"]
    is_odd = _is_odd(parts)
    collection = import_module("matplotlib.collections").PolyCollection
    for chosen, colour, label in (
        (~is_again & ~is_odd, BLUE, "computing"),
        (~is_again & is_odd, _OTHER_BLUE, None),
        (is_again, PURPLE, "computing what another had first"),
    ):
        if chosen.any():
            x0, x1, at = left[chosen], right[chosen], y[chosen]
            corners = [(x0, at - 0.4), (x0, at + 0.4), (x1, at + 0.4), (x1, at - 0.4)]
            shapes = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
            axes.add_collection(collection(shapes, facecolors=colour, linewidths=0, label=label))
    axes.set_ylim(len(ranks) - 0.5, -0.5)
    step = 1 if len(ranks) <= 25 else 2
    axes.set_yticks(range(0, len(ranks), step), [str(rank) for rank in ranks[::step]])
    return "Each bar is what was delivered at once, of one chunk; two shades tell neighbours apart."


def _is_odd(parts: NDArray[np.void]) -> NDArray[np.bool_]:
    """Every other attempt of each rank."""
    odd = np.zeros(len(parts), dtype=bool)
    order = np.lexsort((parts["started_s"], parts["rank"]))
    attempt, rank = parts["attempt"][order], parts["rank"][order]
    changes = np.concatenate(([0], (attempt[1:] != attempt[:-1]) | (rank[1:] != rank[:-1])))
    odd[order] = np.cumsum(changes) % 2 == 1
    return odd


def _draw_shares(
    figure: Any, axes: Any, history: History, ranks: NDArray[np.int64], unit_s: float
) -> tuple[str, int]:
    per_row = -(-len(ranks) // MOST_BANDS)
    shares = busy_shares(history, ranks, N_BINS)
    edges = np.arange(0, len(ranks), per_row)
    bands = np.add.reduceat(shares, edges, axis=0) / np.diff([*edges, len(ranks)])[:, None]
    image = axes.imshow(
        100 * bands,
        aspect="auto",
        interpolation="nearest",
        cmap=DENSITY,
        vmin=0,
        vmax=100,
        extent=(0, history.wall_s / unit_s, len(bands) - 0.5, -0.5),
    )
    figure.colorbar(image, ax=axes, label="in the kernel (% of the time)", pad=0.01)
    ticks = np.unique(np.linspace(0, len(bands) - 1, min(len(bands), 9)).astype(int))
    axes.set_yticks(ticks, [str(ranks[i * per_row]) for i in ticks])
    of = f", each row {per_row} ranks" if per_row > 1 else ""
    each = time_text(history.wall_s / N_BINS)
    return f"The share of every {each} that a rank was in the kernel{of}.", per_row


def busy_shares(history: History, ranks: NDArray[np.int64], n_bins: int) -> NDArray[np.float64]:
    """The share of each of `n_bins` equal times that each rank was in the kernel.

    Returns
    -------
    ndarray, shape (n_ranks, n_bins)
    """
    edges = np.linspace(0.0, history.wall_s, n_bins + 1)
    shares = np.zeros((len(ranks), n_bins))
    parts = history.parts[np.lexsort((history.parts["ended_s"], history.parts["rank"]))]
    for rank, its in zip(
        np.unique(parts["rank"]),
        np.split(parts, np.unique(parts["rank"], return_index=True)[1][1:]),
        strict=True,
    ):
        ended_s = np.maximum.accumulate(its["ended_s"])
        started_s = np.clip(its["started_s"], np.concatenate(([-np.inf], ended_s[:-1])), ended_s)
        busy_s = np.cumsum(ended_s - started_s)
        times = np.stack([started_s, ended_s], axis=1).ravel()
        gone_s = np.stack([busy_s - (ended_s - started_s), busy_s], axis=1).ravel()
        shares[np.searchsorted(ranks, rank)] = np.diff(np.interp(edges, times, gone_s))
    return shares * n_bins / history.wall_s


def _draw_events(
    axes: Any, findings: Findings, ranks: NDArray[np.int64], rows: NDArray[np.float64], unit_s: float
) -> None:
    """Mark what went wrong, and when it concerned all."""
    history = findings.history
    for what, (marker, label) in _MARKERS.items():
        marked = [h for h in history.of(what) if h.rank in ranks]
        if marked:
            y = rows[np.searchsorted(ranks, [h.rank for h in marked])]
            x = [h.t / unit_s for h in marked]
            axes.scatter(
                x,
                y,
                s=45,
                marker=marker,
                label=label,
                clip_on=False,
                color=VERMILLION,
                edgecolors="white",
                linewidths=0.8,
                zorder=3,
            )
    later = [h for h in history.of(What.BEGAN) if h.t > 0]
    for cause, style, label in (
        (Cause.RESUMED, "-", "resumed"),
        (Cause.TAKEN_OVER, "--", "another master took over"),
    ):
        times = [h.t for h in later if h.about.get("cause") == cause.value]
        for i, t in enumerate(times):
            axes.axvline(t / unit_s, color="black", ls=style, lw=1, label=None if i else label)
    tails = [
        float(tail_s)
        for stretch, tail_s in zip(history.stretches, findings.accounts.tail_s, strict=True)
        if stretch.is_whole
    ]
    for t in tails:
        label = "nothing left to hand out"
        axes.axvline(t / unit_s, color=VERMILLION, ls=":", lw=1.2, label=label)
