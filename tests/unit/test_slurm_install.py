"""Whether a machine without SLURM gets one for the tests, or they are skipped, and with which words.

The script's own function, with no other programs to be found than those that are put there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "tests" / "slurm" / "cluster.sh"
DAEMONS = ("munged", "slurmctld", "slurmd", "srun", "sinfo")
TOOLS = ("chmod", "grep", "mkdir", "rm", "sleep", "tail", "timeout", "touch")
SKIPPED = 77

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


class Machine:
    """A folder of programs, the only ones there are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "/nowhere")

    def put(self, name: str, text: str = "") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def install(self) -> tuple[int, str]:
        """Have SLURM installed; the exit status, and the last word, which is the reason of a skip."""
        machine = (
            f'PATH="{self.bin}" POLICY="{self.folder}/policy" PMIXDIR="{self.folder}/pmix" INSTALL_S=0.5'
        )
        done = subprocess.run(
            ["bash", "-c", f'. "{SCRIPT}"; {machine}; install_packages'],
            env={**os.environ, "CLUSTER_DIR": str(self.folder / "c")},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert not (self.folder / "policy").exists()
        return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.put("id", "echo 0")
    return machine


def test_where_slurm_is_there_nothing_is_installed(machine):
    for name in DAEMONS:
        machine.put(name)
    assert machine.install() == (0, "")


def test_only_root_installs(machine):
    machine.put("id", "echo 1000")
    machine.put("apt-get", "exit 1")
    machine.put("munged")
    status, reason = machine.install()
    assert status == SKIPPED
    assert reason.startswith(
        "cluster: not installed: slurmctld slurmd srun sinfo (run once as root, or: apt"
    )


def test_another_system_s_packages_are_left_to_the_user(machine):
    status, reason = machine.install()
    assert status == SKIPPED
    assert reason == "cluster: not installed: munged slurmctld slurmd srun sinfo (and there is no apt-get)"


def test_what_is_missing_is_installed_and_starts_no_daemons_of_its_own(machine):
    made = " ".join(str(machine.bin / name) for name in DAEMONS)
    machine.put(
        "apt-get",
        f'[ "$1" = update ] || {{ [ -x "{machine.folder}/policy" ] && touch {made} && chmod 755 {made}; }}',
    )
    status, _ = machine.install()
    assert status == 0
    assert machine.install() == (0, "")


@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        ("echo 'E: Unable to locate package slurmd' >&2; exit 100", "E: Unable to locate package slurmd"),
        ("exec sleep 5", "not done in 0.5 s"),
    ],
)
def test_why_it_could_not_be_installed_is_said(machine, apt, reason):
    machine.put("apt-get", apt)
    assert machine.install() == (
        SKIPPED,
        f"cluster: not installed: munged slurmctld slurmd srun sinfo (apt-get: {reason})",
    )
