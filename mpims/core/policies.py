"""The self-scheduling techniques: how many blocks the next chunk has.

A policy is asked once for every chunk and sees nothing but counts, so that the same requests always
get the same sizes. Its unit is the block; where the block is one item the sizes are the published
ones. Every size is limited to ``min(remaining, max(minimum, size))``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from difflib import get_close_matches
from math import ceil
from typing import ClassVar


class Policy(ABC):
    """A technique, set up for one run.

    Parameters
    ----------
    n_blocks
        All blocks of the run.
    n_workers
        Workers that share them, at least 1.
    size
        The technique's own parameter, for the techniques that have one.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    takes_size: ClassVar[bool] = False

    def __init__(self, n_blocks: int, n_workers: int, size: int | None = None) -> None:
        self.n_blocks = n_blocks
        self.n_workers = n_workers
        self.size = size or 1

    @abstractmethod
    def propose(self, remaining: int) -> int:
        """The technique's size for the next chunk, with `remaining` blocks not yet handed out."""


class Static(Policy):
    """One equal share for each worker: ``ceil(N / P)``."""

    name = "STATIC"
    source = "the division of OpenMP's schedule(static)"

    def propose(self, remaining: int) -> int:
        return ceil(self.n_blocks / self.n_workers)


class SelfScheduling(Policy):
    """One block at a time: the best balance and the most hand-outs."""

    name = "SS"
    source = "Tang & Yew 1986"

    def propose(self, remaining: int) -> int:
        return 1


class ChunkSelfScheduling(Policy):
    """Always the same number of blocks, given with the name: ``CSS:100``."""

    name = "CSS"
    source = "Kruskal & Weiss 1985"
    takes_size = True

    def propose(self, remaining: int) -> int:
        return self.size


class GuidedSelfScheduling(Policy):
    """A worker's share of what remains: ``ceil(R / P)``."""

    name = "GSS"
    source = "Polychronopoulos & Kuck 1987"

    def propose(self, remaining: int) -> int:
        return ceil(remaining / self.n_workers)


class TrapezoidSelfScheduling(Policy):
    """Sizes that fall linearly from ``f = ceil(N / 2P)`` to 1.

    The decrement stays a real number and the cumulative boundaries are rounded: an integer
    decrement is 0 for N below about 8 P**2, and the sizes then do not fall at all.
    """

    name = "TSS"
    source = "Tzen & Ni 1993"

    def __init__(self, n_blocks: int, n_workers: int, size: int | None = None) -> None:
        super().__init__(n_blocks, n_workers, size)
        self._first = max(1, ceil(n_blocks / (2 * n_workers)))
        n_chunks = ceil(2 * n_blocks / (self._first + 1))
        self._decrement = (self._first - 1) / (n_chunks - 1) if n_chunks > 1 else 0.0
        self._n_proposed = 0

    def _boundary(self, n_chunks: int) -> int:
        return round(n_chunks * self._first - self._decrement * n_chunks * (n_chunks - 1) / 2)

    def propose(self, remaining: int) -> int:
        i = self._n_proposed
        self._n_proposed += 1
        return self._boundary(i + 1) - self._boundary(i)


class Factoring2(Policy):
    """Batches of P equal chunks, each batch half of what remains: ``ceil(R_j / 2P)``.

    The recursive form: R_j is what remains when batch j begins.
    """

    name = "FAC2"
    source = "Hummel, Schonberg & Flynn 1992"

    def __init__(self, n_blocks: int, n_workers: int, size: int | None = None) -> None:
        super().__init__(n_blocks, n_workers, size)
        self._left_in_batch = 0
        self._chunk = 0

    def propose(self, remaining: int) -> int:
        if self._left_in_batch == 0:
            self._left_in_batch = self.n_workers
            self._chunk = ceil(remaining / (2 * self.n_workers))
        self._left_in_batch -= 1
        return self._chunk


POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        Static,
        SelfScheduling,
        ChunkSelfScheduling,
        GuidedSelfScheduling,
        TrapezoidSelfScheduling,
        Factoring2,
    )
}
DEFAULT_POLICY = "FAC2"


def parse_policy(spec: str) -> tuple[type[Policy], int | None]:
    """Split ``NAME`` or ``NAME:SIZE`` into the technique and its parameter, in items.

    Raises
    ------
    ValueError
        There is no such technique, or it misses its size or takes none; the text says which.
    """
    name, colon, size_text = spec.partition(":")
    policy = POLICIES.get(name.upper())
    if policy is None:
        near = get_close_matches(name.upper(), POLICIES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no policy {name!r}: there are {', '.join(POLICIES)}{hint}")
    if not policy.takes_size:
        if colon:
            raise ValueError(f"policy {policy.name} takes no size, found {spec!r}")
        return policy, None
    if not (size_text.isdecimal() and int(size_text) > 0):
        found = f"found {spec!r}" if colon else "it has none"
        raise ValueError(
            f"policy {policy.name} needs a chunk size in items, {found}: write {policy.name}:100"
        )
    return policy, int(size_text)


class Sizer:
    """A policy within the limits that the user set: the sizes that are really handed out.

    Parameters
    ----------
    policy
        The technique, set up for the run.
    minimum, maximum
        Blocks in a chunk at the least and at the most (None: no upper limit).
    """

    __slots__ = ("_maximum", "_minimum", "policy")

    def __init__(self, policy: Policy, minimum: int = 1, maximum: int | None = None) -> None:
        self.policy = policy
        self._minimum = minimum
        self._maximum = maximum

    def next_size(self, remaining: int) -> int:
        """Blocks in the next chunk, with `remaining` (at least 1) not yet handed out."""
        size = max(self._minimum, self.policy.propose(remaining), 1)
        if self._maximum is not None:
            size = min(size, self._maximum)
        return min(size, remaining)


def chunk_sizes(sizer: Sizer) -> list[int]:
    """All chunk sizes of an undisturbed run, in the order of the requests, in blocks."""
    sizes = []
    remaining = sizer.policy.n_blocks
    while remaining:
        sizes.append(sizer.next_size(remaining))
        remaining -= sizes[-1]
    return sizes
