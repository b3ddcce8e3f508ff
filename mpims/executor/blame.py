"""Which part of a value it is that cannot travel: the name of the attribute at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from mpims.errors import describe
from mpims.executor.errors import CannotTravel

_DEEPEST = 6
_MOST_PARTS = 1000


def cannot_travel(
    value: Any, what: str, error: BaseException, dumps: Callable[[Any], bytes]
) -> CannotTravel:
    """The error that says which part of a value cannot be pickled.

    Parameters
    ----------
    value, what
        The value, and what it is to the user.
    error
        What pickling it raised.
    dumps
        What pickles.
    """
    if isinstance(error, CannotTravel):  # what is in it has said so itself
        return CannotTravel(f"{what}: {error.message}")
    path, part = what, value
    for _ in range(_DEEPEST):
        found = next(((p, v) for p, v in _parts(path, part) if not _travels(v, dumps)), None)
        if found is None:
            break
        path, part = found
    of = f"{path} (a {type(part).__qualname__})"
    return CannotTravel(f"{of} cannot be sent to another process: {describe(error)}")


def _travels(value: Any, dumps: Callable[[Any], bytes]) -> bool:
    try:
        dumps(value)
    except Exception:  # whatever an object of the user's raises when it is pickled
        return False
    return True


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, each with its name."""
    if isinstance(value, dict):
        for key in list(value)[:_MOST_PARTS]:
            yield f"{path}[{key!r}]", value[key]
    elif isinstance(value, (list, tuple, set, frozenset)):
        for i, element in enumerate(list(value)[:_MOST_PARTS]):
            yield f"{path}[{i}]", element
    yield from _attributes(path, value)


def _attributes(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        yield f"{path}.__self__", owner
    for cell, name in zip(
        getattr(value, "__closure__", None) or (),
        getattr(getattr(value, "__code__", None), "co_freevars", ()),
        strict=False,
    ):
        try:
            yield f"{path}: its variable {name!r}", cell.cell_contents
        except ValueError:  # the cell is empty
            continue
    if hasattr(value, "__code__"):
        for name in value.__code__.co_names:
            if name in value.__globals__:
                yield f"{path}: the global {name!r}", value.__globals__[name]
    elif not isinstance(value, type):
        for name, attribute in getattr(value, "__dict__", {}).items():
            yield f"{path}.{name}", attribute
        for name in ("func", "args", "keywords"):  # of functools.partial
            if hasattr(value, name) and name not in getattr(value, "__dict__", {}):
                yield f"{path}.{name}", getattr(value, name)
