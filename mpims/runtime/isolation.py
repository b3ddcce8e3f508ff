"""Blocks computed in a forked child: one at fault kills or hangs the child, and not the rank.

    rank                                                  child

    IsolatedBlocks() ───────────── fork ────────────────▶ compute(0, 4)
    poll() BlockDone(0, 4) ◀────── frame ──────────────── compute(4, 8)
    poll() BlockDone(4, 8) ◀────── frame ──────────────── compute(8, 12) raises
    poll() BlockRaised(8, 12) ◀─── frame
           BlockDied(8, 12) ◀───── exit status ────────── compute(8, 12) kills the child
    kill() ─────────────────────── SIGKILL ─────────────▶ compute(8, 12) does not return

The child has all that the rank has at the fork, so nothing is pickled to get in; what it changes
stays in it. It announces nothing: blocks are computed in order, and the one under way is the first
that is not answered. A frame is a head, the sizes of its buffers, and the buffers.

The child has the forking thread only. A library whose own threads have run in the rank may hang in
it, as a GPU's may fail: that looks like a block at fault. MPI is not touched in it, and it leaves by
`os._exit`, so that nothing of MPI is finalized twice.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import FileIO
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from mpims.errors import ExitStatus, describe, user_traceback
from mpims.processes import ending_with_parent
from mpims.runtime.wire import Buffer, decode_object, encode_object

READ_AT_ONCE_BYTES = 8 << 20
"""Between two looks at the clock; a few milliseconds."""
LOOK_INTERVAL_S = 50e-3
"""A process that the child left behind can hold the pipe open: a death is looked for this often."""
EXIT_INTERVAL_S = 1e-3
"""The same where the pipe is closed, and the child about to be gone."""
REAP_INTERVAL_S = 0.2e-3
MAX_REAP_S = 1.0
"""A killed child is waited for this long: one that waits for a dead file system does not go away."""

_HEARD_BY_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Terminals, launchers and batch systems send these to every process; the rank decides what follows."""

_HEAD = struct.Struct("<?dI")  # whether the block went well, busy_s, the number of buffers
_SIZE = struct.Struct("<Q")

_unreaped: list[int] = []


class BlockDone(NamedTuple):
    """The results of items ``[start, stop)``, and the time that they took."""

    start: int
    stop: int
    results: Any
    busy_s: float


class BlockRaised(NamedTuple):
    """The user's code raised on items ``[start, stop)``; the child is over."""

    start: int
    stop: int
    reason: str
    detail: str


class BlockDied(NamedTuple):
    """The child died on items ``[start, stop)``."""

    start: int
    stop: int
    reason: str


BlockOutcome: TypeAlias = BlockDone | BlockRaised | BlockDied
Compute: TypeAlias = Callable[[int, int], Any]


