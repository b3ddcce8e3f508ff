"""The allocation of SLURM that this process runs in; here alone the ``SLURM_*`` variables are read."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

from mpims.errors import UsageError

_ANSWER_S = 10.0  # for squeue, which waits long for a controller that is busy or away
_MOST_NODES = 1_000_000


class Allocation(NamedTuple):
    """What SLURM gave to this job.

    Attributes
    ----------
    job_id
        The number of the job; each task of an array has its own.
    nodes
        The names of the nodes, in SLURM's order; the batch script runs on the first.
    n_tasks
        How many tasks were asked for on all nodes: how many ranks may be started. Within a step of
        `srun`, those of the step.
    node
        The name of this process's node; None on the login node (`salloc`).
    n_restarts
        How often the job was requeued.
    array_task
        The index within the job array; None without one.
    end_time_s
        When the allocation ends, Unix time in seconds; None where the environment does not say it (before
        SLURM 23.02, or without a limit): see `find_end_time`.
    is_step
        Whether `srun` started this process, rather than the batch script or `salloc`.
    """

    job_id: str
    nodes: tuple[str, ...]
    n_tasks: int
    node: str | None = None
    n_restarts: int = 0
    array_task: int | None = None
    end_time_s: float | None = None
    is_step: bool = False

    def as_dict(self) -> dict[str, Any]:
        """What the manifest says of it."""
        kept = ("job_id", "array_task", "n_restarts", "nodes", "n_tasks", "end_time_s")
        return {name: value for name, value in self._asdict().items() if name in kept}


def find_allocation(environ: Mapping[str, str]) -> Allocation | None:
    """Read from the environment what SLURM gave; None outside of an allocation.

    Raises
    ------
    UsageError
        A variable of SLURM's does not say what SLURM writes there.

    Examples
    --------
    >>> found = find_allocation(
    ...     {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "4(x2)"}
    ... )
    >>> found.nodes, found.n_tasks, found.n_restarts
    (('n1', 'n2'), 8, 0)
    """
    job_id = environ.get("SLURM_JOB_ID")
    if not job_id:
        return None
    per_node = _read(environ, "SLURM_TASKS_PER_NODE", parse_counts)
    end_time_s = _read(environ, "SLURM_JOB_END_TIME", int)
    return Allocation(
        job_id=job_id,
        nodes=_read(environ, "SLURM_JOB_NODELIST", parse_nodes) or (),
        n_tasks=_read(environ, "SLURM_NTASKS", int) or sum(per_node or ()) or 1,
        node=environ.get("SLURMD_NODENAME"),
        n_restarts=_read(environ, "SLURM_RESTART_COUNT", int) or 0,
        array_task=_read(environ, "SLURM_ARRAY_TASK_ID", int),
        end_time_s=float(end_time_s) if end_time_s else None,
        is_step="SLURM_STEP_ID" in environ,
    )


def find_end_time(allocation: Allocation, now_s: float | None = None) -> float | None:
    """When the allocation ends, Unix time in seconds; None if it has no end, or SLURM does not answer.

    Asks SLURM, once and for some seconds at the most, where the environment does not say it, or says a time
    that is past: somebody may have prolonged the job. For the master alone: thousands of ranks that ask at
    once would stop the controller.

    Parameters
    ----------
    now_s
        Unix time, by default this machine's.

    Raises
    ------
    UsageError
        The end is past.
    """
    now_s = time.time() if now_s is None else now_s
    known = allocation.end_time_s
    end_time_s = known if known is not None and known > now_s else _ask_end_time(allocation.job_id) or known
    if end_time_s is not None and end_time_s <= now_s:
        raise UsageError(
            f"the time of SLURM job {allocation.job_id} was over {now_s - end_time_s:,.0f} s ago "
            f"({time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(end_time_s))}, this node's clock): "
            "submit it again, or unset SLURM_JOB_ID if this shell is no part of that job"
        )
    return end_time_s


def _ask_end_time(job_id: str) -> float | None:
    import subprocess  # for this call alone

    try:
        answer = subprocess.run(
            ["squeue", "-h", "-j", job_id, "-O", "JobID,EndTime"],
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},  # no time zone to guess
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    # The last task of an array has the array's own number, which stands for all its tasks.
    ends = dict(line.split(maxsplit=1) for line in answer.splitlines() if " " in line.strip())
    end = ends.get(job_id, "").strip()
    return float(end) if end.isdecimal() else None


def _read(environ: Mapping[str, str], name: str, parse: Callable[[str], Any]) -> Any:
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        return parse(text)
    except ValueError:
        raise UsageError(
            f"{name} is {text!r}, which is not what SLURM writes there: leave it as SLURM set it, "
            "or unset SLURM_JOB_ID to run outside of the job"
        ) from None


def parse_counts(text: str) -> list[int]:
    """The tasks, or cores, of each node, from SLURM's short form.

    Raises
    ------
    ValueError
        It is not of that form.

    Examples
    --------
    >>> parse_counts("2(x3),1")
    [2, 2, 2, 1]
    """
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise ValueError(text)
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def parse_nodes(text: str) -> tuple[str, ...]:
    """The names of nodes, from SLURM's short form.

    Raises
    ------
    ValueError
        It is not of that form.

    Examples
    --------
    >>> parse_nodes("gpu,n[08-10,12],rack[1-2]n[1-2]")
    ('gpu', 'n08', 'n09', 'n10', 'n12', 'rack1n1', 'rack1n2', 'rack2n1', 'rack2n2')
    """
    parts = re.findall(r"(?:[^][,]|\[[\d,-]+\])+", text)
    if ",".join(parts) != text:
        raise ValueError(text)
    return tuple(name for part in parts for name in _expand(part))


def _expand(part: str) -> list[str]:
    """The names of one part of a list, which has any number of ``[08-10,12]`` in it."""
    pieces = re.split(r"\[([\d,-]+)\]", part)
    choices = [_numbers(piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return ["".join(choice) for choice in product(*choices)]


def _numbers(ranges: str) -> list[str]:
    """The numbers of ``08-10,12``, as wide as they are written."""
    numbers: list[str] = []
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= high - low < _MOST_NODES:
            raise ValueError(ranges)
        numbers += [str(number).zfill(len(first)) for number in range(low, high + 1)]
    return numbers
