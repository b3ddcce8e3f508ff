"""The scheduler with items that are added while others are computed, under faults: each is done once."""

from __future__ import annotations

from random import Random

import pytest

from mpims.core.blame import DUBIOUS
from mpims.core.chunks import Assign
from mpims.core.deadlines import Deadlines
from mpims.core.events import (
    ChunkDone,
    ChunkFailed,
    Finish,
    ItemsAdded,
    ItemsClosed,
    ItemsReturned,
    Recall,
    Record,
    Skip,
    Tick,
    Trim,
    WorkerJoined,
    WorkerLost,
)
from mpims.core.handover import PATIENCE_S, Handover
from mpims.core.ledger import Ledger
from mpims.core.policies import Sizer, parse_policy
from mpims.core.scheduler import Scheduler
from mpims.core.workers import Counters

N_SEEDS = 150


class Driver:
    """Ranks that compute in random steps, some of which die, while items are added at random."""

    added, dies, event_s = 0.3, 0.02, 0.01
    """How probable it is in each step that items are added, and that a rank dies; time for each event."""

    def __init__(self, seed: int, handover: Handover | None = None) -> None:
        self.random = Random(seed)
        self.n_ranks = self.random.choice([1, 2, 5])
        ledger = Ledger(0, 1, is_open=True)
        policy = parse_policy(self.random.choice(["SS", "FAC2", "auto"])).make(1000, self.n_ranks)
        self.scheduler = Scheduler(
            ledger,
            Sizer(policy),
            Deadlines(1e9),
            self.n_ranks,
            skip=True,
            longest_queue=2,
            twins=handover is None and self.random.random() < 0.5,
            handover=handover,
        )
        self.makes_twins = self.scheduler._dispatch.takeover._makes_twins
        self.queues: dict[int, list[list[int]]] = {rank: [] for rank in range(1, self.n_ranks + 1)}
        self.n_recorded: dict[int, int] = {}
        self.n_items, self.n_assigned = 0, 0
        self.is_finished, self.is_closed = False, False
        self.now = 0.0

    def tell(self, event):
        self.now += self.event_s
        for action in self.scheduler.handle(event, self.now):
            self.perform(action)
        self.scheduler.ledger.check()

    def perform(self, action):
        assert not self.is_finished, f"{action} after Finish"
        if isinstance(action, Assign):
            assert action.stop <= self.n_items
            self.queues.get(action.rank, []).append([action.attempt, action.start, action.stop])
            self.n_assigned += action.stop - action.start
        elif isinstance(action, Recall):
            queue = self.queues.get(action.rank, [])
            queue[:] = [held for held in queue if held[0] != action.attempt]
        elif isinstance(action, Trim):
            for held in self.queues.get(action.rank, []):
                if held[0] == action.attempt:
                    held[2] = max(held[1], min(held[2], action.stop))
        elif isinstance(action, (Record, Skip)):
            ranges = action.ranges if isinstance(action, Record) else [(action.item, action.item + 1)]
            for start, stop in ranges:
                for item in range(start, stop):
                    self.n_recorded[item] = self.n_recorded.get(item, 0) + 1
        elif isinstance(action, Finish):
            assert self.is_closed
            self.is_finished = True

    def step(self):
        random = self.random
        busy = [rank for rank, queue in self.queues.items() if queue]
        if not self.is_closed and random.random() < self.added:
            n = random.randint(1, 30)
            self.n_items += n
            self.tell(ItemsAdded(n, random.choice([None, 1, *self.queues])))
        elif len(self.queues) > 1 and random.random() < self.dies:
            rank = random.choice(list(self.queues))
            del self.queues[rank]
            self.tell(WorkerLost(rank))
        elif busy:
            self.compute(random.choice(busy))
        else:
            self.now += 1.0
            self.tell(Tick())

    def compute(self, rank):
        held = self.queues[rank][0]
        number, start, stop = held
        if start >= stop:
            self.queues[rank].pop(0)
        elif self.random.random() < 0.02:
            held[1] = start + 1
            if held[1] == stop:
                self.queues[rank].pop(0)
            self.tell(ChunkFailed(rank, number, start, start + 1, "died", ""))
        else:
            held[1] = self.random.randint(start + 1, stop)
            if held[1] == stop:
                self.queues[rank].pop(0)
            n = held[1] - start
            self.tell(ChunkDone(rank, number, start, held[1], 0.01 * n, 0.01))


