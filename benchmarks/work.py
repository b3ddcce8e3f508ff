"""The work that every tool is given: the same functions of the same items, with the same answers.

An item's cost is computing, never sleeping: a sleeping item leaves its core to whoever burns it, and so
hides what a tool's own processes cost. Costs are numbers of steps, calibrated once per run of the
benchmarks and the same for all tools.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import lru_cache

import numpy as np

SLOW_FACTOR = 3
SLOW_FILE = "BENCH_SLOW_FILE"
"""Names the file by which one worker of a run becomes the slow one."""

KERNELS = ("Mandelbrot rows", "gamma, c.o.v. 1.8", "increasing", "decreasing")
ROWS = 600
WIDTH = 3000

# ------------------------------------------------------------------- items that cost nothing


def same(item):
    """Give the item back: nothing is computed, but the answer can be checked."""
    return item


def same_each(items):
    """The same for a range of items, one by one, for tools that make no chunks themselves: an array."""
    return np.array([same(item) for item in items])


def same_array(items):
    """The same for a range of items at once: what a user writes who makes the chunks, vectorised."""
    return np.arange(items.start, items.stop)


def same_sum(items):
    """Their sum, reduced where they were computed."""
    return int(same_array(items).sum())


@lru_cache(maxsize=4)
def _ones(n_bytes):
    return np.ones(n_bytes // 8)


def array_of(n_bytes):
    """A float64 array of that size that is there already, so that only its way back costs."""
    return _ones(n_bytes)


def warm_memory(n_bytes, n):
    """Use as much memory as `n` results need, and free it: a virtual machine gives back what is free.

    They are all kept, and a dozen of them are in buffers. What is measured then is a tool, and not how fast
    its host finds memory.
    """
    block = bytes(1 << 20)
    n_warmed = n_bytes * (12 + n + n // 10)
    with tempfile.TemporaryFile(dir=os.environ.get("BENCH_FOLDER")) as file:
        for _ in range(n_warmed // len(block)):
            os.write(file.fileno(), block)


# ------------------------------------------------------------------------ items that compute


def burn(n_steps):
    """Compute so many steps of a few microseconds, and nothing else.

    Returns
    -------
    float
        A function of `n_steps` alone: logistic maps below chaos, so that the last bits agree.
    """
    x = np.linspace(0.1, 0.9, 1024)
    y = np.empty_like(x)
    for _ in range(n_steps):
        np.subtract(1.0, x, out=y)
        np.multiply(x, y, out=x)
        np.multiply(x, 3.2, out=x)
    return float(x.sum())


def steps_per_second():
    """How many steps of `burn` a free core does: the fastest of some tries."""
    n_steps = 20_000
    seconds = []
    for _ in range(7):
        began = time.thread_time()
        burn(n_steps)
        seconds.append(time.thread_time() - began)
    return n_steps / min(seconds)


def mandelbrot_row(row):
    """The escape times of one image row: float64, shape (WIDTH,); rows differ much in cost."""
    limit = 4000
    c = np.linspace(-2.0, 0.5, WIDTH) + 1j * (1.25 - 2.5 * (row + 0.5) / ROWS)
    z = np.zeros_like(c)
    times = np.full(WIDTH, float(limit))
    active = np.arange(WIDTH)
    for n in range(limit):
        z = z * z + c
        escaped = z.real**2 + z.imag**2 > 4
        if escaped.any():
            times[active[escaped]] = n
            active, z, c = active[~escaped], z[~escaped], c[~escaped]
        if not active.size:
            break
    return times


def uneven_items(kernel, busy_s, speed):
    """The items of an irregular kernel.

    Parameters
    ----------
    kernel : str
        One of `KERNELS`.
    busy_s : float
        What they are to cost together (Mandelbrot rows cost what they cost).
    speed : float
        Steps per second.

    Returns
    -------
    list of [str, int]
        What `compute` takes. (Not tuples: charm4py would make arguments of them.)
    """
    n = ROWS
    if kernel == "Mandelbrot rows":
        return [["row", row] for row in range(n)]
    if kernel == "increasing":
        costs = np.arange(1.0, n + 1)
    elif kernel == "decreasing":
        costs = np.arange(n, 0.0, -1)
    else:  # shape k has a coefficient of variation of 1 / sqrt(k)
        costs = np.random.default_rng(1).gamma(1 / 1.8**2, size=n)
    steps = np.rint(costs / costs.sum() * busy_s * speed).astype(int)
    return [["burn", int(k)] for k in steps]


def even_items(n, seconds, speed):
    """So many items of `burn`, each of that cost."""
    return [["burn", round(seconds * speed)]] * n


def compute(item):
    """Compute an item and time it.

    Returns
    -------
    ndarray of float64, 1-D
        The result, and behind it `PROBES`: 1 on the slow worker, seconds on a core, seconds.
    """
    return _timed(item, 1)


PROBES = 3


def compute_slowly(item):
    """As `compute`, but on the slow worker of the run the item takes three times the work."""
    return _timed(item, SLOW_FACTOR if _is_slow() else 1)


def _timed(item, n_times):
    kind, size = item
    began, began_cpu = time.perf_counter(), time.thread_time()
    for _ in range(n_times):
        value = mandelbrot_row(size) if kind == "row" else burn(size)
    cpu_s, wall_s = time.thread_time() - began_cpu, time.perf_counter() - began
    return np.append(value, [n_times > 1, cpu_s, wall_s])


@lru_cache(maxsize=1)
def _is_slow():
    """Whether this process is the slow one: the first that makes the file."""
    try:
        os.close(os.open(os.environ[SLOW_FILE], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def computed_array(n_steps):
    """An array of 2 MB, made anew: the seconds on a core that its computing took, again and again."""
    began = time.thread_time()
    burn(n_steps)
    return np.full(2_000_000 // 8, time.thread_time() - began)


# --------------------------------------------------------------------- what a process is like


def stamp(item):
    """When this item was computed, and how many files its process had opened until then.

    Returns
    -------
    tuple (float, int)
        Seconds since the epoch; -1 where the files were not counted.
    """
    counter = sys.modules.get("sitecustomize")
    return time.time(), len(getattr(counter, "opened", ())) - (not hasattr(counter, "opened"))


def peak_mb():
    """The peak of this process's resident memory, in MB; that of the process it came from is not in it."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6
