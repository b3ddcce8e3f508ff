"""What a journal says after it was cut, flipped, killed and moved: never more than what is there."""

from __future__ import annotations

import errno
import json
import os
import resource
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.errors import UsageError
from mpims.processes import boot_id, this_process
from mpims.storage.journal import Journal
from mpims.storage.records import FORMAT, MAGIC, RecordKind
from mpims.storage.replay import read_journal

OPENED, DONE, SKIPPED, STATS, SYNCED, CLOSED, ASSIGNED, HEAD = RecordKind
OPAQUE = (DONE, SKIPPED, STATS, CLOSED, ASSIGNED)
HERE = boot_id()
A, B, C = ("a" * 36, "b" * 36, "c" * 36)  # boots; as long as real ones, so that they can be exchanged


def nothing():
    """What brings no results to disk."""


def create(path, durability_s=None, sync_results=nothing):
    return Journal.create(path, "run-1", durability_s=durability_s, sync_results=sync_results)


def resume(path, boot=HERE, durability_s=None, sync_results=nothing):
    replay = read_journal(path, boot)
    return Journal.resume(path, replay, durability_s=durability_s, sync_results=sync_results)


def said(replay, *kinds):
    """Kinds and payloads of what a journal says, without who opened it and what is on disk."""
    kinds = kinds or OPAQUE
    return [(record.kind, bytes(record.payload)) for record in replay.records if record.kind in kinds]


def wait_for_sync():
    """Wait until the disk has done its work; the journal is to be polled then."""
    for thread in threading.enumerate():
        if thread.name == "mpims-journal-sync":
            thread.join()


# ----------------------------------------------- the format, and what a file says, done a second time


def encode(kind, epoch, payload):
    """A record's bytes."""
    checked = struct.pack("<BBHQ", kind, 0, epoch % 65536, len(payload))
    return b"\xa5MJR" + checked + struct.pack("<I", crc32(checked + payload)) + payload


def opened(epoch, boot, **changes):
    process = {"host": "node7", "boot": boot, "namespace": "pid:[1]", "pid": 7, "started": 7}
    return {"version": 1, "run_id": "run-1", "epoch": epoch, "process": process, "time": "", **changes}


@dataclass
class Written:
    """A journal's bytes and, for each record, what a reader has to know of it."""

    data: bytes = MAGIC
    records: list = field(default_factory=list)  # (at, kind, epoch, payload)

    def add(self, kind, epoch, payload):
        self.records.append((len(self.data), kind, epoch, payload))
        self.data += encode(kind, epoch, payload)
        return self

    def open(self, epoch, boot, **changes):
        return self.add(OPENED, epoch, json.dumps(opened(epoch, boot, **changes)).encode())

    def synced(self, epoch, position):
        return self.add(SYNCED, epoch, struct.pack("<Q", position))


def counting(records, boot):
    """The rule of trust: which of the valid records count."""
    synced = max([struct.unpack("<Q", r[3])[0] for r in records if r[1] == SYNCED], default=0)
    kept, opener = [], None
    for record in records:
        at, kind, epoch, payload = record
        if kind == OPENED:
            opener = (epoch, json.loads(payload)["process"]["boot"])
        trusted = at < synced or kind in (OPENED, SYNCED) or (boot is not None and opener == (epoch, boot))
        if not trusted:
            break
        kept.append(record)
    return kept


def simple(replay):
    return [(record.at, record.kind, bytes(record.payload)) for record in replay.records]


def mixed(n=60):
    """Records of all kinds, of two processes on two machines and a third one on the second."""
    random = Random(5)
    written = Written().open(0, A)
    positions = [len(written.data)]
    for i in range(1, n):
        epoch = i * 3 // n
        if epoch != written.records[-1][2]:
            written.open(epoch, (A, B, B)[epoch])
        elif i % 13 == 0:
            written.synced(epoch, random.choice(positions[-4:]))
        else:
            kind = random.choice([DONE, DONE, *OPAQUE])
            written.add(kind, epoch, random.randbytes(random.choice([0, 1, 9, 24])))
        positions.append(len(written.data))
    return written


def test_the_bytes_are_as_documented(tmp_path):
    path = tmp_path / "journal"
    journal = create(path, durability_s=100.0)
    assert (journal.run_id, journal.epoch) == ("run-1", 0)
    first = bytes(read_journal(path, HERE).records[0].payload)
    said_first = json.loads(first)
    assert said_first.pop("time")[:2] == "20"
    expected = {"version": FORMAT, "run_id": "run-1", "epoch": 0, "process": this_process().as_dict()}
    assert said_first == expected
    journal.append(DONE, b"ab", bytearray(b"c"), memoryview(b"xdx")[1:2])
    position = journal.size
    journal.close()
    resume(path).append(STATS)
    replay = read_journal(path, HERE)
    second = bytes(replay.records[-2].payload)
    assert json.loads(second)["epoch"] == replay.epoch == 1
    data = MAGIC + encode(1, 0, first) + encode(2, 0, b"abcd") + encode(5, 0, struct.pack("<Q", position))
    assert path.read_bytes() == data + encode(1, 1, second) + encode(4, 1, b"")


