"""The batch scripts that ship, and one that is rendered, submitted to a real SLURM.

Whether a run came to its end is read from its run directory: a launcher that lost a node exits with 0.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mpims.supervise import find_marked
from tests.slurm.conftest import Cluster
from tests.slurm.runs import (
    SCRIPTS,
    SLOWLY,
    check_result,
    computed,
    in_flight,
    manifest_of,
    settings,
    summary_of,
)

pytestmark = pytest.mark.timeout(500)  # the first test may have to install SLURM


def test_a_run_on_several_nodes(cluster, tmp_path):
    job = cluster.submit(SCRIPTS / "run.sbatch", SLOWLY, *settings(n=80, pause_s=0.1))
    assert cluster.wait_end(job)["JobState"] == "COMPLETED", cluster.told()
    folder = tmp_path / "runs" / f"slurm-{job}"
    check_result(folder, tmp_path, n=80)
    slurm, ranks = manifest_of(folder)["slurm"], manifest_of(folder)["ranks"]
    assert (slurm["job_id"], slurm["n_restarts"]) == (job, 0)
    assert len(slurm["nodes"]) == 2
    if is_namespaced(cluster):
        assert {rank["host"] for rank in ranks.values()} == set(slurm["nodes"])


def test_a_run_that_was_cancelled_is_resumed_elsewhere(cluster, tmp_path):
    n = 100
    job = cluster.submit(SCRIPTS / "run.sbatch", SLOWLY, *settings(n=n, pause_s=0.2))
    folder = tmp_path / "runs" / f"slurm-{job}"
    cluster.wait("it is under way", lambda: len(computed(folder)) > n // 2)
    cluster.call("scancel", job)
    assert cluster.wait_end(job)["JobState"] == "CANCELLED"
    assert summary_of(folder).get("status") != "done"
    job = cluster.submit("--nodes=1", "--ntasks-per-node=3", "--wrap", f"python -m mpims resume {folder}")
    assert cluster.wait_end(job)["JobState"] == "COMPLETED", cluster.told()
    check_result(folder, tmp_path, n=n)
    assert computed(folder).total() - n <= 3 * in_flight(0.2)


def test_a_killed_rank_and_a_lost_node(cluster, tmp_path):
    n = 300
    job = cluster.submit(SCRIPTS / "faulttolerant.sbatch", SLOWLY, *settings(n=n, pause_s=0.25))
    folder = tmp_path / "runs" / f"slurm-{job}"
    cluster.wait("it is under way", lambda: len(computed(folder)) > n // 6)
    kill_rank(cluster, job, 1)
    cluster.wait("it goes on without rank 1", lambda: len(computed(folder)) > n // 3)
    assert not (folder / "summary.json").exists()
    lost = manifest_of(folder)["slurm"]["nodes"][-1]
    cluster.control("crash", lost)
    try:
        # As SLURM does by itself when SlurmdTimeout has passed.
        cluster.call("scontrol", "update", f"nodename={lost}", "state=down", "reason=crash")
        assert cluster.wait_end(job, limit_s=80)["JobState"] == "COMPLETED", cluster.told()
    finally:
        cluster.control("boot", lost)
    check_result(folder, tmp_path, n=n)
    assert summary_of(folder)["n_lost"] >= 1
    (resumed,) = manifest_of(folder)["resumed"]
    assert lost not in resumed["slurm"]["nodes"]
    assert resumed["n_ranks"] == 4
    assert computed(folder).total() - n <= (1 + 4) * in_flight(0.25)


def kill_rank(cluster: Cluster, job: str, rank: int) -> None:
    """Kill a rank on whatever node it is, as the machine sees it."""
    # Another cluster's jobs have the same numbers.
    marks = {"SLURM_CONF": cluster.environ["SLURM_CONF"], "SLURM_JOB_ID": job, "OMPI_COMM_WORLD_RANK": rank}
    found = [set(find_marked(f"{name}={value}".encode())) for name, value in marks.items()]
    (process,) = set.intersection(*found)
    os.kill(process, signal.SIGKILL)


def test_an_array_is_a_run_for_each_value(cluster, tmp_path):
    job = cluster.submit("--array=0-2", SCRIPTS / "array.sbatch", SLOWLY, "shift", "0.5", "1.5")
    cluster.wait_end(job)
    for shift in (0.5, 1.5):
        folder = tmp_path / "runs" / f"slurm-{job}" / f"shift={shift}"
        check_result(folder, tmp_path / str(shift), n=100, shift=shift)
        assert manifest_of(folder)["slurm"]["array_task"] == (0.5, 1.5).index(shift)
    left_over = (tmp_path / f"mpims-{job}-2.out").read_text()
    assert "no value for this task: --array=0-1 suits these" in left_over


def test_a_rendered_script_is_submitted_and_followed(cluster, tmp_path):
    shown = cluster.mpims(
        "slurm", SLOWLY, *settings(n=60, pause_s=0.2), "--nodes", "2", "--ntasks-per-node", "2",
        "--time", "5", "--requeue", "--watch",
    )  # fmt: skip
    (folder,) = (tmp_path / "runs").glob("slowly-*[0-9]")
    check_result(folder, tmp_path, n=60)
    job = folder.name.removeprefix("slowly-")
    assert f"job {job} is RUNNING on n[" in shown.stdout
    assert f"runs/{folder.name}: done" in shown.stdout
    assert cluster.fields(job)["JobState"] == "COMPLETED"
    (script,) = (tmp_path / "runs").glob("*.sbatch")
    assert f"submitted runs/{script.name} as job {job}" in shown.stderr


def test_what_the_cluster_does_not_have_is_said_in_one_line(cluster):
    job = ["slurm", SLOWLY, "--nodes", "2", "--time", "5", "--submit"]
    for wrong, cure in (
        (["--partition=nosuch"], "SLURM does not say how many cores partition nosuch has: give its ranks"),
        (["--partition=nosuch", "--ntasks-per-node=2"], "give a --partition that `sinfo -s` lists"),
        (["--mem=900T", "--ntasks-per-node=2"], "`sinfo"),
        (["--sbatch=--nosuch", "--ntasks-per-node=2"], "see `man sbatch`"),
    ):
        said = cluster.mpims(*job, *wrong, status=2).stderr
        assert cure in said
        assert said.count("\n") == 1


def test_what_cannot_work_in_an_allocation_is_said_in_one_line(cluster):
    run = f"python -m mpims run {SLOWLY} --set n=500 --set pause_s=0.1"
    commands = [f"{run} -n 5", f"srun --mpi=none {run}"]
    wanted = [
        "-n 5 in SLURM job {job}, which has 4 tasks on 2 nodes: leave -n out, or ask SLURM for more",
        "srun started this without the PMI that Open MPI",
    ]
    if is_namespaced(cluster):  # each node has a /dev/shm of its own
        commands.append(f"{run} --run-dir /dev/shm/mpims-$SLURM_JOB_ID")
        wanted.append("put it on a file system that all nodes share, with --run-dir")
    script = "; ".join(f"{command}; echo status $?" for command in commands)
    job = cluster.submit("--nodes=2", "--ntasks-per-node=2", "--wrap", script)
    cluster.wait_end(job)
    log = (cluster.folder / f"slurm-{job}.out").read_text(errors="replace")
    for text in wanted:
        assert text.format(job=job) in log, log
    assert log.count("status 2\n") == len(commands), log


def is_namespaced(cluster: Cluster) -> bool:
    """Whether each virtual node has a name of its own."""
    return (Path(cluster.environ["CLUSTER_DIR"]) / "ns").read_text().strip() == "yes"
