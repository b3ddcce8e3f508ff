"""The transport over MPI; the only file that imports mpi4py.

A message is one frame (the numbers of bytes, the head, and the buffers if they are small), then,
for larger buffers, their bytes in slices below 2 GiB, which MPI's counts cannot exceed. A frame fits
into one packet of every common MPI, so receiving it never waits for the sender; the buffers are
received in the background. So nothing here can be held up by a rank that stops half-way.

Sizes are always taken from a probe or a frame: receiving into memory that is too small corrupts it.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import platform
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from os import _exit as leave_at_once
from threading import Timer
from typing import TYPE_CHECKING, Any

import mpi4py

mpi4py.rc.initialize = False  # an import that ends the process could not say why
mpi4py.rc.finalize = True
from mpi4py import MPI  # noqa: E402

from mpims.core.chunks import make  # noqa: E402
from mpims.errors import ExitStatus, InternalError, RunFailed  # noqa: E402
from mpims.report.wording import name_rank  # noqa: E402
from mpims.runtime.transport.base import Transport  # noqa: E402
from mpims.runtime.transport.waiting import Waiting  # noqa: E402
from mpims.runtime.wire import Buffer, Kind, Message  # noqa: E402
from mpims.streams import flush_output, say  # noqa: E402

if TYPE_CHECKING:
    from threading import Event

_START_LIMIT_S = 600
_PATIENCE_S = 10.0
_BODY_TAG = 100
_SLICE_BYTES = 1 << 30
_MAX_FRAME_BYTES = 3500  # Open MPI's shared memory sends up to 4096 bytes with the first packet
_FRAME = struct.Struct("<HH")  # number of buffers; bytes of the head, or that with _INLINE
_INLINE = 0x8000
_KINDS = {int(kind): kind for kind in Kind}  # faster than Kind(tag)
_ANY_SOURCE, _ANY_TAG = MPI.ANY_SOURCE, MPI.ANY_TAG
_STALE_S = 0.2e-3  # since the last look: messages may have come of which MPI does not know yet
_DELIVERY_S = 0.2  # to others it looks like a death: what was sent last is to be read before


class MpiTransport(Transport):
    """One rank's end of a communicator.

    Parameters
    ----------
    comm
        The communicator; its error handler is set to return errors.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        super().__init__()
        self._comm = comm
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank = self._comm.rank
        self.size = self._comm.size
        self.host = platform.node()
        self.hosts = {self.rank: self.host}
        self.survives_deaths = self._has_ulfm = os.environ.get("OMPI_MCA_mpi_ft_enable") == "1"  # noqa: SIM112
        self._pid = os.getpid()
        atexit.register(self._leave)
        # MPI_Finalize deletes this first of all; where it comes after the program, nothing is called.
        MPI.COMM_SELF.Set_attr(MPI.Comm.Create_keyval(delete_fn=self._before_finalize), None)
        self._waiting = Waiting()
        self._status = MPI.Status()
        self._probed = 0.0
        self._lacking: MemoryError | None = None
        self._frame = bytearray(_MAX_FRAME_BYTES)
        self._sending: deque[tuple[list[MPI.Request], Any, int]] = deque()
        self._unsent_bytes = 0
        # Sources with buffers under way: their messages, in order, each with its open requests.
        self._arriving: dict[int, deque[tuple[Message, list[MPI.Request]]]] = {}
        self._ready: deque[Message] = deque()
        self.lost: set[int] = set()

    @property
    def bell(self) -> Event | None:
        """What ends a wait when another thread sets it."""
        return self._waiting.bell

    @bell.setter
    def bell(self, bell: Event | None) -> None:
        """Listen to this one."""
        self._waiting.bell = bell

    # ------------------------------------------------------------------ sending

    def send(self, dest: int, kind: Kind, head: bytes = b"", buffers: Sequence[Buffer] = ()) -> None:
        if self._sending:
            self._sweep()
        if dest in self.lost:
            return
        sizes = [len(b) if type(b) is bytes else memoryview(b).nbytes for b in buffers]
        n_bytes, n_head = sum(sizes), len(head)
        front = _front(len(sizes))
        is_inline = front.size + n_head + n_bytes <= _MAX_FRAME_BYTES
        if is_inline:
            frame = b"".join((front.pack(len(sizes), n_head | _INLINE, *sizes), head, *buffers))
        else:
            frame = front.pack(len(sizes), n_head, *sizes) + head
        try:
            requests = [self._comm.Isend((frame, MPI.BYTE), dest, kind)]
            if not is_inline:
                for buffer in buffers:
                    slices = _slices(memoryview(buffer))
                    requests += [self._comm.Isend((s, MPI.BYTE), dest, _BODY_TAG) for s in slices]
        except MPI.Exception as error:
            self._notice_failures(error)
            return
        if not self._test(requests):
            self._sending.append((requests, (frame, buffers), n_bytes))
            self._unsent_bytes += n_bytes

    def _sweep(self) -> None:
        """Forget what has left."""
        for _ in range(len(self._sending)):
            requests, memory, n_bytes = self._sending.popleft()
            if self._test(requests):
                self._unsent_bytes -= n_bytes
            else:
                self._sending.append((requests, memory, n_bytes))

    def _test(self, requests: list[MPI.Request]) -> bool:
        """Whether the requests are over; those with a dead rank are."""
        try:
            return bool(requests[0].Test() if len(requests) == 1 else MPI.Request.Testall(requests))
        except MPI.Exception as error:
            self._notice_failures(error)
            return True

    @property
    def unsent_bytes(self) -> int:
        if self._sending:
            self._sweep()
        return self._unsent_bytes

    @property
    def is_open(self) -> bool:
        return os.getpid() == self._pid and not MPI.Is_finalized()  # what the program forks is no rank

    # ---------------------------------------------------------------- receiving

    def receive(self, timeout_s: float, slack_s: float = 0.0) -> Message | None:
        message = self._look()
        if message is None and timeout_s > 0:
            self._waiting.begin()
            while message is None and self._waiting.pause(
                timeout_s,
                slack_s,
                spins=self.spins,
                is_moving=bool(self._arriving) or self._unsent_bytes > _MAX_FRAME_BYTES,
            ):
                message = self._look()
        if message is not None:
            self._waiting.arrived()
        return message

    def _look(self) -> Message | None:
        """Take in at most one frame; give a message if one is whole.

        Open MPI looks among what it has taken in already, and only then whether there is something new
        (`mca_pml_ob1_iprobe`): what came since the last look is found by a second call.
        """
        if self._arriving:
            self._advance()
        if self._ready:
            return self._ready.popleft()
        now = time.perf_counter()
        is_stale = now - self._probed > _STALE_S
        self._probed = now
        probe, status = self._comm.Iprobe, self._status
        try:
            if probe(_ANY_SOURCE, _ANY_TAG, status) or (is_stale and probe(_ANY_SOURCE, _ANY_TAG, status)):
                return self._take_frame()
            if self._sending:
                self._sweep()
            return None
        except MPI.Exception as error:
            self._notice_failures(error)
            return self._ready.popleft() if self._ready else None

    def _take_frame(self) -> Message | None:
        if self._lacking is not None:  # or the bytes that are left there would be taken for a frame
            raise self._lacking
        source, tag = self._status.source, self._status.tag
        n_bytes = self._status.Get_count(MPI.BYTE)
        frame = self._frame
        if n_bytes > len(frame):
            raise InternalError(
                f"a message of {n_bytes} bytes with tag {tag} from {self.where(source)} is no frame"
            )
        self._comm.Recv((frame, n_bytes, MPI.BYTE), source, tag)
        front = _front(_FRAME.unpack_from(frame)[0])
        _, n_head, *sizes = front.unpack_from(frame)
        stop = front.size + (n_head & ~_INLINE)
        head = bytes(frame[front.size : stop])
        kind = _KINDS[tag]
        if not sizes or n_head & _INLINE:
            buffers: list[Buffer] = []
            for size in sizes:
                buffers.append(frame[stop : stop + size])
                stop += size
            message = make(Message, (kind, source, head, buffers))
            return message if not self._arriving else self._in_order(message, [])
        try:
            memory = self._memory(sizes)
        except MemoryError as error:
            self._lacking = error
            raise
        requests = []
        for target in memory:
            requests += [self._comm.Irecv((s, MPI.BYTE), source, _BODY_TAG) for s in _slices(target)]
        return self._in_order(Message(kind, source, head, list(memory)), requests)

    def _in_order(self, message: Message, requests: list[MPI.Request]) -> Message | None:
        """Give the message unless it, or an earlier one of its source, is still under way."""
        if message.source not in self._arriving:
            if not requests or MPI.Request.Testall(requests):
                return message
            self._arriving[message.source] = deque()
        self._arriving[message.source].append((message, requests))
        return None

    def _advance(self) -> None:
        """Look after the buffers that are under way."""
        for source in list(self._arriving):
            queue = self._arriving[source]
            try:
                while queue and (not queue[0][1] or MPI.Request.Testall(queue[0][1])):
                    self._ready.append(queue.popleft()[0])
            except MPI.Exception as error:
                self._notice_failures(error)
            if not queue:
                self._arriving.pop(source, None)

    # ------------------------------------------------------------------ failures

    def _notice_failures(self, error: MPI.Exception) -> None:
        """Turn newly dead ranks into LOST messages; raise what is no death.

        A pending error is reported at every probe until the failure is acknowledged.
        """
        if error.Get_error_class() not in _DEATHS:
            raise error
        self._comm.Ack_failed(self._comm.size)
        ranks = self._failed_ranks()
        if error.Get_error_class() == MPI.ERR_IN_STATUS and not ranks:
            raise error  # something else is wrong with one of the requests
        for rank in sorted(ranks):
            if rank not in self.lost:
                self.lose(rank)
                self._ready.append(Message(Kind.LOST, rank, b"", []))

    def _before_finalize(self, comm: MPI.Comm, keyval: int, value: None) -> None:
        """The program finalises MPI, which waits for all: who waits for this rank is told before."""
        if self.leave is not None:
            self.leave()

    def _leave(self) -> None:
        """Leave without MPI_Finalize if a rank has died: it may wait for that rank for ever.

        That is so even where every survivor has acknowledged the death, about once in twenty times. In a
        child that the program has forked it waits for ever, too.
        """
        if (self._has_ulfm and self.lost) or os.getpid() != self._pid:
            _leave(self.exit_status)

    def _failed_ranks(self) -> set[int]:
        failed = self._comm.Get_failed()
        return set(MPI.Group.Translate_ranks(failed, None, self._comm.Get_group()))

    def abandon(self, status: int) -> None:
        # Under ULFM, Abort(0) with a stopped rank left over hangs the launcher.
        atexit.register(self._comm.Abort, status or (ExitStatus.STOPPED if self._has_ulfm else 0))

    def lose(self, rank: int) -> None:
        super().lose(rank)
        self._arriving.pop(rank, None)

    def library(self) -> str:
        return library_version().split("\n")[0].split(",")[0]


