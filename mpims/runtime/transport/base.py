"""The contract of a transport."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from mpims.errors import UsageError
from mpims.report.wording import name_rank
from mpims.runtime.buffers import LEAST_BYTES, MOST_BYTES, Buffers
from mpims.runtime.wire import Buffer, Kind, Message

if TYPE_CHECKING:
    from threading import Event

_BYTE = np.dtype(np.uint8)
_engaging = Lock()


class Transport(ABC):
    """Carries messages between the ranks of one run.

    * Messages of one source arrive whole, once, and in the order they were sent.
    * `send` never blocks, and takes the buffers over: the caller leaves them alone.
    * `receive` waits at most as long as it is told.
    * Where the transport notices that a rank died, it says so by a message of kind LOST.

    Attributes
    ----------
    rank, size : int
        This rank, and the number of ranks.
    host : str
        The name of this rank's node.
    hosts : dict of int to str
        The nodes of ranks, for messages: whoever is told where a rank is, enters it.
    lost : set of int
        Ranks known to be dead; what is sent to them is dropped.
    survives_deaths : bool
        Whether the others go on when a rank dies. Where they do not, the launcher ends all.
    lost_before : frozenset of int
        Those of them that were lost when the last run of this program ended.
    exit_status : int
        The status that this process is to end with, where no exception ends it.
    spins : bool
        Whether `receive` keeps its core while it waits.
    bell : Event or None
        Set by another thread, it ends a `receive` that waits; that clears it.
    over : str
        Why no run can begin any more, once the program has ended, here or on the rank that leads.
    leave : callable or None
        Called where the program finalises MPI itself: what a rank does at its end, while it can.
    engaged_with : str
        What this rank takes part in: messages of something else would be taken for its own.
    """

    rank: int
    size: int
    host: str
    hosts: dict[int, str]
    lost: set[int]
    lost_before: frozenset[int] = frozenset()
    survives_deaths: bool = False
    exit_status: int = 0
    spins: bool = False
    bell: Event | None = None
    over: str = ""
    leave: Callable[[], None] | None = None
    engaged_with: str = ""

    def __init__(self) -> None:
        self._receiving = Buffers()

    @contextmanager
    def engaged(self, what: str) -> Iterator[None]:
        """Take part in `what`, alone.

        Raises
        ------
        UsageError
            This rank takes part in something already: in another thread, or this is called from within.
        """
        self.engage(what)
        try:
            yield
        finally:
            self.engaged_with = ""

    def engage(self, what: str) -> None:
        """Begin to take part in `what`, as `engaged`."""
        with _engaging:
            self.check_free(what)
            self.engaged_with = what

    def check_free(self, what: str) -> None:
        """Raise UsageError if this rank takes part in something, beside which `what` cannot begin."""
        if self.engaged_with:
            raise UsageError(
                f"{what} cannot begin while {name_rank(self.rank, self.host)} is in {self.engaged_with}: "
                "under MPI there is one at a time, and none within another"
            )

    @abstractmethod
    def send(self, dest: int, kind: Kind, head: bytes = b"", buffers: Sequence[Buffer] = ()) -> None:
        """Send a message; return at once."""

    @abstractmethod
    def receive(self, timeout_s: float, slack_s: float = 0.0) -> Message | None:
        """Give the next message, or None if none came within `timeout_s` seconds.

        `slack_s` says for how long probably nobody waits for an answer to it: the core may be given away
        for that time.
        """

    def where(self, rank: int) -> str:
        """A rank with its host, as far as that is known, for people."""
        return name_rank(rank, self.hosts.get(rank))

    def lose(self, rank: int) -> None:
        """Take a rank for dead that the transport has not noticed."""
        self.lost.add(rank)

    @property
    def alive(self) -> set[int]:
        """The ranks that are not known to be dead, this one too; the lowest one leads, or is to."""
        return set(range(self.size)) - self.lost

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return True

    @property
    @abstractmethod
    def unsent_bytes(self) -> int:
        """Bytes of buffers handed to `send` that have not left yet."""

    @abstractmethod
    def abandon(self, status: int) -> None:
        """A rank does not answer: when this process ends, end all of them, with that status."""

    @abstractmethod
    def library(self) -> str:
        """What carries the messages, in one line."""

    def keep_memory(self, n_bytes: int = MOST_BYTES) -> None:
        """From now on keep up to so much memory of messages, to receive others into it."""
        self._receiving = Buffers(n_bytes)

    def _memory(self, sizes: Sequence[int]) -> list[memoryview]:
        """Memory for the buffers of an arriving message, used again once nobody has what was in it."""
        return [
            self._receiving.empty((size,), _BYTE).data
            if size >= LEAST_BYTES
            else memoryview(bytearray(size))
            for size in sizes
        ]
