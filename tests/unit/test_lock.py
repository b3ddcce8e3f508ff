"""One process works in a run directory: while it lives, wherever it is, and not a moment longer."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import time
from contextlib import contextmanager

import pytest

from mpims.errors import RunFailed, UsageError
from mpims.processes import process_of, this_process
from mpims.storage import lock as lock_file
from mpims.storage.lock import HEARTBEAT_S, STALE_S, RunLock, read_owner


@contextmanager
def forked(function):
    """Run a function in a child process, which then waits for its end; give its pid and what it says."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(writing, json.dumps(function()).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        yield pid, json.loads(os.read(reading, 10_000))
    finally:
        kill(pid)
        os.close(reading)


def kill(pid):
    """End a child, and wait for it, once or twice."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


kept = []


def try_to_acquire(folder):
    """What a child says: None if it got the lock, else the error's text."""
    try:
        kept.append(RunLock.acquire(folder))
    except UsageError as error:
        return error.message
    return None


def refused_elsewhere(folder):
    """Whether another process is refused."""
    with forked(lambda: try_to_acquire(folder)) as (_, message):
        return message is not None


def write_lock(folder, owner, age_s=0.0):
    """The lock as another process left it, so long ago."""
    path = folder / "lock"
    path.write_text(json.dumps({"owner": owner.as_dict(), "since": "then"}) if owner else "")
    os.utime(path, (time.time() - age_s,) * 2)


def elsewhere(process):
    return process._replace(host="node7", boot="another", namespace="pid:[1]")


def test_a_lock_says_who_holds_it(tmp_path):
    n_open = len(os.listdir("/proc/self/fd"))
    (tmp_path / "lock").write_bytes(b"x" * 5000)
    lock = RunLock.acquire(tmp_path)
    said = json.loads((tmp_path / "lock").read_text())
    assert said["owner"] == this_process().as_dict()
    assert said["since"].startswith(time.strftime("%Y-"))
    assert read_owner(tmp_path) == this_process()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    assert read_owner(tmp_path) is None
    assert len(os.listdir("/proc/self/fd")) == n_open


def test_the_second_one_is_told_who_the_first_is(tmp_path):
    lock = RunLock.acquire(tmp_path)
    with pytest.raises(UsageError) as refusal:
        RunLock.acquire(tmp_path / "." / ".." / tmp_path.name)
    with forked(lambda: try_to_acquire(tmp_path)) as (_, message):
        assert message == refusal.value.message
    assert str(tmp_path) in message
    assert f"process {os.getpid()} on {os.uname().nodename}:" in message
    assert "\n" not in message
    lock.release()


def test_asking_for_the_owner_does_not_drop_the_lock(tmp_path):
    """Closing any descriptor of the file would."""
    lock = RunLock.acquire(tmp_path)
    assert read_owner(tmp_path) == this_process()
    with pytest.raises(UsageError):
        RunLock.acquire(tmp_path)
    lock.check()
    assert refused_elsewhere(tmp_path)
    lock.release()
    assert not refused_elsewhere(tmp_path)


def test_release_gives_it_back_once(tmp_path):
    lock = RunLock.acquire(tmp_path)
    lock.release()
    second = RunLock.acquire(tmp_path)
    lock.release()
    lock.check()
    assert refused_elsewhere(tmp_path)
    second.release()


def test_a_forked_child_has_no_part_in_it(tmp_path):
    lock = RunLock.acquire(tmp_path)

    def child():
        owner = read_owner(tmp_path)
        lock.release()
        message = try_to_acquire(tmp_path)
        (tmp_path / "lock").rename(tmp_path / "away")
        return [owner.pid, message, read_owner(tmp_path)]

    with forked(child) as (_, (pid, message, owner)):
        assert pid == os.getpid()
        assert message is not None
        assert owner is None
    (tmp_path / "away").rename(tmp_path / "lock")
    assert refused_elsewhere(tmp_path)
    lock.release()


