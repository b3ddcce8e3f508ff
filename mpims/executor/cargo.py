"""Values on their way: how arguments and results become bytes, and what is said of those that cannot.

A value of an immutable built-in type travels as it is, many in one pickle. Any other is pickled by itself
and at once: so what the program, or a task, does to it afterwards does not matter, and one that cannot
travel spoils no other. Large buffers (arrays) are copied once, and then never again. An array that nobody
but its task referred to is not copied, for nobody can change it, nor are large bytes. Nor is a very large
array that took no longer to make than a copy takes: it is lent, and the rank computes nothing more until it
has left.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from math import inf
from threading import Lock
from typing import Any, TypeAlias

import numpy as np

from mpims.errors import describe, user_traceback
from mpims.executor.blame import cannot_travel
from mpims.executor.errors import RemoteTraceback, TaskFailed
from mpims.executor.pieces import Callback, dump, load
from mpims.runtime.buffers import LEAST_BYTES, Buffers
from mpims.runtime.wire import Buffer

PLAIN, PICKLED, LARGE, ERROR, NOTHING = range(5)
"""How a value is packed: as it is; a pickle; one in pieces and its buffers; an exception; not at all."""

MOST_BUFFERS = 64
"""So many buffers travel beside the stream of a message; what is beyond that is within it."""

_PLAIN_TYPES = frozenset(
    {int, float, complex, bool, str, bytes, type(None), np.bool_}
    | {np.dtype(code).type for code in "bBhHiIlLqQefdFD"}
)
_OF_MAIN = b"__main__"
_SAMPLE = 64

Packed: TypeAlias = tuple[int, Any]
"""A flag of the above, and the value in that form."""


class Batch:
    """Packed values, one after another.

    Attributes
    ----------
    values
        Each as its flag says.
    flags
        One byte for each.
    """

    __slots__ = ("flags", "values")

    def __init__(self, values: list[Any], flags: bytearray) -> None:
        self.values = values
        self.flags = flags

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> Batch:
        return Batch(self.values[part], self.flags[part])

    def __reduce__(self) -> Any:
        return Batch, self.bare()

    def bare(self) -> tuple[list[Any], bytearray]:
        """What it is made of, for `encode`: that is pickled faster than an object of our own."""
        values = self.values
        if LARGE in self.flags:
            values = [
                ([_beside(piece) for piece in value[0]], [pickle.PickleBuffer(b) for b in value[1]])
                if flag == LARGE
                else value
                for flag, value in zip(self.flags, values, strict=True)
            ]
        return values, self.flags

    @property
    def is_plain(self) -> bool:
        """Whether all values are there as they are."""
        return not any(self.flags)

    def append(self, packed: Packed) -> None:
        """Add a value."""
        self.flags.append(packed[0])
        self.values.append(packed[1])

    def extend(self, other: Batch) -> None:
        """Add values."""
        self.values += other.values
        self.flags += other.flags


def bare(packed: Packed) -> Packed:
    """A packed value for `encode`, or for pickle."""
    flag, value = packed
    return flag, Batch([value], bytearray((flag,))).bare()[0][0]


def empty_batch() -> Batch:
    """A batch to be filled."""
    return Batch([], bytearray())


def _beside(piece: Buffer) -> Buffer | pickle.PickleBuffer:
    """A piece, to travel beside the pickle that it is part of where it takes time to copy it into that."""
    return pickle.PickleBuffer(piece) if len(piece) >= LEAST_BYTES else piece


LENT_BYTES = 1 << 20
"""A buffer of a result of this size is lent in place of being copied, ..."""
COPIED_BYTES_PER_S = 4e9
"""... if the task took less time than a copy at this speed; after a longer one it pays to compute on."""


class Packer:
    """Packs values; the memory of the large ones is used again when nobody has it any more.

    Parameters
    ----------
    in_pieces
        Large bytes in values are not copied. Not for functions, which are known by their pickles.

    Attributes
    ----------
    has_lent
        Whether a buffer was lent; for whoever waits until it has left, to be reset.
    """

    def __init__(self, *, in_pieces: bool = False) -> None:
        self._in_pieces = in_pieces
        self._was_large = False  # the last pickle; to find large bytes in a small one takes time
        self._buffers = Buffers()
        self._lock = Lock()
        self.has_lent = False

    def pack(
        self, value: Any, what: str = "a value", *, is_ours: bool = False, took_s: float = inf
    ) -> Packed:
        """Pack one value.

        Parameters
        ----------
        value, what
            It, and what it is, which is said if it cannot travel.
        is_ours
            Nobody else refers to it: if it is an array its memory is not copied.
        took_s
            How long it took to make it, in seconds: its largest buffers are lent if a copy takes longer,
            that is, neither copied nor to be changed before they have left.

        Raises
        ------
        CannotTravel
            It cannot be pickled.
        """
        in_pieces = self._was_large
        if type(value) in _PLAIN_TYPES:
            if type(value) is not bytes or len(value) < LEAST_BYTES or not self._in_pieces:
                return PLAIN, value
            in_pieces = True
        is_safe = is_ours and type(value) is np.ndarray and value.flags.owndata
        large: list[Any] = []

        def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < LEAST_BYTES or len(large) == MOST_BUFFERS:
                return True
            array = np.frombuffer(raw, np.uint8)
            if not is_safe:
                if raw.nbytes >= LENT_BYTES and took_s * COPIED_BYTES_PER_S < raw.nbytes:
                    self.has_lent = True
                else:
                    with self._lock:
                        array = self._buffers.copy(array)
            large.append(array)
            return False

        pieces = _dumps(value, keep_in_band, large, what, in_pieces=in_pieces)
        self._was_large = is_large = self._in_pieces and sum(map(len, pieces)) >= LEAST_BYTES
        return (LARGE, (pieces, large)) if large or is_large else (PICKLED, pieces[0])

    def pack_all(
        self, values: list[Any], what: str, *, are_tuples: bool = False, into: Batch | None = None
    ) -> Batch:
        """Pack values of one kind.

        Parameters
        ----------
        are_tuples
            They were made for this, of arguments.
        into
            The batch that they are added to; those before one that cannot travel are there then.

        Raises
        ------
        CannotTravel
            One cannot be pickled.
        """
        batch = empty_batch() if into is None else into
        types = set(map(type, chain.from_iterable(values) if are_tuples else values))
        if types <= _PLAIN_TYPES and not (bytes in types and _has_large(values, are_tuples)):
            batch.extend(Batch(values, bytearray(len(values))))
            return batch
        for value in values:
            batch.append(self.pack(value, what))
        return batch


def _has_large(values: list[Any], are_tuples: bool) -> bool:
    every = chain.from_iterable(values) if are_tuples else values
    return any(type(one) is bytes and len(one) >= LEAST_BYTES for one in every)


def _dumps(
    value: Any, callback: Callback, large: list[Any], what: str, *, in_pieces: bool = False
) -> list[Buffer]:
    """Pickle by reference where that is enough; what is of the program itself goes by value."""
    try:
        pieces = dump(pickle, value, callback, in_pieces=in_pieces)
        if not any(_OF_MAIN in stream for stream in pieces.streams):
            return pieces.all()
    except Exception:  # whatever an object of the user's raises when it is pickled
        pass
    from mpims.executor import byvalue

    large.clear()
    try:
        return dump(byvalue, value, callback, in_pieces=in_pieces).all()
    except Exception as error:  # the same
        raise cannot_travel(value, what, error, partial(byvalue.dumps, protocol=5)) from error


def unpack(flag: int, value: Any) -> Any:
    """The value that was packed; of an exception the exception itself, which `is_error` tells."""
    if flag == PLAIN:
        return value
    if flag == PICKLED:
        return pickle.loads(value)
    if flag == LARGE:
        return load(*value)
    return _load_error(value) if flag == ERROR else None


def pack_error(error: BaseException, where: str) -> Packed:
    """Pack what a task raised `where`; one that cannot be made again elsewhere becomes a `TaskFailed`."""
    text = f"{user_traceback(error).rstrip()}\n(on {where})"
    error = BaseException.with_traceback(error, None)  # and not what its class may say to that
    try:
        (stream,) = _dumps(error, None, [], "an exception")
        if not isinstance(pickle.loads(stream), BaseException):
            raise TypeError("it is unpickled as something else")
    except BaseException:  # whatever the user's exception raises when it is pickled or unpickled
        stream = pickle.dumps(TaskFailed(describe(error)), protocol=5)
    return ERROR, (stream, text)


def _load_error(value: tuple[bytes, str]) -> BaseException:
    stream, text = value
    try:
        error: BaseException = pickle.loads(stream)
    except Exception as failure:  # whatever the user's exception raises when it is unpickled
        error = TaskFailed(f"an exception cannot be unpickled: {describe(failure)}")
    if text:
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))
    return error


def packed_exception(error: BaseException) -> Packed:
    """Pack an exception of ours, which has no traceback."""
    return ERROR, (pickle.dumps(error, protocol=5), "")


def encode(value: Any) -> list[Buffer]:
    """A message's buffers: a pickle, and the large buffers in it, which are not copied."""
    large: list[Buffer] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        if len(large) == MOST_BUFFERS:
            return True
        large.append(buffer.raw())
        return False

    stream = pickle.dumps(value, protocol=5, buffer_callback=keep_in_band)
    return [stream, *large]


def decode(buffers: Sequence[Buffer]) -> Any:
    """What `encode` was given."""
    return pickle.loads(buffers[0], buffers=buffers[1:])


def mean_bytes(batch: Batch) -> float:
    """How large the packed values are, roughly, each; those that are as they are count little."""
    if len(batch.values) == 1:
        return packed_bytes(batch.flags[0], batch.values[0])
    if batch.is_plain and not _has_text(batch.values[:_SAMPLE]):
        return 32.0
    return sum(map(packed_bytes, batch.flags, batch.values)) / len(batch)


def _has_text(values: Iterable[Any]) -> bool:
    types = set(map(type, values))
    return str in types or bytes in types


def packed_bytes(flag: int, value: Any) -> int:
    """How large a packed value is, roughly."""
    if flag == LARGE:
        return sum([memoryview(buffer).nbytes for buffer in chain(*value)])
    return len(value) if isinstance(value, (bytes, str)) else 32
