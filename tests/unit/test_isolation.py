"""Blocks in a forked child, with real forks: what goes well, what kills it, and what is left of it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import os
import resource
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest

from mpims.errors import ExitStatus
from mpims.runtime import forkedchild, frames, isolation
from mpims.runtime.forkedchild import HEARD_BY_ALL
from mpims.runtime.isolation import BlockDied, BlockDone, BlockRaised, IsolatedBlocks

LIMIT_S = 20

pytestmark = [
    pytest.mark.timeout(2 * LIMIT_S),
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="they look into /proc"),
]

BLOCKS = [(0, 4), (4, 8), (8, 12), (12, 14)]


def outcomes(isolated):
    """All that is still to come."""
    found = []
    until = time.monotonic() + LIMIT_S
    while not isolated.over:
        assert time.monotonic() < until, f"nothing of {isolated.current} after {LIMIT_S} s"
        outcome = isolated.poll(0.2)
        if outcome is not None:
            found.append(outcome)
    return found


def results_of(compute, blocks=BLOCKS):
    """The results of blocks that all go well."""
    with IsolatedBlocks(compute, blocks) as isolated:
        found = outcomes(isolated)
    assert [(type(o), *o[:2]) for o in found] == [(BlockDone, *block) for block in blocks]
    return [outcome.results for outcome in found]


def only_outcome(compute, block=(3, 5)):
    """The only outcome of a child that is given two blocks and fails on the first."""
    with IsolatedBlocks(compute, [block, (90, 95)]) as isolated:
        (found,) = outcomes(isolated)
        assert found[:2] == block
    return found


def state_of(pid):
    """The letter of /proc: R runs, S sleeps, Z is dead and not reaped; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_until(condition):
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, f"not so after {LIMIT_S} s"
        time.sleep(2e-3)


