"""``mpims slurm``: what is rendered, what SLURM's commands answer, and how a job is followed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from mpims.cli.slurm import SILENT_S, watch
from mpims.errors import UsageError
from mpims.report.status import write_status
from mpims.report.views import View
from mpims.slurm.controller import JobState, ask_cores, ask_state, submit
from tests.unit.test_display import STATUS

JOB = ["slurm", "x.py", "--nodes", "2", "--ntasks-per-node", "3", "--time", "30"]


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Put commands on the PATH that say one thing each."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()

    def program(name: str, says: str = "", complains: str = "", status: int = 0) -> None:
        path = tmp_path / "bin" / name
        path.write_text(
            f"#!/bin/sh\ncat <<'END'\n{says}\nEND\ncat >&2 <<'END'\n{complains}\nEND\nexit {status}\n"
        )
        path.chmod(0o755)

    return program


# ------------------------------------------------------------------ the command


def test_a_script_is_printed_with_the_options_of_run_as_they_were_typed(mpims_cli, write_job):
    write_job("n: int = 1\ndef task(self, item):\n    return item")
    typed = ["--set", "n=3", "--policy", "GSS", "--partition=long", "--grace=5"]
    done = mpims_cli(*JOB, *typed)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=long\n" in done.stdout
    run = f"{sys.executable} -m mpims run x.py --set n=3 --policy GSS --grace=5"
    assert done.stdout.endswith(f'exec {run} --run-dir "runs/x-$SLURM_JOB_ID"\n')


def test_two_dashes_ahead_of_the_job_do_not_hide_the_run_directory_behind_it(mpims_cli, write_job):
    write_job("n: int = 1\ndef task(self, item):\n    return item")
    done = mpims_cli("slurm", *JOB[2:], "--set", "n=3", "--", "x.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(' -m mpims run --set n=3 x.py --run-dir "runs/x-$SLURM_JOB_ID"\n')


def test_a_job_that_cannot_compute_is_not_submitted(mpims_cli, write_job):
    write_job("n: int = 1")
    done = mpims_cli(*JOB)
    assert (done.returncode, done.stdout) == (2, "")
    assert "defines neither kernel(items) nor task(item)" in done.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--set", "m=3"], "m"),
        (["--policy", "NOSUCH"], "NOSUCH"),
        (["--time", "soon"], "--time wants MINUTES, HH:MM:SS or D-HH:MM:SS, found 'soon'"),
        (["--mem", "lots"], "--mem wants"),
        (["-n", "7"], "-n 7 on 2 nodes of 3 tasks: leave -n out"),
        (["-n", "0"], "-n wants at least 1 rank, found 0"),
        (["--submit"], "no SLURM on this machine: sbatch is not on PATH"),
    ],
)
def test_what_is_wrong_is_said_before_it_waits_in_a_queue(mpims_cli, write_job, tmp_path, typed, said):
    write_job("n: int = 1\ndef task(self, item):\n    return item")
    done = mpims_cli(*JOB, *typed, env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_the_manifest_names_the_job_and_how_often_it_was_requeued(mpims_cli, write_job, tmp_path):
    write_job("def task(self, item):\n    if not os.path.exists('go'): raise OSError\n    return item")
    in_slurm = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n7", "SLURM_NTASKS": "1"}
    run = ["run", "x.py", "--run-dir", "r", "--resume", "--retries", "0"]
    failed = mpims_cli(*run, env=in_slurm)
    assert failed.returncode == 1
    # -n 3 would be refused there.
    assert (
        "mpims: one process computes: SLURM gave one task; ask it for more, with --ntasks\n"
        in failed.stderr
    )
    (tmp_path / "go").touch()
    done = mpims_cli(*run, env={**in_slurm, "SLURM_RESTART_COUNT": "1"})
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    (resumed,) = manifest["resumed"]
    told = [(part["slurm"]["job_id"], part["slurm"]["n_restarts"]) for part in (manifest, resumed)]
    assert told == [("12", 0), ("12", 1)]
    assert manifest["slurm"]["nodes"] == ["n7"]


# ------------------------------------------------------------------ SLURM's commands


def test_sbatch_gives_a_number(put, tmp_path):
    put("sbatch", says="123;cluster")
    assert submit(tmp_path / "x.sbatch") == "123"


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("sbatch: error: invalid partition specified: x", "give a --partition that `sinfo -s` lists"),
        ("sbatch: error: Batch job submission failed: Invalid account", "give an --account"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "give less --time"),
        ("Requested node configuration is not available", "give less --ntasks-per-node or --mem"),
        ("sbatch: error: The moon is wrong", "change what it names"),
        ("", "it said nothing"),
    ],
)
def test_a_refusal_gives_sbatch_s_words_and_what_to_change(put, tmp_path, words, cure):
    put("sbatch", complains=f"{words}\nsbatch: error: and so on" if words else "", status=1)
    with pytest.raises(UsageError) as caught:
        submit(tmp_path / "x.sbatch")
    assert cure in caught.value.message
    assert words.removeprefix("sbatch: error: ") in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"says": "RUNNING|None|n[1-2]"}, JobState("RUNNING", "None", "n[1-2]")),
        ({"says": "PENDING|Resources|"}, JobState("PENDING", "Resources", "")),
        ({"complains": "slurm_load_jobs error: Invalid job id specified", "status": 1}, JobState("GONE")),
        ({"complains": "Unable to contact slurm controller", "status": 1}, None),
    ],
)
def test_the_state_of_a_job(put, answer, state):
    put("squeue", **answer)
    assert ask_state("12") == state


def test_only_a_job_that_never_runs_again_has_ended():
    assert not JobState("PENDING", "BeginTime").has_ended
    assert not JobState("COMPLETING").has_ended
    assert all(JobState(name).has_ended for name in ("COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT", "GONE"))


def test_a_job_that_asks_for_too_much_is_told_from_one_that_waits():
    assert str(JobState("PENDING", "Priority")) == "PENDING (Priority)"
    assert str(JobState("PENDING", "PartitionConfig")).endswith("more than there is, and will never run)")
    assert str(JobState("COMPLETED", "None", "n[1-2]")) == "COMPLETED on n[1-2]"
    assert str(JobState("GONE")) == "GONE"


def test_the_cores_of_the_least_node_of_the_default_partition(put):
    put("sinfo", says="main*|2:16:2\nmain*|2:8+:1\ngpu|1:4:1")
    assert ask_cores(None) == 16


def test_nobody_knows_how_many_cores_there_are(put):
    put("sinfo", complains="slurm_load_partitions: Unable to contact slurm controller", status=1)
    with pytest.raises(UsageError, match=r"how many cores a node has: give .* --ntasks-per-node 40"):
        ask_cores(None)
    put("sinfo", says="main*|n/a")
    with pytest.raises(UsageError, match=r"how many cores a node has: give .* --ntasks-per-node 40"):
        ask_cores(None)


# ------------------------------------------------------------------ watch


class Shown(View):
    """Keeps what was said."""

    def __init__(self):
        self.notes = []
        self.shown = []
        self.ended = False

    def show(self, status):
        self.shown.append(status.n_done)

    def note(self, text):
        self.notes.append(text)

    def end(self):
        self.ended = True


def follow(tmp_path, states, *, step_s=1.0):
    """Watch a job that goes through these states."""
    view, now, left = Shown(), [0.0], iter(states)

    def sleep(seconds):
        now[0] += step_s

    last = watch("12", tmp_path / "run", view, ask=lambda _: next(left), clock=lambda: now[0], sleep=sleep)
    assert view.ended
    return last, view.notes + [f"{n_done} items are done" for n_done in view.shown]


def test_each_state_is_said_once_until_the_end(tmp_path):
    pending, running = JobState("PENDING", "Priority"), JobState("RUNNING", "None", "n1")
    again, done = JobState("PENDING", "BeginTime"), JobState("COMPLETED", "None", "n1")
    last, notes = follow(tmp_path, [pending, pending, running, None, running, again, running, done])
    assert last is done
    assert notes == [
        "job 12 is PENDING (Priority)",
        "job 12 is RUNNING on n1",
        "job 12 is PENDING (BeginTime)",
        "job 12 is RUNNING on n1",
        "job 12 is COMPLETED on n1",
    ]


def test_what_an_earlier_part_said_is_not_shown_as_that_of_the_next(tmp_path):
    def states():
        for name, n_done in (
            ("RUNNING", 3),
            ("PENDING", 5),
            ("RUNNING", 5),
            ("RUNNING", 7),
            ("COMPLETED", 9),
        ):
            write_status(tmp_path / "run" / "status.json", replace(STATUS, n_done=n_done))
            yield JobState(name)

    (tmp_path / "run").mkdir()
    _, told = follow(tmp_path, states())
    assert told[-2:] == ["3 items are done", "7 items are done"]


def test_a_slurm_that_is_silent_is_not_waited_for_without_end(tmp_path):
    running = JobState("RUNNING", "None", "n1")
    states = [running, *[None] * 20]
    last, _ = follow(tmp_path, states, step_s=SILENT_S / 10)
    assert last is None


def test_ctrl_c_leaves_the_job_alone(tmp_path):
    def states():
        yield JobState("RUNNING", "None", "n1")
        raise KeyboardInterrupt

    last, notes = follow(tmp_path, states())
    assert (last, notes) == (None, ["job 12 is RUNNING on n1"])
