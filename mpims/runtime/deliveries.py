"""Which of the results that came in one message a commit is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mpims.core.chunks import Range, Result, make
from mpims.core.events import Record


class Delivery(NamedTuple):
    """Results ``first`` to ``last``, exclusive, of a message, as one; `ranges` of it count."""

    head: Result
    first: int
    last: int
    ranges: tuple[Range, ...]


def deliveries(heads: Sequence[Result], records: Sequence[Record]) -> list[Delivery]:
    """What is to be committed of a message.

    Parameters
    ----------
    heads
        The results of the message.
    records
        What of them counts, in their order: each of a result, or of several whose items follow each other.
    """
    if len(heads) == 1:
        return [make(Delivery, (heads[0], 0, 1, record.ranges)) for record in records]
    found = []
    first = 0
    for record in records:
        while heads[first].attempt != record.attempt:
            first += 1
        last, end = first + 1, record.ranges[-1][1]
        while heads[last - 1].stop < end:
            last += 1
        head = heads[first]
        if last > first + 1:
            head = head._replace(stop=end)
        found.append(Delivery(head, first, last, record.ranges))
        first = last
    return found
