"""What the items of a simulated run cost: drawn from a distribution, or taken from a recorded run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import inf, isfinite, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpims.errors import UsageError
from mpims.storage.trace import check_records

MAX_ITEMS = 1_000_000_000
MAX_BLOCKS = 50_000_000
"""A simulated run has at most so many; a block takes 32 bytes, or 64 if a policy learns."""
_SLAB = 1 << 22  # items that are drawn at once
_LEAST_COV = 1e-8  # below that all times are the same in double precision

Floats: TypeAlias = NDArray[np.float64]


class Costs:
    """The times of all blocks, with those of any range of blocks in constant time.

    Parameters
    ----------
    block_s
        Seconds that each block takes, shape (n_blocks,).
    n_items
        Items of the run; the last block may have fewer than the others.
    block
        Items of a block.
    mean_s, sigma_s
        Mean and standard deviation of the time of one item, as a policy may be told them; by default
        those of an item of these blocks, taken as independent.

    Attributes
    ----------
    prefix : list of float
        ``prefix[k]`` is what the first k blocks take together.
    total_s
        All of them.
    """

    def __init__(
        self,
        block_s: Floats,
        n_items: int,
        block: int = 1,
        *,
        mean_s: float | None = None,
        sigma_s: float | None = None,
    ) -> None:
        self._block_s = block_s
        self.n_items = n_items
        self.block = block
        self.n_blocks = len(block_s)
        self.prefix = _sums(block_s)
        self.total_s = self.prefix[-1]
        self.mean_s = self.total_s / n_items if mean_s is None else mean_s
        self.sigma_s = float(block_s.std()) / sqrt(block) if sigma_s is None else sigma_s

    @cached_property
    def squares(self) -> list[float]:
        """The same of the squares of the blocks' times."""
        with np.errstate(over="ignore"):
            return _sums(self._block_s**2)


def _sums(values: Floats) -> list[float]:
    with np.errstate(over="ignore"):  # what is infinite is refused, or is a spread that says nothing
        sums = np.cumsum(values)
    # A list, for one of its numbers is had in half the time that one of an array takes.
    return [0.0, *sums.tolist()]


# --------------------------------------------------------------------- distributions


class Shape(Enum):
    """A distribution of item times."""

    EXPONENTIAL = "exponential"
    GAMMA = "gamma"
    UNIFORM = "uniform"
    CONSTANT = "constant"


_COV = {Shape.EXPONENTIAL: 1.0, Shape.GAMMA: 1.0, Shape.UNIFORM: 0.5, Shape.CONSTANT: 0.0}
"""The coefficient of variation of each, where none is given."""
_FIXED = (Shape.EXPONENTIAL, Shape.CONSTANT)


@dataclass(frozen=True, slots=True)
class Distribution:
    """How the times of items are distributed.

    Parameters
    ----------
    shape
        Its name.
    mean_s
        Mean, above 0.
    cov
        Coefficient of variation: standard deviation over mean. That of the exponential distribution is 1
        and that of equal times 0; a uniform one has at most ``1 / sqrt(3)``, for no time is below 0.

    Raises
    ------
    UsageError
        There is no such distribution.
    """

    shape: Shape
    mean_s: float = 1.0
    cov: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.mean_s) and self.mean_s > 0):
            raise UsageError(f"--mean wants seconds above 0, found {self.mean_s:g}")
        if not (isfinite(self.cov) and self.cov >= 0):
            raise UsageError(f"--cov wants a number of at least 0, found {self.cov:g}")
        if self.shape in _FIXED and self.cov != _COV[self.shape]:
            raise UsageError(
                f"--cov {self.cov:g}: that of the {self.shape.value} distribution is {_COV[self.shape]:g}; "
                "leave it out, or take gamma"
            )
        if self.shape is Shape.UNIFORM and self.cov > 1 / sqrt(3):
            raise UsageError(
                f"--cov {self.cov:g}: above 1/sqrt(3) some times of a uniform distribution would be "
                "negative; take gamma"
            )

    @classmethod
    def named(cls, name: str, mean_s: float, cov: float | None) -> Distribution:
        """The distribution of that name, with its own coefficient of variation if none is given."""
        try:
            shape = Shape(name.lower())
        except ValueError:
            names = ", ".join(shape.value for shape in Shape)
            raise UsageError(f"--dist wants {names} or trace:RUN, found {name!r}") from None
        return cls(shape, mean_s, _COV[shape] if cov is None else cov)

    def draw(self, random: np.random.Generator, n: int) -> Floats:
        """Draw `n` times, in seconds."""
        mean_s, cov = self.mean_s, self.cov
        if cov < _LEAST_COV:
            return np.full(n, mean_s)
        if self.shape is Shape.EXPONENTIAL:
            return random.exponential(mean_s, n)
        if self.shape is Shape.UNIFORM:
            half = min(sqrt(3) * cov, 1.0) * mean_s
            return random.uniform(mean_s - half, mean_s + half, n)
        return random.gamma(1 / cov**2, cov**2 * mean_s, n)


