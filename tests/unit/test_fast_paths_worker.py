"""A rank's ways in short beside the plain ones: the same chunks leave it as the same messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpims
from mpims.core.chunks import PLAIN, Assign, AssignAlike, Result
from mpims.options import RunOptions
from mpims.runtime.computing import Computing
from mpims.runtime.parts import GatherPart
from mpims.runtime.wire import (
    RESULTS,
    Kind,
    decode_assign,
    decode_object,
    decode_payload,
    decode_results,
    encode_assign,
    encode_packed,
    encode_results,
    pack_result,
    packed_results,
)

N_ITEMS, BLOCK = 60, 3
ALWAYS_S = 1e6


class Varied(mpims.Job):
    """What becomes of each block is drawn; the kernel has one array that it may use again."""

    block = BLOCK

    def __init__(self, kinds, output):
        super().__init__()
        self.kinds = kinds
        self.output = output
        self.shared = np.empty((BLOCK, 2))

    def items(self):
        return N_ITEMS

    def kernel(self, items):
        rows = np.asarray(items, dtype=float)[:, None] * [1.0, 10.0]
        kind = self.kinds[items.start // BLOCK]
        if kind == "raises":
            raise ValueError(f"not {items.start}")
        if kind == "shared":
            self.shared[:] = rows
            return self.shared
        if kind == "view of shared":
            self.shared[:] = rows
            return self.shared[:]
        return {
            "rows": rows,
            "fortran": np.asfortranarray(rows),
            "swapped": rows.astype(">f8"),
            "short": rows.astype("f4"),
            "wide": np.hstack([rows, rows]),
            "list": rows.tolist(),
            "too few": rows[1:],
            "none": None,
            "one row": rows[0],
            "masked": np.ma.masked_array(rows),
        }[kind]


often = ["rows", "rows", "rows", "shared", "shared", "view of shared", "view of shared", "fortran"]
seldom = ["raises", "swapped", "short", "wide", "list", "too few", "none", "one row", "masked"]


def what_leaves(job, chunks, orders, hold_back_s):
    """The messages of a rank that computes those chunks, without their times."""
    sent = []

    def send(kind, head, buffers):
        sent.append((kind, bytes(head), [bytes(buffer) for buffer in buffers]))

    computing = Computing(
        job,
        range(N_ITEMS),
        BLOCK,
        RunOptions(timeout_s=4 * ALWAYS_S),
        send=send,
        ping=lambda: None,
        patience_s=lambda: ALWAYS_S,
    )
    computing.report_interval_s = ALWAYS_S
    computing.burst_s, computing.hold_back_s = ALWAYS_S if hold_back_s else 0.0, hold_back_s
    computing.add(chunks)
    for order, number, stop in orders:
        if computing.has_work:
            computing.compute()
            order(computing, number, stop)
    while computing.has_work:
        computing.compute()
    computing.report()
    return [told(*message) for message in sent]


def told(kind, head, buffers):
    if kind is not Kind.RESULT:
        failed = decode_object(buffers)
        return kind, failed[:4]
    heads, array = decode_results(head)
    payload = decode_payload(array, buffers)
    form = (payload.dtype.str, payload.shape) if array is not None else None
    return kind, [one[:3] for one in heads], form, [np.asarray(row).tolist() for row in payload]


def trim(computing, number, stop):
    computing.trim(number, stop)


def drop(computing, number, stop):
    computing.drop(number)


def report(computing, number, stop):
    computing.report()


@settings(max_examples=50, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(often * 8 + seldom), min_size=20, max_size=20),
    output=st.sampled_from(
        [mpims.Gather(), mpims.Gather(), mpims.Gather(dtype="f4"), mpims.Gather(dtype=object)]
    ),
    sizes=st.lists(st.sampled_from([1, 1, 1, 1, 1, 1, 2, 3]), min_size=3, max_size=20),
    orders=st.lists(
        st.tuples(st.sampled_from([trim, drop, report]), st.integers(0, 12), st.integers(0, N_ITEMS)),
        max_size=5,
    ),
    hold_back_s=st.sampled_from([0.0, ALWAYS_S, ALWAYS_S]),
)
def test_blocks_like_those_before_leave_as_all_others_do(kinds, output, sizes, orders, hold_back_s):
    chunks, at = [], 0
    for number, n_blocks in enumerate(sizes):
        stop = min(at + n_blocks * BLOCK, N_ITEMS)
        if at < stop:
            chunks.append((number, at, stop, PLAIN))
        at = stop
    left = what_leaves(Varied(kinds, output), chunks, orders, hold_back_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GatherPart, "add_alike", lambda part, n_items, results, is_ours: False)
        plainly = what_leaves(Varied(kinds, output), chunks, orders, hold_back_s)
    assert left == plainly


@given(
    at=st.integers(0, 2**40),
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=9),
    first=st.integers(1, 2**50),
)
def test_chunks_sent_as_one_are_read_as_those_sent_one_by_one(at, sizes, first):
    together, apart = [], []
    for size, n_items in sizes:
        alike = AssignAlike(1, first, at, at + n_items, size)
        together.append(alike)
        apart += alike.singly()
        assert len(alike.singly()) == alike.n_chunks
        first, at = first + alike.n_chunks, at + n_items + 1
    assert all(type(one) is Assign for one in apart)
    assert decode_assign(encode_assign(together)) == decode_assign(encode_assign(apart))
    assert decode_assign(encode_assign(apart)) == [(a.attempt, a.start, a.stop, a.care) for a in apart]


seconds = st.floats(0, 1e9, width=32)


@given(
    st.lists(
        st.tuples(st.integers(1, 2**50), st.integers(0, 2**50), st.integers(1, 9), *[seconds] * 5),
        min_size=1,
        max_size=48,
    ),
    st.booleans(),
)
def test_results_packed_one_by_one_are_read_as_they_were(drawn, is_array):
    results = [Result(n, start, start + size, *times) for n, start, size, *times, _ in drawn]
    clocks = [clock for *_, clock in drawn]
    payload = np.arange(3) if is_array else [1, "two"]
    packed = [pack_result(*one, clock) for one, clock in zip(results, clocks, strict=True)]
    head, buffers = encode_packed(packed, payload)
    assert encode_results(results, payload, clocks) == (head, buffers)
    heads, array = decode_results(head)
    assert heads == results
    assert np.array_equal(decode_payload(array, buffers), payload) or not is_array
    records = np.frombuffer(packed_results(head), RESULTS)
    assert [Result(*row[:-1]) for row in records.tolist()] == results
    assert records["ended_s"].tolist() == clocks
