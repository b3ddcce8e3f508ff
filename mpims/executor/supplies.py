"""What ranks get with the numbers of their tasks: functions, once each, and arguments.

A supply is ``(forget, functions, pieces)``: the numbers of functions that are to be forgotten; packed
functions by their numbers; and the fields of `Piece` after piece. It goes with an ASSIGN.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mpims.core.chunks import Assignment, make
from mpims.executor.book import Book, Run
from mpims.executor.cargo import NOTHING, Batch, encode
from mpims.executor.functions import Known
from mpims.runtime.wire import Buffer

NO_FUNCTION = 0


class Piece(NamedTuple):
    """Tasks that follow each other in the ledger, from `first` on: calls of one function."""

    first: int
    function: int
    mode: int
    is_single: bool
    batch: Batch


class Supplies:
    """Makes supplies.

    Parameters
    ----------
    book
        The tasks.
    started
        Called before tasks are handed out for the first time; False if they are not wanted any more.
    """

    def __init__(self, book: Book, started: Callable[[int], bool]) -> None:
        self._book = book
        self._started = started
        self._known: defaultdict[int, Known] = defaultdict(Known)  # the functions that a rank knows

    def make(self, rank: int, chunks: Sequence[Assignment]) -> Sequence[Buffer]:
        """What a rank needs for these chunks."""
        pieces: list[Piece] = []
        functions: dict[int, Any] = {}
        known = self._known[rank]
        forget = known.forget() if known.is_too_much else ()
        for chunk in chunks:
            at = chunk.start
            for run, start, stop in self._book.within(at, chunk.stop):
                if at < start:
                    _add_done(pieces, at, start)
                at = stop
                if not run.is_started:
                    self._start(run)
                function = run.tasks.function
                if known.add(function):
                    functions[function.number] = function.stream
                if len(chunks) == 1 and (run.first, run.stop) == chunk[2:4]:  # in short what follows
                    tasks = run.tasks
                    piece = (start, function.number, tasks.mode, tasks.is_single, *tasks.batch.bare())
                    return encode((forget, functions, [piece]))
                _add(pieces, run, start, stop)
            if at < chunk.stop:
                _add_done(pieces, at, chunk.stop)
        return encode((forget, functions, [(*piece[:-1], *piece.batch.bare()) for piece in pieces]))

    def _start(self, run: Run) -> None:
        run.is_started = True
        if not self._started(run.tasks.key):
            run.drop()


def _add_done(pieces: list[Piece], start: int, stop: int) -> None:
    """Add tasks that are done: their rank was faster than expected, and they were taken from it in vain."""
    n = stop - start
    pieces.append(Piece(start, NO_FUNCTION, 0, False, Batch([None] * n, bytearray([NOTHING]) * n)))


def _add(pieces: list[Piece], run: Run, start: int, stop: int) -> None:
    """Add a part of a run, to the last piece if it is of the same kind and follows it."""
    tasks = run.tasks
    batch = tasks.batch[start - run.first : stop - run.first]
    if pieces:
        last = pieces[-1]
        same = (last.function, last.mode, last.is_single) == (
            tasks.function.number,
            tasks.mode,
            tasks.is_single,
        )
        if same and last.first + len(last.batch) == start:
            last.batch.extend(batch)
            return
    pieces.append(make(Piece, (start, tasks.function.number, tasks.mode, tasks.is_single, batch)))
