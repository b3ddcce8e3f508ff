"""(j) How fast the simulator is."""

import json
import sys
import time
from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_most
from benchmarks.children import run
from benchmarks.tools import MPIMS, Figures, Settings

N_WORKERS = 64
N_RUNS = 4
LEAST = 200_000
MANY_WORKERS = 100_000
MOST_S = 30.0
ONE, SEVERAL, MANY = "one", "several", "many"
count = "{:,.0f}".format


def make(settings: Settings) -> Case:
    """Make the case."""
    n = settings.choose(1_000_000, 20_000)
    n_many = settings.choose(MANY_WORKERS, 2_000)
    return Case(
        key="j",
        title="The simulator",
        how=(
            "`mpims simulate --policy SS`, exponential items of 1 s. Hand-outs a second of one run of "
            f"{n:,} items on {N_WORKERS} workers, and of {N_RUNS} runs of {n // N_RUNS:,} items, simulated "
            f"side by side, one for each core; the seconds for one run of {10 * n_many:,} items on "
            f"{n_many:,} workers. The whole command, with its start."
        ),
        runs=[Run(MPIMS, partial(_measure, n, n_many))],
        views=[
            View("hand-outs/s", {ONE: "one run", SEVERAL: f"{N_RUNS} runs"}, count),
            View("seconds", {MANY: f"{n_many:,} workers"}, "{:.1f}".format),
        ],
        targets=partial(_targets, n_many),
    )


def _measure(n: int, n_many: int) -> Figures:
    one, one_s = _simulate(n, N_WORKERS, 1)
    several, several_s = _simulate(n // N_RUNS, N_WORKERS, N_RUNS)
    return {
        ONE: one / one_s,
        SEVERAL: several / several_s,
        MANY: _simulate(10 * n_many, n_many, 1)[1],
    }


def _simulate(n_items: int, n_workers: int, n_runs: int) -> tuple[float, float]:
    """Simulate; give the hand-outs of all runs, and the seconds it took."""
    options = {"policy": "SS", "items": n_items, "workers": n_workers, "repeat": n_runs, "overhead": 1e-5}
    began = time.monotonic()
    text = run(
        [sys.executable, "-m", "mpims", "simulate", "--json", *(f"--{k}={v}" for k, v in options.items())],
        {},
    )
    seconds = time.monotonic() - began
    (row,) = json.loads(text)["rows"]
    return row["n_chunks"] * n_runs, seconds


def _targets(n_many: int, table: Table) -> list[Target]:
    targets = []
    for name, what in ((ONE, "one simulated run"), (SEVERAL, f"{N_RUNS} simulated runs")):
        rate = table.median(MPIMS, name)
        measured = ("not measured", None) if rate is None else (count(rate), rate >= LEAST)
        targets.append(Target(f"{what}: at least {LEAST:,} hand-outs a second", *measured))
    seconds = table.median(MPIMS, MANY)
    return [*targets, at_most(seconds, MOST_S, f"{n_many:,} simulated workers", "{:.1f} s".format)]
