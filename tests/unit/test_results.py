"""From delivered parts to the result: in place or copied, in any order, twice, cut."""

from __future__ import annotations

import numpy as np
import pytest

import mpims
from mpims.core.events import Result
from mpims.errors import RunFailed, Stopped
from mpims.runtime.parts import ResultError
from mpims.runtime.wire import decode_payload, decode_results, encode_results
from mpims.storage.results import GatherResults, ReduceResults, write_array, write_object


def deliver(results, attempt, start, stop, payload, ranges=None, in_place=True):
    """What the master does with a RESULT: find its place, receive, commit."""
    head = Result(attempt, start, stop)
    head_bytes, buffers = encode_results([head], payload)
    array = decode_results(head_bytes)[1]
    place = results.place(head, array) if in_place else None
    if place is not None:
        place[:] = buffers[0]
        buffers = [place]
    results.commit(head, decode_payload(array, buffers), ranges or ((start, stop),))
    return place


def test_parts_in_any_order_make_the_whole(tmp_path):
    expected = np.random.default_rng(0).normal(size=(20, 3))
    results = GatherResults(mpims.Gather(), 20, tmp_path)
    for i, (start, stop) in enumerate([(15, 20), (0, 4), (9, 15), (4, 9)]):
        place = deliver(results, i, start, stop, expected[start:stop].copy(), in_place=i % 2 == 0)
        assert (place is not None) == (i % 2 == 0)
    value, path = results.close()
    assert np.array_equal(value, expected)
    assert path.name == "result.npy"
    assert [p.name for p in tmp_path.iterdir()] == ["result.npy"]


def test_only_the_committed_ranges_of_a_copied_part_are_taken(tmp_path):
    results = GatherResults(mpims.Gather(), 10, tmp_path)
    deliver(results, 1, 0, 10, np.zeros(10))
    deliver(results, 2, 2, 8, np.ones(6), ranges=((3, 4), (6, 8)), in_place=False)
    value, _ = results.close()
    assert value.tolist() == [0, 0, 0, 1, 0, 0, 1, 1, 0, 0]


def test_a_part_in_place_does_not_hide_a_copied_one(tmp_path):
    """One part is placed and never committed (its rank died); another one's copy must be taken."""
    results = GatherResults(mpims.Gather(), 4, tmp_path)
    head, _ = encode_results([Result(1, 0, 2)], np.array([7.0, 7.0]))
    (result,), array = decode_results(head)
    assert results.place(result, array) is not None
    deliver(results, 2, 0, 4, np.arange(4.0), in_place=False)
    assert results.close()[0].tolist() == [0, 1, 2, 3]


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


def test_forms_that_do_not_fit_are_refused(tmp_path):
    results = GatherResults(mpims.Gather(), 10, tmp_path)
    deliver(results, 1, 0, 2, np.zeros((2, 3)))
    for payload in (np.zeros((2, 4)), np.zeros((2, 3), "f4"), ["a", "b"]):
        with pytest.raises(ResultError, match="elsewhere float64 of shape"):
            deliver(results, 2, 2, 4, payload)
    lists = GatherResults(mpims.Gather(), 10, tmp_path)
    deliver(lists, 1, 0, 2, ["a", "b"])
    with pytest.raises(ResultError, match="elsewhere Python objects"):
        deliver(lists, 2, 2, 4, np.zeros(2))


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


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(RunFailed, match="cannot be pickled"):
        write_object(tmp_path, lambda: 0)
    with pytest.raises(Stopped, match=r"cannot write .*x\.npy .*: No such file or directory"):
        write_array(tmp_path / "nowhere" / "x.npy", np.zeros(3))
    assert list(tmp_path.iterdir()) == []
