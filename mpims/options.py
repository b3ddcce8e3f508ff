"""The options of a run: typed, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from mpims.core.policies import DEFAULT_POLICY, parse_policy
from mpims.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a job is to be run; every field has a default.

    Parameters
    ----------
    policy
        Self-scheduling technique, ``NAME`` or ``NAME:SIZE``; see ``mpims policies``.
    chunk_min, chunk_max
        Least and largest chunk, in items; whole blocks are handed out, so both are rounded up.
    timeout_s
        Seconds without a word after which a rank with work counts as hung and its items are given
        to another; a rank speaks at least once a block. None learns it from the measured blocks.
    seed
        Seed of the items' random numbers (`Job.rng`), at least 0.
    run_dir
        Where the run leaves its files. None makes ``runs/NAME-DATE-TIME``.
    quiet
        Say nothing but errors.

    Raises
    ------
    UsageError
        A value is out of its range.
    """

    policy: str = DEFAULT_POLICY
    chunk_min: int = 1
    chunk_max: int | None = None
    timeout_s: float | None = None
    seed: int = 0
    run_dir: Path | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        try:
            parse_policy(self.policy)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if self.chunk_min < 1:
            raise UsageError(f"the least chunk must be at least 1 item, found {self.chunk_min}")
        if self.chunk_max is not None and self.chunk_max < self.chunk_min:
            raise UsageError(
                f"the largest chunk must be at least the least one, found {self.chunk_min}:{self.chunk_max}"
            )
        if self.timeout_s is not None and not (isfinite(self.timeout_s) and self.timeout_s > 0):
            raise UsageError(f"the timeout must be above 0 seconds, found {self.timeout_s}")
        if self.seed < 0:
            raise UsageError(f"the seed must be at least 0, found {self.seed}")
