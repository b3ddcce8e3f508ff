"""(e) A rank three times slower than the rest."""

from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_most
from benchmarks.peers.measure import over_ideal_speeds
from benchmarks.tools import COMMANDS, MPIMS, Settings, run_mpims, run_peer
from benchmarks.work import SLOW_FACTOR

N_WORKERS = 2
ITEM_S = 5e-3
ratio = "{:.3f}".format


def make(settings: Settings) -> Case:
    """Make the case."""
    n = settings.choose(600, 100)
    runs = [Run(tool, partial(_peer, tool, n, settings.speed)) for tool in COMMANDS]
    runs.append(Run(MPIMS, partial(_mpims, n, settings.speed)))
    return Case(
        key="e",
        title="A slow rank",
        how=(
            f"{n} items of {ITEM_S * 1e3:g} ms on {N_WORKERS} workers, of which one does every item "
            f"{SLOW_FACTOR} times. 1 is the ideal: each worker is busy to the end, at the mean seconds per "
            "item that it showed in the run. The clocks are those of case d. Peers hand out singly, mpims "
            "has its defaults and is not told which rank is slow."
        ),
        runs=runs,
        views=[
            View(
                "time over the ideal",
                {"core": "seconds on a core", "busy": "seconds in the kernel"},
                ratio,
                limit=1.0,
            )
        ],
        targets=_targets,
    )


def _peer(tool: str, n: int, speed: float) -> dict[str, float]:
    parameters = {"n": n, "item_s": ITEM_S, "speed": speed}
    return run_peer(tool, "slow", N_WORKERS, {**parameters, "n_workers": N_WORKERS})


def _mpims(n: int, speed: float) -> dict[str, float]:
    parameters = {"n": n, "item_s": ITEM_S, "speed": speed, "is_slow": True}
    return run_mpims("Even", N_WORKERS, _read, settings=parameters)


def _read(run) -> dict[str, float]:
    return over_ideal_speeds(run.summary["wall_s"], run.result, N_WORKERS)


def _targets(table: Table) -> list[Target]:
    return [at_most(table.median(MPIMS, "busy"), 1.06, "one slow rank: time over the ideal", ratio)]
