"""The transport over MPI keeps the contract; 3 GB in one message are in tests/faults."""

from __future__ import annotations

import time

import pytest

from mpims.runtime.wire import Kind
from tests.transport_contract import next_message, receive_all, send_all

mpi4py = pytest.importorskip("mpi4py")


@pytest.fixture
def transport():
    from mpims.runtime.transport.mpi import world_transport

    return world_transport()


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


@pytest.mark.mpi(min_size=3)
def test_a_slow_message_of_one_rank_holds_up_no_other(transport):
    """Ranks 1 and 2 send; what is under way from one does not keep the other's from arriving."""
    if transport.rank == 0:
        from_two = [next_message(transport) for _ in range(12)]
        assert sum(m.source == 2 for m in from_two) == 10
        assert [m.head for m in from_two if m.source == 1] == [b"large", b"small"]
        for rank in (1, 2):
            transport.send(rank, Kind.GOODBYE)
    elif transport.rank in (1, 2):
        if transport.rank == 1:
            transport.send(0, Kind.RESULT, b"large", [bytes(50_000_000)])
            transport.send(0, Kind.RESULT, b"small", [])
        else:
            for _ in range(10):
                transport.send(0, Kind.RESULT, b"", [b"x" * 10_000])
        assert next_message(transport).kind is Kind.GOODBYE
        assert transport.unsent_bytes == 0
