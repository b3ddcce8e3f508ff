"""`mpims.Executor` with threads for ranks: the same master, worker and messages, without MPI."""

from __future__ import annotations

import concurrent.futures
import gc
import math
import multiprocessing
import os
import queue
import signal
import threading
import time
import weakref
from concurrent.futures import FIRST_EXCEPTION, CancelledError, as_completed, wait
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, islice

import numpy as np
import pytest

import mpims
from mpims.executor import connecting
from mpims.executor import pool as pool_module
from mpims.executor.errors import RemoteTraceback
from mpims.executor.mapping import MOST_AHEAD
from mpims.executor.taskmaster import TaskThread
from mpims.executor.taskworker import TaskWorker
from mpims.runtime.transport.local import local_transports
from mpims.runtime.wire import Kind, encode_object

N_WORKERS = 2


@contextmanager
def threads_for_ranks(monkeypatch, n_workers=N_WORKERS):
    """Let executors find ranks that are threads of this process."""
    transports = local_transports(n_workers + 1)
    workers = [TaskWorker(transport) for transport in transports[1:]]
    threads = [threading.Thread(target=worker.serve, daemon=True) for worker in workers]

    def connect(customer, *, n, exit_workers, **options):
        return TaskThread(customer, transports[0], **options)

    monkeypatch.setattr("mpims.session.connect", lambda: transports[0])
    monkeypatch.setattr(pool_module, "connect_executor", connect)
    monkeypatch.setattr(pool_module, "_open", [])
    for thread in threads:
        thread.start()
    yield
    for clients in pool_module._open:
        clients.close()
        assert clients.link.join(10)
    for rank in range(1, n_workers + 1):
        transports[0].send(rank, Kind.DISMISS, b"", encode_object(()))
    for thread in threads:
        thread.join(3)
        assert not thread.is_alive()


@pytest.fixture
def ranks(monkeypatch):
    with threads_for_ranks(monkeypatch):
        yield


@pytest.fixture
def pool(ranks):
    with mpims.Executor() as executor:
        yield executor


def square(x):
    return x * x


def fail(x):
    raise ValueError(f"no {x}")


def capture(*args, **kwargs):
    return args, kwargs


GATE = threading.Event()
CALLS: list[int] = []


def wait_for_gate(x):
    assert GATE.wait(10)
    return x


def note(x):
    CALLS.append(x)
    return x


@pytest.fixture
def gate():
    GATE.clear()
    CALLS.clear()
    yield GATE
    GATE.set()


# ------------------------------------------------------------------------------- submit


def test_it_is_an_executor_of_concurrent_futures(pool):
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(capture, 1, self=2, fn=3)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(5) == ((1,), {"self": 2, "fn": 3})
    assert pool.n_workers == pool._max_workers == N_WORKERS


def test_many_submits_of_many_functions(pool):
    futures = [pool.submit(f, i) for i in range(200) for f in (square, abs, lambda x: -x)]
    expected = [v for i in range(200) for v in (i * i, i, -i)]
    assert [future.result(10) for future in futures] == expected


