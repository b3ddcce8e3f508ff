"""The end of a run, and masters and workers that are silent: over local transports, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from mpims.errors import RunFailed, Stopped
from mpims.options import RunOptions
from mpims.processes import Process, process_of, this_process
from mpims.runtime import ending, masterwatch
from mpims.runtime.ending import end_workers
from mpims.runtime.masterwatch import MAX_FENCES, MOST_SPARED, MasterWatch
from mpims.runtime.transport.local import local_transports
from mpims.runtime.wire import End, Failed, Fence, Kind, Message, Start, decode_object, encode_object


@pytest.fixture
def sleeper():
    """A process that may be killed, and who it is."""
    child = subprocess.Popen(["sleep", "60"])
    yield child, process_of(child.pid)
    child.kill()
    child.wait()


def dies(child: subprocess.Popen) -> bool:
    try:
        return child.wait(2) == -9
    except subprocess.TimeoutExpired:
        return False


def lives(child: subprocess.Popen) -> bool:
    """Whether nothing has killed it: a signal takes a moment."""
    try:
        child.wait(0.05)
    except subprocess.TimeoutExpired:
        return True
    return False


def kinds(transport):
    found = []
    while (message := transport.receive(0.0)) is not None:
        found.append(message.kind)
    return found


def lost(transport, rank):
    transport._inboxes[transport.rank].put(Message(Kind.LOST, rank, b"", []))


# ----------------------------------------------------------------------- end_workers


def test_all_workers_are_told_the_end_and_heard_out():
    master, *workers = local_transports(4)
    for worker in workers:
        worker.send(0, Kind.RESULT, b"late", [b"..."])
        worker.send(0, Kind.PING)
        worker.send(0, Kind.GOODBYE)
    assert end_workers(master, RunFailed("why", "detail")) == []
    assert master.receive(0.0) is None
    for worker in workers:
        message = worker.receive(0.0)
        assert message.kind is Kind.END
        assert decode_object(message.buffers) == End(status=1, message="why", detail="detail")


def test_what_kept_a_rank_from_beginning_is_heard_after_the_end_too():
    master, one, two = local_transports(3)
    failed = Failed(attempt=0, start=0, stop=0, reason="no such directory here", detail="", is_usage=True)
    one.send(0, Kind.FAILED, b"", encode_object(failed))
    two.send(0, Kind.FAILED, b"", encode_object(failed._replace(attempt=7, reason="too late to matter")))
    for worker in (one, two):
        worker.send(0, Kind.GOODBYE)
    refused = []
    assert end_workers(master, None, refused=refused.append) == []
    assert refused == ["no such directory here"]


def test_the_dead_are_neither_told_nor_waited_for():
    master, one, two, three = local_transports(4)
    master.lost.add(2)
    one.send(0, Kind.GOODBYE)
    lost(master, 3)
    assert end_workers(master, None) == []
    assert decode_object(one.receive(0.0).buffers) == End(status=0, lost=(2,))
    assert kinds(two) == []
    assert kinds(three) == [Kind.END]


def test_a_rank_that_does_not_answer_is_given(monkeypatch):
    monkeypatch.setattr(ending, "GOODBYE_WAIT_S", 0.1)
    master, one, _, _ = local_transports(4)
    one.send(0, Kind.GOODBYE)
    assert end_workers(master, None) == [2, 3]


def test_where_there_is_no_memory_for_what_is_under_way_nobody_is_heard(monkeypatch):
    master, one, _ = local_transports(3)

    def receive(*_):
        raise MemoryError("Unable to allocate 19.1 MiB")

    monkeypatch.setattr(master, "receive", receive)
    assert end_workers(master, RunFailed("out of memory")) == [1, 2]
    assert kinds(one) == [Kind.END]


def test_a_suspect_is_not_waited_for():
    master, one, _ = local_transports(3)
    one.send(0, Kind.GOODBYE)
    began = time.monotonic()
    assert end_workers(master, None, suspects={2}) == [2]
    assert time.monotonic() - began < 1


def test_a_silent_rank_is_killed_where_the_others_survive_it(sleeper, monkeypatch):
    child, process = sleeper
    monkeypatch.setattr(ending, "FENCE_WAIT_S", 0.1)
    master, one, _ = local_transports(3)
    master.survives_deaths = True
    one.send(0, Kind.GOODBYE)
    assert end_workers(master, None, {1: this_process(), 2: process}, {2}) == [2]
    assert dies(child)


def test_a_silent_rank_is_left_alone_where_its_death_would_end_all(sleeper):
    child, process = sleeper
    master, one, _ = local_transports(3)
    one.send(0, Kind.GOODBYE)
    assert end_workers(master, None, {2: process}, {2}) == [2]
    assert lives(child)


def test_another_process_by_that_number_is_left_alone(sleeper, monkeypatch):
    child, process = sleeper
    monkeypatch.setattr(ending, "FENCE_WAIT_S", 0.1)
    earlier = Process(**{**process.as_dict(), "started": process.started - 1})
    master, one, _ = local_transports(3)
    master.survives_deaths = True
    one.send(0, Kind.GOODBYE)
    assert end_workers(master, None, {2: earlier}, {2}) == [2]
    assert lives(child)


def test_a_silent_rank_of_another_host_is_fenced_by_its_neighbour(monkeypatch):
    monkeypatch.setattr(ending, "FENCE_WAIT_S", 0.1)
    here = this_process()
    there = [Process("node7", "another boot", "pid:[1]", pid, 5) for pid in (11, 12)]
    master, one, two, three = local_transports(4)
    master.survives_deaths = True
    for worker in (one, two):
        worker.send(0, Kind.GOODBYE)
    assert end_workers(master, None, {1: here, 2: there[0], 3: there[1]}, {3}) == [3]
    assert kinds(one) == [Kind.END]
    assert two.receive(0.0).kind is Kind.END
    fence = two.receive(0.0)
    assert decode_object(fence.buffers) == Fence(3, there[1], 9)
    assert kinds(three) == [Kind.END]


def test_a_rank_that_is_surely_gone_is_lost(sleeper, monkeypatch):
    child, process = sleeper
    monkeypatch.setattr(ending, "GOODBYE_WAIT_S", 0.2)
    child.kill()
    child.wait()
    master, one, _ = local_transports(3)
    one.send(0, Kind.GOODBYE)
    one.send(0, Kind.FENCED, b"", encode_object(Fence(2, process, 9)))
    assert end_workers(master, None) == []
    assert master.lost == {2}


# ----------------------------------------------------------------------- MasterWatch

PATIENCE_S = 0.04


class Clock:
    """A clock that stands still but when it is moved."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s


