"""Run a program under a hard limit, and leave nothing of it behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from mpims.supervise import find_marked

ROOT = Path(__file__).resolve().parent.parent
MARK = "BENCH_CHILD"
LIMIT_S = 150.0
ENDING_S = 5.0
ACCIDENT = "listener thread failed to start"
"""What Open MPI says, once in some hundred starts, of a network interface that it cannot read."""

QUIET = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # or it leaves a token in the home folder
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Every program has one thread a process; no peer writes outside its folder, nor calls anyone."""


class DidNotRun(Exception):
    """A program that failed, with its reason in one line."""


def run(command: Sequence[str], environ: Mapping[str, str], *, limit_s: float = LIMIT_S) -> str:
    """Run a program to its end; give what it prints.

    Where the launcher fails by an accident of its own, before it has started any rank, it is tried again.

    Raises
    ------
    DidNotRun
        It failed, or took longer than the limit.
    """
    try:
        return _run_once(command, environ, limit_s)
    except DidNotRun as error:
        if ACCIDENT not in str(error):
            raise
    return _run_once(command, environ, limit_s)


def _run_once(command: Sequence[str], environ: Mapping[str, str], limit_s: float) -> str:
    mark = uuid.uuid4().hex
    paths = [environ.get("PYTHONPATH", ""), str(ROOT)]
    environ = {
        **os.environ,
        **QUIET,
        **environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        MARK: mark,
    }
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or what is not installed is compiled again and again
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            status = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise DidNotRun(f"no end within {limit_s:g} s") from None
        finally:
            end(child, f"{MARK}={mark}".encode())
        output.seek(0)
        errors.seek(0)
        text = output.read()
        if status:
            raise DidNotRun(f"exit status {status}: {reason(errors.read() or text)}")
        return text


def end(child: subprocess.Popen[bytes], mark: bytes) -> None:
    """End the program if it runs, and every process of its that is left."""
    if child.poll() is None:
        child.terminate()  # launchers end their ranks
        with suppress(subprocess.TimeoutExpired):
            child.wait(ENDING_S)
    for process in find_marked(mark):
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)
    child.wait()


def reason(text: str) -> str:
    """The line of a program's errors that says why."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" -*=")]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|WrongAnswer)\b", line)]
    telling = raised[-1:] or [line for line in lines if "error" in line.lower()] or lines
    return telling[0][:200] if telling else "it said nothing"


def figures(text: str) -> dict[str, float]:
    """The figures in what a program prints: its last line that is JSON."""
    for line in reversed(text.splitlines()):
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    raise DidNotRun("it printed no figures")