class IsolatedBlocks:
    """A forked child that computes blocks one after another and sends back each as it is done.

    Fork in a thread that lives as long as the rank: on Linux the child ends with that thread.

    Parameters
    ----------
    compute
        Called in the child with start and stop; gives the results of a block, an array or anything
        that can be pickled.
    blocks
        Start and stop of each.

    Raises
    ------
    OSError
        There is no room for another process.
    """

    def __init__(self, compute: Compute, blocks: Sequence[tuple[int, int]]) -> None:
        self._blocks = tuple(blocks)
        self._n_answered = 0
        self._is_over = False
        self._pid: int | None = None
        self._end: str | None = None
        _unreaped[:] = [pid for pid in _unreaped if _how_it_ended(pid) is None]
        read_end, write_end = os.pipe()
        self._pipe = open(read_end, "rb", buffering=0)  # noqa: SIM115 - closed by kill()
        os.set_blocking(read_end, False)
        self._frames = _FrameReader(self._pipe)
        self._poller = select.poll()
        self._poller.register(read_end, select.POLLIN)
        with ExitStack() as undone:
            undone.callback(self.kill)
            self._fork(compute, write_end)
            undone.pop_all()
        if not self._blocks:
            self.kill()

    def _fork(self, compute: Compute, write_end: int) -> None:
        try:
            rank, end_with_rank = os.getpid(), ending_with_parent(signal.SIGKILL)
            _flush_output()  # or the child would print it again
            # A signal between the fork and the child's own handlers would raise in the rank's code.
            with _held_signals():
                self._pid = _fork_quietly() or _run_child(
                    compute, self._blocks, self._pipe, write_end, rank, end_with_rank
                )
        finally:
            os.close(write_end)

    def __enter__(self) -> IsolatedBlocks:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def over(self) -> bool:
        """Whether no outcome follows: all are there, or one was bad, or the child was killed."""
        return self._is_over

    @property
    def current(self) -> tuple[int, int] | None:
        """The block under way, as far as `poll` has seen; None if it is over."""
        return None if self._is_over else self._blocks[self._n_answered]

    def poll(self, timeout_s: float) -> BlockOutcome | None:
        """The next outcome; None if there is none within `timeout_s`, or if it is over.

        A large result comes in over several calls.
        """
        until = time.monotonic() + timeout_s
        while not self._is_over:
            outcome = self._look()
            left_s = until - time.monotonic()
            if outcome is not None or left_s <= 0:
                return outcome
            self._wait(left_s)
        return None

    def kill(self) -> None:
        """End the child, whatever it does; nothing happens if it has ended."""
        self._is_over = True
        self._pipe.close()
        pid, self._pid = self._pid, None
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _reap(pid)

    def _wait(self, timeout_s: float) -> None:
        if self._frames.ended:  # where waiting for more would return at once
            time.sleep(min(timeout_s, EXIT_INTERVAL_S))
        else:
            self._poller.poll(1e3 * min(timeout_s, LOOK_INTERVAL_S))

    def _look(self) -> BlockOutcome | None:
        """Read what has come. It is first asked whether the child lives: what it sent is then there."""
        if self._pid is not None:
            self._end = _how_it_ended(self._pid)
            if self._end is not None:
                self._pid = None
        try:
            frame = self._frames.read()
        except MemoryError as error:
            return self._raised(f"its results do not fit into memory: {describe(error)}")
        if frame is not None:
            return self._answered(frame)
        if self._end is not None and self._frames.is_drained:
            start, stop = self._blocks[self._n_answered]
            self.kill()
            return BlockDied(start, stop, self._end)
        return None

    def _answered(self, frame: _Frame) -> BlockOutcome:
        start, stop = self._blocks[self._n_answered]
        try:
            value = decode_object(frame.buffers)
        except Exception as error:  # whatever an object of the user's raises when it is unpickled
            reason = f"a result cannot be unpickled: {describe(error)}"
            return self._raised(reason, user_traceback(error))
        if not frame.is_done:
            return self._raised(*value)
        self._n_answered += 1
        if self._n_answered == len(self._blocks):
            self.kill()
        return BlockDone(start, stop, value, frame.busy_s)

    def _raised(self, reason: str, detail: str = "") -> BlockRaised:
        start, stop = self._blocks[self._n_answered]
        self.kill()
        return BlockRaised(start, stop, reason, detail)


# ------------------------------------------------------------------- in the rank


class _Frame(NamedTuple):
    """What the child says of one block: its results, or reason and detail if its code raised."""

    is_done: bool
    busy_s: float
    buffers: list[Buffer]


class _FrameReader:
    """Takes frames out of a non-blocking pipe, in as many steps as they need."""

    def __init__(self, pipe: FileIO) -> None:
        self._pipe = pipe
        self._parts = _frame_parts()
        self._gap = memoryview(b"")
        self.is_drained = False
        self.ended = False

    def read(self) -> _Frame | None:
        """Read at most `READ_AT_ONCE_BYTES`; give the frame that is whole by then."""
        n_left = READ_AT_ONCE_BYTES
        while n_left > 0:
            frame = self._next_part()
            if frame is not None:
                return frame
            n_read: int | None = self._pipe.readinto(self._gap[:n_left])
            self.is_drained = not n_read
            self.ended = n_read == 0
            if not n_read:
                return None
            self._gap = self._gap[n_read:]
            n_left -= n_read
        return None

    def _next_part(self) -> _Frame | None:
        """Go on to the next part if this one is full; give the frame if it was the last."""
        while not self._gap:
            try:
                self._gap = memoryview(next(self._parts))
            except StopIteration as whole:
                frame: _Frame = whole.value
                self._parts = _frame_parts()
                return frame
        return None


def _frame_parts() -> Generator[bytearray, None, _Frame]:
    """Give the parts of a frame to be filled, one after another, then the frame."""
    head = bytearray(_HEAD.size)
    yield head
    is_done, busy_s, n_buffers = _HEAD.unpack(head)
    sizes = bytearray(n_buffers * _SIZE.size)
    yield sizes
    buffers: list[Buffer] = []
    for (n_bytes,) in _SIZE.iter_unpack(sizes):
        buffer = bytearray(n_bytes)
        yield buffer
        buffers.append(buffer)
    return _Frame(is_done, busy_s, buffers)