CLOCK = Clock()


@pytest.fixture(autouse=True)
def timeless(monkeypatch):
    """How quick this machine is must not matter to the watch."""
    monkeypatch.setattr(masterwatch, "time", CLOCK)


def start_of(master: Process, run_dir="nowhere") -> Start:
    return Start(
        source=None,
        parameters={},
        options=RunOptions(),
        run_id="run-1",
        epoch=0,
        run_dir=str(run_dir),
        command=(),
        master=master,
    )


def watch(n_ranks=2, rank=1, survives=True):
    """A watch at a rank, and all transports."""
    transports = local_transports(n_ranks)
    transports[rank].survives_deaths = survives
    return MasterWatch(transports[rank]), transports


def idle(watched, master, start, duration_s):
    until = CLOCK.now_s + duration_s
    while CLOCK.now_s < until:
        watched.idle(master, start, PATIENCE_S)
        CLOCK.now_s += 0.002


def test_a_silent_master_is_asked_and_then_killed(sleeper, capsys):
    child, process = sleeper
    watched, (master, _) = watch()
    start = start_of(process)
    idle(watched, 0, start, 0.75 * PATIENCE_S)
    assert set(kinds(master)) == {Kind.PING}
    assert lives(child)
    idle(watched, 0, start, PATIENCE_S)
    assert dies(child)
    said = capsys.readouterr().err
    assert said.startswith(
        f"mpims: rank 0 ({process.host}), the master, has been silent for 0.04 s: it is ki"
    )
    assert said.count("\n") == 1


def test_a_silent_master_that_is_at_work_gets_more_time(sleeper, monkeypatch):
    """It joins large values, say: the next one would be as long about it. But it is not spared for ever."""
    child, process = sleeper
    watched, _ = watch()
    monkeypatch.setattr(masterwatch, "last_shown", lambda run_dir: int(200 * CLOCK.now_s))
    idle(watched, 0, start_of(process), MOST_SPARED * PATIENCE_S)
    assert lives(child)
    idle(watched, 0, start_of(process), 2 * PATIENCE_S)
    assert dies(child)


def test_only_a_sign_of_this_silence_gives_a_master_more_time(sleeper, monkeypatch):
    child, process = sleeper
    watched, _ = watch()
    at_work_until = CLOCK.now_s + 0.6 * PATIENCE_S
    monkeypatch.setattr(masterwatch, "last_shown", lambda run_dir: int(CLOCK.now_s > at_work_until))
    idle(watched, 0, start_of(process), 1.5 * PATIENCE_S)
    assert lives(child)
    idle(watched, 0, start_of(process), 1.5 * PATIENCE_S)
    assert dies(child)


