"""What becomes of the item results: gathered in item order, or reduced along the fixed tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mpims.core.tree import fold
from mpims.digest import is_masked
from mpims.errors import UsageError

if TYPE_CHECKING:
    import numpy.typing as npt


_EXACT = frozenset({np.add, np.multiply, np.maximum, np.minimum})
_EXACT |= {np.bitwise_and, np.bitwise_or, np.bitwise_xor}
"""Of integers and booleans these give the same bits in any order."""
_IN_MEMORY = (np.ndarray, np.void)
"""What may lie in memory of others: an array, or its row of fields."""
MASKED = "kernel returned a masked array: return its .filled(value), or the mask as a field"
"""It may be an item of a list, but an array has no place for a mask."""


class ResultError(Exception):
    """The kernel gave something that is not one result per item, or not like the ones before."""


class Gather:
    """Keep every item's result, in item order.

    NumPy in, NumPy out: where the kernel gives an array (or `task` a NumPy array or scalar per item)
    the result is one array whose leading axis is the items; any other results become a list, and so do
    arrays that hold Python objects, be it in one field.

    Parameters
    ----------
    dtype
        Make an array of this dtype, whatever the kernel gives; with ``object``, a list. Floats may be
        rounded to it; whole numbers and texts that it cannot hold are an error. None takes dtype and shape
        from the results; they must then be the same in all of them. Where every item was skipped there is
        no shape: of a dtype the result is then a vector, else a list of None.

    Raises
    ------
    UsageError
        The dtype has a shape of its own.
    """

    def __init__(self, dtype: npt.DTypeLike | None = None) -> None:
        self.dtype = None if dtype is None else np.dtype(dtype)
        if self.dtype is not None and self.dtype.shape:
            raise UsageError(
                f"Gather wants the dtype of one value, found one with a shape {self.dtype.shape}: "
                f"give {self.dtype.base}, the shape is that of the results"
            )

    def __repr__(self) -> str:
        return "Gather()" if self.dtype is None else f"Gather(dtype={self.dtype.name!r})"

    def pack(self, results: Any) -> npt.NDArray[Any] | list[Any]:
        """The results of one block as an array, or as a list where they are not NumPy's.

        Raises
        ------
        ResultError
            One is a masked array, and `dtype` leaves no place for its mask; or one does not fit `dtype`.
        """
        if self.dtype is not None and self.dtype.hasobject:
            return _as_list(results)
        if self.dtype is not None:
            if isinstance(results, (list, tuple)) and any(map(is_masked, _one_of_each_type(results))):
                raise ResultError(MASKED)
            array = np.ascontiguousarray(results, dtype=self.dtype)
            _check_fits(array, results)
            return array
        if isinstance(results, np.ndarray):
            return _as_list(results) if results.dtype.hasobject else np.ascontiguousarray(results)
        if results and all(_is_plain(r) for r in results):
            first = results[0]
            if all(r.dtype == first.dtype and r.shape == first.shape for r in results):
                rows = np.empty((len(results), *first.shape), first.dtype)
                # np.stack takes more than twice as long; of a long item's block this is what counts.
                for i, result in enumerate(results):
                    rows[i, ...] = result
                return rows
        return _as_list(results)


def _check_fits(array: npt.NDArray[Any], results: Any) -> None:
    """Refuse to keep less than there is, which NumPy does without a word: 300 as 44, 2.7 as 2, abc as ab.

    That floats are rounded to shorter ones is what such a dtype is asked for.
    """
    kind = array.dtype.kind
    if kind not in "iufSU":
        return
    given = np.asarray(results)
    if given.dtype == array.dtype or given.dtype.kind not in ("c" if kind == "f" else "biufcSU"):
        return
    if kind in "SU":
        given = given.astype(kind)  # as long as it takes
        if given.itemsize <= array.itemsize:
            return
    differs = array != given
    if differs.any():
        where = tuple(np.argwhere(differs)[0])
        dtype = array.dtype.str if kind in "SU" else array.dtype.name
        raise ResultError(
            f"kernel returned {given[where].item()!r}, which {dtype} cannot hold; "
            "give Gather another dtype, or return what fits"
        )


def _is_plain(result: Any) -> bool:
    """Whether a result is NumPy's and can be part of an array that is written as its bytes.

    A masked one would lose its mask, and objects have no such bytes.
    """
    is_numpys = isinstance(result, (np.ndarray, np.generic))
    return is_numpys and not result.dtype.hasobject and not is_masked(result)


def _as_list(results: Any) -> list[Any]:
    """The results of one block as they are, but for those whose memory the kernel may use again."""
    is_lone = len(results) == 1
    if is_lone or any(isinstance(r, _IN_MEMORY) for r in _one_of_each_type(results)):
        return [_own(r) if _is_kernels(r, is_lone) else r for r in results]
    return list(results)


def _one_of_each_type(results: Sequence[Any]) -> Iterable[Any]:
    """Results that are looked at in place of all: there may be a million numbers."""
    return dict(zip(map(type, results), results, strict=True)).values()


def _is_kernels(value: Any, is_lone: bool) -> bool:
    """Whether a value may lie in an array of the kernel's, which it may use again for the next block."""
    return isinstance(value, _IN_MEMORY) and (is_lone or value.base is not None)


