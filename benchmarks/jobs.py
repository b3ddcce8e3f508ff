"""The same work as jobs of mpims."""

import os

import numpy as np

import mpims
from benchmarks import work


class Noops(mpims.Job):
    """Items that cost nothing, a block each; the answer is the items."""

    n: int = 1000
    block = 1

    def items(self):
        return self.n

    def kernel(self, items):
        return work.same_array(items)


class Vectorised(Noops):
    """The same, with the block that a job has which says nothing of it."""

    block = None


class OneByOne(Vectorised):
    """The same, not vectorised: a Python call for each item, as the peers have it."""

    def kernel(self, items):
        return work.same_each(items)


class Count(Vectorised):
    """The same, reduced to one number; tells the master's memory."""

    output = mpims.Reduce(np.add)

    def finish(self, result):
        (self.run_dir / "peak_mb").write_text(str(work.peak_mb()))


class Arrays(mpims.Job):
    """Large results that are there already."""

    n: int = 8
    n_bytes: int = 1_000_000
    block = 1

    def items(self):
        if os.environ.get("OMPI_COMM_WORLD_RANK") == "0":  # the master, before its clock begins
            work.warm_memory(self.n_bytes, self.n)
        return self.n

    def kernel(self, items):
        return work.array_of(self.n_bytes)[np.newaxis]


class Uneven(mpims.Job):
    """An irregular kernel."""

    shape: str = work.KERNELS[0]
    busy_s: float = 1.0
    speed: float = 1e6

    def items(self):
        return work.uneven_items(self.shape, self.busy_s, self.speed)

    def task(self, item):
        return work.compute(item)


class Even(mpims.Job):
    """Items of one cost, on one worker thrice it if that is to be slow."""

    n: int = 100
    item_s: float = 0.05
    speed: float = 1e6
    is_slow: bool = False

    def items(self):
        return work.even_items(self.n, self.item_s, self.speed)

    def task(self, item):
        return work.compute_slowly(item) if self.is_slow else work.compute(item)


class First(mpims.Job):
    """When each item was computed, and the files opened until then."""

    n: int = 16
    block = 1

    def items(self):
        return self.n

    def kernel(self, items):
        return np.array([work.stamp(item) for item in items])