def test_a_master_is_asked_before_it_is_killed_however_late_this_rank_looks(sleeper):
    child, process = sleeper
    watched, (master, _) = watch()
    CLOCK.now_s += 100 * PATIENCE_S
    watched.idle(0, start_of(process), PATIENCE_S)
    assert lives(child)
    assert kinds(master) == [Kind.PING]


def test_a_word_of_the_master_clears_it_of_what_was_counted(sleeper, monkeypatch):
    """And of what the one before has said: a new one is not at the end of the run because that was."""
    child, process = sleeper
    watched, _ = watch()
    with monkeypatch.context() as patch:
        patch.setattr(masterwatch, "last_shown", lambda run_dir: int(200 * CLOCK.now_s))
        for _ in range(2):
            idle(watched, 0, start_of(process), MOST_SPARED * PATIENCE_S)
            watched.heard()
    watched.closing()
    assert lives(child)
    for _ in range(MAX_FENCES + 1):
        watched.heard()
        idle(watched, 0, start_of(process), 1.5 * PATIENCE_S)
        assert dies(child)


@pytest.mark.parametrize("word", ["heard", "closing", "busy"])
def test_a_master_that_is_not_silent_is_left_alone(word, sleeper):
    child, process = sleeper
    watched, (master, _) = watch()
    for _ in range(20):
        getattr(watched, word)()
        idle(watched, 0, start_of(process), PATIENCE_S / 8)
    assert lives(child)
    assert kinds(master) == []


def test_at_the_end_of_the_run_only_a_halted_master_is_killed(sleeper):
    """It may be silent as long as it runs: nobody knows how long the user's finish() takes."""
    child, process = sleeper
    watched, (master, _) = watch()
    watched.closing()
    idle(watched, 0, start_of(process), 3 * PATIENCE_S)
    assert lives(child)
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    idle(watched, 0, start_of(process), 3 * PATIENCE_S)
    assert dies(child)
    assert kinds(master) == []


def test_before_the_start_nothing_is_expected():
    watched, (master, _) = watch()
    idle(watched, 0, None, 2 * PATIENCE_S)
    assert kinds(master) == []


def test_a_worker_that_was_suspended_itself_blames_nobody(sleeper):
    child, process = sleeper
    watched, (master, _) = watch()
    watched.idle(0, start_of(process), PATIENCE_S)
    idle(watched, 0, start_of(process), 0.6 * PATIENCE_S)
    assert set(kinds(master)) == {Kind.PING}
    CLOCK.now_s += 3 * PATIENCE_S
    watched.idle(0, start_of(process), PATIENCE_S)
    assert lives(child)


def test_a_silent_next_master_is_known_from_the_manifest(sleeper, tmp_path, capsys):
    child, process = sleeper
    (tmp_path / "manifest.json").write_text(json.dumps({"ranks": {"1": process.as_dict()}}))
    watched, transports = watch(n_ranks=3, rank=2)
    transports[2].lost.add(0)
    idle(watched, None, start_of(this_process(), tmp_path), 2 * PATIENCE_S)
    assert dies(child)
    assert f"mpims: rank 1 ({process.host}), the master, has been silent" in capsys.readouterr().err
    assert set(kinds(transports[1])) == {Kind.PING}
    assert kinds(transports[0]) == []


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", '{"ranks": {"1": {"pid": 1}}}', '{"ranks": []}'])
def test_a_master_that_cannot_be_ended_ends_the_run(manifest, tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    watched, transports = watch(n_ranks=3, rank=2)
    transports[2].lost.add(0)
    began = CLOCK.now_s
    with pytest.raises(
        Stopped, match=r"rank 1, the master.*resume with: python -m mpims resume '.*a b' -n 3"
    ):
        idle(watched, None, start_of(this_process(), folder), 10 * (MAX_FENCES + 1) * PATIENCE_S)
    assert CLOCK.now_s - began > MAX_FENCES * PATIENCE_S


def test_a_next_master_that_cannot_be_ended_is_named_with_its_host(sleeper, tmp_path):
    _, process = sleeper
    (tmp_path / "manifest.json").write_text(json.dumps({"ranks": {"1": process.as_dict()}}))
    watched, transports = watch(n_ranks=3, rank=2, survives=False)
    transports[2].lost.add(0)
    with pytest.raises(Stopped, match=rf"rank 1 \({process.host}\), the master, has been silent"):
        idle(watched, None, start_of(this_process(), tmp_path), 10 * PATIENCE_S)


def test_where_no_death_is_survived_silence_ends_the_run(sleeper):
    child, process = sleeper
    watched, _ = watch(survives=False)
    with pytest.raises(
        Stopped, match=r"rank 0 \(.+\), the master, has been silent for 0\.04 s: the run is ended"
    ):
        idle(watched, 0, start_of(process), 10 * PATIENCE_S)
    assert lives(child)
