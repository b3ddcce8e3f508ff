"""``mpims slurm``: a batch script for a job, printed or submitted, and the job followed to its end."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpims.cli.counts import check_ranks
from mpims.cli.run import add_job, add_options, job_from, options_from
from mpims.cli.status import outside_lines
from mpims.errors import ExitStatus, RunFailed, UsageError
from mpims.job import Job
from mpims.launch import find_launcher
from mpims.options import RunOptions
from mpims.report.liveness import Outside, State, look_from_outside
from mpims.report.progress import make_view
from mpims.report.status import Status, read_status
from mpims.report.views import View
from mpims.report.wording import counted
from mpims.runtime.items import check_kernel
from mpims.slurm.controller import JobState, ask_cores, ask_state, submit
from mpims.slurm.script import Batch, render_script
from mpims.storage.rundir import MANIFEST, STATUS, as_argument
from mpims.streams import say, show, showing

DESCRIPTION = """\
Write a batch script that computes a job on SLURM, every choice in it explained. It is printed; with
--submit it is kept in runs/ and submitted. What is wrong with the job or its parameters is said now, and
not after a day in the queue. The options of `mpims run` go into the script as they are.

  mpims slurm jobs/pi.py --nodes 4 --time 2:00:00 > pi.sbatch
  mpims slurm jobs/pi.py --nodes 4 --time 2:00:00 --requeue --watch
"""

POLL_S = 3.0
LOG_INTERVAL_S = 30.0
SILENT_S = 600.0
"""After so long without an answer of SLURM's the job is no longer followed."""
_LOG_LINES = 5


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "slurm",
        help="write a batch script for SLURM, submit it, follow it",
        description=DESCRIPTION,
    )
    parser.set_defaults(command=slurm_command)
    add_job(parser)
    _add_batch(parser.add_argument_group("batch job"))
    add_options(parser)


def _add_batch(group: Any) -> None:
    """Add what `mpims run` knows nothing of."""
    add = group.add_argument
    add("--nodes", type=int, required=True, metavar="N", help="how many nodes")
    add(
        "--ntasks-per-node",
        type=int,
        metavar="N",
        help="ranks on each node; default: one per core, as many as SLURM says that its nodes have",
    )
    add("--time", required=True, metavar="T", help="the walltime: MINUTES, HH:MM:SS or D-HH:MM:SS")
    for name in ("partition", "account", "mem"):
        add(f"--{name}", metavar=name.upper(), help="as for sbatch; default: the cluster's own")
    add(
        "--sbatch",
        dest="sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="any other option of sbatch, with its value: --sbatch=--qos=high (again for each)",
    )
    add(
        "--requeue",
        action="store_true",
        help="a run that takes longer than the walltime stops in time, requeues itself and goes on",
    )
    add("--run-dir", metavar="DIR", help="where the run leaves its files; default runs/NAME-NUMBER")
    add("--submit", action="store_true", help="keep the script in runs/ and submit it")
    add(
        "--watch",
        action="store_true",
        help="submit it and follow the job to its end; Ctrl-C leaves it alone",
    )


def slurm_command(arguments: argparse.Namespace) -> int:
    """Render the script, submit it, follow it, as far as asked; give the exit status."""
    job = _check_job(arguments)
    batch = make_batch(arguments, type(job).__name__.lower(), sys.argv[2:])
    text = render_script(batch)
    if not arguments.submit and not arguments.watch:
        show(text.removesuffix("\n"))
        return ExitStatus.DONE
    script = _keep(text, batch.name)
    job_id = submit(script)
    log = Path(batch.log(job_id))
    folder = Path(batch.run_dir or f"runs/{batch.name}-{job_id}")
    say(f"submitted {script} as job {job_id} (to take it back: scancel {job_id}); its log is {log}")
    if not arguments.watch:
        say(f"when it runs: {_status_command(folder)}")
        return ExitStatus.DONE
    return _tell_end(job_id, folder, log, watch(job_id, folder, make_view(sys.stdout, LOG_INTERVAL_S)))