def run_script(text):
    """Run a Python program of its own, its output to pipes."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # or nothing could be printed twice
    )


def hang():
    while True:
        time.sleep(1)


# ------------------------------------------------------------------ what goes well


def test_blocks_are_answered_one_by_one_in_order():
    with IsolatedBlocks(lambda start, stop: 2 * np.arange(start, stop), BLOCKS) as isolated:
        for block in BLOCKS:
            assert not isolated.over
            assert isolated.current == block
            outcome = isolated.poll(LIMIT_S)
            assert isinstance(outcome, BlockDone)
            assert outcome[:2] == block
            assert outcome.results.tolist() == list(range(2 * block[0], 2 * block[1], 2))
        assert isolated.over
        assert isolated.current is None
        assert isolated.poll(LIMIT_S) is None


def test_the_time_of_a_block_is_told():
    with IsolatedBlocks(lambda start, stop: time.sleep(0.1 * start), [(0, 1), (1, 2)]) as isolated:
        short, long = outcomes(isolated)
    assert 0 < short.busy_s < 0.1 <= long.busy_s < LIMIT_S


RECORDS = np.array([(1, 2.5, "ab"), (3, 4.5, "cd")], dtype=[("n", "i4"), ("x", ">f8"), ("s", "U2")])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5.0),
        np.array(3.5),
        np.zeros((0, 3), np.int16),
        np.arange(24).reshape(4, 6)[:, ::2],
        np.asfortranarray(np.arange(24).reshape(4, 6)),
        np.arange(6, dtype=">u2"),
        np.array(["2020-01-01", "NaT"], "M8[D]"),
        RECORDS,
        np.repeat(RECORDS, 10_000),
        np.array([{1: 2}, "a", None], dtype=object),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}"[:30],
)
def test_an_array_comes_back_as_it_was_and_can_be_written_to(array):
    (got,) = results_of(lambda start, stop: array, [(0, 4)])
    assert type(got) is np.ndarray
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    np.testing.assert_array_equal(got, array)
    got[...] = array


def test_other_results_come_back_as_they_were():
    many = [np.full(1 << 14, i) for i in range(100)]  # more large buffers than go out of band
    masked = np.ma.MaskedArray([1, 2], mask=[True, False])
    got = results_of(lambda start, stop: [None, {"a": (1, b"x" * 100_000)}, many, masked][start // 4])
    assert got[:2] == [None, {"a": (1, b"x" * 100_000)}]
    assert all(np.array_equal(a, b) for a, b in zip(got[2], many, strict=True))
    assert got[3].mask.tolist() == [True, False]


def test_large_results_come_in_between_other_things():
    def compute(start, stop):
        return np.random.default_rng(start).random(50_000_000 // 8)

    n_calls = 0
    with IsolatedBlocks(compute, BLOCKS[:2]) as isolated:
        for start, stop in BLOCKS[:2]:
            while (outcome := isolated.poll(0.0)) is None:
                assert not isolated.over
                n_calls += 1
            assert outcome[:2] == (start, stop)
            assert np.array_equal(outcome.results, compute(start, stop))
    assert n_calls > 10


def test_a_call_does_not_stay_for_a_whole_large_result(monkeypatch):
    monkeypatch.setattr(frames, "READ_AT_ONCE_BYTES", 1 << 10)
    with IsolatedBlocks(
        lambda start, stop: bytes(20_000) if start == 0 else os._exit(3), BLOCKS
    ) as isolated:
        wait_until(lambda: state_of(isolated._pid) == "Z")  # all of it is in the pipe
        n_calls = 1
        while (outcome := isolated.poll(0.0)) is None:
            n_calls += 1
        assert outcome[:3] == (0, 4, bytes(20_000))  # though the child was seen to be dead before
        assert n_calls == 20
        assert isinstance(isolated.poll(LIMIT_S), BlockDied)


def test_what_the_rank_has_is_there_and_stays_as_it_is():
    state = {"loaded": lambda: 7, "n": 0}  # not to be pickled

    def compute(start, stop):
        state["n"] += 1
        return [state["loaded"](), state["n"], os.getpid()]

    (_, n, pid), (_, n_next, pid_next), *_ = results_of(compute)
    assert (n, n_next, state["n"]) == (1, 2, 0)
    assert pid == pid_next != os.getpid()


def test_nothing_to_compute_is_over_at_once():
    isolated = IsolatedBlocks(lambda start, stop: None, [])
    assert isolated.over
    assert isolated.current is None
    assert isolated.poll(LIMIT_S) is None


# ------------------------------------------------------------------ what raises


def test_what_the_users_code_raises_is_told_with_its_own_traceback():
    def inner_function(x):
        return 1 / x

    def compute(start, stop):
        return inner_function(start - 4)

    with IsolatedBlocks(compute, BLOCKS) as isolated:
        done, raised = outcomes(isolated)
        assert isolated.poll(0.0) is None
    assert done == (0, 4, -0.25, done.busy_s)
    assert isinstance(raised, BlockRaised)
    assert raised[:3] == (4, 8, "ZeroDivisionError: division by zero")
    assert "in inner_function" in raised.detail
    assert "return 1 / x" in raised.detail
    assert forkedchild.__file__ not in raised.detail


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError("no room")])
def test_whatever_is_raised_is_told(error):
    def compute(start, stop):
        raise error

    found = only_outcome(compute)
    assert isinstance(found, BlockRaised)
    assert found.reason.startswith(type(error).__name__)
    assert "raise error" in found.detail


def test_a_result_that_cannot_be_pickled_is_told():
    found = only_outcome(lambda start, stop: [threading.Lock()])
    assert isinstance(found, BlockRaised)
    assert found.reason.startswith("a result cannot be pickled: TypeError: cannot pickle")


class Picky(Exception):
    """Cannot be unpickled, as any exception of more than one argument that passes on another number."""

    def __init__(self, one, two):
        super().__init__(one)


def test_a_result_that_cannot_be_unpickled_is_told():
    found = only_outcome(lambda start, stop: Picky(1, 2))
    assert isinstance(found, BlockRaised)
    assert found.reason.startswith("a result cannot be unpickled: TypeError: ")


def test_results_that_do_not_fit_into_memory_are_told():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    with IsolatedBlocks(lambda start, stop: np.zeros(1 << 28, np.uint8), BLOCKS) as isolated:
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 27), before[1]))
        try:
            found = outcomes(isolated)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    assert [type(o) for o in found] == [BlockRaised]
    assert found[0].reason == "its results do not fit into memory: MemoryError"


# ------------------------------------------------------------------ what kills


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGSEGV, "killed by signal 11 (SIGSEGV)"),
        (signal.SIGKILL, "killed by signal 9 (SIGKILL)"),
        (40, "killed by signal 40"),
    ],
)
def test_a_death_is_of_the_block_under_way(number, reason):
    def compute(start, stop):
        if start == 8:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
            os.kill(os.getpid(), number)
        return np.arange(start, stop)

    with IsolatedBlocks(compute, BLOCKS) as isolated:
        wait_until(lambda: state_of(isolated._pid) == "Z")  # what it sent before is still had
        found = outcomes(isolated)
        assert isolated.poll(LIMIT_S) is None
    assert [type(o) for o in found] == [BlockDone, BlockDone, BlockDied]
    assert found[2] == (8, 12, reason)


@pytest.mark.parametrize("status", [0, 3])
def test_leaving_is_a_death_too(status):
    found = only_outcome(lambda start, stop: os._exit(status))
    assert isinstance(found, BlockDied)
    assert found.reason.startswith(f"left with exit status {status} (os._exit")


def test_a_death_in_the_midst_of_a_result_is_of_its_block():
    def compute(start, stop):
        if start == 4:  # while the pipe is full, for nobody reads
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return np.zeros(1 << 20)

    with IsolatedBlocks(compute, BLOCKS) as isolated:
        assert isolated.poll(LIMIT_S)[:2] == (0, 4)
        wait_until(lambda: state_of(isolated._pid) == "Z")
        waiting = fcntl.ioctl(isolated._pipe, termios.FIONREAD, bytes(4))
        assert struct.unpack("i", waiting)[0] > frames.HEAD.size
        assert outcomes(isolated) == [BlockDied(4, 8, "killed by signal 9 (SIGKILL)")]


def test_a_death_is_noticed_while_a_process_left_behind_holds_the_pipe():
    """One forked by a C library: it knows nothing of Python's hooks."""

    def compute(start, stop):
        if start == 4:
            os._exit(3)
        left_behind = ctypes.CDLL(None).fork()
        if left_behind == 0:
            try:
                time.sleep(2 * LIMIT_S)
            finally:
                os._exit(0)
        return left_behind

    with IsolatedBlocks(compute, BLOCKS) as isolated:
        done = isolated.poll(LIMIT_S)
        try:
            began = time.monotonic()
            assert isinstance(isolated.poll(LIMIT_S), BlockDied)
            assert time.monotonic() - began < LIMIT_S / 2
            assert state_of(done.results) in ("S", "R")
        finally:
            os.kill(done.results, signal.SIGKILL)


