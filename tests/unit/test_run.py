"""Whole runs within one process: alone, and over the local transport with ranks as threads."""

from __future__ import annotations

import faulthandler
import json
import resource
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mpims
from mpims import session
from mpims.core.policies import POLICIES
from mpims.core.scheduler import Scheduler
from mpims.core.tree import fold
from mpims.digest import digest
from mpims.errors import RunFailed, UsageError
from mpims.leading import run_master
from mpims.options import RunOptions
from mpims.outcome import Outcome
from mpims.record import RunRecord
from mpims.report.summary import summary_lines
from mpims.runtime.desk import Desk
from mpims.runtime.master import LONGEST_NAP_S, Master
from mpims.runtime.transport.local import LocalTransport, local_transports
from mpims.runtime.wire import Kind
from mpims.session import serve
from mpims.storage.results import read_result


class Sum32(mpims.Job):
    """A float32 sum whose last bits depend on the order."""

    n: int = 5000
    block = 37
    output = mpims.Reduce(np.add)

    def items(self):
        return self.n

    def kernel(self, items):
        return np.sin(np.arange(items.start, items.stop, dtype=np.float32))


class Words(mpims.Job):
    """A reduction that does not commute."""

    n: int = 300
    block = 4
    output = mpims.Reduce(lambda left, right: left + right)

    def items(self):
        return self.n

    def task(self, item):
        return f"{item},"


class Product(mpims.Job):
    """One BLAS product per block; last bits may depend on the shape of the call."""

    n: int = 200
    block = 13

    def items(self):
        return self.n

    def setup(self):
        self.matrix = np.random.default_rng(1).normal(size=(40, 40))

    def kernel(self, items):
        rows = np.stack([self.rng(i).normal(size=40) for i in items])
        return rows @ self.matrix


class Mixed(mpims.Job):
    """Python objects, gathered as a list; the items are strings."""

    n: int = 100

    def items(self):
        return [f"item {i}" for i in range(self.n)]

    def task(self, item):
        return {"item": item, "index": self.indices.start, "data": [1.5] * (self.indices.start % 5)}


JOBS = [Sum32, Words, Product, Mixed]


def on_threads(job_class: type[mpims.Job], n_ranks: int, folder: Path, **options: Any) -> Outcome:
    """Run a job with its ranks as threads of this process."""
    transports = local_transports(n_ranks)
    errors: list[BaseException] = []

    def work(transport):
        try:
            serve(transport, lambda start: job_class(**start.parameters))
        except mpims.MpimsError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in transports[1:]]
    for thread in threads:
        thread.start()
    try:
        return run_master(job_class(), RunOptions(run_dir=folder, quiet=True, **options), transports[0])
    finally:
        for thread in threads:
            thread.join(10)
            if thread.is_alive():
                faulthandler.dump_traceback()  # where each thread is
            assert not thread.is_alive(), f"a rank did not end: {errors}"


def alone(job: mpims.Job, folder: Path, **options: Any) -> Outcome:
    """Run a job in this process."""
    outcome = mpims.run(job, run_dir=folder, quiet=True, **options)
    assert outcome is not None
    return outcome


@pytest.mark.parametrize("job_class", JOBS)
def test_the_result_is_the_same_on_any_ranks_under_any_policy(job_class, tmp_path):
    expected = alone(job_class(), tmp_path / "alone").summary["result_digest"]
    for technique in POLICIES.values():
        for n_ranks in (2, 5):
            policy = technique.example(n_ranks - 1).replace("CSS:100", "CSS:7")
            folder = tmp_path / f"{technique.name}-{n_ranks}"
            outcome = on_threads(job_class, n_ranks, folder, policy=policy)
            assert outcome.summary["result_digest"] == expected, (policy, n_ranks)


def test_gathered_values_are_right(tmp_path):
    result = alone(Product(), tmp_path / "a").value
    job = Product()
    job.setup()
    expected = np.concatenate([job.kernel(range(i, min(i + 13, 200))) for i in range(0, 200, 13)])
    assert result.dtype == np.float64
    assert np.array_equal(result, expected)
    mixed = on_threads(Mixed, 3, tmp_path / "b").value
    assert [m["item"] for m in mixed] == Mixed().items()
    assert [m["index"] for m in mixed] == list(range(100))


