"""The techniques that measure the ranks as the run goes on.

A rank of which nothing is known yet gets a first chunk of ``ceil(N / 10P)``, a tenth of its share, or
FAC2's chunk where that is smaller. The ranks that are measured stand for those that are not: a sum over
all ranks is the sum over the measured ones times ``P / (number of them)``. No block counts as faster
than a nanosecond, so that a clock too coarse to time one does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from mpims.core.policies.base import LONGEST_S, Policy, Sample, round_up
from mpims.core.policies.factoring import WeightedBatches, half_share

SHORTEST_S = 1e-9
"""A block counts as no faster."""


class SumOverRanks:
    """The sum over the ranks of one number each.

    A change adds the difference. Once in as many changes as there are ranks all is added up anew, so that
    what rounding leaves behind cannot pile up.
    """

    __slots__ = ("_n_changes", "of", "total")

    def __init__(self) -> None:
        self.of: dict[int, float] = {}
        self.total = 0.0
        self._n_changes = 0

    def change(self, rank: int, number: float) -> None:
        """Set the number of a rank."""
        self.total += number - self.of.get(rank, 0.0)
        self.of[rank] = number
        self._n_changes += 1
        if self._n_changes >= len(self.of):
            self.total = sum(self.of.values())
            self._n_changes = 0

    def drop(self, rank: int) -> None:
        """Leave a rank out, if it has a number."""
        if self.of.pop(rank, None) is not None:
            self.total = sum(self.of.values())


class _Progress:
    """What a rank has done, later chunks counted for more: the s-th one s times."""

    __slots__ = ("n_blocks", "n_chunks", "seconds")

    def __init__(self) -> None:
        self.n_chunks = 0
        self.n_blocks = 0
        self.seconds = 0.0


class _Speeds:
    """The ranks' speeds in blocks per second, and the weights that follow from them.

    With the time of a block ``pi_i = sum(s t_is) / sum(s n_is)`` over the chunks s of rank i, the speed
    is ``1 / pi_i`` and the weight ``w_i = P (1 / pi_i) / sum(1 / pi)``: the ``rho_i P / sum(rho)`` of
    the paper with ``rho_i = mean(pi) / pi_i``, where the mean cancels.
    """

    def __init__(self) -> None:
        self._progress: dict[int, _Progress] = {}
        self._speeds = SumOverRanks()

    def add(self, rank: int, n_blocks: int, seconds: float) -> None:
        """Take in a chunk."""
        if not (n_blocks > 0 and 0.0 <= seconds <= LONGEST_S):
            return
        progress = self._progress.get(rank)
        if progress is None:
            progress = self._progress[rank] = _Progress()
        progress.n_chunks += 1
        progress.n_blocks += progress.n_chunks * n_blocks
        progress.seconds += progress.n_chunks * seconds
        self._speeds.change(rank, progress.n_blocks / max(progress.seconds, SHORTEST_S * progress.n_blocks))

    def drop(self, rank: int) -> None:
        """Leave a rank out."""
        self._progress.pop(rank, None)
        self._speeds.drop(rank)

    def weight(self, rank: int) -> float | None:
        """The weight of a rank; None if nothing is known of it."""
        speeds = self._speeds
        speed = speeds.of.get(rank)
        if speed is None:
            return None
        return speed * len(speeds.of) / max(speeds.total, speed)

    def weights(self) -> dict[int, float]:
        """The weights of all ranks that are measured."""
        speeds = self._speeds
        scale = len(speeds.of) / speeds.total if speeds.of else 0.0
        return {rank: speed * scale for rank, speed in speeds.of.items()}


class AdaptiveWeightedFactoringB(WeightedBatches):
    """WF with weights from the measured times in the kernel, renewed for each batch.

    As long as fewer than half of the workers are measured all get first chunks: the weights of the few
    that were the first to be done, which is why they are known, say little.
    """

    name = "AWF-B"
    source = "Carino & Banicescu 2008"
    learns = True

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self._start = first_chunk(n_blocks, n_workers)
        self._speeds = _Speeds()

    def propose(self, remaining: int, rank: int) -> int:
        size = super().propose(remaining, rank)
        return size if rank in self.weights else min(size, self._start)

    def learn(self, sample: Sample) -> None:
        self._speeds.add(sample.rank, sample.n_blocks, sample.busy_s)

    def lose(self, rank: int) -> None:
        super().lose(rank)
        self._speeds.drop(rank)

    def _begin_batch(self, remaining: int) -> None:
        super()._begin_batch(remaining)
        weights = self._speeds.weights()
        self.weights: Mapping[int, float] = weights if 2 * len(weights) >= self.n_workers else {}


class AdaptiveWeightedFactoringC(Policy):
    """Weights from the measured times in the kernel, renewed for each chunk: ``ceil(w_i ceil(R / 2P))``."""

    name = "AWF-C"
    source = "Carino & Banicescu 2008"
    learns = True

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self._start = first_chunk(n_blocks, n_workers)
        self._speeds = _Speeds()

    def propose(self, remaining: int, rank: int) -> int:
        chunk = half_share(remaining, self.n_workers)
        weight = self._speeds.weight(rank)
        return min(chunk, self._start) if weight is None else round_up(weight * chunk)

    def learn(self, sample: Sample) -> None:
        self._speeds.add(sample.rank, sample.n_blocks, sample.busy_s)

    def lose(self, rank: int) -> None:
        super().lose(rank)
        self._speeds.drop(rank)


class AdaptiveWeightedFactoringD(AdaptiveWeightedFactoringB):
    """AWF-B with the whole time of a chunk, the overhead included."""

    name = "AWF-D"

    def learn(self, sample: Sample) -> None:
        self._speeds.add(sample.rank, sample.n_blocks, sample.whole_s)


class AdaptiveWeightedFactoringE(AdaptiveWeightedFactoringC):
    """AWF-C with the whole time of a chunk, the overhead included."""

    name = "AWF-E"

    def learn(self, sample: Sample) -> None:
        self._speeds.add(sample.rank, sample.n_blocks, sample.whole_s)


class _Times:
    """Sums over the times of a rank's blocks: how many, their seconds, and the squares of them."""

    __slots__ = ("busy_s", "n_blocks", "squares_s2")

    def __init__(self) -> None:
        self.n_blocks = 0
        self.busy_s = 0.0
        self.squares_s2 = 0.0

    def add(self, n_blocks: int, busy_s: float, squares_s2: float) -> None:
        """Take in a chunk."""
        # Whatever was measured, the squares of n times that sum to t lie between t**2 / n and t**2.
        least_s2, most_s2 = busy_s * busy_s / n_blocks, busy_s * busy_s
        self.n_blocks += n_blocks
        self.busy_s += busy_s
        self.squares_s2 += min(squares_s2, most_s2) if squares_s2 > least_s2 else least_s2

    @property
    def variance_s2(self) -> float:
        """Of a block's time; of two blocks at least."""
        deviations_s2 = self.squares_s2 - self.busy_s * self.busy_s / self.n_blocks
        return max(deviations_s2, 0.0) / (self.n_blocks - 1)


