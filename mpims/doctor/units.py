"""Quantities as the doctor writes them: two digits and a unit."""

from __future__ import annotations


def time_text(seconds: float) -> str:
    """A short duration.

    Examples
    --------
    >>> time_text(38.2e-6), time_text(4.11e-3), time_text(0.0), time_text(12.3)
    ('38 µs', '4.1 ms', '0 µs', '12 s')
    """
    for unit, least in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= least:
            return f"{_two_digits(seconds / least)} {unit}"
    return f"{_two_digits(seconds * 1e6)} µs"


def size_text(n_bytes: float) -> str:
    """An amount of memory or disk; with ``/s`` behind it a speed.

    Examples
    --------
    >>> size_text(83.9e9), size_text(1.26e6), size_text(0)
    ('84 GB', '1.3 MB', '0 kB')
    """
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= least:
            return f"{_two_digits(n_bytes / least)} {unit}"
    return f"{_two_digits(n_bytes / 1e3)} kB"


def _two_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"
