"""The master of an executor whose program is another process: see `mpims.executor.local`."""

from __future__ import annotations

import os
import socket

from mpims.errors import ExitStatus, MpimsError
from mpims.executor.cargo import Batch
from mpims.executor.channel import Channel
from mpims.executor.local import SOCKET
from mpims.executor.orders import Abort
from mpims.executor.taskmaster import TaskThread
from mpims.session import connect, dismiss_workers
from mpims.streams import say


class _Program:
    """The program as its master sees it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def started(self, key: int) -> bool:
        self._channel.send(("started", key))
        return True

    def delivered(self, key: int, offset: int, batch: Batch, busy_s: float) -> None:
        self._channel.send(("delivered", key, offset, batch, busy_s))

    def cancel_rest(self) -> None:
        self._channel.send(("cancel_rest",))

    def ended(self, error: MpimsError | None) -> None:
        self._channel.send(("ended", error))


def run_master() -> int:
    """Do what the program orders until that is done, or the program is gone; give the exit status."""
    path = os.environ.get(SOCKET)
    transport = None
    try:
        transport = connect(share=False, threads=True)
        if path is None or transport is None:
            say("python -m mpims.executor is for mpims.Executor alone")
            return ExitStatus.USAGE
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(path)
        _obey(Channel(end), transport)
    except MpimsError as error:
        say(error.message)
        return error.exit_status
    finally:
        dismiss_workers(transport)
    return ExitStatus.DONE


def _obey(channel: Channel, transport: object) -> None:
    first = channel.receive()
    master = TaskThread(
        _Program(channel),
        transport,  # type: ignore[arg-type]
        max_workers=None,
        timeout_s=first["timeout_s"],
        n_retries=first["n_retries"],
        settings=first["settings"],
        ended=channel.close,
    )
    while True:
        try:
            master.give(channel.receive())
        except EOFError:
            break
    master.give(Abort())  # nobody is there for the results; of no effect if all is done
    master.join()
