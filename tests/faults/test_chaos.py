"""Real faults in real runs: whatever happens, the bits are those of a run that nothing happened to.

The scenarios run two or three at a time, each in a folder of its own; a test is the outcome of one.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mpims.launch import find_launcher
from tests.faults.chaos import KINDS, LOST_CONNECTION, Chaos, Reference

AT_A_TIME = 3
SCENARIOS: dict[str, Callable[[Chaos], None]] = {}

KILL, STOP, CONT = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT


def scenario(*cases: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a scenario, once for each of its cases."""

    def register(play: Callable[..., None]) -> Callable[..., None]:
        name = play.__name__
        for case in cases or [()]:
            values = case if isinstance(case, tuple) else (case,)
            label = "-".join([name, *(getattr(v, "name", str(v)) for v in values)])
            SCENARIOS[label] = lambda chaos, values=values: play(chaos, *values)
        return play

    return register


# ------------------------------------------------------------------------ ranks that die


@scenario((1, "Arrays"), (2, "Sum"), (3, "Objects"))
def worker_killed(chaos: Chaos, rank: int, job: str) -> None:
    with chaos.run(job) as run:
        run.reach(0.3)
        run.sigkill(rank)
        assert chaos.check(run)["n_lost"] == 1


@scenario((1, 2), (1, 2, 3))
def workers_killed(chaos: Chaos, *ranks: int) -> None:
    with chaos.run("Product") as run:
        run.reach(0.3)
        run.sigkill(*ranks)
        assert chaos.check(run)["n_lost"] == len(ranks)


@scenario(*KINDS)
def master_killed(chaos: Chaos, job: str) -> None:
    with chaos.run(job) as run:
        run.reach(0.3)
        run.sigkill(0)
        assert chaos.check(run)["n_masters"] == 1


@scenario("Arrays", "Sum")
def master_and_then_successor_killed(chaos: Chaos, job: str) -> None:
    with chaos.run(job, n=600) as run:
        run.reach(0.2, 600)
        run.sigkill(0)
        run.reach(0.6, 600)
        run.sigkill(1)
        assert chaos.check(run)["n_masters"] == 2


@scenario((0, 1), (0, 2, 3), (0, 1, 2))
def master_killed_with_others(chaos: Chaos, *ranks: int) -> None:
    with chaos.run("Sum") as run:
        run.reach(0.3)
        run.sigkill(*ranks)
        chaos.check(run)


@scenario(0.0, 0.3)
def one_after_another_killed_but_the_last(chaos: Chaos, pause_s: float) -> None:
    with chaos.run("Objects") as run:
        run.reach(0.2)
        for rank in (0, 1, 2):
            run.sigkill(rank)
            time.sleep(pause_s)
        chaos.check(run)


@scenario()
def every_rank_killed(chaos: Chaos) -> None:
    with chaos.run("Sum") as run:
        run.reach(0.3)
        run.sigkill(0, 1, 2, 3)
        run.ends(1, 75)
        assert "resume" in run.last_line()
    with chaos.resume() as run:
        assert chaos.check(run)["n_resumed"] == 1


# ----------------------------------------------------------------------- at the beginning


@scenario((0,), (1,), (3,), (1, 2, 3), (0, 1), (0, 1, 2, 3))
def killed_while_starting(chaos: Chaos, *ranks: int) -> None:
    """The run goes on, or all ranks are started again: it ends well in any case."""
    random = Random(str(ranks))
    with chaos.run("Arrays") as run:
        assert run.wait_for(lambda: len(run.begun()) == 4), run.log()
        begun = run.begun()
        time.sleep(random.uniform(0.0, 1.5))
        run.strike(KILL, *(begun[rank] for rank in ranks))
        if len(ranks) < len(begun):
            chaos.check(run)
            return
        status = run.ends(0, 1, 75)  # nobody is left to go on, and the launcher may take it for an end
        if status == 0:
            chaos.check(run)
            return
        run.last_line()
    with chaos.run("Arrays", "--resume") as run:
        chaos.check(run)


# --------------------------------------------------------------------------- at the end


@scenario((1,), (0,), (0, 1))
def killed_with_the_last_items(chaos: Chaos, *ranks: int) -> None:
    with chaos.run("Sum", ms=10) as run:
        run.reach(0.95)
        run.sigkill(*ranks)
        chaos.check(run)


