"""The figures of simulated runs as a picture; matplotlib draws it, which not everybody has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mpims.errors import RunFailed, UsageError
from mpims.report.wording import counted
from mpims.simulator.study import Row

_MARKERS = "os^vD<>pPX*hd8"
_MOST_WITH_SPREAD = 5  # lines, or their error bars hide one another
_MOST_LEVEL, _MOST_SLANTED = 6, 12  # labels of an axis: there is room for so many intervals
_ROUNDING = 1e-9
_PANELS = (
    ("wasted_s", "wasted_sd_s", "wasted time per worker (s)"),
    ("efficiency", None, "efficiency (%)"),
)


def import_figure() -> Any:
    """matplotlib's `Figure`.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        return import_module("matplotlib.figure").Figure
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'mpims[plots]'") from None


def check_path(path: Path) -> None:
    """Refuse a file that cannot be drawn into, before anything is computed.

    Raises
    ------
    UsageError
        matplotlib is missing, does not know the format, or there is no such folder.
    """
    canvas = import_figure()().canvas
    formats = sorted(canvas.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in formats:
        raise UsageError(f"--plot wants a file name that ends in .png or another of {', '.join(formats)}")
    if not os.path.isdir(path.parent):
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")


def plot_rows(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw wasted time and efficiency: over the numbers of workers, or a dot for each policy.

    Raises
    ------
    UsageError
        matplotlib is missing.
    RunFailed
        The file cannot be written.
    """
    counts = sorted({row.n_workers for row in rows})
    policies = list(dict.fromkeys(row.policy for row in rows))
    height = max(4.0, 1.6 + 0.27 * len(policies))
    figure = import_figure()(figsize=(11, height), layout="constrained")
    panels = figure.subplots(1, 2, sharey=len(counts) == 1)
    for axes, (field, spread, label) in zip(panels, _PANELS, strict=True):
        if len(counts) == 1:
            _draw_dots(axes, rows, field, spread, label)
        else:
            _draw_lines(axes, rows, field, spread, label)
    if len(counts) == 1:
        panels[0].invert_yaxis()  # of both: the first policy on top
    else:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    figure.suptitle(title, fontsize=10)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror}") from None


def _values(rows: Sequence[Row], field: str) -> list[float]:
    scale = 100.0 if field == "efficiency" else 1.0
    return [scale * getattr(row, field) for row in rows]


def _draw_dots(axes: Any, rows: Sequence[Row], field: str, spread: str | None, label: str) -> None:
    """A dot for each policy, with the spread over the runs."""
    values = _values(rows, field)
    errors = _values(rows, spread) if spread and any(_values(rows, spread)) else None
    axes.errorbar(values, [row.policy for row in rows], xerr=errors, fmt="o", markersize=5, capsize=2)
    _scale(axes.set_xscale, values, field)
    axes.set_xlabel(f"{label}, {counted(rows[0].n_workers, 'worker')}")
    axes.grid(alpha=0.3)


def _draw_lines(axes: Any, rows: Sequence[Row], field: str, spread: str | None, label: str) -> None:
    """A line for each policy over the numbers of workers."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    if len(policies) > _MOST_WITH_SPREAD:
        spread = None
    for i, policy in enumerate(policies):
        own = sorted((row for row in rows if row.policy == policy), key=lambda row: row.n_workers)
        errors = _values(own, spread) if spread and any(_values(own, spread)) else None
        axes.errorbar(
            [row.n_workers for row in own],
            _values(own, field),
            yerr=errors,
            label=policy,
            color=f"C{i % 10}",
            marker=_MARKERS[i % len(_MARKERS)],
            linestyle=("-", "--", ":")[i // 10 % 3],
            markersize=4,
            linewidth=1.2,
            capsize=2,
        )
    counts = sorted({row.n_workers for row in rows})
    labelled = labelled_counts(counts)
    axes.set_xscale("log", base=2)
    axes.set_xticks(labelled, [f"{n:,}" for n in labelled], rotation=30 if len(counts) > _MOST_LEVEL else 0)
    axes.minorticks_off()
    _scale(axes.set_yscale, _values(rows, field), field)
    axes.set_xlabel("workers")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)


def labelled_counts(counts: Sequence[int]) -> list[int]:
    """The numbers of workers that have room for a label on a logarithmic axis, the first and the last too.

    Examples
    --------
    >>> labelled_counts([2, 4, 8, 16]), labelled_counts([5, 6, 7, 100, 990, 1000])
    ([2, 4, 8, 16], [5, 100, 1000])
    """
    *others, last = counts
    share = 1 / (_MOST_LEVEL if len(counts) <= _MOST_LEVEL else _MOST_SLANTED)
    apart = (last / counts[0]) ** share / (1 + _ROUNDING)
    kept: list[int] = []
    for n in others:
        if not kept or (n >= apart * kept[-1] and last >= apart * n):
            kept.append(n)
    return [*kept, last]


def _scale(set_scale: Any, values: Sequence[float], field: str) -> None:
    """A logarithmic axis where times differ by more than a factor of 30."""
    if field != "efficiency" and min(values) > 0 and max(values) > 30 * min(values):
        set_scale("log")
