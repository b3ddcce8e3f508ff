"""A real SLURM of virtual nodes on this machine, for as long as the tests take."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import clean_environment

SCRIPT = Path(__file__).with_name("cluster.sh")
N_NODES = 4
UP_S = 400  # with the installation, each part of which cluster.sh limits
CANNOT = 77
POLL_S = 0.2


class Cluster:
    """SLURM's commands, given from a folder of the user's."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.environ = environ

    def call(self, *command: str | Path, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command; it must end with that status unless that is None."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=100,
            check=False,
        )
        assert status in (None, done.returncode), f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def mpims(self, *arguments: str | Path, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, "-m", "mpims", *arguments, status=status)

    def submit(self, *arguments: str | Path) -> str:
        """Submit a script; give the number of its job."""
        return self.call("sbatch", "--parsable", *arguments).stdout.strip()

    def fields(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        told = self.call("scontrol", "-o", "show", "job", job).stdout
        return dict(field.partition("=")[::2] for field in told.split())

    def wait(
        self, what: str, holds: Callable[[], Any], limit_s: float = 60.0, look_s: float = POLL_S
    ) -> None:
        """Wait until something holds."""
        until = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < until, f"{what}: not within {limit_s} s\n{self.told()}"
            time.sleep(look_s)

    def wait_state(self, job: str, *states: str, limit_s: float = 60.0) -> dict[str, str]:
        """Wait until a job is in one of these states; give what SLURM knows of it."""
        self.wait(
            f"job {job} is {' or '.join(states)}",
            lambda: self.fields(job)["JobState"] in states,
            limit_s,
        )
        return self.fields(job)

    def wait_end(self, job: str, limit_s: float = 60.0) -> dict[str, str]:
        """Wait until a job, or each task of an array, has ended."""
        self.wait(f"the end of job {job}", lambda: not self.call("squeue", "-h", "-j", job).stdout, limit_s)
        return self.fields(job)

    def control(self, *command: str) -> None:
        """Have the cluster itself changed: a node crashed, say."""
        self.call(SCRIPT, *command)

    def told(self) -> str:
        """The queue, and what the jobs and SLURM have said, for whoever reads of a failure."""
        logs = [*self.folder.glob("*.out"), Path(self.environ["CLUSTER_DIR"], "log", "slurmctld.log")]
        ends = [(path.name, path.read_text(errors="replace").splitlines()[-40:]) for path in logs]
        told = [line for name, lines in ends for line in (f"--- {name}", *lines)]
        return "\n".join([self.call("squeue", status=None).stdout, *told])


@pytest.fixture(scope="session")
def cluster_environment() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="mpims-slurm-") as folder:
        settings = {"CLUSTER_DIR": f"{folder}/c", "CLUSTER_PORT": str(free_ports(N_NODES + 1))}
        environ = {**clean_environment(), **settings}
        started = subprocess.run(
            [SCRIPT, "up", str(N_NODES)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=UP_S,
            check=False,
        )
        try:
            if started.returncode == CANNOT:
                pytest.skip(started.stderr.strip().splitlines()[-1])
            assert started.returncode == 0, started.stderr
            command = f'eval "$({SCRIPT} env)" && env -0'
            told = subprocess.run(
                ["bash", "-c", command], env=environ, capture_output=True, text=True, check=True
            )
            names = dict(entry.partition("=")[::2] for entry in told.stdout.split("\0") if entry)
            bin_folder = os.path.dirname(sys.executable)
            yield {**names, "PATH": f"{bin_folder}{os.pathsep}{names['PATH']}"}
        finally:
            subprocess.run([SCRIPT, "down"], env=environ, capture_output=True, timeout=60, check=False)


@pytest.fixture
def cluster(cluster_environment: dict[str, str], tmp_path: Path) -> Cluster:
    return Cluster(tmp_path, cluster_environment)


def free_ports(n: int) -> int:
    """The first of so many neighbouring ports that nobody uses."""
    for first in range(17817 + os.getpid() % 1000 * 10, 32000, n):
        try:
            for port in range(first, first + n):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError(f"no {n} neighbouring ports are free")