def _how_it_ended(pid: int) -> str | None:
    """Reap a child if it has ended, and say how; None if it lives."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # SIGCHLD is ignored, or another waits for any child
        return "ended; its exit status was lost"
    if not ended:
        return None
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"left with exit status {code} (os._exit, exit() in C, STOP in Fortran)"
    with suppress(ValueError):  # some numbers have no name
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"killed by signal {-code}"


def _reap(pid: int) -> None:
    """Wait until a killed child is gone; one that stays is reaped when the next is made."""
    until = time.monotonic() + MAX_REAP_S
    while _how_it_ended(pid) is None:
        if time.monotonic() >= until:
            _unreaped.append(pid)
            return
        time.sleep(REAP_INTERVAL_S)


@contextmanager
def _held_signals() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD_BY_ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork_quietly() -> int:
    """Fork; Python 3.12 and later warn where there are threads, and the child needs none of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"This process .* is multi-threaded", DeprecationWarning)
        return os.fork()


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # it may be closed, or nobody reads it any more
                stream.flush()


# ------------------------------------------------------------------ in the child


def _run_child(
    compute: Compute,
    blocks: Sequence[tuple[int, int]],
    read_end: FileIO,
    write_end: int,
    rank: int,
    end_with_rank: Callable[[], object],
) -> NoReturn:
    """All that the child does; it never gets into the rank's code, nor into its exit handlers."""
    status = ExitStatus.INTERNAL
    try:
        end_with_rank()
        if os.getppid() == rank:  # or the rank was gone before it could be asked to take the child along
            read_end.close()
            gc.freeze()  # what the rank left as garbage, perhaps of MPI, is not to be finalized here
            _leave_signals_to_rank(write_end)
            _send_blocks(compute, blocks, write_end)
        status = ExitStatus.DONE
    except BrokenPipeError:  # nobody wants the rest
        status = ExitStatus.DONE
    except BaseException:  # a defect of ours, or the user's code closed the pipe: the rank sees a status
        traceback.print_exc()
    finally:
        _flush_output()
        os._exit(status)


def _leave_signals_to_rank(write_end: int) -> None:
    """Let the signals that all processes get pass; the rank kills the child if it is to end.

    They are not ignored: what the user's code starts would ignore them too, and could not be ended
    by SIGTERM. Its forks, as those of `multiprocessing`, get the rank's handlers back, before a
    signal can reach them. They do not hold the pipe either.
    """
    before = {
        number: signal.signal(number, _pass)
        for number in _HEARD_BY_ALL
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    for number in before:
        signal.siginterrupt(number, False)  # no call in the user's C code is to fail of it
    hold = partial(signal.pthread_sigmask, signal.SIG_BLOCK, _HEARD_BY_ALL)
    release = partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _HEARD_BY_ALL)

    def undo() -> None:
        with suppress(OSError):  # the user's code may have closed it
            os.close(write_end)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=undo)
    release()


def _pass(number: int, frame: object) -> None:
    """Handle a signal by doing nothing."""


def _send_blocks(compute: Compute, blocks: Sequence[tuple[int, int]], write_end: int) -> None:
    """Compute and send block after block, up to the first one that raises."""
    child = os.getpid()
    for start, stop in blocks:
        frame = _compute_block(compute, start, stop)
        if os.getpid() != child:
            os._exit(ExitStatus.FAILED)  # a child that the user's code forked: not for it to answer
        _flush_output()  # the user's prints outlive the death of a later block
        _write_frame(write_end, frame)
        if not frame.is_done:
            return


def _compute_block(compute: Compute, start: int, stop: int) -> _Frame:
    began = time.perf_counter()
    try:
        results = compute(start, stop)
    except BaseException as error:  # whatever the user's code raises
        return _Frame(False, 0.0, encode_object((describe(error), user_traceback(error))))
    busy_s = time.perf_counter() - began
    try:
        return _Frame(True, busy_s, _encode_results(results))
    except Exception as error:  # whatever an object of the user's raises when it is pickled
        reason = f"a result cannot be pickled: {describe(error)}"
        return _Frame(False, 0.0, encode_object((reason, "")))


def _encode_results(results: Any) -> list[Buffer]:
    """Pickle results; an array is not copied, for nothing is computed while it leaves."""
    if type(results) is not np.ndarray or results.dtype.hasobject:
        return encode_object(results)
    large: list[pickle.PickleBuffer] = []
    array = np.asarray(results, order="C")  # only a contiguous one leaves as a buffer
    stream = pickle.dumps(array, protocol=5, buffer_callback=large.append)
    return [stream, *(buffer.raw() for buffer in large)]


def _write_frame(write_end: int, frame: _Frame) -> None:
    sizes = [_SIZE.pack(len(buffer)) for buffer in frame.buffers]
    _write_all(write_end, b"".join([_HEAD.pack(frame.is_done, frame.busy_s, len(sizes)), *sizes]))
    for buffer in frame.buffers:
        _write_all(write_end, buffer)


def _write_all(write_end: int, buffer: Buffer) -> None:
    rest = memoryview(buffer)
    while rest:
        rest = rest[os.write(write_end, rest) :]
