"""Batch scripts for SLURM, as the value of a function: nothing here asks a machine anything."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mpims.errors import UsageError
from mpims.launch import Flavour, Launcher
from mpims.report.wording import counted

_LOG = "%x-%j.out"
_MOST_PARTS = 50
_MOST_SIGNAL_S = 120
_SOONEST_S = 60  # a part shorter than that is over before it has begun
_TIME = re.compile(r"(?:(\d+)-(\d+)(?::(\d+))?(?::(\d+))?|(\d+)|(\d+):(\d+)|(\d+):(\d+):(\d+))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a batch script is made of.

    Parameters
    ----------
    name
        The name of the job in the queue.
    arguments
        What ``mpims run`` is told: the job, its parameters, its options.
    python
        The Python to run it with.
    launcher
        The launcher that ``mpims run`` finds with that Python.
    nodes, ntasks_per_node
        How many nodes, and how many ranks on each.
    time
        The walltime, as SLURM writes it: ``MINUTES``, ``HH:MM:SS``, ``D-HH:MM:SS``.
    partition, account, mem
        As for ``sbatch``; None leaves it to the cluster's defaults.
    options
        Further options of ``sbatch``, each with its value: ``--qos=high``.
    run_dir
        The run directory; None makes ``runs/NAME-NUMBER``.
    requeue
        Whether a run that takes longer than its walltime requeues itself.
    n_given
        How many ranks ``mpims run`` is told to start; None: one for each task.

    Raises
    ------
    UsageError
        A value is not of the form that it must have.
    """

    name: str
    arguments: tuple[str, ...]
    python: str
    launcher: Launcher
    nodes: int
    ntasks_per_node: int
    time: str
    partition: str | None = None
    account: str | None = None
    mem: str | None = None
    options: tuple[str, ...] = ()
    run_dir: str | None = None
    requeue: bool = False
    n_given: int | None = None

    def __post_init__(self) -> None:
        for name, count in (("--nodes", self.nodes), ("--ntasks-per-node", self.ntasks_per_node)):
            if count < 1:
                raise UsageError(f"{name} wants at least 1, found {count}")
        limit_s = parse_time(self.time)
        if self.requeue and limit_s is not None and limit_s <= _SOONEST_S:
            raise UsageError(f"--requeue wants parts of more than a minute, found --time {self.time}")
        if self.mem is not None and not re.fullmatch(r"\d+[KMGT]?", self.mem, re.IGNORECASE):
            raise UsageError(
                f"--mem wants the megabytes of a node, or a number with K, M, G or T behind it, "
                f"found {self.mem!r}"
            )
        for name, value in (("--partition", self.partition), ("--account", self.account)):
            if value is not None and not re.fullmatch(r"[^\s#]+", value):
                raise UsageError(f"{name} wants a name, found {value!r}")
        for option in self.options:
            if not re.fullmatch(r"--?[A-Za-z][^\n]*", option):
                raise UsageError(
                    f"--sbatch wants one option of sbatch, such as --qos=high, found {option!r}"
                )

    @property
    def n_tasks(self) -> int:
        """How many ranks there may be."""
        return self.nodes * self.ntasks_per_node

    @property
    def n_ranks(self) -> int:
        """How many ranks there will be, the master among them."""
        return self.n_tasks if self.n_given is None else self.n_given

    def log(self, job_id: str) -> str:
        """Where SLURM writes what the job of that number says, as far as the options tell."""
        name = _last_given(self.options, "-J", "--job-name") or self.name
        pattern = _last_given(self.options, "-o", "--output") or _LOG
        return pattern.replace("%x", name).replace("%j", job_id)


def _last_given(options: Sequence[str], short: str, long: str) -> str | None:
    """What the last of these options says that are called so; None if there is none."""
    found = (re.fullmatch(rf"(?:{short}\s*|{long}[=\s]\s*)(.*?)\s*", option) for option in options)
    return next((match[1] for match in reversed([*found]) if match), None)


def parse_time(text: str) -> int | None:
    """The seconds of a walltime as SLURM writes it; None for no limit.

    Raises
    ------
    UsageError
        It is not of that form.

    Examples
    --------
    >>> parse_time("90"), parse_time("01:30:00"), parse_time("1-12"), parse_time("UNLIMITED")
    (5400, 5400, 129600, None)
    """
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return None
    match = _TIME.fullmatch(text)
    days, hours, minutes, seconds = 0, 0, 0, 0
    if match is None:
        raise UsageError(f"--time wants MINUTES, HH:MM:SS or D-HH:MM:SS, found {text!r}")
    found = [int(group) for group in match.groups() if group is not None]
    if match[1] is not None:
        days, hours, minutes, seconds = (*found, 0, 0)[:4]
    elif len(found) < 3:
        minutes, seconds = (*found, 0)[:2]
    else:
        hours, minutes, seconds = found
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds or None


