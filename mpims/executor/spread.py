"""What every rank is to have: values sent once to each, and arrays that lie once on each host.

A handle stands for it in arguments; where it is unpickled on a rank, it is the value itself.

A shared array lies in memory without a name, that of the program: ranks of its host map it through
``/proc``. On another host the first rank puts it into shared memory, with a name for every rank of the
host that each removes as it maps it, or the first one at its end where a rank has died before. So nothing
is left behind. The program keeps the memory, as the ranks do, until the executor has ended: a handle may be
dropped as soon as it was used.
"""

from __future__ import annotations

import atexit
import errno
import mmap
import os
import resource
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpims.errors import MpimsError, UsageError
from mpims.executor.cargo import Packed, Packer, bare, unpack
from mpims.executor.errors import CannotTravel
from mpims.processes import Process, this_process

_FOLDER = "/dev/shm"
_PATIENCE_S = 60.0
_POLL_S = 2e-3
_TOO_MANY = (
    " (each array that is shared takes two): share fewer and larger ones, "
    "or raise the limit of open files (ulimit -n)"
)
"""For ranks that are yet to join, and within the mapping: Python keeps a descriptor of its own there."""
_SPARE = 32
"""So many are left to the program: where there is none, not even a module can be imported."""

_kept: dict[int, Any] = {}


class Form(NamedTuple):
    """Dtype and shape of a shared array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Shared(NamedTuple):
    """An array in memory of a process of the program's host."""

    owner: Process
    descriptor: int
    form: Form


class Mapped(NamedTuple):
    """For a rank of that host: whose memory to map."""

    pid: int
    descriptor: int
    form: Form


class Held(NamedTuple):
    """For the first rank of another host: the array, and the names to give it there."""

    array: NDArray[Any]
    names: tuple[str, ...]


class Named(NamedTuple):
    """For the others of that host: the name under which it will be found."""

    name: str
    form: Form


class Handle:
    """Stands for something that every rank has; `value` is it, here in the program.

    As an argument of a task, or in a function, it is the value itself.
    """

    def __init__(self, number: int, value: Any) -> None:
        self.number = number
        self.value = value

    def __reduce__(self) -> Any:
        return spread_value, (self.number,)


# ------------------------------------------------------------------------- the program


def share_here(array: NDArray[Any]) -> tuple[Shared, NDArray[Any]]:
    """Put an array into memory that others can map; give where it is, and itself there, read-only.

    Raises
    ------
    UsageError
        It holds Python objects, or there is no room.
    """
    if array.dtype.hasobject:
        raise UsageError(f"share wants an array of numbers, found dtype {array.dtype}: use bcast")
    with ExitStack() as undo:
        try:
            descriptor = os.memfd_create("mpims")
            undo.callback(os.close, descriptor)
            if 0 < resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= descriptor + _SPARE:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            form = Form(array.dtype, array.shape)
            os.ftruncate(descriptor, max(1, array.nbytes))
            with mmap.mmap(descriptor, max(1, array.nbytes)) as memory:
                view = np.ndarray(form.shape, form.dtype, memory)
                view[...] = array
                del view
            shared = Shared(this_process(), descriptor, form), _map(descriptor, form)
        except OSError as error:
            cure = _TOO_MANY if error.errno == errno.EMFILE else ""
            what = f"cannot share an array of {array.nbytes:,} bytes: {error.strerror}"
            raise UsageError(what + cure) from None
        undo.pop_all()
        return shared


def _map(descriptor: int, form: Form) -> NDArray[Any]:
    n_bytes = int(np.prod(form.shape, dtype=np.int64)) * form.dtype.itemsize
    memory = mmap.mmap(descriptor, max(1, n_bytes), access=mmap.ACCESS_READ)
    array: NDArray[Any] = np.ndarray(form.shape, form.dtype, memory)
    return array


# -------------------------------------------------------------------------- the master


def for_ranks(value: Any, number: int, processes: dict[int, Process]) -> dict[int, Any]:
    """What each rank is to be sent; of a shared array once for each host."""
    if not isinstance(value, Shared):
        return dict.fromkeys(processes, value)
    here = _host(value.owner)
    sent: dict[int, Any] = {}
    others: dict[Any, list[int]] = {}
    for rank, process in processes.items():
        if _host(process) == here:
            sent[rank] = Mapped(value.owner.pid, value.descriptor, value.form)
        else:
            others.setdefault(_host(process), []).append(rank)
    for ranks in others.values():
        sent |= _for_host(value, number, ranks)
    return sent