def check_size(n_items: int, block: int) -> None:
    """Refuse a run that cannot be simulated.

    Raises
    ------
    UsageError
        It has no items, or too many.
    """
    if not 1 <= n_items <= MAX_ITEMS:
        raise UsageError(f"--items wants 1 to {MAX_ITEMS:,}, found {n_items}")
    if block < 1:
        raise UsageError(f"--block wants at least 1 item, found {block}")
    if -(-n_items // block) > MAX_BLOCKS:
        least = -(-n_items // MAX_BLOCKS)
        raise UsageError(
            f"{n_items:,} items in blocks of {block} are more than {MAX_BLOCKS:,} blocks: "
            f"take --block {least} or more"
        )


def draw_costs(distribution: Distribution, n_items: int, block: int, random: np.random.Generator) -> Costs:
    """Draw the times of all items, and sum them up by blocks."""
    block_s = np.zeros(-(-n_items // block))
    for start in range(0, n_items, _SLAB):
        stop = min(start + _SLAB, n_items)
        first = start // block
        edges = np.maximum(np.arange(first * block, stop, block), start) - start
        block_s[first : first + len(edges)] += np.add.reduceat(
            distribution.draw(random, stop - start), edges
        )
    sigma_s = distribution.cov * distribution.mean_s
    costs = Costs(block_s, n_items, block, mean_s=distribution.mean_s, sigma_s=sigma_s)
    if not 0 < costs.total_s < inf:
        raise UsageError(
            f"a mean of {distribution.mean_s:g} s and a cov of {distribution.cov:g} give times that sum to "
            f"{costs.total_s:g} s: take others"
        )
    return costs


# ---------------------------------------------------------------------------- traces


def trace_costs(parts: NDArray[np.void], n_items: int, block: int, random: np.random.Generator) -> Costs:
    """What the blocks of a recorded run cost.

    A part of one block has its measured time. Of a part of several only the sum and the sum of squares
    are known: its blocks get times drawn from the gamma distribution with that mean and spread, scaled so
    that they sum to what was measured. Of an item that was computed several times the first counts; a
    block of which nothing is on record gets the mean of the others. All ranks are taken to be equally
    fast.

    Parameters
    ----------
    parts
        The delivered parts, in the order of their delivery; see `mpims.storage.trace.PART`.
    n_items, block
        Items of the run and of a block.
    random
        Draws the times.

    Raises
    ------
    UsageError
        No part is on record, or one is not of such a run; or it has too many blocks.
    """
    n_blocks = -(-n_items // block)
    starts, stops = parts["start"], parts["stop"]
    if not len(parts):
        raise UsageError("the trace is empty: nothing was computed while it was recorded")
    if n_blocks > MAX_BLOCKS:
        raise UsageError(
            f"the run has {n_blocks:,} blocks, more than the {MAX_BLOCKS:,} that are simulated"
        )
    check_records(parts, n_items, block)
    first, counts = starts // block, -(-stops // block) - starts // block
    offsets = np.repeat(np.cumsum(counts) - counts, counts)
    index = np.repeat(first, counts) + np.arange(counts.sum()) - offsets
    measured_s = _spread(parts["busy_s"], parts["squares_s2"], counts, random)
    block_s = np.full(n_blocks, np.nan)
    block_s[index[::-1]] = measured_s[::-1]  # the first of several is written last
    block_s[np.isnan(block_s)] = np.nanmean(block_s)
    return Costs(block_s, n_items, block)


def _spread(
    busy_s: Floats, squares_s2: Floats, counts: NDArray[np.int64], random: np.random.Generator
) -> Floats:
    """Times of the blocks of all parts, from the sum and the sum of squares of each part."""
    if not (np.isfinite(busy_s).all() and (busy_s >= 0).all() and busy_s.any()):
        raise UsageError("the trace has times that are negative, no numbers, or all 0: it is damaged")
    mean_s = busy_s / counts
    variance = np.maximum(squares_s2 / counts - mean_s**2, 0.0)
    varies = (counts > 1) & (variance > (_LEAST_COV * mean_s) ** 2)
    shape = np.where(varies, mean_s**2 / np.where(varies, variance, 1.0), 1.0)
    drawn = np.where(np.repeat(varies, counts), random.gamma(np.repeat(shape, counts)), 1.0)
    sums = np.add.reduceat(drawn, np.cumsum(counts) - counts)
    # Where all times drawn are 0, as with a huge spread, the first block takes all.
    drawn[(np.cumsum(counts) - counts)[sums == 0]] = 1.0
    sums[sums == 0] = 1.0
    return drawn * np.repeat(busy_s / sums, counts)