def test_a_journal_says_what_was_appended(tmp_path):
    path = tmp_path / "journal"
    journal = create(path)
    parts = [bytes([i % 256]) * (i % 3) for i in range(5000)]  # more than one call takes
    appended = [
        (ASSIGNED, b"form"),
        (DONE, b""),
        (SKIPPED, bytes(100_000)),
        (DONE, b"".join(parts)),
        (CLOSED, b"x"),
    ]
    for kind, payload in appended:
        journal.append(kind, *(parts if payload == b"".join(parts) else [payload]))
        assert journal.size == path.stat().st_size
    journal.close()
    replay = read_journal(path, HERE)
    assert said(replay) == appended
    assert (replay.run_id, replay.epoch, replay.end) == ("run-1", 0, journal.size)
    assert (replay.n_cut_bytes, replay.n_untrusted, replay.damages) == (0, 0, [])
    assert replay.records[2].kind is DONE
    assert replay.records[-1].kind is CLOSED
    assert [bytes(record.payload) for record in replay.records[-1:]] == [b"x"]


def test_a_new_journal_replaces_none(tmp_path):
    path = tmp_path / "journal"
    create(path).append(DONE, b"1")
    with pytest.raises(FileExistsError):
        create(path)
    assert said(read_journal(path, HERE)) == [(DONE, b"1")]


# ------------------------------------------------------------------- torn and damaged


def test_cut_at_every_byte(tmp_path):
    written, path = mixed(), tmp_path / "journal"
    path.write_bytes(written.data)
    first_end = written.records[1][0]
    ends = [at for at, *_ in written.records[1:]] + [len(written.data)]
    n_records = len(written.records)
    for n_bytes in range(len(written.data), -1, -1):
        os.truncate(path, n_bytes)
        if n_bytes < first_end:
            with pytest.raises(UsageError, match="cannot read journal"):
                read_journal(path, B)
            continue
        while ends[n_records - 1] > n_bytes:
            n_records -= 1
        for boot in (A, B, None):
            replay = read_journal(path, boot)
            expected = counting(written.records[:n_records], boot)
            assert simple(replay) == [(at, kind, payload) for at, kind, _, payload in expected]
            assert replay.end == ends[len(expected) - 1]
            assert replay.n_cut_bytes == n_bytes - replay.end
            dropped = written.records[len(expected) : n_records]
            assert replay.n_untrusted == sum(kind in (DONE, SKIPPED) for _, kind, *_ in dropped)
            assert replay.damages == []


