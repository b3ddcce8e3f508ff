"""What an initializer sets with `global`, for the functions of the program that follow it to a rank.

A function that travels by value has globals of its own there, those that the program had when it was
pickled. So what the initializer has set in its own is kept by name, with what the program had then, and
put into those of each function that comes: where it brings that name from the program as it was, or not at
all. What the program has changed since stays as the program has it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

_MISSING = b""
_set: dict[str, tuple[bytes | None, Any]] = {}
"""By name: the pickle of what the program had, and what the initializer has made of it."""


def call_initializer(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """Call it with its arguments, and keep what it sets."""
    names = _own_globals(function)
    before = {name: (value, _pickle(value)) for name, value in names.items()}
    function(*arguments)
    for name, value in names.items():
        old, stream = before.get(name, (None, _MISSING))
        if value is not old or _pickle(value) != stream:
            _set[name] = stream, value


def forget_initialized() -> None:
    """The executor has ended."""
    _set.clear()


def set_state(setter: Callable[[FunctionType, Any], None], function: FunctionType, state: Any) -> None:
    """Give a function its globals and all else, as cloudpickle's `setter` does, and what was set here."""
    brought = state[1]["__globals__"]
    setter(function, state)
    names = function.__globals__
    if not _set or names.get("__name__") != "__main__":
        return
    for name, (stream, value) in _set.items():
        if name not in brought:
            names.setdefault(name, value)
        elif _pickle(brought[name]) == stream:
            names[name] = value


def _own_globals(function: Any) -> dict[str, Any]:
    """The globals that a function has for itself, as one of the program's."""
    while isinstance(function, partial):
        function = function.func
    names = getattr(getattr(function, "__func__", function), "__globals__", {})
    return names if names.get("__name__") == "__main__" else {}


def _pickle(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # whatever an object of the user's raises when it is pickled
        return None
