"""The scheduler with items that are added while others are computed, under faults: each is done once."""

from __future__ import annotations

from random import Random

import pytest

from mpims.core.deadlines import Deadlines
from mpims.core.events import (
    Assign,
    ChunkDone,
    ChunkFailed,
    Finish,
    ItemsAdded,
    ItemsClosed,
    Recall,
    Record,
    Skip,
    Tick,
    Trim,
    WorkerJoined,
    WorkerLost,
)
from mpims.core.ledger import Ledger
from mpims.core.policies import Sizer, parse_policy
from mpims.core.scheduler import Scheduler

N_SEEDS = 150


class Driver:
    """Ranks that compute in random steps, some of which die, while items are added at random."""

    def __init__(self, seed: int) -> None:
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
            twins=self.random.random() < 0.5,
        )
        self.makes_twins = self.scheduler._dispatch._makes_twins
        self.queues: dict[int, list[list[int]]] = {rank: [] for rank in range(1, self.n_ranks + 1)}
        self.n_recorded: dict[int, int] = {}
        self.n_items, self.n_assigned = 0, 0
        self.is_finished, self.is_closed = False, False
        self.now = 0.0

    def tell(self, event):
        self.now += 0.01
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
        if not self.is_closed and random.random() < 0.3:
            n = random.randint(1, 30)
            self.n_items += n
            self.tell(ItemsAdded(n))
        elif len(self.queues) > 1 and random.random() < 0.02:
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