def test_a_thousand_flipped_bits(tmp_path):
    written, path, random = mixed(), tmp_path / "journal", Random(7)
    starts = [at for at, *_ in written.records]
    for _ in range(1000):
        bit = random.randrange(8 * len(written.data))
        data = bytearray(written.data)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        boot = random.choice([A, B])
        index = sum(at <= bit // 8 for at in starts) - 1
        if index < 1:  # the magic, or the first record
            with pytest.raises(UsageError, match="cannot read journal"):
                read_journal(path, boot)
            continue
        replay = read_journal(path, boot)
        expected = counting(written.records[:index] + written.records[index + 1 :], boot)
        assert simple(replay) == [(at, kind, payload) for at, kind, _, payload in expected]
        if index < len(starts) - 1:
            (damage,) = replay.damages
            assert damage.startswith(f"record {index} at byte {starts[index]} is ")
        else:
            assert replay.damages == []
            assert replay.n_cut_bytes >= len(written.data) - starts[index]
        check_that_it_goes_on(path, replay, boot)


def check_that_it_goes_on(path, replay, boot):
    """Resume, append, read again: what counted counts, and what was appended, and nothing else."""
    before = simple(replay)
    journal = Journal.resume(path, replay, durability_s=None, sync_results=nothing)
    journal.append(DONE, b"new")
    journal.close()
    exchange_boot(path, boot)
    again = read_journal(path, boot)
    assert [r for r in simple(again) if r[1] in OPAQUE][:-1] == [r for r in before if r[1] in OPAQUE]
    assert again.records[-1].payload == b"new"
    assert (again.n_cut_bytes, again.epoch) == (0, replay.epoch + 1)


def exchange_boot(path, boot):
    """Make it look as if the last one who opened the journal had done so in another boot."""
    data = path.read_bytes()
    at = data.rindex(b"\xa5MJR\x01")
    epoch, n_bytes = struct.unpack_from("<HQ", data, at + 6)
    stop = at + 20 + n_bytes
    said_now = data[at + 20 : stop].replace(HERE.encode(), boot.encode())
    assert len(said_now) == n_bytes
    path.write_bytes(data[:at] + encode(OPENED, epoch, said_now) + data[stop:])


def test_tails_that_are_no_records_are_cut(tmp_path):
    path = tmp_path / "journal"
    whole = Written().open(0, A).add(DONE, 0, b"1")
    for tail in (
        b"\0" * 10_000,
        b"\xa5",
        b"\xa5MJR" * 100,
        encode(DONE, 0, b"x" * 50)[:-1],
        encode(DONE, 0, b"x" * 50)[:-1] + b"\0",
        struct.pack("<4sBxHQI", b"\xa5MJR", 3, 0, 2**64 - 1, 0),
    ):
        path.write_bytes(whole.data + tail)
        replay = read_journal(path, A)
        assert said(replay) == [(DONE, b"1")]
        assert (replay.end, replay.n_cut_bytes, replay.damages) == (len(whole.data), len(tail), [])
        resume(path, A).append(DONE, b"2")
        exchange_boot(path, A)
        assert said(read_journal(path, A)) == [(DONE, b"1"), (DONE, b"2")]


def test_damages_are_told_as_they_are(tmp_path):
    path = tmp_path / "journal"
    good = Written().open(0, A).data
    one, two = encode(DONE, 0, b"one"), encode(DONE, 0, b"two")
    checksum = struct.unpack_from("<I", one, 16)[0]
    at = f"record 1 at byte {len(good)} is "
    for damaged, phrase in [
        (
            one[:-1] + b"f",
            f"damaged (checksum 0x{crc32(one[4:16] + b'onf'):08x} instead of 0x{checksum:08x})",
        ),
        (b"\0" * 30, r"damaged (it begins with b'\x00\x00\x00\x00' instead of b'\xa5MJR')"),
        (one[:8] + b"\xff" + one[9:], "incomplete or damaged (a payload of 255 bytes, where 26 follow)"),
        (one[:9], "incomplete or damaged (a payload of "),
    ]:
        path.write_bytes(good + damaged + two)
        replay = read_journal(path, A)
        assert said(replay) == [(DONE, b"two")]
        (damage,) = replay.damages
        assert damage.startswith(at + phrase)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "it is empty"),
        (b"MPI", "it begins with b'MPI'"),
        (b"MPIMSJ\n" + mixed().data[8:], "it begins with b'MPIMSJ"),
        (MAGIC, "is missing"),
        (MAGIC + b"\xa5MJ", "is incomplete"),
        (MAGIC + bytes(100), "is damaged"),
        (Written().add(DONE, 0, b"").data, "is of kind 2"),
        (MAGIC + encode(DONE, 0, b"") + Written().open(0, A).data[8:], "is of kind 2"),
        (MAGIC + b"?" + Written().open(0, A).data[8:], "is damaged"),
        (Written().open(0, A, version=2).data, "it is of format 2, and this mpims knows format 1"),
        (Written().open(0, A).open(1, A, version=2).data, "it is of format 2"),
        (Written().open(0, A, process={}).data, "OPENED record at byte 8 is not understood"),
        (Written().open(0, A, run_id=None).data, "OPENED record at byte 8 is not understood"),
        (Written().add(OPENED, 0, b"{").data, "OPENED record at byte 8 is not understood"),
        (Written().add(OPENED, 0, b"[]").data, "OPENED record at byte 8 is not understood"),
        (Written().open(0, A).add(9, 0, b"").data, "is of unknown kind 9"),
        (Written().open(0, A).add(0, 0, b"").data, "is of unknown kind 0"),
        (Written().open(0, A).add(SYNCED, 0, b"1234567").data, "is not understood"),
    ],
)
def test_what_is_not_understood_is_an_error(tmp_path, data, found):
    path = tmp_path / "journal"
    path.write_bytes(data)
    with pytest.raises(UsageError) as refusal:
        read_journal(path, A)
    message = refusal.value.message
    assert message.startswith(f"cannot read journal {path}: ")
    assert found in message
    assert "\n" not in message
    assert path.read_bytes() == data


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="No such file or directory"):
        read_journal(tmp_path / "journal", A)
    with pytest.raises(UsageError, match="Is a directory"):
        read_journal(tmp_path, A)


# --------------------------------------------------------------------------- trust


