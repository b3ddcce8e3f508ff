"""What a worker collects between two reports: the results of consecutive blocks, ready to be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from mpims.core.tree import Forest, Node
from mpims.digest import is_masked
from mpims.errors import brief
from mpims.outputs import MASKED, Gather, Output, Reduce, ResultError
from mpims.report.wording import counted
from mpims.runtime.buffers import Buffers

if TYPE_CHECKING:
    import numpy.typing as npt

Form: TypeAlias = tuple["np.dtype[Any]", tuple[int, ...]]
"""What the results of all items have in common: dtype and shape of one."""


class Part(Protocol):
    """The results of the blocks since the last report."""

    n_bytes: int

    def add(self, start: int, stop: int, results: Any, is_ours: bool = False) -> None:
        """Take in the results of items ``[start, stop)``, one block.

        `is_ours` says that nobody else refers to them, so that nobody can change them.
        """

    def add_alike(self, n_items: int, results: Any, is_ours: bool) -> bool:
        """Take in the results of one block that is an attempt, and close it, if they are like those before.

        False: they are not, or nobody can tell so soon; they were not taken in.
        """
        return False

    def add_items(self, start: int, stop: int, results: dict[int, Any]) -> None:
        """Take in a block of which each item was computed alone; some may be missing, not all."""

    def close(self) -> None:
        """What was added since the last time belongs to one attempt, what follows to another."""

    def take(self) -> Any:
        """Give what was closed, and begin again: one payload, which holds those of all attempts."""


class GatherPart:
    """Blocks of item results, one after another, those of one attempt after those of another."""

    def __init__(self, output: Gather) -> None:
        self._output = output
        self._arrays: list[npt.NDArray[Any]] = []
        self._list: list[Any] = []
        self._buffers = Buffers()
        self._n_closed = 0  # how many of them belong to attempts that are complete
        self._form: Form | None = None
        self._is_list = False
        self._alike: tuple[int, Any, Any] = 0, None, None  # items, dtype and shape of the last block
        self.n_bytes = 0

    def add_alike(self, n_items: int, results: Any, is_ours: bool) -> bool:
        n_alike, dtype, shape = self._alike
        if (
            type(results) is not np.ndarray
            or n_items != n_alike
            or results.dtype != dtype
            or results.shape != shape
        ):
            return False
        # Memory that is not the array's own may be the kernel's, which may use it again for the next block.
        is_kept = is_ours and results.flags.owndata
        self._arrays.append(results if is_kept else self._buffers.copy(results))
        self.n_bytes += results.nbytes
        self._n_closed += 1
        return True

    def add(self, start: int, stop: int, results: Any, is_ours: bool = False) -> None:
        if type(results) is np.ndarray and (results.dtype, results.shape[1:]) == self._form:
            is_kept = is_ours and results.flags.owndata  # in short what follows
            self._arrays.append(results if is_kept else self._buffers.copy(results))
            self._alike = stop - start, results.dtype, results.shape
            self.n_bytes += results.nbytes
            return
        packed = self._output.pack(results)
        if self._form is None and not self._is_list:
            self._is_list = isinstance(packed, list)
        if isinstance(packed, list):
            if not self._is_list:
                raise ResultError(unlike_text(None, "before that", self._form))
            self._list += packed
            return
        form = (packed.dtype, packed.shape[1:])
        if self._is_list:
            raise ResultError(unlike_text(form, "before that", None))
        if self._form is not None and form != self._form:
            raise ResultError(unlike_text(form, "before that", self._form))
        self._form = form
        # The kernel may use its array again for the next block.
        is_kernels = not (is_ours and packed.flags.owndata) and (
            packed is results or packed.base is not None
        )
        self._arrays.append(self._buffers.copy(packed) if is_kernels else packed)
        self.n_bytes += packed.nbytes

    def add_items(self, start: int, stop: int, results: dict[int, Any]) -> None:
        packed = {item: self._output.pack(result) for item, result in results.items()}
        arrays = {item: row for item, row in packed.items() if not isinstance(row, list)}
        forms = {(row.dtype, row.shape[1:]) for row in arrays.values()}
        if len(arrays) == len(packed) and len(forms) == 1:
            dtype, shape = forms.pop()
            rows = np.zeros((stop - start, *shape), dtype)
            for item, row in arrays.items():
                rows[item - start] = row[0]
            self.add(start, stop, rows)
        else:
            self.add(start, stop, [packed[i][0] if i in packed else None for i in range(start, stop)])

    def close(self) -> None:
        self._n_closed = len(self._list if self._is_list else self._arrays)

    def take(self) -> npt.NDArray[Any] | list[Any]:
        n_closed, self._n_closed = self._n_closed, 0
        arrays, objects = self._arrays[:n_closed], self._list[:n_closed]
        self._arrays, self._list = self._arrays[n_closed:], self._list[n_closed:]
        self.n_bytes = sum([array.nbytes for array in self._arrays])
        if not arrays:
            return objects
        if len(arrays) == 1:
            return arrays[0]
        n_rows = sum([len(array) for array in arrays])
        whole = self._buffers.empty((n_rows, *arrays[0].shape[1:]), arrays[0].dtype)
        return np.concatenate(arrays, out=whole)


class ReducePart:
    """Blocks reduced to values, siblings in the tree combined as far as they are there.

    What is sent of an attempt is a list of nodes and the list of their values: O(log n) of them; of
    several attempts a list of such pairs.
    """

    def __init__(self, output: Reduce, block: int, n_items: int) -> None:
        self._output = output
        self._block = block
        self._forest: Forest[Any] = Forest(-(-n_items // block), output.function)
        self._closed: list[tuple[list[tuple[int, int]], list[Any]]] = []
        self.n_bytes = 0

    def add_alike(self, n_items: int, results: Any, is_ours: bool) -> bool:
        return False

    def add(self, start: int, stop: int, results: Any, is_ours: bool = False) -> None:
        self._forest.add(Node(0, start // self._block), self._output.fold(results))

    def add_items(self, start: int, stop: int, results: dict[int, Any]) -> None:
        if all(type(result) is np.ndarray for result in results.values()):
            self.add(start, stop, np.concatenate(list(results.values())))
        else:
            self.add(start, stop, [result[0] for result in results.values()])

    def close(self) -> None:
        taken = self._forest.take()
        pair = [(node.level, node.position) for node, _ in taken], [value for _, value in taken]
        self._closed.append(pair)

    def take(self) -> Any:
        closed, self._closed = self._closed, []
        return closed[0] if len(closed) == 1 else closed


def new_part(output: Output, block: int, n_items: int) -> Part:
    """An empty part for a job of that output."""
    if isinstance(output, Gather):
        return GatherPart(output)
    return ReducePart(output, block, n_items)


def check_results(results: Any, n_items: int) -> None:
    """Check that a kernel gave one result for each item of its block.

    Raises
    ------
    ResultError
        It gave None, something without a length, or another number of results.
    """
    if type(results) is np.ndarray and results.ndim and len(results) == n_items:
        return
    if results is None:
        raise ResultError(
            f"kernel returned None for {counted(n_items, 'item')}: return one result per item"
        )
    if is_masked(results):
        raise ResultError(MASKED)
    try:
        n_results = len(results)
    except TypeError:
        what = f"{type(results).__name__} {brief(results, 40)}"
        raise ResultError(
            f"kernel returned {what} for {counted(n_items, 'item')}: "
            "return an array whose leading axis is the items, or a list"
        ) from None
    if isinstance(results, (dict, set, str, bytes)):
        raise ResultError(
            f"kernel returned a {type(results).__name__} for {counted(n_items, 'item')}: "
            "return an array or a list"
        )
    if n_results != n_items:
        raise ResultError(f"kernel returned {counted(n_results, 'result')} for {counted(n_items, 'item')}")


def unlike_text(form: Form | None, where: str, other: Form | None) -> str:
    """What is said of results of two forms, None being that of Python objects, and what to do about it."""
    cure = "for results that differ in form: output = mpims.Gather(dtype=object), which makes a list"
    if form is not None and other is not None and form[1] == other[1]:
        kinds = {form[0].kind, other[0].kind}
        if kinds in ({"S"}, {"U"}):
            cure = f"give a dtype that holds the longest: output = mpims.Gather(dtype='{kinds.pop()}20')"
        elif kinds <= set("biufc"):
            dtype = np.result_type(form[0], other[0]).name
            cure = f"for one dtype for all of them: output = mpims.Gather(dtype={dtype!r})"
    return f"kernel returned {_form_text(form)}, {where} {_form_text(other)}; {cure}"


def _form_text(form: Form | None) -> str:
    if form is None:
        return "Python objects"
    dtype, shape = form
    return f"{dtype} of shape {shape} per item" if shape else f"{dtype} per item"