def test_reduced_values_are_right(tmp_path):
    assert alone(Words(), tmp_path / "a").value == "".join(f"{i}," for i in range(300))
    total = alone(Sum32(), tmp_path / "b").value
    assert total.dtype == np.float32
    assert total == pytest.approx(np.sin(np.arange(5000)).sum(), rel=1e-3)


def test_what_a_run_leaves(tmp_path):
    class Slow(Product):  # or one rank would be done before the other is there
        def kernel(self, items):
            time.sleep(0.01)
            return super().kernel(items)

    outcome = on_threads(Slow, 3, tmp_path / "run", seed=5, policy="GSS")
    files = sorted(p.name for p in outcome.run_dir.iterdir())
    expected = "job.pkl journal manifest.json result.npy status.json summary.json trace"
    assert files == expected.split()
    assert np.array_equal(np.load(tmp_path / "run" / "result.npy"), outcome.value)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary == outcome.summary
    assert summary["result_digest"] == digest(outcome.value)
    assert summary["status"] == "done"
    assert (summary["n_items"], summary["n_ranks"], summary["policy"]) == (200, 3, "GSS")
    assert set(summary["busy_s"]) == {"1", "2"}
    assert 0 < summary["efficiency"] <= 1
    assert summary["imbalance"] >= 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["job"] == "Slow"
    assert manifest["parameters"] == {"n": 200}
    assert manifest["seed"] == 5
    assert manifest["versions"]["numpy"] == np.__version__
    assert set(manifest["ranks"]) == {"0", "1", "2"}


def test_the_seed_decides_the_random_numbers(tmp_path):
    digests = [
        alone(Product(), tmp_path / str(i), seed=seed).summary["result_digest"]
        for i, seed in enumerate([0, 0, 1])
    ]
    assert digests[0] == digests[1] != digests[2]


def test_in_a_program_parameters_may_be_of_any_kind(tmp_path):
    class Applied(mpims.Job):
        function: object = lambda item: 2 * item

        def items(self):
            return 3

        def task(self, item):
            return self.function(item)

    assert alone(Applied(function=lambda item: 3 * item), tmp_path / "run").value == [0, 3, 6]


def test_setup_may_change_the_parameters(tmp_path):
    class Doubled(mpims.Job):
        n: int = 3
        factor: int = 1

        def items(self):
            return self.n

        def setup(self):
            self.factor *= 2

        def task(self, item):
            return self.factor * item

    job = Doubled()
    outcome = alone(job, tmp_path / "first")
    assert (outcome.value, outcome.summary["job"]) == ([0, 2, 4], "Doubled(n=3, factor=1)")
    assert job.parameters == {"n": 3, "factor": 2}
    outcome = alone(job, tmp_path / "second")
    assert (outcome.value, outcome.summary["job"]) == ([0, 4, 8], "Doubled(n=3, factor=2)")


def test_setup_is_called_once_per_computing_rank_and_finish_once(tmp_path):
    calls = []

    class Counting(Sum32):
        def setup(self):
            calls.append(("setup", threading.current_thread().name))

        def finish(self, result):
            calls.append(("finish", self.run_dir.name, float(result)))

    outcome = on_threads(Counting, 4, tmp_path / "run")
    assert sorted(c[0] for c in calls) == ["finish", "setup", "setup", "setup"]
    assert len({c[1] for c in calls if c[0] == "setup"}) == 3
    assert calls[-1] == ("finish", "run", float(outcome.value))


def test_a_kernel_may_use_its_array_again(tmp_path):
    class Reusing(mpims.Job):
        block = 1

        def items(self):
            return 50

        def setup(self):
            self.row = np.zeros((1, 3))

        def kernel(self, items):
            self.row[:] = items.start
            return self.row

    class ReusingSum(Reusing):
        output = mpims.Reduce(np.add)

    for job, folder in ((Reusing(), "a"), (ReusingSum(), "b")):
        expected = np.repeat(np.arange(50.0), 3).reshape(50, 3)
        if isinstance(job, ReusingSum):
            expected = expected.sum(0)
        assert np.array_equal(alone(job, tmp_path / folder).value, expected)
        assert np.array_equal(on_threads(type(job), 3, tmp_path / (folder + "3")).value, expected)


