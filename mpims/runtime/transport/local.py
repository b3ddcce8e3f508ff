"""A transport within one process: ranks are threads, or take turns in one."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Buffer, Kind, Message

_LOOK_S = 1e-3
"""Where a bell may end the wait, messages are looked for this often."""


class LocalTransport(Transport):
    """One rank's end. What is sent is copied on arrival, as between processes."""

    def __init__(self, rank: int, inboxes: list[SimpleQueue[Message]]) -> None:
        super().__init__()
        self.rank = rank
        self.size = len(inboxes)
        self.host = platform.node()
        self.hosts = dict.fromkeys(range(self.size), self.host)
        self.lost = set()
        self._inboxes = inboxes

    def send(self, dest: int, kind: Kind, head: bytes = b"", buffers: Sequence[Buffer] = ()) -> None:
        self._inboxes[dest].put(Message(kind, self.rank, bytes(head), list(buffers)))

    def receive(self, timeout_s: float, slack_s: float = 0.0) -> Message | None:
        try:
            message = self._next(timeout_s)
        except Empty:
            return None
        if not message.buffers:
            return message
        sizes = [memoryview(buffer).nbytes for buffer in message.buffers]
        memory = self._memory(sizes)
        for target, buffer in zip(memory, message.buffers, strict=True):
            target[:] = buffer
        return message._replace(buffers=list(memory))

    def _next(self, timeout_s: float) -> Message:
        inbox, bell = self._inboxes[self.rank], self.bell
        if bell is None:
            return inbox.get(timeout_s > 0, timeout_s or None)
        until = time.monotonic() + timeout_s
        while inbox.empty() and time.monotonic() < until and not bell.wait(_LOOK_S):
            pass
        bell.clear()
        return inbox.get_nowait()

    @property
    def unsent_bytes(self) -> int:
        return 0

    def abandon(self, status: int) -> None:
        """Do nothing: threads end with their process."""

    def library(self) -> str:
        return "none (one process)"


def local_transports(size: int) -> list[LocalTransport]:
    """Make the ends of `size` ranks that can reach each other."""
    inboxes: list[SimpleQueue[Message]] = [SimpleQueue() for _ in range(size)]
    return [LocalTransport(rank, inboxes) for rank in range(size)]
