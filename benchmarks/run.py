"""Measure mpims beside its peers: ``python -m benchmarks.run`` in the environment of the benchmarks.

In every round each tool runs once, one after another, so that a machine that grows slower or faster
does so for all of them. A tool that fails is reported with its reason and left out of the rounds to
come; nothing stops for it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import environment, plot, report
from benchmarks.case import Case, Run, Table
from benchmarks.cases import MAKERS, make_case
from benchmarks.children import DidNotRun
from benchmarks.peers.measure import WrongAnswer
from benchmarks.tools import COMMANDS, LIMIT, Settings
from benchmarks.work import steps_per_second

HERE = Path(__file__).resolve().parent
CHECK = "check"
"""Figures whose name ends so are sums of results: all tools must agree."""
TOLERANCE = 1e-9


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--case", default=",".join(MAKERS), metavar="a,b,...", help="the cases; default all: %(default)s")
    add("--peers", metavar="NAME,...", help=f"the peers beside mpims and the limit: {', '.join(peers())}")
    add("--repeat", type=int, default=3, metavar="N", help="rounds; default %(default)s")
    add("--quick", action="store_true", help="one short round, to see that everything runs")
    add("--output", type=Path, metavar="DIR", help="where RESULTS.md and the plot go; default benchmarks/, "
        "for a quick run a new folder")  # fmt: skip
    add("--scratch", type=Path, metavar="DIR", help="where runs leave their results for a moment")
    found = parser.parse_args(arguments)
    for key in found.case.split(","):
        if key not in MAKERS:
            parser.error(f"no case {key!r}: there are {', '.join(MAKERS)}")
    for name in (found.peers or "").split(",") if found.peers else ():
        if name not in peers():
            parser.error(f"no peer {name!r}: there are {', '.join(peers())}")
    if found.repeat < 1:
        parser.error(f"--repeat wants at least 1, found {found.repeat}")
    return found


def peers() -> list[str]:
    """The tools that mpims is compared with."""
    return [tool for tool in COMMANDS if tool != LIMIT]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and give 1 if a target was missed or could not be measured."""
    asked = parse(arguments)
    if asked.scratch:
        tempfile.tempdir = str(asked.scratch.resolve())
    left_out = set(peers()) - set(asked.peers.split(",")) if asked.peers else set()
    for package in ("benchmarks", "mpims"):  # as an installed one is
        compileall.compile_dir(HERE.parent / package, quiet=2)
    settings = Settings(speed=steps_per_second(), folder=Path(tempfile.gettempdir()), quick=asked.quick)
    n_rounds = 1 if asked.quick else asked.repeat
    outcomes = []
    for key in asked.case.split(","):
        case = make_case(key, settings)
        outcomes.append((case, measure(case, n_rounds, left_out)))
    output = asked.output or (Path(tempfile.mkdtemp(prefix="mpims-bench-quick-")) if asked.quick else HERE)
    output.mkdir(parents=True, exist_ok=True)
    missing = json.loads(environment.NOTE.read_text())["missing"] if environment.NOTE.exists() else {}
    (output / "RESULTS.md").write_text(report.results_text(outcomes, settings, n_rounds, missing))
    plot.draw(outcomes, output / report.PLOT)
    targets = [target for case, table in outcomes for target in case.targets(table)]
    for target in targets:
        print(f"{report.verdict(target).strip('*'):3}  {target.asked}: {target.measured}")
    print(f"results in {output / 'RESULTS.md'}")
    return 0 if asked.quick or all(target.met for target in targets) else 1


def measure(case: Case, n_rounds: int, left_out: set[str]) -> Table:
    """All rounds of a case."""
    table = Table()
    began = time.monotonic()
    print(f"({case.key}) {case.title}", flush=True)
    for number in range(1, min(n_rounds, case.most_rounds) + 1):
        for run in case.runs:
            if run.tool not in left_out and run.tool not in table.failures:
                measure_once(run, table)
        print(f"    round {number}: {time.monotonic() - began:.0f} s", flush=True)
    refuse_different(table)
    return table


def measure_once(run: Run, table: Table) -> None:
    """Run a tool once, and note its figures, or why there are none."""
    began = time.monotonic()
    try:
        figures = run.measure()
    except DidNotRun as error:
        table.failures[run.tool] = str(error)
    except WrongAnswer as error:
        table.failures[run.tool] = f"wrong answer: {error}"
    else:
        table.add(run.tool, figures)
        shown = ", ".join(f"{name} {value:.6g}" for name, value in figures.items())
        print(f"    {run.tool:24} {time.monotonic() - began:5.1f} s  {shown}", flush=True)
        return
    print(f"    {run.tool:24} {table.failures[run.tool]}", flush=True)


def refuse_different(table: Table) -> None:
    """Take away the figures of tools whose results add up to something else than those of the others."""
    names = {name for found in table.figures.values() for name in found if name.endswith(CHECK)}
    for name in names:
        sums = {tool: table.median(tool, name) for tool in table.figures if table.values(tool, name)}
        right = sorted(sums.values())[len(sums) // 2]
        for tool, found in sums.items():
            if abs(found - right) > TOLERANCE * abs(right):
                table.failures[tool] = f"wrong answer: results add up to {found!r}, elsewhere to {right!r}"
                table.figures.pop(tool, None)


if __name__ == "__main__":
    sys.exit(main())