def test_an_exception_has_its_type_and_its_traceback(pool):
    error = pool.submit(fail, 3).exception(5)
    assert type(error) is ValueError
    assert error.args == ("no 3",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail" in str(error.__cause__)


def test_what_cannot_travel_fails_its_future_and_no_other(pool):
    bad = pool.submit(square, threading.Lock())
    back = pool.submit(threading.Lock)
    assert pool.submit(square, 3).result(5) == 9
    with pytest.raises(mpims.CannotTravel, match="the argument"):
        bad.result(5)
    with pytest.raises(mpims.CannotTravel, match="the result"):
        back.result(5)
    with pytest.raises(mpims.CannotTravel, match="Executor"):
        pool.submit(square, pool).result(5)


def test_callbacks_are_called_and_may_submit(pool):
    results = []
    done = threading.Event()

    def again(future):
        results.append(future.result())
        if len(results) == 3:
            done.set()
        else:
            pool.submit(square, future.result()).add_done_callback(again)

    pool.submit(square, 2).add_done_callback(again)
    assert done.wait(5)
    assert results == [4, 16, 256]


def interrupt(*_):
    raise KeyboardInterrupt


class Interrupting:
    """Is a KeyboardInterrupt where it is unpickled in the program; a task can make it."""

    def __reduce__(self):
        return interrupt, ()


def test_whatever_a_result_or_a_callback_raises_ends_no_executor(pool, gate, caplog):
    for error in (KeyboardInterrupt, SystemExit):
        future = pool.submit(wait_for_gate, 1)
        heard = []

        def stop(_, error=error):
            raise error

        future.add_done_callback(stop)
        future.add_done_callback(heard.append)
        gate.set()
        assert future.result(5) == 1
        assert heard == [future]
    assert caplog.text.count("exception calling callback") == 2
    assert type(pool.submit(Interrupting).exception(5)) is KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        list(pool.map(lambda x: Interrupting(), [1]))
    assert pool.submit(square, 3).result(5) == 9


def test_wait_and_as_completed(pool):
    futures = [pool.submit(square, i) for i in range(20)]
    assert {f.result() for f in as_completed(futures, timeout=5)} == {i * i for i in range(20)}
    done, _ = wait([pool.submit(fail, 1), *futures], timeout=5, return_when=FIRST_EXCEPTION)
    assert len(done) >= 1


@pytest.mark.parametrize("function", [None, 5, "abs", [], np.zeros(1)])
def test_what_cannot_be_called_is_named(pool, function):
    for call in (pool.submit(function, 1).result, partial(list, pool.map(function, [1]))):
        with pytest.raises(TypeError, match=f"{type(function).__qualname__}' object is not callable"):
            call()


def test_cancel_of_what_was_not_handed_out(pool, gate):
    first = [pool.submit(wait_for_gate, i) for i in range(10)]
    late = pool.submit(note, 99)
    assert late.cancel()
    assert late.cancelled()
    assert wait([late], timeout=1).done == {late}  # whoever waits is told at once
    gate.set()
    assert [future.result(5) for future in first] == list(range(10))
    assert pool.submit(square, 2).result(5) == 4
    assert CALLS == []


def test_what_runs_cannot_be_cancelled(pool, gate):
    future = pool.submit(wait_for_gate, 1)
    until = time.monotonic() + 5
    while not future.running() and time.monotonic() < until:
        time.sleep(1e-3)
    assert not future.cancel()
    gate.set()
    assert future.result(5) == 1


def test_a_signal_ends_a_wait_and_spoils_nothing(pool, gate):
    future = pool.submit(wait_for_gate, 1)
    for wait_for in (future.result, lambda: next(pool.map(wait_for_gate, [2]))):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            wait_for()
    gate.set()
    assert future.result(5) == 1
    assert list(pool.map(square, range(10))) == [i * i for i in range(10)]


def test_several_threads_wait_at_once(pool):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        sums = threads.map(lambda n: sum(pool.submit(square, i).result(10) for i in range(n)), [100] * 4)
        assert list(sums) == [328_350] * 4


# ---------------------------------------------------------------------------------- map


@pytest.mark.parametrize("n", [0, 1, 7, 20_000])
@pytest.mark.parametrize("make", [range, lambda n: list(range(n)), lambda n: iter(range(n))])
def test_map_gives_results_in_order(pool, n, make):
    assert list(pool.map(square, make(n))) == [i * i for i in range(n)]


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_chunksize_and_several_iterables(pool, chunksize):
    result = pool.map(pow, range(40), range(100), chunksize=chunksize)
    assert list(result) == list(map(pow, range(40), range(100)))
    stars = pool.starmap(pow, [(i, 2) for i in range(40)], chunksize=chunksize)
    assert list(stars) == [i * i for i in range(40)]


@pytest.mark.parametrize("chunksize", [2.5, "3"])
def test_a_chunksize_that_is_no_integer_is_told_at_once(pool, chunksize):
    with pytest.raises(TypeError, match=f"chunksize must be an integer, found {chunksize!r}"):
        pool.map(square, range(3), chunksize=chunksize)


def test_unordered_results_are_all_there(pool):
    assert sorted(pool.imap_unordered(square, range(1000))) == sorted(i * i for i in range(1000))
    assert sorted(pool.map(square, iter(range(10)), ordered=False)) == sorted(i * i for i in range(10))


def test_results_come_as_they_are_there(pool, gate):
    mixed = pool.map(lambda x: wait_for_gate(x) if x == 0 else x, range(5), ordered=False)
    assert sorted(islice(mixed, 2)) != [0, 1]
    gate.set()
    assert 0 in list(mixed)


def test_an_exception_in_map_comes_in_its_place(pool):
    results = pool.map(lambda x: 1 // (x - 3), range(10))
    assert list(islice(results, 3)) == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_timeout_of_map(pool, gate):
    results = pool.map(wait_for_gate, [1], timeout=0.05)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)


def test_a_generator_is_advanced_as_results_are_taken(pool):
    taken = []

    def endless():
        for i in count():
            taken.append(i)
            yield i

    results = pool.map(square, endless())
    assert list(islice(results, 1000)) == [i * i for i in range(1000)]
    assert len(taken) <= 1000 + MOST_AHEAD
    results.close()
    n_taken = len(taken)
    assert pool.submit(square, 3).result(5) == 9
    assert len(taken) == n_taken


def test_buffersize_limits_what_is_ahead(pool):
    taken = []
    results = pool.map(square, (taken.append(i) or i for i in range(100)), buffersize=5)
    assert [next(results) for _ in range(10)] == [i * i for i in range(10)]
    assert len(taken) <= 10 + 5 + 5
    for wrong, error in ((0, ValueError), ("1", TypeError)):
        with pytest.raises(error):
            pool.map(square, [1], buffersize=wrong)
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(square, [1], chunksize=0)


@pytest.mark.parametrize("make", [list, iter], ids=["list", "generator"])
def test_calls_are_made_though_nobody_takes_the_results(ranks, gate, make):
    with mpims.Executor() as pool:
        pool.map(note, make(range(3000)))
    assert sorted(CALLS) == list(range(3000))


def test_an_input_that_raises_is_told_to_who_takes_the_results(pool):
    def broken():
        yield 1
        raise KeyError("input")

    with pytest.raises(KeyError, match="input"):
        list(pool.map(square, broken()))
    assert pool.submit(square, 2).result(5) == 4


def test_what_came_before_an_input_raised_is_there_in_chunks_too(pool):
    results = pool.map(square, (6 // (5 - i) for i in range(10)), chunksize=4)
    taken = []
    with pytest.raises(ZeroDivisionError):
        taken.extend(results)
    assert taken == [1, 1, 4, 9, 36]


def test_a_map_whose_input_raised_is_forgotten(pool):
    def use():
        results = pool.map(square, (1 // (1 - i) for i in range(3)))
        with suppress(ZeroDivisionError):
            list(results)
        return weakref.ref(results)

    found = use()
    gc.collect()
    assert found() is None


def test_an_input_may_wait_for_results_of_the_same_executor(pool):
    def waiting():
        for i in range(100):
            time.sleep(1e-3 if i % 10 else 20e-3)  # so that one thread takes results in, or the other
            yield pool.submit(square, i).result(5)

    assert list(pool.map(square, waiting())) == [i**4 for i in range(100)]
    assert list(pool.map(square, pool.map(square, range(1000)))) == [i**4 for i in range(1000)]


def test_an_input_that_waits_keeps_nobody_from_results(pool, gate):
    values, reached, results = queue.SimpleQueue(), threading.Event(), []

    def waiting():
        yield from range(8)
        reached.set()
        yield from iter(values.get, None)

    def take():
        results.extend(pool.map(lambda x: wait_for_gate(x) if x == 7 else x, waiting()))

    taker = threading.Thread(target=take)
    taker.start()
    assert reached.wait(5)
    gate.set()  # a result comes now
    try:
        assert pool.submit(square, 3).result(5) == 9
    finally:
        values.put(None)
        taker.join(5)
    assert results == list(range(8))


# -------------------------------------------------------------------------------- spreading


def test_a_broadcast_value_arrives_wherever_it_is_used(pool):
    handle = pool.bcast({"factor": 3})
    assert handle.value == {"factor": 3}
    assert list(pool.map(lambda h, x: h["factor"] * x, [handle] * 4, range(4))) == [0, 3, 6, 9]


def test_a_handle_of_an_earlier_executor_stands_for_nothing(ranks):
    with mpims.Executor() as pool:
        handle = pool.bcast("one")
        assert pool.submit(capture, handle).result(5) == (("one",), {})
    with mpims.Executor() as pool:
        pool.bcast("two")
        assert type(pool.submit(capture, handle).exception(5)) is mpims.UsageError
        with pytest.raises(mpims.UsageError, match="its executor has ended"):
            pool.submit(partial(capture, handle)).result(5)


def test_a_shared_array_is_read_only(pool):
    array = np.arange(100_000.0)
    handle = pool.share(array)
    assert pool.submit(np.sum, handle).result(5) == array.sum()
    assert not pool.submit(lambda a: a.flags.writeable, handle).result(5)
    array[:] = 0
    assert handle.value[-1] == 99_999
    with pytest.raises(mpims.UsageError, match="dtype object: use bcast"):
        pool.share(np.array([object()]))
    with pytest.raises(mpims.UsageError, match="mask"):
        pool.share(np.ma.masked_equal([1, 2], 2))


# ------------------------------------------------------------------------------------ ending


def test_after_shutdown_nothing_is_taken(ranks):
    pool = mpims.Executor()
    future = pool.submit(square, 3)
    pool.shutdown()
    assert future.result(0) == 9
    for call in (lambda: pool.submit(square, 1), lambda: pool.map(square, [1]), lambda: pool.bcast(1)):
        with pytest.raises(RuntimeError, match="after shutdown"):
            call()
    pool.shutdown()


def test_shutdown_without_waiting_loses_nothing(ranks, gate):
    pool = mpims.Executor()
    futures = [pool.submit(wait_for_gate, i) for i in range(20)]
    pool.shutdown(wait=False)
    gate.set()
    assert [future.result(5) for future in futures] == list(range(20))


@pytest.mark.parametrize("helps", [True, False], ids=["in a wait", "in the master's thread"])
def test_shutdown_in_a_callback_does_not_wait(ranks, gate, helps):
    pool = mpims.Executor()
    done = threading.Event()
    future = pool.submit(wait_for_gate, 1)
    results = pool.map(square, range(100_000))

    def end(_):
        pool.shutdown()
        done.set()

    future.add_done_callback(end)
    threading.Timer(0.05, gate.set).start()
    if helps:
        assert future.result(5) == 1
    assert done.wait(5)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(square, 1)
    assert sum(results) == sum(i * i for i in range(100_000))
    pool.shutdown()


def test_shutdown_can_cancel(ranks, gate):
    pool = mpims.Executor()
    assert list(pool.map(square, range(100))) == [i * i for i in range(100)]  # the ranks are there
    futures = [pool.submit(wait_for_gate, i) for i in range(50)]
    results = pool.map(square, range(10**6))
    pool.shutdown(wait=False, cancel_futures=True)
    wait(futures[20:], timeout=5)
    assert sum(future.cancelled() for future in futures) >= 50 - 2 * 2 * N_WORKERS
    gate.set()
    for future in futures:
        assert future.cancelled() or future.result(5) is not None
    with pytest.raises(CancelledError):
        list(results)


def test_an_input_with_a_buffersize_is_not_run_to_its_end(ranks):
    with mpims.Executor() as pool:
        unseen = pool.map(square, count(), buffersize=5)
    given = []
    with pytest.raises(RuntimeError, match="before all input was taken"):
        given.extend(unseen)
    assert given == [i * i for i in range(5)]


@pytest.mark.parametrize("n", [1, 4000])
def test_an_input_that_raises_at_the_end_leaves_no_executor_open(ranks, gate, n):
    def broken():
        yield from range(n)
        raise KeyError("input")

    with pytest.raises(KeyError, match="input"), mpims.Executor() as pool:
        pool.map(note, broken())
        noted = pool.map(note, [-1])
    with mpims.Executor() as pool:
        assert pool.submit(square, 2).result(5) == 4
    assert sorted(CALLS) == list(range(-1, n))
    assert list(noted) == [-1]


def test_an_input_that_is_being_taken_ends_with_its_executor(ranks):
    with mpims.Executor() as pool:
        begun = pool.map(square, count())
        first = [next(begun) for _ in range(3)]
    with pytest.raises(RuntimeError, match="before all input was taken"):
        for result in begun:
            first.append(result)
    assert first == [i * i for i in range(len(first))]


def test_ctrl_c_in_shutdown_leaves_the_next_executor_its_ranks(ranks, gate):
    pool = mpims.Executor()
    future = pool.submit(wait_for_gate, 1)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        pool.shutdown()
    assert not pool._clients.link.join(0)
    threading.Timer(0.05, gate.set).start()
    with mpims.Executor() as pool:
        assert future.result(0) == 1
        assert pool.submit(square, 3).result(5) == 9


def test_an_executor_that_is_dropped_ends(ranks):
    pool = mpims.Executor()
    future = pool.submit(square, 3)
    link, gone = pool._clients.link, weakref.ref(pool)
    del pool
    gc.collect()
    assert future.result(5) == 9
    assert link.join(5)
    assert gone() is None


@pytest.mark.parametrize("make", [list, iter], ids=["list", "generator"])
def test_an_executor_that_is_dropped_is_kept_while_results_are_taken(ranks, make):
    pool = mpims.Executor()
    link = pool._clients.link
    results = pool.map(square, make(range(20_000)))
    del pool
    gc.collect()
    time.sleep(0.02)
    assert list(results) == [i * i for i in range(20_000)]
    del results
    assert link.join(5)


@pytest.mark.parametrize("n", [0, 3])
def test_what_is_cancelled_with_its_executor_is_so_whatever_was_taken_before(ranks, n):
    pool = mpims.Executor()
    results = pool.map(square, count())
    assert list(islice(results, n)) == [i * i for i in range(n)]
    until = time.monotonic() + 5
    while next(iter(pool._clients.mappings))._runs and time.monotonic() < until:
        time.sleep(1e-3)
    pool.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        list(results)


def test_one_executor_follows_another_and_there_are_no_two(ranks):
    with mpims.Executor() as pool:
        with pytest.raises(mpims.UsageError, match="there is an Executor already"):
            mpims.Executor()
        assert pool.submit(square, 2).result(5) == 4
    with mpims.Executor(max_workers=1) as pool:
        assert pool.n_workers == 1
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


SET_UP: list[tuple[int, ...]] = []


def set_up(*args):
    SET_UP.append(args)


def test_the_initializer_is_called_on_each_rank(ranks):
    SET_UP.clear()
    with mpims.Executor(initializer=set_up, initargs=(1, 2)) as pool:
        list(pool.map(square, range(100)))
    assert SET_UP == [(1, 2)] * N_WORKERS


def test_an_initializer_that_fails_breaks_the_executor(ranks):
    pool = mpims.Executor(initializer=fail, initargs=(1,))
    with pytest.raises(concurrent.futures.BrokenExecutor, match="initializer raised ValueError: no 1"):
        pool.submit(square, 1).result(5)  # whichever of the two finds it first
    told = set()
    for _ in range(5):
        with pytest.raises(mpims.ExecutorBroken) as caught:
            pool.submit(square, 1)
        told.add(caught.value)
    assert len(told) == 5, "an error grows with each traceback"
    pool.shutdown()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"n": -1}, ValueError),
        ({"n": 4 / 2}, TypeError),
        ({"max_workers": "4"}, TypeError),
        ({"initializer": 5}, TypeError),
        ({"timeout_s": 0}, mpims.UsageError),
        ({"timeout_s": math.inf}, mpims.UsageError),
        ({"timeout_s": math.nan}, mpims.UsageError),
        ({"timeout_s": "3"}, TypeError),
        ({"retries": -1}, mpims.UsageError),
        ({"retries": 1.5}, TypeError),
        ({"retries": None}, TypeError),
    ],
)
def test_wrong_options(ranks, options, error):
    with pytest.raises(error, match=next(iter(options))):
        mpims.Executor(**options)


def test_a_run_beside_an_executor_is_refused_and_one_after_it_begins(ranks):
    """Its messages would end the executor's ranks, and the program would wait for them."""
    with mpims.Executor() as pool:
        with pytest.raises(
            mpims.UsageError, match=r"a run cannot begin while rank 0 \(.*\) is in an Executor"
        ):
            mpims.run(mpims.Job())
        assert list(pool.map(square, range(3))) == [0, 1, 4]
    with mpims.Executor() as pool:
        assert list(pool.map(square, range(3))) == [0, 1, 4]


def test_the_ranks_leave_where_rank_0_is_refused_its_executor(monkeypatch):
    """They serve by then, and would wait for it for ever."""
    transports, at_exit = local_transports(3), []
    monkeypatch.setattr(connecting, "connect", lambda **options: transports[0])
    monkeypatch.setattr(connecting, "_dismissing", False)
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(partial(*call)))
    with pytest.raises(mpims.UsageError, match="n=5 under a launcher that started 3 ranks"):
        mpims.Executor(n=5)
    for leave in at_exit:
        leave()
    for transport in transports[1:]:
        message = transport.receive(0)
        assert message is not None
        assert message.kind is Kind.DISMISS


