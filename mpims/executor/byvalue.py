"""Pickles that hold by value what is of the program itself: those of cloudpickle, but for four things.

A function's globals are on a rank as `mpims.executor.initialized` says, and a class's attributes wherever
it comes as `mpims.executor.classes` says. A function with a cache (`functools.lru_cache`) goes without what
is in that, and one that looks at the type of its argument (`functools.singledispatch`) with its table.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from enum import Enum
from functools import cache, cached_property, lru_cache, partial, singledispatch, singledispatchmethod
from types import FunctionType
from typing import Any

import cloudpickle

from mpims.executor.classes import make_class, note_at_home, set_class_state, set_unknown_state
from mpims.executor.initialized import set_state
from mpims.executor.sameness import Cached, is_importable

_PARTS = 6  # of what a pickler is told of what goes by value; the last one sets its state

_NAMESPACE = 3  # of the arguments that make a class: what is in it from the first


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """As `cloudpickle.Pickler`."""

    def reducer_override(self, value: Any) -> Any:
        """How a value is pickled."""
        if type(value) is Cached and not is_importable(value):
            return _cached, (value.__wrapped__, value.cache_parameters())
        if type(value) is FunctionType and value.__code__ is _DISPATCHES and not is_importable(value):
            return _dispatching, (value.__name__,), _dispatching_state(value), None, None, _set_dispatching
        if type(value) is FunctionType and value.__code__ is _LOOKS_UP and not is_importable(value):
            return _looking_up, (), dict(_table_of(value)), None, None, _set_table
        if type(value) is singledispatchmethod:
            return _dispatching_method, (value.func, value.dispatcher)
        if type(value) is cached_property:
            return _cached_property, (value.func, value.attrname)
        reduced = super().reducer_override(value)
        if type(reduced) is not tuple or len(reduced) != _PARTS:
            return reduced
        if type(value) is FunctionType:
            return (*reduced[:-1], _by_ours(set_state, reduced[-1]))
        if isinstance(value, type):
            make, arguments, *state, setter = reduced
            set_it = set_class_state if note_at_home(value, arguments) else set_unknown_state
            slots = value.__dict__.get("__slots__")
            if slots and not issubclass(value, Enum):  # cloudpickle counts on them, and leaves them out
                arguments[_NAMESPACE]["__slots__"] = slots
            return _by_ours(make_class, make), arguments, *state, _by_ours(set_it, setter)
        return reduced


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


def _dispatching(name: str) -> Any:
    def none(it: object) -> None: ...

    none.__name__ = name
    return singledispatch(none)


_DISPATCHES = _dispatching("none").__code__
"""Of whatever `functools.singledispatch` makes: it has a table of weak references, which cannot travel."""
_LOOKS_UP = vars(_dispatching("none"))["dispatch"].__code__
"""Of what finds a function in that table; from Python 3.13 on a bound `singledispatchmethod` holds one."""
_NAMES = ("__module__", "__name__", "__qualname__", "__doc__")


def _dispatching_state(value: Any) -> tuple[dict[type, Any], dict[str, Any]]:
    own = vars(_dispatching("none"))
    others = {name: it for name, it in vars(value).items() if name not in own or name == "__wrapped__"}
    return dict(value.registry), {name: getattr(value, name) for name in _NAMES} | others


def _set_dispatching(value: Any, state: tuple[dict[type, Any], dict[str, Any]]) -> None:
    functions, attributes = state
    for kind, function in functions.items():
        value.register(kind, function)
    for name, it in attributes.items():
        setattr(value, name, it)


def _looking_up() -> Any:
    return _dispatching("none").dispatch


def _table_of(looking_up: Any) -> dict[type, Any]:
    place = looking_up.__code__.co_freevars.index("registry")
    table: dict[type, Any] = looking_up.__closure__[place].cell_contents
    return table


def _set_table(value: Any, functions: dict[type, Any]) -> None:
    _table_of(value).update(functions)


def _dispatching_method(function: Callable[..., Any], dispatcher: Any) -> Any:
    """Without what it keeps of its objects from Python 3.13 on, weak references that cannot travel."""
    made = singledispatchmethod(function)
    made.dispatcher = dispatcher
    return made


def _cached_property(function: Callable[..., Any], name: str | None) -> Any:
    """Without the lock that it has before Python 3.12, which cannot travel."""
    made = cached_property(function)
    made.attrname = name
    return made


@cache
def _by_ours(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """What cloudpickle would call, called by ours: one object, so that a pickle has it once."""
    return partial(ours, theirs)


def dumps(value: Any, protocol: int, buffer_callback: Any = None) -> bytes:
    """As `cloudpickle.dumps`."""
    with io.BytesIO() as file:
        Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()
