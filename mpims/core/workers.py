"""What the scheduler knows of the ranks, and what it counts."""

from __future__ import annotations

from math import inf

from mpims.core.ledger import Attempt


class WorkerState:
    """What the scheduler knows of one rank."""

    __slots__ = (
        "block_s",
        "has_check",
        "holds_back",
        "is_listed",
        "length",
        "length_for",
        "n_failed",
        "part",
        "queue",
        "rank",
        "silent_since",
        "suspect",
    )

    def __init__(self, rank: int, now: float, length: int) -> None:
        self.rank = rank
        self.queue: list[Attempt] = []
        self.length = length  # attempts that the queue is to hold
        self.length_for = inf  # with fewer items pending than these it may be another
        self.holds_back = True  # results of short chunks until those of others leave with them
        self.silent_since = now
        self.suspect = False
        # An attempt, and of what is done of it: blocks, seconds in the kernel, their squares, all seconds,
        # and those before its begin.
        self.part: tuple[int, int, float, float, float, float] | None = None
        self.has_check = False  # its silence will be looked at; see `mpims.core.silence`
        self.is_listed = False  # among the ranks with work; see `mpims.core.takeover`
        self.block_s: float | None = None  # mean time of a block here
        self.n_failed = 0  # blocks that failed here, one after another, and have not failed elsewhere

    def find(self, number: int) -> Attempt | None:
        """The attempt of that number in the queue."""
        for attempt in self.queue:
            if attempt.number == number:
                return attempt
        return None

    @property
    def begun(self) -> list[Attempt]:
        """The attempts that the rank may have begun."""
        return self.queue[: max(1, len(self.queue) - 1)] if self.holds_back else self.queue[:1]


class Counters:
    """What happened in a run, in numbers."""

    def __init__(self) -> None:
        self.n_chunks = 0  # chunks handed out, reissued ones included
        self.n_reissued = 0  # attempts whose rest went back to pending
        self.n_recalled = 0  # attempts moved to an idle rank before they were begun
        self.n_split = 0  # attempts of which an idle rank got the second half
        self.n_twins = 0  # attempts handed to an idle rank as well
        self.n_duplicates = 0  # items computed again: delivered after another answer
        self.n_failures = 0  # blocks that failed
        self.n_skipped = 0  # items given up
        self.n_timeouts = 0
        self.n_lost = 0

    def by_name(self) -> dict[str, int]:
        """All of them."""
        return {
            "n_chunks": self.n_chunks,
            "n_reissued": self.n_reissued,
            "n_recalled": self.n_recalled,
            "n_split": self.n_split,
            "n_twins": self.n_twins,
            "n_duplicates": self.n_duplicates,
            "n_failures": self.n_failures,
            "n_skipped": self.n_skipped,
            "n_timeouts": self.n_timeouts,
            "n_lost": self.n_lost,
        }