def test_a_pool_has_the_methods_that_programs_know(ranks):
    heard = []
    with mpims.Pool() as pool:
        assert pool.is_master()
        assert pool.size == N_WORKERS
        assert pool.map(square, range(4), callback=heard.append) == [0, 1, 4, 9]
        assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
        assert sorted(pool.imap_unordered(square, range(4))) == list(pool.imap(square, range(4)))
        assert pool.apply(pow, (2, 5)) == 32
    assert heard == [0, 1, 4, 9]


def test_a_pool_need_not_wait_for_its_results(ranks):
    heard = []
    with mpims.Pool() as pool:
        once = pool.apply_async(capture, (1,), {"a": 2}, callback=heard.append)
        assert once.get(10) == ((1,), {"a": 2})
        assert heard == [((1,), {"a": 2})]
        assert once.ready()
        assert once.successful()
        for n in (0, 1, 2, 50):
            assert pool.map_async(square, iter(range(n))).get(10) == [i * i for i in range(n)]
        assert pool.map_async(square, range(5), 2, heard.append).get() == heard[1] == [0, 1, 4, 9, 16]
        assert (
            pool.starmap_async(pow, [(2, 3), [3, 2]], callback=heard.append).get(10) == heard[2] == [8, 9]
        )
        pool.map_async(square, [], callback=heard.append).wait()
        assert heard[3] == []
        late = pool.map_async(square, range(3), callback=heard.append)
    assert heard[4] == late.get(0) == [0, 1, 4]


