"""How things are put into words: durations, ranks, what has to fit into a line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def duration(seconds: float) -> str:
    """A duration for people.

    Examples
    --------
    >>> duration(0.0123), duration(5.25), duration(75), duration(7300)
    ('0.012 s', '5.2 s', '1:15', '2:01:40')
    """
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def fitted(fields: Sequence[str], width: int) -> str:
    """As many of the fields as fit, whole, the first ones first.

    Examples
    --------
    >>> fitted(["60%", "about 40 s left", "600/1,000 items"], 25)
    '60%  about 40 s left'
    """
    kept = list(fields)
    while len(kept) > 1 and len("  ".join(kept)) > width:
        del kept[-1]
    return "  ".join(kept)[:width]


def shorten(text: str, width: int = 90) -> str:
    """A text in one line of at most that width, and nothing in it that a terminal takes for an order."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    if len(line) <= width:
        return line
    return line[: width - 3] + "..." if width > 3 else line[:width]


def counted(n: int, noun: str) -> str:
    """So many of a thing.

    Examples
    --------
    >>> counted(1, "item"), counted(2000, "item"), counted(0, "item")
    ('1 item', '2,000 items', '0 items')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def name_rank(rank: int, host: str | None) -> str:
    """A rank and where it is.

    Examples
    --------
    >>> name_rank(3, "node02"), name_rank(3, None)
    ('rank 3 (node02)', 'rank 3')
    """
    return f"rank {rank} ({host})" if host else f"rank {rank}"


def with_hosts(text: str, hosts: Mapping[int, str]) -> str:
    """A text that names ranks, with where they are.

    Examples
    --------
    >>> with_hosts("rank 3 at 0.4 of the mean speed", {3: "node02"})
    'rank 3 (node02) at 0.4 of the mean speed'
    """
    return re.sub(r"\brank (\d+)\b", lambda match: name_rank(int(match[1]), hosts.get(int(match[1]))), text)


def name_ranks(hosts: Mapping[int, str], n_most: int = 8) -> str:
    """Ranks with their hosts, the first ones by name.

    Examples
    --------
    >>> name_ranks({9: "node05", 3: "node02", 4: "node02"}, 2)
    'rank 3 (node02), rank 4 (node02) and 1 more'
    """
    ranks = sorted(hosts)
    named = ", ".join(name_rank(rank, hosts[rank]) for rank in ranks[:n_most])
    return named if len(ranks) <= n_most else f"{named} and {len(ranks) - n_most:,} more"