def _check_job(arguments: argparse.Namespace) -> Job:
    """Find what `mpims run` would find wrong."""
    options_from(arguments, RunOptions(seed=arguments.seed))
    check_ranks(arguments.n_ranks)
    job, _ = job_from(arguments)
    check_kernel(job)
    return job


def make_batch(arguments: argparse.Namespace, name: str, typed: list[str]) -> Batch:
    """What the script is made of.

    Parameters
    ----------
    name
        The name of the job.
    typed
        What was typed behind ``mpims slurm``: what is not of the batch job is for ``mpims run``.

    Raises
    ------
    UsageError
        A value does not make sense.
    """
    own = argparse.ArgumentParser(add_help=False)
    _add_batch(own)
    _, rest = own.parse_known_args(typed)
    if "--" in rest:  # only the job stands behind it; in the script --run-dir does, too
        rest.remove("--")
    n_tasks = arguments.ntasks_per_node
    batch = Batch(
        name=name,
        arguments=tuple(rest),
        python=sys.executable,
        launcher=find_launcher(),
        nodes=arguments.nodes,
        ntasks_per_node=ask_cores(arguments.partition) if n_tasks is None else n_tasks,
        time=arguments.time,
        partition=arguments.partition,
        account=arguments.account,
        mem=arguments.mem,
        options=tuple(arguments.sbatch),
        run_dir=arguments.run_dir,
        requeue=arguments.requeue,
        n_given=arguments.n_ranks,
    )
    if batch.n_ranks > batch.n_tasks:
        raise UsageError(
            f"-n {arguments.n_ranks} on {counted(batch.nodes, 'node')} of "
            f"{counted(batch.ntasks_per_node, 'task')}: "
            "leave -n out, or give more --nodes or --ntasks-per-node"
        )
    return batch


def _keep(text: str, name: str) -> Path:
    """Write the script where the runs are."""
    path = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.sbatch"
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; submit from a folder of yours") from None
    return path


def watch(
    job_id: str,
    folder: Path,
    view: View,
    *,
    ask: Callable[[str], JobState | None] = ask_state,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JobState | None:
    """Show a job and its run until it has ended; give its last state, None if it was not followed so far.

    Parameters
    ----------
    job_id
        The job.
    folder
        Its run directory, which may be yet to come.
    view
        Where to show it.
    """
    last, heard = None, clock()
    stale: Status | None = None  # what the part before a requeue said last
    try:
        while last is None or not last.has_ended:
            state = ask(job_id)
            if state is not None:
                heard = clock()
                if str(state) != str(last):
                    with showing():
                        view.note(f"job {job_id} is {state}")
                last = state
            elif clock() - heard > SILENT_S:
                return None
            status = read_status(folder / STATUS)
            if state is not None and state.name != "RUNNING":
                stale = status
            elif state is not None and status is not None and status != stale:
                with showing():
                    view.show(status)
            if last is None or not last.has_ended:
                sleep(POLL_S)
    except (KeyboardInterrupt, BrokenPipeError):
        return None
    finally:
        view.end()
    return last


def _status_command(folder: Path) -> str:
    return f"python -m mpims status {as_argument(folder)}"


def _tell_end(job_id: str, folder: Path, log: Path, state: JobState | None) -> int:
    """Say how the job ended, by its run directory; give the exit status."""
    if state is None:
        say(f"job {job_id} goes on, as far as is known: squeue -j {job_id}; {_status_command(folder)}")
        return ExitStatus.DONE
    if not (folder / MANIFEST).exists():
        raise RunFailed(f"job {job_id} ended as {state} before its run began: see {log}", _end_of(log))
    outside = look_from_outside(folder)
    show("\n".join(outside_lines(outside)))
    return _status_of(outside)


def _status_of(outside: Outside) -> ExitStatus:
    if outside.state is State.DONE:
        return ExitStatus.SKIPPED if (outside.summary or {}).get("n_skipped") else ExitStatus.DONE
    return ExitStatus.FAILED if outside.state is State.FAILED else ExitStatus.STOPPED


def _end_of(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_LINES:])
