"""What a rank does with the tasks that it was supplied with: call the functions, pack what they give."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from sys import getrefcount
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from mpims.errors import ExitStatus
from mpims.executor.cargo import (
    ERROR,
    LENT_BYTES,
    NOTHING,
    PICKLED,
    PLAIN,
    Batch,
    Packed,
    Packer,
    bare,
    empty_batch,
    pack_error,
    packed_bytes,
    unpack,
)
from mpims.executor.sameness import Cached
from mpims.executor.spread import keep_spread, spread_anew
from mpims.executor.supplies import NO_FUNCTION, Piece
from mpims.job import Job
from mpims.outputs import Gather
from mpims.processes import forks
from mpims.runtime.computing import ALONE
from mpims.runtime.parts import Part
from mpims.streams import complain, flush_output

if TYPE_CHECKING:
    from mpims.runtime.spawnedchild import Order

MOST_ANEW_BYTES = 1 << 16
"""What has a larger pickle, its large arrays aside, is unpickled once."""
_SMALL = frozenset({int, float, complex, bool, type(None)})
"""Results that travel as they are, and are not worth being measured."""


class Outcomes(NamedTuple):
    """Packed results of some tasks, and how large they are; `are_single`: each is waited for by itself."""

    batch: Batch
    n_bytes: int
    are_single: bool


class Calls(Job):
    """The tasks of one executor on one rank.

    Its items are their numbers in the master's ledger; what they are comes with `supply`.

    Attributes
    ----------
    packer
        Packs what they give.
    """

    output = Gather(dtype=object)
    block = 1
    start_method = "spawn"

    def __init__(self, where: str, initializer: Packed | None = None) -> None:
        super().__init__()
        self._where = where
        self._initializer = initializer
        self.packer = Packer(in_pieces=True)
        self._packed: dict[int, Packed] = {}
        self._functions: dict[int, Any] = {NO_FUNCTION: None}
        self._pieces: list[tuple[Piece, Any]] = []

    def supply(self, supply: tuple[Any, ...], held: Callable[[], Sequence[tuple[int, int]]]) -> None:
        """Take in what the master sends; `held` gives the items that are still to be computed."""
        forget, functions, pieces, *spread = supply
        for number in forget:
            self._functions.pop(number, None)
            self._packed.pop(number, None)
        self._functions.update(functions)
        self._packed.update(functions)
        for number, value in spread[0].items() if spread else ():
            keep_spread(number, value)
        if len(self._pieces) > 8:
            spans = held()
            self._pieces = [entry for entry in self._pieces if _is_needed(entry[0], spans)]
        for first, function, mode, is_single, values, flags in pieces:
            piece = Piece(first, function, mode, is_single, Batch(values, flags))
            self._pieces.append((piece, self._function(function)))

    def order(self, start: int, stop: int) -> Order:
        """What a new Python needs to compute the tasks from `start` to `stop`."""
        from mpims.executor.spawned import TaskBlocks  # rarely needed
        from mpims.runtime.spawnedchild import Order

        pieces = [piece for piece, _ in self._pieces if _is_needed(piece, [(start, stop)])]
        functions = {n: bare(self._packed[n]) for n in {piece.function for piece in pieces} - {NO_FUNCTION}}
        fields = [(*piece[:-1], *piece.batch.bare()) for piece in pieces]
        initializer = bare(self._initializer) if self._initializer is not None else None
        supply = ((), functions, fields, spread_anew())
        return Order(TaskBlocks, (self._where, initializer, supply))

    def forget(self) -> None:
        """Nothing more is to be computed: arguments need not be kept."""
        self._pieces.clear()

    def _function(self, number: int) -> Any:
        """The function, or the exception that making it raised: that of each of its tasks."""
        function = self._functions[number]
        if isinstance(function, tuple):  # packed, as it came
            try:
                function = _made(function)
            except BaseException as error:  # whatever a module of the user's raises when it is imported
                function = _Unmade(error)
            self._functions[number] = function
        return function

    def kernel(self, items: range) -> Batch:
        return self.compute(items.start, items.stop, 0.0).batch

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for just the task that came last."""
        return bool(self._pieces) and self._pieces[-1][0].is_single

    def _find(self, item: int) -> tuple[Piece, Any]:
        for entry in reversed(self._pieces):
            piece = entry[0]
            if piece.first <= item < piece.first + len(piece.batch.values):
                return piece, entry[1]
        raise LookupError(f"task {item} was assigned, but not supplied")

    def compute(self, start: int, stop: int, limit_s: float) -> Outcomes:
        """Compute the tasks from `start` on, up to `stop`, until the time is over, but at least one.

        Of those that are waited for singly one is computed. Nothing is computed after a result that is
        lent, for it could change that.
        """
        piece, function = self._find(start)
        first = piece.first
        part = piece.batch
        if start > first or stop < first + len(part.values):
            part = part[start - first : stop - first]
        outcomes = empty_batch()
        values, flags, n_bytes = outcomes.values, outcomes.flags, 0
        call = _CALLS[piece.mode]
        clock, small, n_forks = time.perf_counter, _SMALL, forks[0]
        began = clock()
        until = began + (0.0 if piece.is_single else limit_s)
        for flag, value in zip(part.flags, part.values, strict=True):
            # In short what `_call` does, for the sake of functions that take a microsecond.
            if flag == PLAIN and call is None:
                try:
                    value = function(value)
                except BaseException as error:  # whatever the user's code raises
                    flag, value = pack_error(error, self._where)
            elif flag != NOTHING:
                flag, value = self._call(call, function, flag, value)
            if forks[0] != n_forks:
                leave_child(*((unpack(flag, value), value[1]) if flag == ERROR else (None, "")))
            if flag == PLAIN and type(value) not in small:
                is_ours = getrefcount(value) == ALONE
                flag, value = self._pack(value, is_ours, clock() - began)
                n_bytes += packed_bytes(flag, value) if flag != ERROR else 0
            values.append(value)
            flags.append(flag)
            began = clock()
            if began >= until or n_bytes >= LENT_BYTES:
                break
        return Outcomes(outcomes, n_bytes, piece.is_single)

    def _call(
        self, call: Callable[[Any, Any], Any] | None, function: Any, flag: int, value: Any
    ) -> tuple[int, Any]:
        """Call a function; give its result, not packed and flagged as plain, or the packed exception."""
        try:
            if flag != PLAIN:
                value = unpack(flag, value)
            return PLAIN, function(value) if call is None else call(function, value)
        except BaseException as error:  # whatever the user's code raises
            return pack_error(error, self._where)

    def _pack(self, value: Any, is_ours: bool, took_s: float) -> tuple[int, Any]:
        try:
            return self.packer.pack(value, "the result", is_ours=is_ours, took_s=took_s)
        except BaseException as error:  # it cannot travel, or says something worse when it is pickled
            return pack_error(error, self._where)


