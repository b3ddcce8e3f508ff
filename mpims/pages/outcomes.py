"""What became of each attempt."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mpims.pages.history import HANDED_OUT, History
from mpims.storage.trace import What


class AttemptOutcome(IntEnum):
    """What became of an attempt."""

    DONE = 0
    """All of it was delivered, and counts."""
    PART = 1
    """Its front was delivered; the rest was given to another."""
    RECALLED = 2
    """It was taken back before any of it was delivered."""
    DUPLICATE = 3
    """Of what it delivered, another had some first."""
    LATE = 4
    """Its rank had been given up as silent; it was delivered after all, and counts."""
    FAILED = 5
    """A block of it failed."""
    TIMED_OUT = 6
    """Its rank fell silent, and others got what was left."""
    LOST = 7
    """Its rank died, and others got what was left."""
    DROPPED = 8
    """The run was over, or its master died, before all of it was delivered."""
    OPEN = 9
    """It was under way when the record ended."""


ATTEMPT = np.dtype(
    [
        *HANDED_OUT.descr,
        ("n_delivered", "<i8"),
        ("n_fresh", "<i8"),
        ("busy_s", "<f8"),
        ("started_s", "<f8"),
        ("ended_s", "<f8"),
        ("received_s", "<f8"),
        ("outcome", "u1"),
    ]
)
"""An attempt; times are NaN where nothing is known: not sent on record, or nothing delivered."""


def find_outcomes(history: History) -> NDArray[np.void]:
    """All attempts of a run, by number.

    Returns
    -------
    ndarray, shape (n_attempts,), dtype `ATTEMPT`
    """
    attempts = _gather(history)
    _judge(attempts, history)
    return attempts


def _gather(history: History) -> NDArray[np.void]:
    """What was sent, and what of it was delivered."""
    sent, parts = history.sent, history.parts
    numbers = np.unique(np.concatenate([sent["attempt"], parts["attempt"]]))
    attempts = np.zeros(len(numbers), ATTEMPT)
    attempts["attempt"] = numbers
    for name in ("sent_s", "started_s", "ended_s", "received_s"):
        attempts[name] = np.nan
    # An attempt that was sent before the record began is as long as what came of it.
    attempts["start"], attempts["stop"] = np.iinfo(np.int64).max, 0
    index = np.searchsorted(numbers, parts["attempt"])
    np.minimum.at(attempts["start"], index, parts["start"])
    np.maximum.at(attempts["stop"], index, parts["stop"])
    attempts["rank"][index] = parts["rank"]
    attempts["stretch"][index] = parts["stretch"]
    at = np.searchsorted(numbers, sent["attempt"])
    for name in ("rank", "start", "stop", "sent_s", "stretch"):
        attempts[name][at] = sent[name]
    for name, values in (
        ("n_delivered", parts["stop"] - parts["start"]),
        ("n_fresh", parts["n_fresh"]),
        ("busy_s", parts["busy_s"]),
    ):
        np.add.at(attempts[name], index, values)
    np.fmin.at(attempts["started_s"], index, parts["started_s"])
    np.fmax.at(attempts["ended_s"], index, parts["ended_s"])
    np.fmax.at(attempts["received_s"], index, parts["received_s"])
    return attempts


def _judge(attempts: NDArray[np.void], history: History) -> None:
    """Say what became of each; what is said later goes before."""
    delivered, outcome = attempts["n_delivered"], attempts["outcome"]
    numbers, ranks, stretches = attempts["attempt"], attempts["rank"], attempts["stretch"]
    sent_s = np.nan_to_num(attempts["sent_s"], nan=-np.inf)
    received_s = np.nan_to_num(attempts["received_s"], nan=-np.inf)
    size = attempts["stop"] - attempts["start"]
    whole = delivered >= size
    last = len(history.stretches) - 1
    is_open = (stretches == last) & (history.status == "unfinished")
    outcome[:] = np.where(
        whole, AttemptOutcome.DONE, np.where(is_open, AttemptOutcome.OPEN, AttemptOutcome.DROPPED)
    )
    recalled_s = _recalled_s(numbers, history)
    trims = [h.about["attempt"] for h in history.of(What.TRIMMED)]
    outcome[~whole & (np.isin(numbers, trims) | (recalled_s < np.inf))] = AttemptOutcome.PART
    outcome[(recalled_s < np.inf) & (delivered == 0)] = AttemptOutcome.RECALLED
    outcome[attempts["n_fresh"] < delivered] = AttemptOutcome.DUPLICATE
    for happening in history.of(What.SUSPECT, What.LOST):
        t = happening.t
        held = (ranks == happening.rank) & (stretches == happening.stretch)
        held &= (sent_s <= t) & (recalled_s > t)
        if happening.what is What.LOST:
            outcome[held & ~whole & (outcome != AttemptOutcome.DUPLICATE)] = AttemptOutcome.LOST
        else:
            is_late = held & (received_s > t)
            outcome[is_late & (outcome == AttemptOutcome.DONE)] = AttemptOutcome.LATE
            outcome[held & ~is_late & ~whole & (outcome != AttemptOutcome.DUPLICATE)] = (
                AttemptOutcome.TIMED_OUT
            )
    outcome[np.isin(numbers, [h.about["attempt"] for h in history.of(What.FAILED)])] = AttemptOutcome.FAILED


def _recalled_s(numbers: NDArray[np.int64], history: History) -> NDArray[np.float64]:
    """When each attempt was taken back; inf if it was not."""
    recalled_s = np.full(len(numbers), np.inf)
    for happening in history.of(What.RECALLED):
        i = int(np.searchsorted(numbers, happening.about["attempt"]))
        if i < len(numbers) and numbers[i] == happening.about["attempt"]:
            recalled_s[i] = min(recalled_s[i], happening.t)
    return recalled_s
