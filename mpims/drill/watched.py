"""A run on ranks of this machine, watched from outside: who its ranks are, how far it is, signals to it.

::

    WatchedRun ----> python -m mpims run JOB -n 4      all of them carry MARK in their environment
       |               mpirun ...
       |                 ranks 0 ... 3
       |                   |
       '--- manifest.json, journal in the run directory
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from mpims.processes import Process, is_alive, process_of, send_signal
from mpims.storage.onlooker import Onlooker
from mpims.storage.rundir import MANIFEST
from mpims.supervise import find_marked

MARK = "MPIMS_DRILL"
"""Environment variable by which all processes of a run are known."""
POLL_S = 5e-3
GONE_S = 10.0
"""Killed processes are gone within this time, unless they wait for a dead file system."""


class WatchedRun:
    """A run in processes of its own, none of which outlives its ``with``.

    Parameters
    ----------
    arguments
        The command line behind ``python -m mpims``.
    run_dir
        The run directory that the command line names.
    n_ranks
        How many ranks it starts.
    output
        A file for what the run prints on standard output, which may have been over before it was ended;
        standard error is added to what is beside it, in ``.err``.
    limit_s
        So many seconds after its start the run is ended.
    cwd, environ
        Where, and in which environment, it is started; by default this process's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        run_dir: Path,
        n_ranks: int,
        output: Path,
        *,
        limit_s: float,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.output, self.errors = output, output.with_suffix(".err")
        self._n_ranks = n_ranks
        self._onlooker = Onlooker(run_dir)
        self._ranks: dict[int, Process] = {}
        self._manifest_time = 0
        self._mark = f"{MARK}={uuid4().hex}"
        self._memory = tempfile.TemporaryDirectory(prefix="mpims-drill-", dir=_memory_folder())
        self.began = time.monotonic()
        self.limit = self.began + limit_s
        self.overdue = False
        with self.output.open("wb") as stdout, self.errors.open("ab") as stderr:
            self.launcher = subprocess.Popen(
                [sys.executable, "-m", "mpims", *arguments],
                cwd=cwd,
                env={**(os.environ if environ is None else environ), **self._additions()},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def _additions(self) -> dict[str, str]:
        """What the processes have in their environment beside the user's.

        Launchers and ranks that are killed leave their files behind: in a folder that is removed.
        """
        name, _, value = self._mark.partition("=")
        folder = self._memory.name
        return {name: value, "TMPDIR": folder, "OMPI_MCA_btl_sm_backing_directory": folder}

    def __enter__(self) -> WatchedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -------------------------------------------------------------------- looking

    def is_over(self) -> bool:
        """Whether the run has ended; it is ended if it takes too long."""
        if self.launcher.poll() is None and time.monotonic() > self.limit:
            self.overdue = True
            self.kill()
        return self.launcher.poll() is not None

    def wait(self) -> int:
        """Wait for the end of the run; give its exit status."""
        self.wait_for(lambda: False)
        return self.launcher.returncode

    def wait_for(self, condition: Callable[[], object]) -> bool:
        """Wait until something is so; False if the run is over before."""
        while not condition():
            if self.is_over():
                return False
            time.sleep(POLL_S)
        return True

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run was started."""
        return time.monotonic() - self.began

    def n_done(self) -> int:
        """How many items are done."""
        return self._onlooker.n_done()

    def ranks(self) -> dict[int, Process]:
        """Who the ranks are, dead ones too; empty until all have joined."""
        if len(self._ranks) < self._n_ranks:
            self._ranks = self._read_ranks()
        return self._ranks if len(self._ranks) == self._n_ranks else {}

    def _read_ranks(self) -> dict[int, Process]:
        """The ranks in the manifest; those of an earlier part of a resumed run are dead, and no answer."""
        path = self.run_dir / MANIFEST
        try:
            written = path.stat().st_mtime_ns
            if written == self._manifest_time:
                return self._ranks
            named = json.loads(path.read_bytes()).get("ranks", {})
            ranks = {int(rank): Process.from_dict(process) for rank, process in named.items()}
        except FileNotFoundError:
            return {}
        self._manifest_time = written
        return {rank: process for rank, process in ranks.items() if is_alive(process) is not False}

    def processes(self) -> list[Process]:
        """All processes of the run that live, the launchers among them."""
        return [process_of(pid) for pid in find_marked(self._mark.encode())]

    # ------------------------------------------------------------------ disturbing

    def signal(self, rank: int, number: int) -> bool:
        """Send a signal to a rank that has joined; False if it is dead."""
        return send_signal(self.ranks()[rank], number)

    def kill(self) -> None:
        """Kill every process of the run at once, the launchers too."""
        deadline = time.monotonic() + GONE_S
        while True:
            victims = self.processes()
            for process in victims:
                with suppress(PermissionError):
                    send_signal(process, signal.SIGKILL)
            if not victims or time.monotonic() > deadline:
                break
            time.sleep(POLL_S)  # one may have been about to begin
        self.launcher.wait(GONE_S)

    def close(self) -> None:
        """End what is left of the run, and remove what it left outside its run directory."""
        try:
            self.kill()
        finally:
            self._memory.cleanup()


def _memory_folder() -> str | None:
    """Where ranks are to share memory: not on a disk, if there is another place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
