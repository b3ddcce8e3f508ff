"""What is committed comes back to the last bit, wherever the journal was cut, damaged or written anew."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import pytest

import mpims
from mpims.core.chunks import Result
from mpims.core.ranges import RangeSet
from mpims.digest import digest
from mpims.errors import MpimsError, RunFailed, Stopped, UsageError
from mpims.outputs import Gather, Output, Reduce, ResultError
from mpims.processes import boot_id
from mpims.runtime.parts import new_part
from mpims.runtime.wire import decode_payload, decode_results, encode_object, encode_results
from mpims.storage import checkpoint as checkpoint_file
from mpims.storage.arrayfile import LARGE_BYTES, ArrayFile
from mpims.storage.checkpoint import JOURNAL, Checkpoint
from mpims.storage.commits import Failure, parse_commit, parse_ranges
from mpims.storage.records import RESULT_KINDS, RecordKind
from mpims.storage.replay import read_journal
from mpims.storage.results import GatherResults, Results, new_results

PART = "result.npy.part"


def in_order(left: str, right: str) -> str:
    """Associative, and does not commute."""
    return left + right


@dataclass(frozen=True)
class Case:
    """A kind of output, and a kernel for it."""

    output: Output
    kernel: Callable[[int, int], Any]


CASES = {
    "array": Case(Gather(), lambda a, b: np.sin(np.arange(3 * a, 3 * b)).reshape(-1, 3)),
    "list": Case(Gather(), lambda a, b: [f"item {i}" * (i % 3) for i in range(a, b)]),
    "empty": Case(Gather(), lambda a, b: np.empty((b - a, 0, 3), np.int16)),
    "ufunc": Case(Reduce(np.add), lambda a, b: np.sin(np.arange(a, b, dtype=np.float32))),
    "function": Case(Reduce(in_order), lambda a, b: [f"{i}," for i in range(a, b)]),
}
every_case = pytest.mark.parametrize("name", CASES)


class Play:
    """A run without ranks: blocks are computed here, and committed as the master does it.

    `bad` items are given up: in a block of their own, as when its items were tried alone.
    """

    def __init__(self, folder: Path, name: str, n_items=60, block=4, bad=(9, 20, 21, 22, 23, 50)) -> None:
        self.folder, self.case = folder, CASES[name]
        self.n_items, self.block, self.bad = n_items, block, frozenset(bad)
        self.done = RangeSet()
        self.sizes: list[tuple[int, tuple]] = []  # of the journal behind each commit, and what it commits
        self.attempt = 0
        self.results: Results
        self.checkpoint: Checkpoint

    def create(self) -> Play:
        self.folder.mkdir(exist_ok=True)
        self.results = self._new_results()
        self.checkpoint = Checkpoint.create(self.folder, "run-1", self.results, durability_s=None)
        return self

    def resume(self) -> Play:
        self.results = self._new_results()
        self.checkpoint = Checkpoint.resume(
            self.folder, "run-1", self.results, self.n_items, durability_s=None
        )
        self.done = RangeSet(self.checkpoint.done)
        return self

    def _new_results(self) -> Results:
        return new_results(self.case.output, self.n_items, self.block, self.folder)

    def payload(self, start: int, stop: int) -> Any:
        """What a worker delivers of some blocks; of one only, if any of its items is bad."""
        part = new_part(self.case.output, self.block, self.n_items)
        if self._bad_in(start, stop):
            good = [i for i in range(start, stop) if i not in self.bad]
            if not good:
                return None
            part.add_items(start, stop, {i: self.case.kernel(i, i + 1) for i in good})
        else:
            for at in range(start, stop, self.block):
                end = min(at + self.block, stop)
                part.add(at, end, self.case.kernel(at, end))
        part.close()
        return part.take()

    def _bad_in(self, start: int, stop: int) -> list[int]:
        return [i for i in range(start, stop) if i in self.bad]

    def deliver(self, start: int, stop: int) -> None:
        """Commit what of some blocks is not done yet; those with bad items one by one."""
        at = start
        for begin in range(start, stop, self.block):
            end = min(begin + self.block, stop)
            if self._bad_in(begin, end):
                self._deliver_part(at, begin)
                self._deliver_part(begin, end)
                at = end
        self._deliver_part(at, stop)

    def _deliver_part(self, start: int, stop: int) -> None:
        if start == stop:
            return
        self.attempt += 1
        head = Result(self.attempt, start, stop)
        head_bytes, buffers = encode_results([head], self.payload(start, stop))
        array = decode_results(head_bytes)[1]
        payload = decode_payload(array, buffers)
        (units,) = self.results.units(payload, [head])
        if units is None:
            fresh = tuple(self.done.missing(start, stop))
        else:
            fresh = tuple(unit for unit in units if not self.done.intersects(*unit))
        if not fresh:
            return
        failures = [
            Failure(i, 3, 1, "node1", f"ValueError: {i}", "Traceback\n")
            for a, b in fresh
            for i in self._bad_in(a, b)
        ]
        self.checkpoint.commit(head, payload, None if array else buffers, fresh, failures)
        self.checkpoint.say()
        for span in fresh:
            self.done.add(*span)
        self.sizes.append((self.checkpoint._journal.size, fresh))

    def some(self, random: Random, n_parts: int) -> Play:
        """Deliver some stretches of blocks, which overlap with what is done."""
        n_blocks = -(-self.n_items // self.block)
        for _ in range(n_parts):
            first = random.randrange(n_blocks)
            last = min(first + random.choice([1, 1, 2, 3, 5]), n_blocks)
            self.deliver(first * self.block, min(last * self.block, self.n_items))
            if random.random() < 0.3:
                self.checkpoint.assigned([(0, self.n_items)])
                self.checkpoint.say()
            if random.random() < 0.2:
                self.checkpoint.note({"wall_s": 1.5})
        return self

    def rest(self) -> Play:
        for start, stop in self.done.missing(0, self.n_items):
            self.deliver(start, stop)
        return self

    def outcome(self) -> tuple[str, dict[int, Failure]]:
        failures = dict(sorted(self.checkpoint.failures.items()))
        value, _ = self.results.close(list(failures))
        found = digest(value), failures
        self.checkpoint.close("done")
        return found

    def drop(self) -> None:
        """Leave everything as it is, as a process does that dies."""
        self.checkpoint.abandon()
        self.results.release()

    def spoil(self) -> Play:
        """Put something else where nothing is said to be."""
        path = self.folder / PART
        if path.exists() and isinstance(self.results, GatherResults):
            array = np.lib.format.open_memmap(path, "r+")
            for start, stop in self.done.missing(0, self.n_items):
                array[start:stop] = 77.0
        return self


@pytest.fixture
def undisturbed(tmp_path):
    """What a run gives that nothing happens to, block by block in order."""

    def give(name, **how):
        play = Play(tmp_path / "undisturbed", name, **how).create()
        for start in range(0, play.n_items, play.block):
            play.deliver(start, min(start + play.block, play.n_items))
        return play.outcome()

    return give


def test_an_undisturbed_run_gives_what_is_to_be_expected(tmp_path):
    """Or all else here would compare one wrong result with another."""
    for name, case in CASES.items():
        play = Play(tmp_path / name, name).create().rest()
        value, _ = play.results.close(sorted(play.checkpoint.failures))
        assert play.checkpoint.failures.keys() == play.bad
        if name == "function":
            assert value == "".join(f"{i}," for i in range(60) if i not in play.bad)
        elif name == "ufunc":
            good = [np.sin(np.float32(i)) for i in range(60) if i not in play.bad]
            assert value == pytest.approx(sum(good), rel=1e-4)
        elif name == "list":
            assert value == [None if i in play.bad else x for i, x in enumerate(case.kernel(0, 60))]
        else:
            expected = case.kernel(0, 60)
            if name == "array":
                expected[list(play.bad)] = np.nan
            assert np.array_equal(value, expected, equal_nan=name == "array")


@every_case
@pytest.mark.parametrize("bad", [(), (9, 20, 21, 22, 23, 50)])
@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_run_in_pieces_gives_the_same_bits(name, bad, is_compacted, tmp_path, undisturbed, monkeypatch):
    if is_compacted:
        monkeypatch.setattr(checkpoint_file, "COMPACT_BYTES", 1)
        monkeypatch.setattr(checkpoint_file, "_GROWTH", 1)
    expected = undisturbed(name, bad=bad)
    for seed in range(12):
        random = Random(seed)
        folder = tmp_path / str(seed)
        play = Play(folder, name, bad=bad).create().some(random, random.randrange(6))
        for _ in range(random.randrange(1, 4)):
            done = list(play.done)
            assert play.checkpoint.n_done == play.done.size, seed
            play.drop()
            play = Play(folder, name, bad=bad).resume()
            assert list(play.done) == done, seed
            assert play.checkpoint.n_done == play.done.size, seed
            assert play.checkpoint.past.notes == []
            play.spoil().some(random, random.randrange(6))
        assert play.rest().outcome() == expected, seed


@pytest.mark.parametrize("name", ["ufunc", "function"])
def test_a_journal_of_many_values_is_written_anew(name, tmp_path, monkeypatch):
    plain = Play(tmp_path / "plain", name).create().rest()
    monkeypatch.setattr(checkpoint_file, "COMPACT_BYTES", 1)
    monkeypatch.setattr(checkpoint_file, "_GROWTH", 1)
    play = Play(tmp_path / "compact", name).create()
    play.checkpoint.note({"wall_s": 2.5})
    play.rest()
    assert play.checkpoint._journal.size < plain.checkpoint._journal.size
    kinds = [r.kind for r in read_journal(tmp_path / "compact" / JOURNAL, boot_id()).records]
    assert kinds.count(RecordKind.DONE) + kinds.count(RecordKind.SKIPPED) == 1
    assert kinds.count(RecordKind.STATS) == 1
    assert play.outcome() == plain.outcome()


@pytest.mark.parametrize("name", ["list", "empty", "array"])
def test_only_a_part_of_what_was_delivered_may_count(name, tmp_path, undisturbed):
    """As when another rank was faster with the front, the middle or the end of it."""
    for first in ((0, 8), (24, 32), (52, 60)):
        play = Play(tmp_path / str(first), name, bad=()).create()
        play.deliver(*first)
        play.deliver(0, 60)
        play.drop()
        resumed = Play(play.folder, name, bad=()).resume()
        assert list(resumed.done) == [(0, 60)]
        assert resumed.outcome() == undisturbed(name, bad=())
        shutil.rmtree(tmp_path / "undisturbed")


# ------------------------------------------------------------------ a damaged journal


def small(folder: Path, name: str) -> Play:
    """A run with a journal of some hundred bytes: two masters, all done but one block."""
    how = {"n_items": 14, "block": 2, "bad": (3, 8, 9)}
    play = Play(folder, name, **how).create()
    play.checkpoint.assigned([(0, 14)])
    play.checkpoint.say()
    play.deliver(4, 8)
    play.deliver(2, 4)
    play.drop()
    play = Play(folder, name, **how).resume()
    play.deliver(8, 14)
    return play


def restore(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


@every_case
def test_a_journal_cut_at_any_byte_costs_no_more_than_what_is_cut(name, tmp_path, undisturbed):
    how = {"n_items": 14, "block": 2, "bad": (3, 8, 9)}
    expected = undisturbed(name, **how)
    written = small(tmp_path / "written", name)
    written.drop()
    files = {path.name: path.read_bytes() for path in written.folder.iterdir()}
    replay = read_journal(written.folder / JOURNAL, None)
    begins = replay.end if len(replay.records) == 1 else replay.records[1].at
    commits = list(read_commits(written.folder / JOURNAL))
    folder = tmp_path / "cut"
    for n_bytes in range(len(files[JOURNAL]) + 1):
        restore(folder, {**files, JOURNAL: files[JOURNAL][:n_bytes]})
        play = Play(folder, name, **how)
        if n_bytes < begins:
            with pytest.raises(UsageError, match="cannot read journal"):
                play.resume()
            continue
        play.resume()
        whole = RangeSet(span for stop, ranges in commits if stop <= n_bytes for span in ranges)
        assert list(play.done) == list(whole), n_bytes
        if n_bytes % 4 == 0:  # what is missing is the same for many
            assert play.spoil().rest().outcome() == expected, n_bytes
        else:
            play.drop()


def read_commits(path: Path):
    """Where each commit of a journal ends, and its ranges."""
    for record in read_journal(path, boot=checkpoint_file.boot_id()).records:
        if record.kind in (RecordKind.DONE, RecordKind.SKIPPED):
            yield record.at + 20 + len(record.payload), parse_ranges(record.payload)


@every_case
def test_a_flipped_bit_gives_no_wrong_result(name, tmp_path, undisturbed):
    how = {"n_items": 14, "block": 2, "bad": (3, 8, 9)}
    expected = undisturbed(name, **how)
    written = small(tmp_path / "written", name)
    written.drop()
    files = {path.name: path.read_bytes() for path in written.folder.iterdir()}
    done = list(written.done)
    random = Random(name)
    n_resumed = n_recomputed = 0
    for _ in range(200):
        journal = bytearray(files[JOURNAL])
        at, bit = random.randrange(len(journal)), random.randrange(8)
        journal[at] ^= 1 << bit
        restore(tmp_path / "flipped", {**files, JOURNAL: bytes(journal)})
        play = Play(tmp_path / "flipped", name, **how)
        refusal = ""
        try:
            play.resume()
        except MpimsError as error:
            refusal = error.message
        if refusal:
            assert "\n" not in refusal, (at, bit)
            continue
        assert RangeSet([*done, *play.done]).size == written.done.size, (at, bit)
        n_resumed += 1
        n_recomputed += play.done.size < written.done.size
        assert play.checkpoint.past.notes, (at, bit)
        assert play.spoil().rest().outcome() == expected, (at, bit)
    assert n_resumed > 50
    assert n_recomputed > 20


def test_damage_is_told(tmp_path):
    play = small(tmp_path / "run", "function")
    play.drop()
    path = play.folder / JOURNAL
    journal = bytearray(path.read_bytes())
    (stop, _), *_ = read_commits(path)
    journal[stop - 1] ^= 1
    path.write_bytes(journal[:-1])
    damage, cut = Play(play.folder, "function", n_items=14, block=2).resume().checkpoint.past.notes
    assert "is damaged (checksum" in damage
    assert damage.endswith(": what it said is computed again")
    assert cut.startswith("the last ")
    assert "bytes of the journal are unfinished" in cut


# ---------------------------------------------------------------------- other files


@pytest.mark.parametrize("happens", ["missing", "truncated", "of other length", "no array", "empty"])
def test_without_the_file_of_the_results_all_is_computed_again(happens, tmp_path, undisturbed):
    play = Play(tmp_path / "run", "array").create().some(Random(1), 5)
    play.deliver(20, 24)  # all of its items given up: for these nothing is in the file
    play.checkpoint.note({"wall_s": 2.5})
    play.drop()
    n_done = play.done.size
    part = play.folder / PART
    content = part.read_bytes()
    if happens == "missing":
        part.unlink()
    elif happens == "of other length":
        np.save(play.folder / "other.npy", np.zeros((59, 3)))
        (play.folder / "other.npy").rename(part)
    else:
        part.write_bytes({"truncated": content[:-1], "no array": b"\0" * 5000, "empty": b""}[happens])
    resumed = Play(play.folder, "array").resume()
    (note,) = resumed.checkpoint.past.notes
    assert note == (f"the file with the results of {n_done - 4} items is missing: they are computed again")
    assert list(resumed.done) == [(20, 24)]
    resumed.drop()
    resumed = Play(play.folder, "array").resume()  # from the journal that was written anew
    assert resumed.checkpoint.past.stats == {"wall_s": 2.5}
    resumed.some(Random(2), 3)  # into a new file, of which the old records do not speak
    done = list(resumed.done)
    resumed.drop()
    third = Play(play.folder, "array").resume()
    assert third.checkpoint.past.notes == []
    assert list(third.done) == done
    assert third.rest().outcome() == undisturbed("array")


def test_a_file_that_cannot_be_opened_now_is_not_taken_for_missing(tmp_path, undisturbed, monkeypatch):
    """As on a file system of other machines: what is in it would be lost for ever."""
    play = Play(tmp_path / "run", "array").create().some(Random(1), 5)
    play.drop()

    def stale(path: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(ArrayFile, "reopen", stale)
        with pytest.raises(Stopped, match=r"result\.npy\.part: Stale file handle.*resume"):
            Play(play.folder, "array").resume()
    resumed = Play(play.folder, "array").resume()
    assert list(resumed.done) == list(play.done)
    assert resumed.rest().outcome() == undisturbed("array")


def test_a_result_that_is_whole_already_is_found(tmp_path, undisturbed):
    """The run died after the file had got its name, and before it could say so."""
    play = Play(tmp_path / "run", "array").create().rest()
    play.results.close(sorted(play.checkpoint.failures))
    play.drop()
    assert not (play.folder / PART).exists()
    resumed = Play(play.folder, "array").resume()
    assert resumed.done.size == 60
    assert resumed.outcome() == undisturbed("array")
    assert sorted(p.name for p in play.folder.iterdir()) == [JOURNAL, "result.npy"]


def test_a_journal_of_more_items_is_of_another_job(tmp_path):
    for name in CASES:
        play = Play(tmp_path / name, name).create().rest()
        play.drop()
        with pytest.raises(
            UsageError, match=r"speaks of items \[\d+, \d+\), the job has 40: it is of anot"
        ):
            Play(play.folder, name, n_items=40).resume()


def test_what_was_handed_out_beyond_the_items_is_of_another_job(tmp_path):
    play = Play(tmp_path / "run", "list").create()
    play.checkpoint.assigned([(30, 60)])
    play.checkpoint.say()
    play.drop()
    with pytest.raises(UsageError, match=r"speaks of items \[30, 60\), the job has 59"):
        Play(play.folder, "list", n_items=59).resume()


def test_a_journal_of_another_run_is_refused(tmp_path):
    play = Play(tmp_path / "run", "list").create()
    play.drop()
    with pytest.raises(UsageError, match=r"is of run run-1, the manifest beside it of run run-2"):
        Checkpoint.resume(play.folder, "run-2", play.results, 60, durability_s=None)


def test_what_did_not_fit_then_does_not_fit_now(tmp_path):
    """The record stands in the journal, and the run cannot go on: no defect of ours, and said so."""

    def join(left, right):
        raise ValueError("never")

    first, second = tmp_path / "reduced", tmp_path / "gathered"
    first.mkdir()
    results = new_results(mpims.Reduce(join), 4, 1, first)
    written = Checkpoint.create(first, "run-1", results, durability_s=None)
    with pytest.raises(ResultError, match="the reduce function raised ValueError: never"):
        commit(written, 0, 2, ([(0, 0), (0, 1)], [1, 2]), ((0, 1), (1, 2)))
    written.abandon()
    with pytest.raises(RunFailed, match="the reduce function raised ValueError: never"):
        Checkpoint.resume(
            first, "run-1", new_results(mpims.Reduce(join), 4, 1, first), 4, durability_s=None
        )
    play = Play(second, "array", bad=()).create()
    play.deliver(0, 8)
    with pytest.raises(ResultError, match="kernel returned Python objects, elsewhere float64"):
        commit(play.checkpoint, 8, 10, ["a", "b"])
    play.drop()
    with pytest.raises(RunFailed, match="kernel returned Python objects, elsewhere float64"):
        play.resume()


def commit(checkpoint, start, stop, payload, ranges=None):
    is_array = isinstance(payload, np.ndarray)
    buffers = None if is_array else encode_object(payload)
    checkpoint.commit(Result(1, start, stop), payload, buffers, ranges or ((start, stop),))
    checkpoint.say()


def test_a_disk_that_takes_nothing_stops_the_run(tmp_path):
    play = Play(tmp_path / "run", "list").create()
    play.checkpoint._journal._file._descriptor = -1  # what writing to it gives is an OSError like another
    with pytest.raises(
        Stopped, match=r"cannot write .*journal: Bad file descriptor.*free some space and res"
    ):
        play.deliver(0, 8)


def test_a_folder_in_the_way_of_the_journal_is_named(tmp_path):
    (tmp_path / "run" / "journal").mkdir(parents=True)
    with pytest.raises(Stopped, match=r"cannot write .*/journal: Is a directory; remove that folder and"):
        Play(tmp_path / "run", "list").create()


# ---------------------------------------------------------------- what kills all ranks


def deaths(folder: Path, *masters) -> list[tuple[int, int]]:
    """What is suspicious after masters that each handed out, and got, these ranges."""
    play = Play(folder, "list", bad=())
    for number, (assigned, delivered, closed) in enumerate(masters):
        play = play.resume() if number else play.create()
        assert play.checkpoint.epoch == number
        play.checkpoint.assigned(assigned)
        play.checkpoint.say()
        for span in delivered:
            play.deliver(*span)
        if closed:
            play.checkpoint.close("stopped")
        play.drop()
    return list(play.resume().checkpoint.past.suspicious)


def test_what_was_under_way_at_both_of_the_last_two_deaths_is_suspicious(tmp_path):
    one = ([(0, 12), (12, 24)], [(0, 8)], False)
    two = ([(8, 12), (20, 28)], [], False)
    none = ([], [], False)
    assert deaths(tmp_path / "a", one) == deaths(tmp_path / "b", one, none) == []
    assert deaths(tmp_path / "c", one, two) == [(8, 12), (20, 24)]
    assert deaths(tmp_path / "d", one, ([(8, 12), (20, 28)], [(8, 12)], False)) == [(20, 24)]
    assert deaths(tmp_path / "e", one, none, two) == [(8, 12), (20, 24)]
    assert deaths(tmp_path / "f", one, two, ([(40, 44)], [], False)) == []
    assert deaths(tmp_path / "g", one, two, ([(8, 24)], [], False)) == [(8, 12), (20, 24)]


def test_nothing_is_suspicious_after_an_orderly_end(tmp_path):
    one = ([(0, 24)], [], False)
    closed = ([(0, 24)], [], True)
    assert deaths(tmp_path / "a", one, closed) == []
    assert deaths(tmp_path / "b", one, closed, one) == []
    assert deaths(tmp_path / "c", closed, closed) == []
    assert deaths(tmp_path / "d", closed, one, one) == [(0, 24)]


def test_figures_of_the_last_master_are_kept(tmp_path):
    play = Play(tmp_path / "run", "list").create()
    assert play.checkpoint.past.stats == {}
    for wall_s in (1.0, 2.5):
        play.checkpoint.note({"wall_s": wall_s, "busy_s": {"1": 0.5}})
    play.drop()
    assert play.resume().checkpoint.past.stats == {"wall_s": 2.5, "busy_s": {"1": 0.5}}
    assert play.checkpoint.epoch == 1


# ------------------------------------------------------- results that take a while to be written


def test_the_journal_waits_for_what_is_written_in_the_background(tmp_path, monkeypatch):
    """What a record speaks of is in its place before: a crash in between must cost only computing."""
    may_write, write = Event(), os.pwrite

    def held(descriptor, buffer, at):
        assert may_write.wait(20)
        return write(descriptor, buffer, at)

    results = new_results(mpims.Gather(), 3, 1, tmp_path)
    checkpoint = Checkpoint.create(tmp_path, "run-1", results, durability_s=None)
    monkeypatch.setattr(os, "pwrite", held)
    large = np.ones((1, LARGE_BYTES // 8))
    for item in range(2):
        checkpoint.commit(Result(item + 1, item, item + 1), large, None, ((item, item + 1),))
    checkpoint.say()
    assert checkpoint.is_behind
    assert _done_in(tmp_path) == []
    may_write.set()
    results.finish()
    checkpoint.say()
    assert not checkpoint.is_behind
    assert _done_in(tmp_path) == [(0, 2)]
    monkeypatch.setattr(os, "pwrite", lambda *piece: (sleep(0.05), write(*piece))[1])
    failure = Failure(2, 3, 1, "node1", "ValueError: 2", "")
    checkpoint.commit(Result(3, 2, 3), large, None, ((2, 3),), [failure])
    assert results.n_written == results.n_given == 3
    assert _done_in(tmp_path) == [(0, 3)]
    checkpoint.abandon()
    results.release()


def test_a_run_that_is_stopped_says_what_was_still_to_be_written(tmp_path):
    results = new_results(mpims.Gather(), 20, 1, tmp_path)
    checkpoint = Checkpoint.create(tmp_path, "run-1", results, durability_s=1.0)
    large = np.ones((1, LARGE_BYTES // 8))
    for item in range(20):
        checkpoint.commit(Result(item + 1, item, item + 1), large, None, ((item, item + 1),))
    checkpoint.close("stopped")
    results.release()
    assert _done_in(tmp_path) == [(0, 20)]


def _done_in(folder):
    """The items that the journal says are done."""
    replay = read_journal(folder / JOURNAL, boot_id())
    done = RangeSet()
    for record in replay.records:
        if record.kind in RESULT_KINDS:
            for start, stop in parse_commit(record.kind, record.payload).ranges:
                done.add(start, stop)
    return list(done)
