"""What is measured of a peer, given nothing but how it maps a function over items.

A peer's program makes a pool, calls `report`, and so prints one line of JSON: the figures of the case
that the environment names. Times are taken around the map, without start-up, and after one map that
warms the pool up. Each answer is checked.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks import work

CASE, PARAMETERS = "BENCH_CASE", "BENCH_PARAMETERS"
FIRST_CHUNKS, MOST_ITEMS = 16, 100_000_000


class Pool:
    """How a peer maps; a peer overrides `map`, and sets `chunks` if that takes a chunk size."""

    chunks = False

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], chunksize: int = 1
    ) -> Iterable[Any]:
        """Compute a function of every item, in the peer's usual way."""
        raise NotImplementedError

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function once: a future; an executor overrides this."""
        raise NotImplementedError

    def cpu_s(self) -> float:
        """Seconds on a core of all that hands out and takes in."""
        return time.process_time()


def report(pool: Pool) -> None:
    """Measure what is asked for, and print it."""
    measure = MEASURES[os.environ[CASE]]
    print("\n" + json.dumps(measure(pool, **json.loads(os.environ[PARAMETERS]))), flush=True)


class WrongAnswer(Exception):
    """What was computed is not what was asked for: there are no figures."""


def check(is_right: bool, what: str) -> None:
    """Refuse the figures of a wrong answer."""
    if not is_right:
        raise WrongAnswer(what)


# ------------------------------------------------------------------------------ no-op items


def single(pool: Pool, seconds: float) -> dict[str, float]:
    """Items per second, handed out one by one."""
    return {"items/s": _rate(lambda n: sum(pool.map(work.same, range(n))), seconds)}


def chunked(
    pool: Pool, seconds: float, sizes: Sequence[int], array_sizes: Sequence[int]
) -> dict[str, float]:
    """Items per second with the best of some chunk sizes, that size, and with what a user makes by hand."""
    rates = {size: _rate(lambda n, size=size: _chunked_sum(pool, n, size), seconds, size) for size in sizes}
    best = max(rates, key=rates.__getitem__)
    arrays, sums = (
        max(
            _rate(lambda n, f=f, size=size: _by_hand_sum(pool, f, n, size), seconds, size)
            for size in array_sizes
        )
        for f in (work.same_array, work.same_sum)
    )
    return {"items/s": rates[best], "chunk": best, "arrays": arrays, "sums": sums}


def _chunked_sum(pool: Pool, n: int, size: int) -> int:
    if pool.chunks:
        return sum(pool.map(work.same, range(n), size))
    return _by_hand_sum(pool, work.same_each, n, size)


def _by_hand_sum(pool: Pool, function: Callable[[Any], Any], n: int, size: int) -> int:
    chunks = [range(start, min(start + size, n)) for start in range(0, n, size)]
    return sum(int(np.sum(result)) for result in pool.map(function, chunks))


def _rate(total: Callable[[int], int], seconds: float, size: int = 1) -> float:
    """Items per second, of a map long enough to be timed; `total` is to give their sum."""
    n = FIRST_CHUNKS * size
    total(4 * size)
    while True:
        began = time.perf_counter()
        answer = total(n)
        took_s = time.perf_counter() - began
        check(answer == n * (n - 1) // 2, f"the sum of {n} items is {answer}")
        if took_s >= seconds or n >= MOST_ITEMS:
            return n / took_s
        n = min(8 * n, int(1.2 * n * seconds / took_s) + 1, MOST_ITEMS)


# --------------------------------------------------------------------- executors alone


def executor(
    pool: Pool,
    seconds: float,
    sizes: Sequence[int],
    n_bytes: int,
    n_arrays: int,
    n_workers: int,
    n_steps: int,
) -> dict[str, float]:
    """What a program with an executor sees: waits for one call, maps of small calls, large arrays.

    Without a size in `sizes` the executor chunks the map by itself. `n_steps` is what a task computes
    that gives an array.
    """
    figures = {"round trips": _round_trips(pool, seconds)}
    figures["singly"] = _rate(lambda n: sum(pool.map(work.same, range(n), 1)), seconds)
    if sizes:
        figures["map"] = max(
            _rate(lambda n, size=size: sum(pool.map(work.same, range(n), size)), seconds, size)
            for size in sizes
        )
    else:
        figures["map"] = _rate(lambda n: sum(pool.map(work.same, range(n))), seconds, FIRST_CHUNKS)
    _received(pool, n_bytes, FIRST_CHUNKS)
    began = time.perf_counter()
    check(_received(pool, n_bytes, n_arrays) == n_arrays * n_bytes, "the arrays")
    figures["GB/s"] = n_arrays * n_bytes / (time.perf_counter() - began) / 1e9
    figures["busy"] = _busy(pool, n_arrays, n_workers, n_steps)
    return figures


def _busy(pool: Pool, n: int, n_workers: int, n_steps: int) -> float:
    """The share of the time in which workers compute, where each result is an array."""
    for _ in pool.map(work.computed_array, [n_steps] * FIRST_CHUNKS):
        pass
    began = time.perf_counter()
    busy_s = sum(float(array[-1]) for array in pool.map(work.computed_array, [n_steps] * n))
    return busy_s / n_workers / (time.perf_counter() - began)


def _round_trips(pool: Pool, seconds: float) -> float:
    """Calls per second, each waited for before the next."""

    def one_by_one(n: int) -> int:
        return sum(pool.submit(work.same, i).result() for i in range(n))

    return _rate(one_by_one, seconds)


# ----------------------------------------------------------------------------------- results


def arrays(pool: Pool, sizes: Sequence[Sequence[int]]) -> dict[str, float]:
    """GB/s of results of each of some (bytes, number of results)."""
    rates = {}
    for n_bytes, n in sizes:
        _received(pool, n_bytes, 2)
        work.warm_memory(n_bytes, n)
        began = time.perf_counter()
        n_received = _received(pool, n_bytes, n)
        rates[str(n_bytes)] = n_received / (time.perf_counter() - began) / 1e9
        check(n_received == n * n_bytes, f"{n_received} bytes of {n * n_bytes}")
    return rates


def _received(pool: Pool, n_bytes: int, n: int) -> int:
    return sum(array.nbytes for array in pool.map(work.array_of, [n_bytes] * n))


# ------------------------------------------------------------------------- items that compute


def uneven(
    pool: Pool, kernels: Sequence[str], n_workers: int, busy_s: float, speed: float
) -> dict[str, float]:
    """For each irregular kernel the time it took, over the ideal, and what all results add up to."""
    figures = {}
    warm_up(pool, n_workers, speed)
    for kernel in kernels:
        items = work.uneven_items(kernel, busy_s, speed)
        wall_s, results = _timed(pool, work.compute, items)
        figures |= {
            f"{kernel}|{key}": value for key, value in over_ideal(wall_s, results, n_workers).items()
        }
    return figures


def slow(pool: Pool, n_workers: int, n: int, item_s: float, speed: float) -> dict[str, float]:
    """The time over the ideal, where one worker is three times slower."""
    warm_up(pool, n_workers, speed)
    wall_s, results = _timed(pool, work.compute_slowly, work.even_items(n, item_s, speed))
    return over_ideal_speeds(wall_s, results, n_workers)


def waiting(pool: Pool, n_workers: int, n: int, item_s: float, speed: float) -> dict[str, float]:
    """The share of a core that handing out and taking in cost."""
    warm_up(pool, n_workers, speed)
    began = pool.cpu_s()
    wall_s, _ = _timed(pool, work.compute, work.even_items(n, item_s, speed))
    return {"share": (pool.cpu_s() - began) / wall_s}


def warm_up(pool: Pool, n_workers: int, speed: float) -> None:
    """Let every worker import what it needs."""
    list(pool.map(work.compute, work.even_items(8 * n_workers, 5e-3, speed)))


def _timed(pool: Pool, function: Callable[[Any], Any], items: Sequence[Any]) -> tuple[float, list[Any]]:
    began = time.perf_counter()
    results = list(pool.map(function, items))
    wall_s = time.perf_counter() - began
    check(len(results) == len(items), f"{len(results)} results of {len(items)} items")
    return wall_s, results


def over_ideal(wall_s: float, results: Sequence[Any], n_workers: int) -> dict[str, float]:
    """A time over all busy time shared evenly: busy as the clock saw it, and as the cores did.

    The first hides what a tool takes from its own workers, for that makes them look busy; the second
    does not.
    """
    on_core_s, busy_s = (sum(float(result[-k]) for result in results) for k in (2, 1))
    return {
        "busy": wall_s * n_workers / busy_s,
        "core": wall_s * n_workers / on_core_s,
        "check": sum(float(result[: -work.PROBES].sum()) for result in results),
    }


def over_ideal_speeds(wall_s: float, results: Sequence[Any], n_workers: int) -> dict[str, float]:
    """A time over the ideal of workers with the mean speeds that they showed, one of them slow.

    The ideal gives each worker items for the same time: n / (sum over the workers of 1 / seconds per
    item).
    """
    figures = {}
    for key, k in (("busy", 1), ("core", 2)):
        fast_s, slow_s = (
            [float(result[-k]) for result in results if bool(result[-work.PROBES]) is is_slow]
            for is_slow in (False, True)
        )
        check(bool(fast_s), "no worker but the slow one has computed")
        fast_mean_s = sum(fast_s) / len(fast_s)
        slow_mean_s = sum(slow_s) / len(slow_s) if slow_s else work.SLOW_FACTOR * fast_mean_s
        figures[key] = wall_s * ((n_workers - 1) / fast_mean_s + 1 / slow_mean_s) / len(results)
    figures["check"] = sum(float(result[: -work.PROBES].sum()) for result in results)
    return figures


# ----------------------------------------------------------------------------- start, memory


def first(pool: Pool, n_workers: int) -> dict[str, float]:
    """When the first item was computed, and the most files that a worker had opened then."""
    stamps = list(pool.map(work.stamp, range(8 * n_workers)))
    return {"at": min(at for at, _ in stamps), "files": max(n for _, n in stamps)}


def memory(pool: Pool, n: int, size: int) -> dict[str, float]:
    """The peak of the mapping process's memory, in MB."""
    check(_chunked_sum(pool, n, size) == n * (n - 1) // 2, f"the sum of {n} items")
    return {"MB": work.peak_mb()}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    function.__name__: function
    for function in (single, chunked, arrays, executor, uneven, slow, waiting, first, memory)
}
