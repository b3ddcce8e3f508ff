"""From delivered parts to the job's result: in its place in a file, or up the fixed tree.

A result is written to a file whose name ends in ``.part`` and gets its own name when it is whole, so
that nothing half-written looks whole.
"""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from mpims.core.chunks import Range, Result
from mpims.core.tree import ABSENT, Forest, Node, node_items
from mpims.errors import RunFailed, Stopped, UsageError, describe
from mpims.outputs import Gather, Output, Reduce, ResultError
from mpims.runtime.parts import unlike_text
from mpims.runtime.wire import as_bytes
from mpims.storage.arrayfile import ArrayFile


class Results(Protocol):
    """Where the master puts what the workers deliver."""

    @property
    def n_given(self) -> int:
        """How many commits were left to be written in the background."""

    @property
    def n_written(self) -> int:
        """How many of them, the first ones, are in their place; raises `Stopped` if one cannot be."""

    def units(self, payload: Any, heads: Sequence[Result]) -> Sequence[tuple[Range, ...] | None]:
        """For each result in a payload the ranges that can only be taken whole; None: it can be cut."""

    def select(self, payload: Any, heads: Sequence[Result], first: int, last: int) -> Any:
        """Of a payload that holds all these results, those from `first` to `last`, exclusive, as one."""

    def commit(self, head: Result, payload: Any, ranges: Sequence[Range]) -> None:
        """Put those ranges of a payload into the result, or see to it; with no payload, they have none.

        They are in their place once `n_written` has reached what `n_given` is afterwards.
        """

    def finish(self) -> None:
        """Wait until everything is in its place."""

    def keeps(self, payload: Any) -> bool:
        """Whether a committed payload is in a file already, and need not be in the journal."""

    @property
    def head(self) -> bytes:
        """What the file begins with, and says of the results in it; empty if there is none."""

    def forget(self) -> None:
        """Have found no file."""

    def snapshot(self) -> Any:
        """One payload that stands for all that was committed; None if there is no such thing."""

    def reopen(self) -> bool:
        """Find again what an earlier process kept in files; whether there is such a thing.

        Raises
        ------
        Stopped
            It cannot be opened just now.
        """

    def sync(self) -> None:
        """Force to the disk what is kept in files; may be called from another thread."""

    def close(self, skipped: Sequence[int] = ()) -> tuple[Any, Path]:
        """Give the whole result and the file that holds it; `skipped` items get the fill value."""

    def release(self) -> None:
        """Give back what is open; nothing more is done with this object."""


