"""From delivered parts to the job's result: in place in a memory map, or up the fixed tree.

A result is written to a file whose name ends in ``.part`` and gets its own name when it is whole, so
that nothing half-written looks whole.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpims.core.events import Range
from mpims.core.tree import Forest, Node, node_items
from mpims.errors import MpimsError, RunFailed, describe
from mpims.outputs import Gather, Output, Reduce
from mpims.runtime.parts import DIFFERENT, ResultError, form_text
from mpims.runtime.wire import ResultHead, as_bytes


class Results(Protocol):
    """Where the master puts what the workers deliver."""

    def place(self, head: ResultHead) -> memoryview | None:
        """The memory that an arriving array belongs into; None if it has no fixed place."""

    def units(self, payload: Any) -> tuple[Range, ...] | None:
        """The ranges of a payload that can only be taken whole; None if it can be cut anywhere."""

    def commit(self, head: ResultHead, payload: Any, ranges: Sequence[Range]) -> None:
        """Put those ranges of a payload into the result."""

    def close(self) -> tuple[Any, Path]:
        """Give the whole result and the file that holds it."""


class GatherResults:
    """Item results by position: a memory-mapped array, or a list.

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
        self._n_items = n_items
        self._folder = folder
        self._array: npt.NDArray[Any] | None = None
        self._bytes = memoryview(b"")  # of the array, if it has any
        self._item_bytes = 0
        self._placed: set[tuple[int, int]] = set()  # attempt and start of what was received in place
        self._list: list[Any] | None = None

    def place(self, head: ResultHead) -> memoryview | None:
        if head.array is None:
            return None
        dtype, (n, *shape) = head.array
        if self._array is None and self._list is None:
            self._array = self._create(dtype, (self._n_items, *shape))
        array = self._array
        if array is None or array.dtype != dtype or array.shape[1:] != tuple(shape):
            return None
        if n != head.stop - head.start or not self._item_bytes:
            return None
        self._placed.add((head.attempt, head.start))
        return self._bytes[head.start * self._item_bytes : head.stop * self._item_bytes]

    def units(self, payload: Any) -> tuple[Range, ...] | None:
        return None

    def commit(self, head: ResultHead, payload: Any, ranges: Sequence[Range]) -> None:
        if isinstance(payload, list):
            self._commit_list(head, payload, ranges)
            return
        array = self._array
        if array is None:
            raise ResultError(
                f"kernel returned {form_text(payload.dtype, payload.shape[1:])}, elsewhere Python objects"
            )
        if payload.dtype != array.dtype or payload.shape[1:] != array.shape[1:]:
            raise ResultError(
                f"kernel returned {form_text(payload.dtype, payload.shape[1:])}, "
                f"elsewhere {form_text(array.dtype, array.shape[1:])}; {DIFFERENT}"
            )
        if (head.attempt, head.start) in self._placed:
            self._placed.remove((head.attempt, head.start))
            return
        for start, stop in ranges:
            array[start:stop] = payload[start - head.start : stop - head.start]

    def _commit_list(self, head: ResultHead, payload: list[Any], ranges: Sequence[Range]) -> None:
        if self._array is not None:
            form = form_text(self._array.dtype, self._array.shape[1:])
            raise ResultError(f"kernel returned Python objects, elsewhere {form}")
        if self._list is None:
            self._list = [None] * self._n_items
        for start, stop in ranges:
            self._list[start:stop] = payload[start - head.start : stop - head.start]

    def _create(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Make the file in its full size: a disk that fills up later would kill the process."""
        n_bytes = prod(shape) * dtype.itemsize
        if not n_bytes:
            return np.empty(shape, dtype)
        path = self._folder / "result.npy.part"
        try:
            array = np.lib.format.open_memmap(path, "w+", dtype, shape)
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise disk_error(error, path, n_bytes) from None
        plain = np.asarray(array)  # slicing a memmap is slow
        self._bytes, self._item_bytes = as_bytes(plain), n_bytes // self._n_items
        return plain

    def close(self) -> tuple[Any, Path]:
        if self._list is not None:
            return self._list, write_object(self._folder, self._list)
        assert self._array is not None
        path = self._folder / "result.npy"
        if self._item_bytes:
            self._array, self._bytes = None, memoryview(b"")  # unmaps the file
            path.with_name("result.npy.part").rename(path)
        else:
            write_array(path, self._array)
        return np.load(path, mmap_mode="r"), path


class ReduceResults:
    """Values of tree nodes, combined to one."""

    def __init__(self, output: Reduce, n_items: int, block: int, folder: Path) -> None:
        self._n_items = n_items
        self._block = block
        self._folder = folder
        self._forest: Forest[Any] = Forest(-(-n_items // block), output.function)

    def place(self, head: ResultHead) -> memoryview | None:
        return None

    def units(self, payload: Any) -> tuple[Range, ...] | None:
        return tuple(node_items(Node(*node), self._block, self._n_items) for node in payload[0])

    def commit(self, head: ResultHead, payload: Any, ranges: Sequence[Range]) -> None:
        taken = set(ranges)
        for node, value in zip(*payload, strict=True):
            items = node_items(Node(*node), self._block, self._n_items)
            if items in taken:
                try:
                    self._forest.add(Node(*node), value)
                except Exception as error:  # whatever the user's reduce function raises
                    raise ResultError(
                        f"the reduce function raised {describe(error)}, "
                        f"where the master joined items [{items[0]}, {items[1]}) with their neighbours"
                    ) from error

    def close(self) -> tuple[Any, Path]:
        value = self._forest.root()
        if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
            path = self._folder / "result.npy"
            write_array(path, np.asarray(value))
            return value, path
        return value, write_object(self._folder, value)


def new_results(output: Output, n_items: int, block: int, folder: Path) -> Results:
    """The empty result of a job with that output."""
    if isinstance(output, Gather):
        return GatherResults(output, n_items, folder)
    return ReduceResults(output, n_items, block, folder)


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a ``.npy`` file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise disk_error(error, path, array.nbytes) from None


def write_object(folder: Path, value: Any) -> Path:
    """Pickle a result that is no array into ``result.pkl``, whole or not at all."""
    path = folder / "result.pkl"
    part = path.with_name("result.pkl.part")
    try:
        with part.open("wb") as file:
            pickle.dump(value, file, protocol=5)
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise disk_error(error, path) from None
    except Exception as error:  # whatever an object of the user's raises when it is pickled
        part.unlink(missing_ok=True)
        raise RunFailed(f"the result cannot be pickled: {describe(error)}") from None
    return path


def disk_error(error: OSError, path: Path, n_bytes: int = 0) -> MpimsError:
    """What a failed write means, with the space that was wanted and the space there is."""
    wanted = f" of {n_bytes / 1e6:.1f} MB" if n_bytes else ""
    try:
        free = os.statvfs(path.parent)
        there = f", {free.f_bavail * free.f_frsize / 1e6:.1f} MB are free there"
    except OSError:
        there = ""
    return RunFailed(
        f"cannot write {path}{wanted}: {error.strerror}{there}; "
        "free some space, or choose another folder with --run-dir"
    )
