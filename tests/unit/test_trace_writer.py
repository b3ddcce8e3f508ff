"""Traces are written as they are read, go on after a death, and never stand in the way of a run."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mpims.core.events import Result
from mpims.runtime.wire import encode_results, packed_results
from mpims.storage import trace
from mpims.storage.trace import HEAD, PART, TRACE, TraceWriter, read_trace


def packed(*results):
    return packed_results(encode_results([Result(*result) for result in results], np.zeros(1))[0])


def write(folder, n=3):
    writer = TraceWriter(folder)
    for i in range(n):
        writer.add(i + 1, packed((10 * i, i, i + 1, 0.5, 0.5, 0.25), (10 * i + 1, i, i + 1, 1.0)), 0.25)
    writer.close()


def test_what_was_written_is_read(tmp_path):
    write(tmp_path)
    parts = read_trace(tmp_path)
    assert parts["rank"].tolist() == [1, 1, 2, 2, 3, 3]
    assert parts["attempt"].tolist() == [0, 1, 10, 11, 20, 21]
    assert parts["start"].tolist() == [0, 0, 1, 1, 2, 2]
    assert parts["stop"].tolist() == [1, 1, 2, 2, 3, 3]
    assert parts["busy_s"].tolist() == [0.5, 1.0] * 3
    assert parts["squares_s2"].tolist() == [0.25, 0.0] * 3
    assert parts["service_s"].tolist() == [0.125] * 6


@pytest.mark.parametrize("n_torn", [0, 1, PART.itemsize - 1])
def test_a_later_master_goes_on_with_it(tmp_path, n_torn):
    write(tmp_path)
    with (tmp_path / TRACE).open("ab") as file:
        file.write(bytes(n_torn))
    write(tmp_path)
    assert read_trace(tmp_path)["rank"].tolist() == [1, 1, 2, 2, 3, 3] * 2


@pytest.mark.parametrize("content", [b"", b"MPIM", b"something else altogether"])
def test_what_is_no_trace_is_begun_anew(tmp_path, content):
    (tmp_path / TRACE).write_bytes(content)
    write(tmp_path, 1)
    assert len(read_trace(tmp_path)) == 2


def test_it_stops_growing(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "MOST_BYTES", HEAD.size + 3 * PART.itemsize)
    monkeypatch.setattr(trace, "_MOST_WAITING", 1)
    write(tmp_path, 50)
    assert len(read_trace(tmp_path)) == 4


def test_a_disk_that_takes_nothing_does_not_matter(tmp_path, monkeypatch):
    writer = TraceWriter(tmp_path / "not there")
    writer.add(1, packed((1, 0, 1)), 0.1)
    writer.close()
    writer = TraceWriter(tmp_path)
    monkeypatch.setattr(trace.os, "write", lambda *_: os.truncate("/dev/full/not", 0))
    writer.add(1, packed((1, 0, 1)), 0.1)
    writer.close()
    writer.add(1, packed((1, 0, 1)), 0.1)
    writer.close()
    assert len(read_trace(tmp_path)) == 0
