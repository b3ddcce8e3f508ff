"""Pickles that hold by value what is of the program itself: those of cloudpickle, but for one thing.

A function's globals are on a rank as `mpims.executor.initialized` says.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache, partial
from types import FunctionType
from typing import Any

import cloudpickle

from mpims.executor.initialized import set_state

_PARTS = 6  # of what a pickler is told of a function that goes by value; the last one sets its state


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """As `cloudpickle.Pickler`."""

    def reducer_override(self, value: Any) -> Any:
        """How a value is pickled."""
        reduced = super().reducer_override(value)
        if type(value) is FunctionType and type(reduced) is tuple and len(reduced) == _PARTS:
            return (*reduced[:-1], _setter(reduced[-1]))
        return reduced


@cache
def _setter(setter: Callable[[FunctionType, Any], None]) -> Callable[[FunctionType, Any], None]:
    """The same object for all functions, so that a pickle has it once."""
    return partial(set_state, setter)


def dumps(value: Any, protocol: int, buffer_callback: Any = None) -> bytes:
    """As `cloudpickle.dumps`."""
    with io.BytesIO() as file:
        Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()
