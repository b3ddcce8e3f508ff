"""The sizes that are really handed out: a technique within the user's limits."""

from __future__ import annotations

from mpims.core.policies.base import Policy, Sample


class Sizer:
    """A policy within the limits that the user set.

    Every size is ``min(remaining, max(minimum, min(maximum, size)))``.

    Parameters
    ----------
    policy
        The technique, set up for the run.
    minimum, maximum
        Blocks in a chunk at the least and at the most (None: no upper limit).

    Attributes
    ----------
    room
        Blocks for which there is time, at least 1; None if there is time for all. It goes before the
        minimum.
    """

    __slots__ = ("_maximum", "_minimum", "learns", "policy", "room")

    def __init__(self, policy: Policy, minimum: int = 1, maximum: int | None = None) -> None:
        self.policy = policy
        self.learns = policy.learns
        self._minimum = max(1, minimum)
        self._maximum = maximum
        self.room: int | None = None

    def next_size(self, remaining: int, rank: int) -> int:
        """Blocks in the next chunk, for `rank`, with `remaining` (at least 1) not yet handed out."""
        size = proposed = self.policy.propose(remaining, rank)
        if size < self._minimum:
            size = self._minimum
        if self._maximum is not None and size > self._maximum:
            size = self._maximum
        if self.room is not None and size > self.room:
            size = self.room
        if size > remaining:
            size = remaining
        if size != proposed:
            self.policy.limit(size, rank)
        return size

    @property
    def constant(self) -> int | None:
        """Blocks in every chunk but the last, where that is known before; None where it is not."""
        size = self.policy.constant
        if size is None or self.room is not None:
            return None
        size = max(size, self._minimum)
        return size if self._maximum is None else min(size, self._maximum)

    def explain(self) -> str:
        """Why the sizes were as they were, in a phrase, or nothing."""
        return self.policy.explain()

    def learn(self, sample: Sample) -> None:
        """Tell the policy what a chunk took; in vain unless it `learns`."""
        self.policy.learn(sample)

    def learn_service(self, service_s: float) -> None:
        """Tell the policy how long a result kept the master busy."""
        self.policy.learn_service(service_s)

    def lose(self, rank: int) -> None:
        """Tell the policy that a rank is gone."""
        self.policy.lose(rank)


def chunk_sizes(sizer: Sizer) -> list[int]:
    """All chunk sizes of an undisturbed run, in the order of the requests, in blocks.

    The ranks 1 to P ask in turn, and nothing is measured: a technique that learns stays at its start.
    """
    policy = sizer.policy
    sizes: list[int] = []
    remaining = policy.n_blocks
    while remaining:
        sizes.append(sizer.next_size(remaining, 1 + len(sizes) % policy.n_workers))
        remaining -= sizes[-1]
    return sizes
