"""What can go wrong with an executor, for the program that uses it."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pickle import PicklingError

from mpims.errors import MpimsError


class WorkerLost(MpimsError):
    """A task killed its rank, or fell silent on it, again and again: it is given up."""


class CannotTravel(MpimsError, PicklingError):
    """A function, an argument or a result cannot be sent to another process; which part of it is said."""


class ExecutorBroken(MpimsError, BrokenExecutor):
    """No rank is left to compute, or none could begin: nothing more can be submitted."""


class TaskFailed(MpimsError):
    """A task raised an exception that cannot travel; its type and text are in the message."""


class RemoteTraceback(Exception):
    """Where on a rank a task raised: the cause of the exception that the program gets."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'
