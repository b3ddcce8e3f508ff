"""``mpims policies``: the chunk sizes of every policy."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from itertools import groupby
from typing import Any

from mpims.cli.counts import parse_items, parse_workers
from mpims.core.policies import POLICIES, PolicySpec, Sizer, chunk_sizes, parse_policy
from mpims.errors import ExitStatus, UsageError
from mpims.report.wording import counted
from mpims.streams import show

MAX_LISTED = 10_000_000
MAX_WORKERS = 1_000_000
INDENT = 9


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "policies",
        help="show the chunk sizes of every policy",
        description="Show how every policy cuts a number of items into chunks, in the order in which they "
        "are handed out. 4x125 stands for four chunks of 125. A policy that needs parameters is shown with "
        "an example of them; one that measures the ranks is shown with nothing measured.",
    )
    parser.set_defaults(command=policies_command)
    parser.add_argument(
        "--items", type=parse_items, default=1000, metavar="N", help="number of items; default 1000"
    )
    parser.add_argument(
        "--workers", type=parse_workers, default=4, metavar="P", help="number of workers; default 4"
    )
    parser.add_argument(
        "--policy",
        dest="policies",
        action="append",
        metavar="SPEC",
        help="show this one alone, as in --policy FSC:h=5e-5,sigma=0.1 (again for more)",
    )


def policies_command(arguments: argparse.Namespace) -> int:
    """Print the sizes; give the exit status."""
    n_items, n_workers = arguments.items, arguments.workers
    if not 1 <= n_workers <= MAX_WORKERS:
        raise UsageError(f"--workers wants 1 to {MAX_WORKERS:,}, found {n_workers}")
    if not 1 <= n_items <= MAX_LISTED:
        raise UsageError(f"--items wants 1 to {MAX_LISTED:,}, found {n_items}")
    if arguments.policies is None:
        specs = [parse_policy(policy.example(n_workers)) for policy in POLICIES.values()]
    else:
        specs = [_asked_for(text, n_workers) for text in arguments.policies]
    width = max(40, min(shutil.get_terminal_size().columns, 100))
    for spec in specs:
        show(_described(spec, n_items, n_workers, width))
    return ExitStatus.DONE


def _asked_for(text: str, n_workers: int) -> PolicySpec:
    try:
        spec = parse_policy(text)
        spec.check_workers(n_workers)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return spec


def _described(spec: PolicySpec, n_items: int, n_workers: int, width: int) -> str:
    sizes = chunk_sizes(Sizer(spec.make(n_items, n_workers)))
    technique = spec.technique
    about = (technique.__doc__ or "").split("\n")[0].replace("`", "")
    learns = " It measures the ranks: these are the chunks as long as nothing is known." * technique.learns
    chunks = counted(len(sizes), "chunk")
    head = f"{technique.name:{INDENT - 1}} {chunks}. {about} ({technique.source}){learns}"
    lines = textwrap.wrap(head, width, subsequent_indent=" " * INDENT)
    if technique.parameters:
        lines += _indented(f"{spec}  {spec.meanings}", width)
    return "\n".join(lines + _indented(" ".join(_runs(sizes)), width))


def _runs(sizes: list[int]) -> list[str]:
    """The sizes, equal ones that follow each other as one; the middle of very many is left out."""
    runs = [(size, len(list(same))) for size, same in groupby(sizes)]
    shown = [f"{count}x{size}" if count > 1 else str(size) for size, count in runs]
    return shown if len(shown) <= 60 else [*shown[:40], "...", *shown[-15:]]


def _indented(text: str, width: int) -> list[str]:
    indent = " " * INDENT
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
