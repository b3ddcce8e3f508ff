"""The default: FAC2 that learns how fast each rank is, how far the times of blocks spread, and what
handing a chunk out costs the rank and the master.

It differs from AF in that it never trusts the measured spread to be all there is: costs that grow along
the items look even in every single chunk. So it hands out no larger part of the rest than FAC2 does.
"""

from __future__ import annotations

from math import sqrt

from mpims.core.policies.adaptive import SHORTEST_S, SumOverRanks, first_chunk
from mpims.core.policies.base import LONGEST_S, Policy, Sample, round_up

OVERHEAD = 0.01
"""What handing out may cost, as a part of the time in the kernel."""
DEAREST_S = 1e-3
"""What a hand-out takes beyond this is not its own doing: the rank waited, or had no core, or the result is
large, and longer in a longer chunk."""
_KEPT = 0.8
"""What earlier chunks of a rank count for, against its last one."""
_CAUTION = 16.0
"""A rank counts as slow or fast once its mean is known to a quarter: blocks, in squared spreads."""
_FALL, _RISE = 0.5, 0.1
"""What a new hand-out counts in the mean, if it was cheaper and if it was dearer."""
_SLOW = 0.8
_MOST_NAMED = 3


class _Rank:
    """What a rank has done, later chunks counted for more."""

    __slots__ = ("busy_s", "n_blocks", "speed")

    def __init__(self) -> None:
        self.n_blocks = 0.0
        self.busy_s = 0.0
        self.speed = 0.0  # blocks per second


class Auto(Policy):
    """FAC2's part of the rest, or less of it where block times spread, weighted by each rank's speed.

    A chunk of rank i is ``ceil(w_i R / (x P))``, with Factoring's ``x = 2 + b^2 + b sqrt(b^2 + 4)`` and
    ``b = P c / (2 sqrt(R))`` for the measured coefficient of variation c, and with AWF-C's weight, drawn
    towards 1 as long as too few blocks are measured to believe it. It is at least so long that handing it
    out costs its rank no more than `OVERHEAD` of it, and that the master can serve all P ranks meanwhile,
    but not longer than ``R / P``. A rank of which nothing is known gets a tenth of its share, or FAC2's
    chunk if that is smaller.
    """

    name = "auto"
    source = "FAC2 and FAC, Hummel et al. 1992; weights as in AWF-C, Carino & Banicescu 2008"
    learns = True

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        super().__init__(n_blocks, n_workers)
        self._start = first_chunk(n_blocks, n_workers)
        self._kept = 1 - (1 - _KEPT) / n_workers
        self._ranks: dict[int, _Rank] = {}
        self._speeds = SumOverRanks()
        self._n_blocks = self._squares = 0.0  # of all ranks; the squares in those of the rank's mean
        self.overhead_s: float | None = None  # that pass between two chunks of a rank
        self._service_s: float | None = None  # that a result keeps the master busy
        self._spread2 = 0.0

    def propose(self, remaining: int, rank: int) -> int:
        n_workers = self.n_workers
        share = remaining / n_workers
        seen = self._ranks.get(rank)
        if seen is None:
            return min(self._start, round_up(share / 2))
        b2 = self._spread2 * n_workers / (4 * share)
        x = 2 + b2 + sqrt(b2 * (b2 + 4))
        size = self._weight(seen) * share / x
        least = self._least_s * seen.speed
        if size < least:
            size = min(least, share)
        return round_up(size)

    @property
    def _least_s(self) -> float:
        """So long a chunk is at the least."""
        return max((self.overhead_s or 0.0) / OVERHEAD, self._turn_s)

    @property
    def _turn_s(self) -> float:
        """So long the master needs to serve each rank once."""
        return (self._service_s or 0.0) * self.n_workers

    def _weight(self, seen: _Rank) -> float:
        speeds = self._speeds
        weight = seen.speed * len(speeds.of) / max(speeds.total, seen.speed)
        belief = seen.n_blocks / (seen.n_blocks + _CAUTION * self._spread2)
        return 1 + belief * (weight - 1)

    def learn(self, sample: Sample) -> None:
        rank, n_blocks, busy_s, squares_s2, _, overhead_s = sample
        if not (n_blocks > 0 and 0.0 <= busy_s <= LONGEST_S and 0.0 <= squares_s2 <= LONGEST_S**2):
            return
        seen = self._ranks.get(rank)
        if seen is None:
            seen = self._ranks[rank] = _Rank()
        elif 0.0 <= overhead_s <= LONGEST_S:  # before the first chunk of a rank there was none
            self.overhead_s = _follow(self.overhead_s, min(overhead_s, DEAREST_S))
        seen.n_blocks = _KEPT * seen.n_blocks + n_blocks
        seen.busy_s = _KEPT * seen.busy_s + max(busy_s, SHORTEST_S * n_blocks)
        seen.speed = seen.n_blocks / seen.busy_s
        self._speeds.change(rank, seen.speed)
        kept = self._kept
        self._n_blocks = kept * self._n_blocks + n_blocks
        self._squares = kept * self._squares + squares_s2 * seen.speed * seen.speed
        self._spread2 = max(0.0, self._squares / self._n_blocks - 1)

    def learn_service(self, service_s: float) -> None:
        if 0.0 <= service_s <= LONGEST_S:
            self._service_s = _follow(self._service_s, min(service_s, DEAREST_S))

    def lose(self, rank: int) -> None:
        super().lose(rank)
        self._kept = 1 - (1 - _KEPT) / self.n_workers
        self._ranks.pop(rank, None)
        self._speeds.drop(rank)

    def explain(self) -> str:
        if not self._ranks:
            return ""
        said = [f"{_seconds(self.overhead_s or 0.0)} a hand-out"]
        if self._least_s == self._turn_s > 0:
            said.append(f"{_seconds(self._service_s or 0.0)} of the master's time")
        said.append(f"block times spread {round(sqrt(self._spread2), 6):.2g}")  # less is of the reckoning
        weights = sorted((self._weight(seen), rank) for rank, seen in self._ranks.items())
        slow = [(weight, rank) for weight, rank in weights if weight < _SLOW]
        said += [f"rank {rank} at {weight:.2g} of the mean speed" for weight, rank in slow[:_MOST_NAMED]]
        if len(slow) > _MOST_NAMED:
            said.append(f"{len(slow) - _MOST_NAMED} more slower than {_SLOW:g}")
        return ", ".join(said)


def _follow(before_s: float | None, seconds: float) -> float:
    """Follow the cheap hand-outs: in the dear ones a rank waited, or another program had the core."""
    if before_s is None:
        return seconds
    return before_s + (_FALL if seconds < before_s else _RISE) * (seconds - before_s)


def _seconds(seconds: float) -> str:
    """Seconds with two digits and a unit: 38 µs."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{float(f'{seconds * scale:.2g}'):g} {unit}"
    return f"{float(f'{seconds * 1e6:.2g}'):g} µs"
