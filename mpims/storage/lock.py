"""The lock of a run directory: one process works in it, and nobody needs to clean up after that one.

The file ``lock`` says who holds it. That it is held is known to the kernel: a POSIX lock on the file ends
with its owner, however the owner ends, and counts on all nodes of NFS and Lustre. What goes beyond that:

- A node that dies may leave its lock with the file server. So the owner touches the file every
  `HEARTBEAT_S`, in a thread, for it may be in the user's code for long; and the lock of an owner on another
  machine who has not done so for `STALE_S`, by the file system's own clock, is taken over: the file is
  removed and made anew.
- Where the file system has no locks, the owner's identity and the heartbeat decide alone. Two processes
  that take over a dead owner's lock in the same instant may then both succeed.
- An owner that lost its lock so (it was stopped for a minute, or there were two takers) notices it at its
  next check, and must end.
- Closing *any* descriptor of the file drops the POSIX lock of the process, so the owner opens it only once;
  `read_owner` knows from a table what this process holds.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import threading
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path

from mpims.errors import RunFailed, UsageError
from mpims.processes import Process, is_alive, this_process

LOCK = "lock"

HEARTBEAT_S = 10.0
"""How often the owner touches its lock."""

STALE_S = 60.0
"""After how long without a heartbeat an owner on another machine is taken for dead."""

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_TRIES = 100
_MAX_BYTES = 10_000  # of the file; ours has some 300

_held: dict[Path, Process] = {}  # by real path of the folder; a fork's child inherits it, but no lock


class _Answer(Enum):
    """What the file system says when it is asked for a lock."""

    OURS = "ours"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # it has no locks


class NoLock(UsageError):
    """The folder cannot be written to, and so not be locked."""


class RunLock:
    """The right to work in a run directory, from `acquire` to `release`."""

    def __init__(self, path: Path, descriptor: int, owner: Process) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._owner = owner
        self._checked = -math.inf
        self._using = threading.Lock()  # the descriptor
        self._is_released = threading.Event()
        threading.Thread(target=self._beat, name="mpims-lock", daemon=True).start()

    @classmethod
    def acquire(cls, folder: Path) -> RunLock:
        """Take the lock of a run directory; that of a dead process is taken over.

        Raises
        ------
        UsageError
            A living process holds it.
        NoLock
            The folder cannot be written to.
        """
        folder = folder.resolve()
        path, owner = folder / LOCK, this_process()
        if folder in _held and _held[folder].pid == owner.pid:
            raise _in_use(folder, owner)
        try:
            descriptor = _take(path, owner)
        except OSError as error:
            raise NoLock(
                f"cannot lock run directory {folder}: {error.strerror}; "
                "make it a folder you may write to, or choose another --run-dir"
            ) from None
        _held[folder] = owner
        return cls(path, descriptor, owner)

    def poll(self, now: float) -> None:
        """See now and then that the lock is held still: to be called often.

        Parameters
        ----------
        now
            Monotonic seconds.

        Raises
        ------
        RunFailed
            As `check`.
        """
        if now - self._checked >= HEARTBEAT_S:
            self._checked = now
            self.check()

    def check(self) -> None:
        """See that the lock is held still.

        Raises
        ------
        RunFailed
            The lock is lost: the file was removed, or another process has taken over.
        """
        if self._descriptor is not None and not _is_named(self._path, self._descriptor):
            raise RunFailed(
                f"the lock {self._path} was removed or taken over while this run held it "
                "(was it stopped for long?): see that no other run works there, and resume"
            )

    def _beat(self) -> None:
        """Show that the owner lives, until the lock is given back."""
        while not self._is_released.wait(HEARTBEAT_S):
            with self._using, suppress(OSError):  # a file server that is away: the next one may reach it
                if self._descriptor is not None:
                    os.utime(self._descriptor)

    def release(self) -> None:
        """Give the lock back and remove its file; the second time, or in a fork's child, do nothing."""
        if self._descriptor is None or self._owner.pid != os.getpid():
            return
        self._is_released.set()
        with self._using:
            descriptor, self._descriptor = self._descriptor, None
        del _held[self._path.parent]
        try:
            if _is_named(self._path, descriptor):
                self._path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def read_owner(folder: Path) -> Process | None:
    """Who is said to hold the lock of a run directory, alive or not; None if that cannot be read."""
    folder = folder.resolve()
    held = _held.get(folder)
    if held is not None and held.pid == os.getpid():
        return held
    try:
        return _parse_owner((folder / LOCK).read_bytes())
    except OSError:
        return None


