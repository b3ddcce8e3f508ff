"""The messages between ranks: their kinds, and how values become bytes.

A message has a kind, a short head and any number of buffers. A kind is an MPI tag: it says what the
message is, never which task it is for. Heads of the frequent kinds are fixed structures. Arrays
travel as raw buffers; other objects by pickle protocol 5 with their large buffers out of band.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import lru_cache, partial
from itertools import repeat
from math import nan
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mpims.core.chunks import Assignment, Care, Held, Result
from mpims.options import RunOptions
from mpims.processes import Process

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What a transport carries: contiguous bytes."""

MAX_HEAD_BYTES = 3072
"""A head is sent with its message's first packet, so that receiving it never waits for the sender."""

_OUT_OF_BAND_BYTES = 1 << 16
_MAX_OUT_OF_BAND = 64


class Kind(IntEnum):
    """What a message says. M -> W: the master to a worker; W -> M: the other way."""

    START = 1  # M -> W  here is the job
    JOINED = 2  # W -> M  I am ready
    ASSIGN = 3  # M -> W  compute these chunks
    RECALL = 4  # M -> W  drop that attempt
    RESULT = 5  # W -> M  results of the next items of an attempt, or of several
    FAILED = 6  # W -> M  the user's code failed
    END = 7  # M -> W  the run has ended, and how
    GOODBYE = 8  # W -> M  nothing more comes from me in this run
    DISMISS = 9  # M -> W  leave the program
    LOST = 10  # from the transport itself: that rank is dead
    TRIM = 11  # M -> W  end that attempt earlier
    SKIPPED = 12  # W -> M  items of the block that follows, given up
    PING = 13  # W -> M  are you there? I am
    PONG = 14  # M -> W  I am here
    CLOSING = 15  # M -> W  nothing more to compute; do not wonder at my silence
    DRAIN = 16  # M -> W  deliver what you have, drop the rest
    DRAINED = 17  # W -> M  I hold nothing more
    FENCE = 18  # M -> W  kill that rank, of your host: it does not answer
    FENCED = 19  # W -> M  it is no more (or: it is not to be killed from here)
    RETURNED = 20  # W -> M  of the attempt that was trimmed I have begun nothing from there on
    PROGRAM = 21  # M -> W  whose process I am: the program that you will compute for


class Message(NamedTuple):
    """A whole message as it was received."""

    kind: Kind
    source: int
    head: bytes
    buffers: list[Buffer]


class Start(NamedTuple):
    """Everything that a rank needs to compute, or to go on as the master.

    Attributes
    ----------
    source
        The job's definition; None where the ranks have it already.
    parameters
        Those of the job, packed where its definition travels, too; or an executor's settings.
    run_id
        The run, however often it is resumed.
    epoch
        How many masters it had before this one.
    run_dir
        The run directory.
    command
        What the user typed.
    master
        Who the master is.
    """

    source: Any
    parameters: Any
    options: RunOptions
    run_id: str
    epoch: int
    run_dir: str
    command: tuple[str, ...]
    master: Process


class Joined(NamedTuple):
    """Who a worker is, what it sees as the items, and what an earlier master gave it."""

    host: str
    process: Process
    holding: tuple[Held, ...]
    n_items: int
    items_digest: str
    job: str


class Failed(NamedTuple):
    """Where the user's code failed on a worker, and its traceback.

    Attempt 0 stands for all before the first. `is_final`: an item, tried alone as often as may be.
    """

    attempt: int
    start: int
    stop: int
    reason: str
    detail: str
    is_usage: bool = False
    is_final: bool = False


class SkippedItem(NamedTuple):
    """An item that was given up: after how many tries, and why the last one failed."""

    item: int
    n_tries: int
    reason: str
    detail: str


class Fence(NamedTuple):
    """A rank that does not answer, and the signal that is to end it."""

    rank: int
    process: Process
    signal: int


class End(NamedTuple):
    """How the run ended: status 0, or that of an error with its text; `lost` ranks are dead."""

    status: int
    message: str = ""
    detail: str = ""
    lost: tuple[int, ...] = ()


