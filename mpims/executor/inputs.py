"""What a `map` is given, as the arguments of tasks: one iterable or several, call by call or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from mpims.executor.functions import ITEM

BACKGROUND = (list, tuple, range, str, bytes, set, frozenset, dict)
"""Inputs that may be advanced while nobody looks."""


class Zipped:
    """Arguments from several iterables."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self._iterables = [list(i) if type(i) in (list, set, dict) else i for i in iterables]
        self.is_background = all(type(iterable) in BACKGROUND for iterable in iterables)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self._iterables)  # noqa: B905 - as the built-in map


class Tuples:
    """Arguments from one iterable of them."""

    def __init__(self, iterable: Iterable[Iterable[Any]]) -> None:
        self._iterable = list(iterable) if type(iterable) is list else iterable
        self.is_background = type(iterable) in BACKGROUND

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return map(tuple, self._iterable)


def chunks(iterator: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """So many arguments at a time, as one task; those that came before the iterator raised are one, too."""
    error = None
    while error is None:
        chunk: list[Any] = []
        try:
            chunk.extend(islice(iterator, size))
        except Exception as failure:  # whatever the user's iterator raises
            error = failure
        if not chunk:
            break
        yield chunk
    if error is not None:
        raise error


def call_each(fn: Callable[..., Any], mode: int, chunk: list[Any]) -> list[Any]:
    """Several calls as one task."""
    return [fn(value) for value in chunk] if mode == ITEM else [fn(*value) for value in chunk]


def flat(results: Iterator[list[Any]]) -> Iterator[Any]:
    """The results of such tasks, one by one."""
    for chunk in results:
        yield from chunk
