"""The techniques with one size for all chunks."""

from __future__ import annotations

from math import ceil, floor, log, sqrt
from typing import ClassVar

from mpims.core.policies.base import Policy, round_up
from mpims.core.policies.parameters import DEVIATION, OVERHEAD, Parameter, Size


class Fixed(Policy):
    """One size for all chunks."""

    size: int

    @property
    def constant(self) -> int:
        return self.size

    def propose(self, remaining: int, rank: int) -> int:
        return self.size


class Static(Fixed):
    """One equal share for each worker: ``ceil(N / P)``."""

    name = "STATIC"
    source = "the division of OpenMP's schedule(static)"

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self.size = ceil(n_blocks / n_workers)


class SelfScheduling(Fixed):
    """One block at a time: the best balance and the most hand-outs."""

    name = "SS"
    source = "Tang & Yew 1986"
    size = 1


class ChunkSelfScheduling(Fixed):
    """Always the same number of items, given with the name: ``CSS:100``."""

    name = "CSS"
    source = "Kruskal & Weiss 1985"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Size(name="size", meaning="items in a chunk", example="100"),
    )

    def __init__(self, n_blocks: int, n_workers: int, *, size: int) -> None:
        super().__init__(n_blocks, n_workers)
        self.size = size


class FixedSizeChunking(Fixed):
    """The size of least expected run time: ``ceil((sqrt(2) N h / (sigma P sqrt(ln P)))**(2/3))``.

    It is never more than a worker's share ``ceil(N / P)``, which is also what it is where the formula
    says nothing: for one worker, and for items that all take as long (sigma = 0).
    """

    name = "FSC"
    source = "Kruskal & Weiss 1985"
    parameters: ClassVar[tuple[Parameter, ...]] = (OVERHEAD, DEVIATION)

    def __init__(self, n_blocks: int, n_workers: int, *, h: float, sigma: float) -> None:
        super().__init__(n_blocks, n_workers)
        self.size = ceil(n_blocks / n_workers)
        spread_s = sigma * n_workers * sqrt(log(n_workers))
        if spread_s > 0:
            optimum = (sqrt(2) * n_blocks * h / spread_s) ** (2 / 3)
            self.size = round_up(min(optimum, self.size))


class ModifiedFixedSizeChunking(Fixed):
    """One size that makes as many chunks as FAC2: ``floor(0.55 + t ln 2 / ln t), t = ceil(N / P)``.

    It needs neither the overhead nor the deviation that FSC asks for.
    """

    name = "mFSC"
    source = "Banicescu, Ciorba & Srivastava 2013"

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        share = ceil(n_blocks / n_workers)
        self.size = floor(0.55 + share * log(2) / log(share)) if share > 1 else 1
