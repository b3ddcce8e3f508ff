"""What a death costs, and what the journal costs.

* From the SIGKILL of a worker to the moment another rank begins an item that it held.
* From the SIGKILL of rank 0 to the next commit, by the journal of the master that takes over.
* The journal's share of a run with 10 ms chunks: the time spent in it over the wall time, and wall
  times with it and without it, interleaved.

Everything is measured from outside, on real processes of this host; medians and the worst of RUNS
runs. Run with ``python benchmarks/recovery.py``; needs an MPI with ULFM for the first two.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mandelbrot import launched

from mpims.launch import find_launcher
from mpims.processes import Process, boot_id, send_signal
from mpims.storage.records import RecordKind
from mpims.storage.replay import read_journal

RUNS = int(os.environ.get("RUNS", "15"))
TARGET_WORKER_S = 0.1
TARGET_MASTER_S = 1.0
TARGET_JOURNAL = 0.02
LIMIT_S = 60

JOB = """
import os, time
import numpy as np
import mpims

class Logged(mpims.Job):
    n: int = 600
    block = 1

    def items(self):
        return self.n

    def setup(self):
        self.log = open(f"begun-{os.getpid()}", "ab", buffering=0)

    def kernel(self, items):
        self.log.write(b"%d %.6f\\n" % (items[0], time.time()))
        time.sleep(0.01)
        return np.asarray(items, float)
"""


def start(folder: Path) -> tuple[subprocess.Popen[bytes], dict[int, Process]]:
    """Start the job on three ranks; wait until all have joined and work."""
    (folder / "job.py").write_text(JOB)
    command = [sys.executable, "-m", "mpims", "run", "job.py", "-n", "3", "--run-dir", "run", "--quiet"]
    run = subprocess.Popen([*command, "--policy", "SS"], cwd=folder)
    manifest = folder / "run" / "manifest.json"
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        time.sleep(0.02)
        ranks = json.loads(manifest.read_text()).get("ranks", {}) if manifest.exists() else {}
        if len(ranks) == 3:
            time.sleep(0.5)
            return run, {int(rank): Process.from_dict(ranks[rank]) for rank in ranks}
    raise SystemExit("the ranks did not join")


def finish(run: subprocess.Popen[bytes]) -> None:
    """Wait for a run that must succeed."""
    if run.wait(LIMIT_S):
        raise SystemExit(f"the run ended with status {run.returncode}")


def begun(folder: Path, pid: int) -> list[tuple[int, float]]:
    """The items that a rank began, with the times."""
    lines = (folder / f"begun-{pid}").read_text().splitlines()
    return [(int(item), float(at)) for item, at in map(str.split, lines)]


def worker_recovery_s() -> float:
    """Kill a worker; seconds until another begins the item that it was in."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, ranks = start(folder)
        killed_at = time.time()
        send_signal(ranks[1], signal.SIGKILL)
        finish(run)
        interrupted = begun(folder, ranks[1].pid)[-1][0]
        again = [
            at
            for pid in folder.glob("begun-*")
            for item, at in begun(folder, int(pid.name[6:]))
            if item == interrupted and at > killed_at
        ]
        return min(again) - killed_at


def master_recovery_s() -> float:
    """Kill rank 0; seconds until the journal has a commit of the next master."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, ranks = start(folder)
        send_signal(ranks[0], signal.SIGKILL)
        killed_at = time.perf_counter()
        while not has_new_commit(folder / "run" / "journal"):
            if time.perf_counter() - killed_at > LIMIT_S:
                raise SystemExit("nobody took over")
            time.sleep(1e-3)
        took_s = time.perf_counter() - killed_at
        finish(run)
        return took_s


def has_new_commit(journal: Path) -> bool:
    """Whether there is a commit behind the second OPENED."""
    n_opened = 0
    for record in read_journal(journal, boot_id()).records:
        n_opened += record.kind is RecordKind.OPENED
        if n_opened > 1 and record.kind is RecordKind.DONE:
            return True
    return False


def measure_journal(is_on: bool) -> None:
    """On each rank: 10 ms chunks for a few seconds; rank 0 prints wall time and time in the journal."""
    import numpy as np

    import mpims
    from mpims.storage.checkpoint import Checkpoint
    from mpims.storage.journal import Journal

    class Short(mpims.Job):
        block = 1

        def items(self):
            return 800

        def kernel(self, items):
            stop = time.perf_counter() + 0.01
            while time.perf_counter() < stop:
                pass
            return np.asarray(items, float)

    spent = [0.0]

    def timed(function):
        def call(*arguments, **options):
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[0] += time.perf_counter() - began

        return call

    for name in ("commit", "assigned", "note", "poll"):
        setattr(Checkpoint, name, timed(getattr(Checkpoint, name)))
    if not is_on:
        Journal.append = lambda *arguments: None  # type: ignore[method-assign]
        Journal.poll = lambda *arguments: None  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        outcome = mpims.run(Short(), policy="SS", run_dir=Path(folder) / "run", quiet=True)
    if outcome is not None:
        print(json.dumps([outcome.summary["wall_s"], spent[0]]))


def main() -> int:
    """Measure, print, and compare with what is asked."""
    if len(sys.argv) > 1:
        measure_journal(sys.argv[1] == "on")
        return 0
    missed = []
    if find_launcher().ulfm:
        for what, measure, target in (
            ("a worker's SIGKILL to its item begun elsewhere", worker_recovery_s, TARGET_WORKER_S),
            ("rank 0's SIGKILL to the next commit", master_recovery_s, TARGET_MASTER_S),
        ):
            seconds = [measure() for _ in range(RUNS)]
            median, worst = statistics.median(seconds), max(seconds)
            print(f"{what}: median {median * 1e3:.0f} ms, worst of {RUNS} {worst * 1e3:.0f} ms", flush=True)
            missed += [what] if median > target else []
    program = [str(Path(__file__).resolve())]
    pairs = [[json.loads(launched(3, [*program, how])) for how in ("on", "off")] for _ in range(5)]
    share = statistics.median(spent / wall for (wall, spent), _ in pairs)
    ratio = statistics.median(on / off for (on, _), (off, _) in pairs)
    print(
        f"journal with 10 ms chunks: {share:.2%} of the wall time is spent in it; "
        f"with it over without it: {ratio:.3f}"
    )
    missed += ["the journal's cost"] if share > TARGET_JOURNAL else []
    if missed:
        print("above its target: " + ", ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