def test_a_killed_owner_has_no_lock(tmp_path):
    with forked(lambda: try_to_acquire(tmp_path)) as (pid, message):
        assert message is None
        assert read_owner(tmp_path) == process_of(pid)
        with pytest.raises(UsageError, match=f"process {pid} on"):
            RunLock.acquire(tmp_path)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(UsageError, match=f"process {pid} on"):
            RunLock.acquire(tmp_path)
        kill(pid)
        assert (tmp_path / "lock").exists()
        lock = RunLock.acquire(tmp_path)
        assert read_owner(tmp_path) == this_process()
    lock.release()


def test_of_many_one_gets_it(tmp_path):
    """All begin at once, on the lock of a dead process."""
    write_lock(tmp_path, this_process()._replace(started=1))
    reading, writing = os.pipe()
    answers, answering = os.pipe()
    pids = []
    for _ in range(8):
        if (pid := os.fork()) == 0:
            try:
                os.read(reading, 1)
                os.write(answering, b"-" if try_to_acquire(tmp_path) else b"+")
                signal.pause()
            finally:
                os._exit(1)
        pids.append(pid)
    os.write(writing, b"x" * 8)
    said = b""
    while len(said) < 8:
        said += os.read(answers, 8)
    assert sorted(said) == sorted(b"+-------")
    for pid in pids:
        kill(pid)
    for descriptor in (reading, writing, answers, answering):
        os.close(descriptor)


# ------------------------------------------------------------------------ heartbeat


def test_the_heartbeat_is_shown_now_and_then_whatever_the_owner_does(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_file, "HEARTBEAT_S", 0.02)
    lock, path = RunLock.acquire(tmp_path), tmp_path / "lock"
    for _ in range(2):
        os.utime(path, (0.0, 0.0))
        time.sleep(0.3)
        assert path.stat().st_mtime > 0.0
    lock.release()
    write_lock(tmp_path, elsewhere(this_process()), age_s=1000.0)
    before = path.stat().st_mtime
    time.sleep(0.1)
    assert path.stat().st_mtime == before


def test_whether_the_lock_is_held_is_looked_at_now_and_then(tmp_path, monkeypatch):
    lock = RunLock.acquire(tmp_path)
    looks = []
    monkeypatch.setattr(lock, "check", lambda: looks.append(0))
    for now, n_looks in [(5.0, 1), (5.1, 1), (4.9 + HEARTBEAT_S, 1), (5.0 + HEARTBEAT_S, 2)]:
        lock.poll(now)
        assert len(looks) == n_looks
    lock.release()


@pytest.mark.parametrize("is_replaced", [True, False])
def test_an_owner_notices_that_it_lost_the_lock(tmp_path, is_replaced):
    lock, path = RunLock.acquire(tmp_path), tmp_path / "lock"
    path.unlink()
    if is_replaced:
        write_lock(tmp_path, elsewhere(this_process()))
    with pytest.raises(RunFailed, match="was removed or taken over"):
        lock.check()
    lock.release()
    assert path.exists() == is_replaced  # it is another one's now


@contextmanager
def a_lock_that_stays(folder):
    """A file server that keeps the lock of a node that is dead."""

    def hold():
        kept.append(descriptor := os.open(folder / "lock", os.O_RDWR))
        fcntl.lockf(descriptor, fcntl.LOCK_EX)

    with forked(hold):
        yield


@pytest.mark.parametrize(
    ("host", "boot", "age_s", "is_taken"),
    [
        ("node7", "another", STALE_S + 5, True),
        ("node7", "another", STALE_S - 5, False),
        ("node7", None, STALE_S + 5, True),
        (None, "another", STALE_S + 5, True),  # this host, before it was restarted
        (None, None, STALE_S + 5, False),  # no boot is known: the same host is the same machine
        ("container", "", STALE_S + 5, False),  # another name for this machine
        (None, "", STALE_S + 5, False),
    ],
)
def test_a_lock_that_is_refused_falls_to_none_but_a_silent_owner_elsewhere(
    tmp_path, host, boot, age_s, is_taken
):
    owner = this_process()
    owner = owner._replace(host=host or owner.host, boot=owner.boot if boot == "" else boot)
    write_lock(tmp_path, owner, age_s)
    with a_lock_that_stays(tmp_path):
        if not is_taken:
            with pytest.raises(UsageError, match=f"process {owner.pid} on {owner.host}:"):
                RunLock.acquire(tmp_path)
            assert [path.name for path in tmp_path.iterdir()] == ["lock"]
            return
        lock = RunLock.acquire(tmp_path)
        assert read_owner(tmp_path) == this_process()
        assert refused_elsewhere(tmp_path)
        lock.release()