def _take(path: Path, owner: Process) -> int:
    """Open the lock's file, get its lock and write the owner into it.

    Raises
    ------
    UsageError
        A living process holds it.
    """
    for _ in range(_TRIES):
        opened = _open(path)
        if opened is not None and _try_to_take(path, *opened, owner):
            return opened[0]
    raise _in_use(path.parent, None)


def _try_to_take(path: Path, descriptor: int, is_new: bool, owner: Process) -> bool:
    """Get the lock of the open file, which is closed if that fails; False if it is worth another try."""
    taken = False
    try:
        answer = _ask_lock(descriptor)
        if answer is _Answer.OURS or (answer is _Answer.UNKNOWN and is_new):
            _write_owner(descriptor, owner)
            # The last owner, or whoever took it for dead, may have removed the file that we opened.
            taken = _is_named(path, descriptor)
        else:
            last = _parse_owner(os.pread(descriptor, _MAX_BYTES, 0))
            if not _is_dead(last, path.parent, descriptor, answer):
                raise _in_use(path.parent, last)
            if _is_named(path, descriptor):
                path.unlink(missing_ok=True)
    finally:
        if not taken:
            os.close(descriptor)
    return taken


def _open(path: Path) -> tuple[int, bool] | None:
    """The file of a lock, and whether it was made now; None if it went away meanwhile."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), True
    except FileExistsError:
        pass
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC), False
    except FileNotFoundError:
        return None


def _ask_lock(descriptor: int) -> _Answer:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return _Answer.REFUSED
        if error.errno in _NO_LOCKS:
            return _Answer.UNKNOWN
        raise
    return _Answer.OURS


def _is_dead(owner: Process | None, folder: Path, descriptor: int, answer: _Answer) -> bool:
    """Whether the owner of a lock that we did not get is dead nevertheless."""
    if answer is _Answer.REFUSED:
        return owner is not None and _is_elsewhere(owner) and _is_stale(folder, descriptor)
    alive = None if owner is None else is_alive(owner)
    return _is_stale(folder, descriptor) if alive is None else not alive


def _is_elsewhere(owner: Process) -> bool:
    """Whether a process ran on another machine or in an earlier boot: the kernel here cannot know."""
    here = this_process()
    if owner.boot is None or here.boot is None:
        return owner.host != here.host
    return owner.boot != here.boot


def _is_stale(folder: Path, descriptor: int) -> bool:
    """Whether the last heartbeat is long ago, by the clock that stamped it: that of the file system."""
    return time_there(folder) - os.fstat(descriptor).st_mtime > STALE_S


def time_there(folder: Path) -> float:
    """The time by the clock that stamps the files of a folder; raises OSError if it takes none."""
    import tempfile  # for this line alone

    with tempfile.TemporaryFile(dir=folder) as probe:
        os.utime(probe.fileno())
        return os.fstat(probe.fileno()).st_mtime


def _is_named(path: Path, descriptor: int) -> bool:
    """Whether the path names the open file still; if the file server does not answer, so it is taken."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno != errno.ESTALE


def _write_owner(descriptor: int, owner: Process) -> None:
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    text = json.dumps({"owner": owner.as_dict(), "since": since}, indent=2) + "\n"
    data = text.encode()
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))


def _parse_owner(data: bytes) -> Process | None:
    try:
        return Process.from_dict(json.loads(data)["owner"])
    except (ValueError, KeyError, TypeError):
        return None


def _in_use(folder: Path, owner: Process | None) -> UsageError:
    if owner is None:
        return UsageError(
            f"run directory {folder} is in use, by whom its lock does not say: wait for the other run, "
            f"or remove {folder / 'lock'} if you are sure that there is none"
        )
    return UsageError(
        f"run directory {folder} is in use by process {owner.pid} on {owner.host}: "
        "wait for that run, end it, or choose another --run-dir"
    )
