"""The master of tasks that a program gives while others are computed.

It is the master of a job with two differences: items are added as they come, and nothing is written down.
It runs in a thread of its own, the only one that uses the transport; orders come by a queue and a bell.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf
from threading import Event, Thread, current_thread
from typing import Any

from mpims.core.chunks import Range, Result
from mpims.core.deadlines import Deadlines
from mpims.core.events import ItemsAdded, ItemsClosed, chunk_done
from mpims.core.handover import Handover
from mpims.core.ledger import Attempt, Ledger
from mpims.core.measures import QUEUE_LENGTH
from mpims.core.policies import Sizer
from mpims.core.scheduler import Scheduler
from mpims.errors import MpimsError, Stopped, unforeseen, user_traceback
from mpims.executor.book import Book, Run, TaskSizes, learn, learn_bytes
from mpims.executor.cargo import Batch, empty_batch, encode, packed_exception
from mpims.executor.errors import ExecutorBroken, WorkerLost
from mpims.executor.helping import Bell, Turns
from mpims.executor.orders import Abort, Cancel, CancelRest, Close, Customer, Order, Spread, Tasks
from mpims.executor.serving import TASKS
from mpims.executor.spread import Shared, for_ranks
from mpims.executor.supplies import Supplies
from mpims.executor.unkept import PassedOn, Unkept, Untraced
from mpims.options import RunOptions
from mpims.processes import Process, this_process
from mpims.report.wording import name_rank
from mpims.runtime.ending import end_workers
from mpims.runtime.master import LONGEST_WAIT_S, LOOK_INTERVAL_S, Master
from mpims.runtime.stopping import StopSignals
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Kind, Message, Start, decode_object, decode_results
from mpims.runtime.worker import Worker
from mpims.storage.commits import Failure

RECEIVING_BYTES = 256 << 20
"""Memory for what arrives is kept up to this: results that come before their turn are many at once."""
RESULT_WAIT_S = 10e-3
"""A result lies no longer than this while all ranks are busy: the program waits for it."""
GATHERING_S = 10.0
"""A shared array, and what is ordered after it, waits so long for ranks that have not joined yet."""


class TaskMaster(Master):
    """Computes what is ordered until that is closed and done.

    Parameters
    ----------
    transport
        The way to the workers.
    workers
        The ranks that compute.
    customer
        Whom the results are for.
    timeout_s
        So long a task may take; None for ever.
    n_retries
        A task that ends its rank, or takes too long, is tried so many times more, in a child of a rank.
    """

    def __init__(
        self,
        transport: Transport,
        workers: Sequence[int],
        customer: Customer,
        *,
        timeout_s: float | None,
        n_retries: int,
    ) -> None:
        self._book = Book()
        self._customer = customer
        self._orders: deque[Order] = deque()
        bell = transport.bell = Bell()
        self.turns = Turns(self._turn, self._take_orders, lambda: self._desk.ended, self._spoil, bell)
        self._spreads: list[Spread] = []
        self._unbooked: tuple[int, Result, Run, Batch] | None = None  # the result that was passed on
        transport.keep_memory(RECEIVING_BYTES)
        ledger = Ledger(0, 1, is_open=True)
        scheduler = Scheduler(
            ledger,
            Sizer(TaskSizes(self._book, ledger.pending, max(1, len(workers)))),
            Deadlines(inf if timeout_s is None else timeout_s),
            len(workers),
            n_retries=n_retries,
            skip=True,
            longest_queue=QUEUE_LENGTH,
            twins=False,
            handover=Handover(self._is_exact),
        )
        self._supplies = Supplies(self._book, customer.started)
        super().__init__(
            transport,
            scheduler,
            Unkept(self._deliver),
            PassedOn(),
            identity=(0, ""),
            job=TASKS,
            workers=workers,
            hire=_hire_nobody,
            tracing=Untraced(),
            stop_signals=StopSignals(),
            joined=self._spread_again,
            supply=self._supplies.make,
            longest_nap_s=RESULT_WAIT_S,
        )

    def give(self, order: Order) -> None:
        """Take an order; may be called from any thread."""
        self._orders.append(order)
        self.turns.ring()

    def run(self) -> None:
        self.turns.run(LONGEST_WAIT_S)

    def _turn(self, timeout_s: float) -> None:
        """Take orders, and what comes within the time."""
        if self._orders:
            self._take_orders()
        if self._unbooked is not None:
            self._book_passed()
        deadline = self._scheduler.next_deadline()
        timeout_s = min(timeout_s, LONGEST_WAIT_S)
        if deadline is not None:
            timeout_s = max(0.0, min(timeout_s, deadline - time.monotonic()))
        if not self.ended:
            self.step(timeout_s)

    def step(self, timeout_s: float) -> None:
        # What a result costs the master is not caught up on: sizes of tasks do not go by it.
        slack_s = min(self._scheduler.slack_s, self._longest_nap_s)
        message = self._transport.receive(timeout_s, slack_s)
        if message is None or message.kind is not Kind.RESULT or not self._pass_on(message):
            self._take_in(message, timeout_s)

    def _pass_on(self, message: Message) -> bool:
        """Pass on the result of the only task there is, before the scheduler hears of it.

        Whoever waits for it is not to wait for that: it is done while the next task, if one follows, is
        computed. Nothing else is to be handed out meanwhile. False if it is not such a result, or if
        there is something else to be done now.
        """
        now, run = time.monotonic(), self._book.only
        if run is None or not run.tasks.is_single or now - self._looked > LOOK_INTERVAL_S:
            return False
        (head, *more), _ = decode_results(message.head)
        if more or head.start != run.first or self._scheduler.ledger.troubles:
            return False
        self._stepped = now
        batch = Batch(*decode_object(message.buffers))
        self._unbooked = message.source, head, run, batch
        self._customer.delivered(run.tasks.key, 0, batch, head.busy_s)
        return True

    def _book_passed(self) -> None:
        """Tell the scheduler of the result that was passed on."""
        assert self._unbooked is not None
        (rank, head, run, batch), self._unbooked = self._unbooked, None
        learn(run.tasks.function, batch, head.busy_s)
        self._book.done(run, 1)
        self.record.busy_s[rank] += head.busy_s
        self._desk.tell(chunk_done(rank, head, None), time.monotonic())
        self._desk.settle()

    def _spoil(self) -> None:
        """A turn was broken off: who knows what of it was done."""
        self._desk.fail(ExecutorBroken("the executor was interrupted in the midst of its work"))

    def close(self) -> None:
        """Tell everybody that it is over."""
        self._transport.bell = None
        self.stop()
        processes = {rank: worker.process for rank, worker in self.record.workers.items()}
        silent = end_workers(self._transport, self.error, processes, self._scheduler.suspects)
        if silent:
            self._transport.abandon(0)

    # -------------------------------------------------------------------- orders

    def _take_orders(self) -> None:
        orders, n_added = self._orders, 0
        for _ in range(len(orders)):
            if isinstance(orders[0], Spread) and self._must_gather(orders[0]):
                break
            order = orders.popleft()
            if isinstance(order, Tasks):
                learn_bytes(order)
                n_added += self._book.add(order)
            elif isinstance(order, Cancel):
                run = self._book.find(order.key)
                if run is not None and not run.is_started:
                    run.drop()
            elif isinstance(order, Spread):
                self._spreads.append(order)
                self._spread(order, list(self.record.workers))
            elif isinstance(order, Abort):
                self._desk.fail(Stopped("stopped at once", at_once=True))
            elif isinstance(order, CancelRest):
                n_added = self._add(n_added)
                self._desk.settle()
                self._customer.cancel_rest()
            elif isinstance(order, Close):
                n_added = self._add(n_added)
                self._desk.tell(ItemsClosed(), time.monotonic())
        self._add(n_added)
        self._desk.settle()
        if self._unbooked is not None:
            self._book_passed()

    def _add(self, n_items: int) -> int:
        """Add items to the ledger; give how many are left to be added, none."""
        if n_items:
            near = self._unbooked[0] if self._unbooked is not None else None
            self._desk.tell(ItemsAdded(n_items, near), time.monotonic())
        return 0

    def _must_gather(self, spread: Spread) -> bool:
        """Whether an array is to wait until all ranks are there: who joins later gets a copy of its own."""
        if not isinstance(spread.value, Shared) or any(isinstance(order, Abort) for order in self._orders):
            return False
        joined = self.record.workers
        is_whole = all(rank in joined or rank in self._transport.lost for rank in self._workers)
        return not is_whole and time.monotonic() - self._began < GATHERING_S

    def _spread(self, spread: Spread, ranks: Sequence[int]) -> None:
        """Send something to ranks; a chunk that follows finds it there."""
        processes = {rank: self.record.workers[rank].process for rank in ranks}
        for rank, value in for_ranks(spread.value, spread.number, processes).items():
            supply = encode(((), {}, [], {spread.number: value}))
            self._transport.send(rank, Kind.ASSIGN, b"", supply)

    def _spread_again(self) -> None:
        """A rank has joined, the last one in the record: it gets what the others have."""
        newest = list(self.record.workers)[-1:]
        for spread in self._spreads:
            self._spread(spread, newest)

    # ------------------------------------------------------------------- results

    def _deliver(
        self, head: Result, batch: Batch | None, ranges: Sequence[Range], failures: Sequence[Failure]
    ) -> None:
        n = head.stop - head.start
        each_s = head.busy_s / n
        if batch is None:
            batch = empty_batch()
            batch.append(packed_exception(_lost(failures[0])))
        for start, stop in ranges:
            for run, a, b in self._book.within(start, stop):
                part = batch if b - a == n else batch[a - head.start : b - head.start]
                if not failures:
                    learn(run.tasks.function, part, each_s * (b - a))
                self._customer.delivered(run.tasks.key, a - run.first, part, each_s * (b - a))
                self._book.done(run, b - a)

    def _is_exact(self, attempt: Attempt) -> bool:
        """Whether its results come one by one."""
        run = self._book.at(attempt.start)
        return run is not None and run.tasks.is_single

    def _hire_own(self) -> None:
        """Compute nothing here: this is the program's own process."""
        self._desk.fail(ExecutorBroken("no rank is left to compute: all have died or do not answer"))


