"""What every transport must do, as checks on two ends of one."""

from __future__ import annotations

import time

import numpy as np

from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Kind, Message

LIMIT_S = 20.0


def next_message(transport: Transport, other: Transport | None = None) -> Message:
    """The next message; the other end is given its turns, as a process of its own has."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        message = transport.receive(0.01)
        if message is not None:
            return message
        if other is not None:
            assert other.unsent_bytes >= 0
    raise AssertionError("no message in time")


def check_pair(sender: Transport, receiver: Transport) -> None:
    """Run all checks, with both ends in one process."""
    began = time.monotonic()
    assert receiver.receive(0.0) is None
    assert receiver.receive(0.05) is None
    assert 0.04 < time.monotonic() - began < 1.0
    send_all(sender, receiver.rank)
    receive_all(receiver, sender.rank, sender)


def send_all(sender: Transport, dest: int) -> None:
    """Send what `receive_all` expects; never blocks."""
    rng = np.random.default_rng(0)
    sender.send(dest, Kind.ASSIGN, b"head only")
    sender.send(dest, Kind.RESULT, b"", [b""])
    for i, size in enumerate((1, 100, 5_000, 70_000, 3_000_000)):
        sender.send(dest, Kind.RESULT, b"%d" % i, [rng.bytes(size), bytearray(rng.bytes(10))])
        sender.send(dest, Kind.RECALL, b"after %d" % i)
    sender.send(dest, Kind.RESULT, b"many", [bytes([i]) * 1000 for i in range(100)])
    for letter in (b"x", b"y", b"z"):
        sender.send(dest, Kind.RESULT, b"large", [letter * 100_000])


def receive_all(receiver: Transport, source: int, sender: Transport | None = None) -> None:
    """Check that everything arrives whole, once and in order, in memory of its own."""
    rng = np.random.default_rng(0)
    assert next_message(receiver, sender) == Message(Kind.ASSIGN, source, b"head only", [])
    empty = next_message(receiver, sender)
    assert [bytes(b) for b in empty.buffers] == [b""]
    for i, size in enumerate((1, 100, 5_000, 70_000, 3_000_000)):
        message = next_message(receiver, sender)
        assert (message.kind, message.head) == (Kind.RESULT, b"%d" % i)
        assert [bytes(b) for b in message.buffers] == [rng.bytes(size), rng.bytes(10)]
        assert next_message(receiver, sender).head == b"after %d" % i
    many = next_message(receiver, sender)
    assert [bytes(b) for b in many.buffers] == [bytes([i]) * 1000 for i in range(100)]

    first = next_message(receiver, sender)
    second = next_message(receiver, sender)  # the first one's memory is still in use
    assert (bytes(first.buffers[0]), bytes(second.buffers[0])) == (b"x" * 100_000, b"y" * 100_000)
    place = address(first)
    del first
    third = next_message(receiver, sender)
    assert address(third) == place, "memory that nobody has any more is used again"
    assert (bytes(second.buffers[0]), bytes(third.buffers[0])) == (b"y" * 100_000, b"z" * 100_000)
    assert receiver.receive(0.0) is None


def address(message: Message) -> int:
    """Where the only buffer of a message lies."""
    (buffer,) = message.buffers
    place: int = np.frombuffer(buffer, np.uint8).ctypes.data
    return place
