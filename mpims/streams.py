"""Standard output and standard error, which may be closed, on a full disk, or read by nobody any more.

What the user is told of a run goes to standard error, and never ends the run. What a command is there to
print goes to standard output: that it cannot be written is an error, but for a reader that has gone.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from mpims.errors import RunFailed


def open_standard_streams() -> None:
    """Put the null device where a standard stream is closed.

    Else a file of the run would get its descriptor, and what is printed from C code.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free: this one
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def take_any_text() -> None:
    """Let the streams show what their encoding lacks in another way, in place of an error or its number."""
    codecs.register_error("mpims", _spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mpims")


def _spelt(error: UnicodeError) -> tuple[bytes, int]:
    """The bytes for what cannot be encoded: a byte of a file's name as it is, others by their number."""
    assert isinstance(error, UnicodeEncodeError)
    return b"".join(map(_spelt_character, error.object[error.start : error.end])), error.end


def _spelt_character(character: str) -> bytes:
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00])
    return b"u" if character == "µ" else character.encode("ascii", "backslashreplace")


def say(line: str) -> None:
    """Tell the user something in a line of ours, if it can be told."""
    complain(f"mpims: {line}")


def complain(text: str) -> None:
    """Print on standard error, if that can be written."""
    stream: TextIO | None = sys.stderr
    if stream is not None:
        with suppress(OSError, ValueError):  # the terminal is gone, the disk full, the stream closed
            print(text, file=stream, flush=True)


def show(text: str) -> None:
    """Print what the command is there for, as far as its reader wants it: `head` has soon enough.

    Raises
    ------
    RunFailed
        It cannot be written.
    """
    try:
        with showing():
            print(text, flush=True)
    except BrokenPipeError:
        settle(sys.stdout)


@contextmanager
def showing() -> Iterator[None]:
    """Print on standard output within it what the command is there for.

    Raises
    ------
    RunFailed
        It cannot be written.
    BrokenPipeError
        Nobody reads it any more.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        settle(sys.stdout)
        raise RunFailed(f"cannot write standard output: {error.strerror}") from None


def flush_output() -> None:
    """Let nothing that was printed wait in this process."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # it may be closed, or nobody reads it any more
                stream.flush()


def settle(stream: TextIO) -> OSError | None:
    """Write what waits in a stream; give what went wrong, after which all that is written there is lost.

    What cannot be written would wait on, and fail again when Python ends, which then exits with 120.
    """
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()
        return error
    except ValueError:  # the user's code has closed it
        pass
    return None
