"""From delivered parts to the result: in any order, twice, cut, small and large."""

from __future__ import annotations

import errno
import os
import re
import threading

import numpy as np
import pytest

import mpims
from mpims.core.chunks import Result
from mpims.digest import digest
from mpims.errors import RunFailed, Stopped
from mpims.outputs import ResultError
from mpims.runtime.wire import decode_payload, decode_results, encode_results
from mpims.storage.arrayfile import LARGE_BYTES
from mpims.storage.results import (
    GatherResults,
    ReduceResults,
    disk_error,
    read_result,
    write_array,
    write_object,
)


def deliver(results, attempt, start, stop, payload, ranges=None):
    """What the master does with a RESULT: receive and commit."""
    head = Result(attempt, start, stop)
    head_bytes, buffers = encode_results([head], payload)
    array = decode_results(head_bytes)[1]
    results.commit(head, decode_payload(array, buffers), ranges or ((start, stop),))


@pytest.mark.parametrize("width", [3, LARGE_BYTES // 8, LARGE_BYTES // 3])
def test_parts_in_any_order_make_the_whole(tmp_path, width):
    expected = np.random.default_rng(0).normal(size=(20, width))
    results = GatherResults(mpims.Gather(), 20, tmp_path)
    for i, (start, stop) in enumerate([(15, 20), (0, 4), (9, 15), (4, 9)]):
        deliver(results, i, start, stop, expected[start:stop].copy())
    value, path = results.close()
    assert np.array_equal(value, expected)
    assert path.name == "result.npy"
    assert [p.name for p in tmp_path.iterdir()] == ["result.npy"]


def test_only_the_committed_ranges_of_a_part_are_taken(tmp_path):
    results = GatherResults(mpims.Gather(), 10, tmp_path)
    deliver(results, 1, 0, 10, np.zeros(10))
    deliver(results, 2, 2, 8, np.ones(6), ranges=((3, 4), (6, 8)))
    value, _ = results.close()
    assert value.tolist() == [0, 0, 0, 1, 0, 0, 1, 1, 0, 0]


def test_what_is_large_is_there_when_it_says_so(tmp_path):
    """Large pieces are written in the background, in order; `n_written` counts those that are there."""
    width = LARGE_BYTES // 8
    results = GatherResults(mpims.Gather(), 50, tmp_path)
    for item in range(50):
        deliver(results, item + 1, item, item + 1, np.full((1, width), item + 1.0))
        assert results.n_given == item + 1
        n_written = results.n_written
        there = np.load(tmp_path / "result.npy.part", mmap_mode="r")
        assert (there[:n_written, -1] == np.arange(1.0, n_written + 1)).all()
    results.finish()
    assert results.n_written == results.n_given == 50
    assert results.close()[0][:, 0].tolist() == np.arange(1.0, 51.0).tolist()
    assert results.n_written == results.n_given == 50


def test_a_disk_that_fails_in_the_background_stops_the_run(tmp_path, monkeypatch):
    def refuse(descriptor, buffer, at):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    results = GatherResults(mpims.Gather(), 100, tmp_path)
    large = np.zeros((1, LARGE_BYTES // 8))
    deliver(results, 1, 0, 1, large)
    results.finish()
    monkeypatch.setattr(os, "pwrite", refuse)
    refused = pytest.raises(Stopped, match=r"cannot write .*result\.npy\.part.*: No space left")
    with refused:
        for item in range(1, 100):  # it waits for the ones before, at the latest when there are many
            deliver(results, item + 1, item, item + 1, large)
    with refused:
        _ = results.n_written
    with refused:
        results.finish()
    with pytest.raises(Stopped, match="No space left"):
        results.close()
    results.release()


def test_the_thread_that_writes_ends_with_its_run(tmp_path):
    """A program may have many runs: each thread that stayed would keep a file open, too."""
    before = set(threading.enumerate())
    results = GatherResults(mpims.Gather(), 3, tmp_path)
    deliver(results, 1, 0, 3, np.zeros((3, LARGE_BYTES // 8)))
    (writes,) = set(threading.enumerate()) - before
    results.close()
    writes.join(10)
    assert not writes.is_alive()


def test_a_file_system_may_take_a_part_of_a_piece(tmp_path, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, buffer, at: whole(file, buffer[:1000], at))
    expected = np.random.default_rng(0).normal(size=(3, LARGE_BYTES // 8))
    results = GatherResults(mpims.Gather(), 3, tmp_path)
    deliver(results, 1, 0, 2, expected[:2].copy())
    deliver(results, 2, 2, 3, expected[2:].copy())
    assert np.array_equal(results.close()[0], expected)


@pytest.mark.parametrize("n", [1, LARGE_BYTES // 8])
def test_items_that_were_skipped_get_the_fill_value(tmp_path, n):
    results = GatherResults(mpims.Gather(), 4, tmp_path)
    deliver(results, 1, 0, 4, np.ones((4, n)))
    assert np.isnan(results.close([1, 3])[0]).all(axis=1).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (float, np.full(3, np.nan)),
        ("M8[s]", np.full(3, "NaT", "M8[s]")),
        (int, np.zeros(3, int)),
        (object, [None] * 3),
        (None, [None] * 3),
    ],
    ids=str,
)
def test_where_all_were_skipped_the_result_is_what_was_asked_for(dtype, expected, tmp_path):
    results = GatherResults(mpims.Gather(dtype), 3, tmp_path)
    value, path = results.close([0, 1, 2])
    assert digest(value) == digest(read_result(path)) == digest(expected)


def test_structured_and_small_dtypes(tmp_path):
    for i, dtype in enumerate(["i1", "?", "c16", "M8[s]", "S3", "U2", [("a", "f4"), ("b", "i8", (2,))]]):
        folder = tmp_path / str(i)
        folder.mkdir()
        results = GatherResults(mpims.Gather(), 6, folder)
        expected = np.zeros((6, 2), dtype)
        expected.view(np.uint8)[...] = 1
        deliver(results, 1, 3, 6, expected[3:].copy())
        deliver(results, 2, 0, 3, expected[:3].copy())
        value, _ = results.close()
        assert value.dtype == expected.dtype
        assert value.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["V0", []], ids=str)
def test_results_without_a_byte_are_results(dtype, tmp_path):
    results = GatherResults(mpims.Gather(), 3, tmp_path)
    deliver(results, 1, 0, 3, np.empty(3, dtype))
    value, _ = results.close()
    assert (value.dtype, value.shape) == (np.dtype(dtype), (3,))


def test_forms_that_do_not_fit_are_refused(tmp_path):
    results = GatherResults(mpims.Gather(), 10, tmp_path)
    deliver(results, 1, 0, 2, np.zeros((2, 3)))
    for payload in (np.zeros((2, 4)), np.zeros((2, 3), "f4"), ["a", "b"]):
        with pytest.raises(ResultError, match="elsewhere float64 of shape"):
            deliver(results, 2, 2, 4, payload)
    lists = GatherResults(mpims.Gather(), 10, tmp_path)
    deliver(lists, 1, 0, 2, ["a", "b"])
    with pytest.raises(ResultError, match=r"elsewhere Python objects; .*Gather\(dtype=object\)"):
        deliver(lists, 2, 2, 4, np.zeros(2))


SHUFFLED = np.zeros(2, [("a", "i4"), ("b", "f8")])[["b", "a"]]
"""Fields that lie in another order than they are named: what `table[["b", "a"]]` gives."""


def test_fields_that_no_file_can_hold_are_refused(tmp_path):
    results = GatherResults(mpims.Gather(), 2, tmp_path)
    with pytest.raises(ResultError, match=r"no \.npy file can hold .*repack_fields"):
        deliver(results, 1, 0, 2, np.ascontiguousarray(SHUFFLED))
    assert list(tmp_path.iterdir()) == []


def test_a_reduced_row_that_no_npy_file_can_hold_is_pickled(tmp_path):
    results = ReduceResults(mpims.Reduce(np.add), 1, 1, tmp_path)
    deliver(results, 1, 0, 1, ([(0, 0)], [SHUFFLED[0]]))
    value, path = results.close()
    assert path.name == "result.pkl"
    assert read_result(path) == value == SHUFFLED[0]


def test_a_reduction_takes_only_what_is_committed(tmp_path):
    results = ReduceResults(mpims.Reduce(lambda a, b: a + b), 4, 1, tmp_path)
    payload = ([(1, 0), (0, 2)], ["ab", "c"])
    assert results.units(payload, [Result(1, 0, 3)]) == [((0, 2), (2, 3))]
    deliver(results, 1, 0, 3, payload, ranges=((2, 3),))
    deliver(results, 2, 0, 2, ([(1, 0)], ["AB"]))
    deliver(results, 3, 3, 4, ([(0, 3)], ["d"]))
    assert results.close()[0] == "ABcd"


def test_a_reduced_array_is_an_npy_file(tmp_path):
    results = ReduceResults(mpims.Reduce(np.add), 1, 1, tmp_path)
    deliver(results, 1, 0, 1, ([(0, 0)], [np.float32(1.5)]))
    value, path = results.close()
    assert isinstance(value, np.float32)
    assert np.load(path) == np.float32(1.5)


@pytest.mark.parametrize(
    "value",
    [np.ones((1, 2)).view(np.matrix), np.ma.masked_array([1.0, 2.0], mask=[True, False])],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_reduced_value_of_a_subclass_is_read_as_what_it_is(value, tmp_path):
    results = ReduceResults(mpims.Reduce(np.add), 1, 1, tmp_path)
    deliver(results, 1, 0, 1, ([(0, 0)], [value]))
    last, path = results.close()
    assert path.name == "result.pkl"
    for one in (last, read_result(path)):
        assert type(one) is type(value)
        assert repr(one) == repr(value)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(RunFailed, match="cannot be pickled"):
        write_object(tmp_path, lambda: 0)
    with pytest.raises(Stopped, match=r"cannot write .*x\.npy .*: No such file or directory"):
        write_array(tmp_path / "nowhere" / "x.npy", np.zeros(3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.npy.part", "result.pkl.part"])
def test_a_folder_in_the_way_of_a_result_is_named(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(
        Stopped, match=rf"cannot write .*/{name}: Is a directory; remove that folder and resume"
    ):
        write_object(tmp_path, []) if "pkl" in name else write_array(tmp_path / "x.npy", np.zeros(3))


def test_a_result_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a crash of the machine leaves an empty file beside a summary that says done."""
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append((os.fstat(file).st_size, *os.listdir(tmp_path)))
    )
    write_array(tmp_path / "x.npy", np.zeros(3))
    size = (tmp_path / "x.npy").stat().st_size
    (tmp_path / "x.npy").unlink()
    write_object(tmp_path, [])
    assert synced == [(size, "x.npy.part"), ((tmp_path / "result.pkl").stat().st_size, "result.pkl.part")]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EFBIG, r"File too large; raise the limit of a file's size \(ulimit -f\) and resume"),
        (errno.EMFILE, r"Too many open files; raise the limit of open files \(ulimit -n\) and resume"),
        (errno.EROFS, "Read-only file system; see that it can be written to and resume"),
        (errno.ENOSPC, r"No space left on device, .* MB are free there; free some space and resume"),
    ],
)
def test_what_is_to_be_done_is_what_helps(number, said, tmp_path):
    error = disk_error(OSError(number, os.strerror(number)), tmp_path / "x", 1000)
    assert re.fullmatch(rf"cannot write {tmp_path}/x( of 0\.0 MB)?: {said}", error.message)