def test_a_lock_whose_owner_cannot_be_read_is_held(tmp_path):
    write_lock(tmp_path, None, 10 * STALE_S)
    with a_lock_that_stays(tmp_path), pytest.raises(UsageError, match=r"remove .*/lock if you are sure"):
        RunLock.acquire(tmp_path)


# ---------------------------------------------------------------- other file systems


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def no_locks(request, monkeypatch):
    """A file system that has no locks."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "lockf", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_living_are_told_from_the_dead(tmp_path):
    with forked(lambda: try_to_acquire(tmp_path)) as (pid, message):
        assert message is None
        os.utime(tmp_path / "lock", (0.0, 0.0))  # no heartbeat is needed where it can be seen
        with pytest.raises(UsageError, match=f"process {pid} on"):
            RunLock.acquire(tmp_path)
        kill(pid)
        lock = RunLock.acquire(tmp_path)
        assert refused_elsewhere(tmp_path)
        lock.release()
        assert not (tmp_path / "lock").exists()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("is_known", [True, False])
def test_without_locks_silence_decides_where_nothing_can_be_seen(tmp_path, is_known):
    owner = elsewhere(this_process()) if is_known else None
    write_lock(tmp_path, owner, STALE_S - 5)
    with pytest.raises(UsageError, match="is in use"):
        RunLock.acquire(tmp_path)
    write_lock(tmp_path, owner, STALE_S + 5)
    lock = RunLock.acquire(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["owner"] == this_process().as_dict()
    lock.release()


def test_a_lock_on_a_file_that_was_removed_counts_for_nothing(tmp_path, monkeypatch):
    """The last owner removes its file between our opening it and our locking it."""
    path, lockf = tmp_path / "lock", fcntl.lockf
    removals = [path.unlink, path.unlink]

    def remove_and_lock(*arguments):
        if removals:
            removals.pop()()
        lockf(*arguments)

    monkeypatch.setattr(fcntl, "lockf", remove_and_lock)
    before = len(os.listdir("/proc/self/fd"))
    lock = RunLock.acquire(tmp_path)
    assert removals == []
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert refused_elsewhere(tmp_path)
    lock.release()


def test_a_lock_that_another_one_took_over_first_is_left_to_it(tmp_path, monkeypatch):
    write_lock(tmp_path, elsewhere(this_process()), STALE_S + 5)
    pread = os.pread

    def take_over_and_read(*arguments):
        monkeypatch.setattr(os, "pread", pread)
        (tmp_path / "lock").unlink()
        write_lock(tmp_path, elsewhere(this_process())._replace(pid=77))
        return pread(*arguments)

    def refuse(*_):
        raise BlockingIOError(errno.EAGAIN, "")

    monkeypatch.setattr(os, "pread", take_over_and_read)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(UsageError, match="process 77 on node7:"):
        RunLock.acquire(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    def child():
        tmp_path.chmod(0o555)
        if os.getuid() == 0:
            os.chdir(tmp_path)  # the folders above are closed to others
            os.setuid(65534)
        return try_to_acquire(tmp_path)

    with forked(child) as (_, message):
        assert message.startswith(f"cannot lock run directory {tmp_path}: Permission denied; ")
        assert "\n" not in message
    tmp_path.chmod(0o755)


def test_what_is_no_folder_or_no_file(tmp_path):
    with pytest.raises(UsageError, match="No such file or directory"):
        RunLock.acquire(tmp_path / "nowhere")
    (tmp_path / "lock").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is in use"):
        RunLock.acquire(tmp_path)
    assert read_owner(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"owner": {}}', '{"owner": null}', '{"x": 1}', "\xff"]
)
def test_an_owner_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "lock").write_bytes(text.encode("latin-1"))
    assert read_owner(tmp_path) is None
    RunLock.acquire(tmp_path).release()
