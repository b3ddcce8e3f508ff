"""Standard output and standard error, which may be closed, on a full disk, or read by nobody any more.

What the user is told of a run goes to standard error, and never ends the run.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


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


def say(line: str) -> None:
    """Tell the user something in a line of ours, if it can be told."""
    complain(f"mpims: {line}")


def complain(text: str) -> None:
    """Print on standard error, if that can be written."""
    stream: TextIO | None = sys.stderr
    if stream is not None:
        with suppress(OSError, ValueError):  # the terminal is gone, the disk full, the stream closed
            print(text, file=stream, flush=True)


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
