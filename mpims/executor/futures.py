"""A single task as the program sees it."""

from __future__ import annotations

import logging
import time
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from mpims.executor.cargo import ERROR, Batch, unpack

if TYPE_CHECKING:
    from mpims.executor.clients import Clients

_LOGGER = logging.getLogger("concurrent.futures")
_FINISHED = "FINISHED"
_DONE = ("CANCELLED", "CANCELLED_AND_NOTIFIED", _FINISHED)
"""The states of `concurrent.futures` from which none leads back."""


class TaskFuture(Future):  # type: ignore[type-arg]
    """The result of one task to come.

    It counts as running from when the task is handed out on; a rank holds a few tasks beside the one it
    computes.
    """

    def __init__(self, clients: Clients, key: int) -> None:
        super().__init__()
        self._clients = clients
        self._key = key
        self._is_told = False

    def cancel(self) -> bool:
        """Cancel the task if it was not handed out; whoever waits for it is told at once."""
        if not super().cancel():
            return False
        if not self._is_told:
            self._is_told = True
            self.set_running_or_notify_cancel()
            self._clients.cancelled(self._key)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """The result, or what the task raised; see `concurrent.futures.Future.result`."""
        timeout = self._help(timeout)
        if self._state == _FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, if it did; see `concurrent.futures.Future.exception`."""
        return super().exception(self._help(timeout))

    def _help(self, timeout: float | None) -> float | None:
        """Do the master's work instead of waiting for it; give the time that is left."""
        if self._is_there():
            return timeout
        until = inf if timeout is None else time.monotonic() + timeout
        self.help(until)
        return None if timeout is None else max(0.0, until - time.monotonic())

    def help(self, until: float) -> None:
        """Do the master's work, if it has need of it, until the result is there, or that time."""
        if not self._is_there():
            self._clients.link.help(self._is_there, until)

    def _is_there(self) -> bool:
        """As `done`, without its lock: it is asked for again and again, and once true stays so."""
        return self._state in _DONE

    def started(self) -> bool:
        """The task is handed out; False if it was cancelled before."""
        if self._state in _DONE:
            return False
        try:
            return self.set_running_or_notify_cancel()
        except InvalidStateError:
            return False

    def delivered(self, batch: Batch) -> None:
        """The result is there."""
        flag, value = batch.flags[0], batch.values[0]
        try:
            value = unpack(flag, value)
        except BaseException as error:  # whatever the user's object raises when it is unpickled
            flag, value = ERROR, error
        try:
            if flag == ERROR:
                self.set_exception(value)
            else:
                self.set_result(value)
        except InvalidStateError:
            pass  # it was cancelled while it was on its way

    def _invoke_callbacks(self) -> None:
        """Call them; what they raise must not end who takes results in, even if it is no `Exception`."""
        for callback in self._done_callbacks:  # type: ignore[attr-defined]
            try:
                callback(self)
            except BaseException:  # whatever a callback of the user's raises
                _LOGGER.exception("exception calling callback for %r", self)

    def failed(self, error: BaseException) -> None:
        """There will be no result."""
        with suppress(InvalidStateError, CancelledError):
            self.set_exception(error)


def refused(clients: Clients, error: BaseException) -> TaskFuture:
    """The future of a task that cannot travel."""
    future = TaskFuture(clients, clients.key())
    future.set_running_or_notify_cancel()
    future.set_exception(error)
    return future
