"""Of the results that came in one message, those that can be committed as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mpims.core.events import Range, Record
from mpims.runtime.wire import ResultHead


class Delivery(NamedTuple):
    """Results ``first`` to ``last``, exclusive, of a message: their items follow each other."""

    head: ResultHead
    first: int
    last: int
    ranges: tuple[Range, ...]


def whole_runs(
    heads: Sequence[ResultHead], records: Sequence[tuple[int, Record]], *, has_units: bool
) -> list[Delivery]:
    """What is to be committed of a message.

    Parameters
    ----------
    heads
        The results of the message.
    records
        What of them counts, each with the index of its head, in order.
    has_units
        The ranges in them are units that can only be taken whole.

    Returns
    -------
    list of Delivery
        Neighbours of which every item counts are one.
    """
    runs: list[Delivery] = []
    for i, record in records:
        head, ranges = heads[i], record.ranges
        previous = runs[-1] if runs else None
        if previous is not None and previous.last == i and previous.head.stop == head.start:
            whole = previous.head._replace(stop=head.stop)
            both = (*previous.ranges, *ranges)
            if sum([stop - start for start, stop in both]) == head.stop - whole.start:
                joined = both if has_units else ((whole.start, whole.stop),)
                runs[-1] = Delivery(whole, previous.first, i + 1, joined)
                continue
        runs.append(Delivery(head, i, i + 1, ranges))
    return runs