class GatherResults:
    """Item results by position: a file of an array, or a list.

    Parameters
    ----------
    output
        The job's output.
    n_items
        Length of the leading axis.
    folder
        The run directory.
    """

    def __init__(self, output: Gather, n_items: int, folder: Path) -> None:
        self._output = output
        self._n_items = n_items
        self._folder = folder
        self._form: tuple[np.dtype[Any], tuple[int, ...]] | None = None  # of an item, in an array
        self._file: ArrayFile | None = None  # of the array, if it has any bytes
        self._list: list[Any] | None = None
        self.n_given = 0

    @property
    def n_written(self) -> int:
        if self._file is None:
            return self.n_given
        try:
            return self._file.n_written
        except OSError as error:
            raise disk_error(error, self._file.path) from None

    def units(self, payload: Any, heads: Sequence[Result]) -> Sequence[tuple[Range, ...] | None]:
        return (None,) * len(heads)

    def select(self, payload: Any, heads: Sequence[Result], first: int, last: int) -> Any:
        if last - first == len(heads):
            return payload
        at = sum([head.stop - head.start for head in heads[:first]])
        return payload[at : at + heads[last - 1].stop - heads[first].start]

    def keeps(self, payload: Any) -> bool:
        if not isinstance(payload, np.ndarray):
            return False
        if self._form is None and self._list is None:
            self._begin_array(payload)
        return self._file is not None

    @property
    def head(self) -> bytes:
        return self._file.head if self._file is not None else b""

    def forget(self) -> None:
        self.release()
        self._form = None

    def snapshot(self) -> Any:
        return None

    def commit(self, head: Result, payload: Any, ranges: Sequence[Range]) -> None:
        if payload is None:
            return
        if isinstance(payload, list):
            self._commit_list(head, payload, ranges)
            return
        if self._form is None and self._list is None:
            self._begin_array(payload)
        form = payload.dtype, payload.shape[1:]
        if form != self._form:
            raise ResultError(unlike_text(form, "elsewhere", self._form))
        file = self._file
        if file is None:  # of nothing there is nothing to write
            return
        try:
            for start, stop in ranges:
                file.write(start, as_bytes(payload[start - head.start : stop - head.start]))
        except OSError as error:
            raise disk_error(error, file.path) from None
        self.n_given = file.n_given

    def _commit_list(self, head: Result, payload: list[Any], ranges: Sequence[Range]) -> None:
        if self._form is not None:
            raise ResultError(unlike_text(None, "elsewhere", self._form))
        if self._list is None:
            self._list = [None] * self._n_items
        for start, stop in ranges:
            self._list[start:stop] = payload[start - head.start : stop - head.start]

    def _begin_array(self, payload: npt.NDArray[Any]) -> None:
        shape = (self._n_items, *payload.shape[1:])
        n_bytes = prod(shape) * payload.dtype.itemsize
        if n_bytes:
            path = self._folder / "result.npy.part"
            try:
                self._file = ArrayFile.create(path, payload.dtype, shape)
            except OSError as error:
                raise disk_error(error, path, n_bytes) from None
            except ValueError as error:  # fields that overlap, or lie in another order than they are named
                raise ResultError(
                    f"kernel returned fields that no .npy file can hold ({error}): "
                    "numpy.lib.recfunctions.repack_fields puts them in order"
                ) from None
        self._form = payload.dtype, payload.shape[1:]

    def reopen(self) -> bool:
        path = self._folder / "result.npy.part"
        try:
            if not path.exists():  # the run was whole, and died before it could say so
                path.with_name("result.npy").rename(path)
            file = ArrayFile.reopen(path)
        except (FileNotFoundError, ValueError):
            return False
        except OSError as error:  # it may be there, and whole
            raise disk_error(error, path) from None
        if file is None or file.shape[:1] != (self._n_items,):
            return False
        self._file, self._form = file, (file.dtype, file.shape[1:])
        return True

    def finish(self) -> None:
        if self._file is not None:
            try:
                self._file.finish()
            except OSError as error:
                raise disk_error(error, self._file.path) from None

    def sync(self) -> None:
        if self._file is not None:
            self._file.sync()

    def close(self, skipped: Sequence[int] = ()) -> tuple[Any, Path]:
        path = self._folder / "result.npy"
        if self._form is None:
            dtype = self._output.dtype
            if self._list is None and dtype is not None and not dtype.hasobject:  # all were skipped
                write_array(path, np.full(self._n_items, fill_value(dtype), dtype))
                return np.load(path, mmap_mode="r"), path
            values = self._list if self._list is not None else [None] * self._n_items
            return values, write_object(self._folder, values)
        dtype, shape = self._form
        file = self._file
        if file is None:
            write_array(path, np.empty((self._n_items, *shape), dtype))
        else:
            try:
                if len(skipped):
                    nothing = as_bytes(np.full((1, *shape), fill_value(dtype), dtype))
                    for item in skipped:
                        file.write(item, nothing)
                file.finish()
                file.sync()
                file.path.rename(path)
            except OSError as error:
                raise disk_error(error, path) from None
            self.release()
        return np.load(path, mmap_mode="r"), path

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def fill_value(dtype: np.dtype[Any]) -> Any:
    """What stands in a gathered array for an item that was skipped.

    NaN for floats and complex numbers, NaT for dates and durations, zeros for all others (False, an
    empty string; field by field in a structured dtype). In a list it is None.
    """
    dtype = dtype.base  # of an array within a field
    value = np.zeros((), dtype)
    if dtype.names is not None:
        for name in dtype.names:
            value[name] = fill_value(dtype[name])
    elif dtype.kind in "fc":
        value[()] = np.nan
    elif dtype.kind in "mM":
        value[()] = "NaT"
    return value


