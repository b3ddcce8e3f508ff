"""The master's transport where the master's own rank may compute too, or is the only one."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpims.runtime.buffers import MOST_BYTES
from mpims.runtime.transport.base import Transport
from mpims.runtime.transport.local import local_transports
from mpims.runtime.wire import Buffer, Kind, Message

if TYPE_CHECKING:
    from threading import Event

_MASTER, _WORKER = 0, 1


class JointTransport(Transport):
    """The other ranks, and a worker in this process, which has the master's rank.

    Parameters
    ----------
    outer
        The way to the other ranks; None if there are none.

    Attributes
    ----------
    worker_end
        The transport of the worker in this process.
    """

    def __init__(self, outer: Transport | None) -> None:
        super().__init__()
        self._outer = outer
        self._inner, self.worker_end = local_transports(2)
        self.rank = outer.rank if outer is not None else 0
        self.size = outer.size if outer is not None else 1
        self.host = outer.host if outer is not None else platform.node()
        self.hosts = outer.hosts if outer is not None else {self.rank: self.host}
        self.lost = outer.lost if outer is not None else set()
        self.survives_deaths = outer is not None and outer.survives_deaths

    @property
    def spins(self) -> bool:
        """Whether the wait for the other ranks keeps its core."""
        return self._outer is not None and self._outer.spins

    @spins.setter
    def spins(self, spins: bool) -> None:
        """Keep the core, or give it away."""
        if self._outer is not None:
            self._outer.spins = spins

    @property
    def bell(self) -> Event | None:
        """What ends a wait when another thread sets it."""
        return self._inner.bell

    @bell.setter
    def bell(self, bell: Event | None) -> None:
        """Listen to this one, whoever sends."""
        self._inner.bell = bell
        if self._outer is not None:
            self._outer.bell = bell

    def send(self, dest: int, kind: Kind, head: bytes = b"", buffers: Sequence[Buffer] = ()) -> None:
        if dest == self.rank:
            self._inner.send(_WORKER, kind, head, buffers)
        elif self._outer is not None:
            self._outer.send(dest, kind, head, buffers)

    def receive(self, timeout_s: float, slack_s: float = 0.0) -> Message | None:
        message = self._inner.receive(0.0 if self._outer is not None else timeout_s)
        if message is not None:
            return message._replace(source=self.rank)
        return self._outer.receive(timeout_s, slack_s) if self._outer is not None else None

    def keep_memory(self, n_bytes: int = MOST_BYTES) -> None:
        self._inner.keep_memory(n_bytes)
        if self._outer is not None:
            self._outer.keep_memory(n_bytes)

    @property
    def unsent_bytes(self) -> int:
        return self._outer.unsent_bytes if self._outer is not None else 0

    def lose(self, rank: int) -> None:
        if self._outer is not None:
            self._outer.lose(rank)

    def abandon(self, status: int) -> None:
        if self._outer is not None:
            self._outer.abandon(status)

    def library(self) -> str:
        return self._outer.library() if self._outer is not None else self._inner.library()
