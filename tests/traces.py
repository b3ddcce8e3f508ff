"""Traces made by hand, and histories of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpims.pages.history import History, make_history
from mpims.storage.trace import PART, SENT, Section, Trace, TraceEvent, What


def event(what: What, t: float, **about: Any) -> TraceEvent:
    return TraceEvent(what, t, about)


def section(
    *events: TraceEvent,
    sent: Sequence[tuple[int, int, int, int, float]] = (),
    parts: Sequence[tuple[int, int, int, int, float, float, float]] = (),
    t: float = 0.0,
    cause: str = "started",
    rank: int = 0,
    n_workers: int = 2,
    wall: float = 1000.0,
) -> Section:
    """What a master wrote.

    Parameters
    ----------
    sent
        rank, attempt, start, stop, sent_s.
    parts
        rank, attempt, start, stop, busy_s, ended_s, received_s.
    t
        When it began, on its own clock.
    """
    about = {"cause": cause, "rank": rank, "n_workers": n_workers, "wall": wall, "host": "here"}
    began = event(What.BEGAN, t, **about)
    rows = [
        (who, number, start, stop, busy_s, busy_s, busy_s**2, 1e-4, ended_s, received_s)
        for who, number, start, stop, busy_s, ended_s, received_s in parts
    ]
    return Section(began, np.array(list(sent), SENT), np.array(rows, PART), [began, *events])


def joined(*ranks: int, t: float = 0.0, host: str = "here") -> list[TraceEvent]:
    return [event(What.JOINED, t, rank=rank, host=host) for rank in ranks]


def history(*sections: Section, n_items: int = 100, block: int = 1, **manifest: Any) -> History:
    return make_history("run", {"n_items": n_items, "block": block, **manifest}, Trace(list(sections)))


DONE = {"status": "done", "reason": ""}
