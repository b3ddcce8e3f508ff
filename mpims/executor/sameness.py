"""Whether a function that travels by value is still what it was when it was pickled last.

Its pickle holds what it refers to: the globals that it names, its variables and its defaults. Where all of
that cannot change by itself (numbers, texts, modules, functions of which the same is true), it is enough to
see whether it is the same objects: so a function of the program need not be pickled at each call. Of one
that refers to anything else (a list, an array, an object, a class of the program) nothing is remembered.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), type(...), range})
_MOST = 64
_MISSING = object()

Cached = type(lru_cache(abs))
"""What `functools.lru_cache` and `functools.cache` make."""


class Seen:
    """What a function referred to.

    Parameters
    ----------
    function
        The function, as it is now.
    """

    def __init__(self, function: FunctionType) -> None:
        self._globals: list[tuple[dict[str, Any], str, Any]] = []
        self._functions: list[tuple[FunctionType, tuple[Any, ...]]] = []
        self.is_constant = self._look_at(function, set())

    def is_same(self) -> bool:
        """Whether it is still the same, without a change in it."""
        for names, name, value in self._globals:
            if names.get(name, _MISSING) is not value:
                return False
        for function, parts in self._functions:
            now = _parts(function)
            if function.__dict__ or len(now) != len(parts):
                return False
            for before, after in zip(parts, now, strict=True):
                if before is not after:
                    return False
        return True

    def _look_at(self, function: FunctionType, known: set[int]) -> bool:
        if id(function) in known:
            return True
        known.add(id(function))
        parts = _parts(function)
        if function.__dict__ or len(known) > _MOST:
            return False
        self._functions.append((function, parts))
        names = function.__globals__
        for name in set(_names(function.__code__)):
            value = names.get(name, _MISSING)
            self._globals.append((names, name, value))
            if value is not _MISSING and not self._is_constant(value, known):
                return False
        # The first is the code, which cannot change; another is seen by `is_same`.
        return all(self._is_constant(value, known) for value in parts[1:])

    def _is_constant(self, value: Any, known: set[int]) -> bool:
        kind = type(value)
        if kind in _PLAIN:
            return True
        if kind is tuple:
            return all(self._is_constant(part, known) for part in value)
        if kind is ModuleType:
            return bool(value.__name__ != "__main__")
        if kind is BuiltinFunctionType:
            return value.__self__ is None or type(value.__self__) is ModuleType
        if kind is FunctionType or isinstance(value, type):
            return is_importable(value) or (kind is FunctionType and self._look_at(value, known))
        return False


def is_importable(value: Any) -> bool:
    """Whether a function or class travels by its name."""
    found: Any = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    for name in getattr(value, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found is value


def _parts(function: FunctionType) -> tuple[Any, ...]:
    """What of a function may be another object the next time, its globals aside."""
    cells = function.__closure__ or ()
    keywords = function.__kwdefaults__ or {}
    return (
        function.__code__,
        *(function.__defaults__ or ()),
        *keywords.values(),
        *[_contents(cell) for cell in cells],
    )


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _names(code: CodeType) -> Iterator[str]:
    """The names that code may look up, that within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
