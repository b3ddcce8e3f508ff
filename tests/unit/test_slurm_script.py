"""Batch scripts, rendered and shipped."""

from __future__ import annotations

import subprocess

import pytest

from mpims.errors import UsageError
from mpims.launch import Flavour, Launcher
from mpims.slurm.script import IN_PARTS, Batch, parse_time, render_script
from tests.conftest import ROOT

OPEN_MPI = Launcher("/opt/bin/mpirun", Flavour.OPEN_MPI, "5.0.11", ulfm=True)
SHIPPED = sorted((ROOT / "slurm").glob("*.sbatch"))


def batch(**fields):
    known = {
        "name": "pi",
        "arguments": ("jobs/pi.py", "--set", "note=it's mine"),
        "python": "/opt/bin/python",
        "launcher": OPEN_MPI,
        "nodes": 2,
        "ntasks_per_node": 40,
        "time": "01:00:00",
    }
    return Batch(**{**known, **fields})


def directives(text):
    """What sbatch reads."""
    head = "#SBATCH "
    return [line.removeprefix(head) for line in text.splitlines() if line.startswith(head)]


def commands(text):
    """What bash runs."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_a_script_says_what_was_asked_for():
    text = render_script(
        batch(partition="long", account="physics", mem="4G", options=("--qos=high", "--exclusive"))
    )
    assert directives(text) == [
        "--job-name=pi",
        "--nodes=2",
        "--ntasks-per-node=40",
        "--time=01:00:00",
        "--partition=long",
        "--account=physics",
        "--mem=4G",
        "--output=%x-%j.out",
        "--qos=high",
        "--exclusive",
    ]
    (command,) = commands(text)
    assert command == (
        "exec /opt/bin/python -m mpims run jobs/pi.py --set 'note=it'\"'\"'s mine' "
        '--run-dir "runs/pi-$SLURM_JOB_ID"'
    )


@pytest.mark.parametrize(
    ("options", "log"),
    [
        ((), "pi-7.out"),
        (("--output=logs/%j-%x.txt",), "logs/7-pi.txt"),
        (("-o a.txt", "--output b.txt"), "b.txt"),
        (("-J tau", "--qos=high"), "tau-7.out"),
    ],
)
def test_what_the_user_says_of_the_log_counts(options, log):
    made = batch(options=options, requeue=True)
    assert made.log("7") == log
    # sbatch takes the last of several; what a requeued run depends on comes behind all.
    told = directives(render_script(made))
    assert all(told.index("--output=%x-%j.out") < told.index(option) for option in options)
    assert told[-3:] == ["--requeue", "--open-mode=append", "--signal=B:USR1@120"]


def test_what_was_not_asked_for_is_left_to_the_cluster():
    names = [directive.partition("=")[0] for directive in directives(render_script(batch()))]
    assert names == ["--job-name", "--nodes", "--ntasks-per-node", "--time", "--output"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "# on 80 ranks: rank 0 hands out"),
        ({"n_given": 5}, "# on 5 ranks: rank 0 hands out"),
        ({"nodes": 1, "ntasks_per_node": 1}, "# on 1 rank: it computes itself."),
    ],
)
def test_it_says_how_many_ranks_there_will_be(fields, said):
    assert said in render_script(batch(**fields))


def test_a_run_directory_of_the_user_s_is_taken_as_it_is():
    assert render_script(batch(run_dir="my $runs/a")).endswith(" --run-dir 'my $runs/a'\n")


@pytest.mark.parametrize(
    ("launcher", "said", "survives"),
    [
        (OPEN_MPI, "never --oversubscribe", True),
        (Launcher("/opt/bin/mpirun", Flavour.OPEN_MPI, "4.1", ulfm=False), "never --oversubscribe", False),
        (Launcher("/opt/bin/mpiexec", Flavour.MPICH, "5.0.2", ulfm=False), "SLURM_MPI_TYPE=none", False),
        (Launcher("/opt/bin/mpirun", Flavour.INTEL_MPI, "2021.9", ulfm=False), "Not srun", False),
    ],
)
def test_the_comments_are_about_the_mpi_in_use(launcher, said, survives):
    text = render_script(batch(launcher=launcher))
    assert f"# {launcher.path} ({launcher.flavour.value} {launcher.version})." in text
    assert said in text
    assert ("--with-ft ulfm" in text) == survives
    assert ("a rank that dies ends the run" in text) != survives


@pytest.mark.parametrize(
    ("time", "before_s"), [("01:00:00", 120), ("10", 120), ("3", 60), ("UNLIMITED", 120)]
)
def test_a_requeued_run_is_told_in_time(time, before_s):
    text = render_script(batch(time=time, requeue=True))
    assert directives(text)[-3:] == ["--requeue", "--open-mode=append", f"--signal=B:USR1@{before_s}"]
    assert f"run --grace {before_s // 2} jobs/pi.py" in text
    assert '--run-dir "$run_dir" --resume &\n' + IN_PARTS in text


@pytest.mark.parametrize("requeue", [False, True])
def test_bash_can_read_it(requeue):
    text = render_script(batch(requeue=requeue, arguments=("a b.py", "--set", "x=\n'#SBATCH --nodes=9")))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert sum(directive.startswith("--nodes") for directive in directives(text)) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"nodes": 0}, "--nodes wants at least 1, found 0"),
        ({"ntasks_per_node": -1}, "--ntasks-per-node wants at least 1, found -1"),
        ({"time": "2h"}, "--time wants MINUTES, HH:MM:SS or D-HH:MM:SS, found '2h'"),
        ({"time": "1:2:3:4"}, "--time wants"),
        ({"mem": "4 GB"}, "--mem wants .* found '4 GB'"),
        ({"options": ("qos=high",)}, "--sbatch wants one option of sbatch, .* found 'qos=high'"),
        ({"options": ("--qos=a\n#SBATCH --exclusive",)}, "--sbatch wants"),
        ({"partition": "a\nb"}, "--partition wants a name, found"),
        ({"account": ""}, "--account wants a name, found ''"),
        ({"requeue": True, "time": "1"}, "--requeue wants parts of more than a minute, found --time 1"),
    ],
)
def test_a_value_of_another_form_is_named(fields, said):
    with pytest.raises(UsageError, match=said):
        batch(**fields)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 300),
        ("5:30", 330),
        ("1:00:00", 3600),
        ("1-0", 86400),
        ("1-2:3", 93780),
        ("1-2:3:4", 93784),
        ("infinite", None),
        ("0", None),  # SLURM's: no limit is asked for
    ],
)
def test_a_walltime(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("array", "requeued"),
    [({}, "14"), ({"SLURM_ARRAY_JOB_ID": "14", "SLURM_ARRAY_TASK_ID": "3"}, "14_3")],
)
def test_a_task_of_an_array_requeues_itself_alone(array, requeued, tmp_path):
    """The last task has the array's own number, by which SLURM requeues all of them."""
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    (tmp_path / "scontrol").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f"run_dir=r most_parts=50; (exit 75) &\n{IN_PARTS}"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "14", **array},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (75, f"requeue {requeued}\n")


