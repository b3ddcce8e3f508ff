"""What a technique is: how the scheduler asks it for sizes and tells it what the chunks took."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import ceil
from typing import ClassVar, NamedTuple

from mpims.core.policies.parameters import Parameter

LONGEST_S = 1e9
"""A chunk that took longer than these thirty years was timed by a clock that is wrong."""

_NOISE = 1e-12


class Sample(NamedTuple):
    """What one finished chunk took. Chunks that failed, were reissued or straggled make none.

    Attributes
    ----------
    rank
        Who computed it.
    n_blocks
        Its blocks.
    busy_s
        Seconds in the kernel for all of them.
    squares_s2
        The sum of the squares of the single blocks' seconds.
    whole_s
        Seconds from the rank's result before to this one, as the master sees them.
    overhead_s
        Seconds between the chunk that the rank computed before and this one.
    """

    rank: int
    n_blocks: int
    busy_s: float
    squares_s2: float
    whole_s: float
    overhead_s: float = 0.0


class Policy(ABC):
    """A technique, set up for one run.

    Its unit is the block; the parameters that a technique has are those of a block, too.

    Parameters
    ----------
    n_blocks
        All blocks of the run.
    n_workers
        Workers that share them, at least 1.

    Attributes
    ----------
    name, source
        What it is called, and the paper it is from.
    parameters
        What it takes by name beside `n_blocks` and `n_workers`.
    learns
        Whether it wants to be told what chunks take; `learn` is never called if not.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    learns: ClassVar[bool] = False

    def __init__(self, n_blocks: int, n_workers: int) -> None:
        self.n_blocks = n_blocks
        self.n_workers = n_workers

    @abstractmethod
    def propose(self, remaining: int, rank: int) -> int:
        """The technique's size for the next chunk, which is for `rank`.

        `remaining` blocks, at least 1, are not yet handed out. The size may be below 1 or above
        `remaining`: whoever asks limits it.
        """

    @property
    def constant(self) -> int | None:
        """The size of every chunk, where the technique has but one; None where it has not."""
        return None

    def learn(self, sample: Sample) -> None:  # noqa: B027 - most techniques have nothing to learn
        """Take in what a chunk took. Samples that cannot be true are left out."""

    def learn_service(self, service_s: float) -> None:  # noqa: B027 - as above
        """Take in that a result, with what is handed out for it, kept the master busy for so long."""

    def limit(self, size: int, rank: int) -> None:  # noqa: B027 - most look at what remains
        """Take in that the last size, which was for `rank`, was limited to another one."""

    def lose(self, rank: int) -> None:
        """Take in that a rank is gone: the others share what remains."""
        self.n_workers = max(1, self.n_workers - 1)

    def explain(self) -> str:
        """Why the sizes were as they were, in a phrase; nothing if the formula says it all."""
        return ""

    @classmethod
    def example(cls, n_workers: int) -> str:
        """How a user may write it, with a value for every parameter that has no default."""
        needed = [parameter for parameter in cls.parameters if parameter.default is None]
        if not needed:
            return cls.name
        if len(cls.parameters) == 1:
            return f"{cls.name}:{needed[0].example_for(n_workers)}"
        return f"{cls.name}:" + ",".join(f"{one.name}={one.example_for(n_workers)}" for one in needed)


def round_up(size: float) -> int:
    """The next whole number, but for the noise of floating point: 3.0000000000000004 is 3."""
    return ceil(size * (1 - _NOISE))
