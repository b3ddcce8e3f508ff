"""Who a process is, beyond its number: a number is given again, and means nothing on another host.

A process is named by the host and its boot, the pid namespace (a container has its own), the pid and
the moment it started. A signal goes only to a process that is all of this, never to one that has come by
the same number. Where there is no ``/proc`` a process has no full identity, and nothing is signalled.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import CDLL
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, NoReturn

forks = [0]
"""How many forks lie between this process and the one that imported this: cheaper than `os.getpid`."""


class Process(NamedTuple):
    """A process, as no other one is or will be.

    Parameters
    ----------
    host
        The name of its host.
    boot
        The random identity of the host's boot; None if it cannot be had.
    namespace
        The pid namespace in which `pid` counts; None if it cannot be had.
    pid
        Its number.
    started
        When it started, in clock ticks since the boot; None if it cannot be had.
    """

    host: str
    boot: str | None
    namespace: str | None
    pid: int
    started: int | None

    def as_dict(self) -> dict[str, Any]:
        """The process for JSON."""
        return self._asdict()

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Process:
        """The process that `as_dict` wrote.

        Raises
        ------
        ValueError
            It is anything else.
        """
        if not isinstance(mapping, Mapping) or set(mapping) != set(cls._fields):
            raise ValueError(f"{mapping!r} is no process")
        process = cls(**mapping)
        fits = (
            type(process.host) is str
            and type(process.boot) in (str, NoneType)
            and type(process.namespace) in (str, NoneType)
            and type(process.pid) is int
            and type(process.started) in (int, NoneType)
        )
        if not fits or not 0 < process.pid < 2**31:
            raise ValueError(f"{mapping!r} is no process")
        return process


def this_process() -> Process:
    """The process that asks; after a fork it is the child."""
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    """A process of this host and pid namespace; `started` is None if there is none of that number."""
    stat = _read_stat(pid)
    return Process(os.uname().nodename, boot_id(), _namespace(), pid, stat[1] if stat else None)


@cache
def boot_id() -> str | None:
    """The random identity of this boot of this machine; its containers share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def is_alive(process: Process) -> bool | None:
    """Whether a process is running still.

    Returns
    -------
    bool or None
        False if it is gone, a zombie, or of an earlier boot of this host. None if it cannot be told from
        here: it is of another host, or of another pid namespace, or there is no ``/proc``.
    """
    boot = boot_id()
    if boot is None or process.boot is None:
        return None
    if process.boot != boot:
        return False if process.host == os.uname().nodename else None
    if process.namespace is None or process.started is None or process.namespace != _namespace():
        return None
    stat = _read_stat(process.pid)
    if stat is None:
        return None if _is_hidden(process.pid) else False
    state, started = stat
    return started == process.started and state not in ("Z", "X")


def is_halted(process: Process) -> bool:
    """Whether a process of this host is surely not running: stopped, or in a wait that nothing interrupts.

    The second may last an instant, or for ever, as with a file server that is away.
    """
    stat = _read_stat(process.pid) if is_alive(process) else None
    return stat is not None and stat[0] in ("T", "t", "D")


def send_signal(process: Process, number: int) -> bool:
    """Send a signal to a process of this host, and to no other one that has its number by now.

    Returns
    -------
    bool
        False if nothing was sent: the process is not here, or is gone, or is not fully known.

    Raises
    ------
    PermissionError
        The process is another user's.
    """
    if is_alive(process) is not True:
        return False
    try:
        handle = _open_handle(process.pid)
        try:
            # Only now: whoever has that number and start time is whom the handle is bound to.
            if is_alive(process) is not True:
                return False
            if handle is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
        finally:
            if handle is not None:
                os.close(handle)
    except ProcessLookupError:
        return False
    return True


def ending_with_parent(number: int) -> Callable[[], object]:
    """What makes a child get a signal when its parent dies: made in the parent, called in the child."""
    if sys.platform != "linux":
        return lambda: None
    prctl, set_death_signal = CDLL(None).prctl, 1
    return lambda: prctl(set_death_signal, number)


def _count_fork() -> None:
    forks[0] += 1


os.register_at_fork(after_in_child=_count_fork)


def die_where_the_users_code_exits(last_words: Callable[[int], None] = lambda status: None) -> None:
    """Make ``os._exit`` a death like others: launchers end all ranks if one just leaves.

    Parameters
    ----------
    last_words
        Called before, with the status that it was to leave with.
    """
    leave, rank = os._exit, os.getpid()

    def die_or_leave(status: int) -> NoReturn:
        if os.getpid() == rank:  # and no child of the user's code
            last_words(status)
            os.kill(rank, signal.SIGKILL)
        leave(status)

    _put_in_place_of_exit(die_or_leave)


@contextmanager
def dying_where_the_users_code_exits(last_words: Callable[[int], None]) -> Iterator[None]:
    """The same for as long as a run goes on: after it a process may leave as it likes."""
    before = os._exit
    die_where_the_users_code_exits(last_words)
    try:
        yield
    finally:
        _put_in_place_of_exit(before)


def _put_in_place_of_exit(leave: Callable[[int], NoReturn]) -> None:
    for module in (os, sys.modules[os.name]):  # what it is pickled as is in the second
        vars(module)["_exit"] = leave


def _open_handle(pid: int) -> int | None:
    """A descriptor bound to a process, however its number is used later; None if there are none here."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, a sandbox that forbids it; or it is gone, which the caller will see
        return None


def _namespace() -> str | None:
    try:
        # A /proc that was mounted in another namespace has other numbers.
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _read_stat(pid: int) -> tuple[str, int] | None:
    """State and start time of a process; None if there is nothing to read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in brackets, and may hold brackets and blanks itself.
    rest = text[text.rindex(b")") + 1 :].split()
    return rest[0].decode("ascii"), int(rest[19])


def _is_hidden(pid: int) -> bool:
    """Whether a process is there though ``/proc`` does not show it: another user's, under ``hidepid``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
