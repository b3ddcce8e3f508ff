"""(i) `mpims.Executor` beside the executor of mpi4py: the same program, another pool."""

from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_least
from benchmarks.tools import MPIMS, Settings, mpirun, run_peer, run_program

RANKS = (2, 3)
FUTURES = "mpi4py.futures"
SIZES = [100, 1_000, 5_000, 20_000]
ARRAY_BYTES = 10_000_000
TASK_S = 0.01
_WHAT = {
    "round trips": "calls waited for one by one",
    "singly": "map, chunksize=1",
    "map": "map, best chunks",
    "GB/s": "10 MB arrays",
    "busy": "tasks of 10 ms that give 2 MB",
}


def make(settings: Settings) -> Case:
    """Make the case."""
    runs = []
    for n_ranks in RANKS:
        runs.append(Run(FUTURES, partial(_futures, n_ranks, settings)))
        runs.append(Run(MPIMS, partial(_mpims, n_ranks, settings)))
    return Case(
        key="i",
        title="An executor for programs that take one",
        how=(
            "One program with an executor on ranks - 1 workers: `submit(...).result()` "
            "again and again; `map` of a function that gives its argument back, with chunks of 1, and "
            f"with the best of {', '.join(map(str, SIZES))} (mpims: none given, it measures); `map` of one "
            "that gives a float64 array of 10 MB that it has already; and the share of the time in which "
            "workers compute, where a task of 10 ms makes an array of 2 MB: the seconds on a core of all "
            "tasks over those of the map, times the workers."
        ),
        runs=runs,
        views=[
            _view("calls/s", ("round trips", "map"), "{:,.0f}"),
            _view("calls/s, one a message", ("singly",), "{:,.0f}"),
            _view("GB/s", ("GB/s",), "{:.2f}"),
            _view("share of the time", ("busy",), "{:.0%}"),
        ],
        targets=_targets,
    )


def _view(title: str, names: tuple[str, ...], form: str) -> View:
    columns = {_column(name, n): f"{_WHAT[name]}, {n} ranks" for name in names for n in RANKS}
    return View(title, columns, form.format, relative_to=FUTURES, is_log=True)


def _column(name: str, n_ranks: int) -> str:
    return f"{name}|{n_ranks}"


def _parameters(settings: Settings, n_ranks: int, sizes: list[int]) -> dict[str, object]:
    return {
        "seconds": settings.choose(0.5, 0.1),
        "sizes": sizes,
        "n_bytes": ARRAY_BYTES,
        "n_arrays": settings.choose(100, 10),
        "n_workers": n_ranks - 1,
        "n_steps": round(TASK_S * settings.speed),
    }


def _futures(n_ranks: int, settings: Settings) -> dict[str, float]:
    return _named(
        run_peer(FUTURES, "executor", n_ranks - 1, _parameters(settings, n_ranks, SIZES)), n_ranks
    )


def _mpims(n_ranks: int, settings: Settings) -> dict[str, float]:
    command = [*mpirun(n_ranks), "-m", "benchmarks.peers.mpims_executor"]
    return _named(run_program(command, "executor", _parameters(settings, n_ranks, [])), n_ranks)


def _named(figures: dict[str, float], n_ranks: int) -> dict[str, float]:
    return {_column(name, n_ranks): value for name, value in figures.items()}


def _targets(table: Table) -> list[Target]:
    asked = [("round trips", 5), ("map", 1), ("GB/s", 5)]
    targets = [
        at_least(table, _column(name, n), factor, FUTURES, f"{_WHAT[name]}, {n} ranks")
        for n in RANKS
        for name, factor in asked
    ]
    return targets + [_beside_singly(table, n) for n in RANKS]


def _beside_singly(table: Table, n_ranks: int) -> Target:
    """Automatic chunks beside single calls of the other."""
    asked = f"map with chunks of its own, {n_ranks} ranks: at least 20 times {FUTURES} with chunksize=1"
    own = table.median(MPIMS, _column("map", n_ranks))
    other = table.median(FUTURES, _column("singly", n_ranks))
    if own is None or other is None:
        return Target(asked, "not measured", None)
    return Target(asked, f"{own / other:.1f}", own / other >= 20)
