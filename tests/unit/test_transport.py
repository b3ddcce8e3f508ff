"""One contract for every transport; here within the process, in tests/mpi over MPI."""

from __future__ import annotations

from mpims.runtime.transport.local import local_transports
from mpims.runtime.transport.waiting import Waiting
from tests.transport_contract import check_pair


def test_the_local_transport_keeps_the_contract():
    first, second = local_transports(2)
    check_pair(first, second)


def test_a_wait_ends_in_time():
    waiting = Waiting()
    waiting.begin()
    n_pauses = 0
    while waiting.pause(0.02):
        n_pauses += 1
    assert n_pauses > 2


def test_frequent_messages_make_it_spin_and_rare_ones_sleep():
    """With messages every few microseconds a wait of 200 µs is many looks, with rare ones few."""
    eager = Waiting()
    for _ in range(50):
        eager.arrived()
    lazy = Waiting()
    for _ in range(50):
        lazy._last -= 0.5
        lazy.arrived()

    def looks(waiting: Waiting) -> int:
        waiting.begin()
        n = 0
        while waiting.pause(200e-6):
            n += 1
        return n

    assert max(looks(eager) for _ in range(5)) > 3 * min(looks(lazy) for _ in range(5))