def test_what_another_machine_did_not_sync_does_not_count(tmp_path):
    path = tmp_path / "journal"
    written = Written().open(0, A).add(DONE, 0, b"1")
    position = len(written.data)
    written.add(DONE, 0, b"2").synced(0, position).add(STATS, 0, b"f").add(SKIPPED, 0, b"3").open(1, B)
    written.add(DONE, 1, b"4")
    path.write_bytes(written.data)
    for boot in (B, C, None):
        replay = read_journal(path, boot)
        assert said(replay) == [(DONE, b"1")]
        assert (replay.end, replay.n_synced_bytes) == (position, position)
        assert replay.n_cut_bytes == len(written.data) - position
        assert replay.n_untrusted == 3
        assert replay.epoch == 1  # it is taken, though what was done in it is lost
    replay = read_journal(path, A)
    assert said(replay) == [(DONE, b"1"), (DONE, b"2"), (STATS, b"f"), (SKIPPED, b"3")]
    assert replay.n_untrusted == 1


def test_without_a_boot_nothing_counts_but_what_is_synced(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(Written().open(0, None).add(DONE, 0, b"1").data)
    assert read_journal(path, None).n_untrusted == 1
    assert read_journal(path, A).n_untrusted == 1


def test_what_was_synced_counts_after_every_change_of_machine(tmp_path):
    path = tmp_path / "journal"
    written = Written().open(0, A).add(DONE, 0, b"1")
    position = len(written.data)
    written.add(STATS, 0, b"").synced(0, position).add(DONE, 0, b"2")
    path.write_bytes(written.data)
    for boot in (B, C, A, B):
        resume(path, boot).append(DONE, b"lost with " + boot.encode())
        exchange_boot(path, boot)
        replay = read_journal(path, boot)
        assert said(replay) == [(DONE, b"1"), (DONE, b"lost with " + boot.encode())]
        assert replay.damages == []


def test_a_kill_while_the_journal_is_cut_loses_nothing(tmp_path):
    path = tmp_path / "journal"
    written = Written().open(0, A).add(DONE, 0, b"1")
    position = len(written.data)
    for tail in (b"", encode(STATS, 0, b""), encode(DONE, 0, bytes(5)), encode(DONE, 0, bytes(500))):
        data = written.data + tail + encode(SYNCED, 0, struct.pack("<Q", position)) + encode(DONE, 0, b"2")
        path.write_bytes(data)
        resume(path, B).close()
        mended = path.read_bytes()
        said_anew = encode(SYNCED, 0, struct.pack("<Q", position))
        assert mended[position:].startswith(said_anew)
        stop = position + len(said_anew)
        for n_bytes in (position, stop):  # killed before, and after it was said anew
            path.write_bytes(mended[:n_bytes] + data[n_bytes:])
            assert said(read_journal(path, C)) == [(DONE, b"1")]
        path.write_bytes(mended[:stop])  # killed before the new epoch was opened
        assert said(read_journal(path, C)) == [(DONE, b"1")]


def test_the_position_is_on_disk_before_the_rest_is_cut(tmp_path, monkeypatch):
    path, states = tmp_path / "journal", []
    written = Written().open(0, A).add(DONE, 0, b"1")
    position = len(written.data)
    written.add(DONE, 0, bytes(500)).synced(0, position)
    path.write_bytes(written.data)
    monkeypatch.setattr(os, "fsync", lambda descriptor: states.append(path.read_bytes()))
    resume(path, B, 100.0).abandon()
    said_anew = encode(SYNCED, 0, struct.pack("<Q", position))
    stop = position + len(said_anew)
    assert states == [written.data[:position] + said_anew + written.data[stop:], path.read_bytes()]


def test_a_later_sync_does_not_vouch_for_what_was_cut(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(Written().open(0, A).add(DONE, 0, b"1").data)
    journal = resume(path, B, durability_s=100.0)
    journal.append(DONE, b"2")
    journal.close()
    for boot in (A, B, None):
        assert said(read_journal(path, boot)) == [(DONE, b"2")]


def test_a_position_behind_a_cut_vouches_for_nothing_new(tmp_path):
    """The record before the position is damaged; what comes into its place is not on disk."""
    path = tmp_path / "journal"
    written = Written().open(0, A).add(DONE, 0, b"1")
    cut = len(written.data)
    data = written.data + b"?" * 200
    position = len(data)
    path.write_bytes(data + encode(DONE, 0, b"2") + encode(SYNCED, 0, struct.pack("<Q", position)))
    replay = read_journal(path, B)
    assert (replay.end, replay.n_synced_bytes, len(replay.damages)) == (cut, cut, 1)
    journal = resume(path, B)
    journal.append(DONE, b"3")
    exchange_boot(path, B)
    assert said(read_journal(path, C)) == [(DONE, b"1")]


def test_a_position_that_has_not_come_yet_is_not_believed(tmp_path):
    path = tmp_path / "journal"
    written = Written().open(0, A).add(DONE, 0, b"1").synced(0, 10**6).synced(0, 9).add(DONE, 0, b"2")
    path.write_bytes(written.data)
    assert said(read_journal(path, B)) == [(DONE, b"1")]


def test_an_epoch_whose_beginning_is_damaged_is_not_taken_for_the_one_before(tmp_path):
    path = tmp_path / "journal"
    written = Written().open(0, A).add(DONE, 0, b"1")
    path.write_bytes(written.data + b"?" * 300 + encode(DONE, 1, b"2"))
    assert said(read_journal(path, A)) == [(DONE, b"1")]
    assert read_journal(path, A).n_untrusted == 1


def test_there_may_be_more_epochs_than_a_head_can_tell(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(Written().open(0, A).data + Written().open(65536 + 3, A).add(DONE, 3, b"1").data[8:])
    replay = read_journal(path, A)
    assert (replay.epoch, said(replay)) == (65539, [(DONE, b"1")])
    path.write_bytes(Written().open(65535, A).data)
    for n in (65536, 65537):
        journal = resume(path, A)
        assert journal.epoch == n
        journal.append(DONE, b"%d" % n)
        exchange_boot(path, A)
    assert said(read_journal(path, A)) == [(DONE, b"65536"), (DONE, b"65537")]


@dataclass
class Machines:
    """Machines that share a disk; each has its own memory of what it wrote, which a crash empties."""

    path: Path
    boot: str = A
    disk: set = field(default_factory=set)
    memory: dict = field(default_factory=lambda: {A: set(), B: set()})
    n_flushed_bytes: int = 0
    n_done: int = 0
    now: float = 0.0
    promised: set = field(default_factory=set)

    def __post_init__(self):
        self.journal = create(self.path, 1.0, self.sync_results)
        exchange_boot(self.path, self.boot)

    def sync_results(self):
        self.disk |= self.memory[self.boot]

    def done(self):
        self.memory[self.boot].add(self.n_done)
        self.journal.append(DONE, b"%d" % self.n_done)
        self.n_done += 1

    def sync(self):
        self.journal.sync()
        self.promised = set(range(self.n_done)) & self.counting()

    def poll(self):
        self.now += 0.5
        self.journal.poll(self.now)
        wait_for_sync()

    def die(self):
        self.go_on_at(self.boot)

    def move(self):
        self.go_on_at(A if self.boot == B else B)

    def crash(self):
        """The machine restarts, and its name is that of a new boot."""
        self.memory[self.boot] = set()
        fresh = {A: C, B: "d" * 36}.get(self.boot, A)
        self.memory[fresh] = set()
        self.go_on_at(fresh)

    def rewrite(self):
        records = [(kind, [payload]) for kind, payload in said(read_journal(self.path, self.boot))]
        self.journal.rewrite(records)
        exchange_boot(self.path, self.boot)

    def counting(self):
        """What the journal says is done."""
        return {int(payload) for _, payload in said(read_journal(self.path, self.boot))}

    def go_on_at(self, boot):
        self.journal.abandon()
        self.boot = boot
        self.journal = resume(self.path, boot, 1.0, self.sync_results)
        exchange_boot(self.path, boot)
        self.memory.setdefault(boot, set())

    def check(self):
        counting = self.counting()
        assert counting <= self.disk | self.memory[self.boot], (
            "a result is believed to be there, and is not"
        )
        assert counting >= self.promised, "what was synced is lost"


STEPS = ["done", "sync", "poll", "die", "move", "crash", "rewrite"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["done", "done", "poll", *STEPS]), max_size=30))
def test_what_counts_is_there_and_what_was_synced_counts(steps):
    with TemporaryDirectory() as folder:
        machines = Machines(Path(folder) / "journal")
        for step in steps:
            getattr(machines, step)()
            machines.check()
        machines.journal.abandon()


# --------------------------------------------------------------------- failing writes


@contextmanager
def files_of_at_most(n_bytes):
    """No file can grow beyond that, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_whole_records(tmp_path):
    path = tmp_path / "journal"
    journal = create(path)
    journal.append(DONE, b"1")
    size = journal.size
    with files_of_at_most(size + 30), pytest.raises(OSError, match="File too large"):
        journal.append(DONE, bytes(100))
    assert journal.size == size == path.stat().st_size
    journal.append(DONE, b"2")
    assert said(read_journal(path, HERE)) == [(DONE, b"1"), (DONE, b"2")]


def test_a_fragment_that_cannot_be_taken_back_is_skipped(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    journal = create(path)

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, files_of_at_most(journal.size + 30):
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="File too large"):
            journal.append(DONE, bytes(100))
    assert journal.size == path.stat().st_size
    journal.append(DONE, b"2")
    replay = read_journal(path, HERE)
    assert said(replay) == [(DONE, b"2")]
    assert len(replay.damages) == 1


def test_a_file_system_may_take_any_part_of_a_write(tmp_path, monkeypatch):
    path, random = tmp_path / "journal", Random(3)
    writev, write = os.writev, os.write

    def writev_a_part(descriptor, buffers):
        return write(descriptor, b"".join(buffers)[: random.randrange(1, 60)])

    journal = create(path)
    monkeypatch.setattr(os, "writev", writev_a_part)
    monkeypatch.setattr(os, "write", lambda descriptor, data: writev(descriptor, [data[:7]]))
    expected = []
    for n in range(100):
        parts = [random.randbytes(random.randrange(20)) for _ in range(n % 5)]
        journal.append(DONE, *parts)
        expected.append((DONE, b"".join(parts)))
    assert said(read_journal(path, HERE)) == expected


def test_an_interrupted_write_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    journal = create(path)
    writev = os.writev

    def interrupt(descriptor, buffers):
        writev(descriptor, buffers)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", interrupt)
        with pytest.raises(KeyboardInterrupt):
            journal.append(DONE, b"1")
    journal.append(DONE, b"2")
    replay = read_journal(path, HERE)
    assert (said(replay), replay.damages) == ([(DONE, b"2")], [])


def test_a_journal_that_cannot_be_begun_is_not_there(tmp_path):
    with files_of_at_most(20), pytest.raises(OSError, match="File too large"):
        create(tmp_path / "journal")
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------- syncs


@pytest.fixture
def fsyncs(monkeypatch):
    """The files that were brought to disk, in order."""
    names, fsync = [], os.fsync

    def fsync_and_note(descriptor):
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_and_note)
    return names


def positions(path):
    """What the SYNCED records say."""
    return [struct.unpack("<Q", payload)[0] for _, payload in said(read_journal(path, HERE), SYNCED)]


def test_one_sync_at_a_time_and_so_often(tmp_path, fsyncs):
    path, may_end, begun = tmp_path / "journal", threading.Event(), []

    def sync_results():
        begun.append(True)
        assert may_end.wait(60)

    journal = create(path, 10.0, sync_results)
    assert fsyncs == ["journal", tmp_path.name]
    journal.poll(0.0)
    assert begun == []  # there is nothing to sync
    journal.append(DONE, b"1")
    first = journal.size
    journal.poll(1.0)
    journal.append(DONE, b"2")
    second = journal.size
    for now in (5.0, 10.5, 11.0, 50.0):
        journal.poll(now)
    assert positions(path) == []
    may_end.set()
    wait_for_sync()
    assert fsyncs[2:] == ["journal"]
    journal.poll(10.9)  # ends the first one; the second one is not due
    wait_for_sync()
    assert (len(begun), positions(path)) == (1, [first])
    journal.poll(11.0)
    wait_for_sync()
    journal.poll(11.1)
    assert len(begun) == 2
    assert positions(path)[1] in range(second, journal.size)
    journal.abandon()


def test_an_idle_journal_does_not_grow(tmp_path, fsyncs):
    path = tmp_path / "journal"
    journal = create(path, 1.0)
    journal.append(DONE, b"1")
    for now in range(10):
        journal.poll(float(now))
        wait_for_sync()
    assert len(positions(path)) == 1
    # One sync for the record, and one for the SYNCED.
    assert fsyncs == ["journal", tmp_path.name, "journal", "journal"]
    size = journal.size
    journal.sync()
    journal.close()
    assert path.stat().st_size == size
    assert len(fsyncs) == 4


def test_a_sync_in_the_foreground_is_on_disk_itself(tmp_path, fsyncs):
    path, events = tmp_path / "journal", []
    journal = create(path, 100.0, lambda: events.append((len(positions(path)), len(fsyncs))))
    journal.append(DONE, b"1")
    position = journal.size
    journal.sync()
    assert events == [(0, 2)]  # the results first
    assert fsyncs[2:] == ["journal"]
    assert positions(path) == [position]
    journal.sync()
    assert len(events) == 1
    journal.append(DONE, b"2")
    journal.close()
    journal.close()
    assert len(positions(path)) == len(events) == 2
    assert read_journal(path, A).n_untrusted == 0


def test_a_sync_waits_for_the_one_under_way(tmp_path):
    path, calls = tmp_path / "journal", []
    journal = create(path, 1.0, lambda: calls.append(threading.current_thread().name))
    journal.append(DONE, b"1")
    first = journal.size
    journal.poll(0.0)
    journal.append(DONE, b"2")
    second = journal.size
    journal.sync()
    assert calls == ["mpims-journal-sync", "MainThread"]
    assert positions(path)[0] == first
    assert positions(path)[1] > second
    journal.close()


def test_each_result_is_synced_at_once_if_so_wished(tmp_path, fsyncs):
    path, calls = tmp_path / "journal", []
    journal = create(path, 0, lambda: calls.append(True))
    fsyncs.clear()
    for n, kind in enumerate([DONE, SKIPPED, DONE], 1):
        journal.append(STATS, b"")
        journal.append(kind, b"1")
        assert len(calls) == len(fsyncs) == len(positions(path)) == n
        assert read_journal(path, A).n_untrusted == 0
    journal.append(STATS, b"")
    journal.poll(1e9)
    wait_for_sync()
    assert len(calls) == 3
    journal.close()


def test_nothing_is_synced_if_so_wished(tmp_path, fsyncs):
    def fail():
        raise AssertionError

    path = tmp_path / "journal"
    written = Written().open(0, A).add(DONE, 0, b"1")
    path.write_bytes(written.synced(0, len(written.data)).add(DONE, 0, b"2").data)
    resume(path, B, None, fail).close()
    path.unlink()
    journal = create(path, None, fail)
    journal.append(DONE, b"1")
    journal.poll(1e9)
    journal.sync()
    journal.rewrite([(DONE, [b"2"])])
    journal.close()
    resume(path, HERE, None, fail).close()
    resume(path, A, None, fail).close()
    assert fsyncs == []
    assert positions(path) == []


def test_to_abandon_is_not_to_sync(tmp_path, fsyncs):
    path = tmp_path / "journal"
    journal = create(path, 100.0)
    fsyncs.clear()
    before = len(os.listdir("/proc/self/fd"))
    journal.append(DONE, b"1")
    journal.abandon()
    journal.close()
    assert fsyncs == []
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert said(read_journal(path, HERE)) == [(DONE, b"1")]


def test_a_resumed_journal_syncs_what_it_found(tmp_path, fsyncs):
    """The one before was killed: its results are in the page cache only."""
    path = tmp_path / "journal"
    create(path, 100.0).append(DONE, b"1")
    fsyncs.clear()
    journal = resume(path, HERE, 100.0)
    assert fsyncs == ["journal"]
    journal.poll(0.0)
    wait_for_sync()
    journal.poll(0.1)
    assert said(read_journal(path, A)) == [(DONE, b"1")]
    journal.abandon()


def fail_with_eio(*_):
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("where", ["results", "journal"])
def test_a_failing_sync_in_the_background_surfaces(tmp_path, monkeypatch, where):
    path = tmp_path / "journal"
    journal = create(path, 1.0, fail_with_eio if where == "results" else nothing)
    journal.append(DONE, b"1")
    with monkeypatch.context() as patch:
        if where == "journal":
            patch.setattr(os, "fsync", fail_with_eio)
        journal.poll(0.0)
        wait_for_sync()
    # The kernel tells of a lost page once, and fsync works again: but the page is lost.
    journal.append(DONE, b"2")
    for now in (0.1, 10.0):
        with pytest.raises(OSError, match="Input/output error"):
            journal.poll(now)
    with pytest.raises(OSError, match="Input/output error"):
        journal.sync()
    with pytest.raises(OSError, match="Input/output error"):
        journal.close()
    journal.close()
    assert positions(path) == []
    assert said(read_journal(path, HERE)) == [(DONE, b"1"), (DONE, b"2")]


@pytest.mark.parametrize("where", ["results", "journal"])
def test_a_failing_sync_in_the_foreground_is_raised_again(tmp_path, monkeypatch, where):
    path = tmp_path / "journal"
    results = [fail_with_eio, nothing] if where == "results" else [nothing]
    journal = create(path, 0, lambda: results.pop(0)())
    with monkeypatch.context() as patch:
        if where == "journal":
            patch.setattr(os, "fsync", fail_with_eio)
        with pytest.raises(OSError, match="Input/output error"):
            journal.append(DONE, b"1")
    n_synced = len(positions(path))
    with pytest.raises(OSError, match="Input/output error"):
        journal.append(DONE, b"2")
    assert len(positions(path)) == n_synced
    journal.abandon()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sync_that_ends_in_any_other_way_has_failed_too(tmp_path):
    path = tmp_path / "journal"

    def fail():
        raise ValueError

    journal = create(path, 1.0, fail)
    journal.append(DONE, b"1")
    journal.poll(0.0)
    wait_for_sync()
    with pytest.raises(OSError, match="did not come to its end"):
        journal.poll(0.1)
    assert positions(path) == []
    journal.abandon()


# ----------------------------------------------------------------------- compaction


def test_a_rewritten_journal_says_the_same_in_less(tmp_path, fsyncs):
    path = tmp_path / "journal"
    create(path, 100.0).append(DONE, b"0")
    (tmp_path / "journal.part").write_bytes(b"of one who was killed")
    journal, calls = resume(path, HERE, 100.0, lambda: calls.append(len(fsyncs))), []
    journal.append(DONE, b"1")
    replay = read_journal(path, HERE)
    n_open = len(os.listdir("/proc/self/fd"))
    fsyncs.clear()
    journal.rewrite(
        (DONE, [b"<", record.payload, b">"]) for record in replay.records if record.kind is DONE
    )
    assert len(os.listdir("/proc/self/fd")) == n_open
    assert calls == [0]
    assert fsyncs == ["journal.part", tmp_path.name]
    assert [p.name for p in tmp_path.iterdir()] == ["journal"]
    assert said(replay) == [(DONE, b"0"), (DONE, b"1")]  # its views are of the old file
    size = journal.size
    journal.poll(0.0)
    journal.sync()
    assert (len(calls), journal.size) == (1, size)  # all is on disk
    again = read_journal(path, A)
    assert said(again) == [(DONE, b"<0>"), (DONE, b"<1>")]
    assert [r.kind for r in again.records] == [OPENED, DONE, DONE, SYNCED]
    assert (again.epoch, journal.epoch, again.run_id) == (1, 1, "run-1")
    journal.append(DONE, b"2")
    assert journal.size == path.stat().st_size
    journal.close()
    assert said(read_journal(path, A)) == [*said(again), (DONE, b"2")]


def test_a_shorter_journal_is_brought_to_disk_like_a_long_one(tmp_path, fsyncs):
    journal = create(tmp_path / "journal", 1.0)
    journal.append(DONE, bytes(5000))
    journal.sync()
    journal.rewrite([])
    journal.append(DONE, b"1")
    fsyncs.clear()
    for now in range(5):
        journal.poll(float(now))
        wait_for_sync()
    assert fsyncs == ["journal", "journal"]  # for the record, and for the SYNCED
    journal.abandon()


def failing_records():
    yield DONE, [b"2"]
    raise RuntimeError


def test_a_rewriting_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "journal"
    journal = create(path, 100.0)
    journal.append(DONE, b"1")
    before = len(os.listdir("/proc/self/fd"))
    with files_of_at_most(2000), pytest.raises(OSError, match="File too large"):
        journal.rewrite([(DONE, [bytes(3000)])])
    with pytest.raises(RuntimeError):
        journal.rewrite(failing_records())
    assert [p.name for p in tmp_path.iterdir()] == ["journal"]
    assert len(os.listdir("/proc/self/fd")) == before
    journal.append(DONE, b"2")
    journal.close()
    assert said(read_journal(path, A)) == [(DONE, b"1"), (DONE, b"2")]


def test_no_sync_is_believed_after_one_failed_in_a_rewriting(tmp_path):
    path, results = tmp_path / "journal", [fail_with_eio, nothing]
    journal = create(path, 100.0, lambda: results.pop(0)())
    journal.append(DONE, b"1")
    with pytest.raises(OSError, match="Input/output error"):
        journal.rewrite([])
    with pytest.raises(OSError, match="Input/output error"):
        journal.close()
    assert positions(path) == []


def test_after_a_failed_sync_nothing_is_rewritten(tmp_path):
    path, results = tmp_path / "journal", [fail_with_eio, nothing]
    journal = create(path, 1.0, lambda: results.pop(0)())
    journal.append(DONE, b"1")
    journal.poll(0.0)
    wait_for_sync()
    with pytest.raises(OSError, match="Input/output error"):
        journal.rewrite([(DONE, [b"2"])])
    journal.abandon()
    assert [p.name for p in tmp_path.iterdir()] == ["journal"]
    assert (said(read_journal(path, HERE)), positions(path)) == ([(DONE, b"1")], [])


def test_a_rewriting_waits_for_the_sync_under_way(tmp_path):
    path, may_end = tmp_path / "journal", threading.Event()
    journal = create(path, 1.0, lambda: may_end.wait(60) and None)
    for n in range(100):
        journal.append(DONE, b"%d" % n)
    journal.poll(0.0)
    may_end.set()
    journal.rewrite([(DONE, [b"all"])])
    journal.append(DONE, b"new")
    wait_for_sync()
    journal.poll(0.1)  # a position of the old file must not get into the new one, which is shorter
    assert said(read_journal(path, A)) == [(DONE, b"all")]
    assert [r.kind for r in read_journal(path, HERE).records] == [OPENED, DONE, SYNCED, DONE]
    journal.abandon()
