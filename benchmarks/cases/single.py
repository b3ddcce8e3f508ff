"""(a) No-op items handed out singly: what handing out costs."""

from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_least
from benchmarks.peers.measure import check
from benchmarks.tools import LIMIT, MPIMS, Settings, run_mpims, run_peer, tools

RANKS = (2, 3)


def make(settings: Settings) -> Case:
    """Make the case."""
    runs = []
    for n_ranks in RANKS:
        runs += [Run(tool, partial(_peer, tool, n_ranks, settings)) for tool in tools(n_ranks - 1)]
        runs.append(Run(MPIMS, partial(_mpims, n_ranks, settings)))
    return Case(
        key="a",
        title="No-op items handed out singly",
        how=(
            "Each item is handed out by itself and gives itself back. `raw mpi4py` is a loop with two "
            "items in flight for each worker and blocking `Send`/`Recv` of 16 bytes; mpims runs with "
            "`--policy SS`, a block of one item, and its journal. Tools without ranks have as many workers "
            "as the others (ranks - 1; dask-mpi has one rank more, for its scheduler); joblib "
            "computes in the calling process when it has one worker, and is left out there."
        ),
        runs=runs,
        views=[
            View(
                "items/s",
                {_column(n): f"{n} ranks" for n in RANKS},
                "{:,.0f}".format,
                relative_to=LIMIT,
                is_log=True,
            )
        ],
        targets=_targets,
    )


def _column(n_ranks: int) -> str:
    return f"{n_ranks} ranks"


def _peer(tool: str, n_ranks: int, settings: Settings) -> dict[str, float]:
    figures = run_peer(tool, "single", n_ranks - 1, {"seconds": settings.choose(0.7, 0.1)})
    return {_column(n_ranks): figures["items/s"]}


def _mpims(n_ranks: int, settings: Settings) -> dict[str, float]:
    n = settings.choose(400_000, 20_000)

    def read(run):
        check(int(run.result.sum()) == n * (n - 1) // 2, "the sum")
        return {_column(n_ranks): n / run.summary["wall_s"]}

    return run_mpims("Noops", n_ranks - 1, read, "--policy", "SS", settings={"n": n})


def _targets(table: Table) -> list[Target]:
    asked = ((0.6, LIMIT), (20, "mpi4py.futures"), (1, "schwimmbad"))
    return [
        at_least(table, _column(n), factor, other, f"single no-op items, {n} ranks")
        for n in RANKS
        for factor, other in asked
    ]