class ArrayHead(NamedTuple):
    """Dtype and shape of an array that travels as one raw buffer."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


_CARES = [Care(value) for value in range(4)]  # faster than Care(value)
_ASSIGN = struct.Struct("<qqqqB")
_RECALL = struct.Struct("<q")
_TRIM = struct.Struct("<qq")
ASSIGNMENTS = np.dtype(
    [("attempt", "<i8"), ("start", "<i8"), ("stop", "<i8"), ("size", "<i8"), ("care", "u1")]
)
"""What `_ASSIGN` is, for whoever has many: items in chunks of one size, numbered from an attempt on."""
_RESULT = struct.Struct("<qqqdfffd")
_RESULT_READ = struct.Struct("<qqqdfff8x")  # no event has the clock
RESULTS = np.dtype(
    [
        ("attempt", "<i8"),
        ("start", "<i8"),
        ("stop", "<i8"),
        ("busy_s", "<f8"),
        ("longest_block_s", "<f4"),
        ("squares_s2", "<f4"),
        ("overhead_s", "<f4"),
        ("ended_s", "<f8"),  # the worker's clock at the end of its last block
    ]
)
"""What `_RESULT` is, for whoever has many."""
pack_result = _RESULT.pack
"""Makes bytes of a `Result`'s fields and the worker's clock at its end."""
MOST_RESULTS = 48
MOST_ASSIGNMENTS = 90
"""So many share a message at the most."""


as_result: Callable[[tuple[int, int, int, float, float, float, float]], Result]
as_result = partial(tuple.__new__, Result)  # faster than Result(*fields)


def encode_assign(assignments: Sequence[Assignment]) -> bytes:
    """Make the head of an ASSIGN."""
    return b"".join([_ASSIGN.pack(a.attempt, a.start, a.stop, a.size, a.care) for a in assignments])


def decode_assign(head: bytes) -> list[tuple[int, int, int, Care]]:
    """Read an ASSIGN: each attempt's number, start, stop, and how carefully."""
    return [
        (number, at, end if (end := at + size) < stop else stop, _CARES[care])
        for first, start, stop, size, care in _ASSIGN.iter_unpack(head)
        for number, at in enumerate(range(start, stop, size), first)
    ]


def encode_recall(attempt: int) -> bytes:
    """Make the head of a RECALL."""
    return _RECALL.pack(attempt)


def decode_recall(head: bytes) -> int:
    """Read a RECALL: the attempt's number."""
    number: int = _RECALL.unpack(head)[0]
    return number


def encode_trim(attempt: int, stop: int) -> bytes:
    """Make the head of a TRIM."""
    return _TRIM.pack(attempt, stop)


def decode_trim(head: bytes) -> tuple[int, int]:
    """Read a TRIM: the attempt's number and its new stop."""
    attempt, stop = _TRIM.unpack(head)
    return attempt, stop


def encode_results(
    heads: Sequence[Result], payload: Any, ended_s: Iterable[float] = repeat(nan)
) -> tuple[bytes, list[Buffer]]:
    """Make head and buffers of a RESULT.

    `ended_s` is this rank's clock at the end of each; it goes into the trace and nowhere else. An array
    payload is not copied: it must not change any more.
    """
    packed = [pack_result(*one, its_s) for one, its_s in zip(heads, ended_s, strict=False)]
    return encode_packed(packed, payload)


def encode_packed(results: Sequence[bytes], payload: Any) -> tuple[bytes, list[Buffer]]:
    """Do the same where each result, with its clock, is packed by `pack_result`."""
    head = results_head(results)
    if type(payload) is np.ndarray and not payload.dtype.hasobject:
        array = _encode_form(payload.dtype, payload.shape)
        if len(head) + len(array) <= MAX_HEAD_BYTES:
            return head + array, [as_bytes(payload)]
    return head, encode_object(payload)


def results_head(results: Sequence[bytes]) -> bytes:
    """The head of a RESULT whose payload is no array."""
    return bytes((len(results),)) + b"".join(results)


def unpack_result(packed: bytes) -> Result:
    """What `pack_result` was given, but for the clock."""
    return as_result(_RESULT_READ.unpack(packed))


def decode_results(head: bytes) -> tuple[list[Result], ArrayHead | None]:
    """Read the head of a RESULT: what is delivered, and the form of the payload if it is one array."""
    stop = 1 + head[0] * _RESULT.size
    heads = [as_result(one) for one in _RESULT_READ.iter_unpack(head[1:stop])]
    return heads, _decode_form(head[stop:]) if len(head) > stop else None


@lru_cache(maxsize=256)
def _encode_form(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return pickle.dumps((dtype, shape), protocol=5)


@lru_cache(maxsize=256)
def _decode_form(form: bytes) -> ArrayHead:
    dtype, shape = pickle.loads(form)
    if dtype.kind in "mM":  # pickling gives it metadata, of which NumPy warns when it is written
        dtype = np.dtype(dtype.str)
    return ArrayHead(dtype, shape)


def packed_results(head: bytes) -> bytes:
    """What is delivered, as it came: records of `RESULTS`."""
    return head[1 : 1 + head[0] * _RESULT.size]


def decode_payload(array: ArrayHead | None, buffers: Sequence[Buffer]) -> Any:
    """The payload that `encode_results` was given; an array is a view of its buffer."""
    if array is None:
        return decode_object(buffers)
    return np.ndarray(array.shape, array.dtype, buffers[0])


def as_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """The bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def encode_object(value: Any) -> list[Buffer]:
    """Pickle a value, its large buffers out of band and copied.

    They are copied because they leave while the user's code goes on, and may use them again.
    """
    large: list[Buffer] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _OUT_OF_BAND_BYTES or len(large) == _MAX_OUT_OF_BAND:
            return True
        large.append(bytearray(raw))
        return False

    stream = pickle.dumps(value, protocol=5, buffer_callback=keep_in_band)
    return [stream, *large]


def decode_object(buffers: Sequence[Buffer]) -> Any:
    """The value that `encode_object` was given."""
    return pickle.loads(buffers[0], buffers=buffers[1:])
