"""Functions on their way: each travels once to each rank, and is known by its number from then on."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import count
from threading import RLock
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpims.executor.cargo import LARGE, Packed, Packer, packed_bytes
from mpims.executor.sameness import Seen

MOST_KNOWN = 256
"""So many functions are remembered; one that was forgotten travels again when it is used again ..."""
MOST_BYTES = 64 << 20
"""... and so many bytes of them beside the largest: arrays that functions carry are gigabytes soon."""
_BLOCK_BYTES = 1 << 20
_START_BYTES = 64

ITEM, ARGUMENTS, CALL = range(3)
"""How a task's value is used: as the only argument; as all of them; as those and the keyword ones."""


class Function:
    """A function as it travels.

    Attributes
    ----------
    number
        By which ranks know it.
    stream
        Its pickle, as `mpims.executor.cargo` packs values.
    mean_s
        What a call takes of late, in seconds; None as long as none has come back.
    mean_bytes, result_bytes
        What the packed arguments of a call measure of late, and its result.
    n_bytes
        What itself measures.
    """

    __slots__ = ("mean_bytes", "mean_s", "n_bytes", "number", "result_bytes", "stream")

    def __init__(self, number: int, stream: tuple[int, Any]) -> None:
        self.number = number
        self.stream = stream
        self.mean_s: float | None = None
        self.mean_bytes = self.result_bytes = 0.0
        self.n_bytes = packed_bytes(*stream)


class Known:
    """Which functions are known somewhere, and what is to be forgotten there: those used least of late.

    Attributes
    ----------
    is_too_much
        Whether there may be something to be forgotten.
    """

    def __init__(self) -> None:
        self.is_too_much = False
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._n_bytes = 0

    def add(self, function: Function) -> bool:
        """A function is used; whether it was not known."""
        number = function.number
        if number in self._sizes:
            self._sizes.move_to_end(number)
            return False
        self._sizes[number] = function.n_bytes
        self._n_bytes += function.n_bytes
        self.is_too_much = len(self._sizes) > MOST_KNOWN or self._n_bytes > MOST_BYTES
        return True

    def forget(self) -> list[int]:
        """Forget what is too much; give the numbers."""
        forgotten: list[int] = []
        sizes = self._sizes
        while len(sizes) > MOST_KNOWN or (
            self._n_bytes > MOST_BYTES and self._n_bytes - max(sizes.values()) > MOST_BYTES
        ):
            number, n_bytes = sizes.popitem(last=False)
            self._n_bytes -= n_bytes
            forgotten.append(number)
        return forgotten


class Functions:
    """The functions of one executor.

    One that pickles by its name alone is pickled once, and so is one that is seen not to have changed.
    Any other may have (a bound method's object, a list that it uses) and is pickled each time it is given;
    if it has not changed, it is known.
    """

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._lock = RLock()  # a signal's handler may use the executor, too
        self._numbers = count(1)
        self._by_key: dict[bytes, Function] = {}
        self._keys: dict[int, bytes] = {}
        self._known = Known()
        self._by_name: dict[Callable[..., Any], Function] = {}
        self._seen: OrderedDict[FunctionType, tuple[Seen, Function]] = OrderedDict()

    def get(self, function: Any) -> Function:
        """The function as it travels.

        Raises
        ------
        CannotTravel
            It cannot be pickled.
        """
        if isinstance(function, (FunctionType, BuiltinFunctionType)):
            known = self._by_name.get(function)
            if known is not None:
                return known
            seen = self._seen.get(function) if type(function) is FunctionType else None
            if seen is not None and seen[0].is_same():
                return seen[1]
        if not callable(function):
            function = partial(_call, function)  # that is told where it is called, as by other executors
        packed = self._packer.pack(function, f"function {_name(function)}")
        with self._lock:  # many threads may use one executor
            found = self._find(packed)
            if isinstance(function, FunctionType) and _is_by_name(function, packed[1]):
                self._by_name[function] = found
            elif type(function) is FunctionType:
                self._see(function, found)
        return found

    def _see(self, function: FunctionType, found: Function) -> None:
        """Remember what a function refers to, if it is enough to look whether it still does."""
        seen = Seen(function)
        if not seen.is_constant:
            self._seen.pop(function, None)
            return
        self._seen[function] = seen, found
        if len(self._seen) > MOST_KNOWN:
            self._seen.popitem(last=False)

    def _find(self, packed: Packed) -> Function:
        """The function of this pickle: the one that is known, if nothing in it has changed."""
        key = _key(packed)
        found = self._by_key.get(key)
        if found is None or not _is_same(found.stream, packed):
            found = self._by_key[key] = Function(next(self._numbers), packed)
            self._keys[found.number] = key
        if self._known.add(found):
            self._forget()
        return found

    def _forget(self) -> None:
        for number in self._known.forget():
            key = self._keys.pop(number)
            forgotten = self._by_key.get(key)
            if forgotten is not None and forgotten.number == number:  # and none that has taken its place
                del self._by_key[key]
                self._by_name = {f: one for f, one in self._by_name.items() if one is not forgotten}


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _key(packed: Packed) -> bytes:
    """What equal pickles have in common, and few others: of large arrays it has the starts."""
    flag, value = packed
    if flag != LARGE:
        return bytes(value)
    pieces, large = value
    return b"".join([*pieces, *[memoryview(buffer)[:_START_BYTES] for buffer in large]])


def _is_same(one: Packed, other: Packed) -> bool:
    """Whether two pickles are the same: arrays are compared, which takes far less than to send them."""
    if one[0] != LARGE or other[0] != LARGE:
        return one == other
    return one[1][0] == other[1][0] and all(map(_are_equal, one[1][1], other[1][1]))


def _are_equal(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether the bytes are; block after block, for the sake of the cache and of an early difference."""
    return len(one) == len(other) and all(
        np.array_equal(one[at : at + _BLOCK_BYTES], other[at : at + _BLOCK_BYTES])
        for at in range(0, len(one), _BLOCK_BYTES)
    )


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _is_by_name(function: FunctionType, stream: Any) -> bool:
    """Whether a pickle says of a function where it is to be found, and no more."""
    try:
        return function.__module__ != "__main__" and pickle.dumps(function, protocol=5) == stream
    except (pickle.PicklingError, AttributeError):
        return False
