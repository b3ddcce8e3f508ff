"""``mpims policies``: the chunk sizes of every policy."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from itertools import groupby
from typing import Any

from mpims.core.policies import POLICIES, Policy, Sizer, chunk_sizes
from mpims.errors import ExitStatus, UsageError

MAX_LISTED = 10_000_000


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "policies",
        help="show the chunk sizes of every policy",
        description="Show how every policy cuts a number of items into chunks, in the order in which they "
        "are handed out. 4x125 stands for four chunks of 125.",
    )
    parser.set_defaults(command=policies_command)
    parser.add_argument(
        "--items", type=int, default=1000, metavar="N", help="number of items; default 1000"
    )
    parser.add_argument("--workers", type=int, default=4, metavar="P", help="number of workers; default 4")


def policies_command(arguments: argparse.Namespace) -> int:
    """Print the sizes; give the exit status."""
    n_items, n_workers = arguments.items, arguments.workers
    if n_workers < 1:
        raise UsageError(f"--workers wants at least 1, found {n_workers}")
    if not 0 <= n_items <= MAX_LISTED:
        raise UsageError(f"--items wants 0 to {MAX_LISTED:,}, found {n_items}")
    width = max(40, min(shutil.get_terminal_size().columns, 100))
    for policy in POLICIES.values():
        size = max(1, -(-n_items // (10 * n_workers))) if policy.takes_size else None
        print(_described(policy, n_items, n_workers, size, width))
    return ExitStatus.DONE


def _described(policy: type[Policy], n_items: int, n_workers: int, size: int | None, width: int) -> str:
    sizes = chunk_sizes(Sizer(policy(n_items, n_workers, size)))
    name = policy.name if size is None else f"{policy.name}:{size}"
    about = (policy.__doc__ or "").split("\n")[0].replace("`", "")
    runs = [(n, len(list(same))) for n, same in groupby(sizes)]
    shown = [f"{count}x{n}" if count > 1 else str(n) for n, count in runs]
    if len(shown) > 60:
        shown = [*shown[:40], "...", *shown[-15:]]
    head = f"{name:8} {len(sizes):,} chunks. {about} ({policy.source})"
    return "\n".join(
        [
            *textwrap.wrap(head, width, subsequent_indent=" " * 9),
            *textwrap.wrap(" ".join(shown), width, initial_indent=" " * 9, subsequent_indent=" " * 9),
        ]
    )
