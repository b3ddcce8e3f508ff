"""A worker message by message, over the local transport: for one master, and from one to the next."""

from __future__ import annotations

import errno
import json
import os
import threading
import time

import numpy as np
import pytest

import mpims
from mpims.core.chunks import PLAIN, Assign, AssignAlike, Care, Held
from mpims.errors import Stopped
from mpims.options import RunOptions
from mpims.processes import this_process
from mpims.runtime import masterwatch
from mpims.runtime.computing import REPORTS_PER_TIMEOUT
from mpims.runtime.kept import KeptMessages
from mpims.runtime.transport.local import LocalTransport, local_transports
from mpims.runtime.wire import (
    MOST_RESULTS,
    End,
    Kind,
    Message,
    Start,
    decode_assign,
    decode_object,
    decode_payload,
    decode_results,
    encode_assign,
    encode_object,
    encode_recall,
    encode_trim,
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
        self.n_setups = getattr(self, "n_setups", 0) + 1

    def kernel(self, items):
        self.computed.append((items.start, items.stop))
        return 2 * np.asarray(items)


class Picky(Doubles):
    """One item raises, and so does every block that has it."""

    bad: int = 13

    def kernel(self, items):
        if self.bad in items:
            self.computed.append((items.start, items.stop))
            raise ValueError(f"not {self.bad}")
        return super().kernel(items)


def start_of(epoch=0, run_id="run-1", **options):
    """What a master says at the beginning."""
    options = {"timeout_s": 400.0, **options}  # so that no report falls due by itself
    return Start(
        source=None,
        parameters={},
        options=RunOptions(**options),
        run_id=run_id,
        epoch=epoch,
        run_dir="nowhere",
        command=(),
        master=this_process(),
    )


def begin(job, n_ranks=2, rank=1, **options):
    """A joined worker of a rank, and the transports of the others by their ranks."""
    transports = local_transports(n_ranks)
    worker = Worker(transports[rank], lambda start: job)
    say(transports[0], rank, Kind.START, start_of(**options))
    worker.step(0.0)
    message = transports[0].receive(0.0)
    assert message.kind is Kind.JOINED
    joined = decode_object(message.buffers)
    assert (joined.n_items, joined.holding) == (job.n, ())
    worker._computing.report_interval_s = 100.0
    worker._computing.burst_s = worker._computing.hold_back_s = 0.0
    return worker, transports


@pytest.fixture
def started():
    """A joined worker, its job, and the master's end of the transport."""
    job = Doubles()
    worker, transports = begin(job)
    return worker, job, transports[0]


def say(transport: LocalTransport, rank: int, kind: Kind, value=None):
    transport.send(rank, kind, b"", () if value is None else encode_object(value))


def assign(master, number, start, stop, care=PLAIN, rank=1):
    master.send(rank, Kind.ASSIGN, encode_assign([Assign(rank, number, start, stop, care)]))


def look(worker):
    """Take in what has come, every time."""
    worker.step(0.0)


def drive(worker, n_steps=50):
    """Let the worker take in what there is and compute."""
    for _ in range(n_steps):
        look(worker)


def messages(transport):
    """Everything that has come to a rank."""
    found = []
    while (message := transport.receive(0.0)) is not None:
        found.append(message)
    return found


def result_of(message):
    """Attempt, start, stop and values of a RESULT."""
    (head,), array = decode_results(message.head)
    payload = decode_payload(array, message.buffers)
    return head.attempt, head.start, head.stop, payload if payload is None else payload.tolist()


def results(master):
    """Every RESULT that has come; nothing else may have."""
    found = []
    for message in messages(master):
        assert message.kind is Kind.RESULT
        assert decode_results(message.head)[0][0].busy_s > 0
        found.append(result_of(message))
    return found


def doubled(start, stop):
    return list(range(2 * start, 2 * stop, 2))


# ------------------------------------------------------------------ whose memory a result is


class Given(Doubles):
    """A job whose results are what `make` gives."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def kernel(self, items):
        return self.make(np.asarray(items, dtype=np.float64))


def sent_of(make, n_items=6):
    """What arrives of a job in single items, all delivered at the end."""
    worker, (master, _) = begin(Given(make))
    worker._computing.burst_s = worker._computing.hold_back_s = 100.0
    for i in range(n_items):
        assign(master, i + 1, i, i + 1)
    drive(worker)
    return np.concatenate(
        [decode_payload(decode_results(m.head)[1], m.buffers) for m in messages(master)]
    ).tolist()


def test_an_array_that_the_kernel_uses_again_is_copied():
    own = np.zeros(1)

    def make(items):
        own[:] = items
        return own

    assert sent_of(make) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_view_of_an_array_that_the_kernel_uses_again_is_copied():
    own = np.zeros((2, 1))

    def make(items):
        own[0] = items
        return own[0]

    assert sent_of(make) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_an_array_that_the_kernel_keeps_is_copied():
    kept = []

    def make(items):
        kept.append(items.copy())
        for array in kept[:-1]:
            array[:] = -1.0
        return kept[-1]

    assert sent_of(make) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_an_array_in_memory_of_others_is_copied():
    memory = bytearray(8)

    def make(items):
        array = np.ndarray((1,), np.float64, memory)
        array[:] = items
        return array

    assert sent_of(make) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_an_array_that_nobody_else_has_is_sent_as_it_is():
    addresses = []

    def make(items):
        array = np.full((1, 1000), items[0])
        addresses.append(array.ctypes.data)
        return array

    worker, (master, _) = begin(Given(make))
    for i in range(3):
        assign(master, i + 1, i, i + 1)
        drive(worker)
    sent = [np.frombuffer(kept.buffers[0]) for kept in worker._kept]
    assert [array[0] for array in sent] == [0.0, 1.0, 2.0]
    assert [array.ctypes.data for array in sent] == addresses


def test_an_array_in_fortran_order_arrives_as_it_is():
    assert (
        sent_of(lambda items: np.asfortranarray(np.arange(6.0).reshape(1, 2, 3)))
        == [np.arange(6.0).reshape(2, 3).tolist()] * 6
    )


# ------------------------------------------------------------------ blocks in a child


class Endless(Doubles):
    """A job whose blocks do not end."""

    def kernel(self, items):
        threading.Event().wait()


def test_the_time_in_which_a_rank_was_suspended_is_no_silence_of_its_child():
    timeout_s = 0.2
    worker, (master, _) = begin(Endless(), timeout_s=timeout_s)
    worker._computing.report_interval_s = timeout_s / REPORTS_PER_TIMEOUT
    assign(master, 1, 0, 10, Care.ISOLATED)
    look(worker)
    time.sleep(2 * timeout_s)  # a batch system suspends all processes of the job
    look(worker)
    assert Kind.FAILED not in [message.kind for message in messages(master)]
    until = time.monotonic() + 20
    while not (failed := [m for m in messages(master) if m.kind is Kind.FAILED]):
        assert time.monotonic() < until
        look(worker)
    assert "no answer for 0.2 s: killed" in decode_object(failed[0].buffers).reason


def test_a_rank_that_cannot_have_a_child_ends_the_run_and_not_itself(started, monkeypatch):
    def fork():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    worker, job, master = started
    assign(master, 1, 0, 20, Care.ISOLATED)
    drive(worker)
    (message,) = messages(master)
    failed = decode_object(message.buffers)
    assert (failed.attempt, failed.start, failed.stop, failed.is_final) == (1, 0, 10, True)
    assert "no child process to compute it in, see ulimit -u and the memory: Resource" in failed.reason
    assert not job.computed
    assert not worker.has_work


# ------------------------------------------------------------------ chunks in batches


def deliveries(message):
    """Attempts and values of a RESULT that holds several."""
    heads, array = decode_results(message.head)
    payload = decode_payload(array, message.buffers)
    return [(head.attempt, head.start, head.stop) for head in heads], payload


@pytest.fixture
def patient(started):
    """A worker that keeps results back as long as it has more to compute."""
    worker, job, master = started
    worker._computing.burst_s = worker._computing.hold_back_s = 100.0
    return worker, job, master


def test_results_of_short_chunks_leave_together_before_the_last_is_begun(patient):
    worker, job, master = patient
    master.send(1, Kind.ASSIGN, encode_assign([Assign(1, i, 10 * i, 10 * i + 10) for i in (1, 2, 3, 5)]))
    look(worker)
    (message,) = messages(master)
    attempts, payload = deliveries(message)
    assert attempts == [(1, 10, 20), (2, 20, 30), (3, 30, 40)]
    assert payload.tolist() == doubled(10, 40)
    look(worker)
    assert results(master) == [(5, 50, 60, doubled(50, 60))]
    assert job.computed == [(10, 20), (20, 30), (30, 40), (50, 60)]


def test_chunks_that_were_handed_out_as_one_are_several(patient):
    worker, job, master = patient
    alike = AssignAlike(1, 7, 10, 45, 10)
    apart = encode_assign(alike.singly())
    assert decode_assign(encode_assign([alike])) == decode_assign(apart)
    master.send(1, Kind.ASSIGN, encode_assign([alike]))
    drive(worker, 2)
    delivered = [attempt for message in messages(master) for attempt in deliveries(message)[0]]
    assert delivered == [(7, 10, 20), (8, 20, 30), (9, 30, 40), (10, 40, 45)]
    assert job.computed == [(10, 20), (20, 30), (30, 40), (40, 45)]


def test_a_result_tells_what_passed_since_the_chunk_before(started):
    """The first one of a rank tells nothing, nor does a part that follows another of its chunk."""
    worker, _, master = started
    assign(master, 1, 0, 10)
    drive(worker)
    time.sleep(0.02)
    worker._computing.report_interval_s = 0.0  # each block is a part
    assign(master, 2, 10, 30)
    drive(worker)
    heads = [head for message in messages(master) for head in decode_results(message.head)[0]]
    assert [(head.attempt, head.start) for head in heads] == [(1, 0), (2, 10), (2, 20)]
    assert [head.overhead_s > 0 for head in heads] == [False, True, False]
    assert 0.02 <= heads[1].overhead_s < 10


def test_the_time_since_a_dropped_chunk_is_told_too(patient):
    worker, _, master = patient
    worker._computing.burst_s = 0.0
    assign(master, 1, 0, 20)
    look(worker)
    master.send(1, Kind.RECALL, encode_recall(1))
    assign(master, 2, 30, 40)
    drive(worker)
    (head,) = [head for message in messages(master) for head in decode_results(message.head)[0]]
    assert (head.attempt, head.start) == (2, 30)
    assert head.overhead_s > 0


def test_many_results_do_not_wait(patient):
    worker, _, master = patient
    chunks = [Assign(1, i + 1, 0, 10) for i in range(2 * MOST_RESULTS)]
    master.send(1, Kind.ASSIGN, encode_assign(chunks))
    drive(worker, 5)
    counts = [len(deliveries(message)[0]) for message in messages(master)]
    assert counts == [MOST_RESULTS, MOST_RESULTS - 1, 1]


def test_results_are_not_kept_back_for_long(started):
    worker, _, master = started  # keeps them for no time at all
    master.send(1, Kind.ASSIGN, encode_assign([Assign(1, i, 0, 10) for i in range(1, 6)]))
    drive(worker)
    assert [r[0] for r in results(master)] == [1, 2, 3, 4, 5]


def test_what_was_kept_back_is_delivered_when_the_next_chunk_fails():
    worker, (master, _) = begin(Picky())
    worker._computing.burst_s = worker._computing.hold_back_s = 100.0
    chunks = [Assign(1, 1, 0, 10), Assign(1, 2, 10, 20), Assign(1, 3, 20, 30)]
    master.send(1, Kind.ASSIGN, encode_assign(chunks))
    drive(worker, 3)
    first, failed, last = messages(master)
    assert result_of(first) == (1, 0, 10, doubled(0, 10))
    assert (failed.kind, decode_object(failed.buffers).attempt) == (Kind.FAILED, 2)
    assert result_of(last) == (3, 20, 30, doubled(20, 30))


@pytest.mark.parametrize("order", ["drop", "drain", "trim"])
def test_what_was_kept_back_outlives_orders(order, patient):
    worker, _, master = patient
    worker._computing.burst_s = 0.0
    assign(master, 1, 0, 10)
    assign(master, 2, 10, 40)
    assign(master, 3, 40, 50)
    drive(worker, 2)  # the first is kept back, a block of the second is in hand
    assert results(master) == []
    computing = worker._computing
    if order == "drop":
        computing.drop(2)
        drive(worker, 1)
        assert results(master) == [(1, 0, 10, doubled(0, 10)), (3, 40, 50, doubled(40, 50))]
    elif order == "drain":
        computing.report()
        attempts, payload = deliveries(*messages(master))
        assert attempts == [(1, 0, 10), (2, 10, 20)]
        assert payload.tolist() == doubled(0, 20)
    else:
        computing.trim(2, 20)
        attempts, _ = deliveries(*messages(master))
        assert attempts == [(1, 0, 10), (2, 10, 20)]


def test_a_master_that_dies_loses_nothing_of_what_was_kept_back(patient):
    worker, _, master = patient
    worker._computing.burst_s = 0.0
    for number in (1, 2, 3):
        assign(master, number, 10 * number, 10 * number + 10)
    drive(worker, 1)
    assert results(master) == []
    lose(worker, 0)
    look(worker)
    inherited = [attempt for m in worker.inheritance() for attempt in deliveries(m)[0]]
    assert inherited == [(1, 10, 20)]


def test_reduced_chunks_of_one_message_stay_apart():
    class Sum(Doubles):
        output = mpims.Reduce(np.add)

    worker, (master, _) = begin(Sum())
    worker._computing.burst_s = worker._computing.hold_back_s = 100.0
    chunks = [Assign(1, 1, 0, 30), Assign(1, 2, 30, 40), Assign(1, 3, 50, 60)]
    master.send(1, Kind.ASSIGN, encode_assign(chunks))
    look(worker)
    (message,) = messages(master)
    attempts, payload = deliveries(message)
    assert attempts == [(1, 0, 30), (2, 30, 40)]
    assert payload == [([(1, 0), (0, 2)], [380, 490]), ([(0, 3)], [690])]


# -------------------------------------------------------------------------- one master


def test_chunks_are_computed_in_order_block_by_block(started):
    worker, job, master = started
    assign(master, 1, 0, 30)
    assign(master, 2, 95, 100)
    drive(worker)
    assert job.computed == [(0, 10), (10, 20), (20, 30), (95, 100)]
    assert results(master) == [(1, 0, 30, doubled(0, 30)), (2, 95, 100, doubled(95, 100))]


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
    assert results(master) == [(2, 60, 70, doubled(60, 70))]


@pytest.mark.parametrize(("stop", "computed"), [(50, 50), (20, 20), (10, 20), (100, 100), (1000, 100)])
def test_a_trimmed_chunk_ends_there_or_where_it_is(stop, computed, started):
    worker, _, master = started
    assign(master, 1, 0, 100)
    drive(worker, 2)
    master.send(1, Kind.TRIM, encode_trim(1, stop))
    drive(worker)
    assert results(master) == [(1, 0, computed, doubled(0, computed))]
    assert not worker.has_work


def test_a_worker_that_is_drained_delivers_what_it_has_and_drops_the_rest(started):
    worker, job, master = started
    assign(master, 1, 0, 100)
    assign(master, 2, 50, 60)
    drive(worker, 3)
    say(master, 1, Kind.DRAIN)
    drive(worker)
    *delivered, drained = messages(master)
    assert drained.kind is Kind.DRAINED
    assert [result_of(m) for m in delivered] == [(1, 0, 30, doubled(0, 30))]
    assert job.computed == [(0, 10), (10, 20), (20, 30)]


def test_a_long_chunk_reports_as_it_goes(started):
    worker, _, master = started
    worker._computing.report_interval_s = 0.0
    assign(master, 1, 0, 30)
    drive(worker)
    assert [r[:3] for r in results(master)] == [(1, 0, 10), (1, 10, 20), (1, 20, 30)]


def test_large_results_leave_in_parts(started, monkeypatch):
    worker, _, master = started
    monkeypatch.setattr("mpims.runtime.computing.PART_BYTES", 2 * 10 * 8)
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
    say(master, 1, Kind.END, End(status=1, message="why", lost=(0,)))
    drive(worker, 5)
    assert worker.run() == End(status=1, message="why", lost=(0,))
    assert worker._transport.lost == {0}
    assert messages(master)[-1].kind is Kind.GOODBYE


def test_what_follows_the_end_is_left_for_the_next_run(started):
    worker, _, master = started
    say(master, 1, Kind.END, End(status=0))
    say(master, 1, Kind.START, start_of(run_id="run-2"))
    assert worker.run() == End(status=0)
    assert worker.start.run_id == "run-1"
    assert [m.kind for m in messages(worker._transport)] == [Kind.START]


def test_a_dismissed_worker_leaves_without_an_end():
    master, end = local_transports(2)
    worker = Worker(end, lambda start: Doubles())
    say(master, 1, Kind.DISMISS, (7,))
    assert worker.run() is None
    assert worker.dismissed
    assert end.lost == {7}


def test_a_failed_block_is_told_and_the_rest_computed():
    job = Picky()
    worker, (master, _) = begin(job)
    assign(master, 1, 0, 40)
    drive(worker)
    before, failure, after = messages(master)
    assert result_of(before) == (1, 0, 10, doubled(0, 10))
    failed = decode_object(failure.buffers)
    assert (failed.attempt, failed.start, failed.stop, failed.is_final) == (1, 10, 20, False)
    assert failed.reason == "ValueError: not 13"
    assert "raise ValueError" in failed.detail
    assert result_of(after) == (1, 20, 40, doubled(20, 40))
    assert not worker.has_work


# --------------------------------------------------------------------------- item by item


def test_a_block_tried_item_by_item_leaves_out_the_item_at_fault():
    job = Picky()
    worker, (master, _) = begin(job, on_error="skip", retries=1)
    assign(master, 5, 10, 20, Care.ITEMWISE)
    drive(worker)
    assert job.computed == [(i, i + 1) for i in (10, 11, 12, 13, 13, *range(14, 20))]
    skipped, result = messages(master)
    attempt, items = decode_object(skipped.buffers)
    assert skipped.kind is Kind.SKIPPED
    assert attempt == 5
    assert [(s.item, s.n_tries, s.reason) for s in items] == [(13, 2, "ValueError: not 13")]
    assert result_of(result) == (5, 10, 20, [0 if i == 13 else 2 * i for i in range(10, 20)])
    assert not worker.has_work


def test_without_skipping_the_item_at_fault_ends_it():
    worker, (master, _) = begin(Picky(), retries=2)
    assign(master, 5, 10, 20, Care.ITEMWISE)
    drive(worker)
    (message,) = messages(master)
    failed = decode_object(message.buffers)
    assert (failed.attempt, failed.start, failed.stop, failed.is_final) == (5, 13, 14, True)
    assert failed.reason == "ValueError: not 13 (alone, tried 3 times)"


def test_a_block_of_which_no_item_fails_alone_is_computed_whole_again():
    class Once(Doubles):
        n_left: int = 0

        def kernel(self, items):
            return super().kernel(items) + (0 if len(items) > 1 else 1000)

    worker, (master, _) = begin(Once())
    assign(master, 5, 10, 20, Care.ITEMWISE)
    drive(worker)
    assert results(master) == [(5, 10, 20, doubled(10, 20))]


def test_a_block_that_fails_whole_only_gets_the_results_of_its_items():
    class NoBlocks(Doubles):
        def kernel(self, items):
            if len(items) > 1:
                raise MemoryError("too many")
            return super().kernel(items)

    worker, (master, _) = begin(NoBlocks())
    assign(master, 5, 10, 20, Care.ITEMWISE)
    drive(worker)
    assert results(master) == [(5, 10, 20, doubled(10, 20))]


def test_a_block_without_a_single_result_is_delivered_empty():
    class Never(Doubles):
        def kernel(self, items):
            raise ValueError("never")

    worker, (master, _) = begin(Never(), on_error="skip", retries=0)
    assign(master, 5, 10, 20, Care.ITEMWISE)
    drive(worker)
    skipped, result = messages(master)
    assert [s.item for s in decode_object(skipped.buffers)[1]] == list(range(10, 20))
    assert result_of(result) == (5, 10, 20, None)


def test_a_result_that_fits_no_array_is_the_items_fault():
    class Unfit(Doubles):
        output = mpims.Gather(dtype=float)

        def kernel(self, items):
            return ["x" if i == 13 else 2.0 * i for i in items]

    worker, (master, _) = begin(Unfit(), on_error="skip", retries=0)
    assign(master, 5, 10, 20, Care.ITEMWISE)
    drive(worker)
    skipped, result = messages(master)
    (item,) = decode_object(skipped.buffers)[1]
    assert item.item == 13
    assert item.reason.startswith("ValueError: could not convert string to float")
    assert result_of(result)[3] == [0 if i == 13 else 2.0 * i for i in range(10, 20)]


@pytest.mark.parametrize("made", [np.asarray, list], ids=["array", "list"])
@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (mpims.Gather(), [[10], [11], [12], [0], [14]]),
        (mpims.Gather(dtype="i4"), [[10], [11], [12], [0], [14]]),
        (mpims.Gather(dtype=object), [[10], [11], [12], None, [14]]),
        (mpims.Reduce(np.add), [[47]]),
    ],
    ids=str,
)
def test_a_kernel_that_is_tried_item_by_item_may_use_its_array_again(output, expected, made):
    class Reusing(Picky):
        def setup(self):
            super().setup()
            self.rows = np.empty((5, 1), int)

        def kernel(self, items):
            self.rows[: len(items), 0] = items
            super().kernel(items)
            return made(self.rows[: len(items)])

    Reusing.output = output
    Reusing.block = 5
    worker, (master, _) = begin(Reusing(), on_error="skip", retries=0)
    assign(master, 5, 10, 15, Care.ITEMWISE)
    drive(worker)
    _, result = messages(master)
    payload = decode_payload(decode_results(result.head)[1], result.buffers)
    values = payload[1] if isinstance(output, mpims.Reduce) else payload
    assert [None if value is None else value.tolist() for value in values] == expected


# ------------------------------------------------------------------- from master to master


def lose(worker, *ranks):
    """What a transport does that notices a death."""
    transport = worker._transport
    for rank in ranks:
        transport.lost.add(rank)
        transport._inboxes[transport.rank].put(Message(Kind.LOST, rank, b"", []))


def test_the_lowest_rank_alive_leads_when_the_master_is_lost(started):
    worker, job, master = started
    assign(master, 1, 0, 40)
    assign(master, 2, 50, 60)
    drive(worker, 2)
    lose(worker, 0)
    look(worker)
    assert worker.run() is None
    assert worker.must_lead
    assert not worker.dismissed
    assert worker.start == start_of()
    assert worker.job is job
    assert len(worker.items) == 100
    (inherited,) = worker.inheritance()
    assert inherited.source == 1
    assert inherited.kind is Kind.RESULT
    assert result_of(inherited) == (1, 0, 20, doubled(0, 20))
    assert not worker.has_work


def test_the_inheritance_is_also_what_was_sent_last():
    worker, (master, _) = begin(Picky(), on_error="skip", retries=0)
    assign(master, 1, 0, 30)
    assign(master, 2, 10, 20, Care.ITEMWISE)
    drive(worker)
    sent = messages(master)
    lose(worker, 0)
    look(worker)
    inherited = worker.inheritance()
    assert [m.kind for m in inherited] == [
        Kind.RESULT, Kind.FAILED, Kind.RESULT, Kind.SKIPPED, Kind.RESULT,
    ]  # fmt: skip
    assert [(m.kind, m.head, [bytes(b) for b in m.buffers]) for m in inherited] == [
        (m.kind, m.head, [bytes(b) for b in m.buffers]) for m in sent
    ]


def test_a_rank_leads_that_has_not_begun():
    _, end = local_transports(2)
    worker = Worker(end, lambda start: Doubles())
    lose(worker, 0)
    assert worker.run() is None
    assert worker.must_lead
    assert worker.start is None
    assert worker.inheritance() == []


def test_a_rank_whose_master_was_lost_before_leads_at_once():
    _, end = local_transports(2)
    end.lost.add(0)
    assert Worker(end, lambda start: Doubles()).must_lead


def test_a_start_of_a_master_that_is_dead_by_now_is_not_followed():
    _, heir, end = local_transports(3)
    worker = Worker(end, lambda start: Doubles())
    lose(worker, 0)
    end._inboxes[2].put(Message(Kind.START, 0, b"", encode_object(start_of())))
    look(worker)
    assert worker.start is None
    say(heir, 2, Kind.START, start_of(epoch=1))
    look(worker)
    assert worker.start == start_of(epoch=1)


def test_a_master_to_be_that_could_not_begin_gets_an_answer():
    worker, (_, heir, _) = begin(Doubles(), n_ranks=3, rank=2)
    lose(worker, 0)
    say(heir, 2, Kind.END, End(status=2))
    assert worker.run() == End(status=2)
    assert [m.kind for m in messages(heir)] == [Kind.GOODBYE]


@pytest.mark.parametrize(("closing", "status"), [(True, "done"), (True, "stopped"), (False, "done")])
def test_who_waits_for_the_end_of_a_run_that_is_done_does_not_wait_for_another_master(
    closing, status, tmp_path
):
    """The lowest rank left may have been told of the end, and be gone."""
    transports = local_transports(3)
    worker = Worker(transports[2], lambda start: Doubles())
    say(transports[0], 2, Kind.START, start_of()._replace(run_dir=str(tmp_path)))
    if closing:
        say(transports[0], 2, Kind.CLOSING)
    (tmp_path / "summary.json").write_text(json.dumps({"status": status}))
    look(worker)
    lose(worker, 0)
    look(worker)
    assert not worker.must_lead
    is_over = closing and status == "done"
    assert worker.end == (End(status=0) if is_over else None)
    assert [m.kind for m in messages(transports[1])] == ([Kind.GOODBYE] if is_over else [])


def test_after_the_run_nobody_waits_for_a_leader_that_was_dismissed(monkeypatch):
    monkeypatch.setattr("mpims.runtime.worker.LEADERLESS_S", 0.2)
    _, _, end = local_transports(3)
    worker = Worker(end, lambda start: Doubles(), after=start_of())
    look(worker)
    assert not worker.dismissed
    lose(worker, 0)  # rank 1 is alive: it waits for the others to leave MPI
    assert worker.run() is None
    assert worker.dismissed


def test_who_leads_next_knows_that_the_run_was_to_stop(started):
    worker, _, master = started
    assert not worker.is_stopping
    say(master, 1, Kind.DRAIN)
    lose(worker, 0)
    look(worker)
    assert worker.must_lead
    assert worker.is_stopping


def test_a_worker_without_a_master_computes_on_and_joins_the_next_one():
    job = Doubles()
    worker, (master, heir, _) = begin(job, n_ranks=3, rank=2)
    assign(master, 1, 0, 40, rank=2)
    assign(master, 2, 50, 80, rank=2)
    drive(worker, 2)
    lose(worker, 0)
    drive(worker, 3)
    assert job.computed == [(0, 10), (10, 20), (20, 30), (30, 40), (50, 60)]
    assert not worker.must_lead
    assert messages(heir) == messages(master) == []
    say(heir, 2, Kind.START, start_of(epoch=1))
    look(worker)
    *again, joined = messages(heir)
    assert joined.kind is Kind.JOINED
    assert decode_object(joined.buffers).holding == (Held(2, 60, 80),)
    assert job.n_setups == 1
    assert [result_of(m) for m in again] == [(1, 0, 40, doubled(0, 40)), (2, 50, 60, doubled(50, 60))]
    drive(worker)
    assert results(heir) == [(2, 60, 80, doubled(60, 80))]
    assert job.computed[-2:] == [(60, 70), (70, 80)]
    assert messages(master) == []


def test_what_was_sent_to_the_master_that_died_is_sent_again_to_the_next():
    worker, (master, heir, _) = begin(Picky(), n_ranks=3, rank=2, on_error="skip", retries=0)
    assign(master, 1, 0, 30, rank=2)
    assign(master, 2, 10, 20, Care.ITEMWISE, rank=2)
    drive(worker)
    sent = messages(master)
    assert len(sent) == 5
    lose(worker, 0)
    say(heir, 2, Kind.START, start_of(epoch=1))
    drive(worker, 3)
    *again, joined = messages(heir)
    assert joined.kind is Kind.JOINED
    assert [(m.kind, m.head, [bytes(b) for b in m.buffers]) for m in again] == [
        (m.kind, m.head, [bytes(b) for b in m.buffers]) for m in sent
    ]


def test_what_is_kept_to_be_sent_again_is_limited(started, monkeypatch):
    worker, _, master = started
    monkeypatch.setattr("mpims.runtime.kept.KEPT_BYTES", 3 * 10 * 8)
    for number in range(8):
        assign(master, number + 1, 10 * number, 10 * number + 10)
    drive(worker)
    assert len(results(master)) == 8
    lose(worker, 0)
    look(worker)
    assert [result_of(m)[0] for m in worker.inheritance()] == [6, 7, 8]


def test_the_last_two_messages_are_kept_however_large(monkeypatch):
    monkeypatch.setattr("mpims.runtime.kept.KEPT_BYTES", 10)
    kept = KeptMessages()
    for n_bytes in (4, 100, 100):
        kept.add(Kind.RESULT, b"", [bytes(n_bytes)])
        kept.trim()
    assert ([sent.n_bytes for sent in kept], kept.n_bytes) == ([100, 100], 200)
    kept.clear()  # what is forgotten takes no room from what comes
    for _ in range(3):
        kept.add(Kind.RESULT, b"", [bytes(3)])
        kept.trim()
    assert ([sent.n_bytes for sent in kept], kept.n_bytes) == ([3, 3, 3], 9)


@pytest.mark.parametrize("n_after", [1, 2, 3])
def test_skipped_items_and_their_block_are_kept_together(n_after, monkeypatch):
    """A next master that had the results alone would take zeros for the results of skipped items."""
    monkeypatch.setattr("mpims.runtime.kept.KEPT_BYTES", 1)
    worker, (master, _) = begin(Picky(), on_error="skip", retries=0)
    assign(master, 1, 10, 20, Care.ITEMWISE)
    for number in range(n_after):
        assign(master, number + 2, 50, 60)
    drive(worker)
    lose(worker, 0)
    look(worker)
    inherited = worker.inheritance()
    skips = {decode_object(m.buffers)[0] for m in inherited if m.kind is Kind.SKIPPED}
    attempts = {result_of(m)[0] for m in inherited if m.kind is Kind.RESULT}
    assert (1 in skips) == (1 in attempts)
    assert n_after + 1 in attempts


def test_a_chunk_that_needs_care_is_given_back():
    """The next master decides anew how carefully it is to be computed."""
    job = Picky()
    worker, (master, heir, _) = begin(job, n_ranks=3, rank=2)
    assign(master, 1, 50, 70, rank=2)
    assign(master, 2, 10, 20, Care.ITEMWISE, rank=2)
    look(worker)
    lose(worker, 0)
    say(heir, 2, Kind.START, start_of(epoch=1))
    look(worker)
    (joined,) = (decode_object(m.buffers) for m in messages(heir) if m.kind is Kind.JOINED)
    assert joined.holding == (Held(1, 60, 70),)


def test_a_block_half_way_through_item_by_item_is_given_back_whole():
    worker, (master, heir, _) = begin(Picky(bad=99), n_ranks=3, rank=2)
    assign(master, 2, 10, 20, Care.ITEMWISE, rank=2)
    drive(worker, 4)
    lose(worker, 0)
    say(heir, 2, Kind.START, start_of(epoch=1))
    drive(worker)
    (joined,) = messages(heir)
    assert decode_object(joined.buffers).holding == ()
    assign(heir, 1 << 33, 10, 20, rank=2)
    drive(worker)
    assert results(heir) == [(1 << 33, 10, 20, doubled(10, 20))]


def test_an_older_master_is_not_followed():
    worker, (master, heir, _) = begin(Doubles(), n_ranks=3, rank=2)
    say(heir, 2, Kind.START, start_of(epoch=1))
    look(worker)
    assert [m.kind for m in messages(heir)] == [Kind.JOINED]
    for epoch in (0, 1):
        say(master, 2, Kind.START, start_of(epoch=epoch))
    assign(master, 1, 0, 10, rank=2)
    drive(worker)
    assert messages(master) == []
    assert worker.start.epoch == 1


def test_only_the_master_is_obeyed():
    job = Doubles()
    worker, (master, other, _) = begin(job, n_ranks=3, rank=2)
    assign(other, 1, 0, 10, rank=2)
    assign(master, 2, 20, 30, rank=2)
    assign(master, 3, 40, 50, rank=2)
    other.send(2, Kind.RECALL, encode_recall(3))
    other.send(2, Kind.TRIM, encode_trim(3, 40))
    for kind in (Kind.DRAIN, Kind.CLOSING):
        say(other, 2, kind)
    say(other, 2, Kind.END, End(status=1, message="not yours to say"))
    drive(worker)
    assert worker.end is None
    assert job.computed == [(20, 30), (40, 50)]
    assert messages(other) == []


def test_between_two_masters_the_end_may_come_from_any_rank():
    """A master that takes over from one that died after the end tells it on its behalf."""
    worker, (_, heir, _) = begin(Doubles(), n_ranks=3, rank=2)
    lose(worker, 0)
    look(worker)
    say(heir, 2, Kind.END, End(status=0))
    assert worker.run() == End(status=0)


def test_an_orphan_leads_when_all_below_it_are_gone():
    worker, _ = begin(Doubles(), n_ranks=4, rank=3)
    lose(worker, 1)
    look(worker)
    assert not worker.must_lead
    lose(worker, 0)
    look(worker)
    assert not worker.must_lead
    lose(worker, 2)
    look(worker)
    assert worker.must_lead


def test_another_run_is_begun_and_not_joined():
    """A master may have died before it wrote down what it began."""
    job = Doubles()
    worker, (master, heir, _) = begin(job, n_ranks=3, rank=2)
    assign(master, 1, 0, 100, rank=2)
    drive(worker, 2)
    lose(worker, 0)
    say(heir, 2, Kind.START, start_of(run_id="run-2"))
    look(worker)
    (joined,) = messages(heir)
    assert decode_object(joined.buffers).holding == ()
    assert job.n_setups == 2
    assert not worker.has_work
    lose(worker, 1)
    look(worker)
    assert worker.inheritance() == []


def test_a_failed_setup_is_told_to_the_next_master_too():
    class Broken(Doubles):
        def setup(self):
            raise OSError("no licence")

    _, heir, end = local_transports(3)
    worker = Worker(end, lambda start: Broken())
    master = LocalTransport(0, end._inboxes)
    for transport, epoch in ((master, 0), (heir, 1)):
        say(transport, 2, Kind.START, start_of(epoch=epoch))
        look(worker)
        (failed,) = (decode_object(m.buffers) for m in messages(transport) if m.kind is Kind.FAILED)
        assert failed.attempt == 0
        assert failed.reason == "setup() raised OSError: no licence"


def test_an_orphan_that_nobody_takes_over_ends_itself():
    """Where the others do not survive a death, there is no master to come for ever."""
    worker, (master, _, _) = begin(Doubles(), n_ranks=3, rank=2, timeout_s=0.05)
    lose(worker, 0)
    began = time.monotonic()
    with pytest.raises(Stopped, match=r"rank 1, the master, has been silent for 0\.05 s.*resume nowhere"):
        worker.run()
    assert time.monotonic() - began < 2
    assert messages(master) == []


GONE = this_process()._replace(started=1)  # whoever had that number before


@pytest.mark.parametrize("survives", [True, False])
def test_a_master_that_left_without_mpi_noticing_is_lost(survives, monkeypatch):
    monkeypatch.setattr(masterwatch, "LIVENESS_INTERVAL_S", 0.0)
    worker, _ = begin(Doubles())
    worker._transport.survives_deaths = survives
    worker.start = start_of()._replace(master=GONE)
    worker.step(0.0)
    assert (worker.must_lead, worker._transport.lost) == ((True, {0}) if survives else (False, set()))


@pytest.mark.parametrize("process", [GONE, this_process(), GONE._replace(host="another", boot="its")])
def test_a_master_to_come_that_has_left_before_is_not_waited_for(process, monkeypatch, tmp_path):
    monkeypatch.setattr(masterwatch, "LIVENESS_INTERVAL_S", 0.0)
    (tmp_path / "manifest.json").write_text(json.dumps({"ranks": {"1": process.as_dict()}}))
    worker, _ = begin(Doubles(), n_ranks=3, rank=2)
    worker._transport.survives_deaths = True
    worker.start = start_of()._replace(run_dir=str(tmp_path))
    lose(worker, 0)
    drive(worker, 3)
    assert worker.must_lead == (process == GONE)


def test_a_master_that_answers_is_waited_for(started):
    worker, _, master = started
    worker.start = start_of(timeout_s=0.04)
    until = time.monotonic() + 0.15
    n_pings = 0
    while time.monotonic() < until:
        worker.step(0.005)
        for message in messages(master):
            assert message.kind is Kind.PING
            n_pings += 1
            say(master, 1, Kind.PONG)
    assert n_pings >= 3


def test_a_master_that_is_closing_may_be_silent(started):
    worker, _, master = started
    worker.start = start_of(timeout_s=0.02)
    say(master, 1, Kind.CLOSING)
    until = time.monotonic() + 0.08
    while time.monotonic() < until:
        worker.step(0.005)
    assert messages(master) == []
