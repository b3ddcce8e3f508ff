"""Blocks in a child that is a new Python: what is there, what it says, and what a mistake in it is."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mpims
from mpims.core.chunks import Care
from mpims.errors import UsageError
from mpims.loading import make_job, pack_parameters, read_source
from mpims.options import RunOptions
from mpims.runtime.computing import Computing
from mpims.runtime.isolation import BlockDied, BlockDone, BlockRaised, IsolatedBlocks
from mpims.runtime.spawnedchild import Order, order_of_job
from mpims.world import without_world

LIMIT_S = 30

pytestmark = pytest.mark.timeout(2 * LIMIT_S)

HEAD = """
import os, sys
import numpy as np
import mpims

class Own(mpims.Job):
    n: int = 6

    def items(self):
        return [10 * i for i in range(self.n)]

    def setup(self):
        self.owner = os.getpid()
"""


def outcomes(order, blocks):
    found = []
    until = time.monotonic() + LIMIT_S
    with IsolatedBlocks(order, blocks) as child:
        assert not child.is_ready
        while not child.over:
            assert time.monotonic() < until, f"nothing of {child.current} after {LIMIT_S} s"
            outcome = child.poll(0.2)
            if outcome is not None:
                found.append(outcome)
                assert child.is_ready or not isinstance(outcome, BlockDone)
    return found


@pytest.fixture
def order_for(tmp_path):
    """The order for a job with that body after `setup`."""

    def make(body, prints=None, **parameters) -> Order:
        path = tmp_path / "own.py"
        path.write_text(HEAD + body)
        source = read_source(str(path))
        job = make_job(source, parameters)
        job._seed = 7
        return order_of_job(job, source, pack_parameters(job), prints)

    return make


def test_it_computes_what_the_rank_would_in_a_process_that_set_up_the_job_itself(order_for):
    order = order_for(
        "    def kernel(self, items):\n"
        "        assert os.getpid() == self.owner\n"
        "        return np.array([x + self.rng(i).integers(9) for x, i in zip(items, self.indices)])\n",
        n=8,
    )
    found = outcomes(order, [(0, 3), (3, 4), (7, 8)])
    assert [(type(o), o.start, o.stop) for o in found] == [
        (BlockDone, 0, 3),
        (BlockDone, 3, 4),
        (BlockDone, 7, 8),
    ]
    job = make_job(*order.arguments[:2])
    job._seed = 7
    expected = [10 * i + job.rng(i).integers(9) for i in (0, 1, 2, 3, 7)]
    assert np.concatenate([o.results for o in found]).tolist() == expected


class Local(mpims.Job):
    """A job that no file has: of a program."""

    factor: float = 2.0
    start_method = "spawn"

    def items(self):
        return 4

    def kernel(self, items):
        return np.asarray(items) * self.factor


def test_a_job_of_a_program_travels_with_its_parameters():
    class Here(Local):
        def kernel(self, items):
            return -super().kernel(items)

    (outcome,) = outcomes(order_of_job(Here(factor=3.0), None, None, None), [(1, 3)])
    assert outcome.results.tolist() == [-3.0, -6.0]


IN_SETUP, IN_KERNEL = "        {}\n", "    def kernel(self, items):\n        {}\n"
NOT_BEGUN = "a new process for it could not begin:"
LEFT = "left with exit status 4 (os._exit, exit() in C, STOP in Fortran)"


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (
            IN_SETUP.format("raise ValueError('no card')"),
            BlockRaised,
            f"{NOT_BEGUN} ValueError: no card",
        ),
        (IN_SETUP.format("sys.exit(3)"), BlockRaised, f"{NOT_BEGUN} SystemExit: 3"),
        (IN_SETUP.format("os._exit(4)"), BlockDied, LEFT),
        (IN_SETUP.format("os.kill(os.getpid(), 9)"), BlockDied, "killed by signal 9 (SIGKILL)"),
        (IN_KERNEL.format("raise KeyError(items[0])"), BlockRaised, "KeyError: 20"),
        (IN_KERNEL.format("os.kill(os.getpid(), 11)"), BlockDied, "killed by signal 11 (SIGSEGV)"),
    ],
)
def test_what_goes_wrong_is_the_first_blocks_fault(order_for, body, kind, reason):
    (outcome,) = outcomes(order_for(body), [(2, 3), (3, 4)])
    assert (type(outcome), outcome.start, outcome.stop, outcome.reason) == (kind, 2, 3, reason)


def test_what_it_prints_goes_where_the_ranks_prints_go(order_for, tmp_path):
    body = "        print('ready')\n    def task(self, item):\n        print('got', item)\n"
    outcomes(
        order_for(body, prints=(tmp_path / "output" / "rank-3.txt", "rank 3 (node)")), [(0, 1), (1, 3)]
    )
    head, *lines = (tmp_path / "output" / "rank-3.txt").read_text().splitlines()
    assert head.startswith("--- rank 3 (node), process ")
    assert lines == ["setup: ready", "items [0, 1): got 0", "items [1, 2): got 10", "items [2, 3): got 20"]


def test_a_module_beside_the_job_and_one_on_the_programs_path_are_found(order_for, tmp_path, monkeypatch):
    (tmp_path / "beside_the_job.py").write_text("one = 1\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "on_the_path.py").write_text("two = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.chdir("/")
    body = (
        "    def kernel(self, items):\n        import beside_the_job, on_the_path\n"
        "        return [beside_the_job.one + on_the_path.two] * len(items)\n"
    )
    (outcome,) = outcomes(order_for(body), [(0, 1)])
    assert outcome.results == [3]


def test_it_has_the_ranks_arguments_and_reads_nothing_of_what_the_rank_would(order_for):
    body = "    def task(self, item):\n        return sys.argv, sys.stdin.read()\n"
    (outcome,) = outcomes(order_for(body), [(0, 1)])
    assert outcome.results == [(sys.argv, "")]


def test_it_can_be_begun_where_low_descriptors_are_free(order_for, tmp_path):
    """As in a rank whose standard input is closed: those of the child may have their numbers already."""
    order = order_for("    def task(self, item):\n        return item\n")
    kept = {number: os.dup(number) for number in (0, 3) if Path(f"/proc/self/fd/{number}").exists()}
    try:
        for number in kept:
            os.close(number)
        (outcome,) = outcomes(order, [(1, 2)])
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
    assert outcome.results == [10]


def test_one_that_does_not_begin_is_killed_with_its_rank_or_before(order_for):
    child = IsolatedBlocks(order_for("        import time\n        time.sleep(1000)\n"), [(0, 1)])
    pid = child._pid
    assert child.poll(0.5) is None
    assert not child.is_ready
    child.kill()
    assert not Path(f"/proc/{pid}").exists()


def test_mpi_is_alone_in_it():
    environ = {
        "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_MCA_btl": "self",
        "PMIX_NAMESPACE": "x",
        "PMI_RANK": "3",
        "HOME": "/h",
    }
    assert without_world(environ) == {
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_MCA_btl": "self",
        "HOME": "/h",
    }


def test_a_start_method_that_is_none_is_refused():
    class Wrong(Local):
        start_method = "forkserver"

    with pytest.raises(
        mpims.UsageError, match="start_method must be 'fork' or 'spawn', found 'forkserver'"
    ):
        mpims.run(Wrong())


# ------------------------------------------------- what raises in a fork, and may not in a new Python

FORKED = "os.getpid() != self.owner"


def computed_in_isolation(order, n=4, how=None, patience_s=LIMIT_S):
    """What a rank says of `n` blocks that are to be computed in isolation, in two attempts, and how."""
    job = make_job(*order.arguments[:2])
    job.setup()
    ways, said = [], []

    class Noting(Computing):
        def _new_child(self, attempt):
            child = super()._new_child(attempt)
            ways.append("fork" if child.is_forked else "spawn")
            return child

        def _block_done(self, attempt, start, stop, results, busy_s, is_ours=False):
            said.append((start, list(results)))
            super()._block_done(attempt, start, stop, results, busy_s, is_ours)

        def _block_failed(self, attempt, computed, reason, detail):
            said.append((computed[0], reason))
            super()._block_failed(attempt, computed, reason, detail)

    computing = Noting(
        job,
        job.items(),
        1,
        RunOptions(),
        send=lambda kind, head, buffers: None,
        ping=lambda: None,
        patience_s=lambda: patience_s,
        order=how or (lambda start, stop: order),
    )
    computing.add([(1, 0, n // 2, Care.ISOLATED), (2, n // 2, n, Care.ISOLATED)])
    until = time.monotonic() + LIMIT_S
    while computing.has_work:
        assert time.monotonic() < until
        computing.compute()
    return said, ways


@pytest.mark.parametrize(
    ("body", "said", "ways"),
    [
        pytest.param(
            f"if {FORKED}:\n            raise OSError('no device')\n        return items",
            [(0, [0]), (1, [10]), (2, [20]), (3, [30])],
            ["fork", "spawn", "spawn"],
            id="it is the fork's fault, and known to be from then on",
        ),
        pytest.param(
            "if items[0] < 30:\n            raise OSError('bad item')\n        return items",
            [(0, "OSError: bad item"), (1, "OSError: bad item"), (2, "OSError: bad item"), (3, [30])],
            ["fork", "spawn", "fork", "fork", "fork"],
            id="it is the items' fault, and the fork's in no case",
        ),
        pytest.param(
            f"if {FORKED}:\n            raise OSError('no device')\n        if items[0] == 0:\n"
            "            os.kill(os.getpid(), 9)\n        return items",
            [(0, "killed by signal 9 (SIGKILL)"), (1, [10]), (2, [20]), (3, [30])],
            ["fork", "spawn", "fork", "spawn", "spawn"],
            id="it is both",
        ),
    ],
)
def test_what_raises_in_a_fork_is_tried_in_a_new_python(order_for, body, said, ways):
    order = order_for("    def kernel(self, items):\n        " + body + "\n", n=4)
    assert computed_in_isolation(order) == (said, ways)


@pytest.mark.parametrize(
    ("hangs", "said", "ways"),
    [
        (FORKED, [(0, [0]), (1, [10])], ["fork", "spawn", "spawn"]),
        ("items[0] == 0", [(0, "no answer for 0.6 s: killed"), (1, [10])], ["fork", "spawn", "fork"]),
    ],
)
def test_so_is_what_hangs_in_a_fork(order_for, hangs, said, ways):
    body = f"import time\n        while {hangs}:\n            time.sleep(1)\n        return items"
    order = order_for("    def kernel(self, items):\n        " + body + "\n", n=2)
    assert computed_in_isolation(order, n=2, patience_s=0.6) == (said, ways)


def test_what_raised_is_told_where_the_new_python_cannot_begin(order_for):
    body = "    def kernel(self, items):\n        raise OSError('bad item')\n"
    order = order_for(body, n=2)
    source = order.arguments[0]._replace(text="raise SystemError('not twice')\n")
    broken = order._replace(arguments=(source, *order.arguments[1:]))
    said, ways = computed_in_isolation(order, n=2, how=lambda start, stop: broken)
    assert said == [(0, "OSError: bad item"), (1, "OSError: bad item")]
    assert ways == ["fork", "spawn", "fork"]


def test_a_job_that_cannot_be_pickled_is_computed_in_forks(order_for):
    def refuse(start, stop):
        raise UsageError("it has a lock")

    order = order_for("    def kernel(self, items):\n        raise OSError('bad item')\n", n=2)
    said, ways = computed_in_isolation(order, n=2, how=refuse)
    assert said == [(0, "OSError: bad item"), (1, "OSError: bad item")]
    assert ways == ["fork", "fork", "fork"]
