"""Figures for people."""

from __future__ import annotations

from mpims.report.wording import duration


def time_text(seconds: float) -> str:
    """A time of any length, with its unit.

    Examples
    --------
    >>> [time_text(s) for s in (3.8e-05, 0.0025, 0.31, 5.25, 75.0)]
    ['38 µs', '2.5 ms', '310 ms', '5.2 s', '1:15 min']
    """
    if seconds < 1e-9:
        return "0 s"
    for unit, name in ((1e-6, "µs"), (1e-3, "ms")):
        if seconds < 999.5 * unit:
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 10 else f"{value:.2g} {name}"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return duration(seconds) + (" min" if seconds < 3600 else " h")


def core_time_text(seconds: float) -> str:
    """Core-seconds for people.

    Examples
    --------
    >>> core_time_text(0.31), core_time_text(12.3), core_time_text(86400)
    ('0.31 core-seconds', '12 core-seconds', '24.0 core-hours')
    """
    if seconds >= 10_000:
        return f"{seconds / 3600:,.1f} core-hours"
    return f"{seconds:,.0f} core-seconds" if seconds >= 10 else f"{seconds:.2g} core-seconds"


def items_text(start: int, stop: int) -> str:
    """A range of items.

    Examples
    --------
    >>> items_text(7, 8), items_text(7, 9)
    ('item 7', 'items [7, 9)')
    """
    return f"item {start}" if stop == start + 1 else f"items [{start}, {stop})"


def two_digits(value: float) -> int:
    """A whole number as exact as advice can be.

    Examples
    --------
    >>> two_digits(0.4), two_digits(7.9), two_digits(1234.0)
    (0, 7, 1200)
    """
    return int(float(f"{value:.2g}")) if value >= 10 else int(value)
