"""The master's loop: wait, take in what came, look around.

::

    transport --message--> Desk --event, now--> Scheduler
                            |                       |
          checkpoint, ranks <-------actions---------+
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpims.core.events import MasterAway, StopRequested, Tick, WorkerLost
from mpims.core.scheduler import Scheduler
from mpims.errors import MpimsError
from mpims.processes import Process, is_alive
from mpims.report.progress import NoProgress
from mpims.report.status import Sight, take_sight
from mpims.runtime.desk import Desk, MasterRecord, Supply, no_supply
from mpims.runtime.stopping import StopSignals
from mpims.runtime.tracing import Tracing
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Failed, Kind, Message, Start, decode_object, encode_object
from mpims.runtime.worker import Worker
from mpims.storage.checkpoint import Checkpoint
from mpims.storage.results import Results

LONGEST_WAIT_S = 1.0
"""The master looks around at least this often."""
LONGEST_NAP_S = 0.25
"""While no rank waits for an answer it sleeps no longer: a death, or Ctrl-C, is to be seen soon."""
AWAY_S = 2.0
"""A step that takes so much longer than it may says that the master itself was suspended."""
TICK_LATENESS_S = 0.05
"""Messages that are waiting are read before a deadline is judged, but for no longer than this."""
WRITING_WAIT_S = 0.01
"""While results are written to their place, whether they are there is looked at this often."""
MESSAGES_PER_STEP = 16
"""So many messages are taken in before anything else is looked at."""
LOOK_INTERVAL_S = 0.25
"""While messages come without a pause, what is to be done now and then is done this often."""
NOTE_INTERVAL_S = 1.0
"""Figures for a master to come are noted this often."""
LIVENESS_INTERVAL_S = 1.0
LIVENESS_COST_S = 0.01
"""Whether the processes of this host live is looked at this often, or less often the more there are."""


class Master:
    """Runs one job on the workers of a transport.

    Parameters
    ----------
    transport
        The way to the workers.
    scheduler
        The state machine, new.
    checkpoint, results
        Where results go.
    identity
        Number and digest of the items as the master sees them.
    job
        The job as text, to compare.
    workers
        The ranks that compute; the master's own, if it is one of them, in this process.
    tracing
        Where it is written down what was handed out, what each result cost, and what went wrong.
    hire
        Makes a worker in this process when no other rank is left.
    supply
        As for `mpims.runtime.desk.Desk`.
    known
        Who the ranks are, as the master before knew them: they may have left before this one began.
    longest_nap_s
        How long a result may lie there, while no rank waits for an answer to it.
    stop_signals, grace_s
        Tells whether the run is to stop; and how long it then waits for results.
    stopping
        Called when it is, with the reason and the seconds that it waits.
    joined
        Called when a rank has joined, before it gets anything.
    ranks_changed
        Called when ranks have joined and have their first chunks.
    heartbeat
        Called now and then, all the time.
    stats
        Gives the figures to be noted for a master to come.
    progress
        Is told how far the run is.
    """

    def __init__(
        self,
        transport: Transport,
        scheduler: Scheduler,
        checkpoint: Checkpoint,
        results: Results,
        *,
        identity: tuple[int, str],
        job: str,
        workers: Sequence[int],
        hire: Callable[[bool], Worker],
        tracing: Tracing,
        stop_signals: StopSignals,
        grace_s: float = 10.0,
        stopping: Callable[[str, float], None] = lambda reason, grace_s: None,
        joined: Callable[[], None] = lambda: None,
        ranks_changed: Callable[[], None] = lambda: None,
        heartbeat: Callable[[float], None] = lambda now: None,
        stats: Callable[[], Mapping[str, Any]] = dict,
        progress: NoProgress | None = None,
        supply: Supply = no_supply,
        known: Mapping[int, Process] | None = None,
        longest_nap_s: float = LONGEST_NAP_S,
    ) -> None:
        self._transport = transport
        self._scheduler = scheduler
        self._checkpoint = checkpoint
        self._longest_nap_s = longest_nap_s
        self._n_items = identity[0]
        self._workers = workers
        self._hire = hire
        self._own: Worker | None = None
        self._ranks_changed = ranks_changed
        self._n_joined = 0
        self._known = dict(known or {})
        self._stop_signals = stop_signals
        self._grace_s = grace_s
        self._stopping = stopping
        self._is_stopping = False
        self._heartbeat = heartbeat
        self._stats = stats
        self._progress = progress or NoProgress()
        self._began = self._stepped = self._looked = self._noted = self._checked = 0.0
        self._cpu_began = 0.0
        self._served_s = 0.0  # what took in the last messages took, until that is noted
        self._desk = Desk(
            transport,
            scheduler,
            checkpoint,
            results,
            identity=identity,
            job=job,
            tracing=tracing,
            joined=joined,
            hire=self._hire_own,
            supply=supply,
        )

    @property
    def record(self) -> MasterRecord:
        """Who the workers are, and what they did."""
        return self._desk.record

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self._desk.ended

    @property
    def error(self) -> MpimsError | None:
        """What ended the run, if not that all is done."""
        return self._desk.error

    # ------------------------------------------------------------------ the loop

    def begin(self, start: Start, inheritance: Sequence[Message] = ()) -> None:
        """Send the job to the workers, and take in what was computed for the master before."""
        self._began, self._cpu_began = time.monotonic(), time.process_time()
        self._stepped = self._looked = self._noted = self._checked = self._began
        self._start_buffers = encode_object(start)
        for rank in self._workers:
            self._transport.send(rank, Kind.START, b"", self._start_buffers)
        self._progress.begin(self._look, self._began)  # while the workers make ready
        if self._transport.rank in self._workers:
            self._own = self._hire(False)
        for message in inheritance:
            self._desk.take(message, self._began)
        self._desk.tell(Tick(), self._began)
        self._desk.settle()

    def run(self) -> None:
        """Loop until the run has ended."""
        while not self.ended:
            deadline = self._scheduler.next_deadline()
            timeout_s = LONGEST_WAIT_S
            if deadline is not None:
                timeout_s = max(0.0, min(timeout_s, deadline - time.monotonic()))
            if self._checkpoint.is_behind:
                timeout_s = min(timeout_s, WRITING_WAIT_S)
            if self._own is not None:
                self._own.step(0.0)
                timeout_s = 0.0 if self._own.has_work else min(timeout_s, 0.01)
            self.step(timeout_s)
        self._desk.finish()

    def step(self, timeout_s: float) -> None:
        """Take in what has come, waiting for it at most that long, and do what follows."""
        self._catch_up()
        slack_s = min(self._scheduler.slack_s, self._longest_nap_s)
        self._take_in(self._transport.receive(timeout_s, slack_s), timeout_s)

    def _take_in(self, message: Message | None, timeout_s: float) -> None:
        """Take in a message, if one came within that time, and more that are there; do what follows."""
        desk, scheduler = self._desk, self._scheduler
        now = began = time.monotonic()
        away_s = now - self._stepped - timeout_s
        if away_s > AWAY_S:
            desk.tell(MasterAway(away_s), now)
        is_quiet = message is None
        n_taken = 0
        # No more results can be there than attempts; another look costs as much as a hand-out.
        n_most = min(MESSAGES_PER_STEP, len(scheduler.ledger.attempts) or 1)
        while message is not None:
            desk.take(message, now)
            if message.kind is Kind.FAILED:
                self._show_failure(message)
            n_taken += 1
            more = n_taken < n_most and not (scheduler.ended or desk.ended or desk.is_full)
            message = self._transport.receive(0.0) if more else None
            now = time.monotonic()
        self._stepped = now
        due = scheduler.next_deadline()
        lateness_s = 0.0 if n_taken < MESSAGES_PER_STEP else TICK_LATENESS_S
        is_due = is_quiet or (due is not None and due + lateness_s <= now)
        if is_due or now - self._looked > LOOK_INTERVAL_S:
            self._looked = now
            self._look_around(now, is_due)
        desk.settle()
        if len(self.record.workers) > self._n_joined:
            self._n_joined = len(self.record.workers)
            self._ranks_changed()
        if n_taken:
            self._served_s = time.monotonic() - began

    def _catch_up(self) -> None:
        """What is left of the step before: it is done while ranks compute, and no result waits for it."""
        if self._served_s:
            self._desk.note_service(self._served_s, self._stepped)
            self._served_s = 0.0
        self._progress.update(self._stepped)

    def _look(self) -> Sight:
        """What is told of the run while it goes on."""
        return take_sight(
            self._scheduler,
            n_workers=len(self._workers),
            hosts={rank: worker.host for rank, worker in self.record.workers.items()},
            lost=self._transport.lost,
            figures=self._stats(),
        )

    def _show_failure(self, message: Message) -> None:
        failed: Failed = decode_object(message.buffers)
        where = self._transport.where(message.source)
        items = f"items [{failed.start}, {failed.stop}) failed on {where}"
        what = items if failed.attempt else f"{where} cannot compute"
        self._progress.happened(f"{what}: {failed.reason}")

    def _look_around(self, now: float, is_due: bool) -> None:
        """What is to be done when there is time, or now and then; deadlines are judged if that is due."""
        reason = None if self._is_stopping else self._stop_signals.reason(now)
        if reason is not None:
            self._is_stopping = True
            grace_s = min(self._grace_s, self._stop_signals.most_grace_s)
            self._stopping(reason, grace_s)
            self._desk.tell(StopRequested(grace_s), now)
        if is_due:
            self._desk.tell(Tick(), now)
        if self.ended:
            return
        if now - self._checked > max(LIVENESS_INTERVAL_S, LIVENESS_COST_S * len(self.record.workers)):
            self._checked = now
            self._look_for_dead(now)
        try:
            self._heartbeat(now)
            if now - self._noted > NOTE_INTERVAL_S:
                self._noted = now
                self._desk.write_trace(now)
                self._checkpoint.note(self._stats())
            self._checkpoint.poll(now)
        except MpimsError as error:
            self._desk.fail(error)

    def _look_for_dead(self, now: float) -> None:
        """Find ranks of this host that have left without MPI noticing, as by ``os._exit``."""
        if not self._transport.survives_deaths:
            return
        joined = {rank: worker.process for rank, worker in self.record.workers.items()}
        for rank, process in {**self._known, **joined}.items():
            if rank not in self._transport.lost and is_alive(process) is False:
                self._transport.lose(rank)
                self._desk.tell(WorkerLost(rank), now)

    def stop(self) -> None:
        """Close the record."""
        self._catch_up()
        self._progress.end(time.monotonic())
        self._desk.close_trace()
        if self._own is not None:
            self._own.close()
        self.record.wall_s = time.monotonic() - self._began
        self.record.cpu_s = time.process_time() - self._cpu_began

    def _hire_own(self) -> None:
        """Compute in this process, which is the only one left: in a child, for this one is needed."""
        self._own = self._hire(True)
        self._transport.send(self._transport.rank, Kind.START, b"", self._start_buffers)
        self._progress.note("no rank is left to compute: the master does")