def _host(process: Process) -> tuple[Any, ...]:
    return process.boot, process.namespace


def _for_host(value: Shared, number: int, ranks: Sequence[int]) -> dict[int, Any]:
    stem = f"mpims-{value.owner.pid}-{value.owner.started}-{number}"
    names = tuple(f"{stem}-{rank}" for rank in ranks)
    array = open_mapped(Mapped(value.owner.pid, value.descriptor, value.form))
    sent: dict[int, Any] = {ranks[0]: Held(array, names[1:])}
    for rank, name in zip(ranks[1:], names[1:], strict=True):
        sent[rank] = Named(name, value.form)
    return sent


# --------------------------------------------------------------------------- the ranks


def keep_spread(number: int, value: Any) -> None:
    """Keep what the master has sent under this number; what is wrong with it is told to who uses it."""
    try:
        if isinstance(value, Mapped):
            value = _Made(open_mapped(value), value)
        elif isinstance(value, (Held, Named)):
            array = _hold(value) if isinstance(value, Held) else _find(value)
            value = _Made(array, Held(array, ()))
    except OSError as error:
        value = MpimsError(
            f"a shared array cannot be had on this rank: {error}; with bcast each has a copy of its own"
        )
    _kept[number] = value


def forget_spread() -> None:
    """The executor has ended."""
    _kept.clear()


def spread_value(number: int) -> Any:
    """What a handle stands for on this rank.

    Raises
    ------
    MpimsError
        It is of another executor; or what the rank was sent is not to be had.
    """
    if number not in _kept:
        raise UsageError("a handle of bcast or share stands for nothing here: its executor has ended")
    value = _kept[number]
    if isinstance(value, MpimsError):
        raise value
    if not isinstance(value, _Made):
        packed: Packed = value
        value = _kept[number] = _Made(unpack(*packed))
    return value.value


def spread_anew() -> dict[int, Any]:
    """All that is kept here, for `keep_spread` in a process that this rank starts."""
    return {number: _anew(value) for number, value in _kept.items()}


def _anew(value: Any) -> Any:
    if isinstance(value, MpimsError):
        return value
    if not isinstance(value, _Made):
        return bare(value)
    try:
        return value.sent or bare(Packer().pack(value.value, "the value"))
    except CannotTravel as error:  # a task has changed it
        return MpimsError(error.message, error.detail)


class _Made:
    """What was sent as the value that it is; and how it is to be sent on, if it is a shared array."""

    __slots__ = ("sent", "value")

    def __init__(self, value: Any, sent: Mapped | Held | None = None) -> None:
        self.value = value
        self.sent = sent


def open_mapped(mapped: Mapped) -> NDArray[Any]:
    """The array in another process of this host, read-only."""
    descriptor = os.open(f"/proc/{mapped.pid}/fd/{mapped.descriptor}", os.O_RDONLY)
    try:
        return _map(descriptor, mapped.form)
    finally:
        os.close(descriptor)


def _hold(held: Held) -> NDArray[Any]:
    """Put an array into this host's shared memory, and map it; an empty file says that there is no room."""
    part = os.path.join(_FOLDER, f"mpims-{os.getpid()}.part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            _fill(descriptor, held.array)
        finally:
            for name in held.names:
                path = os.path.join(_FOLDER, name)
                atexit.register(_remove, path)
                os.link(part, path)
        return _map(descriptor, Form(held.array.dtype, held.array.shape))
    finally:
        os.unlink(part)
        os.close(descriptor)


def _fill(descriptor: int, array: NDArray[Any]) -> None:
    """Write an array into an empty file of memory, which stays empty if there is no room."""
    n_bytes = max(1, array.nbytes)
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)  # to write where there is no room would end this process
    except OSError as error:
        os.ftruncate(descriptor, 0)
        raise OSError(error.errno, f"{n_bytes:,} bytes: {error.strerror}", _FOLDER) from None
    with mmap.mmap(descriptor, n_bytes) as memory:
        view = np.ndarray(array.shape, array.dtype, memory)
        view[...] = array
        del view


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):  # a rank has taken it
        os.unlink(path)


def _find(named: Named) -> NDArray[Any]:
    """Map what the first rank of this host puts there, and remove its name."""
    path = os.path.join(_FOLDER, named.name)
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            break
        except FileNotFoundError:
            if time.monotonic() > until:
                raise
            time.sleep(_POLL_S)
    os.unlink(path)
    try:
        if not os.fstat(descriptor).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), _FOLDER)
        return _map(descriptor, named.form)
    finally:
        os.close(descriptor)
