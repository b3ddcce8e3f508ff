"""``mpims simulate``: what a policy, a machine or more ranks would do, on a virtual clock."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from mpims.cli.counts import parse_items
from mpims.core.policies import POLICIES
from mpims.core.policies.base import LONGEST_S
from mpims.drill.plan import Moment, parse_slow
from mpims.errors import ExitStatus, UsageError
from mpims.parameters import parse_integer
from mpims.report.wording import counted
from mpims.simulator.costs import Costs, Distribution, check_size, draw_costs, trace_costs
from mpims.simulator.machine import DETECTION_S, MAX_WORKERS, Machine
from mpims.simulator.plot import check_path, plot_rows
from mpims.simulator.recording import record_run
from mpims.simulator.study import ALL, Row, Study, run_study
from mpims.simulator.table import number, saturation_lines, table_lines
from mpims.storage.manifest import check_traced
from mpims.storage.rundir import MANIFEST, read_json
from mpims.storage.trace import read_trace
from mpims.streams import show

DESCRIPTION = """\
Let the real scheduler run on a virtual clock, and say how long the run would take, how much of the
workers' time is wasted, and how busy the master is.

  mpims simulate                    all policies, 10,000 items of 1 s, 8 workers
  mpims simulate --policy FAC2 --policy GSS --workers 16,64,256 --overhead 1e-3
  mpims simulate --dist trace:runs/x-20260101-120000 --workers 2,4,8,16
  mpims simulate --policy all --fail 3@40% --slow 2:3x --plot policies.png

