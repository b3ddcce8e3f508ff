"""Ranks that the doctor starts itself: bounded in time, and none is left behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

from mpims.doctor.finding import Finding, Verdict
from mpims.doctor.units import time_text
from mpims.errors import UsageError
from mpims.processes import ending_with_parent
from mpims.report.wording import counted
from mpims.supervise import end_launcher, kill_marked, temporary_files

MARK = "MPIMS_DOCTOR"
"""Environment variable by which all processes of a measurement are known."""

_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its status, None if it took too long; what it printed; the seconds it took."""

    status: int | None
    output: str
    errors: str
    seconds: float


def run_bounded(command: Sequence[str], limit_s: float) -> Ended:
    """Run a program for so long at the most; no process of it on this host outlives this call.

    Raises
    ------
    UsageError
        It cannot be started, or there is no place for what it prints.
    """
    mark = f"{MARK}={uuid4().hex}"
    name, _, value = mark.partition("=")
    began = time.monotonic()
    with ExitStack() as files:
        with temporary_files():
            output, errors = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        try:
            launcher = subprocess.Popen(
                command,
                env={**os.environ, name: value},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                preexec_fn=ending_with_parent(signal.SIGTERM),
            )
        except OSError as error:
            raise UsageError(f"{command[0]}: {error.strerror}") from None
        status = None
        try:
            status = launcher.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            end_launcher(launcher, _END_S)
            kill_marked(mark.encode())
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace").replace("\0", ""))
    return Ended(status, texts[0], texts[1], time.monotonic() - began)


def started_findings(command: Sequence[str], n_ranks: int, limit_s: float) -> Iterator[Finding]:
    """Start ranks that examine each other; give what they found, or nothing but that they failed.

    Parameters
    ----------
    command
        The launcher and a program whose rank 0 prints its findings as a list in JSON, as the last line.
    """
    cure = f"see what it says: {shlex.join(command)}"
    try:
        ended = run_bounded(command, limit_s)
    except UsageError as error:
        value = f"{counted(n_ranks, 'rank')} could not be examined ({error.message})"
        yield Finding("ranks", "start", value, Verdict.BAD, cure)
        return
    figures = {"n_ranks": n_ranks, "seconds": ended.seconds, "status": ended.status}
    try:
        found = [Finding.from_dict(fields) for fields in json.loads(ended.output.strip().split("\n")[-1])]
    except (ValueError, TypeError, KeyError):
        yield Finding("ranks", "start", _failure(ended, n_ranks, limit_s), Verdict.BAD, cure, figures)
        return
    value = f"{counted(n_ranks, 'rank')}, started and measured in {time_text(ended.seconds)}"
    yield Finding("ranks", "start", value, figures=figures)
    yield from found


def _failure(ended: Ended, n_ranks: int, limit_s: float) -> str:
    said = [line.strip() for line in ended.errors.splitlines() if line.strip(" -=*")]
    how = f"status {ended.status}" if ended.status is not None else f"not over after {limit_s:g} s"
    return f"{counted(n_ranks, 'rank')} could not be examined ({how}){': ' + said[-1] if said else ''}"
