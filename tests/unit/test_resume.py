"""Runs that were stopped, failed or skipped items, and what going on with them gives; in one process."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import mpims
from mpims.core.chunks import Result
from mpims.digest import digest
from mpims.errors import ExitStatus, RunFailed, Stopped, UsageError
from mpims.farm import Farm
from mpims.leading import run_master
from mpims.options import RunOptions
from mpims.processes import this_process
from mpims.runtime.lead import Lead
from mpims.runtime.transport.local import local_transports
from mpims.runtime.wire import Kind, Message, Start, encode_results
from mpims.session import serve
from mpims.storage import lock as lock_file
from mpims.storage.appendfile import AppendFile
from mpims.storage.lock import RunLock
from mpims.storage.results import fill_value, read_result

KERNEL_CALLS: list[tuple[int, int]] = []
DISTURBANCE: dict[str, object] = {}
"""What happens in a kernel at an item: an exception, as long as it stands here."""


@pytest.fixture(autouse=True)
def _nothing_happens(monkeypatch):
    KERNEL_CALLS.clear()
    DISTURBANCE.clear()

    def order_nothing(*_):
        raise UsageError("a new Python, in which a late block may be tried again, knows of no disturbance")

    monkeypatch.setattr("mpims.runtime.spawnedchild.order_of_job", order_nothing)


def disturb(items):
    KERNEL_CALLS.append((items[0], items[-1] + 1))
    if DISTURBANCE.get("item") in items:
        raise DISTURBANCE["error"]


class Rows(mpims.Job):
    """An array in a file."""

    n: int = 60
    block = 4

    def items(self):
        return self.n

    def kernel(self, items):
        disturb(items)
        return np.stack([self.rng(i).normal(size=3) for i in items])


class Words(Rows):
    """A list in the journal."""

    def kernel(self, items):
        disturb(items)
        return [f"{i}" * (i % 4) for i in items]


class Hollow(Rows):
    """An array without a byte."""

    def kernel(self, items):
        disturb(items)
        return np.empty((len(items), 0))


class Sum32(Rows):
    """A float32 sum whose last bits depend on the order."""

    output = mpims.Reduce(np.add)

    def kernel(self, items):
        disturb(items)
        return np.sin(np.arange(items.start, items.stop, dtype=np.float32))


class Text(Rows):
    """A reduction that does not commute."""

    output = mpims.Reduce(lambda left, right: left + right)

    def kernel(self, items):
        disturb(items)
        return [f"{i}," for i in items]


JOBS = [Rows, Words, Hollow, Sum32, Text]
every_job = pytest.mark.parametrize("job_class", JOBS)


def alone(job, folder, **options):
    """Run a job in this process; a result is in the journal as soon as it is there."""
    return mpims.run(job, run_dir=folder, **{"quiet": True, "policy": "SS", "retries": 0, **options})


def on_threads(make_job, n_ranks, folder, **options):
    """Run a job with its ranks as threads of this process."""
    transports = local_transports(n_ranks)

    def work(transport):
        with suppress(mpims.MpimsError):  # the master has it too
            serve(transport, lambda start: make_job())

    threads = [threading.Thread(target=work, args=(t,)) for t in transports[1:]]
    for thread in threads:
        thread.start()
    try:
        given = {"quiet": True, "policy": "SS", "retries": 0, **options}
        return run_master(make_job(), RunOptions(run_dir=folder, **given), transports[0])
    finally:
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def digest_of(outcome):
    return outcome.summary["result_digest"]


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch):
    """Chunk by chunk, each result by itself: it is known what is done when a run is disturbed."""
    monkeypatch.setattr("mpims.core.measures.LONGEST_QUEUE", 2)
    monkeypatch.setattr("mpims.runtime.computing.BURST_S", 0.0)
    monkeypatch.setattr("mpims.runtime.computing.HOLD_BACK_S", 0.0)


# ------------------------------------------------------------------------- going on


@every_job
@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (KeyboardInterrupt(), Stopped, "stopped at once: 28 of 60 items are done; resume with: "),
        (ValueError("half-way"), RunFailed, r"items \[30, 31\) attempt \d+ on rank 0 .* failed: ValueErr"),
        (SystemExit(0), RunFailed, r"items \[30, 31\) .* failed: SystemExit: 0"),
    ],
    ids=["interrupted", "failed", "left"],
)
def test_a_run_that_ended_half_way_goes_on_to_the_same_result(job_class, error, raised, said, tmp_path):
    expected = digest_of(alone(job_class(), tmp_path / "undisturbed"))
    folder = tmp_path / "run"
    KERNEL_CALLS.clear()
    DISTURBANCE.update(item=30, error=error)
    with pytest.raises(raised, match=said):
        alone(job_class(), folder)
    assert read(folder, "summary.json")["status"] == ("stopped" if raised is Stopped else "failed")
    n_done = read(folder, "summary.json")["n_done"]
    assert KERNEL_CALLS[:8] == [(i, i + 4) for i in range(0, 32, 4)]
    assert 28 <= n_done < 60
    KERNEL_CALLS.clear()
    DISTURBANCE.clear()
    outcome = alone(job_class(), folder, resume=True)
    assert digest_of(outcome) == expected
    assert len(KERNEL_CALLS) == (60 - n_done) // 4
    assert (28, 32) in KERNEL_CALLS
    assert outcome.exit_status is ExitStatus.DONE
    assert (outcome.summary["n_done"], outcome.summary["n_resumed"]) == (60, 1)
    manifest = read(folder, "manifest.json")
    assert len(manifest["resumed"]) == 1
    assert manifest["run_id"]


@every_job
def test_a_run_goes_on_with_other_ranks_and_another_policy(job_class, tmp_path):
    expected = digest_of(alone(job_class(), tmp_path / "undisturbed"))
    DISTURBANCE.update(item=30, error=KeyboardInterrupt())
    with pytest.raises(Stopped):
        alone(job_class(), tmp_path / "run")
    DISTURBANCE.clear()
    outcome = on_threads(job_class, 4, tmp_path / "run", resume=True, policy="GSS")
    assert digest_of(outcome) == expected
    DISTURBANCE.update(item=30, error=ValueError("again"))
    with pytest.raises(RunFailed):
        on_threads(job_class, 4, tmp_path / "other", policy="FAC2")
    with pytest.raises(RunFailed, match=r"attempt \d{1,3} on rank"):  # numbered anew, as it is shown
        on_threads(job_class, 4, tmp_path / "other", resume=True)
    DISTURBANCE.clear()
    assert digest_of(alone(job_class(), tmp_path / "other", resume=True)) == expected


@every_job
def test_a_run_may_be_stopped_again_and_again(job_class, tmp_path):
    expected = digest_of(alone(job_class(), tmp_path / "undisturbed"))
    KERNEL_CALLS.clear()
    for item in (10, 13, 13, 57):
        DISTURBANCE.update(item=item, error=KeyboardInterrupt())
        with pytest.raises(Stopped):
            alone(job_class(), tmp_path / "run", resume=True)
    DISTURBANCE.clear()
    outcome = alone(job_class(), tmp_path / "run", resume=True)
    assert digest_of(outcome) == expected
    assert outcome.summary["n_resumed"] == 4
    assert len(KERNEL_CALLS) == 15 + 4


def test_a_run_that_is_done_is_not_computed_again(tmp_path, capsys):
    first = alone(Rows(), tmp_path / "run")
    KERNEL_CALLS.clear()
    outcome = alone(Rows(), tmp_path / "run", resume=True, quiet=False)
    assert KERNEL_CALLS == []
    assert np.array_equal(outcome.value, first.value)
    assert outcome.summary == first.summary
    said = capsys.readouterr().err
    assert "is done already: the result is in" in said
    assert said.count("\n") == 1
    assert digest_of(on_threads(Rows, 3, tmp_path / "run", resume=True)) == digest_of(first)
    assert KERNEL_CALLS == []


def test_a_run_that_is_done_says_so_where_nothing_can_be_written(tmp_path, capsys):
    first = alone(Rows(), tmp_path / "run")
    (tmp_path / "run" / "lock").mkdir()  # cannot be opened, as a file of a read-only file system
    assert digest_of(alone(Rows(), tmp_path / "run", resume=True, quiet=False)) == digest_of(first)
    assert "is done already: the result is in" in capsys.readouterr().err
    assert digest_of(on_threads(Rows, 3, tmp_path / "run", resume=True)) == digest_of(first)
    (tmp_path / "run" / "result.npy").unlink()
    with pytest.raises(UsageError, match=r"cannot lock run directory .*/run: Is a directory"):
        alone(Rows(), tmp_path / "run", resume=True)


@pytest.mark.parametrize("n_done", [16, 60])
def test_results_whose_file_says_another_form_are_not_believed(n_done, tmp_path, capsys):
    """The journal has a checksum, the head of the file of results has none."""
    expected = digest_of(alone(Rows(), tmp_path / "undisturbed"))
    DISTURBANCE.update(item=n_done - 1, error=KeyboardInterrupt())
    with pytest.raises(Stopped):
        alone(Rows(), tmp_path / "run")
    DISTURBANCE.clear()
    path = tmp_path / "run" / "result.npy.part"
    content = path.read_bytes()
    assert content.count(b"'<f8'") == 1
    path.write_bytes(content.replace(b"'<f8'", b"'<i8'"))
    assert digest_of(alone(Rows(), tmp_path / "run", resume=True, quiet=False)) == expected
    assert "items is damaged: they are computed again" in capsys.readouterr().err


def test_a_run_that_is_done_may_have_been_moved(tmp_path):
    alone(Rows(), tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    value = alone(Rows(), tmp_path / "moved", resume=True).value
    assert value.shape == (60, 3)


def test_a_run_whose_finish_failed_goes_on_with_it(tmp_path):
    class Finishing(Rows):
        def finish(self, result):
            if DISTURBANCE:
                raise DISTURBANCE.pop("finish")
            KERNEL_CALLS.append(("finish", float(result.sum())))

    DISTURBANCE["finish"] = OSError("full")
    with pytest.raises(RunFailed, match=r"finish\(\) raised OSError: full; the result itself is whole"):
        alone(Finishing(), tmp_path / "run")
    KERNEL_CALLS.clear()
    outcome = alone(Finishing(), tmp_path / "run", resume=True)
    total = float(outcome.value.sum())
    assert [("finish", total)] == KERNEL_CALLS
    assert read(tmp_path / "run", "summary.json")["status"] == "done"


def test_what_has_changed_is_refused(tmp_path):
    folder = tmp_path / "run"
    DISTURBANCE.update(item=30, error=KeyboardInterrupt())
    with pytest.raises(Stopped):
        alone(Rows(), folder)
    DISTURBANCE.clear()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for job, options, said in [
        (Rows(n=61), {}, "parameter n is 61, was 60; the number of items is 61, was 60; items"),
        (Rows(), {"seed": 1}, "the seed is 1, was 0; put it back"),
        (Words(), {}, "the job is Words, was Rows; the source of the job is another"),
    ]:
        with pytest.raises(UsageError, match=said):
            alone(job, folder, resume=True, **options)
    with pytest.raises(UsageError, match=r"is not empty: choose another run_dir, or .*, resume=True\)"):
        alone(Rows(), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert alone(Rows(), folder, resume=True).summary["n_done"] == 60


def test_without_a_run_there_is_nothing_to_go_on_with(tmp_path):
    assert alone(Rows(), tmp_path / "new", resume=True).summary["n_resumed"] == 0
    with pytest.raises(UsageError, match="resume needs the run directory"):
        mpims.run(Rows(), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_directory_at_work_is_left_alone(resume, tmp_path):
    folder = tmp_path / "run"
    if resume:
        DISTURBANCE.update(item=30, error=KeyboardInterrupt())
        with pytest.raises(Stopped):
            alone(Rows(), folder)
        DISTURBANCE.clear()
    folder.mkdir(exist_ok=True)
    lock = RunLock.acquire(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    try:
        with pytest.raises(UsageError, match=f"process {os.getpid()}"):
            alone(Rows(), folder, resume=resume)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    finally:
        lock.release()
    assert alone(Rows(), folder, resume=resume).summary["n_done"] == 60


def test_a_run_that_lost_its_lock_ends(tmp_path, monkeypatch):
    """Another may work there by now; so it looks all the time, and writes no more than it must."""
    monkeypatch.setattr(lock_file, "HEARTBEAT_S", 0.05)

    class Slow(Rows):
        n: int = 4000

        def kernel(self, items):
            time.sleep(0.002)
            if items[0] >= 2000:
                (folder / "lock").unlink(missing_ok=True)
            return super().kernel(items)

    folder = tmp_path / "run"
    with pytest.raises(RunFailed, match=r"the lock .* was removed or taken over while this run held it"):
        on_threads(Slow, 3, folder)
    assert not (folder / "summary.json").exists()


@pytest.mark.parametrize("where", ["kernel", "finish"])
def test_a_run_shows_that_it_lives_while_the_master_is_in_the_users_code(where, tmp_path, monkeypatch):
    """As when there is no other rank: from another machine it would look dead."""
    monkeypatch.setattr(lock_file, "HEARTBEAT_S", 0.02)
    heartbeats = set()

    def work():
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            heartbeats.add((tmp_path / "run" / "lock").stat().st_mtime_ns)

    class Long(Rows):
        n: int = 4

        def kernel(self, items):
            if where == "kernel":
                work()
            return super().kernel(items)

        def finish(self, result):
            if where == "finish":
                work()

    alone(Long(), tmp_path / "run")
    assert len(heartbeats) >= 3


def test_a_run_that_lost_its_lock_in_finish_does_not_say_that_it_is_done(tmp_path):
    class Long(Rows):
        def finish(self, result):
            (self.run_dir / "lock").unlink()

    with pytest.raises(RunFailed, match="was removed or taken over"):
        alone(Long(), tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("job_class", [Rows, Words])
def test_where_the_disk_is_full_only_what_is_on_it_is_said_to_be_done(job_class, tmp_path, monkeypatch):
    append = AppendFile.append

    def full(file, buffers, n_bytes):
        if file.size + n_bytes > 1500:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(file, buffers, n_bytes)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "append", full)
        with pytest.raises(Stopped, match=r"No space left on device.* items are done") as stopped:
            alone(job_class(), tmp_path / "run", policy="SS")
    n_said = int(re.search(r"([\d,]+) of [\d,]+ items are done", stopped.value.message)[1])
    assert read(tmp_path / "run", "summary.json")["n_done"] == n_said
    resumed = Farm(job_class(), RunOptions(run_dir=tmp_path / "run", resume=True, quiet=True), None, None)
    resumed.run(())
    assert resumed._checkpoint.past.done.size == n_said


def test_a_lost_part_of_the_result_is_computed_again(tmp_path, capsys):
    expected = digest_of(alone(Rows(), tmp_path / "undisturbed"))
    DISTURBANCE.update(item=30, error=KeyboardInterrupt())
    with pytest.raises(Stopped):
        alone(Rows(), tmp_path / "run")
    DISTURBANCE.clear()
    (tmp_path / "run" / "result.npy.part").unlink()
    outcome = alone(Rows(), tmp_path / "run", resume=True, quiet=False)
    assert digest_of(outcome) == expected
    assert "mpims: the file with the results of 28 items is missing: they are computed again" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["manifest.json", "journal"])
def test_a_damaged_run_is_said_to_be_so(name, tmp_path):
    DISTURBANCE.update(item=30, error=KeyboardInterrupt())
    with pytest.raises(Stopped):
        alone(Rows(), tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(b"{")
    with pytest.raises(UsageError, match=f"{name}.*(is damaged|where a journal begins)") as caught:
        alone(Rows(), tmp_path / "run", resume=True)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "done"}', '{"status": null}'])
def test_a_damaged_summary_is_written_anew(content, tmp_path, capsys):
    """It says nothing that the journal does not know, so it proves nothing either way."""
    expected = digest_of(alone(Rows(), tmp_path / "run"))
    KERNEL_CALLS.clear()
    (tmp_path / "run" / "summary.json").write_text(content)
    outcome = alone(Rows(), tmp_path / "run", resume=True, quiet=False)
    assert (digest_of(outcome), KERNEL_CALLS) == (expected, [])
    assert read(tmp_path / "run", "summary.json") == outcome.summary
    assert "summary.json is damaged" in capsys.readouterr().err.split("\n")[0]


@pytest.mark.parametrize("damage", [None, 0, 100, -1])
@pytest.mark.parametrize("job", [Rows, Words])
def test_a_result_that_is_gone_or_damaged_is_made_anew(job, damage, tmp_path, capsys):
    outcome = alone(job(), tmp_path / "run")
    expected, file = digest_of(outcome), Path(outcome.summary["result_file"])
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:damage])
    again = alone(job(), tmp_path / "run", resume=True, quiet=False)
    assert (digest_of(again), digest(read_result(file))) == (expected, expected)
    said = f"mpims: the result {file} is {'gone' if damage is None else 'damaged'}"
    assert capsys.readouterr().err.startswith(said)


def test_a_reduce_function_that_raised_raises_again(tmp_path):
    """The operands are in the journal: going on must not be a defect of ours."""

    def join(left, right):
        if len(left) > 30:
            raise ZeroDivisionError("too long")
        return left + right

    class Joined(Text):
        output = mpims.Reduce(join)

    for resume in (False, True):
        with pytest.raises(RunFailed, match="ZeroDivisionError"):
            alone(Joined(), tmp_path / "run", resume=resume)


# ------------------------------------------------------------------------- skipping


class Picky(mpims.Job):
    """Some items raise, alone and in company."""

    n: int = 22
    bad: tuple[int, ...] = (5, 6, 12, 13, 14, 15)
    block = 4

    def items(self):
        return [f"name {i}" for i in range(self.n)]

    def kernel(self, items):
        for i in self.indices:
            if i in self.bad:
                raise ValueError(f"not {i}")
        return np.asarray([float(i) for i in self.indices])


class PickySum(Picky):
    """The same, summed."""

    output = mpims.Reduce(np.add)


class PickyText(Picky):
    """The same, joined."""

    output = mpims.Reduce(lambda left, right: left + right)

    def kernel(self, items):
        super().kernel(items)
        return [f"{i}," for i in self.indices]


@pytest.mark.parametrize("n_ranks", [1, 3])
@pytest.mark.parametrize("block", [1, 4])
def test_items_that_fail_are_skipped_and_named(n_ranks, block, tmp_path):
    class Blocked(Picky):
        pass

    Blocked.block = block
    folder = tmp_path / "run"
    if n_ranks == 1:
        outcome = alone(Blocked(), folder, on_error="skip", retries=1)
    else:
        outcome = on_threads(Blocked, n_ranks, folder, on_error="skip", retries=1)
    bad = list(Picky().bad)
    expected = np.arange(22.0)
    expected[bad] = np.nan
    assert np.array_equal(outcome.value, expected, equal_nan=True)
    assert outcome.exit_status is ExitStatus.SKIPPED
    assert outcome.exit_status == 3
    assert outcome.summary["status"] == "done"
    assert outcome.summary["n_skipped"] == len(bad)
    failed = read(folder, "failed.json")
    assert failed["run_id"] == read(folder, "manifest.json")["run_id"]
    assert [entry["item"] for entry in failed["items"]] == bad
    for entry in failed["items"]:
        assert entry.keys() == {"item", "n_tries", "rank", "host", "reason", "detail", "value"}
        assert entry["reason"] == f"ValueError: not {entry['item']}"
        assert entry["n_tries"] == 2
        assert entry["rank"] in range(n_ranks)
        assert entry["host"] == os.uname().nodename
        assert "raise ValueError" in entry["detail"]
        assert entry["value"] == f"'name {entry['item']}'"


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_reduction_does_without_the_items_that_fail(n_ranks, tmp_path):
    good = [i for i in range(22) if i not in Picky().bad]
    assert on_threads(PickySum, n_ranks, tmp_path / "a", on_error="skip").value == sum(good)
    text = on_threads(PickyText, n_ranks, tmp_path / "b", on_error="skip").value
    assert text == "".join(f"{i}," for i in good)


@pytest.mark.parametrize(
    ("job_class", "value"), [(Picky, [None] * 22), (PickySum, None), (PickyText, None)]
)
def test_all_items_may_fail(job_class, value, tmp_path):
    outcome = alone(job_class(bad=tuple(range(22))), tmp_path / "run", on_error="skip")
    assert outcome.value == value
    assert outcome.exit_status is ExitStatus.SKIPPED
    assert len(read(tmp_path / "run", "failed.json")["items"]) == 22


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("f4", np.nan),
        (">f8", np.nan),
        ("c16", complex(np.nan, 0)),
        ("i2", 0),
        ("u8", 0),
        ("?", False),
        ("S3", b""),
        ("U2", ""),
        ("M8[s]", np.datetime64("NaT")),
        ("m8[ms]", np.timedelta64("NaT")),
    ],
)
def test_the_fill_value_of_a_dtype(dtype, fill, tmp_path):
    class Typed(Picky):
        def kernel(self, items):
            super().kernel(items)
            return np.ones((len(items), 2), dtype)

    value = alone(Typed(), tmp_path / "run", on_error="skip").value
    assert value.dtype == dtype
    good = np.ones(2, dtype)
    for i in range(22):
        expected = np.full(2, fill, dtype) if i in Picky().bad else good
        assert value[i].tobytes() == expected.tobytes() or np.isnan(value[i]).all(), i


def test_the_fill_value_of_a_structure_is_that_of_its_fields():
    dtype = np.dtype([("a", "f4"), ("b", "i2"), ("c", [("d", "M8[s]"), ("e", "U3")]), ("f", "f8", (2,))])
    value = fill_value(dtype)
    assert value.dtype == dtype
    assert np.isnan(value["a"])
    assert value["b"] == 0
    assert np.isnat(value["c"]["d"])
    assert value["c"]["e"] == ""
    assert np.isnan(value["f"]).tolist() == [True, True]


def test_what_was_skipped_stays_skipped(tmp_path):
    class Interrupted(Picky):
        def kernel(self, items):
            KERNEL_CALLS.append((self.indices.start, self.indices.stop))
            if self.indices.start == 16 and DISTURBANCE:
                raise DISTURBANCE["error"]
            return super().kernel(items)

    for make in (Interrupted, type("InterruptedSum", (Interrupted,), {"output": mpims.Reduce(np.add)})):
        expected = alone(make(), tmp_path / f"{make.__name__} whole", on_error="skip")
        folder = tmp_path / make.__name__
        DISTURBANCE["error"] = KeyboardInterrupt()
        with pytest.raises(Stopped):
            alone(make(), folder, on_error="skip", policy="CSS:4")
        DISTURBANCE.clear()
        KERNEL_CALLS.clear()
        done = read(folder, "summary.json")["n_done"]
        outcome = alone(make(), folder, on_error="skip", resume=True)
        assert digest_of(outcome) == digest_of(expected)
        assert read(folder, "failed.json")["items"] == read(expected.run_dir, "failed.json")["items"]
        tried = {i for start, stop in KERNEL_CALLS for i in range(start, stop)}
        assert len(tried) == 22 - done


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("n_ranks", [1, 3])
def test_an_item_that_ends_the_run_is_tried_and_named(retries, n_ranks, tmp_path):
    log = tmp_path / "calls"  # a file: at the end a block may be computed in a child process as well

    class Failing(Picky):
        def kernel(self, items):
            with log.open("a") as file:
                print(self.indices.start, self.indices.stop, file=file)
            return super().kernel(items)

    def make():
        return Failing(bad=(13,))

    with pytest.raises(RunFailed) as caught:
        if n_ranks == 1:
            alone(make(), tmp_path / "run", retries=retries)
        else:
            on_threads(make, n_ranks, tmp_path / "run", retries=retries)
    message = caught.value.message
    assert message.startswith("items [13, 14) attempt ")
    times = f" (alone, tried {retries + 1} times)" if retries else ""
    assert message.endswith(f"failed: ValueError: not 13{times}")
    assert "raise ValueError" in caught.value.detail
    calls = Counter(log.read_text().splitlines())
    assert calls["13 14"] == retries + 1
    assert calls["12 16"] - (retries + 1) in ((0,) if n_ranks == 1 else (0, 1))
    summary = read(tmp_path / "run", "summary.json")
    assert (summary["status"], summary["error"]) == ("failed", message)


def test_an_item_that_fails_for_a_while_does_no_harm(tmp_path):
    expected = digest_of(alone(Rows(), tmp_path / "undisturbed"))

    class Shaky(Rows):
        def kernel(self, items):
            if 30 in items and (left := DISTURBANCE.get("left", 0)):
                DISTURBANCE["left"] = left - 1
                raise OSError("the network")
            return super().kernel(items)

    for left in (1, 2, 3, 5):
        DISTURBANCE["left"] = left
        outcome = alone(Shaky(), tmp_path / str(left), retries=2)
        assert digest_of(outcome) == expected
        assert outcome.summary["n_skipped"] == 0
        assert DISTURBANCE["left"] == 0


def test_a_block_that_fails_only_as_a_whole_is_put_together_from_its_items(tmp_path):
    class NoBlocks(Sum32):
        def kernel(self, items):
            if 30 in items and len(items) > 1:
                raise MemoryError
            return super().kernel(items)

    class NoBlockRows(Rows):
        def kernel(self, items):
            if 30 in items and len(items) > 1:
                raise MemoryError
            return super().kernel(items)

    for job_class, base in ((NoBlocks, Sum32), (NoBlockRows, Rows)):
        expected = alone(base(), tmp_path / base.__name__)
        outcome = alone(job_class(), tmp_path / job_class.__name__)
        assert digest_of(outcome) == digest_of(expected)
        assert outcome.exit_status is ExitStatus.DONE


@pytest.mark.parametrize("block", [1, 4])
def test_a_result_that_fits_no_array_is_skipped_too(block, tmp_path):
    class Unfit(Picky):
        output = mpims.Gather(dtype=float)

        def kernel(self, items):
            return ["x" if i in self.bad else float(i) for i in self.indices]

    Unfit.block = block
    outcome = alone(Unfit(bad=(13,)), tmp_path / "run", on_error="skip")
    assert np.flatnonzero(np.isnan(outcome.value)).tolist() == [13]


# ----------------------------------------------------------------- the next master


def test_the_next_master_goes_on_with_what_is_there(tmp_path):
    """It has the job and the items, an array here, and what it had computed for the one before."""

    class Levels(Rows):
        def items(self):
            return np.linspace(0.0, 1.0, self.n)

        def kernel(self, items):
            KERNEL_CALLS.append((self.indices.start, self.indices.stop))
            if self.indices.start == 32 and DISTURBANCE:
                raise DISTURBANCE["error"]
            return np.sin(np.asarray(items))

    expected = digest_of(alone(Levels(), tmp_path / "undisturbed"))
    DISTURBANCE["error"] = ValueError("the master's end")
    with pytest.raises(RunFailed):
        alone(Levels(), tmp_path / "run")
    DISTURBANCE.clear()
    n_done = read(tmp_path / "run", "summary.json")["n_done"]
    job = Levels()
    options = RunOptions(run_dir=tmp_path / "run", quiet=True, policy="SS")
    manifest = read(tmp_path / "run", "manifest.json")
    start = Start(
        source=None,
        parameters=job.parameters,
        options=options,
        run_id=manifest["run_id"],
        epoch=0,
        run_dir=str(tmp_path / "run"),
        command=(),
        master=this_process(),
    )
    items = job.items()
    head, buffers = encode_results([Result(3, 40, 48)], np.sin(items[40:48]))
    inherited = Message(Kind.RESULT, 1, head, list(buffers))
    KERNEL_CALLS.clear()
    outcome = Farm(job, options, None, None, Lead(start, job, items, (inherited,))).run(())
    assert digest_of(outcome) == expected
    assert len(KERNEL_CALLS) == (60 - n_done) // 4 - 2
    assert not {(40, 44), (44, 48)} & set(KERNEL_CALLS)
    assert outcome.summary["n_masters"] == 1
    assert outcome.summary["n_resumed"] == 0
    assert len(read(tmp_path / "run", "manifest.json")["taken_over"]) == 1


def test_a_run_that_is_busy_stops_when_it_is_asked_to(tmp_path):
    """Though results come without a pause; what the workers have by then is kept."""

    class Slow(Rows):
        n: int = 1600

        def kernel(self, items):
            if 30 in items and "signal" in DISTURBANCE:
                os.kill(os.getpid(), DISTURBANCE["signal"])
            time.sleep(0.002)
            return super().kernel(items)

    folder = tmp_path / "run"
    DISTURBANCE["signal"] = signal.SIGUSR1
    text = r"^stopped: [\d,]+ of 1,600 items are done; resume with: the same program, with mpims\.run\("
    with pytest.raises(Stopped, match=text):
        on_threads(Slow, 3, folder)
    DISTURBANCE.clear()
    summary = read(folder, "summary.json")
    assert summary["status"] == "stopped"
    assert 28 <= summary["n_done"] < 1600
    before = set(KERNEL_CALLS)
    assert len(KERNEL_CALLS) == summary["n_done"] // 4  # nothing that was computed is lost
    KERNEL_CALLS.clear()
    outcome = on_threads(Slow, 3, folder, resume=True)
    assert before.isdisjoint(KERNEL_CALLS)
    expected = np.stack([Slow().rng(i).normal(size=3) for i in range(1600)])
    assert np.array_equal(outcome.value, expected)
