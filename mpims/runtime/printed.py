"""What the user's code prints on a rank: kept in a file of the run directory, labelled with the items.

``RUN/output/rank-3.txt``::

    --- rank 3 (node02), process 4711, 2026-01-01T12:00:00
    setup: reading the table
    items [4096, 4160): no convergence in item 4101

The file is made when something is printed, and every line is in it at once: a rank that dies leaves its
last words. Forked children print into the same file. What C code prints is not seen here. Where the file is
asked for alone, as `multiprocessing` does when it begins a process, it is there, and empty.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO, TypeAlias

Prints: TypeAlias = tuple[Path, str]
"""Where a rank prints: the file, and who is to stand there."""
MOST_BYTES = 16 << 20
"""A rank's file is no larger than this, so that a print in a kernel cannot fill the disk."""


class Printed:
    """Takes what is printed within it, ``with printed: ...``, away from the terminal.

    Parameters
    ----------
    path
        The file, in a folder that is made if its parent exists.
    who
        The rank, as people are to read it.
    label
        Gives what is computed at the moment.
    """

    def __init__(self, path: Path, who: str, label: Callable[[], str]) -> None:
        self._file = _LabelledFile(path, who, label)
        self._out: TextIO = _Stream(self._file)
        self._err: TextIO = _Stream(self._file)
        self._before: tuple[TextIO, TextIO] | None = None

    def __enter__(self) -> Printed:
        # Ranks that are threads of one process have one standard output: the first one's it is.
        if type(sys.stdout) is not _Stream:
            self._before = sys.stdout, sys.stderr
            sys.stdout, sys.stderr = self._out, self._err
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            self._out, self._err = sys.stdout, sys.stderr  # the user's code may have put others there
            sys.stdout, sys.stderr = self._before
            self._before = None

    def close(self) -> None:
        """Write what is left of an unfinished line, and close the file until something else is printed."""
        for stream in (self._out, self._err):
            with suppress(OSError, ValueError):  # the user's code may have closed it
                stream.flush()
        self._file.close_file()


class _Stream(io.TextIOWrapper):
    """In place of standard output or standard error; a line is passed on when it is whole."""

    def __init__(self, file: _LabelledFile) -> None:
        super().__init__(
            io.BufferedWriter(file), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )

    def close(self) -> None:
        """Only flush: it is not the user's code that closes the output of a rank."""
        self.flush()


class _LabelledFile(io.RawIOBase):
    """Appends to the file, with a label before each line."""

    def __init__(self, path: Path, who: str, label: Callable[[], str]) -> None:
        self._path = path
        self._who = who
        self._label = label
        self._descriptor: int | None = None
        self._has_head = False  # since the file was opened
        self._in_line = False  # what came last did not end its line
        self._is_full = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """For programs that the user's code starts; they print without labels."""
        return self._open()

    def write(self, data: object) -> int:
        content = bytes(data)  # type: ignore[call-overload]
        if not self._is_full:
            try:
                self._append(self._headed(), self._labelled(content))
            except OSError:  # no such folder on this host, a full disk: the run goes on
                with suppress(OSError):
                    os.write(2, self._labelled(content))
        return len(content)

    def close_file(self) -> None:
        """Close the descriptor; the next line opens the file again."""
        descriptor, self._descriptor, self._has_head = self._descriptor, None, False
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
        return self._descriptor

    def _headed(self) -> int:
        """The file, which says by now who prints there."""
        descriptor = self._open()
        if not self._has_head:
            self._has_head = True
            at = time.strftime("%Y-%m-%dT%H:%M:%S")
            self._append(descriptor, f"--- {self._who}, process {os.getpid()}, {at}\n".encode())
        return descriptor

    def _labelled(self, content: bytes) -> bytes:
        label = f"{self._label()}: ".encode(errors="backslashreplace")
        lines = content.split(b"\n")
        first = b"" if self._in_line else label
        self._in_line = lines[-1] != b""
        ends = [
            b"\n" + (label + line if line or i < len(lines) - 1 else b"") for i, line in enumerate(lines)
        ]
        return first + lines[0] + b"".join(ends[1:])

    def _append(self, descriptor: int, content: bytes) -> None:
        room = MOST_BYTES - os.fstat(descriptor).st_size  # children and earlier ranks wrote there too
        if len(content) > room:
            self._is_full = True
            content = f"\n--- {MOST_BYTES:,} bytes are the limit: what follows is not kept\n".encode()
        os.write(descriptor, content)
