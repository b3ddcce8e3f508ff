"""Numbers of items and workers, as they are written on a command line."""

from __future__ import annotations

from mpims.errors import UsageError
from mpims.parameters import parse_integer


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
        return parse_integer(text)
    except ValueError:
        raise UsageError(f"{option} wants a whole number, as {examples}, found {text!r}") from None
