"""The program's end of an executor whose ranks are started here, with nobody started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from mpims.errors import UsageError
from mpims.executor import local
from mpims.executor.channel import Channel
from mpims.executor.local import LocalLink
from mpims.supervise import find_marked


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
def master(monkeypatch, request):
    """The other end, as rank 0 has it."""
    ends = []

    def start(n_ranks, path):
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(path)
        ends.append(Channel(end))
        return subprocess.Popen(launcher, env={**os.environ, local.SOCKET: path})

    launcher = getattr(request, "param", ["true"])
    monkeypatch.setattr(local, "_start", start)
    yield lambda: ends[0]
    ends[0].close()


def test_once_the_master_is_connected_no_file_is_left(master, tmp_path, monkeypatch):
    """The program may leave by os._exit."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    link = LocalLink(Customer(), 1, timeout_s=None, n_retries=0, settings={})
    assert os.listdir(tmp_path) == []
    assert master().receive()["n_retries"] == 0
    master().close()
    assert link.join(10)


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


LEAVES_ONE = ["sh", "-c", "sh -c 'sleep 60 & exit' | cat"]
"""As a launcher whose rank has left a process, which holds what the rank wrote to."""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize("master", [LEAVES_ONE], indirect=True)
def test_what_a_task_has_left_running_is_ended_when_its_rank_has(master):
    link = LocalLink(Customer(), 1, timeout_s=None, n_retries=0, settings={})
    began = time.monotonic()
    master().send(("ended", None))
    assert link.join(30)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "dies",
    [
        "OMPI_COMM_WORLD_LOCAL_SIZE=2 sleep 60; exit 0",  # one rank of two is left, and waits
        "kill -9 $$",  # the launcher ends with it
    ],
)
def test_a_rank_that_is_killed_before_all_have_begun_is_started_again(monkeypatch, capfd, dies):
    started, ends = [], []

    def start(n_ranks, path):
        shell = dies
        if started:
            ends.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            ends[0].connect(path)
            shell = "true"
        started.append(subprocess.Popen(["sh", "-c", shell], env={**os.environ, local.SOCKET: path}))
        return started[-1]

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "LACKING_S", 0.1)
    customer = Customer()
    link = LocalLink(customer, 1, timeout_s=None, n_retries=0, settings={})
    assert len(started) == 2
    assert started[0].poll() is not None
    assert set(find_marked(link._mark)) <= {started[1].pid}
    assert "all are started again" in capfd.readouterr().err
    ends[0].close()
    assert customer.has_ended.wait(10)
    assert link.join(10)


def test_ranks_that_are_always_killed_at_their_begin_are_an_error_soon(monkeypatch):
    started = []

    def start(n_ranks, path):
        started.append(subprocess.Popen(["sh", "-c", "kill -9 $$"]))
        return started[-1]

    monkeypatch.setattr(local, "_start", start)
    with pytest.raises(UsageError, match="did not start: the launcher ended with -9"):
        LocalLink(Customer(), 1, timeout_s=None, n_retries=0, settings={})
    assert len(started) == local.MOST_STARTS


def test_a_program_that_is_killed_leaves_no_folder(master):
    """It is gone as soon as rank 0 is there."""
    customer = Customer()
    link = LocalLink(customer, 1, timeout_s=None, n_retries=0, settings={})
    path = link._mark.decode().partition("=")[2]
    assert not os.path.exists(os.path.dirname(path))
    master().close()
    assert customer.has_ended.wait(10)
    assert link.join(10)