@pytest.mark.parametrize(
    ("array", "asked"),
    [({}, "14"), ({"SLURM_ARRAY_JOB_ID": "14", "SLURM_ARRAY_TASK_ID": "3"}, "14_3")],
)
def test_a_task_of_an_array_asks_for_its_own_nodes(array, asked, tmp_path):
    """By the number of the array, which the last task has, squeue tells the nodes of all of them."""
    programs = {
        "python": f"[ -e {tmp_path}/asked ] || exit 75",
        "squeue": f'echo "$@" >> {tmp_path}/asked; echo n1',
        "scontrol": "echo n1",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    allocation = {"SLURM_JOB_ID": "14", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NTASKS_PER_NODE": "2"}
    done = subprocess.run(
        ["bash", next(path for path in SHIPPED if path.stem == "faulttolerant"), "x.py"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **allocation, **array},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("going on with n1\n")
    assert (tmp_path / "asked").read_text() == f"-h -j {asked} -o %N\n"


# ------------------------------------------------------------------ what ships


def test_four_scripts_ship():
    assert [path.stem for path in SHIPPED] == ["array", "faulttolerant", "resume", "run"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_script_is_short_and_has_no_long_lines(path):
    text = path.read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.splitlines())) <= 112
    assert {"--nodes", "--ntasks-per-node", "--time"} <= {d.partition("=")[0] for d in directives(text)}


def test_a_rendered_script_ends_as_the_shipped_one():
    assert (ROOT / "slurm" / "resume.sbatch").read_text().endswith(IN_PARTS)