@pytest.mark.parametrize("dtype", [">f4", "<i2", "M8[s]", [("a", ">i2"), ("b", "f8")]])
@pytest.mark.parametrize("scalars", [False, True])
def test_a_dtype_does_not_depend_on_the_chunks(dtype, scalars, tmp_path):
    class Typed(mpims.Job):
        def items(self):
            return 40

        def kernel(self, items):
            array = np.zeros(len(items), dtype)
            return list(array) if scalars else array

    class TypedRows(Typed):
        def kernel(self, items):
            return [np.zeros(3, dtype) for _ in items]

    for job_class in (Typed, TypedRows):
        for policy in ("SS", "STATIC", "FAC2"):
            folder = tmp_path / f"{job_class.__name__}-{policy}"
            value = on_threads(job_class, 3, folder, policy=policy).value
            of_scalars = scalars and job_class is Typed  # they have no byte order of their own
            assert value.dtype == (np.zeros(1, dtype)[0].dtype if of_scalars else dtype), policy


def test_results_of_different_shapes_make_a_list_if_asked(tmp_path):
    class Ragged(mpims.Job):
        output = mpims.Gather(dtype=object)

        def items(self):
            return 30

        def task(self, item):
            return np.ones(item % 3)

    class Unasked(Ragged):
        output = mpims.Gather()

    value = on_threads(Ragged, 3, tmp_path / "a").value
    assert [len(v) for v in value] == [i % 3 for i in range(30)]
    with pytest.raises(RunFailed, match=r"Gather\(dtype=object\)"):
        alone(Unasked(), tmp_path / "b")


def test_large_and_empty_results(tmp_path):
    class Large(mpims.Job):
        def items(self):
            return 6

        def kernel(self, items):
            return np.full((1, 700_000), items.start, np.float64)

    class Empty(mpims.Job):
        def items(self):
            return 6

        def kernel(self, items):
            return np.empty((1, 0, 3), np.int8)

    large = on_threads(Large, 3, tmp_path / "large").value
    assert large.shape == (6, 700_000)
    assert np.array_equal(large[:, 12345], np.arange(6.0))
    assert on_threads(Empty, 3, tmp_path / "empty").value.shape == (6, 0, 3)


def failing(body: dict[str, Any], **attributes: Any) -> type[mpims.Job]:
    """A job class from its methods."""
    methods = {"items": lambda self: 20, **body, **attributes}
    return type("Failing", (mpims.Job,), methods)


