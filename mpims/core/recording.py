"""What of delivered results is to be committed, and what to be dropped."""

from __future__ import annotations

from collections.abc import Sequence

from mpims.core.chunks import Range
from mpims.core.events import Action, ChunkDone, ChunksDone, Discard, Record
from mpims.core.ledger import Ledger
from mpims.core.workers import Counters


def record_fresh(
    event: ChunkDone, fresh: tuple[Range, ...], ledger: Ledger, counters: Counters
) -> list[Action]:
    """Record what was first of a result, and discard the rest."""
    if fresh == ((event.start, event.stop),):
        return [Record(event.attempt, fresh)]
    actions: list[Action] = [Record(event.attempt, fresh)] if fresh else []
    n_late = event.stop - event.start - sum(stop - start for start, stop in fresh)
    if n_late:
        if ledger.knows(event.attempt):  # and not sent again to a new master
            counters.n_duplicates += n_late
        actions.append(Discard(event.attempt, n_late))
    return actions


def record_runs(event: ChunksDone, runs: Sequence[Range]) -> list[Record]:
    """Record results that count whole, those that follow each other as one."""
    records = []
    results, units = event.results, event.units
    i = 0
    for run in runs:
        first = i
        while results[i].stop < run[1]:
            i += 1
        i += 1
        ranges = (run,) if units[first] is None else tuple([u for its in units[first:i] for u in its or ()])
        records.append(Record(results[first].attempt, ranges))
    return records
