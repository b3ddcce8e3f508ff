"""A worker's loop: receive, kernel, reply.

It looks for messages between blocks. What it has sent last it keeps for a while: a master that dies may
not have written it down. Then the lowest rank alive becomes the master; the others compute on what they
hold, and when its START comes they join it, with that and with what they sent last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpims.core.chunks import Held
from mpims.core.deadlines import FACTOR, FLOOR_S
from mpims.errors import ExitStatus, UsageError, describe, user_traceback
from mpims.job import Job, block_of
from mpims.processes import send_signal, this_process
from mpims.report.wording import name_rank
from mpims.runtime.computing import MAX_UNSENT_BYTES, Computing
from mpims.runtime.items import check_kernel, items_identity, job_identity, resolve_items
from mpims.runtime.kept import KeptMessages
from mpims.runtime.masterwatch import MasterWatch
from mpims.runtime.printed import Printed, Prints
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import (
    Buffer,
    End,
    Failed,
    Fence,
    Joined,
    Kind,
    Message,
    Start,
    decode_assign,
    decode_object,
    decode_recall,
    decode_trim,
    encode_object,
)

if TYPE_CHECKING:
    from mpims.runtime.spawnedchild import Order

CLOGGED_WAIT_S = 1e-3
"""Then it looks this often whether enough has left."""
IDLE_WAIT_S = 1.0
LEADERLESS_S = 5.0
"""After the end of a command's run the next master, if there is one, dismisses all within this time."""

OUTPUT = "output"
"""The folder in the run directory for what the ranks print."""

MakeJob = Callable[[Start], Job]
"""Makes the job of a START message."""