def render_script(batch: Batch) -> str:
    """The text of a batch script that computes a job, every choice in it explained.

    Examples
    --------
    >>> launcher = Launcher("/opt/bin/mpirun", Flavour.OPEN_MPI, "5.0.11", ulfm=True)
    >>> batch = Batch(name="pi", arguments=("pi.py",), python="python", launcher=launcher,
    ...               nodes=2, ntasks_per_node=40, time="1:00:00")
    >>> print(render_script(batch).splitlines()[3])
    #SBATCH --job-name=pi
    """
    body = _in_parts(batch) if batch.requeue else _at_once(batch)
    lines = [*_header(batch), "", *_launch_explained(batch), *body]
    return "\n".join(lines) + "\n"


def _header(batch: Batch) -> list[str]:
    given = (("partition", batch.partition), ("account", batch.account), ("mem", batch.mem))
    roles = (
        "rank 0 hands out and takes in, the others compute" if batch.n_ranks > 1 else "it computes itself"
    )
    lines = [
        "#!/bin/bash",
        f"# {' '.join(shlex.join(batch.arguments).split())}",
        f"# on {counted(batch.n_ranks, 'rank')}: {roles}.",
        f"#SBATCH --job-name={batch.name}",
        f"#SBATCH --nodes={batch.nodes}",
        "# One rank per core: each computes with one thread.",
        f"#SBATCH --ntasks-per-node={batch.ntasks_per_node}",
        f"#SBATCH --time={batch.time}",
        *(f"#SBATCH --{name}={value}" for name, value in given if value is not None),
        f"#SBATCH --output={_LOG}",
        *(f"#SBATCH {option}" for option in batch.options),
    ]
    return lines + _PARTS_HEADER.format(before_s=_signal_s(batch)).splitlines() * batch.requeue


def _launch_explained(batch: Batch) -> list[str]:
    """Why there is no launcher in the script, and what is behind that."""
    launcher = batch.launcher
    survives = launcher.flavour is Flavour.OPEN_MPI and launcher.ulfm
    return [
        "# mpims starts a rank for each task itself, by the launcher of the MPI that this Python loads:",
        f"# {launcher.path} ({launcher.flavour.value} {launcher.version}).",
        *_ABOUT[launcher.flavour].splitlines(),
        *(_SURVIVES if survives else _SURVIVES_NOT).splitlines(),
    ]


_ABOUT = {
    Flavour.OPEN_MPI: """\
# It takes the nodes from SLURM. Not srun: without --mpi=pmix that starts as many worlds of one rank. And
# never --oversubscribe: it puts all ranks on the first node.""",
    Flavour.MPICH: """\
# It takes the nodes from SLURM, and is given SLURM_MPI_TYPE=none: with another PMI beside its own the ranks
# end at once.""",
    Flavour.INTEL_MPI: """\
# It takes the nodes from SLURM. Not srun: without its PMI that starts as many worlds of one rank.""",
}
_SURVIVES = "# By --with-ft ulfm the other ranks go on when one dies; ranks that srun starts do not."
_SURVIVES_NOT = "# With this MPI a rank that dies ends the run; it can be resumed then."

_PARTS_HEADER = """\
#SBATCH --requeue
# Each part adds to the same log.
#SBATCH --open-mode=append
# USR1 comes {before_s} s before the end, to this script alone (B:): sent to the ranks it would kill the
# launcher's daemons on the other nodes.
#SBATCH --signal=B:USR1@{before_s}"""

IN_PARTS = """\
mpims=$!
wait "$mpims"                           # a signal ends this wait, not mpims
while kill -0 "$mpims" 2>/dev/null; do wait "$mpims"; done
wait "$mpims"
status=$?

# What is done is told by the run directory, whatever became of the launcher.
[ "$status" = 75 ] && grep -qs '"status": "done"' "$run_dir/summary.json" && status=0
if [ "$status" = 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt $((most_parts - 1)) ]; then
    task=${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}      # of an array this task alone
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}$task" && sleep 600   # SLURM starts it again
fi
exit "$status"
"""
"""How ``slurm/resume.sbatch`` ends, and every script with `requeue`."""


def _at_once(batch: Batch) -> list[str]:
    return [f"exec {_command(batch)} --run-dir {_run_dir(batch)}"]


def _in_parts(batch: Batch) -> list[str]:
    """The run in as many parts as it takes."""
    # The user's own --grace comes later, and counts.
    command = _command(batch, "--grace", str(_signal_s(batch) // 2))
    return [
        f"run_dir={_run_dir(batch)}    # the number stays when the job is requeued",
        f"most_parts={_MOST_PARTS}    # more: an item that takes longer than a part?",
        "",
        "# Asked to stop, mpims hands nothing more out, takes in what comes in --grace, and exits with 75.",
        """trap 'kill -USR1 "$mpims"' USR1""",
        f'{command} --run-dir "$run_dir" --resume &',
        *IN_PARTS.splitlines(),
    ]


def _signal_s(batch: Batch) -> int:
    """So many seconds before the walltime the run is to stop."""
    limit_s = parse_time(batch.time)
    return _MOST_SIGNAL_S if limit_s is None else min(_MOST_SIGNAL_S, limit_s // 3)


def _command(batch: Batch, *options: str) -> str:
    return shlex.join([batch.python, "-m", "mpims", "run", *options, *batch.arguments])


def _run_dir(batch: Batch) -> str:
    if batch.run_dir is not None:
        return shlex.quote(batch.run_dir)
    return f'"runs/{batch.name}-$SLURM_JOB_ID"'
