"""The doctor's measurements: file systems, other ranks, and programs that hang, all of them bounded."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from mpims.doctor import disk
from mpims.doctor.cores import this_seat
from mpims.doctor.disk import (
    Sight,
    disk_findings,
    file_system,
    held_token,
    judge_sharing,
    look_at,
    nearest_folder,
)
from mpims.doctor.finding import Verdict
from mpims.doctor.links import Link, gather_answers, judge_answers, judge_links, measure_links
from mpims.doctor.partner import Answer, answer
from mpims.doctor.started import started_findings
from mpims.runtime.transport.local import local_transports
from mpims.runtime.wire import Kind

GOOD, DOUBTFUL, BAD = Verdict.GOOD, Verdict.DOUBTFUL, Verdict.BAD

# ------------------------------------------------------------------------------ disk


def test_a_file_system_is_measured_and_left_clean(tmp_path):
    found = {finding.name: finding for finding in disk_findings(tmp_path)}
    assert list(found) == ["room", "write", "commit", "small files"]
    assert found["write"].figures["bytes_s"] > 0
    assert found["commit"].figures["commit_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_system_is_bad(tmp_path, monkeypatch):
    """Quotas do not show in `statvfs`, only when something is written."""

    def write(path, n_bytes):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(disk, "_time_write", write)
    finding = disk_findings(tmp_path)[-1]
    assert (finding.name, finding.verdict) == ("write", BAD)
    assert finding.value.endswith("cannot be written to: Disk quota exceeded")
    assert "quota" in finding.cure


@pytest.mark.parametrize(
    ("judge", "good", "doubtful"),
    [(disk.judge_commits, 0.01, 0.2), (disk.judge_files, 1e-3, 0.05)],
)
def test_a_slow_file_system_is_doubtful(judge, good, doubtful):
    assert [judge(good).verdict, judge(doubtful).verdict] == [GOOD, DOUBTFUL]


def test_a_slow_disk_is_doubtful():
    assert disk.judge_write(64 << 20, 0.1).verdict is GOOD
    assert disk.judge_write(64 << 20, 10.0).verdict is DOUBTFUL


def test_the_nearest_folder_that_is_there(tmp_path):
    (tmp_path / "file").touch()
    assert nearest_folder(tmp_path) == tmp_path
    assert nearest_folder(tmp_path / "runs" / "x") == tmp_path
    assert nearest_folder(tmp_path / "file" / "x") == tmp_path


def test_the_kind_of_file_system_is_that_of_the_deepest_mount(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n"
        "2 1 0:9 / /home rw - nfs4 server:/home rw\n"
        "3 2 0:9 / /home/my\\040data rw - lustre x rw\n"
    )
    paths = [tmp_path.__class__(path) for path in ("/usr", "/home/x", "/home/my data/y", "/homeless")]
    assert [file_system(path, mounts) for path in paths] == ["ext4", "nfs4", "lustre", "ext4"]
    assert file_system(tmp_path, tmp_path / "absent") == ""


# --------------------------------------------------------------------------- sharing

LOOK = "import sys; from mpims.doctor.disk import look_at; print(look_at(sys.argv[1], 0.0).value)"


def test_another_process_sees_the_file_and_its_lock(tmp_path):
    def look():
        command = [sys.executable, "-c", LOOK, str(tmp_path / "token")]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()

    with held_token(tmp_path) as path:
        assert path == str(tmp_path / "token")
        assert look() == "locked"
    assert look() == "unlocked"


def test_a_file_that_is_not_there_is_waited_for_and_missed(tmp_path):
    began = time.monotonic()
    assert look_at(str(tmp_path / "token"), 0.15) is Sight.ABSENT
    assert 0.15 <= time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("sights", "verdicts", "value"),
    [
        ({"n1": Sight.LOCKED}, [GOOD, GOOD], "those in the run directory count for all ranks"),
        (
            {"n1": Sight.LOCKED, "n2": Sight.ABSENT},
            [BAD],
            "no rank on n2 sees what rank 0 (n1) writes to the run directory",
        ),
        (
            {"n1": Sight.LOCKED, "n2": Sight.UNLOCKED},
            [GOOD, DOUBTFUL],
            "a lock that rank 0 (n1) holds in the run directory does not count on n2",
        ),
        (
            {"n1": Sight.LOCKLESS},
            [GOOD, DOUBTFUL],
            "the file system of the run directory has none on n1",
        ),
    ],
)
def test_what_hosts_see_of_the_run_directory(sights, verdicts, value):
    findings = judge_sharing("n1", sights)
    assert [finding.verdict for finding in findings] == verdicts
    assert findings[-1].value == value


def test_without_another_rank_nothing_is_said_of_sharing():
    assert judge_sharing("n1", {}) == []


# ----------------------------------------------------------------------- other ranks


def test_ranks_answer_are_measured_and_go_on_as_workers():
    transports = local_transports(3)
    ended = {}

    def serve(rank):
        ended[rank] = answer(transports[rank], 20.0)

    threads = [threading.Thread(target=serve, args=(rank,)) for rank in (1, 2)]
    for thread in threads:
        thread.start()
    answers = gather_answers(transports[0], "")
    links = measure_links(transports[0], answers)
    transports[0].send(1, Kind.CLOSING)
    transports[0].send(2, Kind.DISMISS)
    for thread in threads:
        thread.join(20)
    assert answers == {1: Answer(this_seat(), None), 2: Answer(this_seat(), None)}
    (link,) = links.values()
    assert link.is_local
    assert 0 < link.trip_s < 1
    assert link.bytes_s > 0
    assert ended == {1: None, 2: 0}
    assert judge_answers(3, answers, set()) == []


def test_a_rank_that_does_not_answer_is_named():
    transport = local_transports(3)[0]
    answers = gather_answers(transport, "", limit_s=0.05)
    transport.lose(2)
    (finding,) = judge_answers(3, answers, transport.lost)
    assert (finding.verdict, finding.figures["silent"]) == (BAD, [1, 2])
    assert finding.value == "of 3 ranks, 2 did not answer: 1, 2 (dead)"


def test_a_dead_rank_is_not_waited_for():
    transport = local_transports(2)[0]
    transport.lose(1)
    began = time.monotonic()
    assert gather_answers(transport, "") == {}
    assert measure_links(transport, {1: Answer(this_seat(), None)}) == {os.uname().nodename: None}
    assert time.monotonic() - began < 2


def test_a_partner_does_not_wait_for_ever():
    assert answer(local_transports(2)[1], 0.05) == 1


def test_the_slowest_host_decides():
    def link(host, is_local, trip_s, bytes_s):
        return Link(host, is_local, trip_s, bytes_s)

    quick = {"n1": link("n1", True, 3e-6, 6e9), "n2": link("n2", False, 40e-6, 9e9)}
    assert [finding.verdict for finding in judge_links(quick)] == [GOOD] * 4
    slow = judge_links({**quick, "n3": link("n3", False, 2e-3, 5e6)})
    assert [finding.verdict for finding in slow] == [GOOD, GOOD, DOUBTFUL, DOUBTFUL]
    assert all("the slowest n3" in finding.value for finding in slow[2:])
    assert [finding.verdict for finding in judge_links({"n1": None})] == [BAD]


# --------------------------------------------------------------- ranks started here


def test_what_the_ranks_found_is_given():
    found = '[{"theme": "ranks", "name": "x", "value": "y", "verdict": "bad", "cure": "z", "figures": {}}]'
    code = f"print('noise'); print('''{found}'''); raise SystemExit(1)"
    findings = list(started_findings([sys.executable, "-c", code], 3, 30.0))
    assert [(finding.name, finding.verdict) for finding in findings] == [("start", GOOD), ("x", BAD)]


@pytest.mark.parametrize(
    ("command", "value"),
    [
        (
            [sys.executable, "-c", "import sys; sys.exit('a\\nno slots\\n-----')"],
            "3 ranks could not be examined (status 1): no slots",
        ),
        ([sys.executable, "-c", "print('hm')"], "3 ranks could not be examined (status 0)"),
        (
            [sys.executable, "-c", "import time; time.sleep(60)"],
            "3 ranks could not be examined (not over after 0.3 s)",
        ),
        (["/nowhere/mpirun"], "3 ranks could not be examined (/nowhere/mpirun: No such file or directory)"),
    ],
)
def test_ranks_that_do_not_come_are_bad(command, value):
    (finding,) = started_findings(command, 3, 0.3 if "sleep" in command[-1] else 30.0)
    assert (finding.verdict, finding.value) == (BAD, value)
    assert command[0] in finding.cure
