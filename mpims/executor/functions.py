"""Functions on their way: each travels once to each rank, and is known by its number from then on."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from types import BuiltinFunctionType, FunctionType
from typing import Any

from mpims.executor.cargo import Packer
from mpims.executor.sameness import Seen

MOST_KNOWN = 256
"""So many functions are remembered; one that was forgotten travels again when it is used again."""

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
    """

    __slots__ = ("mean_bytes", "mean_s", "number", "result_bytes", "stream")

    def __init__(self, number: int, stream: tuple[int, Any]) -> None:
        self.number = number
        self.stream = stream
        self.mean_s: float | None = None
        self.mean_bytes = self.result_bytes = 0.0


class Functions:
    """The functions of one executor.

    One that pickles by its name alone is pickled once, and so is one that is seen not to have changed.
    Any other may have (a bound method's object, a list that it uses) and is pickled each time it is given;
    if it has not changed, it is known.
    """

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._numbers = count(1)
        self._by_stream: OrderedDict[bytes, Function] = OrderedDict()
        self._by_name: dict[Callable[..., Any], Function] = {}
        self._seen: OrderedDict[FunctionType, tuple[Seen, Function]] = OrderedDict()

    def get(self, function: Callable[..., Any]) -> Function:
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
        flag, value = self._packer.pack(function, f"function {_name(function)}")
        if isinstance(value, tuple):  # with large arrays in it: hardly ever the same again
            return Function(next(self._numbers), (flag, value))
        found = self._known(flag, value)
        if isinstance(function, FunctionType) and _is_by_name(function, value):
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

    def _known(self, flag: int, stream: bytes) -> Function:
        known = self._by_stream.get(stream)
        if known is None:
            known = self._by_stream[stream] = Function(next(self._numbers), (flag, stream))
            if len(self._by_stream) > MOST_KNOWN:
                _, forgotten = self._by_stream.popitem(last=False)
                self._by_name = {f: one for f, one in self._by_name.items() if one is not forgotten}
        else:
            self._by_stream.move_to_end(stream)
        return known


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _is_by_name(function: FunctionType, stream: bytes) -> bool:
    """Whether a pickle says of a function where it is to be found, and no more."""
    try:
        return function.__module__ != "__main__" and pickle.dumps(function, protocol=5) == stream
    except (pickle.PicklingError, AttributeError):
        return False