class Asked(Driver):
    """Ranks that look for messages between two items only, and are asked before work is taken from them."""

    added, dies, event_s = 0.03, 0.001, 0.001

    def __init__(self, seed: int) -> None:
        super().__init__(seed, Handover(lambda attempt: True))
        self.inboxes: dict[int, list] = {rank: [] for rank in self.queues}
        self.amid: set[int] = set()
        self.is_long: set[int] = set()
        self.n_returned = 0
        self.n_begun: dict[int, int] = {}
        self.given: dict[int, range] = {}
        self.may_repeat: set[int] = set()  # its rank died or is in doubt, or it failed

    def perform(self, action):
        if isinstance(action, Assign):
            self.given[action.attempt] = range(action.start, action.stop)
        elif isinstance(action, Recall) and self.scheduler.workers[action.rank].n_failed >= DUBIOUS:
            self.may_repeat |= set(self.given[action.attempt])  # all is taken from it, without its word
        if isinstance(action, (Assign, Recall, Trim)):
            self.inboxes.get(action.rank, []).append((self.now, action))
        else:
            super().perform(action)

    def step(self):
        self.now += self.event_s
        due = self.scheduler.next_deadline()
        if due is not None and due <= self.now:
            self.tell(Tick())
        super().step()
        for rank in list(self.queues):
            inbox = self.inboxes[rank]
            while rank not in self.amid and inbox and not self.is_finished:
                if self.random.random() < 0.5 and self.now - inbox[0][0] < PATIENCE_S / 3:
                    break  # it is under way
                _, action = inbox.pop(0)
                if isinstance(action, Trim):
                    self.answer(action)
                else:
                    super().perform(action)
        for rank in self.amid - set(self.queues):
            self.amid.discard(rank)

    def answer(self, trim):
        for held in self.queues[trim.rank]:
            if held[0] == trim.attempt:
                stop, held[2] = held[2], min(held[2], max(held[1], trim.stop))
                self.n_returned += stop > held[2]
                self.tell(ItemsReturned(trim.rank, trim.attempt, held[2]))

    def compute(self, rank):
        held = self.queues[rank][0]
        number, item, stop = held
        if item >= stop:
            self.queues[rank].pop(0)
        elif rank not in self.amid:
            self.amid.add(rank)
            self.is_long = {*self.is_long, item} if self.random.random() < 0.2 else self.is_long
            self.n_begun[item] = self.n_begun.get(item, 0) + 1
            self.may_repeat |= {item} if self.random.random() < 0.02 else set()
        elif item not in self.is_long or self.random.random() < 0.01:
            self.amid.discard(rank)
            held[1] = item + 1
            if held[1] == stop:
                self.queues[rank].pop(0)
            if item in self.may_repeat and self.n_begun[item] == 1:
                self.tell(ChunkFailed(rank, number, item, item + 1, "died", ""))
            else:
                self.tell(ChunkDone(rank, number, item, item + 1, 0.01, 0.01))

    def tell(self, event):
        if isinstance(event, WorkerLost):
            attempts = self.scheduler.ledger.attempts.values()
            for attempt in attempts:
                if attempt.rank == event.rank:
                    self.may_repeat |= set(range(attempt.start, attempt.stop))
        super().tell(event)


def test_nothing_is_begun_twice_where_ranks_are_asked_first():
    counts, n_returned = Counters(), 0
    for seed in range(2 * N_SEEDS):
        driver = Asked(seed)
        for rank in list(driver.queues):
            driver.tell(WorkerJoined(rank))
        for _ in range(150):
            driver.step()
        driver.is_closed = True
        driver.tell(ItemsClosed())
        for _ in range(20_000):
            if driver.is_finished:
                break
            driver.step()
        assert driver.is_finished, f"seed {seed}: no end"
        assert driver.n_recorded == dict.fromkeys(range(driver.n_items), 1), f"seed {seed}"
        twice = {item for item, n in driver.n_begun.items() if n > 1} - driver.may_repeat
        assert not twice, f"seed {seed}: begun twice: {twice}"
        its = driver.scheduler.counters
        counts.n_recalled += its.n_recalled
        counts.n_split += its.n_split
        n_returned += driver.n_returned
    assert min(counts.n_recalled, counts.n_split, n_returned) > 0, "nothing was tried"


def test_a_rank_that_does_not_answer_loses_what_it_cannot_have_begun():
    """As where a task takes an hour, and others wait behind it."""
    scheduler = scheduler_of(2, handover=Handover(lambda attempt: True), twins=False)
    for rank in (1, 2):
        scheduler.handle(WorkerJoined(rank), 0.0)
    actions = scheduler.handle(ItemsAdded(4), 0.0)
    mine = [action for action in actions if action.rank == 1]
    for one in [action for action in actions if action.rank == 2]:
        asked = scheduler.handle(ChunkDone(2, one.attempt, one.start, one.stop, 0.1, 0.1), 1.0)
    assert [type(action) for action in asked] == [Trim, Record]
    assert (asked[0].rank, asked[0].attempt, asked[0].stop) == (1, mine[1].attempt, mine[1].start)
    assert scheduler.handle(Tick(), 1.0 + PATIENCE_S / 2) == []
    moved = scheduler.handle(Tick(), 1.1 + PATIENCE_S)
    assert [type(action) for action in moved] == [Recall, Assign]
    assert (moved[1].rank, moved[1].start) == (2, mine[1].start)
    assert scheduler.handle(ItemsReturned(1, mine[1].attempt, mine[1].start), 2.0) == []  # too late
    scheduler.ledger.check()


