"""(h) The master's memory against the number of items."""

from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_most
from benchmarks.peers.measure import check
from benchmarks.tools import COMMANDS, LIMIT, MPIMS, Settings, run_mpims, run_peer

N_WORKERS = 2
EMPTY = 10**3
PEERS = (EMPTY, 10**6)
OWN = (EMPTY, 10**6, 10**9)
CHUNK = 1000
MOST_MB = 150


def make(settings: Settings) -> Case:
    """Make the case."""
    own = settings.choose(OWN, (EMPTY, 10**6, 10**8))
    runs = [Run(tool, partial(_peer, tool, PEERS)) for tool in COMMANDS if tool != LIMIT]
    runs.append(Run(MPIMS, partial(_mpims, own)))
    return Case(
        key="h",
        title="Memory against the number of items",
        how=(
            f"The sum of the numbers of n items on {N_WORKERS} workers: the peak of the resident memory of "
            f"the process that maps, in chunks of {CHUNK} items for the peers; for mpims, whose job is a "
            "`Reduce`, of rank 0. Peers stop at a million items."
        ),
        runs=runs,
        views=[
            View(
                "MB",
                {str(n): f"{n:,}" for n in own},
                "{:.0f}".format,
                is_line=True,
                along="items",
            )
        ],
        targets=partial(_targets, own[-1]),
        most_rounds=2,
    )


def _peer(tool: str, counts: tuple[int, ...]) -> dict[str, float]:
    return {str(n): run_peer(tool, "memory", N_WORKERS, {"n": n, "size": CHUNK})["MB"] for n in counts}


def _mpims(counts: tuple[int, ...]) -> dict[str, float]:
    figures = {}
    for n in counts:

        def read(run, n=n):
            check(int(run.result) == n * (n - 1) // 2, "the sum")
            return {str(n): run.peak_mb}

        figures |= run_mpims("Count", N_WORKERS, read, settings={"n": n})
    return figures


def _targets(most: int, table: Table) -> list[Target]:
    empty, full, middle = (table.median(MPIMS, str(n)) for n in (EMPTY, most, 10**6))
    over = None if empty is None or full is None else max(0.0, full - empty)
    growth = None if full is None or middle is None else max(0.0, full - middle)
    return [
        at_most(over, MOST_MB, f"master's memory, {most:,} items over an empty run", "{:.0f} MB".format),
        at_most(growth, 10, f"master's memory flat: {most:,} over 1,000,000 items", "{:.0f} MB".format),
    ]
