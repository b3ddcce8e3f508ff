"""Law 1 on real ranks: the shipped jobs and some hard cases give the bits of a serial run."""

from __future__ import annotations

import re
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mpims
from mpims.core.policies import POLICIES
from mpims.leading import run_master
from mpims.loading import load_job_class, read_source
from mpims.options import RunOptions
from mpims.runtime import sharing
from mpims.session import connect
from tests.unit.test_run import Mixed, Product, Words

mpi4py = pytest.importorskip("mpi4py")

ROOT = Path(__file__).resolve().parent.parent.parent


class Sum32(mpims.Job):
    """A float32 sum of a million items: another order of the additions gives other bits."""

    n: int = 1_000_000
    block = 1000
    output = mpims.Reduce(np.add)

    def items(self):
        return self.n

    def kernel(self, items):
        return np.sin(np.arange(items.start, items.stop, dtype=np.float32))


class Matrices(mpims.Job):
    """A product of matrices: does not commute, and is not associative in its last bits."""

    n: int = 3000
    block = 7
    output = mpims.Reduce(np.matmul)

    def items(self):
        return self.n

    def kernel(self, items):
        angles = np.arange(items.start, items.stop) * 0.1
        rows = [[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]
        return np.ascontiguousarray(np.moveaxis(np.array(rows), 2, 0))


def shipped(name: str, **parameters) -> mpims.Job:
    """A job from `jobs/`, small."""
    return load_job_class(read_source(str(ROOT / "jobs" / f"{name}.py")))(**parameters)


JOBS = {
    "mandelbrot": lambda: shipped("mandelbrot", width=60, height=40, limit=50),
    "pi": lambda: shipped("pi", samples=200, points=500),
    "tokens": lambda: shipped("tokens", folder=ROOT / "mpims" / "core"),
    "sweep": lambda: shipped("sweep", n_rho=5, n_sigma=7, longest=0.2),
    "sum32": Sum32,
    "product": Product,
    "matrices": Matrices,
    "words": Words,
    "mixed": Mixed,
}


@cache
def digest_alone(name: str) -> str:
    """The digest of a serial run."""
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(run_dir=Path(folder) / "alone", quiet=True)
        return run_master(JOBS[name](), options, None).summary["result_digest"]


def run_on_ranks_and_alone(name: str, policy: str) -> None:
    """Run on all ranks, and on rank 0 alone, and compare."""
    make_job = JOBS[name]
    if connect() is None or connect().rank == 0:
        with tempfile.TemporaryDirectory() as folder:
            outcome = mpims.run(make_job(), policy=policy, quiet=True, run_dir=Path(folder) / "all")
            assert outcome.summary["result_digest"] == digest_alone(name)
            assert outcome.summary["status"] == "done"
    else:
        assert mpims.run(make_job(), policy=policy, quiet=True) is None


@pytest.mark.mpi
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("policy", ["STATIC", "SS", "CSS:3", "GSS", "FAC2", "AF"])
def test_same_bits_as_alone(name, policy):
    run_on_ranks_and_alone(name, policy)


@pytest.mark.mpi
@pytest.mark.parametrize("technique", POLICIES.values(), ids=POLICIES)
def test_same_bits_under_any_policy(technique):
    n_workers = max(1, connect().size - 1) if connect() is not None else 1
    run_on_ranks_and_alone("sum32", technique.example(n_workers))


@pytest.mark.mpi(min_size=2)
def test_every_rank_raises_what_the_master_raises():
    class Failing(mpims.Job):
        def items(self):
            return 50

        def task(self, item):
            return 1 // (item - 30)

    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(mpims.RunFailed, match="ZeroDivisionError") as caught:
            mpims.run(Failing(), run_dir=Path(folder) / "run", quiet=True)
        assert "return 1 // (item - 30)" in caught.value.detail
        # and the next run is not disturbed by what was under way
        run_on_ranks_and_alone("words", "SS")


@pytest.mark.mpi(min_size=2)
def test_ranks_with_different_jobs_are_found():
    class Slow(Words):  # or the others would be done before rank 1 is there
        def task(self, item):
            time.sleep(0.01)
            return str(item)

    job = Slow(n=300 + (connect().rank == 1))
    with tempfile.TemporaryDirectory() as folder, pytest.raises(mpims.UsageError, match="job differs"):
        mpims.run(job, run_dir=Path(folder) / "run", quiet=True)


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("is_long", [True, False])
def test_a_run_directory_of_one_node_is_told_of(is_long, monkeypatch, capfd):
    class Timed(Words):
        def task(self, item):
            time.sleep(0.1 if is_long else 0.0)
            return str(item)

    transport = connect()
    monkeypatch.setattr(sharing, "_PATIENCE_S", 0.5)
    if transport.rank == transport.size - 1:
        monkeypatch.setattr(transport, "host", "elsewhere")
        monkeypatch.setattr(sharing, "_holds_run", lambda folder, run_id: False)
    told = rf"is not the same on rank {transport.size - 1} \(elsewhere\): put it on"
    with tempfile.TemporaryDirectory() as folder:
        if is_long:
            with pytest.raises(mpims.UsageError, match=told):
                mpims.run(Timed(n=100), run_dir=Path(folder) / "run", quiet=True)
        else:
            mpims.run(Timed(n=100), run_dir=Path(folder) / "run", quiet=True)
            if transport.rank == 0:
                said = capfd.readouterr().err
                assert re.search("mpims: done without a rank that could not begin: .*" + told, said)


def test_each_rank_of_a_host_has_a_number_of_its_own():
    world = mpi4py.MPI.COMM_WORLD
    found = world.allgather((mpi4py.MPI.Get_processor_name(), mpims.local_rank()))
    for host in {host for host, _ in found}:
        numbers = sorted(number for name, number in found if name == host)
        assert numbers == list(range(len(numbers)))
