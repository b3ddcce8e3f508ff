"""What can go wrong, as exceptions that each carry an exit status."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from enum import IntEnum
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


_LONGEST_TEXT = 400
"""Of an exception's own text no more is told in a line; all of it stands in its traceback."""


def describe(error: BaseException) -> str:
    """Type and first line of an exception of the user's, whatever its own text does.

    Nothing in it is an order to a terminal, nor what no page may have, nor is it longer than one reads.
    """
    try:
        line = str(error).strip().split("\n", 1)[0]
        if len(line) > _LONGEST_TEXT:
            line = line[: _LONGEST_TEXT - 3] + "..."
        text = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in line)
    except Exception:  # whatever the user's __str__ raises
        text = "(its text cannot be had)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_LISTS: dict[type, Sequence[str]] = {list: "[]", tuple: "()", set: "{}", frozenset: ("frozenset({", "})")}
_DICTS = (dict, Counter, OrderedDict, defaultdict)


def _texts(value: Any, width: int) -> Iterator[str]:
    """What ``repr`` gives, piece by piece; of a text no more than so much."""
    kind = type(value)
    if kind in _LISTS and value:
        begin, end = _LISTS[kind]
        for one in value:
            yield begin
            yield from _texts(one, width)
            begin = ", "
        yield ",)" if kind is tuple and len(value) == 1 else end
    elif kind in _DICTS and value:
        begin, end = ("{", "}") if kind is dict else (f"{kind.__name__}({{", "})")
        for key in value:
            yield begin
            yield from _texts(key, width)
            yield ": "
            yield from _texts(value[key], width)
            begin = ", "
        yield end
    else:
        try:
            yield repr(value[:width] if kind in (str, bytes, bytearray) else value)
        except Exception as error:  # whatever the user's __repr__ raises
            yield f"(cannot be shown: {describe(error)})"


def brief(value: Any, width: int) -> str:
    """The begin of what ``repr`` gives, which of a long list takes minutes and gigabytes.

    Examples
    --------
    >>> brief([1, 2.5, {"a": b"b"}], 40), brief(list(range(10**6)), 12)
    ("[1, 2.5, {'a': b'b'}]", '[0, 1, 2,...')
    """
    text = ""
    for piece in _texts(value, width):
        text += piece
        if len(text) > width:
            return text[: width - 3] + "..."
    return text


def lacking(error: BaseException) -> str:
    """What the machine had none of when this was raised; nothing if it was for another reason."""
    if isinstance(error, MemoryError):
        return f"out of memory ({describe(error)})"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "the system gave no other thread, see ulimit -u and ulimit -v"
    return ""


def unforeseen(error: BaseException, detail: str) -> MpimsError:
    """What the user is told of an exception that nobody has foreseen."""
    lack = lacking(error)
    if lack:
        return RunFailed(lack)
    return InternalError(f"this is a defect of mpims, please report it: {describe(error)}", detail)


def user_traceback(error: BaseException) -> str:
    """The traceback of an exception that the user's code raised, without the frames of mpims."""
    import traceback  # for these lines alone

    told = traceback.TracebackException.from_exception(error)
    ours = os.path.dirname(__file__) + os.sep
    told.stack = traceback.StackSummary.from_list(f for f in told.stack if not f.filename.startswith(ours))
    return "".join(told.format())
