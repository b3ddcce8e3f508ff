"""One run on the master: its parts, made in order, and what is written and said of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpims.core.deadlines import Deadlines
from mpims.core.ledger import Ledger
from mpims.core.policies import Sizer, parse_policy
from mpims.core.scheduler import Scheduler
from mpims.digest import digest
from mpims.errors import MpimsError, RunFailed, describe, user_traceback
from mpims.job import Job, block_of
from mpims.loading import JobSource
from mpims.options import RunOptions
from mpims.report.progress import NoProgress, TextProgress
from mpims.report.summary import Summary, balance, summary_lines
from mpims.runtime.items import check_kernel, items_identity, resolve_items
from mpims.runtime.master import Master
from mpims.runtime.threads import one_thread
from mpims.runtime.transport.base import Transport
from mpims.runtime.transport.local import local_transports
from mpims.runtime.wire import Start
from mpims.runtime.worker import Worker
from mpims.storage.manifest import make_manifest
from mpims.storage.results import new_results
from mpims.storage.rundir import create_run_dir, write_json

LONGEST_REPORT_INTERVAL_S = 1.0
"""A worker reports at least this often, if its blocks are short enough ..."""
REPORTS_PER_TIMEOUT = 4
"""... and this often within the user's timeout."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave.

    Attributes
    ----------
    value
        The job's result; a gathered array is mapped from its file.
    summary
        The contents of ``summary.json``.
    run_dir
        The run directory.
    """

    value: Any
    summary: Summary
    run_dir: Path


class Farm:
    """A job, its options, and everything that the master needs to compute it.

    Parameters
    ----------
    job
        The job.
    options
        How it is to be run.
    transport
        The way to the workers; None if this process is to compute by itself.
    source
        Where the workers get the job from; None if they have it.

    Raises
    ------
    UsageError
        The job or the run directory is wrong.
    """

    def __init__(
        self, job: Job, options: RunOptions, transport: Transport | None, source: JobSource | None
    ) -> None:
        check_kernel(job)
        job._seed = options.seed
        self._items = resolve_items(job)
        self._n_items = len(self._items)
        self._block = block_of(job, self._n_items)
        self._n_ranks = 1 if transport is None else transport.size
        self._n_workers = max(1, self._n_ranks - 1)
        self._job, self._options, self._source = job, options, source
        self._say = say_nothing if options.quiet else say
        # Alone, master and worker take turns, and speak as two ranks would.
        self._ends: list[Any] = local_transports(2) if transport is None else [transport]
        self._folder = create_run_dir(options.run_dir, type(job).__name__)
        self._scheduler = self._make_scheduler()
        self._results = new_results(job.output, self._n_items, self._block, self._folder)
        self._identity = items_identity(self._items)
        self._master = Master(
            self._ends[0],
            self._scheduler,
            self._results,
            identity=self._identity,
            job=repr(job),
            workers=range(1, self._n_workers + 1),
            alone=transport is None,
            progress=NoProgress() if options.quiet else TextProgress(),
        )

    def _make_scheduler(self) -> Scheduler:
        options, block = self._options, self._block
        policy, size = parse_policy(options.policy)
        sizer = Sizer(
            policy(-(-self._n_items // block), self._n_workers, size and -(-size // block)),
            -(-options.chunk_min // block),
            options.chunk_max and -(-options.chunk_max // block),
        )
        ledger = Ledger(self._n_items, block)
        return Scheduler(ledger, sizer, Deadlines(options.timeout_s), self._n_workers)

    def run(self, command: Sequence[str]) -> Outcome:
        """Compute, keep a record of it whatever happens, and give the outcome."""
        manifest = make_manifest(
            self._job,
            self._options,
            source_digest=self._source.digest if self._source else None,
            items=self._identity,
            block=self._block,
            n_ranks=self._n_ranks,
            mpi=self._ends[0].library(),
            command=command,
        )
        write_json(self._folder / "manifest.json", manifest)
        self._announce()
        try:
            self._compute()
            value, path = self._results.close()
            self._finish(value)
        except BaseException as error:
            with suppress(MpimsError):  # a full disk, say: the first error is the one to tell
                self._write_record(manifest, _ending(error))
            raise
        done: Summary = {"status": "done", "result_file": str(path), "result_digest": _digest(value)}
        summary = self._write_record(manifest, done)
        for line in summary_lines(summary, value):
            self._say(line)
        return Outcome(value, summary, self._folder)

    def _write_record(self, manifest: dict[str, Any], ending: Summary) -> Summary:
        """Write what is known at the end, however it came."""
        summary: Summary = {**ending, **self._figures()}
        write_json(self._folder / "summary.json", dict(summary))
        write_json(self._folder / "manifest.json", {**manifest, "ranks": self._ranks()})
        return summary

    def _announce(self) -> None:
        job, n_blocks = self._job, -(-self._n_items // self._block)
        blocks = f" in {n_blocks:,} blocks of {self._block:,}" if self._block > 1 else ""
        ranks = "1 rank" if self._n_ranks == 1 else f"{self._n_ranks} ranks"
        self._say(f"{job!r}: {self._n_items:,} items{blocks} on {ranks}, {self._options.policy.upper()}")
        if self._n_ranks == 1:
            n_ranks = len(os.sched_getaffinity(0)) + 1
            self._say(f"one process computes; for all cores here: -n {n_ranks}, or mpirun -n {n_ranks} ...")
        elif self._n_workers > n_blocks:
            idle = self._n_workers - n_blocks
            self._say(f"{self._n_workers} workers for {n_blocks} blocks: {idle} will have nothing to do")

    def _compute(self) -> None:
        timeout_s = self._options.timeout_s or LONGEST_REPORT_INTERVAL_S * REPORTS_PER_TIMEOUT
        start = Start(
            source=self._source,
            parameters=self._job.parameters,
            seed=self._options.seed,
            report_interval_s=min(LONGEST_REPORT_INTERVAL_S, timeout_s / REPORTS_PER_TIMEOUT),
        )
        master = self._master
        with one_thread():
            try:
                master.begin(start)
                if self._n_ranks > 1:
                    master.run()
                else:
                    worker = Worker(self._ends[1], lambda start: self._job)
                    while not master.ended:
                        worker.step(0.0)
                        master.step(0.0)
            finally:
                master.stop()
        if master.error is not None:
            raise master.error

    def _finish(self, value: Any) -> None:
        """Call the job's own `finish`."""
        self._job.run_dir = self._folder
        try:
            self._job.finish(value)
        except MpimsError:
            raise
        except Exception as error:  # whatever the user's finish raises
            raise RunFailed(
                f"finish() raised {describe(error)}; the result itself is whole, in {self._folder}",
                user_traceback(error),
            ) from error

    def _figures(self) -> Summary:
        record, counters = self._master.record, self._scheduler.counters
        busy_s = [worker.busy_s for worker in record.workers.values()]
        efficiency, imbalance = balance(busy_s, self._n_workers, record.wall_s)
        return {
            "job": repr(self._job),
            "n_items": self._n_items,
            "n_ranks": self._n_ranks,
            "n_workers": self._n_workers,
            "policy": self._options.policy.upper(),
            "n_chunks": counters.n_chunks,
            "n_reissued": counters.n_reissued,
            "n_recalled": counters.n_recalled,
            "n_duplicates": counters.n_duplicates,
            "n_timeouts": counters.n_timeouts,
            "n_lost": counters.n_lost,
            "wall_s": record.wall_s,
            "busy_s": {str(rank): worker.busy_s for rank, worker in record.workers.items()},
            "master_cpu_s": record.cpu_s,
            "efficiency": efficiency,
            "imbalance": imbalance,
        }

    def _ranks(self) -> dict[str, Any]:
        workers = self._master.record.workers.items()
        return {str(rank): {"host": worker.host, "pid": worker.pid} for rank, worker in workers}


def _ending(error: BaseException) -> Summary:
    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted"}
    return {"status": "failed", "error": error.message if isinstance(error, MpimsError) else repr(error)}


def _digest(value: Any) -> str:
    try:
        return digest(value)
    except Exception as error:  # an object that cannot be taken apart, for reasons of its own
        return f"none: {describe(error)}"


def say(line: str) -> None:
    """Tell the user something that is no error."""
    print(f"mpims: {line}", file=sys.stderr, flush=True)


def say_nothing(line: str) -> None:
    """Keep quiet."""