The items' times are drawn from a distribution, or are those that a run recorded; then the service time of
its master is known, too. By default workers and scheduler do what they do in a run: a worker holds its
next chunk while it computes one, and at the end the idle take over what others have left. --classic
leaves both out, which is the model of the literature on policies.
"""
EPILOG = """\
wasted time: makespan less a worker's share of the sum of all items' times; efficiency: that share over the
makespan; master: the share of the time in which the master is busy; wait: of a result, for the master
"""

_TRACE = "trace:"


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "simulate",
        help="try policies and numbers of ranks on a virtual clock",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.set_defaults(command=simulate_command)
    _add_work(parser)
    _add_machine(parser)
    add = parser.add_argument
    add("--repeat", type=int, default=1, metavar="R", help="runs, each with other times; default 1")
    add("--seed", type=int, default=0, metavar="S", help="seed of the times; default 0")
    add(
        "--processes",
        type=int,
        metavar="N",
        help="processes that simulate, each one run at a time; default: one for each core",
    )
    add("--json", action="store_true", help="print everything as JSON, and nothing else")
    add("--plot", type=Path, metavar="FILE.png", help="draw wasted time and efficiency (needs matplotlib)")
    add(
        "--trace",
        type=Path,
        metavar="DIR",
        help="leave a run directory for `mpims report` (of one policy on one number of workers)",
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--policy",
        dest="policies",
        action="append",
        metavar="NAME",
        help="a policy as for `mpims run` (again for more); mean, deviation, overhead and weights need not "
        "be given; default all: every policy that needs nothing more",
    )
    add(
        "--items",
        type=parse_items,
        metavar="N",
        help="number of items; default 10000, or those of the trace",
    )
    add("--block", type=int, metavar="B", help="items of a kernel call; default 1, or that of the trace")
    add(
        "--dist",
        default="exponential",
        metavar="NAME",
        help="the items' times: exponential (default), gamma, uniform, constant, or trace:RUN, those that "
        "the run in that directory recorded",
    )
    add("--mean", type=float, metavar="SECONDS", help="mean time of an item; default 1")
    add(
        "--cov",
        type=float,
        metavar="C",
        help="standard deviation over mean, for gamma (default 1) and uniform (default 0.5, at most 0.577)",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workers", default="8", metavar="P[,P...]", help="number of workers, or several; default 8")
    for name, text in (
        ("overhead", "what each chunk costs its worker before the kernel begins; default 0"),
        ("service", "what each hand-out costs the master; default 0, or what the trace has measured"),
        ("latency", "how long a message is under way; default 0"),
    ):
        add(f"--{name}", type=float, metavar="SECONDS", help=text)
    add(
        "--fail",
        dest="deaths",
        action="append",
        default=[],
        type=parse_fail,
        metavar="RANK@40%",
        help="let a rank die when so much is done, or RANK@90s at that time (again for each)".replace(
            "%", "%%"
        ),
    )
    add(
        "--detection",
        type=float,
        default=DETECTION_S,
        metavar="SECONDS",
        help=f"until the master knows of a death; default {DETECTION_S:g}",
    )
    add(
        "--slow",
        action="append",
        default=[],
        type=parse_slow,
        metavar="RANK:3x",
        help="let a rank take three times as long (again for each)",
    )
    add(
        "--classic",
        action="store_true",
        help="no chunk held in advance, nothing taken over at the end, chunks delivered whole",
    )


def parse_fail(text: str) -> tuple[int, Moment]:
    """The death of ``--fail RANK@40%`` or ``--fail RANK@90s``.

    Raises
    ------
    UsageError
        It is anything else.
    """
    match = re.fullmatch(r"(\d+)@(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(%|s?)", text)
    if match is None:
        raise UsageError(f"--fail wants RANK@40% or RANK@90s, found {text!r}")
    rank, value, unit = int(match[1]), float(match[2]), match[3]
    if rank == 0:
        raise UsageError(
            f"--fail {text}: rank 0 hands out here; `mpims drill --kill 0@40%` kills it for real"
        )
    if unit == "%" and value > 100:
        raise UsageError(f"--fail {text}: there are no {value:g}% of the items, at most 100%")
    if unit != "%" and value > LONGEST_S:
        raise UsageError(f"--fail {text}: a time wants {LONGEST_S:g} seconds at the most")
    return rank, Moment(share=value / 100) if unit == "%" else Moment(after_s=value)


# ------------------------------------------------------------------------------- run


def simulate_command(arguments: argparse.Namespace) -> int:
    """Simulate and show; give the exit status."""
    if arguments.plot is not None:
        check_path(arguments.plot)
    if arguments.repeat < 1:
        raise UsageError(f"--repeat wants at least 1, found {arguments.repeat}")
    if arguments.seed < 0:
        raise UsageError(f"--seed wants at least 0, found {arguments.seed}")
    n_processes = _n_processes(arguments.processes)
    work = _Work(arguments)
    study = _study(arguments, work)
    if arguments.trace is not None:
        record_run(study, work.draw(0), arguments.trace)
    rows = run_study(study, work.draw, n_processes)
    if arguments.json:
        about = work.about | _about(study)
        show(json.dumps({**about, "rows": [_plain(row) for row in rows]}, indent=2))
    else:
        width = shutil.get_terminal_size((200, 24)).columns
        lines = [work.line, _machine_line(study), *table_lines(rows, width)]
        lines += saturation_lines(rows, study.machine.service_s, width)
        show("\n".join([*lines, *_left_out(study, rows)]))
    if arguments.plot is not None:
        plot_rows(rows, f"{work.line}\n{_machine_line(study)}", arguments.plot)
    return ExitStatus.DONE


def _machine_line(study: Study) -> str:
    machine = study.machine
    model = "classic model" if study.classic else "as in a run"
    runs = f"; means of {study.n_runs} runs" if study.n_runs > 1 else ""
    return (
        f"a hand-out costs the worker {number(machine.overhead_s)} s and the master "
        f"{number(machine.service_s)} s; messages take {number(machine.latency_s)} s; {model}{runs}"
    )


def _left_out(study: Study, rows: Sequence[Row]) -> list[str]:
    """Where all policies were asked for: those that lacked something, and how to have them as well."""
    if not any(text.lower() == ALL for text in study.policies):
        return []
    shown = {row.policy.partition(":")[0] for row in rows}
    examples = [
        policy.example(study.n_workers[0]) for name, policy in POLICIES.items() if name not in shown
    ]
    return [f"Left out, for they need more: {', '.join(examples)}"] if examples else []


class _Work:
    """The items, as they were asked for or recorded."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._seed: int = arguments.seed
        self.service_s = 0.0
        self.draw: Callable[[int], Costs]
        if arguments.dist.startswith(_TRACE):
            self._from_trace(arguments)
        else:
            self._from_distribution(arguments)

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, index])

    def _from_distribution(self, arguments: argparse.Namespace) -> None:
        n_items = 10_000 if arguments.items is None else arguments.items
        block = 1 if arguments.block is None else arguments.block
        check_size(n_items, block)
        mean_s = 1.0 if arguments.mean is None else arguments.mean
        distribution = Distribution.named(arguments.dist, mean_s, arguments.cov)
        _seconds("mean", mean_s, mean_s)
        self.draw = lambda index: draw_costs(distribution, n_items, block, self._random(index))
        sigma_s = distribution.cov * mean_s
        self._describe(distribution.shape.value, n_items, block, mean_s, sigma_s)

    def _from_trace(self, arguments: argparse.Namespace) -> None:
        for name in ("items", "block", "mean", "cov"):
            if getattr(arguments, name) is not None:
                raise UsageError(f"--{name} is known from the trace: leave it out")
        folder = Path(arguments.dist.removeprefix(_TRACE))
        manifest = read_json(folder / MANIFEST)
        check_traced(manifest, folder)
        n_items, block = manifest["n_items"], manifest["block"]
        parts = read_trace(folder).parts
        costs = trace_costs(parts, n_items, block, self._random(0))
        # Times within a part of several blocks are drawn again for each run, all else is as recorded.
        self.draw = lambda index: trace_costs(parts, n_items, block, self._random(index))
        self.service_s = float(parts["service_s"].mean())
        self._describe(f"as {folder.name} recorded", n_items, block, costs.mean_s, costs.sigma_s)

    def _describe(self, what: str, n_items: int, block: int, mean_s: float, sigma_s: float) -> None:
        self.about = {
            "items": n_items,
            "block": block,
            "dist": what,
            "mean_s": mean_s,
            "sigma_s": sigma_s,
            "seed": self._seed,
        }
        blocks = f" in blocks of {block:,}" if block > 1 else ""
        items = f"{counted(n_items, 'item')}{blocks}, {what}"
        self.line = f"{items}: mu = {number(mean_s)} s, sigma = {number(sigma_s)} s"


