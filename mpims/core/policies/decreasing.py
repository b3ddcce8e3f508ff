"""The techniques whose sizes fall, and two whose sizes rise, from one request to the next."""

from __future__ import annotations

from math import ceil, sqrt
from typing import ClassVar

from mpims.core.policies.base import Policy, round_up
from mpims.core.policies.parameters import DEVIATION, MEAN, Parameter


class GuidedSelfScheduling(Policy):
    """A worker's share of what remains: ``ceil(R / P)``."""

    name = "GSS"
    source = "Polychronopoulos & Kuck 1987"

    def propose(self, remaining: int, rank: int) -> int:
        return -(-remaining // self.n_workers)


class PerformanceLoopScheduling(Policy):
    """A part of the items in equal shares, ``ceil(N swr / P)`` each, then GSS on the rest.

    The rest is in the recursive form, ``ceil(R / P)``. `swr` (static workload ratio) is the authors'
    shortest time of an item over its longest.
    """

    name = "PLS"
    source = "Shih, Yang & Tseng 2007"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            name="swr",
            meaning="part that is shared out first: shortest over longest item",
            example="0.5",
            default=0.5,
            least=0.01,
            most=1.0,
        ),
    )

    def __init__(self, n_blocks: int, n_workers: int, *, swr: float) -> None:
        super().__init__(n_blocks, n_workers)
        self._first = round_up(n_blocks * swr / n_workers)
        self._n_first = n_workers

    def propose(self, remaining: int, rank: int) -> int:
        if self._n_first:
            self._n_first -= 1
            return self._first
        return -(-remaining // self.n_workers)


class Taper(Policy):
    """A worker's share of what remains, less a margin for the spread of the items' times.

    ``ceil(T + v**2 / 2 - v sqrt(2 T + v**2 / 4))`` with ``T = R / P`` and ``v = alpha sigma / mu``.
    """

    name = "TAP"
    source = "Lucco 1992"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        MEAN,
        DEVIATION,
        Parameter(
            name="alpha",
            meaning="deviations of margin",
            example="1.3",
            default=1.3,
            most=1000.0,
        ),
    )

    def __init__(self, n_blocks: int, n_workers: int, *, mu: float, sigma: float, alpha: float) -> None:
        super().__init__(n_blocks, n_workers)
        self._margin = alpha * sigma / mu

    def propose(self, remaining: int, rank: int) -> int:
        share, v = remaining / self.n_workers, self._margin
        return round_up(share + v * v / 2 - v * sqrt(2 * share + v * v / 4))


class TrapezoidSelfScheduling(Policy):
    """Sizes that fall linearly from ``f = ceil(N / 2P)`` to 1.

    ``k_i = f - i d`` with ``n = ceil(2 N / (f + 1))`` chunks and ``d = (f - 1) / (n - 1)``. The decrement
    stays a real number and the cumulative boundaries are rounded: an integer decrement is 0 for N below
    about 8 P**2, and the sizes then do not fall at all.
    """

    name = "TSS"
    source = "Tzen & Ni 1993"

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self._first = max(1, ceil(n_blocks / (2 * n_workers)))
        self._n_chunks = ceil(2 * n_blocks / (self._first + 1))
        self._decrement = (self._first - 1) / (self._n_chunks - 1) if self._n_chunks > 1 else 0.0
        self._n_proposed = 0

    def _boundary(self, n_chunks: int) -> int:
        return round(n_chunks * self._first - self._decrement * n_chunks * (n_chunks - 1) / 2)

    def propose(self, remaining: int, rank: int) -> int:
        i = self._n_proposed
        self._n_proposed += 1
        return self._boundary(i + 1) - self._boundary(i)


class TrapezoidFactoring(TrapezoidSelfScheduling):
    """Batches of P equal chunks, each the mean of the next P chunks of TSS, rounded up.

    Where TSS has fewer than P chunks left, the others count as 0.
    """

    name = "TFSS"
    source = "Chronopoulos, Andonie, Benche & Grosu 2001"

    def propose(self, remaining: int, rank: int) -> int:
        begun = self._n_proposed // self.n_workers * self.n_workers
        self._n_proposed += 1
        n_averaged = max(0, min(self.n_workers, self._n_chunks - begun))
        middle = self._first - self._decrement * (begun + (n_averaged - 1) / 2)
        return round_up(middle * n_averaged / self.n_workers)


class FixedIncrease(Policy):
    """Batches of P equal chunks that grow by the same step, in ``B = P - 1`` batches.

    ``c_j = floor(N / ((2 + B) P)) + j floor(2 N (1 - B / (2 + B)) / (P B (B - 1)))``. There is no step for
    B below 2. What the floors leave over makes further batches.
    """

    name = "FISS"
    source = "Philip & Das 1997"

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        n_batches = n_workers - 1
        parts = (2 + n_batches) * n_workers
        self._first = n_blocks // parts
        # 2 N (1 - B / (2 + B)) is 4 N / (2 + B): whole numbers keep the floor exact.
        self._step = 4 * n_blocks // (parts * n_batches * (n_batches - 1)) if n_batches > 1 else 0
        self._n_proposed = 0

    def propose(self, remaining: int, rank: int) -> int:
        batch = self._n_proposed // self.n_workers
        self._n_proposed += 1
        return self._first + batch * self._step


class VariableIncrease(Policy):
    """Batches of P equal chunks that grow by half of the step before, from ``c0 = floor(N / P**2)``.

    ``c_j = floor(c0 (1 - 0.5**(j + 1)) / 0.5)``: towards twice the first size.
    """

    name = "VISS"
    source = "Philip & Das 1997"

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self._first = n_blocks // n_workers**2
        self._n_proposed = 0

    def propose(self, remaining: int, rank: int) -> int:
        batch = self._n_proposed // self.n_workers
        self._n_proposed += 1
        # floor(2 c0 - c0 / 2**j) in whole numbers: 0.5**(j + 1) is lost beside 1 from j = 53 on.
        return 2 * self._first + (-self._first >> batch)
