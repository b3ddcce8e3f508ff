"""(f) What the master burns while it waits."""

from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_most
from benchmarks.tools import COMMANDS, MPIMS, Settings, run_mpims, run_peer

N_WORKERS = 2
ITEM_S = 0.05
percent = "{:.2%}".format


def make(settings: Settings) -> Case:
    """Make the case."""
    n = settings.choose(400, 16)  # so many that its start and its end count little
    runs = [Run(tool, partial(_peer, tool, n, settings.speed)) for tool in COMMANDS]
    runs.append(Run(MPIMS, partial(_mpims, n, settings.speed)))
    return Case(
        key="f",
        title="The waiting master",
        how=(
            f"{n} items of {ITEM_S * 1e3:g} ms, handed out singly to {N_WORKERS} workers on as many cores: "
            "seconds on a core of the process that hands out and takes in, over the time it took (dask: "
            "client and scheduler). What ray's daemons burn beside that is not in it."
        ),
        runs=runs,
        views=[View("share of a core", {"share": "share of a core"}, percent, is_log=True, limit=0.01)],
        targets=_targets,
    )


def _peer(tool: str, n: int, speed: float) -> dict[str, float]:
    parameters = {"n": n, "item_s": ITEM_S, "speed": speed}
    return run_peer(tool, "waiting", N_WORKERS, {**parameters, "n_workers": N_WORKERS})


def _mpims(n: int, speed: float) -> dict[str, float]:
    parameters = {"n": n, "item_s": ITEM_S, "speed": speed}
    return run_mpims("Even", N_WORKERS, _read, "--policy", "SS", settings=parameters)


def _read(run) -> dict[str, float]:
    return {"share": run.summary["master_cpu_s"] / run.summary["wall_s"]}


def _targets(table: Table) -> list[Target]:
    return [at_most(table.median(MPIMS, "share"), 0.01, "waiting master, chunks of 50 ms", percent)]
