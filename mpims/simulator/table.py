"""The figures of simulated runs as a table on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from math import isfinite
from typing import NamedTuple

from mpims.simulator.study import Row


class _Column(NamedTuple):
    head: str
    text: Callable[[Row], str]
    shows: Callable[[Row], bool] = lambda row: True
    """Whether a row has something to show; a column in which none has is left out."""


def number(value: float) -> str:
    """A number in four or five significant digits.

    Examples
    --------
    >>> [number(x) for x in (0, 0.0003, 0.5, 12.3456, 4099.2, 1e6, 2.5e-7)]
    ['0', '0.00030', '0.5000', '12.35', '4,099', '1,000,000', '2.5e-07']
    """
    size = abs(value)
    if value == 0:
        return "0"
    if size < 1e-4:
        return f"{value:.1e}"
    decimals = next(
        (d for least, d in ((1000, 0), (100, 1), (10, 2), (1, 3), (0.01, 4)) if size >= least), 5
    )
    return f"{value:,.{decimals}f}"


def count(value: float) -> str:
    """How many of something; with a digit behind the point where it is a mean that is none.

    Examples
    --------
    >>> count(12345.0), count(2.5)
    ('12,345', '2.5')
    """
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def percentage(share: float) -> str:
    """A share in per cent.

    Examples
    --------
    >>> percentage(0.98765), percentage(0.0), percentage(1.2e-5)
    ('98.8%', '0%', '0.0012%')
    """
    if share and share < 1e-3:
        return f"{100 * share:.2g}%"
    return f"{share:.1%}" if share else "0%"


_COLUMNS = (
    _Column("policy", lambda row: row.policy),
    _Column("workers", lambda row: count(row.n_workers)),
    _Column("makespan/s", lambda row: number(row.makespan_s)),
    _Column("+-", lambda row: number(row.makespan_sd_s), lambda row: row.makespan_sd_s > 0),
    _Column("efficiency", lambda row: percentage(row.efficiency)),
    _Column("wasted/s", lambda row: number(row.wasted_s)),
    _Column("+-", lambda row: number(row.wasted_sd_s), lambda row: row.wasted_sd_s > 0),
    _Column("chunks", lambda row: count(row.n_chunks)),
    _Column("largest", lambda row: count(row.largest)),
    _Column("least", lambda row: count(row.least)),
    _Column("master", lambda row: percentage(row.master_load), lambda row: row.master_load > 0),
    _Column("wait/s", lambda row: number(row.wait_s), lambda row: row.longest_wait_s > 0),
    _Column("at most/s", lambda row: number(row.longest_wait_s), lambda row: row.longest_wait_s > 0),
    _Column("reissued", lambda row: count(row.n_reissued), lambda row: row.n_lost > 0),
    _Column("twice", lambda row: count(row.n_duplicates), lambda row: row.n_duplicates > 0),
    _Column("taken over", lambda row: count(row.n_recalled + row.n_split + row.n_twins)),
)


def table_lines(rows: Sequence[Row], width: int) -> list[str]:
    """The rows as aligned lines; the last columns are left out where the terminal is too narrow.

    Parameters
    ----------
    rows
        At least one.
    width
        Columns of the terminal.
    """
    columns = [column for column in _COLUMNS if any(map(column.shows, rows))]
    cells = [[column.head, *map(column.text, rows)] for column in columns]
    widths = [max(map(len, cell)) for cell in cells]
    n_shown = 1
    while n_shown < len(columns) and sum(widths[: n_shown + 1]) + 2 * n_shown <= width:
        n_shown += 1
    lines = []
    for texts in zip(*cells[:n_shown], strict=True):
        aligned = [texts[0].ljust(widths[0])]
        aligned += [text.rjust(w) for text, w in zip(texts[1:], widths[1:], strict=False)]
        lines.append("  ".join(aligned).rstrip())
    missing = ", ".join(column.head for column in columns[n_shown:])
    return [*lines, *([f"(no room for: {missing}; --json has all)"] if missing else [])]


def saturation_lines(rows: Sequence[Row], service_s: float, width: int) -> list[str]:
    """How many workers one master can feed, by each policy, as on the most workers that were simulated."""
    last = {row.policy: row for row in rows if isfinite(row.most_workers)}
    if not last:
        return []
    each = ", ".join(f"{row.most_workers:,.0f} by {row.policy}" for row in last.values())
    n_workers = max(row.n_workers for row in last.values())
    return textwrap.wrap(
        f"One master, busy for {number(service_s)} s with each hand-out, feeds about so many workers with "
        f"results as large as on {n_workers:,}: {each}",
        max(width, 40),
        subsequent_indent="  ",
        break_on_hyphens=False,
    )