class ReduceResults:
    """Values of tree nodes, combined to one."""

    def __init__(self, output: Reduce, n_items: int, block: int, folder: Path) -> None:
        self._n_items = n_items
        self._block = block
        self._folder = folder
        self._forest: Forest[Any] = Forest(-(-n_items // block), output.function)

    n_given = n_written = 0  # a value is there as soon as it is combined

    def units(self, payload: Any, heads: Sequence[Result]) -> Sequence[tuple[Range, ...] | None]:
        if payload is None:
            return (None,)
        pairs = [payload] if len(heads) == 1 else payload
        return [
            tuple([node_items(Node(*node), self._block, self._n_items) for node in nodes])
            for nodes, _ in pairs
        ]

    def select(self, payload: Any, heads: Sequence[Result], first: int, last: int) -> Any:
        if len(heads) == 1:
            return payload
        pairs = payload[first:last]
        return [node for nodes, _ in pairs for node in nodes], [v for _, values in pairs for v in values]

    def keeps(self, payload: Any) -> bool:
        return False

    @property
    def head(self) -> bytes:
        return b""

    def forget(self) -> None:
        pass

    def snapshot(self) -> Any:
        nodes = list(self._forest.nodes.items())
        return [tuple(node) for node, _ in nodes], [value for _, value in nodes]

    def reopen(self) -> bool:
        return False

    def finish(self) -> None:
        """Do nothing: everything is there."""

    def sync(self) -> None:
        """Do nothing: the journal has it all."""

    def release(self) -> None:
        """Do nothing: nothing is open."""

    def commit(self, head: Result, payload: Any, ranges: Sequence[Range]) -> None:
        if payload is None:
            for start, stop in ranges:
                for index in range(start // self._block, -(-stop // self._block)):
                    self._forest.add(Node(0, index), ABSENT)
            return
        taken = set(ranges)
        for node, value in zip(*payload, strict=True):
            items = node_items(Node(*node), self._block, self._n_items)
            if items in taken:
                try:
                    self._forest.add(Node(*node), value)
                except (Exception, SystemExit) as error:  # whatever the user's reduce function raises
                    raise ResultError(
                        f"the reduce function raised {describe(error)}, "
                        f"where the master joined items [{items[0]}, {items[1]}) with their neighbours"
                    ) from error

    def close(self, skipped: Sequence[int] = ()) -> tuple[Any, Path]:
        value = self._forest.root()
        if value is ABSENT:
            value = None
        if _fits_file(value):
            path = self._folder / "result.npy"
            write_array(path, np.asarray(value))
            return value, path
        return value, write_object(self._folder, value)


def _fits_file(value: Any) -> bool:
    """Whether a ``.npy`` file gives back the value: of a subclass it would keep the bytes alone."""
    is_plain = type(value) in (np.ndarray, np.memmap) or isinstance(value, np.generic)
    if not is_plain or value.dtype.hasobject:
        return False
    try:
        np.lib.format.dtype_to_descr(value.dtype)
    except ValueError:  # fields that overlap, or lie in another order than they are named
        return False
    return True


def new_results(output: Output, n_items: int, block: int, folder: Path) -> Results:
    """The empty result of a job with that output."""
    if isinstance(output, Gather):
        return GatherResults(output, n_items, folder)
    return ReduceResults(output, n_items, block, folder)


class LostResult(UsageError):
    """The file of a whole result is gone, or damaged."""


def read_result(path: Path) -> Any:
    """Read the file of a whole result; an array is mapped.

    Raises
    ------
    LostResult
        It is not there, or damaged: going on with the run makes it anew.
    UsageError
        It cannot be read just now.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r")
            return array if array.shape else array[()]
        return pickle.loads(path.read_bytes())
    except FileNotFoundError:
        raise LostResult(f"the result {path} is gone") from None
    except OSError as error:
        raise UsageError(f"cannot read the result {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle raises anything
        raise LostResult(f"the result {path} is damaged: {describe(error)}") from None


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a ``.npy`` file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            _sync(file)
        part.rename(path)
    except OSError as error:
        remove(part)
        raise disk_error(error, path, array.nbytes) from None


def write_object(folder: Path, value: Any) -> Path:
    """Pickle a result that is no array into ``result.pkl``, whole or not at all."""
    path = folder / "result.pkl"
    part = path.with_name("result.pkl.part")
    try:
        with part.open("wb") as file:
            pickle.dump(value, file, protocol=5)
            _sync(file)
        part.rename(path)
    except OSError as error:
        remove(part)
        raise disk_error(error, path) from None
    except Exception as error:  # whatever an object of the user's raises when it is pickled
        remove(part)
        raise RunFailed(f"the result cannot be pickled: {describe(error)}") from None
    return path


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def remove(part: Path) -> None:
    """Remove what could not be written, as far as that can be done."""
    with suppress(OSError):  # it is not there, or a folder
        part.unlink()


class NotWritten(Stopped):
    """The file system did not take a file of the run.

    Attributes
    ----------
    at_the_start
        The same where there is no run yet that could be resumed.
    """

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{what}; {cure} and resume")
        self.at_the_start = UsageError(f"{what}; {cure} and start the run again")


def disk_error(error: OSError, path: Path, n_bytes: int = 0) -> NotWritten:
    """What a failed write means, with the space that was wanted and the space there is."""
    cure = _CURES.get(error.errno or 0)
    if isinstance(error, IsADirectoryError):  # what was opened, or what a file was to be named
        path = Path(error.filename2 or error.filename or path)
    if cure is not None:
        return NotWritten(f"cannot write {path}: {error.strerror}", cure)
    wanted = f" of {n_bytes / 1e6:.1f} MB" if n_bytes else ""
    try:
        free = os.statvfs(path.parent)
        there = f", {free.f_bavail * free.f_frsize / 1e6:.1f} MB are free there"
    except OSError:
        there = ""
    return NotWritten(f"cannot write {path}{wanted}: {error.strerror}{there}", "free some space")


_CURES = {
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EACCES: "see that you may write there",
    errno.EPERM: "see that you may write there",
    errno.EROFS: "see that it can be written to",
    errno.EISDIR: "remove that folder",
}
"""Where more space is none."""
