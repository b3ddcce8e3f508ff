"""The program's end of an executor whose ranks are started here, with nobody started."""

from __future__ import annotations

import socket
import subprocess
import threading

import pytest

from mpims.executor import local
from mpims.executor.channel import Channel
from mpims.executor.local import LocalLink


class Customer:
    """Cannot take results."""

    def __init__(self):
        self.has_ended = threading.Event()
        self.error = None

    def delivered(self, *about):
        raise SystemExit(3)

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
    master().send(("delivered", 0, 0, None, 0.0))
    assert customer.has_ended.wait(10)
    assert "defect" in customer.error.message
    assert "SystemExit" in customer.error.message
    assert link.join(10)
    with pytest.raises(EOFError):
        master().receive()
