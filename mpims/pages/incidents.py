"""What went wrong in a run, or was asked of it, and what was done about it, line by line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpims.pages.history import Happening, History
from mpims.pages.outcomes import AttemptOutcome
from mpims.pages.words import items_text, time_text
from mpims.report.wording import counted, name_ranks
from mpims.storage.trace import Cause, What

MOST_INCIDENTS = 200
"""So many are told; a run with more has one reason for most of them."""

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Incident:
    """At `t` seconds something happened, and was dealt with."""

    t: float
    what: str
    remedy: str
    is_asked: bool
    """Whether nothing went wrong: a signal or the time limit stopped the run, or it went on after that."""


def find_incidents(history: History, attempts: NDArray[np.void]) -> list[Incident]:
    """All that went wrong or was asked for, by time; `attempts` as from `find_outcomes`."""
    found = []
    is_stopped = False  # as asked
    for happening in history.happenings:
        is_asked = happening.what is What.STOPPING or _is_asked_stop(happening)
        if happening.what is What.BEGAN:
            is_asked = is_stopped
        if happening.what in (What.BEGAN, What.ENDED):
            is_stopped = happening.what is What.ENDED and is_asked
        told = _tell(happening, history, attempts)
        if told is not None:
            found.append(Incident(happening.t, *told, is_asked))
    return found


def _is_asked_stop(happening: Happening) -> bool:
    """Whether this is the end of a run that stopped for no other reason than that it was to."""
    about = happening.about
    return (
        happening.what is What.ENDED
        and about.get("status") == "stopped"
        and about.get("reason") in (None, "", "stopped")
    )


def _tell(happening: Happening, history: History, attempts: NDArray[np.void]) -> tuple[str, str] | None:
    about, where = happening.about, history.where(happening.rank)
    if happening.what is What.LOST:
        held = _held(happening, attempts, AttemptOutcome.LOST)
        return f"{where} died", _reissued(happening, held, history, attempts)
    if happening.what is What.SUSPECT:
        held = _held(
            happening, attempts, AttemptOutcome.TIMED_OUT, AttemptOutcome.LATE, AttemptOutcome.DUPLICATE
        )
        return f"{where} was silent past its deadline", _reissued(happening, held, history, attempts)
    if happening.what is What.BACK:
        return f"{where} spoke again", "it was given work again"
    if happening.what is What.FAILED:
        items = items_text(about["start"], about["stop"])
        return f"{items} failed on {where}: {about.get('reason', '')}", _retried(
            happening, history, attempts
        )
    if happening.what is What.SKIPPED:
        return (
            f"item {about['item']} failed {_times(about.get('n_tries'))}: {about.get('reason', '')}",
            "it was skipped",
        )
    return _tell_of_run(happening, history)


def _times(n: int | None) -> str:
    return "? times" if n is None else counted(n, "time")


def _tell_of_run(happening: Happening, history: History) -> tuple[str, str] | None:
    """What concerned all ranks."""
    about = happening.about
    if happening.what is What.BEGAN and happening.t > 0.0:
        if about.get("cause") == Cause.TAKEN_OVER.value:
            return "the master died", f"{history.where(happening.rank)} took over"
        workers = counted(int(about["n_workers"]), "worker")
        return "the run had ended before it was done", f"it was resumed on {workers}"
    if happening.what is What.HIRED:
        return "no rank was left to compute", "the master computed itself"
    if happening.what is What.AWAY:
        gone = time_text(float(about.get("duration_s", 0.0)))
        return f"the master was suspended for {gone}", "nobody's silence counted for that time"
    if happening.what is What.STOPPING:
        return "the run was asked to stop", "nothing more was handed out"
    if happening.what is What.FULL:
        return "the trace was full", "of the chunks after that nothing is on record"
    if happening.what is What.ENDED and about.get("status") != "done":
        status, reason = str(about.get("status")), str(about.get("reason") or "")
        return f"the run {status}", "" if reason == status else reason
    return None


def _held(happening: Happening, attempts: NDArray[np.void], *outcomes: AttemptOutcome) -> NDArray[np.void]:
    """What a rank held then, and came to such an end."""
    its_own = (attempts["rank"] == happening.rank) & (attempts["stretch"] == happening.stretch)
    is_sent = ~(attempts["sent_s"] > happening.t)
    is_whole = attempts["n_delivered"] >= attempts["stop"] - attempts["start"]
    is_over = is_whole & (attempts["received_s"] < happening.t)
    return np.asarray(attempts[its_own & is_sent & ~is_over & np.isin(attempts["outcome"], outcomes)])


def _again(start: int, stop: int, after_s: float, attempts: NDArray[np.void]) -> NDArray[np.void]:
    """The attempts at these items that were sent later, the first one first."""
    again = attempts[
        (attempts["start"] < stop) & (attempts["stop"] > start) & (attempts["sent_s"] >= after_s)
    ]
    return again[np.argsort(again["sent_s"])]


def _reissued(
    happening: Happening, held: NDArray[np.void], history: History, attempts: NDArray[np.void]
) -> str:
    """Who got what a rank had held."""
    n_items = int((held["stop"] - held["start"]).sum())
    if not n_items:
        return "it held nothing"
    later = [_again(int(one["start"]), int(one["stop"]), happening.t, attempts) for one in held]
    first = np.concatenate([its[:1] for its in later])
    what = f"what was left of {counted(len(held), 'chunk')} ({counted(n_items, 'item')})"
    if not len(first):
        return f"{what} had yet to be computed again when the record ended"
    whom = name_ranks({int(rank): history.hosts.get(int(rank), "") for rank in first["rank"]}, _MOST_NAMED)
    after_s = float(first["sent_s"].min()) - happening.t
    return f"{what} went to {whom}, the first {time_text(after_s)} later"


def _retried(happening: Happening, history: History, attempts: NDArray[np.void]) -> str:
    start, stop = int(happening.about["start"]), int(happening.about["stop"])
    again = _again(start, stop, happening.t, attempts)
    if not len(again):
        return "it was not tried again"
    return f"tried again on {history.where(int(again['rank'][0]))}"
