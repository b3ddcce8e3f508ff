"""Pickles in pieces: large bytes of the user's are neither copied into them nor out of them twice.

A pickler hands large bytes to its file as they are (PEP 3154, on framing), and an unpickler reads them into
the object that they become. Only bytes: nobody can change them while they are under way.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, TypeAlias

from mpims.runtime.buffers import LEAST_BYTES
from mpims.runtime.wire import Buffer

Callback: TypeAlias = Callable[[pickle.PickleBuffer], Any] | None

_BEGIN_FRAMES = pickle.PROTO + pickle.FRAME
"""With one of these begins what a pickler writes of its own, if that is long."""


class Pieces:
    """A pickle; the file that a pickler writes to.

    Attributes
    ----------
    streams, found
        What the pickler has written of its own, and the large bytes that belong between; one fewer.
    """

    def __init__(self) -> None:
        self._stream = bytearray()
        self.streams: list[Buffer] = [self._stream]
        self.found: list[bytes] = []

    def write(self, piece: Buffer) -> None:
        """Take in what a pickler writes."""
        if type(piece) is bytes and len(piece) >= LEAST_BYTES and piece[0] not in _BEGIN_FRAMES:
            self.found.append(piece)
            self._stream = bytearray()
            self.streams.append(self._stream)
        else:
            self._stream += piece

    def all(self) -> list[Buffer]:
        """The pickle."""
        pieces: list[Buffer] = [self.streams[0]]
        for found, stream in zip(self.found, self.streams[1:], strict=True):
            pieces += found, stream
        return pieces


def dump(by: ModuleType, value: Any, callback: Callback, *, in_pieces: bool) -> Pieces:
    """Pickle by `pickle` or our `byvalue`, in pieces or in one; `callback` is their `buffer_callback`."""
    pieces = Pieces()
    if in_pieces:
        by.Pickler(pieces, protocol=5, buffer_callback=callback).dump(value)
    else:
        pieces.streams = [by.dumps(value, protocol=5, buffer_callback=callback)]
    return pieces


class _Reader(io.RawIOBase):
    """Reads pieces one after another."""

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        super().__init__()
        self._left = [memoryview(piece) for piece in pieces][::-1]

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self._left:
            return 0
        piece = self._left.pop()
        n = min(len(piece), len(target))
        target[:n] = piece[:n]
        if n < len(piece):
            self._left.append(piece[n:])
        return n


def load(pieces: Sequence[Buffer], buffers: Sequence[Buffer]) -> Any:
    """What was pickled in pieces, and buffers beside them."""
    if len(pieces) == 1:
        return pickle.loads(pieces[0], buffers=buffers)
    return pickle.Unpickler(io.BufferedReader(_Reader(pieces)), buffers=buffers).load()
