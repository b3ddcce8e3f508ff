"""A stream socket between a program and its master in another process: whole messages, large ones uncopied.

A message is the number of its buffers, their sizes, and the buffers: what `mpims.executor.cargo.encode`
makes of ``(forget, functions, value)``. A function crosses once; later messages name its number.
"""

from __future__ import annotations

import socket
import struct
from threading import Lock
from typing import Any

import numpy as np

from mpims.executor.cargo import decode, encode
from mpims.executor.functions import Function, Known
from mpims.executor.orders import Tasks
from mpims.runtime.wire import Buffer

_COUNT = struct.Struct("<I")
_SIZE = struct.Struct("<Q")


class Channel:
    """One end.

    Parameters
    ----------
    end
        A connected socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = Lock()
        self._sent = Known()
        self._received: dict[int, Function] = {}

    def send(self, value: Any) -> bool:
        """Send a message; False if nobody is there to take it. May be called from any thread."""
        with self._sending:
            functions: dict[int, Any] = {}
            forget = self._sent.forget()
            if isinstance(value, Tasks):
                number = value.function.number
                if self._sent.add(value.function):
                    functions[number] = value.function.stream
                fields = (value.key, number, value.mode, value.batch, value.is_single)
                buffers = encode((forget, functions, fields))
            else:
                buffers = encode((forget, functions, value))
            try:
                self._send(buffers)
            except OSError:
                return False
        return True

    def _send(self, buffers: list[Buffer]) -> None:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        head = _COUNT.pack(len(views)) + b"".join([_SIZE.pack(view.nbytes) for view in views])
        if len(views) == 1:
            self._socket.sendall(head + bytes(views[0]))
            return
        self._socket.sendall(head)
        for view in views:
            self._socket.sendall(view)

    def receive(self) -> Any:
        """The next message.

        Raises
        ------
        EOFError
            None will come.
        """
        (count,) = _COUNT.unpack(self._read(_COUNT.size))
        sizes = _SIZE.iter_unpack(self._read(count * _SIZE.size))
        forget, functions, value = decode([self._read(size) for (size,) in sizes])
        for number in forget:
            del self._received[number]
        for number, stream in functions.items():
            self._received[number] = Function(number, stream)
        if isinstance(value, tuple) and len(value) == 5 and value[1] in self._received:
            key, number, mode, batch, is_single = value
            return Tasks(key, self._received[number], mode, batch, is_single)
        return value

    def _read(self, size: int) -> memoryview:
        memory = np.empty(size, np.uint8).data if size else memoryview(b"")
        at = 0
        while at < size:
            try:
                n = self._socket.recv_into(memory[at:])
            except OSError:
                n = 0
            if not n:
                raise EOFError
            at += n
        return memory

    def close(self) -> None:
        """End both directions; whoever waits for a message finds that none will come."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
