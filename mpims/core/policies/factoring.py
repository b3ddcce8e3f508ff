"""The techniques that hand out batches of P chunks, each batch a part of what remains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import ClassVar

from mpims.core.policies.base import Policy, round_up
from mpims.core.policies.parameters import DEVIATION, MEAN, Parameter, Weights

_LEAST_SHARE = 1e-9


class Factoring2(Policy):
    """Batches of P equal chunks, each batch half of what remains: ``ceil(R_j / 2P)``.

    The recursive form: R_j is what remains when batch j begins.
    """

    name = "FAC2"
    source = "Hummel, Schonberg & Flynn 1992"

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self._left_in_batch = 0
        self._chunk = 0

    def propose(self, remaining: int, rank: int) -> int:
        if self._left_in_batch == 0:
            self._left_in_batch = self.n_workers
            self._chunk = self._chunk_of(remaining)
        self._left_in_batch -= 1
        return self._chunk

    def _chunk_of(self, remaining: int) -> int:
        """The size of the chunks of the batch that begins with so many blocks remaining."""
        return half_share(remaining, self.n_workers)


class Factoring(Factoring2):
    """Batches of P equal chunks; the more the items differ, the smaller the part in a batch.

    ``ceil(R_j / (x_j P))`` with ``b = P sigma / (2 mu sqrt(R_j))``,
    ``x_0 = 1 + b**2 + b sqrt(b**2 + 2)`` and ``x_j = 2 + b**2 + b sqrt(b**2 + 4)``.
    """

    name = "FAC"
    source = "Hummel, Schonberg & Flynn 1992"
    parameters: ClassVar[tuple[Parameter, ...]] = (MEAN, DEVIATION)

    def __init__(self, n_blocks: int, n_workers: int, *, mu: float, sigma: float) -> None:
        super().__init__(n_blocks, n_workers)
        self._half_spread = sigma / (2 * mu)
        self._base = 1

    def _chunk_of(self, remaining: int) -> int:
        base, self._base = self._base, 2  # the first batch is larger
        b = self.n_workers * self._half_spread / sqrt(remaining)
        part = base + b * b + b * sqrt(b * b + 2 * base)
        return round_up(remaining / (part * self.n_workers))


class WeightedBatches(Policy):
    """FAC2 with a chunk of ``ceil(w_i ceil(R_j / 2P))`` for rank i.

    The weights are 1 in the mean. A batch ends when it has given out weights of P in all: after P
    requests if every rank asks once, sooner if fast ranks ask more often than their weights say.

    Attributes
    ----------
    weights
        By rank; a rank that is not among them counts as 1.
    """

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self.weights: Mapping[int, float] = {}
        self._left_in_batch = 0.0
        self._chunk = 0

    def propose(self, remaining: int, rank: int) -> int:
        if self._left_in_batch < _LEAST_SHARE:
            self._begin_batch(remaining)
        weight = self.weights.get(rank, 1.0)
        self._left_in_batch -= weight
        return round_up(weight * self._chunk)

    def _begin_batch(self, remaining: int) -> None:
        self._left_in_batch = self.n_workers
        self._chunk = half_share(remaining, self.n_workers)


class WeightedFactoring(WeightedBatches):
    """FAC2 with chunks in proportion to how fast the ranks are: ``ceil(w_i ceil(R_j / 2P))``.

    The weights belong to the ranks 1, 2, … in this order (rank 0 hands out) and are scaled to a mean
    of 1.
    """

    name = "WF"
    source = "Hummel, Schmidt, Uma & Wein 1996"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Weights(
            name="weights",
            meaning="speeds of ranks 1, 2, ... relative to each other",
            example="1/1/0.5",
            least=1e-6,
            most=1e6,
        ),
    )

    def __init__(self, n_blocks: int, n_workers: int, *, weights: Sequence[float]) -> None:
        super().__init__(n_blocks, n_workers)
        mean = sum(weights) / len(weights)
        self.weights = {rank: weight / mean for rank, weight in enumerate(weights, 1)}


def half_share(remaining: int, n_workers: int) -> int:
    """FAC2's chunk: a worker's share of half of what remains, rounded up."""
    return -(-remaining // (2 * n_workers))
