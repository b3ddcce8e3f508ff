"""How work is taken from a rank so that no item is computed twice: it is asked first.

A rank looks for messages between two blocks. Asked for the end of an attempt it drops what of it is not
begun, and says so; then that is pending again. One that has not answered within `PATIENCE_S` is amid a
block, and will drop the rest before the next: then what it cannot have begun is moved without its word.

Without it, work is moved at once: a rank may begin it in that moment, and the first answer counts.
"""

from __future__ import annotations

from collections.abc import Callable

from mpims.core.events import Action, Trim
from mpims.core.ledger import Attempt

PATIENCE_S = 50e-3
"""A message takes much less than this, and whoever waits for the answer has nothing else to do."""


class Handover:
    """Who was asked for what.

    Parameters
    ----------
    is_exact
        Whether a rank has begun no more of an attempt than what it has delivered, and one block.
    """

    def __init__(self, is_exact: Callable[[Attempt], bool]) -> None:
        self.is_exact = is_exact
        self._asked: dict[int, float] = {}  # attempts, and when

    def ask(self, attempt: Attempt, at: int, now: float) -> list[Action]:
        """Ask for the items from `at` on; once for each attempt."""
        if attempt.number in self._asked:
            return []
        self._asked[attempt.number] = now
        return [Trim(attempt.rank, attempt.number, at)]

    def is_overdue(self, attempt: Attempt, now: float) -> bool:
        """Whether the answer should have come."""
        asked_at = self._asked.get(attempt.number)
        return asked_at is not None and now - asked_at >= PATIENCE_S

    def forget(self, number: int) -> None:
        """It was answered, or will not be."""
        self._asked.pop(number, None)
