"""(b) No-op items with each tool's best chunking: what an item costs where handing out does not count."""

from functools import partial

import numpy as np

from benchmarks.case import Case, Run, Table, Target, View
from benchmarks.peers.measure import check
from benchmarks.tools import COMMANDS, LIMIT, MPIMS, Settings, run_mpims, run_peer

N_WORKERS = 2
SIZES = [100, 1_000, 10_000]
ARRAY_SIZES = [100_000, 1_000_000]
ONE_BY_ONE = "mpims, item by item"
IN_FILE = "mpims, all items in a file"


def make(settings: Settings) -> Case:
    """Make the case."""
    runs = [Run(tool, partial(_peer, tool, settings)) for tool in COMMANDS]
    runs.append(Run(ONE_BY_ONE, partial(_mpims, "OneByOne", settings.choose(5 * 10**6, 10**6))))
    runs.append(Run(IN_FILE, partial(_mpims, "Vectorised", settings.choose(10**8, 10**7))))
    runs.append(Run(MPIMS, partial(_mpims, "Count", settings.choose(10**9, 10**8))))
    return Case(
        key="b",
        title="No-op items with the best chunking",
        how=(
            f"{N_WORKERS} workers; the answer is the sum of all items. Of the chunk sizes "
            f"{', '.join(map(str, SIZES))} each peer gets what is best for it; where it has none of its "
            "own, ranges of items are its items. It calls a function per item, for that is what it maps, "
            "and what it gives back is added up. A job of mpims has a kernel for a block of items and says "
            "what becomes of its results: `mpims` is that, vectorised, a `Reduce`, with the default block "
            "and policy. `mpims, all items in a file` keeps each item's result (an int64) besides, and "
            "forces the file to the disk; `mpims, item by item` keeps them too, and calls a function per "
            "item. The other columns are what a peer does for a user who cuts ranges by hand, "
            f"{' or '.join(f'{size:,}' for size in ARRAY_SIZES)} items each, and gives back an array, or "
            "the sum: so it maps some hundred things and no longer items, and nothing but the kernel "
            "counts. `raw mpi4py` receives arrays into memory that is there."
        ),
        runs=runs,
        views=[
            View(
                "items/s",
                {"items/s": "mapped", "arrays": "arrays by hand", "sums": "sums by hand"},
                "{:,.0f}".format,
                is_log=True,
            ),
            View("best chunk, items", {"chunk": "chunk"}, "{:,.0f}".format),
        ],
        targets=_targets,
    )


def _peer(tool: str, settings: Settings) -> dict[str, float]:
    parameters = {"seconds": settings.choose(0.4, 0.05), "sizes": SIZES, "array_sizes": ARRAY_SIZES}
    return run_peer(tool, "chunked", N_WORKERS, parameters)


def _mpims(job: str, n: int) -> dict[str, float]:
    def read(run):
        check(int(np.sum(run.result)) == n * (n - 1) // 2, "the sum")
        return {"items/s": n / run.summary["wall_s"]}

    return run_mpims(job, N_WORKERS, read, settings={"n": n})


def _targets(table: Table) -> list[Target]:
    peers = [tool for tool in COMMANDS if tool != LIMIT and table.median(tool, "items/s")]
    asked = "best chunking, vectorised: at least 20 times the best peer"
    best = max(peers, key=lambda tool: table.median(tool, "items/s") or 0.0, default="")
    ratio = table.ratio(MPIMS, best, "items/s")
    if ratio is None:
        return [Target(asked, "not measured", None)]
    return [Target(asked, f"{ratio:.1f} times {best}", ratio >= 20)]