_DEATHS = frozenset(
    getattr(MPI, name)
    for name in ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED", "ERR_IN_STATUS")
    if hasattr(MPI, name)
)


@cache
def _front(n_buffers: int) -> struct.Struct:
    """What a frame begins with: the fields of `_FRAME`, and the size of each buffer."""
    return struct.Struct(f"{_FRAME.format}{n_buffers}Q")


def _slices(view: memoryview) -> list[memoryview]:
    """The bytes of a buffer in pieces that MPI can count; none for an empty one."""
    return [view[i : i + _SLICE_BYTES] for i in range(0, view.nbytes, _SLICE_BYTES)]


def _leave(status: int) -> None:
    """Leave without MPI_Finalize, once what was sent is there."""
    flush_output()
    time.sleep(_DELIVERY_S)
    # Of an exception that ends the program, not of SystemExit, there is a trace here.
    leave_at_once(ExitStatus.FAILED if hasattr(sys, "last_type") else status)


@cache
def _world() -> list[MpiTransport]:
    return []


def world_transport(*, share: bool, threads: bool = False) -> MpiTransport:
    """The transport over all ranks of this program, made once.

    Parameters
    ----------
    share
        Take a duplicate of COMM_WORLD, so that no message of the program's own is mistaken for one of
        ours. Every rank must do so, and none may die meanwhile: what all do together cannot be
        survived. Without it COMM_WORLD itself is used.
    threads
        Whether another thread than this one is to use it, where this is what initialises MPI.
    """
    if not _world():
        _initialise(MPI.THREAD_MULTIPLE if threads else MPI.THREAD_FUNNELED)
        _world().append(MpiTransport(_duplicate() if share else MPI.COMM_WORLD))
    return _world()[0]


