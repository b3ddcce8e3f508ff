"""The program's end of an executor whose ranks are started here, with nobody started."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest

from mpims.executor import local
from mpims.executor.channel import Channel
from mpims.executor.local import LocalLink


class Customer:
    """Cannot take results, or does as it is told."""

    def __init__(self, delivered=sys.exit):
        self.delivered = delivered
        self.has_ended = threading.Event()
        self.error = None

    def ended(self, error):
        self.error = error
        self.has_ended.set()


@pytest.fixture
def master(monkeypatch):
    """The other end, as rank 0 has it."""
    ends = []

    def start(n_ranks, path):
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(path)
        ends.append(Channel(end))
        return subprocess.Popen(["true"])

    monkeypatch.setattr(local, "_start", start)
    yield lambda: ends[0]
    ends[0].close()


def test_whatever_goes_wrong_where_results_are_taken_in_nobody_waits_for_ever(master):
    customer = Customer()
    link = LocalLink(customer, 1, timeout_s=None, n_retries=0, settings={})
    assert master().receive()["n_retries"] == 0
    master().send(("delivered", 3))
    assert customer.has_ended.wait(10)
    assert "defect" in customer.error.message
    assert "SystemExit" in customer.error.message
    assert link.join(10)
    with pytest.raises(EOFError):
        master().receive()


def test_who_takes_results_in_is_known(master):
    found = []
    customer = Customer(lambda *about: found.append(link.has_turn()))
    link = LocalLink(customer, 1, timeout_s=None, n_retries=0, settings={})
    master().send(("delivered", 0, 0, None, 0.0))
    master().send(("ended", None))
    assert link.join(10)
    assert found == [True]
    assert not link.has_turn()