class Unsliceable:
    """A sequence that takes a slice for an index."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return [0, 0, 0]


class Closed(Unsliceable):
    """A sequence in a file that is closed."""

    def __len__(self):
        raise OSError("closed")


class Unprintable(Exception):
    """An exception without a text."""

    def __str__(self):
        raise RuntimeError("no text")


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda self, items: None, "returned None for 1 item:"),
        (lambda self, items: [1, 2], "returned 2 results for 1 item"),
        (lambda self, items: 3.5, "returned float 3.5 for 1 item:"),
        (lambda self, items: {1: 2}, "returned a dict"),
        (lambda self, items: np.float64(1), "returned float64"),
        (lambda self, items: np.ma.masked_array([1.0], [True]), "returned a masked array"),
        (lambda self, items: fail(BaseException("base")), "BaseException: base"),
        (lambda self, items: fail(Unprintable()), "Unprintable: (its text cannot be had)"),
        (lambda self, items: fail(ValueError("first\nsecond")), "failed: ValueError: first"),
        (lambda self, items: [1 // (items[0] - 11)], "ZeroDivisionError: integer"),
        (lambda self, items: np.zeros((1, 2 + (items[0] == 11))), "float64 of shape (3,) per item"),
        (
            lambda self, items: np.zeros((1, 2 + (items[0] == 11))),
            "Gather(dtype=object), which makes a list",
        ),
        (lambda self, items: np.zeros(1, "f4" if items[0] == 11 else "f8"), "float32 per item"),
        (lambda self, items: np.zeros(1, "i8" if items[0] == 11 else "f8"), "Gather(dtype='float64')"),
        (
            lambda self, items: np.array([str(items[0])], "U" if items[0] > 9 else "U3"),
            "Gather(dtype='U20')",
        ),
        (lambda self, items: ["x"] if items[0] == 11 else np.zeros(1), "Gather(dtype=object)"),
    ],
)
@pytest.mark.parametrize("n_ranks", [1, 3])
def test_a_wrong_kernel_ends_the_run_with_one_line(kernel, message, n_ranks, tmp_path):
    job_class = failing({"kernel": kernel})
    with pytest.raises(RunFailed) as caught:
        if n_ranks == 1:
            alone(job_class(), tmp_path / "run")
        else:
            on_threads(job_class, n_ranks, tmp_path / "run")
    assert message in caught.value.message
    assert "items [" in caught.value.message
    assert "rank " in caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "run" / "result.npy").exists()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_the_traceback_is_the_users(tmp_path):
    def kernel(self, items):
        raise KeyError("here")

    with pytest.raises(RunFailed) as caught:
        on_threads(failing({"kernel": kernel}), 2, tmp_path / "run")
    assert 'raise KeyError("here")' in caught.value.detail
    assert "worker.py" not in caught.value.detail


def test_of_a_long_text_the_last_line_has_the_begin_and_the_traceback_all(tmp_path):
    text = "x" * 5000

    def kernel(self, items):
        raise ValueError(text)

    with pytest.raises(RunFailed) as caught:
        alone(failing({"kernel": kernel})(), tmp_path / "run", retries=0)
    assert len(caught.value.message) < 600
    assert text in caught.value.detail


@pytest.mark.parametrize("n_ranks", [1, 3])
@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ({}, UsageError, "defines neither kernel(items) nor task(item)"),
        ({"items": lambda self: 0, "task": int}, UsageError, "has no items"),
        ({"items": lambda self: -3, "task": int}, UsageError, "items() gave -3"),
        ({"items": lambda self: (i for i in range(3)), "task": int}, UsageError, "gave a generator"),
        ({"items": lambda self: {1: 2}, "task": int}, UsageError, "gave a dict"),
        ({"items": lambda self: 10**19, "task": int}, UsageError, "gave a range"),
        ({"items": lambda self: np.array(3), "task": int}, UsageError, "gave a ndarray"),
        ({"items": lambda self: sys.exit(3), "task": int}, UsageError, "items() raised SystemExit: 3"),
        ({"items": lambda self: Unsliceable(), "task": int}, RunFailed, "items of a Unsliceable"),
        (
            {"items": lambda self: deque(range(3)), "task": int},
            UsageError,
            "gave a deque of which no slice can be taken (TypeError: sequence index must be integer, not",
        ),
        ({"items": lambda self: 1 / 0, "task": int}, UsageError, "items() raised ZeroDivisionError"),
        (
            {"items": lambda self: Closed(), "task": int},
            UsageError,
            "a Closed whose length raised OSError: closed",
        ),
        ({"block": 0, "task": int}, UsageError, "block must be a positive integer"),
        ({"output": mpims.Gather, "task": int}, UsageError, "output must be a mpims.Gather() or"),
        ({"output": np.add, "task": int}, UsageError, "a mpims.Reduce(function), found <ufunc 'add'>"),
        ({"setup": lambda self: 1 / 0, "task": int}, RunFailed, "setup() raised ZeroDivisionError"),
        ({"finish": lambda self, r: 1 / 0, "task": int}, RunFailed, "the result itself is whole"),
        ({"finish": lambda self, r: sys.exit(0), "task": int}, RunFailed, "finish() raised SystemExit: 0"),
    ],
)
def test_a_wrong_job_ends_the_run_with_one_line(body, error, message, n_ranks, tmp_path):
    if body.get("task") is int:
        body = {**body, "task": lambda self, item: item}
    job_class = failing(body)
    with pytest.raises(error) as caught:
        if n_ranks == 1:
            alone(job_class(), tmp_path / "run")
        else:
            on_threads(job_class, n_ranks, tmp_path / "run")
    assert message in caught.value.message


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_masks_go_through_a_reduction(n_ranks, tmp_path):
    class Masked(mpims.Job):
        output = mpims.Reduce(np.add)

        def items(self):
            return 40

        def task(self, item):
            return np.ma.masked_array([item / 7, 1.0, 2.0], mask=[False, item == 11, True])

    folder = tmp_path / "run"
    outcome = alone(Masked(), folder) if n_ranks == 1 else on_threads(Masked, n_ranks, folder)
    expected = fold([Masked().task(item) for item in range(40)], np.add)
    for value in (outcome.value, read_result(folder / "result.pkl")):
        assert value.mask.tolist() == [False, True, True]
        assert value.data.tobytes() == expected.data.tobytes()


def test_a_reduce_function_that_raises(tmp_path):
    def join(left, right):
        if right == 12:
            raise ValueError("twelve")
        return left + right

    job_class = failing(
        {"task": lambda self, item: item if item == 12 else 0}, output=mpims.Reduce(join), block=1
    )
    for n_ranks in (1, 3):
        with pytest.raises(RunFailed, match="ValueError: twelve"):
            on_threads(job_class, n_ranks + 1, tmp_path / str(n_ranks))


@pytest.mark.parametrize("n_ranks", [1, 3])
@pytest.mark.parametrize("block", [1, 4])
def test_a_reduce_function_that_would_end_the_process_has_failed(block, n_ranks, tmp_path):
    job_class = failing(
        {"task": lambda self, item: item}, output=mpims.Reduce(lambda left, right: sys.exit(0)), block=block
    )
    with pytest.raises(RunFailed, match="SystemExit: 0"):
        if n_ranks == 1:
            alone(job_class(), tmp_path / "run")
        else:
            on_threads(job_class, n_ranks, tmp_path / "run")


def test_items_that_differ_between_ranks(tmp_path):
    names = {}

    class Differing(mpims.Job):
        def items(self):
            number = names.setdefault(threading.current_thread().name, len(names))
            return ["a", "b", "c"] if number == 0 else ["a", "c", "b"]

        def task(self, item):
            return item

    with pytest.raises(UsageError, match=r"items\(\) differs between ranks.*another order"):
        on_threads(Differing, 2, tmp_path / "run")


def test_run_directory_errors(tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "something").write_text("")
    with pytest.raises(UsageError, match="is not empty"):
        alone(Words(), used)
    with pytest.raises(UsageError, match=r"cannot make run directory .*Not a directory"):
        alone(Words(), used / "something" / "run")


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_what_cannot_be_written_before_there_is_a_run_is_not_to_be_resumed(n_ranks, tmp_path):
    """What the lock needs fits into the limit, and the manifest does not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"cannot write .*/manifest\.json: .* and start the run again"):
            on_threads(Words, n_ranks, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert on_threads(Words, n_ranks, tmp_path / "run").summary["status"] == "done"


def test_the_master_sleeps_while_all_ranks_are_busy_but_not_for_long(tmp_path, monkeypatch):
    slacks = []

    def receive(transport, timeout_s, slack_s=0.0):
        slacks.append(slack_s)
        return of_before(transport, timeout_s, slack_s)

    of_before = LocalTransport.receive
    monkeypatch.setattr(LocalTransport, "receive", receive)
    monkeypatch.setattr(Scheduler, "slack_s", 5.0)
    on_threads(Sum32, 3, tmp_path / "a")
    assert max(slacks) == LONGEST_NAP_S


def test_default_run_directories_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {mpims.run(Words(n=3), quiet=True).run_dir for _ in range(3)}
    assert len(folders) == 3
    assert all(f.parent == tmp_path / "runs" and f.name.startswith("words-") for f in folders)


def test_options_of_run():
    with pytest.raises(UsageError, match="no option 'polcy'"):
        mpims.run(Words(), polcy="SS")
    with pytest.raises(UsageError, match="no policy 'XX'"):
        mpims.run(Words(), policy="XX")
    with pytest.raises(UsageError, match="wants a job, found a int"):
        mpims.run(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"run wants a job, found the class Words: write Words\(\.\.\.\)"):
        mpims.run(Words)  # type: ignore[arg-type]


def test_a_program_that_ends_with_an_error_ends_the_run_that_others_wait_for(monkeypatch):
    """Between two runs they wait for their master as long as it likes."""
    here, other = local_transports(2)
    monkeypatch.setattr(sys, "last_value", ValueError("no picture"), raising=False)
    session._leave_together(here)
    with pytest.raises(RunFailed, match=r"rank 0 .*has left the program: ValueError: no picture"):
        serve(other, lambda start: pytest.fail("no run has begun"))
    session._leave_together(other)
    assert here.receive(0.0).kind is Kind.GOODBYE


def test_a_program_that_ends_on_rank_0_ends_it_too(monkeypatch):
    here, other = local_transports(2)
    session._leave_together(here)
    monkeypatch.setattr(session, "connect", lambda: other)
    for _ in range(2):  # it is told once
        with pytest.raises(UsageError, match=r"rank 0 .*has left the program: under a launcher every rank"):
            mpims.run(Words())
    monkeypatch.setattr(session, "connect", lambda: here)
    with pytest.raises(UsageError, match="the program is at its end: an atexit handler registered before"):
        mpims.run(Words())
    session.atexit.unregister(session._leave_together)


def test_a_run_after_mpi_was_finalised_is_refused(monkeypatch):
    finalised = SimpleNamespace(Is_initialized=lambda: True, Is_finalized=lambda: True)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", finalised)
    with pytest.raises(UsageError, match="MPI was finalised already"):
        mpims.run(Words())


@pytest.mark.parametrize("error", [None, ValueError("no picture")])
def test_a_rank_that_has_left_the_program_ends_a_run_that_rank_0_begins(error, tmp_path, monkeypatch):
    here, other, third = local_transports(3)
    with monkeypatch.context() as leaving:
        if error is not None:
            leaving.setattr(sys, "last_value", error, raising=False)
        left = threading.Thread(target=session._leave_together, args=(other,))
        left.start()
        time.sleep(0.05)
    assert left.is_alive()  # for who leads may begin another run
    computing = threading.Thread(target=_serve_and_raise, args=(third,))
    computing.start()
    kind, what = (UsageError, "under a launcher every rank") if error is None else (RunFailed, "ValueError")
    with pytest.raises(kind, match=f"rank 1 .*has left the program: {what}"):
        run_master(Words(), RunOptions(run_dir=tmp_path, quiet=True), here)
    session._leave_together(here)
    for thread in (left, computing):
        thread.join(10)
        assert not thread.is_alive()


def _serve_and_raise(transport):
    with pytest.raises(mpims.MpimsError, match=r"rank 1 .*has left the program"):
        serve(transport, lambda start: Words())


def test_a_death_that_rank_0_has_not_noticed_by_its_end_is_told_to_all(monkeypatch):
    """MPI tells of it only who looks; and who has not heard of it would wait in MPI_Finalize."""
    here, dead, other = local_transports(3)
    of_before = here.receive

    def receive(timeout_s):
        here.lose(dead.rank)
        return of_before(timeout_s)

    monkeypatch.setattr(here, "receive", receive)
    session._leave_together(here)
    session._leave_together(other)
    assert here.lost == other.lost == {dead.rank}


@pytest.mark.parametrize("dies_before", [True, False])
def test_who_leads_after_a_death_lets_the_others_go(dies_before, capfd):
    ranks = local_transports(3)[1:]
    leaving = [threading.Thread(target=session._leave_together, args=(rank,)) for rank in ranks]
    for rank in ranks if dies_before else ():
        rank.lose(0)
    for thread in leaving:
        thread.start()
    if not dies_before:
        time.sleep(0.05)
        for rank in ranks:
            rank.lose(0)
    for thread in leaving:
        thread.join(10)
        assert not thread.is_alive()
    assert [rank.exit_status for rank in ranks] == [int(not dies_before)] * 2
    assert capfd.readouterr().err.count("rank 0 ") == int(not dies_before)


def test_a_run_within_a_run_or_beside_one_is_refused(tmp_path, monkeypatch):
    """Both would take each other's messages, and wait for ever."""
    transports = local_transports(2)
    monkeypatch.setattr("mpims.session.connect", lambda: transports[1])

    class Outer(Words):
        def task(self, item):
            return mpims.run(Words(n=3), quiet=True)

    def work():
        with suppress(RunFailed):
            serve(transports[1], lambda start: Outer())

    rank = threading.Thread(target=work, daemon=True)
    rank.start()
    with pytest.raises(RunFailed, match=r"a run cannot begin while rank 1 \(.*\) is in a run: under MPI"):
        run_master(Outer(), RunOptions(run_dir=tmp_path / "run", retries=0, quiet=True), transports[0])
    rank.join(10)
    assert [transport.engaged_with for transport in transports] == ["", ""]


def test_ranks_compute_before_it_is_written_down_who_they_are(tmp_path, monkeypatch):
    computing, all_joined, seen = threading.Event(), threading.Event(), []

    class Tells(mpims.Job):
        def items(self):
            return 3

        def kernel(self, items):
            computing.set()
            all_joined.wait(10)  # or the first to join may compute all before the other has
            return np.zeros(len(items))

    write_ranks = RunRecord.write_ranks

    def look(self, record):
        seen.append(computing.wait(5))
        write_ranks(self, record)
        if len(record.workers) == 2:
            all_joined.set()

    monkeypatch.setattr(RunRecord, "write_ranks", look)
    on_threads(Tells, 3, tmp_path / "run")
    assert seen
    assert all(seen)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert set(manifest["ranks"]) == {"0", "1", "2"}


@pytest.mark.parametrize(("n_bytes", "is_large"), [(2 << 20, True), (8, False)])
def test_after_a_large_result_it_is_its_readers_turn(tmp_path, monkeypatch, n_bytes, is_large):
    n_taken = []

    class Large(mpims.Job):
        block = 1

        def items(self):
            return 12

        def kernel(self, items):
            return np.zeros((1, n_bytes // 8))

    step, take = Master.step, Desk.take

    def slow_step(self, timeout_s):
        time.sleep(0.02)  # several results are there
        n_taken.append(0)
        step(self, timeout_s)

    def counted(self, message, now):
        n_taken[-1] += message.kind is Kind.RESULT
        take(self, message, now)

    monkeypatch.setattr(Master, "step", slow_step)
    monkeypatch.setattr(Desk, "take", counted)
    on_threads(Large, 3, tmp_path / "run", policy="SS")
    assert (max(n_taken) == 1) == is_large


class Told:
    """A result that counts how often it is shown, or cannot be."""

    n_shown = 0

    def __init__(self, is_shy):
        self.is_shy = is_shy

    def __repr__(self):
        Told.n_shown += 1
        if self.is_shy:
            raise RuntimeError("shy")
        return "told"


@pytest.mark.parametrize("is_shy", [False, True])
def test_the_summary_looks_at_no_more_of_a_result_than_it_shows(tmp_path, capsys, monkeypatch, is_shy):
    class Tells(mpims.Job):
        def items(self):
            return 5000

        def kernel(self, items):
            return [Told(is_shy) for _ in items]

    monkeypatch.setattr("mpims.record.digest", lambda value: "0")
    Told.n_shown = 0
    outcome = mpims.run(Tells(), run_dir=tmp_path / "run")
    assert len(outcome.value) == 5000
    shown = "(cannot be shown: RuntimeError: shy), " if is_shy else "told, told, "
    assert f"mpims: result [{shown}" in capsys.readouterr().err
    assert Told.n_shown < 100


def test_a_master_without_memory_says_so_and_is_resumed(tmp_path, monkeypatch):
    run, limit = Master.run, MemoryError("Unable to allocate 19.1 MiB")

    def end_early(master):
        while master._checkpoint.n_done < 1000:
            master._own.step(0.0)
            master.step(0.0)
        raise limit

    monkeypatch.setattr(Master, "run", end_early)
    told = (
        r"rank 0 .*, the master: out of memory .*19.1 MiB\); [1-4],\d+ of 5,000 items are done; .* resume"
    )
    with pytest.raises(RunFailed, match=told):
        mpims.run(Sum32(), run_dir=tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    monkeypatch.setattr(Master, "run", run)
    outcome = mpims.run(Sum32(), run_dir=tmp_path / "run", resume=True, quiet=True)
    assert outcome.value == mpims.run(Sum32(), run_dir=tmp_path / "other", quiet=True).value


def test_one_worker_is_told_of_as_one(tmp_path):
    outcome = mpims.run(Sum32(n=50), run_dir=tmp_path / "run", quiet=True)
    told, *_ = summary_lines({**outcome.summary, "n_ranks": 2}, outcome.value)
    assert " on 2 ranks (1 worker); " in told
    told, *_ = summary_lines({**outcome.summary, "n_ranks": 3, "n_workers": 2}, outcome.value)
    assert " on 3 ranks (2 workers); " in told
