"""What SLURM's own commands are asked: to take a job, and what became of it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mpims.errors import UsageError

_ANSWER_S = 60.0  # slurmctld may be busy; its commands give up by themselves after about that
_GONE = "GONE"

# What sbatch says when it refuses, and what there is to do.
_CURES = (
    ("partition", "give a --partition that `sinfo -s` lists"),
    ("account", "give an --account that `sacctmgr show associations user=$USER` lists"),
    ("qos", "give a --qos that `sacctmgr show qos` lists, by --sbatch=--qos=NAME"),
    ("time limit", "give less --time: `sinfo -o '%P %l'` lists the limits"),
    ("memory", "give less --mem: `sinfo -o '%P %m'` lists what the nodes have, in megabytes"),
    (
        "node configuration",
        "give less --ntasks-per-node or --mem: `sinfo -o '%P %D %c %m'` lists what the nodes have",
    ),
    ("node count", "give fewer --nodes: `sinfo -o '%P %D'` lists how many there are"),
    ("unrecognized option", "see `man sbatch` for what --sbatch may say"),
    ("invalid option", "see `man sbatch` for what --sbatch may say"),
    ("contact slurm controller", "SLURM is down or busy: try again later"),
)


@dataclass(frozen=True, slots=True)
class JobState:
    """A job in SLURM's queue.

    Parameters
    ----------
    name
        SLURM's own word: PENDING, RUNNING, COMPLETED, ...; `GONE` if SLURM has forgotten the job.
    reason
        Why it waits, or ended so; may be empty.
    nodes
        Its nodes, in SLURM's short form; may be empty.
    """

    name: str
    reason: str = ""
    nodes: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the job will never run again."""
        return self.name not in _UNENDED

    def __str__(self) -> str:
        if self.nodes:
            return f"{self.name} on {self.nodes}"
        hint = ": it asks for more than there is, and will never run" if self.reason in _TOO_MUCH else ""
        return f"{self.name} ({self.reason}{hint})" if self.reason not in ("", "None") else self.name


_TOO_MUCH = {"PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints"}
_UNENDED = {
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "COMPLETING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESIZING",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
}


def submit(script: Path) -> str:
    """Submit a batch script; give the number of its job.

    Raises
    ------
    UsageError
        There is no SLURM here, or it refuses the script.
    """
    try:
        done = _ask("sbatch", "--parsable", str(script))
    except FileNotFoundError:
        raise UsageError(
            "no SLURM on this machine: sbatch is not on PATH; submit from the cluster's login node, "
            "or leave --submit out to have the script printed"
        ) from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"sbatch did not answer within {_ANSWER_S:g} s: see `squeue --me` whether the job is there, "
            f"and try again with: sbatch {script}"
        ) from None
    number = re.match(r"\d+", done.stdout)
    if done.returncode or number is None:
        raise UsageError(f"{_refusal(done.stderr or done.stdout)} (script: {script})")
    return number.group()


def _refusal(words: str) -> str:
    """What sbatch said, in one line, and what to change."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in words.splitlines()]
    said = "; ".join(line.strip() for line in lines if line.strip()) or "it said nothing"
    known = (cure for mark, cure in _CURES if mark in said.lower())
    return f"sbatch refused: {said}: {next(known, 'change what it names')}"


def ask_cores(partition: str | None) -> int:
    """How many cores each node of a partition has, or of the default one: the least that any has.

    Raises
    ------
    UsageError
        SLURM does not say.
    """
    which = ["-p", partition] if partition else []
    try:
        told = _ask("sinfo", "-h", *which, "-o", "%P|%z").stdout
    except (OSError, subprocess.TimeoutExpired):
        told = ""
    rows = [line.split("|") for line in told.splitlines() if "|" in line]
    shapes = [shape for name, shape in rows if partition or name.endswith("*")]
    told_of = filter(None, (re.match(r"(\d+)\+?:(\d+)", shape) for shape in shapes))  # sockets:cores
    cores = [int(match[1]) * int(match[2]) for match in told_of]
    if not cores:
        where = f"partition {partition}" if partition else "a node"
        raise UsageError(
            f"SLURM does not say how many cores {where} has: give its ranks, as in --ntasks-per-node 40"
        )
    return min(cores)


def ask_state(job_id: str) -> JobState | None:
    """What became of a job; None if SLURM does not answer now."""
    try:
        done = _ask("squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T|%r|%N")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "invalid job id" not in done.stderr.lower():
        return None
    line = done.stdout.strip().split("\n")[0]
    if not line:
        return JobState(_GONE)
    name, reason, nodes = line.split("|", 2)
    return JobState(name, reason, nodes)


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_S, check=False
    )
