"""What a child says of a block, as a frame: a head, the sizes of its buffers, and the buffers."""

from __future__ import annotations

import os
import struct
from collections.abc import Generator
from io import FileIO
from typing import NamedTuple

from mpims.runtime.wire import Buffer

READ_AT_ONCE_BYTES = 8 << 20
"""Between two looks at the clock; a few milliseconds."""

HEAD = struct.Struct("<?dI")  # whether the block went well, busy_s, the number of buffers
_SIZE = struct.Struct("<Q")


class Frame(NamedTuple):
    """What the child says of one block: its results, or reason and detail if its code raised.

    Without buffers it says of no block, but that a new Python is ready to compute.
    """

    is_done: bool
    busy_s: float
    buffers: list[Buffer]


class FrameReader:
    """Takes frames out of a non-blocking pipe, in as many steps as they need.

    Attributes
    ----------
    is_drained
        Whether the last step left nothing in the pipe.
    ended
        Whether nothing will come any more, for nobody holds the other end.
    """

    def __init__(self, pipe: FileIO) -> None:
        self._pipe = pipe
        self._parts = _frame_parts()
        self._gap = memoryview(b"")
        self.is_drained = False
        self.ended = False

    def read(self) -> Frame | None:
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

    def _next_part(self) -> Frame | None:
        """Go on to the next part if this one is full; give the frame if it was the last."""
        while not self._gap:
            try:
                self._gap = memoryview(next(self._parts))
            except StopIteration as whole:
                frame: Frame = whole.value
                self._parts = _frame_parts()
                return frame
        return None


def _frame_parts() -> Generator[bytearray, None, Frame]:
    """Give the parts of a frame to be filled, one after another, then the frame."""
    head = bytearray(HEAD.size)
    yield head
    is_done, busy_s, n_buffers = HEAD.unpack(head)
    sizes = bytearray(n_buffers * _SIZE.size)
    yield sizes
    buffers: list[Buffer] = []
    for (n_bytes,) in _SIZE.iter_unpack(sizes):
        buffer = bytearray(n_bytes)
        yield buffer
        buffers.append(buffer)
    return Frame(is_done, busy_s, buffers)


def write_frame(write_end: int, frame: Frame) -> None:
    """Write a frame to a blocking pipe.

    Raises
    ------
    OSError
        That failed; a `BrokenPipeError` if nobody reads it any more.
    """
    sizes = [_SIZE.pack(len(buffer)) for buffer in frame.buffers]
    _write_all(write_end, b"".join([HEAD.pack(frame.is_done, frame.busy_s, len(sizes)), *sizes]))
    for buffer in frame.buffers:
        _write_all(write_end, buffer)


def _write_all(write_end: int, buffer: Buffer) -> None:
    rest = memoryview(buffer)
    while rest:
        rest = rest[os.write(write_end, rest) :]
