"""A simulated run left behind as a run directory, so that a report can be made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpims import __version__
from mpims.errors import UsageError
from mpims.simulator.costs import Costs
from mpims.simulator.engine import Engine
from mpims.simulator.machine import Played
from mpims.simulator.recorder import Recorder, host_of
from mpims.simulator.study import Study, make_policies, set_up
from mpims.storage.manifest import FORMAT
from mpims.storage.results import NotWritten
from mpims.storage.rundir import MANIFEST, create_run_dir, write_json


def check_recordable(study: Study) -> None:
    """Refuse to record a study of several runs.

    Raises
    ------
    UsageError
        It has more than one policy, number of workers, or repetition.
    """
    if len(study.policies) != 1 or len(study.n_workers) != 1 or study.n_runs != 1:
        raise UsageError(
            "--trace records one run: give one --policy (not all), one number of --workers, and no --repeat"
        )


def record_run(study: Study, costs: Costs, path: Path, workers_per_host: int = 64) -> Played:
    """Simulate a run, and write its manifest and trace.

    Parameters
    ----------
    study
        One policy on one number of workers.
    costs
        What the blocks cost.
    path
        The run directory, new or empty.
    workers_per_host
        How many workers share a virtual host.

    Raises
    ------
    UsageError
        It is not one run, or the folder cannot be used; or the disk is full.
    """
    check_recordable(study)
    policies = make_policies(study, costs, study.machine)
    if len(policies) != 1:
        raise UsageError("--trace records one run: give one --policy, as in --policy auto")
    (label, policy), n_workers = policies[0], study.machine.n_workers
    folder = create_run_dir(path, "simulated", "--trace")
    scheduler, machine = set_up(policy, costs, study.machine, classic=study.classic)
    recorder = Recorder(folder, scheduler, costs, n_workers, workers_per_host)
    played = Engine(scheduler, costs, machine, recorder=recorder).run()
    recorder.close()
    try:
        write_json(folder / MANIFEST, _manifest(label, costs, n_workers, workers_per_host))
    except NotWritten as error:
        raise error.at_the_start from None
    return played


def _manifest(policy: str, costs: Costs, n_workers: int, workers_per_host: int) -> dict[str, Any]:
    """What of a run's manifest makes sense here."""
    return {
        "format": FORMAT,
        "simulated": True,
        "job": "simulated items",
        "parameters": {},
        "n_items": costs.n_items,
        "block": costs.block,
        "options": {"policy": policy},
        "n_ranks": n_workers + 1,
        "host": host_of(0, workers_per_host),
        "versions": {"mpims": __version__},
    }