def _own(value: npt.NDArray[Any] | np.void) -> Any:
    """A copy of an array, or of a row of fields, of the same class; of a mapped one a plain array."""
    if type(value) is np.ndarray or isinstance(value, np.memmap):
        return np.copy(value)
    return value.copy()


def kept(results: Any) -> Any:
    """The results of one block, to be kept while the kernel computes others in the same memory."""
    if not isinstance(results, np.ndarray):
        return _as_list(results)
    own = _own(results)
    if own.dtype == object and own.ndim == 1:
        for i, result in enumerate(_as_list(results)):
            own[i] = result
    return own


class Reduce:
    """Combine all results into one value, always along the same tree.

    The value may be of any kind that can be pickled. Arrays of a subclass, such as matrices and the masked
    arrays of a `task`, are combined as what they are.

    Parameters
    ----------
    function
        A NumPy ufunc of two arguments, or any associative function of a left and a right result; it
        need not commute. It may change and return its left argument: each value is used once, if the
        kernel gives a new object for each item.
    """

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        if not callable(function):
            raise UsageError(f"Reduce wants a function of two results, found {function!r}")
        if isinstance(function, np.ufunc) and (function.nin, function.nout) != (2, 1):
            raise UsageError(
                f"Reduce wants a function of two results that gives one, found {function!r} "
                f"({function.nin} in, {function.nout} out)"
            )
        self.function = function

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"Reduce({name})"  # without an address, for runs compare it

    def fold(self, results: npt.NDArray[Any] | Sequence[Any]) -> Any:
        """The results of one block as one value.

        An array is halved level by level in whole-array calls of a ufunc: that is the tree of
        `mpims.core.tree.fold`, and no order that depends on the processor. Where the order does not
        matter, NumPy may choose it. A subclass, such as a matrix, has a mind of its own of what its rows
        are, and is folded row by row; so are vectors by `numpy.matmul`, to which they would be one matrix.
        """
        if isinstance(results, np.memmap):
            results = results.view(np.ndarray)
        if not (type(results) is np.ndarray and isinstance(self.function, np.ufunc)):
            return self._fold_by_rows(results)
        if self.function.signature is not None and results.ndim < 3:
            return self._fold_by_rows(results)
        if len(results) == 1:
            return np.copy(results)[0]
        if results.dtype.kind in "iub" and self.function in _EXACT:
            return self.function.reduce(results, axis=0, dtype=results.dtype.newbyteorder("="))
        while len(results) > 1:
            paired = self.function(results[0:-1:2], results[1::2])
            results = np.concatenate([paired, results[-1:]]) if len(results) % 2 else paired
        return results[0]

    def _fold_by_rows(self, results: npt.NDArray[Any] | Sequence[Any]) -> Any:
        value = fold(list(results), self.function)
        return _own(value) if _is_kernels(value, len(results) == 1) else value


Output: TypeAlias = Gather | Reduce
