"""Numbers of items, workers and ranks, as they are written on a command line."""

from __future__ import annotations

from mpims.errors import UsageError
from mpims.parameters import parse_integer
from mpims.report.wording import counted


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


def check_ranks(n_ranks: int | None) -> None:
    """Refuse a number of ranks that cannot be started."""
    if n_ranks is not None and n_ranks < 1:
        raise UsageError(f"-n wants at least 1 rank, found {n_ranks}")


def check_started(n_ranks: int | None, n_started: int) -> None:
    """Refuse another number of ranks than a launcher has started."""
    if n_ranks not in (None, n_started):
        raise UsageError(
            f"-n {n_ranks} under a launcher that started {counted(n_started, 'rank')}: "
            "give the number to one of them only"
        )