def _study(arguments: argparse.Namespace, work: _Work) -> Study:
    n_workers = _numbers(arguments.workers)
    slowness = {fault.rank: fault.factor for fault in arguments.slow}
    if len(slowness) < len(arguments.slow):
        raise UsageError("--slow is given twice for a rank: give one factor for each")
    deaths = dict(arguments.deaths)
    if len(deaths) < len(arguments.deaths):
        raise UsageError("--fail is given twice for a rank: it dies only once")
    for option, ranks in (("--fail", deaths), ("--slow", slowness)):
        for rank in ranks:
            if not 1 <= rank <= min(n_workers):
                raise UsageError(f"{option} {rank}: the ranks that compute are 1 to {min(n_workers)}")
    machine = Machine(
        n_workers=n_workers[0],
        overhead_s=_seconds("overhead", arguments.overhead, 0.0),
        service_s=_seconds("service", arguments.service, work.service_s),
        latency_s=_seconds("latency", arguments.latency, 0.0),
        detection_s=_seconds("detection", arguments.detection, DETECTION_S),
        slowness=slowness,
        deaths=arguments.deaths,
    )
    return Study(
        policies=arguments.policies or [ALL],
        n_workers=n_workers,
        machine=machine,
        classic=arguments.classic,
        n_runs=arguments.repeat,
    )


def _numbers(text: str) -> list[int]:
    """The numbers of workers in ``2,4,8``, each once."""
    try:
        numbers = [parse_integer(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if not all(1 <= number <= MAX_WORKERS for number in numbers):
        raise UsageError(
            f"--workers wants numbers from 1 to {MAX_WORKERS:,}, as in 8,16,32, found {text!r}"
        )
    return list(dict.fromkeys(numbers))


def _n_processes(asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise UsageError(f"--processes wants at least 1, found {asked}")
    return asked or len(os.sched_getaffinity(0))


def _seconds(name: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if not (isfinite(value) and value >= 0):
        raise UsageError(f"--{name} wants seconds of at least 0, found {value:g}")
    if value > LONGEST_S:
        raise UsageError(f"--{name} wants {LONGEST_S:g} seconds at the most, found {value:g}")
    return value


def _about(study: Study) -> dict[str, Any]:
    """The options that are the same for all rows."""
    machine = asdict(study.machine)
    names = ("overhead_s", "service_s", "latency_s", "detection_s", "slowness")
    return {
        **{name: machine[name] for name in names},
        "deaths": [f"{rank}@{moment}" for rank, moment in study.machine.deaths],
        "classic": study.classic,
        "n_runs": study.n_runs,
    }


def _plain(row: Row) -> dict[str, Any]:
    """A row as JSON can have it, which knows no infinity."""
    return {
        key: None if isinstance(value, float) and not isfinite(value) else value
        for key, value in asdict(row).items()
    }