@pytest.mark.parametrize("group", range(10))
def test_each_item_is_done_once_and_the_end_comes_when_the_input_is_closed(group):
    for seed in range(group, N_SEEDS, 10):
        driver = Driver(seed)
        for rank in list(driver.queues):
            driver.tell(WorkerJoined(rank))
        for _ in range(150):
            driver.step()
        assert not driver.is_finished, f"seed {seed}"
        driver.is_closed = True
        driver.tell(ItemsClosed())
        for _ in range(20_000):
            if driver.is_finished:
                break
            driver.step()
        assert driver.is_finished, f"seed {seed}: no end"
        assert driver.n_recorded == dict.fromkeys(range(driver.n_items), 1), f"seed {seed}"


def scheduler_of(n_ranks, **options):
    ledger = Ledger(0, 1, is_open=True)
    policy = parse_policy("SS").make(1, n_ranks)
    return Scheduler(ledger, Sizer(policy), Deadlines(1e9), n_ranks, **options)


def test_an_open_run_does_not_end_when_all_is_done():
    scheduler = scheduler_of(1)
    scheduler.handle(WorkerJoined(1), 0.0)
    (assign,) = scheduler.handle(ItemsAdded(1), 0.0)
    actions = scheduler.handle(ChunkDone(1, assign.attempt, 0, 1, 0.1, 0.1), 1.0)
    assert Finish() not in actions
    assert scheduler.handle(ItemsClosed(), 2.0) == [Finish()]


def test_a_closed_run_without_items_ends_at_once():
    scheduler = scheduler_of(2)
    assert scheduler.handle(ItemsClosed(), 0.0) == [Finish()]


def test_added_items_go_to_idle_ranks_first_the_last_to_become_idle_before_others():
    scheduler = scheduler_of(3)
    for rank in (1, 2, 3):
        scheduler.handle(WorkerJoined(rank), 0.0)
    assert [action.rank for action in scheduler.handle(ItemsAdded(1), 1.0)] == [3]
    assert sorted(action.rank for action in scheduler.handle(ItemsAdded(2), 1.0)) == [1, 2]
    assert scheduler.handle(ItemsAdded(1), 1.0)[0].rank in (1, 2, 3)  # held beside the one under way


def test_added_items_go_before_all_to_the_rank_that_is_about_to_be_idle():
    scheduler = scheduler_of(3)
    for rank in (1, 2, 3):
        scheduler.handle(WorkerJoined(rank), 0.0)
    (first,) = scheduler.handle(ItemsAdded(1, near=1), 1.0)
    (second,) = scheduler.handle(ItemsAdded(1, near=1), 1.0)
    assert (first.rank, second.rank) == (1, 1)
    others = [*scheduler.handle(ItemsAdded(1, near=1), 1.0), *scheduler.handle(ItemsAdded(1, near=9), 1.0)]
    assert [action.rank for action in others] == [3, 2]  # that one has its next; there is no rank 9
    scheduler.handle(ChunkDone(1, first.attempt, 0, 1, 0.1, 0.1), 1.1)
    scheduler.handle(ChunkDone(1, second.attempt, 1, 2, 0.1, 0.1), 1.2)
    (last,) = scheduler.handle(ItemsAdded(1), 1.3)
    assert last.rank == 1


@pytest.mark.parametrize("twins", [True, False])
def test_without_twins_nothing_is_computed_beside_another(twins):
    scheduler = scheduler_of(2, twins=twins)
    for rank in (1, 2):
        scheduler.handle(WorkerJoined(rank), 0.0)
    first, second = scheduler.handle(ItemsAdded(2), 0.0)
    scheduler.handle(ChunkDone(second.rank, second.attempt, second.start, second.stop, 0.1, 0.1), 0.1)
    actions = [a for t in range(1, 60) for a in scheduler.handle(Tick(), float(t))]
    given = [action for action in actions if isinstance(action, Assign)]
    assert bool(given) is twins
    assert all((action.start, action.stop) == (first.start, first.stop) for action in given)
    if not twins:
        assert scheduler.next_deadline() is None or scheduler.next_deadline() > 1e6  # nothing to look after
