"""Ways in short beside the plain ones: from the same events both make the same state and the same actions.

What hands out work and takes results in has, for its speed, a second way for the ordinary case. Here a
scheduler that has it and one that goes the plain way hear of the same ranks, which compute, fail, fall
silent, die, answer late or twice; after every event the two must not differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpims.core.chunks import PLAIN, Assign, AssignAlike, Care, Held, Result
from mpims.core.deadlines import Deadlines
from mpims.core.events import (
    ChunkDone,
    ChunkFailed,
    ChunksDone,
    Drain,
    Finish,
    GiveUp,
    Hire,
    ItemsAdded,
    ItemsClosed,
    ItemsReturned,
    MasterAway,
    MasterServed,
    Recall,
    Record,
    Stop,
    StopRequested,
    Tick,
    Trim,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
    WorkerSpoke,
    chunk_done,
)
from mpims.core.handover import Handover
from mpims.core.ledger import Ledger
from mpims.core.policies import Sizer, parse_policy
from mpims.core.scheduler import Scheduler
from mpims.outputs import Gather
from mpims.runtime.deliveries import deliveries
from mpims.storage.results import GatherResults

TIMEOUT_S = 3.0
ENDINGS = (Finish, GiveUp, Stop)
FIRST_ATTEMPT = 1000
"""Lower ones are of an earlier master."""


def state(scheduler):
    """All that a scheduler knows, and will act on."""
    ledger, dispatch = scheduler.ledger, scheduler._dispatch
    measures, takeover = dispatch.measures, dispatch.takeover
    if scheduler.ended:
        return {"items": (ledger.n_items, list(ledger.done))}
    return {
        "items": (ledger.n_items, ledger.is_open, list(ledger.done), list(ledger.pending)),
        "attempts": [known(attempt) for attempt in ledger.attempts.values()],
        "next": ledger._next_number,
        "troubles": [(t.start, t.stop, t.care, t.n_failures, t.failed_on) for t in ledger.troubles],
        "workers": {rank: known_of(worker) for rank, worker in scheduler.workers.items()},
        "idle": None if dispatch.closed else list(dispatch.idle),  # once closed nobody asks
        "with a next": list(dispatch._with_next),
        "busy": [worker.rank for worker in takeover._busy if worker.queue],
        "look again": takeover.look_again_at,
        "times": (measures.block_s, measures.short_s, scheduler.slack_s),
        "deadline": scheduler.next_deadline(),
        "counters": scheduler.counters.by_name(),
        "closed": dispatch.closed,
    }


def known(attempt):
    twin = attempt.twin.number if attempt.twin is not None else None
    return attempt.number, attempt.rank, attempt.start, attempt.stop, attempt.care, twin


def known_of(worker):
    return {
        "queue": [known(attempt) for attempt in worker.queue],
        "length": (worker.length, worker.holds_back),
        "silent": (worker.silent_since, worker.suspect, worker.has_check),
        "blocks": (worker.block_s, worker.n_failed, worker.part),
    }


def kept_lists_are_what_they_stand_for(scheduler):
    """Lists that spare a look at all ranks hold what such a look would find."""
    dispatch = scheduler._dispatch
    there = scheduler.workers.values()
    assert set(dispatch._with_next) == {w.rank for w in there if len(w.queue) > 1 and not w.suspect}
    assert not any(scheduler.workers[rank].queue for rank in dispatch.idle)
    listed = [worker for worker in dispatch.takeover._busy if worker.rank in scheduler.workers]
    assert {w.rank for w in listed} >= {w.rank for w in there if w.is_listed}
    is_watched = scheduler._silence.allowance_s is not None
    assert not is_watched or all(w.has_check for w in there if w.queue and not w.suspect)


@dataclass
class Ranks:
    """Ranks as the actions leave them, their messages under way, and the two schedulers that get these."""

    short: Scheduler
    plain: Scheduler
    block: int
    block_s: tuple[float, ...]
    random: Random
    waiting: list[int]  # have yet to join
    compare: object
    asks: bool  # before work is taken from a rank
    has_units: bool
    queues: dict[int, list[list]] = field(default_factory=dict)  # rank -> [attempt, at, stop, care]
    flying: list = field(default_factory=list)
    told_to_drain: set[int] = field(default_factory=set)
    now: float = 0.0
    ended: bool = False
    n_held: int = 0

    def handle(self, event):
        actions = self.short.handle(event, self.now)
        self.compare(event, actions, self.plain.handle(event, self.now))
        assert self.short.ended == self.plain.ended
        assert state(self.short) == state(self.plain)
        self.short.ledger.check()
        if not (self.short.ended or self.short._dispatch.closed):
            kept_lists_are_what_they_stand_for(self.short)
        for action in actions:
            self.obey(action)

    def obey(self, action):
        if isinstance(action, AssignAlike):
            for one in action.singly():
                self.obey(one)
        elif isinstance(action, Assign):
            held = [action.attempt, action.start, action.stop, action.care]
            self.queues.setdefault(action.rank, []).append(held)
        elif isinstance(action, (Recall, Trim)):
            queue = self.queues.get(action.rank, [])
            at = action.stop if isinstance(action, Trim) else 0
            for held in [held for held in queue if held[0] == action.attempt]:
                held[2] = max(held[1], min(held[2], at))
                if self.asks and isinstance(action, Trim):
                    self.flying.append(ItemsReturned(action.rank, action.attempt, held[2]))
            queue[:] = [held for held in queue if held[1] < held[2]]
        elif isinstance(action, Drain):
            self.told_to_drain.add(action.rank)
        elif isinstance(action, Hire):
            self.waiting.append(0)
        elif isinstance(action, ENDINGS):
            self.ended = True

    # ---- what can happen

    def join(self):
        rank = self.waiting.pop()
        holding = []
        n_items = self.short.ledger.n_items
        for _ in range(self.random.choice([0, 0, 1, 2]) if rank and n_items else 0):
            start = self.random.randrange(0, n_items, self.block)
            stop = min(start + self.random.randint(1, 3) * self.block, n_items)
            self.n_held += 1
            holding.append(Held(self.n_held, start, stop))
        self.queues[rank] = [[*held, PLAIN] for held in holding]
        self.handle(WorkerJoined(rank, tuple(holding)))

    def delivered(self, rank, n_blocks):
        """Compute some blocks of the head of a rank's queue."""
        number, start, end, _ = held = self.queues[rank][0]
        held[1] = stop = min(start + n_blocks * self.block, end)
        if stop == end:
            self.queues[rank].pop(0)
        block_s = self.random.choice(self.block_s)
        n_blocks = -((start - stop) // self.block)
        busy_s, squares_s2 = n_blocks * block_s, n_blocks * block_s * block_s
        return Result(number, start, stop, busy_s, block_s, squares_s2, block_s / 8)

    def units(self, result):
        if not self.has_units:
            return None
        middle = result.start + (result.stop - result.start) // (2 * self.block) * self.block
        cuts = ((result.start, middle), (middle, result.stop))
        return tuple(unit for unit in cuts if unit[0] < unit[1])

    def compute(self, rank):
        result = self.delivered(rank, self.random.choice([1, 2, 100, 100]))
        self.flying.append(chunk_done(rank, result, self.units(result)))

    def compute_several(self, rank):
        results = []
        for _ in range(self.random.randint(2, 5)):
            if self.queues[rank]:
                results.append(self.delivered(rank, 100))
        if len(results) > 1:
            self.flying.append(ChunksDone(rank, results, [self.units(one) for one in results]))
        else:
            self.flying.append(chunk_done(rank, results[0], self.units(results[0])))

    def fail(self, rank):
        care = self.queues[rank][0][3]
        one = self.delivered(rank, 1)
        if not care & Care.ITEMWISE:
            self.flying.append(ChunkFailed(rank, one.attempt, one.start, one.stop, "boom", ""))

    def lose(self, rank):
        self.queues.pop(rank, None)
        self.told_to_drain.discard(rank)
        self.waiting = [other for other in self.waiting if other != rank]
        self.handle(WorkerLost(rank))

    def arrive(self):
        """The oldest message of a rank, or any; it may come again."""
        index = 0 if self.random.random() < 0.7 else self.random.randrange(len(self.flying))
        event = self.flying.pop(index)
        if not isinstance(event, (WorkerDrained, ItemsReturned)) and self.random.random() < 0.08:
            self.flying.append(event)
        self.handle(event)

    def drain(self):
        rank = self.told_to_drain.pop()
        self.queues.get(rank, []).clear()
        self.flying.append(WorkerDrained(rank))

    def step(self, several):
        """One thing that can happen now."""
        random = self.random
        busy = [rank for rank, queue in self.queues.items() if queue]
        mortal = sorted({*self.queues, *self.waiting} - {0})
        often = ["join"] * bool(self.waiting) + ["compute"] * bool(busy) + ["arrive"] * bool(self.flying)
        seldom = ["tick", "away", "served", *["fail"] * 3 * bool(busy), *["speak", "lose"] * bool(mortal)]
        seldom += ["drain"] * bool(self.told_to_drain) + ["add"] * self.short.ledger.is_open
        what = random.choice(often if often and random.random() < 0.85 else seldom)
        self.now += random.choice(self.block_s) if random.random() < 0.9 else TIMEOUT_S / 2
        if what == "join":
            self.join()
        elif what == "compute":
            (self.compute_several if several and random.random() < 0.7 else self.compute)(
                random.choice(busy)
            )
        elif what == "arrive":
            self.arrive()
        elif what == "fail":
            self.fail(random.choice(busy))
        elif what == "drain":
            self.drain()
        elif what == "lose" and random.random() < 0.3:
            self.lose(random.choice(mortal))
        elif what == "speak":
            self.handle(WorkerSpoke(random.choice(mortal)))
        elif what == "away":
            self.handle(MasterAway(1.0))
        elif what == "served":
            self.handle(MasterServed(1e-3))
        elif what == "add":
            is_last = random.random() < 0.2
            self.handle(ItemsClosed() if is_last else ItemsAdded(random.randint(1, 6) * self.block))
        else:
            self.handle(Tick())
        if random.random() < 0.005:
            self.handle(StopRequested(4.0))


def schedulers(policy, n_items, block, n_workers, *, is_open=False, end_at=None, asks=False, **options):
    """Two that are alike."""
    made = []
    for _ in range(2):
        ledger = Ledger(n_items, block, first_attempt=FIRST_ATTEMPT, is_open=is_open)
        sizer = Sizer(parse_policy(policy).make(max(1, -(-n_items // block)), n_workers))
        handover = Handover(lambda attempt: attempt.number % 2 == 0) if asks else None
        deadlines = Deadlines(options.get("timeout_s"))
        others = {name: value for name, value in options.items() if name != "timeout_s"}
        made.append(
            Scheduler(ledger, sizer, deadlines, n_workers, handover=handover, end_at=end_at, **others)
        )
    return made


def goes_the_plain_way(scheduler):
    scheduler._handlers[ChunkDone] = scheduler._any_chunk_done
    scheduler._handlers[ChunksDone] = scheduler._one_by_one


policies = st.sampled_from(["SS", "CSS:3", "GSS", "FAC2", "TSS", "STATIC", "AF", "AWF-B"])


PLAINLY = {
    "timeout_s": TIMEOUT_S,
    "is_open": False,
    "asks": False,
    "twins": True,
    "skip": False,
    "end_at": None,
}


@settings(max_examples=50, deadline=None)
@given(
    policy=policies,
    n_blocks=st.integers(0, 60),
    block=st.sampled_from([1, 4]),
    n_workers=st.integers(1, 4),
    queue_length=st.sampled_from([1, 2, 2, 4]),
    block_s=st.sampled_from([(0.25,), (1e-5, 2e-5), (1e-3, 0.1, 1.0)]),
    options=st.fixed_dictionaries(
        {
            "timeout_s": st.sampled_from([None, TIMEOUT_S]),
            "is_open": st.booleans(),
            "asks": st.booleans(),
            "twins": st.booleans(),
            "skip": st.booleans(),
            "end_at": st.sampled_from([None, None, 15.0]),
        }
    ),
    has_units=st.booleans(),
    seed=st.integers(0, 2**32),
)
@example("SS", 7, 1, 3, 2, (0.25,), PLAINLY, False, 655)  # a success ends a row of failures
@example("SS", 6, 1, 4, 2, (0.25,), PLAINLY, False, 656)  # a rank is idle
def test_a_result_is_taken_in_as_the_plain_way_does_it(
    policy, n_blocks, block, n_workers, queue_length, block_s, options, has_units, seed
):
    n_items = n_blocks * block
    short, plain = schedulers(policy, n_items, block, n_workers, queue_length=queue_length, **options)
    goes_the_plain_way(plain)

    def compare(event, actions, expected):
        assert actions == expected

    waiting = list(range(1, n_workers + 1))
    ranks = Ranks(short, plain, block, block_s, Random(seed), waiting, compare, options["asks"], has_units)
    for _ in range(80):
        if short.ended or (short.ledger.complete and not ranks.flying):
            break
        ranks.step(several=False)


# ----------------------------------------------------------------- several at once


def what_is_said(actions):
    """Chunks of each rank one by one, the items that count, and all else."""
    chunks, items, others = {}, [], []
    for action in actions:
        if isinstance(action, Assign):
            chunks.setdefault(action.rank, []).append(action)
        elif isinstance(action, AssignAlike):
            chunks.setdefault(action.rank, []).extend(action.singly())
        elif isinstance(action, Record):
            items += [item for start, stop in action.ranges for item in range(start, stop)]
        else:
            others.append(action)
    return chunks, sorted(items), others


def what_is_stored(event, actions):
    """The values of a delivery that come to the places of their items, if each item has its own index."""
    heads = event.results if isinstance(event, ChunksDone) else [Result(*event[1:4])]
    payload = np.concatenate([np.arange(one.start, one.stop) for one in heads])
    select = GatherResults(Gather(), 0, None).select
    stored = {}
    for head, first, last, ranges in deliveries(heads, [a for a in actions if isinstance(a, Record)]):
        part = select(payload, heads, first, last)
        for start, stop in ranges:
            stored.update(
                zip(range(start, stop), part[start - head.start : stop - head.start], strict=True)
            )
    return stored


@settings(max_examples=50, deadline=None)
@given(
    policy=st.sampled_from(["SS", "CSS:3", "GSS", "TSS"]),
    n_blocks=st.integers(0, 90),
    block=st.sampled_from([1, 4]),
    n_workers=st.integers(1, 4),
    queue_length=st.integers(2, 9),
    options=st.fixed_dictionaries(
        {
            "timeout_s": st.sampled_from([None, TIMEOUT_S]),
            "is_open": st.booleans(),
            "asks": st.booleans(),
            "twins": st.booleans(),
            "skip": st.booleans(),
        }
    ),
    has_units=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_several_results_at_once_are_taken_in_as_one_by_one(
    policy, n_blocks, block, n_workers, queue_length, options, has_units, seed
):
    """With queues of one length and blocks of one time, or more results have more to learn from."""
    options |= {"queue_length": queue_length, "longest_queue": queue_length}
    together, apart = schedulers(policy, n_blocks * block, block, n_workers, **options)
    goes_the_plain_way(apart)

    def compare(event, actions, expected):
        assert what_is_said(actions) == what_is_said(expected)
        if isinstance(event, (ChunkDone, ChunksDone)):
            items = what_is_said(actions)[1]
            assert what_is_stored(event, actions) == {item: item for item in items}
        # Of ranks with more than they compute, any may be the first of which others take over.
        for rank in [] if together.ended else together._dispatch._with_next:
            apart._dispatch._with_next.move_to_end(rank)

    waiting = list(range(1, n_workers + 1))
    ranks = Ranks(
        together, apart, block, (0.25,), Random(seed), waiting, compare, options["asks"], has_units
    )
    for _ in range(80):
        if together.ended or (together.ledger.complete and not ranks.flying):
            break
        ranks.step(several=True)


@given(
    n_blocks=st.integers(1, 60),
    block=st.integers(1, 4),
    cut=st.integers(0, 3),
    gone=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=4),
    policy=st.sampled_from(["SS", "CSS:3", "GSS", "FAC2", "TSS"]),
    limits=st.tuples(st.integers(1, 4), st.none() | st.integers(4, 6)),
    n_most=st.integers(1, 12),
)
def test_many_chunks_are_those_that_are_handed_out_one_after_another(
    n_blocks, block, cut, gone, policy, limits, n_most
):
    """From the front of the first of several pending ranges; where all are of one size, as one, too."""
    n_items = max(1, n_blocks * block - min(cut, block - 1))
    spans = [(a * block, min((a + n) * block, n_items)) for a, n in gone]
    done = [span for span in spans if span[0] < span[1]]
    one, other, alike = [Ledger(n_items, block, done=done) for _ in range(3)]
    sizers = [Sizer(parse_policy(policy).make(n_blocks, 2), *limits) for _ in range(2)]
    if not one.pending.size:
        return
    _, stop = one.pending.first
    attempts = one.assign_many(1, n_most, sizers[0].next_size)
    expected = []
    while len(expected) < n_most and not (expected and expected[-1].stop == stop):
        expected.append(other.assign_next(1, sizers[1].next_size(other.n_pending_blocks, 1)))
    assert [known(attempt) for attempt in attempts] == [known(attempt) for attempt in expected]
    ledgers = [(one, attempts), (other, expected)]
    if sizers[0].constant is not None:
        ledgers.append((alike, alike.assign_alike(1, n_most, sizers[0].constant)))
    for ledger, given_out in ledgers:
        assert [known(attempt) for attempt in given_out] == [known(attempt) for attempt in expected]
        assert list(ledger.pending) == list(other.pending)
        assert (ledger.pending.size, ledger.newest.number) == (other.pending.size, other.newest.number)
        ledger.check()