class AdaptiveFactoring(Policy):
    """Chunks from the measured mean and variance of each rank's block times.

    ``ceil((D + 2 T R - sqrt(D**2 + 4 D T R)) / (2 mu_i))`` with ``D = sum(sigma_i**2 / mu_i)`` and
    ``T = 1 / sum(1 / mu_i)``. A rank counts as measured from its second block on.
    """

    name = "AF"
    source = "Banicescu & Liu 2000"
    learns = True

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self._start = first_chunk(n_blocks, n_workers)
        self._times: dict[int, _Times] = {}
        self._speeds = SumOverRanks()
        self._spreads = SumOverRanks()

    def propose(self, remaining: int, rank: int) -> int:
        speed = self._speeds.of.get(rank)
        if speed is None:
            return min(half_share(remaining, self.n_workers), self._start)
        everyone = max(1.0, self.n_workers / len(self._speeds.of))
        spread = max(self._spreads.total, 0.0) * everyone
        work = remaining / (max(self._speeds.total, speed) * everyone)
        # The formula times its conjugate, D + 2 T R + sqrt(...): nothing is left to cancel.
        root = sqrt(spread * (spread + 4 * work))
        return round_up(2 * work * work * speed / (spread + 2 * work + root))

    def learn(self, sample: Sample) -> None:
        if not (sample.n_blocks > 0 and 0.0 <= sample.busy_s <= LONGEST_S):
            return
        rank = sample.rank
        times = self._times.get(rank)
        if times is None:
            times = self._times[rank] = _Times()
        times.add(sample.n_blocks, sample.busy_s, sample.squares_s2)
        if times.n_blocks > 1:
            mean_s = max(times.busy_s / times.n_blocks, SHORTEST_S)
            self._speeds.change(rank, 1 / mean_s)
            self._spreads.change(rank, times.variance_s2 / mean_s)

    def lose(self, rank: int) -> None:
        super().lose(rank)
        self._times.pop(rank, None)
        self._speeds.drop(rank)
        self._spreads.drop(rank)


def first_chunk(n_blocks: int, n_workers: int) -> int:
    """The chunk of a rank of which nothing is known: a tenth of its share, rounded up."""
    return -(-n_blocks // (10 * n_workers))
