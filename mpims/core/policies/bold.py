"""BOLD: larger chunks than factoring's, from an estimate of how far everybody is.

Hagerup's strategy starts with chunks that are larger than is safe, and gets away with it because it
watches: beside R, the tasks that are not handed out, it keeps M, those that are not finished, and N, the
expected number of tasks still to be done, for which each running chunk of K tasks is taken to proceed at
its expected speed ``K / (K mu + h)``.

A policy sees no clock. The time is put together from the samples: a rank works without a pause, so a
chunk ends `Sample.whole_s` after the one before it, and when a sample comes it is at least as late as it
was at any sample before.

Hagerup's workers ask when they have nothing left; a rank of ours asks for its next chunk as it begins
one, that is too early by the blocks it still has to compute. By the time it comes to the chunk it asks
for, all P ranks will have computed about as many: P times as many are taken off M and N. A chunk whose
sample never comes (it failed, was reissued or straggled) is taken for one of those that come after it.
"""

from __future__ import annotations

from collections import deque
from math import log, pi, sqrt
from typing import ClassVar

from mpims.core.policies.base import LONGEST_S, Policy, Sample
from mpims.core.policies.parameters import DEVIATION, MEAN, OVERHEAD, Parameter

_MOST_IN_HAND = 32
"""A rank is given no more chunks ahead: what it seems to have beyond was lost."""


class _Hand:
    """What a rank has: its chunks' sizes, the oldest first, which is the one that it computes."""

    __slots__ = ("n_blocks", "sizes", "speed", "start_s")

    def __init__(self) -> None:
        self.sizes: deque[int] = deque()
        self.n_blocks = 0
        self.start_s = 0.0
        self.speed = 0.0

    def left(self, now_s: float) -> float:
        """The blocks that the rank still has to compute."""
        computed = (now_s - self.start_s) * self.speed
        return self.n_blocks - min(computed, self.sizes[0]) if self.sizes else 0.0


class Bold(Policy):
    """A share of what is expected to be left, less a margin, plus what the overhead is worth.

    With ``Q = R / P``, ``r = max(R, N)``, ``t = r / P``, ``a = 2 (sigma / mu)**2``, ``b = 8 a ln(8 a)``,
    ``c1 = h / (mu ln 2)``, ``c2 = sqrt(2 pi) c1``, ``v = Q / (b + Q)`` and ``d = R / (1 + 1 / ln Q - v)``
    the size is 1 for Q up to 1, t for d up to c2, and else
    ``min(t, t + max(0, c1 w) + s / 2 - sqrt(s (t + s / 4)))`` with
    ``s = a (ln d - ln c2) (1 + M / (r P))`` and ``w = ln(b v ln Q)``, or ``ln ln Q`` where b <= 0. It is
    rounded down.
    """

    name = "BOLD"
    source = "Hagerup 1997"
    parameters: ClassVar[tuple[Parameter, ...]] = (MEAN, DEVIATION, OVERHEAD)
    learns = True

    def __init__(self, n_blocks: int, n_workers: int, *, mu: float, sigma: float, h: float) -> None:
        super().__init__(n_blocks, n_workers)
        self._mu, self._h = mu, h
        self._a = 2 * (sigma / mu) * (sigma / mu)
        self._b = 8 * self._a * log(8 * self._a) if self._a > 0 else 0.0
        self._c1 = h / (mu * log(2))
        self._c2 = sqrt(2 * pi) * self._c1
        self._hands: dict[int, _Hand] = {}
        self._n_in_hand = 0
        self._now_s = 0.0
        self._speed = 0.0  # of all running chunks, in blocks per second
        self._offset = 0.0  # the sum of their speeds times their starts

    def propose(self, remaining: int, rank: int) -> int:
        hand = self._hands.get(rank)
        if hand is None:
            hand = self._hands[rank] = _Hand()
        if len(hand.sizes) == _MOST_IN_HAND:
            self._finish(hand)
        unfinished = remaining + self._n_in_hand - self.n_workers * hand.left(self._now_s)
        computed = self._now_s * self._speed - self._offset
        size = int(self._size(remaining, max(remaining, unfinished), unfinished - computed))
        size = max(1, min(remaining, size))
        hand.sizes.append(size)
        hand.n_blocks += size
        self._n_in_hand += size
        if len(hand.sizes) == 1:
            self._begin(hand)
        return size

    def learn(self, sample: Sample) -> None:
        hand = self._hands.get(sample.rank)
        if hand is None or not hand.sizes or not 0.0 <= sample.whole_s <= LONGEST_S:
            return
        self._now_s = max(self._now_s, hand.start_s + sample.whole_s)
        self._finish(hand)

    def limit(self, size: int, rank: int) -> None:
        hand = self._hands[rank]
        more = size - hand.sizes[-1]
        is_first = len(hand.sizes) == 1
        if is_first:
            self._halt(hand)
        hand.sizes[-1] = size
        hand.n_blocks += more
        self._n_in_hand += more
        if is_first:
            self._begin(hand)

    def lose(self, rank: int) -> None:
        super().lose(rank)
        hand = self._hands.pop(rank, None)
        if hand is not None and hand.sizes:
            self._halt(hand)
            self._n_in_hand -= hand.n_blocks

    def _begin(self, hand: _Hand) -> None:
        size = hand.sizes[0]
        hand.start_s = self._now_s
        hand.speed = size / (size * self._mu + self._h)
        self._speed += hand.speed
        self._offset += hand.speed * hand.start_s

    def _halt(self, hand: _Hand) -> None:
        """The oldest chunk of a rank is no longer computed."""
        self._speed -= hand.speed
        self._offset -= hand.speed * hand.start_s

    def _finish(self, hand: _Hand) -> None:
        """The oldest chunk of a rank is done, and it begins with the next."""
        size = hand.sizes.popleft()
        hand.n_blocks -= size
        self._n_in_hand -= size
        self._halt(hand)
        if hand.sizes:
            self._begin(hand)

    def _size(self, remaining: int, unfinished: float, expected: float) -> float:
        quotient = remaining / self.n_workers
        if quotient <= 1:
            return 1.0
        at_most = max(remaining, expected)
        share = at_most / self.n_workers
        ln_q = log(quotient)
        v = quotient / (self._b + quotient)
        d = remaining / (1 + 1 / ln_q - v)
        if d <= self._c2:
            return share
        s = self._a * log(d / self._c2) * (1 + unfinished / (at_most * self.n_workers))
        w = log(self._b * v * ln_q) if self._b > 0 else log(ln_q)
        # share + s / 2 - sqrt(s (share + s / 4)), times its conjugate: nothing is left to cancel.
        bold = share * share / (share + s / 2 + sqrt(s * (share + s / 4)))
        return min(share, bold + max(0.0, self._c1 * w))