def _duplicate() -> MPI.Intracomm:
    """A duplicate of COMM_WORLD: all ranks make it together, and who waits for the others says so."""
    rank = MPI.COMM_WORLD.rank
    told = Timer(
        _PATIENCE_S,
        say,
        [
            f"{name_rank(rank, platform.node())} still waits for the others: under a launcher "
            "every rank of a program calls mpims.run or mpims.Executor, not one of them alone"
        ],
    )
    told.daemon = True
    if rank < 2:  # one of the two waits, whoever is missing
        told.start()
    try:
        return MPI.COMM_WORLD.Dup()
    except MPI.Exception as error:
        if error.Get_error_class() not in _DEATHS:
            raise
        with suppress(MPI.Exception, NotImplementedError):
            MPI.COMM_WORLD.Revoke()  # or another rank may wait for ever
        atexit.register(_leave, ExitStatus.FAILED)
        raise RunFailed(
            "a rank of this program has died before its first run, and so this cannot begin: start it again"
        ) from None
    finally:
        told.cancel()


def _initialise(level: int) -> None:
    """Find the other ranks, unless the program has done so.

    That waits for all of them, and for ever for one that died meanwhile.
    """
    if not MPI.Is_initialized():
        faulthandler.dump_traceback_later(_START_LIMIT_S, exit=True)
        MPI.Init_thread(level)
        faulthandler.cancel_dump_traceback_later()


def library_version() -> str:
    """What the MPI library calls itself, in several lines; MPI need not be initialised."""
    return MPI.Get_library_version().rstrip("\x00")


def thread_level() -> str:
    """What MPI allows threads to do: single, funneled, serialized or multiple."""
    names = ("single", "funneled", "serialized", "multiple")
    levels = {getattr(MPI, f"THREAD_{name.upper()}"): name for name in names}
    return levels[MPI.Query_thread()]
