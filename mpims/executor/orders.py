"""What the program's side of an executor and its master say to each other.

::

    Executor ---- Tasks, Cancel, Spread, Close ----> TaskMaster, in this process or another
             <-- started, delivered, ended ---
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from mpims.errors import MpimsError
from mpims.executor.cargo import Batch
from mpims.executor.functions import Function


@dataclass(slots=True)
class Tasks:
    """Calls of one function: a value of `batch` for each; `key` names them in what follows.

    `mode` says how a value is used, see `mpims.executor.functions`. `is_single`: somebody waits for just
    this one, so that its result is not kept back for the sake of others.
    """

    key: int
    function: Function
    mode: int
    batch: Batch
    is_single: bool


@dataclass(slots=True)
class Cancel:
    """Nobody wants these tasks any more, as far as they were not handed out."""

    key: int


@dataclass(slots=True)
class CancelRest:
    """Nobody wants any task, as far as it was not handed out; ranks without work get theirs before."""


@dataclass(slots=True)
class Spread:
    """Something that every rank is to have from now on; what, see `mpims.executor.spread`."""

    number: int
    value: Any


@dataclass(slots=True)
class Close:
    """No more tasks will come."""


@dataclass(slots=True)
class Abort:
    """End at once, whatever is under way."""


Order: TypeAlias = Tasks | Cancel | CancelRest | Spread | Close | Abort


class Customer(Protocol):
    """Whom the results are for; called in the master's thread."""

    def started(self, key: int) -> bool:
        """Tasks are handed out for the first time; False if they are not wanted any more."""

    def delivered(self, key: int, offset: int, batch: Batch, busy_s: float) -> None:
        """Results of the tasks from `offset` on are there; they took so long together."""

    def cancel_rest(self) -> None:
        """Cancel all that was not handed out."""

    def ended(self, error: MpimsError | None) -> None:
        """Nothing more will come."""


class Link(Protocol):
    """The way to a master.

    Attributes
    ----------
    n_workers
        How many ranks compute.
    """

    n_workers: int

    def give(self, order: Order) -> None:
        """Pass an order on; return at once, or when there is room for it."""

    def help(self, is_there: Callable[[], bool], until: float) -> None:
        """Do the master's work in this thread, if that can be, until something is there, or that time."""

    def has_turn(self) -> bool:
        """Whether this thread takes results in just now: until it is done with that, none come."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the master has ended; whether it has."""


class Nowhere:
    """The way to no master."""

    n_workers = 0

    def give(self, order: Order) -> None:
        """Nobody takes it."""

    def help(self, is_there: Callable[[], bool], until: float) -> None:
        """There is nothing to do."""

    def has_turn(self) -> bool:
        """Nobody has."""
        return False

    def join(self, timeout_s: float | None = None) -> bool:
        """There is nobody to wait for."""
        return True


Connect: TypeAlias = Callable[[Customer], Link]
"""Begins to compute for a customer."""
