"""The times of items: how they spread, which were the slowest, and how fast each rank was."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mpims.pages.history import History

LEAST_BLOCKS = 10
"""Of a rank that delivered less than this it is not said how fast it is."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The times of blocks, in seconds: of all that were computed, exactly."""

    n_blocks: int
    mean_s: float
    deviation_s: float
    longest_s: float

    @property
    def cov(self) -> float:
        """Standard deviation over mean."""
        return self.deviation_s / self.mean_s if self.mean_s else 0.0


def spread(history: History) -> Spread:
    """How the times of blocks spread."""
    parts = history.parts
    n_blocks = int(n_blocks_of(parts, history.block).sum())
    mean_s = float(parts["busy_s"].sum()) / n_blocks
    squares_s2 = float(parts["squares_s2"].sum(dtype=float)) / n_blocks
    deviation_s = sqrt(max(squares_s2 - mean_s**2, 0.0))
    return Spread(n_blocks, mean_s, deviation_s, float(parts["longest_s"].max()))


def n_blocks_of(parts: NDArray[np.void], block: int) -> NDArray[np.int64]:
    """The number of blocks of each part."""
    return np.asarray(-((parts["start"] - parts["stop"]) // block))


def slowest(history: History, n: int = 10) -> NDArray[np.void]:
    """The parts with the longest blocks, the longest first."""
    parts = history.parts
    return parts[np.argsort(-parts["longest_s"], kind="stable")[:n]]


def paces(history: History) -> dict[int, float]:
    """Seconds per item of each rank that delivered enough blocks, over the median of these ranks."""
    parts = history.parts
    ranks, index = np.unique(parts["rank"], return_inverse=True)
    busy_s = np.bincount(index, parts["busy_s"])
    n_items = np.bincount(index, parts["stop"] - parts["start"])
    enough = np.bincount(index, n_blocks_of(parts, history.block)) >= LEAST_BLOCKS
    if not enough.any():
        return {}
    item_s = busy_s / n_items
    median_s = float(np.median(item_s[enough])) or 1.0
    return {int(ranks[i]): float(item_s[i]) / median_s for i in np.flatnonzero(enough)}