def test_a_death_whose_status_another_took_is_told():
    with IsolatedBlocks(lambda start, stop: os._exit(3), BLOCKS) as isolated:
        os.waitpid(isolated._pid, 0)
        assert outcomes(isolated) == [BlockDied(0, 4, "ended; its exit status was lost")]


def test_a_closed_pipe_is_told():
    """As by a library that makes a daemon of the process."""
    found = run_script(
        """
        import os
        from mpims.runtime.isolation import IsolatedBlocks

        with IsolatedBlocks(lambda start, stop: os.closerange(3, 100), [(0, 1)]) as isolated:
            print(isolated.poll(10))
        """
    )
    assert found.stdout.startswith("BlockDied(start=0, stop=1, reason='left with exit status 70 (")
    assert found.stderr.endswith("OSError: [Errno 9] Bad file descriptor\n")


# ------------------------------------------------------------------ what hangs


def test_a_block_that_does_not_return_is_waited_for_as_long_as_said_and_killed():
    def compute(start, stop):
        return start if start < 4 else hang()

    with IsolatedBlocks(compute, BLOCKS) as isolated:
        assert isolated.poll(LIMIT_S) is not None
        pid = isolated._pid
        for timeout_s in (0.0, 0.15):
            began = time.monotonic()
            assert isolated.poll(timeout_s) is None
            assert timeout_s <= time.monotonic() - began < timeout_s + 1
        assert not isolated.over
        assert isolated.current == (4, 8)
        assert state_of(pid) in ("S", "R")
        isolated.kill()
        assert state_of(pid) is None
        assert isolated.over
        assert isolated.current is None
        assert isolated.poll(LIMIT_S) is None
        isolated.kill()


def test_waiting_takes_no_processor_time():
    def compute(start, stop):
        os.closerange(3, 100)  # the pipe's end is seen, and the child lives
        hang()

    for block in (lambda start, stop: hang(), compute):
        with IsolatedBlocks(block, BLOCKS) as isolated:
            isolated.poll(0.1)
            began = time.process_time()
            assert isolated.poll(0.5) is None
            assert time.process_time() - began < 0.25
            assert not isolated.over


def test_a_child_that_does_not_go_away_is_reaped_later(monkeypatch):
    monkeypatch.setattr(isolation, "MAX_REAP_S", -1.0)
    isolated = IsolatedBlocks(lambda start, stop: hang(), BLOCKS)
    pid = isolated._pid
    monkeypatch.setattr(isolation, "_how_it_ended", lambda pid: None)  # as where the kernel cannot end it
    isolated.kill()
    monkeypatch.undo()
    assert isolation._unreaped == [pid]
    wait_until(lambda: state_of(pid) == "Z")
    results_of(lambda start, stop: None)
    assert state_of(pid) is None
    assert isolation._unreaped == []


