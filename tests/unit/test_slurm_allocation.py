"""What SLURM says in the environment, read in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpims.errors import UsageError
from mpims.slurm.allocation import Allocation, find_allocation, find_end_time, parse_counts, parse_nodes

BATCH = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURM_NTASKS": "4",
    "SLURMD_NODENAME": "n1",
    "SLURM_PROCID": "0",
}


def test_a_batch_script():
    assert find_allocation(BATCH) == Allocation("12", ("n1", "n2"), 4, node="n1")


def test_outside_of_slurm():
    assert find_allocation({}) is None
    assert find_allocation({"SLURM_CONF": "/etc/slurm.conf", "SLURM_JOB_ID": ""}) is None


def test_a_shell_of_salloc_knows_no_tasks_and_no_node():
    salloc = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TASKS_PER_NODE": "4(x2),1"}
    assert find_allocation(salloc) == Allocation("12", ("n1", "n2", "n3"), 9)


def test_a_requeued_task_of_an_array_with_an_end():
    further = {
        "SLURM_RESTART_COUNT": "2",
        "SLURM_ARRAY_TASK_ID": "0",
        "SLURM_JOB_END_TIME": "1700000000",
        "SLURM_STEP_ID": "0",
    }
    found = find_allocation({**BATCH, **further})
    assert found is not None
    assert (found.n_restarts, found.array_task, found.end_time_s) == (2, 0, 1_700_000_000.0)
    assert found.is_step
    assert found.as_dict() == {
        "job_id": "12",
        "nodes": ("n1", "n2"),
        "n_tasks": 4,
        "n_restarts": 2,
        "array_task": 0,
        "end_time_s": 1_700_000_000.0,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SLURM_NTASKS", "four"),
        ("SLURM_JOB_NODELIST", "n[1-"),
        ("SLURM_JOB_NODELIST", "n[3-1]"),
        ("SLURM_JOB_NODELIST", "a,,b"),
        ("SLURM_RESTART_COUNT", "-"),
        ("SLURM_JOB_END_TIME", "soon"),
    ],
)
def test_what_slurm_does_not_write_is_named(name, text):
    with pytest.raises(UsageError) as caught:
        find_allocation({**BATCH, name: text})
    assert caught.value.message.startswith(f"{name} is {text!r}, which is not what SLURM writes there")


@pytest.mark.parametrize("text", ["2(x", "2(3)", "a", "1,,2", "2x3"])
def test_counts_of_another_form(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_counts(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ("n1",)),
        ("n[1]", ("n1",)),
        ("n[009-011]", ("n009", "n010", "n011")),
        ("n[8-10]-ib", ("n8-ib", "n9-ib", "n10-ib")),
        ("login,n[1,3-4],gpu-2", ("login", "n1", "n3", "n4", "gpu-2")),
    ],
)
def test_names_of_nodes(text, names):
    assert parse_nodes(text) == names


# ------------------------------------------------------------------ the end


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A squeue that gives one answer and counts how often it is asked."""

    def answer(text: str, status: int = 0) -> Path:
        asked = tmp_path / "asked"
        program = tmp_path / "squeue"
        program.write_text(
            f'#!/bin/sh\necho "$SLURM_TIME_FORMAT $*" >> {asked}\necho "{text}"\nexit {status}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return asked

    return answer


def allocation(end_time_s=None):
    return Allocation("12", ("n1",), 4, end_time_s=end_time_s)


def test_the_environment_s_end_counts_while_it_lies_ahead(squeue):
    asked = squeue("2000               ")
    assert find_end_time(allocation(1500.0), now_s=1000.0) == 1500.0
    assert not asked.exists()


@pytest.mark.parametrize("known", [None, 900.0])  # 900: somebody has prolonged the job since
def test_else_slurm_is_asked_once(squeue, known):
    asked = squeue("12                 2000               ")
    assert find_end_time(allocation(known), now_s=1000.0) == 2000.0
    assert asked.read_text() == "%s -h -j 12 -O JobID,EndTime\n"


def test_the_last_task_of_an_array_has_the_number_of_the_array_and_an_end_of_its_own(squeue):
    squeue("14    1500\n12    2000\n13    1600")
    assert find_end_time(allocation(), now_s=1000.0) == 2000.0


@pytest.mark.parametrize(("answer", "status"), [("12 Unknown", 0), ("12 NONE", 0), ("", 1), ("", 0)])
def test_a_job_without_a_known_end(squeue, answer, status):
    squeue(answer, status)
    assert find_end_time(allocation(), now_s=1000.0) is None


def test_slurm_is_not_there_to_ask(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_end_time(allocation(), now_s=1000.0) is None


@pytest.mark.parametrize(("known", "answer"), [(None, "12 900"), (900.0, "12 Unknown"), (900.0, "12 950")])
def test_an_end_that_is_past_is_refused(squeue, known, answer):
    squeue(answer)
    with pytest.raises(
        UsageError, match=r"the time of SLURM job 12 was over \d+ s ago .*: submit it again"
    ):
        find_end_time(allocation(known), now_s=1000.0)
