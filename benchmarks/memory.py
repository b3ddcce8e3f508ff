"""The master's memory against the number of items: a thousand, and a thousand million.

Run with ``python benchmarks/memory.py``; takes half a minute on two cores.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from mandelbrot import launched

TARGET_MB = 150

JOB = """
import resource
import numpy as np
import mpims

class Count(mpims.Job):
    n: int = 1000
    output = mpims.Reduce(np.add)

    def items(self):
        return self.n

    def kernel(self, items):
        return np.arange(items.start, items.stop, dtype=np.int64)

    def finish(self, result):
        assert int(result) == self.n * (self.n - 1) // 2
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mb(n_items: int, folder: Path) -> float:
    """The peak of the master's resident memory, in MB."""
    job = folder / "count.py"
    job.write_text(JOB)
    run_dir = folder / f"run-{n_items}"
    arguments = ["run", str(job), "--set", f"n={n_items}", "--run-dir", str(run_dir), "--quiet"]
    return float(launched(3, ["-m", "mpims", *arguments]))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        peaks = {n: peak_mb(n, Path(name)) for n in (1000, 10**6, 10**9)}
    for n, peak in peaks.items():
        print(f"{n:>13,} items: master's peak memory {peak:.1f} MB")
    over = peaks[10**9] - peaks[1000]
    print(f"10^9 items over an empty run: {over:.1f} MB (asked: below {TARGET_MB} MB)")
    sys.exit(0 if over < TARGET_MB else 1)


if __name__ == "__main__":
    main()
