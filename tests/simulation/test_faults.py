"""The real scheduler under thousands of simulated faults; every failure prints its seed."""

from __future__ import annotations

from random import Random

import pytest

from mpims.core.deadlines import Deadlines
from mpims.core.events import Finish, GiveUp
from mpims.core.ledger import Ledger
from mpims.core.policies import POLICIES, Sizer
from mpims.core.scheduler import Scheduler
from mpims.simulate import Faults, Simulated, Simulation

N_SEEDS = 2000
N_GROUPS = 20


def simulate(seed: int) -> tuple[Scheduler, Simulated]:
    """One run with everything drawn from the seed; the ledger's rules are checked after each event."""
    random = Random(seed)
    n_items = random.choice([1, 2, 7, 100, random.randint(1, 3000)])
    block = random.choice([1, 1, 3, 16, n_items])
    n_workers = random.choice([1, 2, 3, 5, 16])
    policy = POLICIES[random.choice(sorted(POLICIES))]
    n_blocks = -(-n_items // block)
    sizer = Sizer(policy(n_blocks, n_workers, random.randint(1, 20)), random.choice([1, 1, 4]))
    faults = Faults(
        death=random.choice([0, 0, 0.05, 0.5]),
        hang=random.choice([0, 0.05, 0.3]),
        late=random.choice([0, 0.05, 0.3]),
        twice=random.choice([0, 0.2]),
        spare=random.choice([0, 1]),
    )
    scheduler = Scheduler(
        Ledger(n_items, block), sizer, Deadlines(random.choice([None, 5.0, 50.0])), n_workers
    )
    cov = random.choice([0.0, 0.3, 3.0])

    def block_time(index: int) -> float:
        return 0.01 * (1 + cov * (index * 7919 % 101) / 50)

    simulation = Simulation(
        scheduler,
        range(1, n_workers + 1),
        block_time,
        faults=faults,
        random=random,
        whole_chunks=random.random() < 0.5,
        after_event=scheduler.ledger.check,
    )
    return scheduler, simulation.run()


@pytest.mark.parametrize("group", range(N_GROUPS))
def test_every_item_commits_exactly_once(group: int) -> None:
    n_finished = 0
    for seed in range(group, N_SEEDS, N_GROUPS):
        scheduler, result = simulate(seed)
        if isinstance(result.outcome, GiveUp):
            everybody_gone = not scheduler.workers or all(w.suspect for w in scheduler.workers.values())
            assert everybody_gone, f"seed {seed}: gave up with healthy ranks: {result.outcome}"
            continue
        assert isinstance(result.outcome, Finish), f"seed {seed}: the run came to a stop"
        n_finished += 1
        at = 0
        for start, stop in sorted(result.commits):
            assert start == at, f"seed {seed}: items from {at} committed twice or never"
            at = stop
        assert at == scheduler.ledger.n_items, f"seed {seed}"
    assert n_finished > N_SEEDS // N_GROUPS // 2


def test_faults_really_happen() -> None:
    """The seeds above reach what they are there for."""
    seen = {"n_lost": 0, "n_timeouts": 0, "n_duplicates": 0, "n_reissued": 0, "n_recalled": 0}
    for seed in range(300):
        scheduler, _ = simulate(seed)
        for name in seen:
            seen[name] += getattr(scheduler.counters, name)
    assert min(seen.values()) > 50, seen


def test_a_run_is_a_function_of_its_seed() -> None:
    assert simulate(17)[1] == simulate(17)[1]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_undisturbed_runs_hand_nothing_out_twice(policy: str) -> None:
    scheduler = Scheduler(Ledger(5000, 1), Sizer(POLICIES[policy](5000, 7, 25)), Deadlines(), 7)
    result = Simulation(scheduler, range(1, 8), lambda index: 0.01 * (1 + index % 13)).run()
    assert result.outcome == Finish()
    assert sum(stop - start for start, stop in result.commits) == 5000
    counters = scheduler.counters
    assert (counters.n_reissued, counters.n_duplicates, counters.n_timeouts) == (0, 0, 0)


def test_self_scheduling_balances_uneven_items() -> None:
    """A thousand items whose times differ a hundredfold, on ten workers: all busy to the end."""
    scheduler = Scheduler(Ledger(1000, 1), Sizer(POLICIES["SS"](1000, 10)), Deadlines(), 10)
    result = Simulation(scheduler, range(1, 11), lambda index: 0.01 * (1 + index * 37 % 100)).run()
    assert result.busy_s / (10 * result.makespan_s) > 0.98
