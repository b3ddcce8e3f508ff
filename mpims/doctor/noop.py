"""A job that computes nothing: what is left is the handing out."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpims.job import Job


class Noop(Job):
    """Items without work, handed out one by one."""

    n: int = 1000
    block = 1

    def items(self) -> int:
        """So many."""
        return self.n

    def kernel(self, items: range) -> Any:
        """One byte per item."""
        return np.zeros(len(items), np.uint8)
