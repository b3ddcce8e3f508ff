"""A worker message by message, over the local transport."""

from __future__ import annotations

import numpy as np
import pytest

import mpims
from mpims.runtime.transport.local import local_transports
from mpims.runtime.wire import (
    End,
    Kind,
    Start,
    decode_object,
    decode_payload,
    decode_result_head,
    encode_assign,
    encode_object,
    encode_recall,
)
from mpims.runtime.worker import Worker


class Doubles(mpims.Job):
    """Twice each index; remembers which blocks were computed."""

    n: int = 100
    block = 10

    def items(self):
        return self.n

    def setup(self):
        self.computed = []

    def kernel(self, items):
        self.computed.append((items.start, items.stop))
        return 2 * np.asarray(items)


@pytest.fixture
def started():
    """A joined worker, its job, and the master's end of the transport."""
    master, end = local_transports(2)
    job = Doubles()
    worker = Worker(end, lambda start: job)
    start = Start(source=None, parameters={}, seed=0, report_interval_s=100.0)
    master.send(1, Kind.START, b"", encode_object(start))
    worker.step(0.0)
    message = master.receive(0.0)
    assert message.kind is Kind.JOINED
    assert decode_object(message.buffers).n_items == 100
    return worker, job, master


def assign(master, number, start, stop):
    master.send(1, Kind.ASSIGN, encode_assign(number, start, stop))


def drive(worker, n_steps=50):
    """Let the worker take in what there is and compute."""
    for _ in range(n_steps):
        worker._last_look = 0.0  # look every time
        worker.step(0.0)


def results(master):
    """Every RESULT that has come: attempt, start, stop and values."""
    found = []
    while (message := master.receive(0.0)) is not None:
        assert message.kind is Kind.RESULT
        head = decode_result_head(message.head)
        values = decode_payload(head.array, message.buffers)
        found.append((head.attempt, head.start, head.stop, values.tolist()))
        assert head.busy_s > 0
    return found


def test_chunks_are_computed_in_order_block_by_block(started):
    worker, job, master = started
    assign(master, 1, 0, 30)
    assign(master, 2, 95, 100)
    drive(worker)
    assert job.computed == [(0, 10), (10, 20), (20, 30), (95, 100)]
    assert results(master) == [
        (1, 0, 30, list(range(0, 60, 2))),
        (2, 95, 100, list(range(190, 200, 2))),
    ]


def test_a_recalled_chunk_is_not_begun(started):
    worker, job, master = started
    assign(master, 1, 0, 10)
    assign(master, 2, 50, 60)
    master.send(1, Kind.RECALL, encode_recall(2))
    drive(worker)
    assert job.computed == [(0, 10)]
    assert [r[0] for r in results(master)] == [1]


def test_a_recalled_chunk_is_dropped_where_it_is(started):
    """What of it was computed and not sent must not get into the next chunk's results."""
    worker, job, master = started
    assign(master, 1, 0, 100)
    drive(worker, 4)
    assert 1 <= len(job.computed) <= 4
    master.send(1, Kind.RECALL, encode_recall(1))
    assign(master, 2, 60, 70)
    drive(worker)
    assert results(master) == [(2, 60, 70, list(range(120, 140, 2)))]


def test_a_long_chunk_reports_as_it_goes(started):
    worker, _, master = started
    worker._report_interval_s = 0.0
    assign(master, 1, 0, 30)
    drive(worker)
    assert [r[:3] for r in results(master)] == [(1, 0, 10), (1, 10, 20), (1, 20, 30)]


def test_large_results_leave_in_parts(started, monkeypatch):
    worker, _, master = started
    monkeypatch.setattr("mpims.runtime.worker.PART_BYTES", 2 * 10 * 8)
    assign(master, 1, 0, 50)
    drive(worker)
    assert [r[:3] for r in results(master)] == [(1, 0, 20), (1, 20, 40), (1, 40, 50)]


def test_nothing_more_is_computed_while_results_pile_up(started, monkeypatch):
    worker, job, master = started
    n_unsent = 1 << 40
    monkeypatch.setattr(type(worker._transport), "unsent_bytes", property(lambda self: n_unsent))
    assign(master, 1, 0, 30)
    drive(worker)
    assert job.computed == []
    n_unsent = 0
    drive(worker)
    assert job.computed == [(0, 10), (10, 20), (20, 30)]


def test_the_end_ends_it_with_work_left(started):
    worker, _, master = started
    assign(master, 1, 0, 100)
    master.send(1, Kind.END, b"", encode_object(End(status=1, message="why")))
    drive(worker, 5)
    assert worker.run() == End(status=1, message="why")
    kinds = []
    while (message := master.receive(0.0)) is not None:
        kinds.append(message.kind)
    assert kinds[-1] is Kind.GOODBYE


def test_the_loss_of_the_master_ends_it():
    _, end = local_transports(2)
    worker = Worker(end, lambda start: Doubles())
    end._inboxes[1].put(mpims.runtime.wire.Message(Kind.LOST, 0, b"", []))
    assert worker.run() == End(status=1, message="rank 0, the master, is lost")