@scenario((1,), (0,), (0, 1, 2))
def killed_in_finish(chaos: Chaos, *ranks: int) -> None:
    with chaos.run("Arrays", finish_s=0.7) as run:
        assert run.wait_for((run.run_dir / "finishing").exists), run.log()
        time.sleep(0.1)
        run.sigkill(*ranks)
        chaos.check(run)


@scenario((0,), (0, 1))
def killed_when_all_is_written(chaos: Chaos, *ranks: int) -> None:
    with chaos.run("Product") as run:
        assert run.wait_for((run.run_dir / "summary.json").exists), run.log()
        run.strike(KILL, *(run.ranks()[rank] for rank in ranks))
        chaos.check(run)


# ------------------------------------------------------------------------ ranks that hang


@scenario((1,), (2, 3), (0,), (0, 1), (1, 2, 3))
def stopped(chaos: Chaos, *ranks: int) -> None:
    with chaos.run("Sum", "--timeout", "1") as run:
        run.reach(0.3)
        run.send(STOP, *ranks)
        summary = chaos.check(run)
    assert summary["n_masters"] == (0 in ranks) or ranks == (0, 1)


@scenario((1, 0.4, 10), (1, 2.0, 1), (0, 0.4, 10), (0, 2.5, 1))
def stopped_for_a_while(chaos: Chaos, rank: int, pause_s: float, timeout_s: int) -> None:
    """Shorter than the timeout: nothing is lost. Longer: a worker's late answer counts or is dropped."""
    with chaos.run("Objects", "--timeout", str(timeout_s), ms=25) as run:
        run.reach(0.2)
        run.send(STOP, rank)
        time.sleep(pause_s)
        if rank:
            run.send(CONT, rank)
        else:
            run.signal(rank, CONT)
        summary = chaos.check(run)
    assert summary["n_lost"] == 0
    assert summary["n_masters"] == (rank == 0 and pause_s > timeout_s)
    if rank:
        assert bool(summary["n_timeouts"]) == (pause_s > timeout_s)


@scenario()
def everybody_stopped_for_a_while(chaos: Chaos) -> None:
    """As by a suspended machine: nobody is to blame."""
    with chaos.run("Arrays", "--timeout", "2", ms=10) as run:
        run.reach(0.2)
        run.send(STOP, 0, 1, 2, 3)
        time.sleep(4.0)
        run.send(CONT, 0, 1, 2, 3)
        summary = chaos.check(run)
    assert summary["n_masters"] == 0


# ------------------------------------------------------------------- kernels at fault

AT_FAULT = {
    "raised": "ValueError: this item is at fault",
    "segfault": "SIGSEGV",
    "memory": "MemoryError",
    "oom": "SIGKILL",
    "leave": "exit status 0",
    "exit_in_c": "exit status 3",
    "never": "no answer for",
}


@scenario(*AT_FAULT)
def item_at_fault_skipped(chaos: Chaos, how: str) -> None:
    job = KINDS[list(AT_FAULT).index(how) % 4]
    with chaos.run(job, "--on-error", "skip", "--timeout", "1", bad=137, how=how, ms=2) as run:
        chaos.check(run, 3)
    failed = json.loads((run.run_dir / "failed.json").read_text())["items"]
    assert [entry["item"] for entry in failed] == [137]
    assert AT_FAULT[how] in failed[0]["reason"]


@scenario(*AT_FAULT)
def item_at_fault_ends_the_run(chaos: Chaos, how: str) -> None:
    with chaos.run("Arrays", "--timeout", "1", bad=137, how=how, ms=2) as run:
        run.ends(1)
    assert "items [137, 138)" in run.last_line()
    assert AT_FAULT[how] in run.last_line()


# --------------------------------------------------------------------------- stopping


@scenario(
    *((number, target) for number in ("SIGINT", "SIGTERM", "SIGUSR1") for target in ("run", "rank 0"))
)
def asked_to_stop(chaos: Chaos, number: str, target: str) -> None:
    with chaos.run("Product", n_ranks=3) as run:
        run.reach(0.3)
        if target == "run":
            run.launcher.send_signal(signal.Signals[number])
        else:
            run.send(signal.Signals[number], 0)
        run.ends(75)
        assert "resume with: python -m mpims resume r -n 3" in run.last_line()
        assert 0.3 * 400 < run.n_done() < 400
    with chaos.resume(n_ranks=3) as run:
        summary = chaos.check(run)
    assert summary["n_resumed"] == 1


