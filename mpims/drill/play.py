"""The driver of a drill: starts runs, injects faults when their moment has come, sees how it ends."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpims.drill.plan import Fault, FaultKind
from mpims.drill.report import Ending, Injection
from mpims.drill.watched import POLL_S, WatchedRun
from mpims.errors import ExitStatus
from mpims.processes import Process, send_signal
from mpims.report.wording import name_rank
from mpims.storage.rundir import MANIFEST, read_json

LONGEST_S = 7 * 86400.0
"""No undisturbed run is waited for longer."""
PERIOD_S = 0.06
"""A slow rank goes and stops once in this."""
_DONE = (ExitStatus.DONE, ExitStatus.SKIPPED)
_HANG_S = 60.0  # for a hung rank to be noticed, and then its successor


class Drill:
    """Runs one job again and again, in a folder.

    Parameters
    ----------
    arguments
        The command line behind ``mpims run``: the job and its options.
    n_ranks
        How many ranks each run has.
    folder
        Where the runs leave their files.
    cwd, environ
        As for `WatchedRun`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        n_ranks: int,
        folder: Path,
        *,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._arguments = list(arguments)
        self._n_ranks = n_ranks
        self._folder = folder
        self._cwd, self._environ = cwd, environ

    def _start(self, name: str, limit_s: float, *, resume: bool = False) -> WatchedRun:
        run_dir = self._folder / name
        command = ["run", *self._arguments, "--run-dir", str(run_dir)]
        if resume:
            command = ["resume", str(run_dir)]
        return WatchedRun(
            [*command, "-n", str(self._n_ranks), "--quiet", "--json"],
            run_dir,
            self._n_ranks,
            self._folder / f"{name}.out",
            limit_s=limit_s,
            cwd=self._cwd,
            environ=self._environ,
        )

    def undisturbed(self) -> Ending:
        """Run the job with nothing done to it."""
        with self._start("undisturbed", LONGEST_S) as run:
            run.wait()
            return _ending(run, run.elapsed_s)

    def disturbed(self, plan: Sequence[Fault], undisturbed_s: float) -> tuple[Ending, list[Injection]]:
        """Run the job, and inject faults; resume it after each crash.

        Parameters
        ----------
        undisturbed_s
            What a run takes with nothing done to it: many times that, and it is ended.
        """
        began = time.monotonic()
        slowest = max((fault.factor for fault in plan), default=1.0)
        n_hangs = sum(fault.kind is FaultKind.HANG for fault in plan)
        limit_s = 60.0 + 10 * undisturbed_s * self._n_ranks * slowest + _HANG_S * n_hangs
        injector = _Injector(plan, began)
        resume = False
        while True:
            with self._start("disturbed", limit_s, resume=resume) as run:
                crashed = injector.play(run)
                ending = _ending(run, time.monotonic() - began)
            if not crashed:
                return ending, injector.injections()
            resume = True


class _Injector:
    """Injects the faults of a plan, over all the parts of a run."""

    def __init__(self, plan: Sequence[Fault], began: float) -> None:
        self._plan = plan
        self._began = began
        self._joined = math.inf
        self._pending = list(plan)
        self._done: dict[int, Injection] = {}  # by the fault's id: two may be equal
        self._slow: list[_SlowRank] = []
        self._to_continue: list[tuple[float, Process]] = []

    def injections(self) -> list[Injection]:
        """The plan, and what came of it."""
        too_late = "too late: the run was over"
        return [self._done.get(id(fault), Injection(fault, missed=too_late)) for fault in self._plan]

    def play(self, run: WatchedRun) -> bool:
        """See a run through; give whether a crash was injected that ended it."""
        self._slow, self._to_continue = [], []
        if not run.wait_for(run.ranks):
            return False
        self._joined = min(self._joined, time.monotonic())
        n_items = read_json(run.run_dir / MANIFEST)["n_items"]
        slow = {fault.rank: fault.factor for fault in self._plan if fault.kind is FaultKind.SLOW}
        self._slow = [_SlowRank(run.ranks()[rank], factor) for rank, factor in slow.items()]
        while not run.is_over():
            now = time.monotonic()
            share = run.n_done() / n_items
            for fault in [*self._pending]:
                if fault.moment.has_come(share, now - self._joined):
                    self._pending.remove(fault)
                    self._inject(fault, run, share)
                    if fault.kind is FaultKind.CRASH:
                        return True
            self._go_on(now)
            time.sleep(POLL_S)
        return False

    def _inject(self, fault: Fault, run: WatchedRun, share: float) -> None:
        at_s = time.monotonic() - self._began
        rank, process = fault.rank, run.ranks()[fault.rank]  # a crash is not of this one alone
        hit = True
        if fault.kind is FaultKind.CRASH:
            run.kill()
        elif fault.kind is FaultKind.KILL:
            hit = run.signal(rank, signal.SIGKILL)
        elif fault.kind is FaultKind.HANG:
            hit = run.signal(rank, signal.SIGSTOP)
            self._slow = [slow for slow in self._slow if slow.process != process]
            if fault.hang_s is not None:
                self._to_continue.append((time.monotonic() + fault.hang_s, process))
        missed = "" if hit else f"too late: {name_rank(rank, process.host)} was gone at {share:.0%}"
        self._done[id(fault)] = Injection(fault, at_s if hit else None, share, missed, process.host)

    def _go_on(self, now: float) -> None:
        """Do what is due for ranks that hang for a while, or are slow."""
        for at, process in [*self._to_continue]:
            if now >= at:
                send_signal(process, signal.SIGCONT)
                self._to_continue.remove((at, process))
        for slow in self._slow:
            slow.step(now)


class _SlowRank:
    """A rank that is stopped by turns."""

    def __init__(self, process: Process, factor: float) -> None:
        self.process = process
        self._goes_s = PERIOD_S / factor
        self._began = time.monotonic()
        self._goes = True

    def step(self, now: float) -> None:
        """Stop it or let it go on, as it is due."""
        goes = (now - self._began) % PERIOD_S < self._goes_s
        if goes is not self._goes:
            self._goes = goes
            send_signal(self.process, signal.SIGCONT if goes else signal.SIGSTOP)


def _ending(run: WatchedRun, wall_s: float) -> Ending:
    """How a run ended."""
    status = run.launcher.returncode
    try:
        summary: Any = json.loads(run.output.read_bytes()) if status in _DONE else {}
    except ValueError:
        return Ending(status, wall_s, error=f"it did not print its summary, but: {run.output}")
    if status in _DONE:
        return Ending(status, wall_s, summary)
    lines = run.errors.read_text(encoding="utf-8", errors="replace").strip().split("\n")
    error = f"the run ended with status {status}: {lines[-1].removeprefix('mpims: ')}"
    if run.overdue:
        error = f"the run was not over after {run.elapsed_s:.0f} s: it was ended"
    return Ending(status, wall_s, error=error)
