"""What the doctor and the other ranks say to each other, and the other ranks' side of it.

::

    rank 0                                              rank 3
    START  the path of a file that rank 0 holds  ---->  look at it
                                                 <----  JOINED  its seat, and what it saw
    PING   a number of bytes                     ---->
                                                 <----  PONG  so many bytes
    CLOSING                                      ---->  be a worker as in any run, until it is dismissed

The kinds are those of a run, so that a transport carries them; no run is under way before CLOSING.
"""

from __future__ import annotations

import signal
import struct
from typing import NamedTuple

from mpims.doctor.cores import Seat, this_seat
from mpims.doctor.disk import Sight, look_at
from mpims.errors import ExitStatus, MpimsError
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Kind, decode_object, encode_object
from mpims.session import connect
from mpims.world import STOP_SIGNAL

_COUNT = struct.Struct("<q")
_PATIENCE_S = 300.0  # rank 0 measures with one rank after another


class Answer(NamedTuple):
    """Where a rank sits, and what it sees of a file of rank 0's; None if there was none to look at."""

    seat: Seat
    sight: Sight | None


def encode_count(n_bytes: int) -> bytes:
    """Make the head of a PING."""
    return _COUNT.pack(n_bytes)


def answer_doctor() -> int | None:
    """Answer rank 0 until it has measured.

    Returns
    -------
    int or None
        The status that this process is to exit with; None if it is to be a worker now.
    """
    for number in (signal.SIGINT, signal.SIGTERM, STOP_SIGNAL):
        signal.signal(number, signal.SIG_IGN)  # they reach every rank; rank 0 decides
    try:
        transport = connect(share=False)
    except MpimsError:
        return ExitStatus.DONE  # rank 0 has the same error, and says so
    return ExitStatus.DONE if transport is None else answer(transport)


def answer(transport: Transport, patience_s: float = _PATIENCE_S) -> int | None:
    """What `answer_doctor` does, over a transport."""
    blank = b""
    while (message := transport.receive(patience_s)) is not None:
        if message.kind is Kind.START:
            path = decode_object(message.buffers)
            found = Answer(this_seat(), look_at(path) if path else None)
            transport.send(0, Kind.JOINED, b"", encode_object(found))
        elif message.kind is Kind.PING:
            (n_bytes,) = _COUNT.unpack(message.head)
            blank = blank if len(blank) == n_bytes else bytes(n_bytes)
            transport.send(0, Kind.PONG, b"", [blank])
        elif message.kind is Kind.CLOSING:
            return None
        elif message.kind is Kind.DISMISS:
            return ExitStatus.DONE
        elif 0 in transport.lost:
            break
    transport.abandon(ExitStatus.FAILED)  # rank 0 is dead, or stopped
    return ExitStatus.FAILED
