"""When a silent rank counts as timed out.

A worker speaks at least once a block, and about once a second where blocks are shorter. Silence is
judged against that: the user's own limit, or one learnt from the longest block that was measured.
"""

from __future__ import annotations

FACTOR = 10.0
"""A learnt limit is this many times the longest block seen so far ..."""
FLOOR_S = 30.0
"""... and at least this long."""


class Deadlines:
    """The time that a rank with work may stay silent.

    Parameters
    ----------
    timeout_s
        The user's limit in seconds; None to learn one.
    """

    __slots__ = ("_longest_block_s", "_timeout_s", "allowance_s")

    def __init__(self, timeout_s: float | None = None) -> None:
        self._timeout_s = timeout_s
        self._longest_block_s = -1.0
        self.allowance_s = timeout_s
        """Seconds of silence allowed; None as long as nothing is known."""

    def learn(self, longest_block_s: float) -> None:
        """Take in the longest block of a chunk that went well."""
        if longest_block_s > self._longest_block_s:
            self._longest_block_s = longest_block_s
            if self._timeout_s is None:
                self.allowance_s = max(FLOOR_S, FACTOR * longest_block_s)
