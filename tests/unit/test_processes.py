"""Who a process is, whether it lives, and that a signal reaches no other one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpims.processes import Process, boot_id, is_alive, process_of, send_signal, this_process

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")


@pytest.fixture
def child():
    """A process that waits for its end."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def forbid(*_):
    raise AssertionError("somebody was signalled")


def test_a_process_is_the_same_seen_from_inside_and_outside(child):
    assert this_process() == process_of(os.getpid())
    assert process_of(child.pid) != this_process()
    text = "import json, mpims.processes as p; print(json.dumps(p.this_process().as_dict()))"
    with subprocess.Popen([sys.executable, "-c", text + "; input()"], stdin=-1, stdout=-1) as other:
        said = Process.from_dict(json.loads(other.stdout.readline()))
        assert said == process_of(other.pid)
        assert None not in said.as_dict().values()
        other.kill()


def test_after_a_fork_the_child_is_this_process():
    this_process()
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, json.dumps(this_process().as_dict()).encode())
        os._exit(0)
    said = Process.from_dict(json.loads(os.read(reading, 10_000)))
    assert said == process_of(pid)  # a zombie has its start time still
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)


@given(
    st.builds(
        Process,
        host=st.text(),
        boot=st.none() | st.text(),
        namespace=st.none() | st.text(),
        pid=st.integers(1, 2**22),
        started=st.none() | st.integers(0),
    )
)
def test_json_gives_the_same_process(process):
    assert Process.from_dict(json.loads(json.dumps(process.as_dict()))) == process


GOOD = {"host": "a", "boot": "b", "namespace": "c", "pid": 1, "started": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        None,
        {},
        {**GOOD, "more": 1},
        {key: value for key, value in GOOD.items() if key != "started"},
        {**GOOD, "host": None},
        {**GOOD, "host": 1},
        {**GOOD, "boot": 1},
        {**GOOD, "namespace": 1},
        {**GOOD, "pid": "1"},
        {**GOOD, "pid": True},
        {**GOOD, "pid": 0},
        {**GOOD, "pid": -1},
        {**GOOD, "pid": 2**31},
        {**GOOD, "started": 1.5},
        {**GOOD, "started": ""},
    ],
)
def test_what_is_no_process_is_refused(wrong):
    Process.from_dict(GOOD)
    with pytest.raises(ValueError, match="is no process"):
        Process.from_dict(wrong)


def test_a_killed_process_is_dead_before_and_after_it_is_waited_for(child):
    process = process_of(child.pid)
    assert is_alive(process) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(process) is False  # a zombie
    child.wait()
    assert is_alive(process) is False
    assert process_of(child.pid).started is None


def test_what_can_be_told_of_other_machines_boots_and_namespaces():
    here = this_process()
    assert is_alive(here._replace(started=here.started + 1)) is False
    assert is_alive(here._replace(boot="another")) is False
    assert is_alive(here._replace(boot="another", host="elsewhere")) is None
    assert is_alive(here._replace(host="another-container", namespace="pid:[1]")) is None
    assert is_alive(here._replace(host="renamed")) is True
    for lacking in ("boot", "namespace", "started"):
        assert is_alive(here._replace(**{lacking: None})) is None


def test_a_program_may_have_any_name():
    text = "open('/proc/self/comm', 'w').write(') Z 1 (x'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", text], stdin=-1, stdout=-1) as other:
        other.stdout.readline()
        assert is_alive(process_of(other.pid)) is True
        assert process_of(other.pid).started >= this_process().started
        other.kill()


def test_the_boot_is_told_by_the_kernel():
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert boot_id() == file.read().strip() == this_process().boot


# -------------------------------------------------------------------------- signals


def without_handles(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")


def with_handles_forbidden(monkeypatch):
    def refuse(pid):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.fixture(params=[None, without_handles, with_handles_forbidden])
def any_kernel(request, monkeypatch):
    if request.param:
        request.param(monkeypatch)


@pytest.mark.usefixtures("any_kernel")
def test_a_signal_reaches_its_process(child):
    assert send_signal(process_of(child.pid), signal.SIGTERM) is True
    assert child.wait() == -signal.SIGTERM


@pytest.mark.usefixtures("any_kernel")
def test_no_signal_reaches_a_process_that_is_another(child, monkeypatch):
    process = process_of(child.pid)
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", forbid)
        patch.setattr(signal, "pidfd_send_signal", forbid)
        for changes in (
            {"started": process.started - 1},
            {"started": None},
            {"boot": "another"},
            {"boot": None},
            {"namespace": "pid:[1]"},
            {"namespace": None},
        ):
            assert send_signal(process._replace(**changes), signal.SIGTERM) is False
    assert child.poll() is None


@pytest.mark.usefixtures("any_kernel")
def test_a_dead_process_is_not_signalled(child):
    process = process_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert send_signal(process, signal.SIGTERM) is False
    child.wait()
    assert send_signal(process, signal.SIGTERM) is False


@pytest.mark.parametrize("dies_first", [True, False])
def test_a_process_that_dies_meanwhile_is_not_signalled(child, monkeypatch, dies_first):
    """It ends just before or after a handle is made of its number, which another may then have."""
    open_handle = os.pidfd_open

    def open_and_kill(pid):
        handle = None if dies_first else open_handle(pid)
        child.kill()
        child.wait()
        return open_handle(pid) if handle is None else handle

    process = process_of(child.pid)
    monkeypatch.setattr(os, "pidfd_open", open_and_kill)
    monkeypatch.setattr(signal, "pidfd_send_signal", forbid)
    assert send_signal(process, signal.SIGTERM) is False


@pytest.mark.parametrize("has_handles", [True, False])
def test_a_process_that_dies_at_the_last_moment_is_gone(child, monkeypatch, has_handles):
    module, name = (signal, "pidfd_send_signal") if has_handles else (os, "kill")
    send = getattr(module, name)

    def die_and_send(target, number):
        monkeypatch.setattr(module, name, send)
        child.kill()
        child.wait()
        send(target, number)

    process = process_of(child.pid)
    if not has_handles:
        without_handles(monkeypatch)
    monkeypatch.setattr(module, name, die_and_send)
    assert send_signal(process, signal.SIGTERM) is False


def test_no_descriptor_is_left_open(child):
    process = process_of(child.pid)
    before = os.listdir("/proc/self/fd")
    send_signal(process, 0)
    send_signal(process._replace(started=0), 0)
    assert os.listdir("/proc/self/fd") == before


def test_a_process_that_proc_hides_is_neither_alive_nor_dead(child, monkeypatch):
    """As with the `hidepid` option of /proc: its file is missing, its number is not."""
    process, read = process_of(child.pid), Path.read_bytes

    def read_shown(path):
        if path == Path(f"/proc/{child.pid}/stat"):
            raise FileNotFoundError
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_shown)
    assert is_alive(process) is None
    child.kill()
    child.wait()
    assert is_alive(process) is False


def test_numbers_mean_nothing_under_the_proc_of_another_namespace(monkeypatch):
    here, readlink = this_process(), os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: "7" if path == "/proc/self" else readlink(path))
    assert this_process().namespace is None
    assert is_alive(here) is None
    assert send_signal(here, 0) is False
