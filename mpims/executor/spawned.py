"""Tasks in a child that is a new Python: it has what its rank was sent, as a rank that has just begun."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from mpims.executor import serving
from mpims.executor.calls import Calls
from mpims.executor.cargo import Batch, Packed, unpack
from mpims.executor.initialized import call_initializer
from mpims.runtime.threads import one_thread


class TaskBlocks:
    """Calls the functions of tasks; as `mpims.runtime.forkedchild.Compute`.

    Parameters
    ----------
    where
        The rank, for tracebacks.
    initializer
        As in an executor's settings.
    supply
        As for `mpims.executor.calls.Calls.supply`.
    """

    def __init__(self, where: str, initializer: Packed | None, supply: tuple[Any, ...]) -> None:
        serving.is_worker = True
        self._entered = ExitStack()  # until this process ends
        self._entered.enter_context(one_thread())
        if initializer is not None:
            call_initializer(*unpack(*initializer))
        self._calls = Calls(where)
        self._calls.supply(supply, lambda: ())

    def __call__(self, start: int, stop: int) -> Batch:
        return self._calls.kernel(range(start, stop))