def _lost(failure: Failure) -> WorkerLost:
    times = f" (tried {failure.n_tries + 1} times)"
    where = name_rank(failure.rank, failure.host)
    return WorkerLost(f"the task ended its rank: {failure.reason} on {where}{times}")


def _hire_nobody(isolated: bool) -> Worker:
    raise NotImplementedError


class TaskThread:
    """A task master in a thread of this process: the way to it.

    Parameters
    ----------
    transport
        The way to the workers.
    max_workers
        So many ranks compute at the most; None for all.
    settings
        What ranks need before they begin, see `mpims.executor.taskworker`.
    """

    def __init__(
        self,
        customer: Customer,
        transport: Transport,
        *,
        max_workers: int | None,
        timeout_s: float | None,
        n_retries: int,
        settings: Mapping[str, Any],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        transport.engage("an Executor")
        self._transport = transport
        others = sorted(transport.alive - {transport.rank})
        workers = others[:max_workers]
        self.n_workers = len(workers)
        self._customer = customer
        self._ended = ended
        self._master = TaskMaster(transport, workers, customer, timeout_s=timeout_s, n_retries=n_retries)
        self._start = Start(
            source=TASKS,
            parameters=dict(settings),
            options=RunOptions(timeout_s=timeout_s, retries=n_retries, on_error="skip"),
            run_id=TASKS,
            epoch=0,
            run_dir="",
            command=(),
            master=this_process(),
        )
        self.give = self._master.give
        self.help = self._master.turns.help
        self._master.turns.guard_signals()
        # In place of the thread's own `join`: before CPython 3.13, once Ctrl-C has ended one of these, each
        # later one returns at once, and the next executor's master would use the transport beside this one.
        self._is_over = Event()
        self._thread = Thread(target=self._run, name="mpims master", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the master has ended; whether it has."""
        if not self._is_over.wait(timeout_s):
            return False
        self._master.turns.unguard_signals()
        return True

    def has_turn(self) -> bool:
        """Whether this thread drives the master, or is the master's own."""
        return self._master.turns.are_mine() or current_thread() is self._thread

    def processes(self) -> dict[int, Process]:
        """Who the workers are that have joined."""
        return {rank: worker.process for rank, worker in dict(self._master.record.workers).items()}

    def _run(self) -> None:
        error: MpimsError | None = None
        master = self._master
        try:
            master.begin(self._start)
            master.run()
            error = master.error
        except Exception as failure:  # the top of a thread: whoever waits for it must not do so for ever
            error = unforeseen(failure, user_traceback(failure))
        finally:
            try:
                self._customer.ended(error)
                master.close()
                self._ended()
            finally:
                self._transport.engaged_with = ""
                self._is_over.set()
