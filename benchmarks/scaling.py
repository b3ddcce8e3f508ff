"""Everything in docs/scaling.md: what a hand-out costs the master, what follows, what the simulator says.

Prints the tables as Markdown and draws docs/scaling.png. Run with ``python -m benchmarks.scaling`` on a
machine where nothing else runs; some ten minutes on two cores. ``--quick`` sees that all of it runs;
``--single`` and ``--batched`` give the service times that the later tables are for, in place of those
measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "scaling.png"
LIMIT_S = 300

JOB = '''
import time

import numpy as np

import mpims


class Nothing(mpims.Job):
    """Items that wait."""

    n: int = 200_000
    wait_s: float = 0.0

    output = mpims.Gather()
    block = 1

    def items(self):
        return self.n

    def kernel(self, items):
        if self.wait_s:
            time.sleep(self.wait_s)
        return np.zeros(len(items))
'''
MANY = 17
"""Ranks whose chunks of 2 ms, each in its own message, follow each other fast; they sleep."""
WORK = (
    ("nothing: many travel in one message", 0.0, 200_000, (2, 3)),
    ("2 ms", 0.002, 2_000, (2, 3)),
    ("10 ms", 0.01, 600, (2, 3)),
    ("50 ms", 0.05, 120, (2, 3)),
    (f"2 ms, on {MANY - 1} workers", 0.002, 20_000, (MANY,)),
)
CHUNKS_S = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
SIMULATED_S = (0.01, 0.1, 1.0, 10.0)
WORKERS = (100, 1_000, 10_000, 100_000)
N_CHUNKS = 300_000


def mpims(*arguments: str) -> str:
    """Run a command; give its standard output."""
    command = [sys.executable, "-m", "mpims", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: status {done.returncode}\n{done.stderr}")
    return done.stdout


def measure(folder: Path, wait_s: float, n_items: int, n_ranks: int) -> tuple[float, float, float]:
    """Seconds a chunk of a real run: the master's processor time, its service time, and the wall time."""
    run = folder / f"{wait_s}-{n_ranks}-{len(list(folder.iterdir()))}"
    work = ["--set", f"wait_s={wait_s}", "--set", f"n={n_items}"]
    mpims(
        "run",
        str(folder / "nothing.py"),
        "--policy",
        "SS",
        "-n",
        str(n_ranks),
        "--run-dir",
        str(run),
        *work,
    )
    summary = json.loads((run / "summary.json").read_text())
    what_if = json.loads(
        mpims("simulate", "--dist", f"trace:{run}", "--policy", "SS", "--workers", "1", "--json")
    )
    n_chunks = summary["n_chunks"]
    return summary["master_cpu_s"] / n_chunks, what_if["service_s"], summary["wall_s"] / n_chunks


def measured(n_rounds: int, scale: float) -> dict[int, list[tuple[float, float, float]]]:
    """Measure in interleaved rounds, and print the table; give all figures by the row of `WORK`."""
    found: dict[int, list[tuple[float, float, float]]] = {row: [] for row in range(len(WORK))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "nothing.py").write_text(JOB)
        for _ in range(n_rounds):
            for row, (_, wait_s, n_items, ranks) in enumerate(WORK):
                for n_ranks in ranks:
                    found[row].append(measure(folder, wait_s, max(20, int(n_items * scale)), n_ranks))
    print("## What a hand-out costs the master: least, median and most, in microseconds\n")
    print("| a chunk takes | processor time | service time | wall time |\n|---|---|---|---|")
    for row, (label, *_) in enumerate(WORK):
        cells = [
            f"{min(of) * 1e6:.3g} to **{statistics.median(of) * 1e6:.3g}** to {max(of) * 1e6:.3g}"
            for of in zip(*found[row], strict=True)
        ]
        print(f"| {label} | {' | '.join(cells)} |")
    return found


def one_digit_up(seconds: float) -> float:
    """The next number with one digit: on the safe side."""
    scale = 10.0 ** math.floor(math.log10(seconds))
    return math.ceil(seconds / scale - 1e-9) * scale


def say_what_follows(services_s: list[float]) -> None:
    """The formula's table."""
    print("\n## Workers at which the master is busy all the time, (t + s) / s\n")
    print(f"| chunk | {' | '.join(f's = {s * 1e6:g} µs' for s in services_s)} |\n|---|---|---|")
    for t in CHUNKS_S:
        print(f"| {t:g} s | {' | '.join(f'{int((t + s) / s + 1e-9):,}' for s in services_s)} |")


def simulate(case: tuple[float, float, int, int]) -> dict[str, Any]:
    """One simulated run; its row."""
    service_s, mean_s, n_workers, n_items = case
    options = {"policy": "SS", "dist": "uniform", "items": n_items, "mean": mean_s}
    options |= {"service": service_s, "workers": n_workers}
    text = mpims("simulate", "--json", *[f"--{name}={value}" for name, value in options.items()])
    row: dict[str, Any] = json.loads(text)["rows"][0]
    return row


def say_what_is_simulated(services_s: list[float], n_items: int) -> None:
    """The simulator's table."""
    lines = [(s, t) for s in services_s for t in SIMULATED_S]
    cases = [(s, t, n, n_items) for s, t in lines for n in WORKERS]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = dict(zip(cases, pool.map(simulate, cases), strict=True))
    print(f"\n## Efficiency, and the share of time in which the master is busy; {n_items:,} chunks, SS\n")
    print(
        f"| s | chunk | {' | '.join(f'{n:,} workers' for n in WORKERS)} |\n|{'---|' * (2 + len(WORKERS))}"
    )
    for s, t in lines:
        cells = []
        for n in WORKERS:
            row = rows[s, t, n, n_items]
            load = f"{row['master_load']:.0%}"
            efficiency = f"{row['efficiency']:.0%}" if row["efficiency"] >= 0.01 else "< 1%"
            cells.append(
                f"{efficiency}, **{load}**" if row["master_load"] > 0.9 else f"{efficiency}, {load}"
            )
        print(f"| {s * 1e6:g} µs | {t:g} s | {' | '.join(cells)} |")


def draw(service_s: float, scale: float) -> None:
    """The picture of docs/scaling.md, and its rows as a table."""
    n_items = int(200_000 * scale)
    command = ["simulate", "--policy", "SS", "--policy", "FAC2", "--policy", "auto", "--dist", "uniform"]
    command += ["--items", str(n_items), "--mean", "0.01", "--service", f"{service_s!r}"]
    command += ["--workers", "10,20,50,100,200,500,1000,2000", "--plot", str(PICTURE)]
    print(f"\n## The picture: {' '.join(command[:-1])} docs/scaling.png\n\n```\n{mpims(*command)}```")


def main() -> int:
    """Measure, work out, simulate, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that all of it runs")
    parser.add_argument("--rounds", type=int, default=3, help="of the measurements; default 3")
    parser.add_argument("--single", type=float, help="seconds that a chunk in its own message costs")
    parser.add_argument("--batched", type=float, help="seconds that one of many in a message costs")
    options = parser.parse_args()
    scale = 0.02 if options.quick else 1.0
    found = measured(1 if options.quick else options.rounds, scale)
    batched, single = (
        statistics.median(service_s for _, service_s, _ in found[row]) for row in (0, len(WORK) - 1)
    )
    services_s = [options.batched or one_digit_up(batched), options.single or one_digit_up(single)]
    say_what_follows(services_s)
    say_what_is_simulated(services_s, int(N_CHUNKS * scale))
    draw(services_s[1], scale)
    return 0


if __name__ == "__main__":
    sys.exit(main())
