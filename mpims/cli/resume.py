"""``mpims resume``: go on with a run that was stopped, or died."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from mpims.cli.run import add_options, add_time, compute, launch, must_launch, options_from
from mpims.errors import UsageError
from mpims.job import Job
from mpims.loading import JobSource, check_unchanged, make_job
from mpims.options import RunOptions
from mpims.storage.manifest import check_computed
from mpims.storage.rundir import MANIFEST, read_job, read_json

DESCRIPTION = """\
Go on with a run where it ended: with the options it had, unless others are given here, on any number of
ranks. The result has the same bits as that of a run that was never disturbed. A run that is done says so.

The job, its parameters and the seed must be what they were; what has changed is named.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "resume",
        help="go on with a run that was stopped or died",
        description=DESCRIPTION,
    )
    parser.set_defaults(command=resume_command)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run directory")
    add_options(parser, of_run=True)
    add_time(parser)


def resume_command(arguments: argparse.Namespace) -> int:
    """Go on with the run; give the exit status."""
    if must_launch(arguments):
        return launch(arguments)

    def prepare() -> tuple[Job, RunOptions, JobSource | None]:
        folder = arguments.run
        manifest = read_json(folder / MANIFEST)
        check_computed(manifest, folder)
        job, source = load_job(folder, manifest["seed"])
        base = _options(manifest, folder)
        return job, options_from(arguments, base, run_dir=folder, resume=True), source

    return compute(arguments, prepare)


def load_job(folder: Path, seed: int) -> tuple[Job, JobSource]:
    """Make the job of a run again.

    Parameters
    ----------
    folder
        The run directory.
    seed
        What its manifest says: it decides the result, and a manifest is a text that can be changed.

    Raises
    ------
    UsageError
        The run is not there, or its job cannot be made from here, or has changed.
    """
    stored = read_job(folder)
    if stored.get("seed", seed) != seed:
        raise UsageError(
            f"cannot resume {folder}: the seed is {seed} in its {MANIFEST}, was {stored['seed']} when it "
            "began; put it back as it was, or start a new run in another --run-dir"
        )
    source: JobSource | None = stored["source"]
    if source is None:
        raise UsageError(
            f"run {folder} was started by a program (mpims.run): "
            "start that program again, with run_dir and resume=True"
        )
    check_unchanged(source)
    return make_job(source, stored["parameters"]), source


def _options(manifest: dict[str, Any], folder: Path) -> RunOptions:
    """The options that a run had."""
    known = {field.name for field in fields(RunOptions)}
    had = {name: value for name, value in manifest.get("options", {}).items() if name in known}
    try:
        return RunOptions(**had, seed=manifest["seed"])
    except (TypeError, KeyError, UsageError) as error:
        raise UsageError(f"{folder / MANIFEST} is damaged: its options are {had!r} ({error})") from None
