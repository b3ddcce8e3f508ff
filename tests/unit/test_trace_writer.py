"""Traces are written as they are read, go on after a death, and never stand in the way of a run."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mpims.core.chunks import Assign, AssignAlike, Result
from mpims.runtime.wire import decode_results, encode_assign, encode_results, packed_results
from mpims.storage import tracewriter
from mpims.storage.trace import PART, TRACE, Cause, What, encode_head, read_trace
from mpims.storage.tracewriter import TraceWriter


def packed(*results, ended_s=(7.0, 7.5)):
    return packed_results(encode_results([Result(*one) for one in results], np.zeros(1), ended_s)[0])


def write(folder, n=3, cause=Cause.STARTED):
    writer = TraceWriter(folder, cause, rank=4, host="a", n_workers=3)
    writer.note(What.JOINED, 9.0, rank=1, host="b")
    for i in range(n):
        writer.sent(i + 1, encode_assign([Assign(i + 1, 10 * i, i, i + 1), Assign(i + 1, 9, 0, 5)]), 9.5)
        results = packed((10 * i, i, i + 1, 0.5, 0.375, 0.25), (10 * i + 1, i, i + 1, 1.0))
        writer.delivered(i + 1, results, 10.0 + i, 0.25)
    writer.close()


def test_what_was_written_is_read(tmp_path):
    write(tmp_path)
    (section,) = read_trace(tmp_path).sections
    about = section.began.about
    assert (about["cause"], about["rank"], about["host"], about["n_workers"]) == ("started", 4, "a", 3)
    assert about["wall"] > 1e9
    assert [event.what for event in section.events] == [What.BEGAN, What.JOINED]
    sent, parts = section.sent, section.parts
    assert sent["rank"].tolist() == [1, 1, 2, 2, 3, 3]
    assert sent["attempt"].tolist() == [0, 9, 10, 9, 20, 9]
    assert sent[["start", "stop", "sent_s"]][:2].tolist() == [(0, 1, 9.5), (0, 5, 9.5)]
    assert parts["rank"].tolist() == [1, 1, 2, 2, 3, 3]
    assert parts["attempt"].tolist() == [0, 1, 10, 11, 20, 21]
    assert parts["start"].tolist() == [0, 0, 1, 1, 2, 2]
    assert parts["stop"].tolist() == [1, 1, 2, 2, 3, 3]
    assert parts["busy_s"].tolist() == [0.5, 1.0] * 3
    assert parts["longest_s"].tolist() == [0.375, 0.0] * 3
    assert parts["squares_s2"].tolist() == [0.25, 0.0] * 3
    assert parts["service_s"].tolist() == [0.125] * 6
    assert parts["ended_s"].tolist() == [7.0, 7.5] * 3
    assert parts["received_s"].tolist() == [10.0, 10.0, 11.0, 11.0, 12.0, 12.0]


def test_chunks_handed_out_as_one_are_recorded_one_by_one(tmp_path):
    """The last one is shorter; what comes before and behind is not mixed up with them."""
    writer = TraceWriter(tmp_path)
    alike = AssignAlike(2, 7, 30, 41, 4)
    writer.sent(1, encode_assign([Assign(1, 5, 0, 10)]), 1.0)
    writer.sent(2, encode_assign([alike, Assign(2, 10, 41, 50)]), 2.0)
    writer.close()
    (section,) = read_trace(tmp_path).sections
    expected = [(1, 1.0, Assign(1, 5, 0, 10))]
    expected += [(2, 2.0, one) for one in (*alike.singly(), Assign(2, 10, 41, 50))]
    fields = ["rank", "sent_s", "attempt", "start", "stop"]
    assert section.sent[fields].tolist() == [
        (rank, sent_s, one.attempt, one.start, one.stop) for rank, sent_s, one in expected
    ]
    assert [one.stop - one.start for one in alike.singly()] == [4, 4, 3]


def test_the_clock_does_not_reach_the_scheduler():
    """What is handled at every chunk is not longer than it must be."""
    head, _ = encode_results([Result(1, 0, 2, 0.5), Result(2, 2, 4)], np.zeros(4), [7.0, 8.0])
    results, array = decode_results(head)
    assert results == [Result(1, 0, 2, 0.5), Result(2, 2, 4)]
    assert array is not None
    assert array.shape == (4,)


@pytest.mark.parametrize("n_torn", [0, 1, 7, PART.itemsize])
def test_a_later_master_goes_on_with_it(tmp_path, n_torn):
    write(tmp_path)
    content = (tmp_path / TRACE).read_bytes()
    (tmp_path / TRACE).write_bytes(content + content[len(encode_head()) :][:n_torn])
    write(tmp_path, cause=Cause.RESUMED)
    trace = read_trace(tmp_path)
    assert [section.began.about["cause"] for section in trace.sections] == ["started", "resumed"]
    assert trace.parts["rank"].tolist() == [1, 1, 2, 2, 3, 3] * 2
    assert trace.n_cut_bytes == 0


@pytest.mark.parametrize("content", [b"", b"MPIM", b"something else altogether", b"MPIMST\r\n\x01\0\0\0x"])
def test_what_is_no_trace_is_begun_anew(tmp_path, content):
    (tmp_path / TRACE).write_bytes(content)
    write(tmp_path, 1)
    assert len(read_trace(tmp_path).parts) == 2


def test_it_stops_growing_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(tracewriter, "MOST_BYTES", 4000)
    monkeypatch.setattr(tracewriter, "_MOST_WAITING", 1)
    write(tmp_path, 50)
    (section,) = read_trace(tmp_path).sections
    assert 10 < len(section.parts) < 40
    assert [event.what for event in section.events] == [What.BEGAN, What.JOINED, What.FULL]
    assert (tmp_path / TRACE).stat().st_size < 4000 + 500


def test_events_stop_growing_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tracewriter, "MOST_NOTES_BYTES", 2000)
    writer = TraceWriter(tmp_path)
    for i in range(1000):
        writer.note(What.LOST, float(i), rank=i)
        writer.flush()
    writer.close()
    assert (tmp_path / TRACE).stat().st_size < 4000


def test_a_disk_that_takes_nothing_does_not_matter(tmp_path, monkeypatch):
    writer = TraceWriter(tmp_path / "not there")
    writer.delivered(1, packed((1, 0, 1)), 0.1, 0.1)
    writer.close()
    writer = TraceWriter(tmp_path)
    monkeypatch.setattr(tracewriter.os, "write", lambda *_: os.truncate("/dev/full/not", 0))
    writer.delivered(1, packed((1, 0, 1)), 0.1, 0.1)
    writer.close()
    writer.delivered(1, packed((1, 0, 1)), 0.1, 0.1)
    writer.close()
    assert len(read_trace(tmp_path).parts) == 0


def test_nothing_follows_a_block_that_is_not_whole(tmp_path, monkeypatch):
    """A disk that is full and then is not: what is read up to the tear is right."""
    writer = TraceWriter(tmp_path)
    real = os.write
    monkeypatch.setattr(tracewriter.os, "write", lambda fd, data: real(fd, data[:-5]))
    writer.delivered(1, packed((1, 0, 1)), 0.1, 0.1)
    writer.flush()
    monkeypatch.undo()
    writer.delivered(1, packed((1, 0, 1)), 0.1, 0.1)
    writer.close()
    trace = read_trace(tmp_path)
    assert len(trace.parts) == 0
    assert trace.n_cut_bytes > 0
