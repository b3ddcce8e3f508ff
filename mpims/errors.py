"""What can go wrong, as exceptions that each carry an exit status."""

from __future__ import annotations

import os
import reprlib
from enum import IntEnum
from itertools import islice
from typing import Any


class ExitStatus(IntEnum):
    """How a run ended, as the process tells its caller."""

    DONE = 0
    """Everything was computed."""
    FAILED = 1
    """The run started and could not be finished."""
    USAGE = 2
    """The command line, the job definition or the run directory is wrong; nothing was computed."""
    SKIPPED = 3
    """Done, but for items that failed and were skipped: ``failed.json`` names them."""
    INTERNAL = 70
    """A defect of mpims itself."""
    STOPPED = 75
    """Stopped before its end, and resumable (EX_TEMPFAIL of sysexits.h: try again)."""
    INTERRUPTED = 130
    """Stopped by the user (Ctrl-C) before there was anything to resume."""


class MpimsError(Exception):
    """A mistake or a failure that the user is told in one line, without a traceback of ours.

    Parameters
    ----------
    message
        One line: what happened, where, what was found, what to do.
    detail
        Further lines that belong to it, such as the traceback of the user's own code.
    """

    exit_status = ExitStatus.FAILED

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail.rstrip()


class UsageError(MpimsError):
    """Wrong input, found before anything was computed."""

    exit_status = ExitStatus.USAGE


class RunFailed(MpimsError):
    """The run began and could not be finished."""

    exit_status = ExitStatus.FAILED


class InternalError(MpimsError):
    """An invariant of mpims is broken: a defect of ours, to be reported with its text."""

    exit_status = ExitStatus.INTERNAL


class Stopped(MpimsError):
    """The run was stopped before its end; what is done is kept, and `mpims resume` goes on from there.

    With `at_once` the user does not want to wait for anything.
    """

    exit_status = ExitStatus.STOPPED

    def __init__(self, message: str, detail: str = "", *, at_once: bool = False) -> None:
        super().__init__(message, detail)
        self.at_once = at_once


class Interrupted(MpimsError):
    """The user stopped it before there was anything to resume."""

    exit_status = ExitStatus.INTERRUPTED


def error_with_status(status: int, message: str, detail: str = "") -> MpimsError:
    """Make the error again that another rank had, from its exit status and text."""
    for kind in (UsageError, InternalError, Stopped, Interrupted):
        if kind.exit_status == status:
            return kind(message, detail)
    return RunFailed(message, detail)


def describe(error: BaseException) -> str:
    """Type and first line of an exception of the user's, whatever its own text does."""
    try:
        text = str(error).strip().split("\n")[0]
    except Exception:  # whatever the user's __str__ raises
        text = "(its text cannot be had)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Brief(reprlib.Repr):
    """Looks at little more of a value than it shows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxdeque = self.maxarray = width
        self.maxset = self.maxfrozenset = width
        self.maxstring = self.maxlong = self.maxother = 4 * width

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        if level <= 0 and value:
            return "{...}"
        shown = [
            f"{self.repr1(key, level - 1)}: {self.repr1(value[key], level - 1)}"
            for key in islice(value, self.maxdict)  # in their order, which reprlib's is not
        ]
        return "{" + ", ".join(shown) + "}"

    def repr_OrderedDict(self, value: dict[Any, Any], level: int) -> str:
        return f"{type(value).__name__}({self.repr_dict(value, level)})"

    repr_Counter = repr_defaultdict = repr_OrderedDict

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[: self.maxstring])

    repr_bytearray = repr_bytes


def brief(value: Any, width: int) -> str:
    """The begin of what ``repr`` gives, which of a long list takes minutes and gigabytes.

    Examples
    --------
    >>> brief([1, 2.5, {"a": b"b"}], 40), brief(list(range(10**6)), 12)
    ("[1, 2.5, {'a': b'b'}]", '[0, 1, 2,...')
    """
    text = _Brief(width).repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def user_traceback(error: BaseException) -> str:
    """The traceback of an exception that the user's code raised, without the frames of mpims."""
    import traceback  # for these lines alone

    told = traceback.TracebackException.from_exception(error)
    ours = os.path.dirname(__file__) + os.sep
    told.stack = traceback.StackSummary.from_list(f for f in told.stack if not f.filename.startswith(ours))
    return "".join(told.format())
