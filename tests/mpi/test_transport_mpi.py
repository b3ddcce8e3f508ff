"""The transport over MPI keeps the contract; 3 GB in one message are in tests/faults."""

from __future__ import annotations

import time

import pytest

from mpims.errors import InternalError
from mpims.runtime.wire import Kind
from tests.transport_contract import next_message, receive_all, send_all

mpi4py = pytest.importorskip("mpi4py")


@pytest.fixture
def transport():
    from mpims.runtime.transport.mpi import world_transport

    return world_transport(share=True)


@pytest.mark.mpi(min_size=2)
def test_contract(transport):
    if transport.rank == 1:
        send_all(transport, 0)
        assert next_message(transport).kind is Kind.GOODBYE
    elif transport.rank == 0:
        receive_all(transport, 1)
        transport.send(1, Kind.GOODBYE)


@pytest.mark.mpi(min_size=2)
def test_sending_never_blocks(transport):
    """A large message to a rank that does not look for it."""
    if transport.rank == 0:
        began = time.monotonic()
        for _ in range(20):
            transport.send(1, Kind.RESULT, b"", [bytes(1_000_000)])
        assert time.monotonic() - began < 0.8
        transport.send(1, Kind.GOODBYE)
        assert next_message(transport).kind is Kind.GOODBYE
        assert transport.unsent_bytes == 0
    elif transport.rank == 1:
        time.sleep(1.0)
        for _ in range(20):
            assert len(next_message(transport).buffers[0]) == 1_000_000
        assert next_message(transport).kind is Kind.GOODBYE
        transport.send(0, Kind.GOODBYE)


@pytest.mark.mpi(min_size=2)
def test_what_came_since_the_last_look_is_seen_at_the_first(transport):
    if transport.rank == 0:
        time.sleep(0.5)
        message = transport.receive(0.0)
        assert message is not None
        assert message.head == b"here for long"
        transport.send(1, Kind.GOODBYE)
    elif transport.rank == 1:
        transport.send(0, Kind.RECALL, b"here for long")
        assert next_message(transport).kind is Kind.GOODBYE


@pytest.mark.mpi(min_size=2)
def test_what_is_no_frame_is_told_with_its_sender_and_host(transport):
    from mpi4py import MPI

    if transport.rank == 0:
        transport.hosts[1] = "node02"
        with pytest.raises(InternalError, match=r"a message of 5000 bytes .* from rank 1 \(node02\) is no"):
            next_message(transport)
        transport._comm.Recv([bytearray(5000), MPI.BYTE], 1, Kind.RESULT)
        transport.send(1, Kind.GOODBYE)
    elif transport.rank == 1:
        transport._comm.Send([bytes(5000), MPI.BYTE], 0, Kind.RESULT)
        assert next_message(transport).kind is Kind.GOODBYE


@pytest.mark.mpi(min_size=3)
def test_a_half_sent_message_holds_up_only_what_its_sender_sent_later(transport):
    """Rank 1 announces a large message, sends a small one, and the large one's bytes only then."""
    from mpi4py import MPI

    from mpims.runtime.transport import mpi

    if transport.rank == 0:
        messages = [next_message(transport) for _ in range(12)]
        assert [m.source for m in messages] == [2] * 10 + [1, 1]
        assert [m.head for m in messages[10:]] == [b"large", b"small"]
        assert bytes(messages[10].buffers[0]) == b"x" * 1000
        transport.send(1, Kind.GOODBYE)
    elif transport.rank == 1:
        frame = mpi._front(1).pack(1, 5, 1000) + b"large"
        transport._comm.Send([frame, MPI.BYTE], 0, Kind.RESULT)
        transport.send(0, Kind.RECALL, b"small")
        time.sleep(0.5)
        transport._comm.Send([b"x" * 1000, MPI.BYTE], 0, mpi._BODY_TAG)
        assert next_message(transport).kind is Kind.GOODBYE
    elif transport.rank == 2:
        time.sleep(0.1)
        for _ in range(10):
            transport.send(0, Kind.RESULT, b"", [b"x" * 10_000])