def leave_child(error: BaseException | None, trace: str) -> NoReturn:
    """End a child that the user's code forked, and that came back from its call: not for it to answer."""
    status: int = ExitStatus.DONE
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else bool(error.code)
    elif error is not None:
        status = ExitStatus.FAILED
        complain(trace)
    flush_output()
    os._exit(status)


_CALLS: tuple[Callable[[Any, Any], Any] | None, ...] = (
    None,
    lambda function, value: function(*value),
    lambda function, value: function(*value[0], **value[1]),
)
"""How a function is called with a value, by the mode of its tasks; None: with nothing else."""


def _made(packed: Packed) -> Any:
    """A function from its pickle.

    A function or a class is there once, with its globals, as in a process of `concurrent.futures`. What
    else can be called (a method, a partial, an object) may have a state, which one call must not hand on to
    the next: it is made anew for each, unless that takes too long.
    """
    function = unpack(*packed)
    is_bare = isinstance(function, (FunctionType, type, np.ufunc, Cached)) or _is_built_in(function)
    flag, value = packed
    stream_bytes = len(value) if flag == PICKLED else sum(map(len, value[0]))
    return function if is_bare or stream_bytes > MOST_ANEW_BYTES else _Anew(packed, function)


def _is_built_in(function: Any) -> bool:
    """Whether it is a function of a module in C, and no method."""
    return type(function) is BuiltinFunctionType and isinstance(function.__self__, (ModuleType, NoneType))


class _Anew:
    """What is unpickled for each call; its large arrays are shared by all, for a copy of them takes long.

    Parameters
    ----------
    packed, first
        Its pickle, and what was made of it, for the first call.
    """

    def __init__(self, packed: Packed, first: Any) -> None:
        self._packed = packed
        self._next = first

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function, self._next = self._next, None
        if function is None:
            function = unpack(*self._packed)
        return function(*args, **kwargs)


class _Unmade:
    """In place of a function that cannot be unpickled here."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._error


def _is_needed(piece: Piece, spans: Sequence[tuple[int, int]]) -> bool:
    stop = piece.first + len(piece.batch)
    return any(start < stop and piece.first < its_stop for start, its_stop in spans)


class CallsPart(Part):
    """The packed results since the last report."""

    def __init__(self) -> None:
        self._batch = empty_batch()
        self._n_closed = 0
        self.n_bytes = 0

    def add(self, start: int, stop: int, results: Batch, is_ours: bool = False) -> None:
        if self._batch.values:
            self._batch.extend(results)
        else:
            self._batch = results

    def add_items(self, start: int, stop: int, results: dict[int, Any]) -> None:
        raise NotImplementedError  # tasks are single items

    def close(self) -> None:
        self._n_closed = len(self._batch.values)

    def take(self) -> Batch:
        whole, n = self._batch, self._n_closed
        self._n_closed = self.n_bytes = 0
        if n == len(whole.values):
            self._batch = empty_batch()
            return whole
        self._batch = whole[n:]
        return whole[:n]
