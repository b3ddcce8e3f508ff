"""Memory is used again when nothing lies in it any more, and never before."""

from __future__ import annotations

import numpy as np
import pytest

from mpims.runtime.buffers import LEAST_BYTES, MOST_BYTES, Buffers
from mpims.runtime.wire import Result, encode_results


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", ["f8", "i1", "c16", "M8[s]", "S5", [("a", "f4"), ("b", "i2", (3,))]])
@pytest.mark.parametrize("n", [0, 1, 100_000])
def test_a_copy_is_a_copy(dtype, n):
    array = np.zeros((n, 2), dtype)
    if n:
        array.view(np.uint8)[...] = np.random.default_rng(1).integers(65, 90, array.view(np.uint8).shape)
    copied = Buffers().copy(array.T)
    assert copied.dtype == array.dtype
    assert np.array_equal(copied, array.T)
    assert copied.flags.c_contiguous
    assert not np.shares_memory(copied, array)


def test_memory_is_used_again_once_nothing_lies_in_it():
    buffers, array = Buffers(), np.arange(LEAST_BYTES, dtype=np.float64)
    first = buffers.copy(array)
    place = address(first)
    second = buffers.copy(array)
    assert address(second) != place
    del first
    assert address(buffers.copy(array + 1)) == place
    assert np.array_equal(second, array)


def test_what_is_being_sent_is_left_alone():
    """All that a message has of an array are views of its bytes."""
    buffers, array = Buffers(), np.arange(LEAST_BYTES, dtype=np.float64)
    copied = buffers.copy(array)
    _, sent = encode_results([Result(1, 0, len(array))], copied)
    del copied
    other = buffers.copy(array + 1)
    assert bytes(sent[0]) == array.tobytes()
    assert np.array_equal(other, array + 1)
    del sent
    third = buffers.copy(array + 2)
    assert np.array_equal(other, array + 1)
    assert np.array_equal(third, array + 2)


def test_it_does_not_hoard():
    buffers = Buffers()
    held = [buffers.empty((MOST_BYTES // 4,), np.dtype("i1")) for _ in range(9)]
    assert sum(buffer.nbytes for buffer in buffers._all) <= MOST_BYTES
    assert len({address(array) for array in held}) == 9
