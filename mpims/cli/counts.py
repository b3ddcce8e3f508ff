"""Numbers of items and workers, as they are written on a command line."""

from __future__ import annotations

from mpims.errors import UsageError


def parse_count(text: str) -> int:
    """A whole number; ``1e6`` and ``1_000_000`` are one, too.

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> parse_count("1e6"), parse_count("2.5e3"), parse_count("12")
    (1000000, 2500, 12)
    """
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not value.is_integer():  # neither are inf and nan
        raise ValueError(text)
    return int(value)


def parse_items(text: str) -> int:
    """The number of ``--items N``.

    Raises
    ------
    UsageError
        It is no whole number.
    """
    return _parse(text, "--items", "10000 or 1e6")


def parse_workers(text: str) -> int:
    """The number of ``--workers P``; raises as `parse_items`."""
    return _parse(text, "--workers", "8 or 1e3")


def _parse(text: str, option: str, examples: str) -> int:
    try:
        return parse_count(text)
    except ValueError:
        raise UsageError(f"{option} wants a whole number, as {examples}, found {text!r}") from None
