"""The doctor finds what was planted, on real ranks and file systems, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from mpims.doctor.started import run_bounded
from mpims.launch import Flavour, find_launcher
from tests.conftest import HARD_LIMIT_S, clean_environment

DOCTOR = [sys.executable, "-m", "mpims", "doctor"]
FIRST_ON_PATH = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath)
FLAT = {"OMP_NUM_THREADS": "1", "PATH": FIRST_ON_PATH}


def examine(done):
    """The findings by name, of a doctor that had ``--json``."""
    told = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in told["findings"]}
    assert (told["verdict"] == "bad") == (done.returncode == 1)
    assert {finding["verdict"] for finding in findings.values()} <= {"good", "doubtful", "bad"}
    return findings


def start(command, folder, **environ):
    return subprocess.run(
        command,
        cwd=folder,
        env={**clean_environment(), **FLAT, **environ},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=HARD_LIMIT_S,
        check=False,
    )


def test_ranks_of_its_own(tmp_path):
    findings = examine(start([*DOCTOR, "--json", "-n", "3"], tmp_path))
    assert findings["library"]["verdict"] == findings["launcher"]["verdict"] == "good"
    assert findings["on PATH"]["verdict"] == findings["start"]["verdict"] == "good"
    assert findings["hosts"]["figures"] == {"n_ranks": 3, "n_hosts": 1}
    assert findings["shared"]["verdict"] == findings["locks"]["verdict"] == "good"
    assert 0 < findings["round trip"]["figures"]["trip_s"] < 1
    assert findings["bandwidth"]["figures"]["bytes_s"] > 0
    assert findings["hand-outs"]["figures"]["chunks_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_the_page_says_the_same_and_counts(tmp_path):
    done = start([*DOCTOR, "-n", "2"], tmp_path, COLUMNS="60")
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.splitlines()
    assert "\033" not in done.stdout
    for heading in ("MPI", "batch system", "run directory", "ranks", "cores", "messages"):
        assert lines.count(heading) == 1
    counted = sum(int(part.split()[0]) for part in lines[-1].split(", "))
    assert counted == sum(line.startswith(("  good", "  doubtful", "  bad")) for line in lines)


def test_a_second_mpi_first_on_path(tmp_path):
    ours = find_launcher().flavour
    other = "mpirun (Open MPI) 5.0.11" if ours is not Flavour.OPEN_MPI else "HYDRA build details: 4.2"
    for name in ("mpirun", "mpiexec"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{other}'\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{FIRST_ON_PATH}"
    done = start([*DOCTOR, "--json", "-n", "2"], tmp_path, PATH=path)
    finding = examine(done)["on PATH"]
    assert finding["verdict"] == "bad"
    assert f"mpirun is {tmp_path / 'mpirun'}" in finding["value"]
    assert f"export PATH={os.path.dirname(find_launcher().path)}:$PATH" in finding["cure"]
    assert done.returncode == 1


@pytest.mark.parametrize(
    "variables", [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")]
)
def test_ranks_that_each_believe_they_are_alone(tmp_path, variables):
    """The launcher says 3, MPI shows each process only itself: one tells, the others are quiet."""
    rank, size = variables
    first = start([*DOCTOR, "--json"], tmp_path, **{rank: "0", size: "3"})
    finding = examine(first)["world"]
    assert finding["verdict"] == "bad"
    assert finding["cure"]
    assert "hand-outs" not in examine(first)
    second = start([*DOCTOR, "--json"], tmp_path, **{rank: "1", size: "3"})
    assert second.stdout == ""


def test_oversubscribed_threads(tmp_path):
    findings = examine(start([*DOCTOR, "--json", "-n", "3"], tmp_path, OMP_NUM_THREADS="64"))
    n_cores = len(os.sched_getaffinity(0))
    if n_cores >= 128:
        pytest.skip("64 threads in each of 2 workers are not too many here")
    assert findings["BLAS threads"]["verdict"] == ("bad" if n_cores <= 32 else "doubtful")
    assert "OMP_NUM_THREADS=64" in findings["BLAS threads"]["value"]


def test_no_ulfm(tmp_path):
    launcher = find_launcher()
    command = [launcher.path, "-n", "2", *DOCTOR, "--json"]
    if launcher.flavour is Flavour.OPEN_MPI:
        command[1:1] = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    findings = examine(start(command, tmp_path))
    assert findings["fault tier"]["verdict"] == "doubtful"
    assert ("--with-ft ulfm" in findings["fault tier"]["cure"]) == launcher.ulfm
    assert findings["hand-outs"]["figures"]["n_workers"] == 1


ON_A_FULL_DISK = """\
mount -t tmpfs -o size=1m none "$1" && cd "$1" || exit 99
head -c 2000000 /dev/zero >full 2>/dev/null
shift
exec "$@"
"""


def test_a_full_run_directory(tmp_path):
    """A file system of 1 MB, in a mount namespace: it is gone with the process, whatever happens."""
    enter = ["unshare", "--mount", "--map-root-user"]
    may_mount = (
        shutil.which("unshare") and not start([*enter, "mount", "-t", "tmpfs", "x", "/mnt"], "/").returncode
    )
    if not may_mount:
        pytest.skip("this user may not mount a file system of its own")
    folder = tmp_path / "full"
    folder.mkdir()
    done = start(
        [*enter, "sh", "-c", ON_A_FULL_DISK, "sh", str(folder), *DOCTOR, "--json", "-n", "2"], tmp_path
    )
    findings = examine(done)
    assert findings["room"]["verdict"] == findings["write"]["verdict"] == "bad"
    assert "No space left on device" in findings["write"]["value"]
    assert findings["hand-outs"]["verdict"] == "doubtful"
    assert done.returncode == 1


def test_a_rank_that_dies_is_named(tmp_path):
    launcher = find_launcher()
    if not launcher.ulfm:
        pytest.skip("the launcher ends all ranks when one dies")
    die = "import os, time; from mpi4py import MPI; time.sleep(1); os.kill(os.getpid(), 9)"
    script = f"""[ $OMPI_COMM_WORLD_RANK = 2 ] && exec {sys.executable} -c '{die}'; exec "$@" """
    command = [launcher.path, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    command += ["--with-ft", "ulfm", "-n", "3", "sh", "-c", script, "sh", *DOCTOR, "--json"]
    findings = examine(start(command, tmp_path))
    assert findings["answers"]["verdict"] == "bad"
    assert "did not answer: 2" in findings["answers"]["value"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-n", "1"], "-n wants at least 2 ranks"),
        (["--limit", "nan"], "--limit wants a number of seconds above 0, found nan"),
        (["--run-dir", "file"], "run directory file is not a folder"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_usage(tmp_path, arguments, said):
    (tmp_path / "file").touch()
    done = start([*DOCTOR, *arguments], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mpims: {said}")
    assert done.stderr.count("\n") == 1


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True); time.sleep(60)"
    )
    ended = run_bounded([sys.executable, "-c", code], 1.0)
    assert ended.status is None
    assert ended.seconds < 30
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.02)
