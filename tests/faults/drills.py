"""Random drills, many of them: ``python -m tests.faults.drills --runs 500 --seed 1``.

Each draws a job, a number of ranks and the faults from its seed. One that does not come out as an
undisturbed run is told at once, with its seed, the command that repeats it, and where its files are.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mpims.drill.plan import draw_plan
from mpims.drill.play import Drill
from mpims.drill.report import DrillOutcome, Ending, injection_line
from mpims.launch import find_launcher
from tests.conftest import clean_environment
from tests.faults.chaos import JOB, KINDS


@dataclass(frozen=True, slots=True)
class Draw:
    """What is run for one seed."""

    seed: int
    job: str
    n_ranks: int
    options: tuple[str, ...]

    @classmethod
    def of(cls, seed: int) -> Draw:
        """Draw it."""
        random = Random(-seed)
        options = [f"--timeout={random.choice([1, 2])}", f"--chunk=1:{random.choice([1, 8, 100])}"]
        options.append(f"--policy={random.choice(['SS', 'FAC2', 'GSS', 'STATIC'])}")
        options += [f"--set=n={random.choice([100, 400, 700])}", f"--set=ms={random.choice([1, 4])}"]
        return cls(seed, random.choice(KINDS), random.randint(2, 5), tuple(options))

    def key(self) -> str:
        """What the bits depend on."""
        return " ".join([self.job, *(option for option in self.options if option.startswith("--set=n="))])


class Drills:
    """Random drills in one folder, and the undisturbed runs that they are held to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "x.py").write_text(JOB)
        self._undisturbed: dict[str, Ending] = {}

    def prepare(self, draws: list[Draw]) -> None:
        """Make the undisturbed runs."""
        for draw in draws:
            if draw.key() not in self._undisturbed:
                ending = self._drill(draw, f"undisturbed-{len(self._undisturbed)}").undisturbed()
                assert not ending.error, ending.error
                self._undisturbed[draw.key()] = ending

    def _drill(self, draw: Draw, name: str) -> Drill:
        folder = self._folder / name
        folder.mkdir()
        job = f"{self._folder / 'x.py'}:{draw.job}"
        return Drill([job, *draw.options], draw.n_ranks, folder, environ=clean_environment())

    def play(self, draw: Draw) -> str:
        """Run one; give what is to be told of it, nothing if it came out right."""
        plan = draw_plan(draw.seed, draw.n_ranks, for_ever=True)
        before = self._undisturbed[draw.key()]
        name = f"seed-{draw.seed}"
        after, injections = self._drill(draw, name).disturbed(plan, before.wall_s)
        outcome = DrillOutcome(draw.job, draw.n_ranks, before, after, injections)
        if not outcome.damage:
            shutil.rmtree(self._folder / name)
            return ""
        job = f"{self._folder / 'x.py'}:{draw.job}"
        command = [
            "mpims",
            "drill",
            job,
            "-n",
            str(draw.n_ranks),
            *draw.options,
            "--random",
            str(draw.seed),
        ]
        return "\n".join(
            [
                f"seed {draw.seed}: {outcome.damage}",
                *map(injection_line, injections),
                f"  files {self._folder / name}",
                f"  again python -m {shlex.join(command)}",
            ]
        )


def main() -> int:
    """Run the drills; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--at-a-time", type=int, default=2)
    arguments = parser.parse_args()
    if not find_launcher().ulfm:
        print("this MPI ends a run when a rank dies (no ULFM): there is nothing to drill")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="mpims-chaos-"))
    draws = [Draw.of(seed) for seed in range(arguments.seed, arguments.seed + arguments.runs)]
    drills, n_failed, began = Drills(folder), 0, time.monotonic()
    drills.prepare(draws)
    with ThreadPoolExecutor(arguments.at_a_time) as pool:
        under_way = [pool.submit(drills.play, draw) for draw in draws]
        for n_over, future in enumerate(as_completed(under_way), 1):
            told = future.result()
            if told:
                n_failed += 1
                print(told, flush=True)
            if n_over % 50 == 0:
                print(f"{n_over} of {len(draws)} after {time.monotonic() - began:.0f} s", flush=True)
    if not n_failed:
        shutil.rmtree(folder)
    print(f"{len(draws) - n_failed} of {len(draws)} gave the bits of an undisturbed run")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
