"""Numbers of items, as they are written on a command line."""

from __future__ import annotations

from mpims.errors import UsageError


def parse_items(text: str) -> int:
    """The number of ``--items N``; ``1e6`` and ``1_000_000`` are one, too.

    Raises
    ------
    UsageError
        It is no whole number.

    Examples
    --------
    >>> parse_items("1e6"), parse_items("2.5e3"), parse_items("12")
    (1000000, 2500, 12)
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not value.is_integer():  # neither are inf and nan
        raise UsageError(f"--items wants a whole number, as 10000 or 1e6, found {text!r}")
    return int(value)
