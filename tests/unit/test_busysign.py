"""A master shows that it is at work, and no more than that."""

from __future__ import annotations

import time
from functools import partial

import pytest

from mpims.runtime import busysign
from mpims.runtime.busysign import BusySign, last_shown
from mpims.runtime.transport.waiting import Waiting


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(busysign, "INTERVAL_S", 0.01)


def work(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize("how", [work, time.sleep])
def test_who_is_in_the_users_code_shows_it_all_the_time(how, tmp_path):
    with BusySign(tmp_path):
        how(0.2)
        first = last_shown(tmp_path)
        assert first is not None
        how(0.2)
        assert last_shown(tmp_path) > first
    assert last_shown(tmp_path) is None


def test_who_waits_for_messages_shows_nothing(tmp_path):
    waiting = Waiting(give_way=partial(time.sleep, 0.3))  # as in an MPI that does not return
    with BusySign(tmp_path):
        waiting.begin()
        began = time.time()
        waiting.pause(10.0)
        shown = last_shown(tmp_path)
        assert shown is None or shown / 1e9 - began < 0.1


def test_a_folder_that_is_gone_ends_nothing(tmp_path):
    with BusySign(tmp_path / "nowhere"):
        time.sleep(0.05)
    assert last_shown(tmp_path / "nowhere") is None
