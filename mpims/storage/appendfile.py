"""The file below a journal: it grows by whole records or not at all, and is brought to disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mpims.storage.records import Buffer

_IOV_MAX = max(os.sysconf("SC_IOV_MAX"), 16)


class AppendFile:
    """A file that one thread of one process appends to.

    Parameters
    ----------
    path
        Where it is.
    flags
        What `os.open` is to be told besides, as to make it.

    Attributes
    ----------
    size
        Its length in bytes.

    Raises
    ------
    OSError
        It cannot be opened.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o644)
        self.size = os.fstat(self._descriptor).st_size

    @property
    def is_open(self) -> bool:
        """Whether `close` is yet to be called."""
        return self._descriptor >= 0

    def fileno(self) -> int:
        """The descriptor; -1 if it is closed."""
        return self._descriptor

    def append(self, buffers: Sequence[Buffer], n_bytes: int) -> None:
        """Append bytes, all or none, also if a signal handler raises in between.

        Parameters
        ----------
        buffers
            The bytes, one after the other.
        n_bytes
            How many they are.

        Raises
        ------
        OSError
            They cannot be written.
        """
        stop = self.size + n_bytes
        try:
            n = os.writev(self._descriptor, buffers[:_IOV_MAX])
            if n != n_bytes:
                self._write_rest(buffers, n)
            self.size = stop
        finally:
            if self.size != stop:
                self._take_back()

    def _write_rest(self, buffers: Sequence[Buffer], n_written: int) -> None:
        """Write what one call has left over: a file system may take a part, and the system many buffers."""
        for buffer in buffers:
            view = memoryview(buffer)
            skipped = min(n_written, view.nbytes)
            n_written -= skipped
            while skipped < view.nbytes:
                skipped += os.write(self._descriptor, view.cast("B")[skipped:])

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:  # the reader will skip the fragment
            self.size = os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Bring it to disk, and wait for it.

        Raises
        ------
        OSError
            That failed.
        """
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close it as it is; nothing the second time."""
        if self.is_open:
            os.close(self._descriptor)
        self._descriptor = -1


class BackgroundSync(threading.Thread):
    """A sync in a thread of its own, which a slow disk may keep for seconds.

    Parameters
    ----------
    file
        What is brought to disk; it may be closed meanwhile.
    before
        Called in the thread first; tells a failure by an `OSError`.

    Attributes
    ----------
    position
        The file's size when this was made: all before is on disk if it goes well.
    error
        When it is over: why it failed; None if it did not.
    """

    def __init__(self, file: AppendFile, before: Callable[[], None]) -> None:
        super().__init__(name="mpims-journal-sync", daemon=True)
        self.position = file.size
        self.error: OSError | None = OSError(errno.EIO, "the sync did not come to its end")
        self._descriptor = os.dup(file.fileno())  # once the file is closed, its number may be reused
        self._before = before

    def run(self) -> None:
        try:
            self._before()
            os.fsync(self._descriptor)
            self.error = None
        except OSError as error:
            self.error = error
        finally:
            os.close(self._descriptor)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to disk; a file system that cannot is one where nothing is to be done.

    Raises
    ------
    OSError
        That failed.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(folder)
