"""``mpims tour``: some seconds of real work, checked, and what it says of this machine."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import mpims
from mpims.errors import ExitStatus, RunFailed
from mpims.leading import run_master
from mpims.loading import JobSource
from mpims.options import RunOptions
from mpims.report.wording import counted, duration
from mpims.session import connect
from mpims.streams import show
from mpims.supervise import temporary_files


class Julia(mpims.Job):
    """Escape times of a Julia set, one image row per item: rows differ much in what they cost."""

    width: int = 1500
    height: int = 1000
    limit: int = 400

    def items(self) -> int:
        """The rows."""
        return self.height

    def kernel(self, rows: range) -> Any:
        """Iterate ``z = z**2 + c`` on the points that have not escaped."""
        x = np.linspace(-1.6, 1.6, self.width)
        y = np.linspace(-1.1, 1.1, self.height)[rows.start : rows.stop]
        z = (x[None, :] + 1j * y[:, None]).ravel()
        count = np.full(z.size, self.limit, np.int32)
        alive = np.arange(z.size)
        for step in range(self.limit):
            z = z * z + (-0.8 + 0.156j)
            inside = z.real**2 + z.imag**2 <= 4.0
            count[alive[~inside]] = step
            z, alive = z[inside], alive[inside]
        return count.reshape(len(rows), self.width)


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "tour",
        help="try this installation: some seconds of work, checked (the default command)",
        description="Compute a small picture on all ranks, check it against a serial run, and say how fast "
        "it was and what to try next.",
    )
    parser.set_defaults(command=tour_command)


def tour_command(arguments: argparse.Namespace) -> int:
    """Take the tour; give the exit status."""
    transport = connect(share=False)
    n_ranks = 1 if transport is None else transport.size
    show(f"mpims {mpims.__version__}, Python {sys.version.split()[0]}, NumPy {np.__version__}")
    show(f"MPI: {transport.library() if transport else 'not in use, this is one process'}")
    show(f"ranks: {n_ranks}, cores here: {len(os.sched_getaffinity(0))}")
    job = Julia()
    # Other nodes share this folder rather than /tmp.
    parent = os.getcwd() if n_ranks > 1 and os.access(".", os.W_OK) else None
    with temporary_files():
        scratch = tempfile.TemporaryDirectory(prefix="mpims-tour-", dir=parent)
    with scratch as folder:
        options = RunOptions(run_dir=Path(folder) / "run", quiet=True)
        outcome = run_master(job, options, transport, JobSource(__name__, Julia.__name__, None))
        summary = outcome.summary
        began = time.perf_counter()
        serial = np.concatenate([job.kernel(range(row, row + 1)) for row in range(job.height)])
        serial_s = time.perf_counter() - began
        same = bool(np.array_equal(outcome.value, serial))
    wall_s = summary["wall_s"]
    show(f"\n{job!r}: {counted(summary['n_items'], 'item')} in {counted(summary['n_chunks'], 'chunk')}")
    show(f"farmed out   {duration(wall_s)}")
    show(f"serial       {duration(serial_s)}")
    show(f"the results  {'are the same, bit for bit' if same else 'DIFFER'}")
    if n_ranks > 1:
        show(
            f"speed-up {serial_s / wall_s:.2f} with {counted(n_ranks - 1, 'worker')}; "
            f"workers busy {summary['efficiency']:.0%} of the time"
        )
    if not same:
        raise RunFailed(
            "the farmed result differs from the serial one: please report this machine and its MPI"
        )
    show("\nNext:")
    if n_ranks == 1:
        show("  mpirun -n 3 python -m mpims          the same on three ranks")
        show(
            "                                       (Open MPI's on fewer cores: mpirun --oversubscribe ...)"
        )
    show("  python -m mpims --help               what a job looks like, and all commands")
    show("  python -m mpims run x.py -n 3        your own job on three ranks of this machine")
    return ExitStatus.DONE
