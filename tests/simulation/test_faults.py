"""The real scheduler under thousands of simulated faults; every failure prints its seed.

``MPIMS_SEEDS=100000 python -m pytest tests/simulation`` (or ``make soak SEEDS=100000``) tries more.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random

import pytest

from mpims.core.deadlines import Deadlines
from mpims.core.events import Finish, GiveUp
from mpims.core.ledger import Ledger
from mpims.core.measures import QUEUE_LENGTH
from mpims.core.policies import POLICIES, Sizer, parse_policy
from mpims.core.scheduler import Scheduler
from tests.simulation.faults import Faults, Simulated
from tests.simulation.faulty import Simulation

N_SEEDS = int(os.environ.get("MPIMS_SEEDS", "1000"))
N_GROUPS = 20


def draw_faults(random: Random, n_blocks: int) -> Faults:
    n_poisoned = random.choice([0, 0, 0, 1, 3])
    return Faults(
        death=random.choice([0, 0, 0.05, 0.5]),
        hang=random.choice([0, 0.05, 0.3]),
        late=random.choice([0, 0.05, 0.3]),
        twice=random.choice([0, 0.2]),
        master_death=random.choice([0, 0, 0.02, 0.1]),
        crash=random.choice([0, 0, 0.02]),
        stop=random.choice([0, 0, 0.02]),
        away=random.choice([0, 0, 0.02]),
        spare=random.choice([0, 1]),
        poison={
            random.randrange(n_blocks): random.choice(["raise", "kill", "hang"]) for _ in range(n_poisoned)
        },
    )


def simulate(seed: int) -> tuple[Simulation, Simulated, Counter[str]]:
    """One run with everything drawn from the seed; the ledger's rules are checked after each event."""
    random = Random(seed)
    n_items = random.choice([1, 2, 7, 100, random.randint(1, 3000)])
    block = random.choice([1, 1, 3, 16, n_items])
    n_ranks = random.choice([1, 2, 3, 5, 16])
    policy = POLICIES[random.choice(sorted(POLICIES))]
    n_blocks = -(-n_items // block)
    size, least = random.randint(1, 20), random.choice([1, 1, 4])
    faults = draw_faults(random, n_blocks)
    timeout_s = random.choice([None, 5.0, 50.0]) if "hang" not in faults.poison.values() else 5.0
    skip = random.random() < 0.8
    cov = random.choice([0.0, 0.3, 3.0])
    queue_length = random.choice([QUEUE_LENGTH, QUEUE_LENGTH, QUEUE_LENGTH, 1, 9])
    schedulers: list[Scheduler] = []

    def make_scheduler(*, done, first_attempt, n_workers):
        n_workers = max(1, n_workers)
        spec = parse_policy(policy.example(n_workers).replace("CSS:100", f"CSS:{size * block}"))
        sizer = Sizer(spec.make(n_blocks, n_workers, block), least)
        ledger = Ledger(n_items, block, done=done, first_attempt=first_attempt)
        schedulers.append(
            Scheduler(ledger, sizer, Deadlines(timeout_s), n_workers, skip=skip, queue_length=queue_length)
        )
        return schedulers[-1]

    def block_time(index: int) -> float:
        return 0.01 * (1 + cov * (index * 7919 % 101) / 50)

    simulation = Simulation(
        make_scheduler,
        range(1, n_ranks + 1),
        block_time,
        faults=faults,
        random=random,
        whole_chunks=random.random() < 0.5,
        skip=skip,
        after_event=lambda scheduler: scheduler.ledger.check(),
    )
    result = simulation.run()
    counts: Counter[str] = Counter()
    for scheduler in schedulers:
        counts.update(scheduler.counters.by_name())
    return simulation, result, counts


def check(seed: int) -> Simulated:
    """The laws that every run has to keep, whatever happens."""
    simulation, result, _ = simulate(seed)
    poison = simulation.faults.poison
    if isinstance(result.outcome, GiveUp):
        assert poison, f"seed {seed}: gave up with nothing at fault: {result.outcome}"
        assert not simulation.skip, f"seed {seed}: gave up instead of skipping: {result.outcome}"
        return result
    assert isinstance(result.outcome, Finish), f"seed {seed}: the run came to a stop"
    ledger = simulation.scheduler.ledger
    at = 0
    for start, stop in sorted(result.commits):
        assert start == at, f"seed {seed}: items from {at} committed twice or never"
        at = stop
    assert at == ledger.n_items, f"seed {seed}"
    skipped = {block * ledger.block for block in poison}
    assert set(result.skipped) == skipped, f"seed {seed}: skipped {result.skipped}, at fault {skipped}"
    return result


@pytest.mark.parametrize("group", range(N_GROUPS))
def test_every_item_commits_exactly_once(group: int) -> None:
    seeds = range(group, N_SEEDS, N_GROUPS)
    n_finished = sum(isinstance(check(seed).outcome, Finish) for seed in seeds)
    assert n_finished > 0.8 * len(seeds)


def test_faults_really_happen() -> None:
    """The seeds above reach what they are there for."""
    names = [
        "n_lost",
        "n_timeouts",
        "n_duplicates",
        "n_reissued",
        "n_recalled",
        "n_split",
        "n_twins",
        "n_failures",
        "n_skipped",
    ]
    seen = Counter(dict.fromkeys([*names, "n_masters", "n_resumed", "late survivors"], 0))
    for seed in range(300):
        simulation, result, counts = simulate(seed)
        for name in names:
            seen[name] += counts[name]
        seen["n_masters"] += result.n_masters
        seen["n_resumed"] += result.n_resumed
        seen["late survivors"] += simulation.scheduler.workers.keys() == {simulation.master}
    assert min(seen.values()) > 20, seen


def test_a_run_is_a_function_of_its_seed() -> None:
    assert simulate(17)[1] == simulate(17)[1]


def undisturbed(n_items: int, n_workers: int, policy: str, block_time, **options) -> Simulation:
    def make_scheduler(*, done, first_attempt, n_workers):
        sizer = Sizer(parse_policy(POLICIES[policy].example(n_workers)).make(n_items, n_workers))
        return Scheduler(Ledger(n_items, 1), sizer, Deadlines(), n_workers)

    return Simulation(make_scheduler, range(1, n_workers + 1), block_time, **options)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_undisturbed_runs_compute_nothing_twice(policy: str) -> None:
    simulation = undisturbed(5000, 7, policy, lambda index: 0.01 * (1 + index % 13))
    result = simulation.run()
    assert result.outcome == Finish()
    assert sum(stop - start for start, stop in result.commits) == 5000
    counters = simulation.scheduler.counters
    assert (counters.n_reissued, counters.n_timeouts, counters.n_failures) == (0, 0, 0)
    assert counters.n_duplicates < 0.005 * 5000


def test_self_scheduling_balances_uneven_items() -> None:
    """A thousand items whose times differ a hundredfold, on ten workers: all busy to the end."""
    simulation = undisturbed(1000, 10, "SS", lambda index: 0.01 * (1 + index * 37 % 100))
    result = simulation.run()
    assert result.busy_s / (10 * result.makespan_s) > 0.98


def test_even_equal_shares_of_uneven_items_end_together() -> None:
    """STATIC gives one worker all the work; what it has not begun goes to the idle."""
    simulation = undisturbed(1000, 10, "STATIC", lambda index: 1.0 if index < 100 else 0.001)
    assert simulation.run().makespan_s < 20.0  # 100 if nobody helped; 10.1 at best
