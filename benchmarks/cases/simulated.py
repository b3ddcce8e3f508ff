"""(j) How fast the simulator is."""

import json
import sys
import time
from functools import partial

from benchmarks import environment
from benchmarks.case import Case, Run, Table, Target, View, at_most
from benchmarks.children import DidNotRun, run
from benchmarks.tools import MPIMS, Figures, Settings

N_WORKERS = 64
N_RUNS = 4
LEAST = 200_000
MANY_WORKERS = 100_000
MOST_S = 30.0
ONE, SEVERAL, MANY = "one", "several", "many"
COMPILED = "mpims, compiled"
PROGRAM = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('mpims', run_name='__main__')"
)
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
            f"{n_many:,} workers. The whole command, with its start. A second time as it is with "
            "`MPIMS_COMPILE=1 pip install`."
        ),
        runs=[
            Run(MPIMS, partial(_measure, ["-m", "mpims"], n, n_many)),
            Run(COMPILED, partial(_measure_compiled, n, n_many)),
        ],
        views=[
            View("hand-outs/s", {ONE: "one run", SEVERAL: f"{N_RUNS} runs"}, count),
            View("seconds", {MANY: f"{n_many:,} workers"}, "{:.1f}".format),
        ],
        targets=partial(_targets, n_many),
    )


def _measure_compiled(n: int, n_many: int) -> Figures:
    if not environment.COMPILED.exists():
        raise DidNotRun("it could not be compiled; make bench says why")
    return _measure(["-c", PROGRAM, str(environment.COMPILED)], n, n_many)


def _measure(program: list[str], n: int, n_many: int) -> Figures:
    one, one_s = _simulate(program, n, N_WORKERS, 1)
    several, several_s = _simulate(program, n // N_RUNS, N_WORKERS, N_RUNS)
    return {
        ONE: one / one_s,
        SEVERAL: several / several_s,
        MANY: _simulate(program, 10 * n_many, n_many, 1)[1],
    }


def _simulate(program: list[str], n_items: int, n_workers: int, n_runs: int) -> tuple[float, float]:
    """Simulate; give the hand-outs of all runs, and the seconds it took."""
    options = {"policy": "SS", "items": n_items, "workers": n_workers, "repeat": n_runs, "overhead": 1e-5}
    command = [*program, "simulate", "--json", *(f"--{name}={value}" for name, value in options.items())]
    began = time.monotonic()
    text = run([sys.executable, *command], {})
    seconds = time.monotonic() - began
    (row,) = json.loads(text)["rows"]
    return row["n_chunks"] * n_runs, seconds


def _targets(n_many: int, table: Table) -> list[Target]:
    targets = []
    for tool, how in ((MPIMS, ""), (COMPILED, ", compiled")):
        for name, what in ((ONE, f"one simulated run{how}"), (SEVERAL, f"{N_RUNS} simulated runs{how}")):
            rate = table.median(tool, name)
            measured = ("not measured", None) if rate is None else (count(rate), rate >= LEAST)
            targets.append(Target(f"{what}: at least {LEAST:,} hand-outs a second", *measured))
        seconds = table.median(tool, MANY)
        what = f"{n_many:,} simulated workers{how}"
        targets.append(at_most(seconds, MOST_S, what, "{:.1f} s".format))
    return targets