class Worker:
    """Computes what the masters of one run assign.

    Parameters
    ----------
    transport
        The way to the master.
    make_job
        Makes this rank's job when the run starts.
    master
        The master's rank.
    isolated
        Compute everything in child processes: this rank is needed alive.
    after
        The run before, whose master is to say what comes next.
    known_as
        The rank that people know it by, where the transport has another.

    Attributes
    ----------
    end
        How the run ended, if it did.
    dismissed
        This rank is to leave the program.
    must_lead
        The master is dead and this rank is the next: see `start`, `job`, `items` and `inheritance`.
    is_stopping
        The master has said that the run is to stop.
    """

    def __init__(
        self,
        transport: Transport,
        make_job: MakeJob,
        master: int = 0,
        *,
        isolated: bool = False,
        after: Start | None = None,
        known_as: int | None = None,
    ) -> None:
        self._transport = transport
        self._known_as = transport.rank if known_as is None else known_as
        self._make_job = make_job
        self._master: int | None = master
        self._isolated = isolated
        self._computing: Computing | None = None
        self._kept = KeptMessages()
        self._printed: Printed | None = None
        self._keeping_prints: AbstractContextManager[object] = nullcontext()
        self._watch = MasterWatch(transport)
        self._after = after
        self.start: Start | None = None
        self.job: Job | None = None
        self._job_identity = ""
        self.items: Sequence[Any] = ()
        self.dismissed = False
        self.must_lead = False
        self.is_stopping = False
        self.end: End | None = None
        if master in transport.lost:
            self._lose_master()

    def run(self) -> End | None:
        """Work until the run ends; None if this rank was dismissed before one began, or must lead."""
        while self.end is None and not self.dismissed and not self.must_lead:
            self.step(IDLE_WAIT_S)
        return self.end

    def step(self, timeout_s: float) -> None:
        """Look for messages, waiting only if there is nothing to compute, and compute for a moment."""
        clogged = self._unsent_bytes() > MAX_UNSENT_BYTES
        if self.has_work:
            timeout_s = CLOGGED_WAIT_S if clogged else 0.0
        else:
            timeout_s = min(timeout_s, self._watch.interval_s)
        message = self._transport.receive(timeout_s)
        while message is not None:
            self._handle(message)
            # What follows an END belongs to the next run.
            over = self.end or self.dismissed or self.must_lead
            message = None if over else self._transport.receive(0.0)
        if self.must_lead or self.end is not None:
            return
        computing = self._computing
        if computing is not None and computing.has_work and not clogged:
            with self._keeping_prints:
                computing.compute()
            self._watch.busy()
        else:
            if self.start is None:  # between two runs the master does not answer
                self._watch.closing()
                if (
                    self._after is not None
                    and self._master is None
                    and self._watch.unheard_s > LEADERLESS_S
                ):
                    self.dismissed = True  # the rank that would lead was dismissed before the master died
            left = self._watch.left(self._master, self.start)
            if left is not None:
                self._transport.lose(left)
                self._lose_master()
                return
            self._watch.idle(self._master, self.start or self._after, self._patience_s())

    @property
    def has_work(self) -> bool:
        """Whether there is something to compute."""
        return self._computing is not None and self._computing.has_work

    def _leave(self, master: int) -> None:
        """The run has ended, as `master` says, or would."""
        self.close()
        self._transport.send(master, Kind.GOODBYE)

    def close(self) -> None:
        """End what is under way."""
        if self._computing is not None:
            self._computing.clear()
        if self._printed is not None:
            self._printed.close()

    def _unsent_bytes(self) -> int:
        return self._kept.n_bytes if self._master is None else self._transport.unsent_bytes

    def _patience_s(self) -> float:
        """How long a kernel, or a master, may be silent."""
        start = self.start or self._after
        given = start.options.timeout_s if start is not None else None
        longest_s = self._computing.longest_s if self._computing is not None else 0.0
        return given or max(FLOOR_S, FACTOR * longest_s)

    # ------------------------------------------------------------------ messages

    def _handle(self, message: Message) -> None:
        kind = message.kind
        if kind is Kind.LOST:
            if message.source == self._master or self._master is None:
                self._lose_master()
        elif kind is Kind.START:
            self._on_start(message.source, decode_object(message.buffers))
        elif kind is Kind.DISMISS:
            self._lose(decode_object(message.buffers))
            self.dismissed = True
        elif message.source == self._master or (kind is Kind.END and self._master is None):
            self._watch.heard()
            self._obey(kind, message)

    def _obey(self, kind: Kind, message: Message) -> None:
        """Do what the master says."""
        computing = self._computing
        if kind is Kind.CLOSING:
            self._watch.closing()
        elif kind is Kind.FENCE:
            fence: Fence = decode_object(message.buffers)
            send_signal(fence.process, fence.signal)
            self._send(Kind.FENCED, fence)
        elif kind is Kind.END:
            self.end = decode_object(message.buffers)
            self._lose(self.end.lost if self.end else ())
            self._leave(message.source)
        elif computing is None:
            pass  # it could not begin
        elif kind is Kind.ASSIGN:
            computing.add(decode_assign(message.head))
        elif kind is Kind.RECALL:
            computing.drop(decode_recall(message.head))
        elif kind is Kind.TRIM:
            computing.trim(*decode_trim(message.head))
        elif kind is Kind.DRAIN:
            self.is_stopping = True
            computing.report()
            computing.clear()
            self._send(Kind.DRAINED)

    def _lose(self, ranks: Sequence[int]) -> None:
        """Take it from the master that ranks are dead: MPI may not have noticed here."""
        for rank in ranks:
            self._transport.lose(rank)

    def _send(self, kind: Kind, value: Any = None) -> None:
        if self._master is not None:
            self._transport.send(self._master, kind, b"", () if value is None else encode_object(value))

    def _send_kept(self, kind: Kind, head: bytes, buffers: Sequence[Buffer]) -> None:
        """Send what the next master is to have too, should this one die now."""
        self._kept.add(kind, head, buffers)
        if self._master is not None:
            self._kept.trim()
            self._transport.send(self._master, kind, head, buffers)

    # ------------------------------------------------------------------- masters

    def _lose_master(self) -> None:
        """Lead if this is the lowest rank alive, else compute on until the one that is says START."""
        self._master = None
        lowest = min(self._transport.alive)
        self.must_lead = lowest == self._transport.rank
        if not self.must_lead and self.start is not None and self._watch.is_done(self.start):
            # It may have told the others: the lowest of them does not lead any more.
            self.end = End(status=ExitStatus.DONE)
            self._leave(lowest)
        self._watch.heard()

    def _on_start(self, source: int, start: Start) -> None:
        if source in self._transport.lost:
            return
        self._transport.hosts[source] = start.master.host
        if self.start is None or self.start.run_id != start.run_id or self.job is None:
            self._master, self.start = source, start
            self._begin(start)
        elif start.epoch > self.start.epoch:
            self._follow(source, start)
        self._watch.heard()

    def _begin(self, start: Start) -> None:
        """Load the job and join; what goes wrong is the master's to tell."""
        self.close()
        self._computing = None
        self._kept.clear()
        try:
            self._transport.spins = start.options.wait == "spin"
            self._keep_prints(start)
            with self._keeping_prints:
                job = self._make_job(start)
                job._seed = start.options.seed
                check_kernel(job)
                self.items = resolve_items(job)
                self._identity = items_identity(self.items)
                self.job, self._job_identity = job, job_identity(job)
                if job.start_method == "spawn":
                    self._order()  # that it cannot be made is to be known now
                block = block_of(job, self._identity[0])
                if job._set_up_for != start.run_id:  # a worker that became the master may compute again
                    began = time.monotonic()
                    job.setup()
                    job._setup_s, job._set_up_for = time.monotonic() - began, start.run_id
            self._computing = Computing(
                job,
                self.items,
                block,
                start.options,
                send=self._send_kept,
                ping=lambda: self._send(Kind.PING),
                patience_s=self._patience_s,
                isolated=self._isolated,
                order=self._order,
            )
        except UsageError as error:
            self._refuse(error.message, error.detail, is_usage=True)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's setup raises
            self._refuse(f"setup() raised {describe(error)}", user_traceback(error))
        else:
            self._join(())

    def _keep_prints(self, start: Start) -> None:
        """Send what the job prints from now on where the user wants it."""
        self._printed, self._keeping_prints = None, nullcontext()
        prints = self._prints(start)
        if prints is not None:
            self._printed = self._keeping_prints = Printed(*prints, self._at_hand)

    def _prints(self, start: Start) -> Prints | None:
        """Where to print; None for the terminal."""
        if start.options.prints != "file":
            return None
        rank, host = self._known_as, self._transport.host
        return Path(start.run_dir) / OUTPUT / f"rank-{rank}.txt", name_rank(rank, host)

    def _order(self, start_item: int = 0, stop_item: int = 0) -> Order:
        """What a new Python needs to compute in place of this rank: the same for all items."""
        from mpims.runtime.spawnedchild import order_of_job  # rarely needed

        start, job = self.start, self.job
        assert start is not None
        assert job is not None
        return order_of_job(job, start.source, start.parameters, self._prints(start))

    def _at_hand(self) -> str:
        """What is computed at the moment."""
        if self._computing is None or self.job is None:
            return "setup"
        indices = self.job.indices
        return f"items [{indices.start}, {indices.stop})"

    def _refuse(self, reason: str, detail: str, *, is_usage: bool = False) -> None:
        """Say that this rank cannot compute."""
        failed = Failed(attempt=0, start=0, stop=0, reason=reason, detail=detail, is_usage=is_usage)
        self._send_kept(Kind.FAILED, b"", encode_object(failed))

    def _join(self, holding: tuple[Held, ...]) -> None:
        joined = Joined(
            host=self._transport.host,
            process=this_process(),
            holding=holding,
            n_items=self._identity[0],
            items_digest=self._identity[1],
            job=self._job_identity,
        )
        self._send(Kind.JOINED, joined)

    def _follow(self, master: int, start: Start) -> None:
        """Join the next master, with all that the one before may not have written down."""
        self._master = None  # what is reported now goes with all that was kept
        computing = self._computing
        if computing is not None:
            computing.report()
            computing.drop_careful()
        self._master, self.start = master, start
        # Results first, or what they hold would be handed out again.
        for kind, head, buffers, _ in self._kept:
            self._transport.send(master, kind, head, buffers)
        self._join(computing.holding if computing is not None else ())

    def inheritance(self) -> list[Message]:
        """What this rank has computed and the master that died may not have written down."""
        if self._computing is not None:
            self._computing.report()
            self._computing.clear()
        rank = self._transport.rank
        return [Message(kind, rank, head, list(buffers)) for kind, head, buffers, _ in self._kept]