@scenario()
def asked_to_stop_as_the_master_dies(chaos: Chaos) -> None:
    """It cannot act on that any more: the next one does."""
    with chaos.run("Arrays", "--grace", "5", ms=20) as run:
        run.reach(0.2)
        run.send(STOP, 0)
        run.launcher.send_signal(signal.SIGUSR1)
        time.sleep(1.0)
        run.sigkill(0)
        run.ends(75)
    assert "mpims: stopped: " in run.last_line()
    with chaos.resume() as run:
        chaos.check(run)


@scenario("run", "rank 0")
def asked_to_stop_twice(chaos: Chaos, target: str) -> None:
    """A kernel that does not return holds the stop up; a second signal ends the run at once."""
    with chaos.run("Arrays", bad=5, how="never") as run:
        run.reach(0.3)
        for _ in range(2):
            if target == "run":
                run.launcher.send_signal(signal.SIGINT)
            else:
                run.send(signal.SIGINT, 0)
            time.sleep(1.5)
        began = time.monotonic()
        run.ends(75)
        assert time.monotonic() - began < 8.0
        assert "resume with: python -m mpims resume r -n 4" in run.last_line()
    with chaos.resume("--on-error", "skip", "--timeout", "1") as run:
        chaos.check(run, 3)


# ------------------------------------------------------------------- the whole run dies


@scenario()
def killed_twenty_times_and_resumed(chaos: Chaos) -> None:
    n_items = 2400
    for part in range(20):
        with (
            chaos.resume(n_ranks=3)
            if part
            else chaos.run("Sum", "--policy", "SS", n_ranks=3, n=n_items) as run
        ):
            run.reach((part + 1) / 25, n_items)
            run.kill()
    with chaos.resume(n_ranks=3) as run:
        summary = chaos.check(run)
    assert summary["n_resumed"] == 20
    # Nothing that was done: only items whose rank was late, or had just begun what was taken from it.
    assert summary["n_duplicates"] <= summary["n_twins"] + summary["n_recalled"]


# ------------------------------------------------------------------------------ pytest


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """The scenarios that were chosen, under way."""
    if not find_launcher().ulfm:
        pytest.skip("this MPI ends the job when a rank dies (no ULFM)")
    chosen = [item.callspec.params["name"] for item in request.session.items if _is_scenario(item)]
    reference = Reference(tmp_path_factory.mktemp("reference"))
    with ThreadPoolExecutor(AT_A_TIME) as pool:

        def play(name: str) -> None:
            SCENARIOS[name](Chaos(tmp_path_factory.mktemp("chaos"), reference))

        # The last one takes longest: it is begun first, and who waits for it does so when others are done.
        yield {name: pool.submit(play, name) for name in [*chosen[-1:], *chosen[:-1]]}
        pool.shutdown(cancel_futures=True)


def _is_scenario(item: Any) -> bool:
    return item.path == Path(__file__) and hasattr(item, "callspec") and "name" in item.callspec.params


@pytest.mark.parametrize("name", SCENARIOS)
def test_chaos(outcomes: dict[str, Future[None]], name: str) -> None:
    outcomes[name].result()


@pytest.mark.parametrize(
    ("line", "is_known"),
    [
        (
            "[n1:4711] PMIX ERROR: PMIX_ERR_UNREACH in file ../../src/server/pmix_server.c at line 4242",
            True,
        ),
        ("[n1:4711] PMIX ERROR: PMIX_ERR_NOMEM in file ../../src/server/pmix_server.c at line 4242", False),
        ("[n1:4711] PMIX ERROR: PMIX_ERR_UNREACH in file ../../src/client/pmix_client.c at line 7", False),
        ("[warn] Epoll MOD(4) on fd 22 failed. Old events were 6: Bad file descriptor", True),
        ("mpims: done: 400 items in 1.2 s", False),
    ],
)
def test_after_our_last_line_the_launcher_may_only_say_that_a_rank_is_gone(
    line: str, is_known: bool
) -> None:
    assert bool(LOST_CONNECTION.fullmatch(line)) == is_known