def test_what_a_pool_that_does_not_wait_raises_is_that_of_multiprocessing(ranks, gate):
    heard, errors = [], []
    with mpims.Pool() as pool:
        late = pool.apply_async(wait_for_gate, (1,))
        with pytest.raises(multiprocessing.TimeoutError):
            late.get(0.001)
        late.wait(0.001)
        assert not late.ready()
        with pytest.raises(ValueError, match="not ready"):
            late.successful()
        gate.set()
        assert late.get(10) == 1
        failed = pool.map_async(fail, [5, 6], 1, heard.append, errors.append)
        for _ in range(2):
            with pytest.raises(ValueError, match="no 5"):
                failed.get(10)
        assert not failed.successful()
        with pytest.raises(mpims.CannotTravel):
            pool.apply_async(square, (threading.Lock(),), None, heard.append, errors.append).get(10)
        assert [type(error) for error in errors] == [ValueError, mpims.CannotTravel]
        with pytest.raises(ValueError, match="chunksize"):
            pool.map_async(square, [1], 0)
        assert heard == []


def test_a_callback_of_a_pool_that_raises_leaves_nobody_waiting(ranks, caplog):
    with mpims.Pool() as pool:
        assert pool.apply_async(square, (3,), callback=fail).get(10) == 9
    assert "no 9" in caplog.text


def test_what_a_pool_that_is_terminated_has_not_handed_out_is_cancelled(ranks, gate):
    pool = mpims.Pool()
    late = pool.map_async(wait_for_gate, range(1000), 1)
    pool.executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    with pytest.raises(CancelledError):
        late.get(10)


def test_ctrl_c_in_a_pool_cancels_what_was_not_handed_out(ranks):
    with pytest.raises(KeyboardInterrupt), mpims.Pool() as pool:
        results = pool.imap(square, range(10**6))
        assert next(results) == 0
        raise KeyboardInterrupt
    with pytest.raises(CancelledError):
        list(results)


def test_a_pool_on_a_rank_that_goes_on_with_the_program_is_none(monkeypatch):
    monkeypatch.setattr(pool_module, "connect_executor", lambda customer, **options: None)
    served = mpims.Pool(exit_workers=False)
    assert not served.is_master()
    assert served.is_worker()
    with served as pool:
        assert pool is None
