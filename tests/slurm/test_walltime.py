"""Walltimes of one minute that really run out: minutes that are waited rather than computed.

Nobody but SLURM signals anything here, and mpims reads by itself when its allocation ends.
"""

from __future__ import annotations

import pytest

from tests.slurm.conftest import Cluster
from tests.slurm.runs import (
    SCRIPTS,
    SLOWLY,
    check_result,
    computed,
    handed_out_again,
    in_flight,
    manifest_of,
    settings,
    summary_of,
    taken_over,
)

pytestmark = pytest.mark.timeout(550)  # with the installation of SLURM

WORKERS = 3  # of the four tasks that the scripts ask for
LIMIT_S = 450.0
LOOK_S = 2.0


def test_a_job_of_three_minutes_in_a_walltime_of_one_goes_on_by_itself(cluster, tmp_path):
    """The signal comes 1 to 31 s before the end, for SLURM looks every 30 s; mpims stops 10 s before it."""
    n, pause_s = WORKERS * 180, 1.0
    parameters = settings(n=n, pause_s=pause_s)
    job = cluster.submit("--time=1", "--signal=B:USR1@1", SCRIPTS / "resume.sbatch", SLOWLY, *parameters)
    cluster.wait(f"the end of job {job}", lambda: has_ended(cluster, job), LIMIT_S, LOOK_S)
    assert cluster.fields(job)["JobState"] == "COMPLETED", cluster.told()
    assert cluster.fields(job)["TimeLimit"] == "00:01:00"
    folder = tmp_path / "runs" / f"slurm-{job}"
    check_result(folder, tmp_path, n=n)
    parts = [part["slurm"]["n_restarts"] for part in manifest_of(folder)["resumed"]]
    assert len(parts) >= 2
    assert parts == list(range(1, len(parts) + 1))
    # What is in flight at the end of a part is taken in within --grace. At the end of the run idle ranks
    # take over what others hold, who may have begun it.
    assert computed(folder).total() - n <= taken_over(folder)
    assert handed_out_again(folder) == set()


def has_ended(cluster: Cluster, job: str) -> bool:
    """Whether a job has ended; requeued, it does not wait the two minutes that SLURM has it wait."""
    cluster.control("hurry")
    return not cluster.call("squeue", "-h", "-j", job).stdout


def test_a_walltime_that_kills_a_run_costs_what_was_in_flight(cluster, tmp_path):
    """Nothing signals before the end, and squeue cannot say when it is: the end comes as a surprise."""
    deaf = tmp_path / "deaf"
    deaf.mkdir()
    (deaf / "squeue").write_text("#!/bin/sh\nexit 1\n")
    (deaf / "squeue").chmod(0o755)
    unaware = Cluster(tmp_path, {**cluster.environ, "PATH": f"{deaf}:{cluster.environ['PATH']}"})
    n, pause_s = WORKERS * 14, 8.0  # an item takes longer than SLURM waits from TERM to KILL
    parameters = settings(n=n, pause_s=pause_s)
    job = unaware.submit("--time=1", SCRIPTS / "run.sbatch", SLOWLY, *parameters)
    assert cluster.wait_end(job, limit_s=150)["JobState"] == "TIMEOUT", cluster.told()
    folder = tmp_path / "runs" / f"slurm-{job}"
    n_before = computed(folder).total()
    assert WORKERS <= n_before < n
    assert summary_of(folder).get("status") != "done"
    resume = f"python -m mpims resume {folder}"
    job = cluster.submit("--nodes=4", "--ntasks-per-node=4", "--wrap", resume)
    assert cluster.wait_end(job, limit_s=100)["JobState"] == "COMPLETED", cluster.told()
    check_result(folder, tmp_path, n=n)
    assert computed(folder).total() - n <= WORKERS * in_flight(pause_s) + taken_over(folder)
    assert handed_out_again(folder) == set()
