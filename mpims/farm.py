"""One run on the master: its parts, made in order, and its course from the first line to the last."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpims.errors import MpimsError, RunFailed, Stopped, describe, lacking, user_traceback
from mpims.job import Job, block_of
from mpims.loading import JobSource, pack_parameters
from mpims.options import RunOptions
from mpims.outcome import Outcome
from mpims.processes import Process, this_process
from mpims.record import RunRecord
from mpims.report.announcement import (
    advice_lines,
    done_line,
    fault_tier,
    opening_lines,
    printed_lines,
    resume_command,
    say_nothing,
    short_path,
    takeover_line,
)
from mpims.report.progress import make_progress
from mpims.report.wording import name_rank
from mpims.runtime.busysign import BusySign
from mpims.runtime.items import check_kernel, items_identity, job_identity, resolve_items
from mpims.runtime.lead import Lead
from mpims.runtime.master import Master
from mpims.runtime.scheduling import make_scheduler
from mpims.runtime.stopping import StopSignals
from mpims.runtime.threads import one_thread
from mpims.runtime.tracing import Tracing
from mpims.runtime.transport.base import Transport
from mpims.runtime.transport.joint import JointTransport
from mpims.runtime.wire import Kind, Start
from mpims.runtime.worker import OUTPUT, Worker
from mpims.slurm.allocation import find_allocation
from mpims.storage.checkpoint import Checkpoint
from mpims.storage.lock import NoLock, RunLock
from mpims.storage.manifest import check_computed, check_same_job, make_manifest, other_versions
from mpims.storage.results import LostResult, NotWritten, new_results, read_result
from mpims.storage.rundir import (
    MANIFEST,
    STATUS,
    SUMMARY,
    Damaged,
    create_run_dir,
    read_json,
    read_summary,
    write_job,
    write_json,
)
from mpims.storage.trace import Cause
from mpims.storage.tracewriter import TraceWriter
from mpims.streams import say
from mpims.timelimit import LAST_S, computing_ends_at, find_end
from mpims.world import report_resume


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
    lead
        What this rank has from the master before, if there was one.

    Raises
    ------
    UsageError
        The job or the run directory is wrong.
    """

    def __init__(
        self,
        job: Job,
        options: RunOptions,
        transport: Transport | None,
        source: JobSource | None,
        lead: Lead | None = None,
    ) -> None:
        check_kernel(job)
        job._seed = options.seed
        if lead is None or lead.start is None:
            job._begin_run()
        self._lead = lead
        self._items = lead.items if lead is not None and len(lead.items) else resolve_items(job)
        self._n_items = len(self._items)
        self._block = block_of(job, self._n_items)
        self._job, self._options, self._source = job, options, source
        self._parameters = pack_parameters(job) if source is not None else {}
        self._say = say_nothing if options.quiet else say
        self._transport = JointTransport(transport)
        self._n_lost_before = len(transport.lost_before) if transport is not None else 0
        self._n_ranks = self._transport.size - len(self._transport.lost)
        others = self._transport.alive - {self._transport.rank}
        self._workers = sorted(others) if self._transport.size > 1 else [self._transport.rank]
        if lead is None:
            options.check_workers(len(self._workers))
        self._fault_tier = fault_tier(self._transport.size, self._transport.survives_deaths)
        self._identity = items_identity(self._items)
        if lead is None:
            self._options = replace(options, end_time_s=find_end(options.end_time_s))
        end_at = computing_ends_at(self._options.end_time_s, lead.end_at if lead is not None else None)
        self._stop_signals = StopSignals(end_at, LAST_S)
        if lead is not None and lead.is_stopping:
            self._stop_signals.requested_at = time.monotonic()
        self._manifest: dict[str, Any] = {}
        self._is_resumed = False

    # ---------------------------------------------------------------------- parts

    def _open(self) -> None:
        """Make or find the run directory, and lock it."""
        options, lead = self._options, self._lead
        wanted = options.run_dir
        may_resume = options.resume or lead is not None
        if wanted is not None and not options.resume and lead is not None and lead.start is None:
            # The master that died had not begun: a run that has ended there is another one.
            may_resume = not os.path.exists(wanted / SUMMARY)
        self._is_resumed = may_resume and wanted is not None and os.path.exists(wanted / MANIFEST)
        if self._is_resumed and wanted is not None:
            self._folder = wanted.absolute()
        else:
            option = "--run-dir" if self._source is not None else "run_dir"
            self._folder = create_run_dir(wanted, type(self._job).__name__, option)
        self._lock = RunLock.acquire(self._folder)

    def _describe(self, command: Sequence[str]) -> dict[str, Any]:
        """What this run is; where it is another's, that is an error."""
        allocation = find_allocation(os.environ)
        manifest = make_manifest(
            self._job,
            self._options,
            run_id=os.urandom(16).hex(),
            source_digest=self._source.digest if self._source else None,
            items=self._identity,
            block=self._block,
            n_ranks=self._n_ranks,
            mpi=self._transport.library(),
            fault_tier=self._fault_tier,
            command=command,
            slurm=allocation.as_dict() if allocation is not None else None,
        )
        if self._is_resumed:
            old = read_json(self._folder / MANIFEST)
            check_computed(old, self._folder)
            check_same_job(old, manifest, self._folder)
            for difference in other_versions(old, manifest):
                self._say(f"the last bits may differ from those of the first part: {difference}")
            kept = ("started", "host", "n_ranks", "command", "fault_tier", "slurm")
            entry = {key: manifest[key] for key in kept}
            what = "resumed" if self._lead is None else "taken_over"
            manifest = {**old, what: [*old.get(what, []), entry], "options": manifest["options"]}
            if self._lead is None:
                manifest.pop("ranks", None)  # those of an earlier part, which are dead
        return manifest

    def _prepare(self) -> None:
        """Make all that works in the run directory."""
        manifest = self._manifest
        self._results = new_results(self._job.output, self._n_items, self._block, self._folder)
        run_id = manifest["run_id"]
        if self._is_resumed:
            self._checkpoint = Checkpoint.resume(
                self._folder,
                run_id,
                self._results,
                self._n_items,
                durability_s=self._options.durability_s,
            )
            for note in self._checkpoint.past.notes:
                self._say(note)
            write_json(self._folder / MANIFEST, manifest)
        else:
            try:
                self._begin(run_id)
            except NotWritten as error:
                raise error.at_the_start from None
        self._scheduler = make_scheduler(
            self._options,
            self._checkpoint.past,
            n_items=self._n_items,
            block=self._block,
            n_workers=len(self._workers),
            end_at=self._stop_signals.end_at,
        )
        self._record = RunRecord(
            self._folder,
            manifest,
            self._checkpoint,
            self._scheduler,
            about={
                "job": repr(self._job),
                "n_items": self._n_items,
                "n_ranks": self._transport.size,
                "n_workers": len(self._workers),
                "policy": self._options.policy_text,
            },
            own_rank=self._transport.rank,
            took_over=self._lead is not None,
            n_dead=lambda: len(self._transport.lost) - self._n_lost_before,
        )
        self._progress = make_progress(
            job=repr(self._job),
            n_ranks=self._transport.size,
            path=self._folder / STATUS,
            log_every_s=self._options.log_every_s,
            quiet=self._options.quiet,
            end_time_s=self._options.end_time_s,
            hosts={rank: process.host for rank, process in self.processes.items()},
        )
        self._transport.spins = self._options.wait == "spin"
        self._master = Master(
            self._transport,
            self._scheduler,
            self._checkpoint,
            self._results,
            identity=self._identity,
            job=job_identity(self._job),
            workers=self._workers,
            hire=self._hire,
            tracing=Tracing(self._trace_writer(), self._scheduler),
            stop_signals=self._stop_signals,
            grace_s=self._options.grace_s,
            stopping=self._tell_stopping,
            ranks_changed=lambda: self._record.write_ranks(self._master.record),
            heartbeat=self._lock.poll,
            stats=lambda: self._record.figures(self._master.record),
            progress=self._progress,
            known=self.processes,
        )

    def _begin(self, run_id: str) -> None:
        """Leave what a run is resumed from; the manifest comes last, for it says that all is there."""
        made_of = {"source": self._source, "parameters": self._parameters}
        write_job(self._folder, {**made_of, "seed": self._options.seed})
        self._checkpoint = Checkpoint.create(
            self._folder, run_id, self._results, durability_s=self._options.durability_s
        )
        write_json(self._folder / MANIFEST, self._manifest)

    def _trace_writer(self) -> TraceWriter:
        cause = Cause.RESUMED if self._is_resumed else Cause.STARTED
        return TraceWriter(
            self._folder,
            Cause.TAKEN_OVER if self._is_resumed and self._lead is not None else cause,
            rank=self._transport.rank,
            host=self._transport.host,
            n_workers=len(self._workers),
        )

    def _hire(self, isolated: bool) -> Worker:
        end, rank = self._transport.worker_end, self._transport.rank
        return Worker(end, lambda start: self._job, isolated=isolated, known_as=rank)

    # ------------------------------------------------------------------------ run

    def run(self, command: Sequence[str]) -> Outcome:
        """Compute, keep a record of it whatever happens, and give the outcome."""
        try:
            self._open()
        except NoLock:
            finished = self._finished_before(command)  # that needs no right to write
            if finished is None:
                raise
            return finished
        try:
            with BusySign(self._folder):
                return self._run_locked(command)
        finally:
            self._lock.release()

    def _run_locked(self, command: Sequence[str]) -> Outcome:
        finished = self._finished_before(command)
        if finished is not None:
            return finished
        self._prepare()
        try:
            with self._stop_signals:
                return self._run_opened(command)
        finally:
            self._checkpoint.abandon()
            self._results.release()
            for line in printed_lines(self._folder / OUTPUT):
                self._say(line)

    def _finished_before(self, command: Sequence[str]) -> Outcome | None:
        """Find out what this run is, and the outcome if it is one that is done already."""
        self._manifest = self._describe(command)
        return self._finished() if self._is_resumed else None

    def _finished(self) -> Outcome | None:
        try:
            summary: Any = read_summary(self._folder)
        except Damaged as error:
            self._say(f"{error.message}; it is written anew")
            return None
        if summary is None or summary.get("status") != "done":
            return None
        path = self._folder / Path(summary["result_file"]).name  # the folder may have been moved
        try:
            value = read_result(path)
        except LostResult as error:
            self._say(f"{error.message}; it is made anew")
            return None
        self._tell_closing()
        self._say(f"run {short_path(self._folder)} is done already: the result is in {short_path(path)}")
        return Outcome(value, summary, self._folder)

    def _run_opened(self, command: Sequence[str]) -> Outcome:
        self._announce()
        report_resume(self._resume_command, str(self._folder), os.environ)
        try:
            self._compute(command)
            self._tell_closing()
            skipped = sorted(self._checkpoint.failures)
            self._lock.check()
            value, path = self._results.close(skipped)
            self._finish(value)
            self._lock.check()
        except BaseException as error:
            failure = self._explained(error)
            with suppress(MpimsError):  # a full disk, say: the first error is the one to tell
                self._lock.check()  # or what stands there is another's
                self._record.write(self._master.record, self._items, error=failure)
            if failure is error:
                raise
            raise failure from None
        from mpims.report.summary import summary_lines  # at the end, not before the first chunk

        summary = self._record.write(self._master.record, self._items, value=value, path=path)
        self._checkpoint.close("done")
        for line in summary_lines(summary, value):
            self._say(line)
        return Outcome(value, summary, self._folder)

    def _compute(self, command: Sequence[str]) -> None:
        start = Start(
            source=self._source,
            parameters=self._parameters,
            options=self._options,
            run_id=self._manifest["run_id"],
            epoch=self._checkpoint.epoch,
            run_dir=str(self._folder),
            command=tuple(command),
            master=this_process(),
        )
        master = self._master
        with one_thread():
            try:
                master.begin(start, self._lead.inheritance if self._lead is not None else ())
                master.run()
            finally:
                master.stop()
        if master.error is not None:
            raise master.error

    def _tell_closing(self) -> None:
        for rank in self._transport.alive - {self._transport.rank}:
            self._transport.send(rank, Kind.CLOSING)

    def _finish(self, value: Any) -> None:
        """Call the job's own `finish`."""
        self._job.run_dir = self._folder
        try:
            self._job.finish(value)
        except MpimsError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's finish raises
            raise RunFailed(
                f"finish() raised {describe(error)}; the result itself is whole, in {self._folder}",
                user_traceback(error),
            ) from error

    def _explained(self, error: BaseException) -> BaseException:
        """What ended the run, with the way to go on where it was only stopped."""
        if isinstance(error, KeyboardInterrupt):
            error = Stopped("stopped at once", at_once=True)
        if lack := lacking(error):
            where, n_done = name_rank(self._transport.rank, self._transport.host), self._checkpoint.n_done
            return RunFailed(
                f"{where}, the master: {lack}; {n_done:,} of {self._n_items:,} items are done; "
                f"give it more, and resume with: {self._resume_command}"
            )
        if not isinstance(error, Stopped):
            return error
        with suppress(MpimsError):
            self._checkpoint.note(self._record.figures(self._master.record))
            self._checkpoint.close("stopped")
        n_done = self._checkpoint.n_done
        is_late = error.message == "stopped" and self._stop_signals.requested_at is None
        why = ", the time is over" if is_late else ""
        return Stopped(
            f"{error.message}{why}: {n_done:,} of {self._n_items:,} items are done; "
            f"resume with: {self._resume_command}",
            error.detail,
            at_once=error.at_once,
        )

    # -------------------------------------------------------------------- telling

    @property
    def _resume_command(self) -> str:
        return resume_command(self._folder, self._transport.size, in_program=self._source is None)

    def _announce(self) -> None:
        if self._lead is not None:
            lines = [takeover_line(self._transport.rank, self._transport.host, self._n_ranks)]
        else:
            lines = opening_lines(
                job=repr(self._job),
                n_items=self._n_items,
                block=self._block,
                n_ranks=self._n_ranks,
                policy=self._options.policy_text,
                fault_tier=self._fault_tier,
                resume_command=self._resume_command,
            )
        if self._is_resumed:
            lines.append(done_line(self._checkpoint.past.done.size, self._n_items))
        n_blocks = -(-self._n_items // self._block)
        allocation = find_allocation(os.environ)
        n_tasks = allocation.n_tasks if allocation is not None else None
        lines += advice_lines(
            self._transport.size, len(self._workers), n_blocks, n_tasks, in_program=self._source is None
        )
        for line in lines:
            self._say(line)

    def _tell_stopping(self, reason: str, grace_s: float) -> None:
        """Say at once how to go on: whoever sent the signal may kill us next."""
        self._progress.note(
            f"{reason}: what comes within {grace_s:.3g} s is taken in (a second signal: at once); "
            f"resume with: {self._resume_command}"
        )

    # --------------------------------------------------------------------- ranks

    @property
    def suspects(self) -> set[int]:
        """Ranks that are silent past their deadline."""
        return self._scheduler.suspects if hasattr(self, "_scheduler") else set()

    @property
    def processes(self) -> dict[int, Process]:
        """Who the ranks are, as far as they told this master or one before."""
        known = {}
        for rank, entry in self._manifest.get("ranks", {}).items() if self._lead is not None else ():
            with suppress(ValueError):
                known[int(rank)] = Process.from_dict(entry)
        workers = self._master.record.workers if hasattr(self, "_master") else {}
        return known | {rank: worker.process for rank, worker in workers.items()}