# ------------------------------------------------------------------ rank and child


def test_the_death_of_the_rank_ends_the_child():
    found = run_script(
        """
        import os, signal, time
        from mpims.runtime.isolation import IsolatedBlocks

        def compute(start, stop):
            return os.getpid() if start == 0 else time.sleep(100)

        isolated = IsolatedBlocks(compute, [(0, 1), (1, 2)])
        print(isolated.poll(10).results, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )  # returns when its output has ended, which the child holds too: else the time limit strikes
    assert found.returncode == -signal.SIGKILL
    wait_until(lambda: state_of(int(found.stdout)) in (None, "Z"))


def test_a_child_whose_rank_is_gone_already_computes_nothing():
    found = run_script(
        """
        import os
        from mpims.runtime import isolation

        getppid = os.getppid
        os.getppid = lambda: getppid() + 1  # what it is once the child is another's
        with isolation.IsolatedBlocks(lambda start, stop: print("computed"), [(0, 1)]) as isolated:
            print(type(isolated.poll(10)).__name__)
        """
    )
    assert (found.stdout, found.stderr) == ("BlockDied\n", "")


def test_a_child_whose_results_nobody_wants_leaves_without_a_word():
    """So it ends with its rank where the system does not see to it."""
    found = run_script(
        """
        import os
        from mpims.runtime.isolation import IsolatedBlocks

        isolated = IsolatedBlocks(lambda start, stop: bytes(1 << 20), [(0, 1)])
        isolated._pipe.close()
        print(os.waitpid(isolated._pid, 0)[1])
        """
    )
    assert (found.stdout, found.stderr) == ("0\n", "")


def test_what_the_rank_left_as_garbage_is_not_finalized_in_the_child():
    finalized = []

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            finalized.append(os.getpid())

    def compute(start, stop):
        gc.collect()
        return finalized

    gc.disable()
    try:
        Cycle()
        assert results_of(compute) == [[]] * len(BLOCKS)
        gc.collect()
        assert finalized == [os.getpid()]
    finally:
        gc.enable()


def test_signals_that_all_processes_get_are_left_to_the_rank():
    """Not even a call in C notices them."""
    read_end, write_end = os.pipe()

    def compute(start, stop):
        if start == 0:
            return os.getpid()
        return ctypes.CDLL(None).read(read_end, ctypes.create_string_buffer(1), 1)

    with IsolatedBlocks(compute, BLOCKS[:2]) as isolated:
        pid = isolated.poll(LIMIT_S).results
        for number in [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1] * 20:
            os.kill(pid, number)
            assert isolated.poll(2e-3) is None
        os.write(write_end, b"x")
        assert isolated.poll(LIMIT_S).results == 1
    os.close(read_end)
    os.close(write_end)


def test_what_the_users_code_starts_heeds_signals_as_ever():
    def compute(start, stop):
        sleeper = subprocess.Popen(["sleep", str(LIMIT_S)])
        sleeper.terminate()
        return sleeper.wait()

    assert results_of(compute) == [-signal.SIGTERM] * len(BLOCKS)


def test_what_the_users_code_forks_heeds_signals_from_its_first_moment():
    def compute(start, stop):
        forks = [fork_that_sleeps() for _ in range(20)]
        for fork in forks:
            os.kill(fork, signal.SIGTERM)
        return {os.waitpid(fork, 0)[1] for fork in forks}

    def fork_that_sleeps():
        fork = os.fork()
        if fork == 0:
            try:
                time.sleep(LIMIT_S)
            finally:
                os._exit(0)
        return fork

    assert results_of(compute) == [{signal.SIGTERM}] * len(BLOCKS)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert results_of(lambda start, stop: signal.getsignal(signal.SIGUSR1), [(0, 1)]) == [
            signal.SIG_IGN
        ]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_ranks_signals_are_as_they_were():
    handlers = [signal.getsignal(n) for n in HEARD_BY_ALL]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    masks = results_of(lambda start, stop: signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    assert masks == [blocked] * len(BLOCKS)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
    assert [signal.getsignal(n) for n in HEARD_BY_ALL] == handlers


@pytest.mark.parametrize("leaves", ["raises", "returns", "exits"])
@pytest.mark.parametrize("fork", [os.fork, ctypes.CDLL(None).fork], ids=["python", "c"])
def test_a_process_that_the_users_code_forked_does_not_answer(fork, leaves):
    def compute(start, stop):
        forked = fork()
        if forked:
            return os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])
        if leaves == "raises":
            raise ValueError("of the fork")
        if leaves == "exits":
            sys.exit(3)
        return "the fork's"

    assert results_of(compute) == [ExitStatus.FAILED] * len(BLOCKS)


def test_nothing_is_printed_twice_and_no_exit_handler_runs_in_the_child():
    found = run_script(
        """
        import atexit, os, sys
        from mpims.runtime.isolation import IsolatedBlocks

        def compute(start, stop):
            print("block", start)
            print("error", start, file=sys.stderr, end=";")
            if start == 2:
                os._exit(3)

        atexit.register(print, "at exit")
        print("before")
        with IsolatedBlocks(compute, [(0, 1), (1, 2), (2, 3)]) as isolated:
            while not isolated.over:
                isolated.poll(1)
        with IsolatedBlocks(lambda start, stop: (print("raises"), 1 / 0), [(0, 1)]) as isolated:
            isolated.poll(10)
        print("after")
        """
    )
    assert found.stdout.split("\n") == ["before", "block 0", "block 1", "raises", "after", "at exit", ""]
    assert found.stderr == "error 0;error 1;"


def test_an_output_that_is_closed_does_no_harm():
    found = run_script(
        """
        import os, sys
        from mpims.runtime.isolation import IsolatedBlocks

        sys.stdout.close()
        with IsolatedBlocks(lambda start, stop: 7, [(0, 1)]) as isolated:
            sys.stderr.write(str(isolated.poll(10).results))
        sys.stdout = None
        with IsolatedBlocks(lambda start, stop: 8, [(0, 1)]) as isolated:
            sys.stderr.write(str(isolated.poll(10).results))
        """
    )
    assert found.stderr == "78"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python does not warn of forks with threads")
def test_of_threads_at_the_fork_is_not_warned_and_other_warnings_stand():
    def compute(start, stop):
        warnings.warn("This process is multi-threaded", DeprecationWarning, stacklevel=1)

    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            results_of(lambda start, stop: None)
            assert warned == []
            if os.fork() == 0:
                os._exit(0)
            os.wait()
            assert len(warned) == 1  # Python does warn
            warnings.simplefilter("error")
            assert only_outcome(compute).reason.startswith("DeprecationWarning")
    finally:
        go.set()
        thread.join()


# ------------------------------------------------------------------ what is left


def ends():
    """Children that end in all the ways there are."""
    yield lambda start, stop: start
    yield lambda start, stop: 1 / 0
    yield lambda start, stop: threading.Lock()
    yield lambda start, stop: os._exit(3)
    yield lambda start, stop: os.kill(os.getpid(), signal.SIGKILL)


def children():
    with open(f"/proc/self/task/{threading.get_native_id()}/children", encoding="ascii") as file:
        return file.read().split()


def test_no_process_and_no_open_file_is_left():
    before = sorted(os.listdir("/proc/self/fd")), children()
    for _ in range(10):
        for compute in ends():
            isolated = IsolatedBlocks(compute, BLOCKS)
            assert len(children()) == len(before[1]) + 1
            outcomes(isolated)
            assert children() == before[1]
    for _ in range(10):
        with IsolatedBlocks(lambda start, stop: hang(), BLOCKS) as isolated:
            isolated.poll(0.0)
    assert (sorted(os.listdir("/proc/self/fd")), children()) == before


def test_a_fork_that_fails_is_told_and_leaves_nothing(monkeypatch):
    def fork():
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    before = sorted(os.listdir("/proc/self/fd")), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(BlockingIOError):
        IsolatedBlocks(lambda start, stop: None, BLOCKS)
    assert (sorted(os.listdir("/proc/self/fd")), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before


@pytest.mark.parametrize("n_others", [0, 1])
def test_an_interrupt_at_the_fork_leaves_nothing(monkeypatch, n_others):
    fork = os.fork
    over = threading.Event()
    others = [threading.Thread(target=over.wait) for _ in range(n_others)]

    def interrupted_fork():
        pid = fork()
        if pid:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # another thread, which does not hold signals, has heard it
        return pid

    before = sorted(os.listdir("/proc/self/fd")), children()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(os, "fork", interrupted_fork)
    for other in others:
        other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            IsolatedBlocks(lambda start, stop: hang(), BLOCKS)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
        over.set()
        for other in others:
            other.join()
    assert (sorted(os.listdir("/proc/self/fd")), children()) == before
