"""Where each core-second went: the time of every rank in every stretch, split without a gap.

::

    begin     joined         sent                                  nothing is left     end
      | start-up |  waiting   | comm. | kernel | comm. | kernel |  comm. | kernel | tail |

Between two parts a rank waits until the master has sent what it computes next; the rest of the gap is
communication: the message itself, packing results, looking for messages. Once the last fresh items have
been handed out, a rank without work is in the tail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mpims.pages.history import Happening, History, Stretch
from mpims.storage.trace import What


class Use(IntEnum):
    """What a core-second went into."""

    COMPUTE = 0
    """The kernel, for results that count."""
    START = 1
    """Until the rank had joined: imports, the job, `setup()`."""
    WAIT = 2
    """Nothing to compute, for the master had yet to send it."""
    COMMUNICATION = 3
    """Between two kernel calls with work at hand, or under way."""
    TAIL = 4
    """At the end, when nothing was left to hand out: idle, or computing what another had first."""
    RECOVERY = 5
    """Ranks that were dead or silent, blocks that failed, and what had to be computed again."""
    UNDER_WAY = 6
    """Computing what had not been delivered when the record ended."""


NAMES = ("compute", "start-up", "waiting", "communication", "tail", "recovery", "under way")


@dataclass(frozen=True, slots=True)
class Accounts:
    """The time of all computing ranks.

    Attributes
    ----------
    ranks : ndarray, shape (n_rows,)
        A row for each rank in each stretch ...
    stretches : ndarray, shape (n_rows,)
        ... which is this one.
    seconds : ndarray, shape (n_rows, n_uses)
        What its time went into, by `Use`.
    tail_s : ndarray, shape (n_stretches,)
        When the last fresh items had been handed out; the end of the stretch if it did not come so far.
    """

    ranks: NDArray[np.int64]
    stretches: NDArray[np.int64]
    seconds: NDArray[np.float64]
    tail_s: NDArray[np.float64]

    @property
    def totals(self) -> NDArray[np.float64]:
        """Core-seconds by `Use`."""
        return np.asarray(self.seconds.sum(axis=0))

    @property
    def shares(self) -> NDArray[np.float64]:
        """The same as shares of all."""
        return np.asarray(self.totals / self.totals.sum())

    def of_ranks(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The ranks, and the seconds of each over all stretches, shape (n_ranks, n_uses)."""
        ranks, index = np.unique(self.ranks, return_inverse=True)
        seconds = np.zeros((len(ranks), len(Use)))
        np.add.at(seconds, index, self.seconds)
        return ranks, seconds


def make_accounts(history: History) -> Accounts:
    """Split the time of all computing ranks."""
    tail_s = np.array([_tail_begins(history, i) for i in range(len(history.stretches))])
    rows = [
        (rank, stretch, _split(history, stretch, own[rank], parts, float(tail_s[stretch]), rank in hired))
        for stretch, own, hired in _happenings_of_ranks(history)
        if history.stretches[stretch].wall_s > 0  # else its master died before it wrote who computes
        for rank, parts in _parts_of_ranks(history, stretch).items()
    ]
    return Accounts(
        np.array([rank for rank, _, _ in rows]),
        np.array([stretch for _, stretch, _ in rows]),
        np.array([seconds for _, _, seconds in rows]),
        tail_s,
    )


def _happenings_of_ranks(
    history: History,
) -> Iterator[tuple[int, defaultdict[int, list[Happening]], set[int]]]:
    """Each stretch with what happened to each rank, and the master that had to compute at last."""
    for stretch in range(len(history.stretches)):
        own: defaultdict[int, list[Happening]] = defaultdict(list)
        hired: set[int] = set()
        for happening in history.happenings:
            if happening.stretch == stretch:
                own[happening.rank].append(happening)
                if happening.what is What.HIRED:
                    hired = {own_rank for own_rank, its in own.items() if its[0].what is What.BEGAN}
        yield stretch, own, hired


def _tail_begins(history: History, stretch: int) -> float:
    """When the last chunk was sent of items that lie behind all that was sent before."""
    its = history.stretches[stretch]
    sent = history.sent[history.sent["stretch"] == stretch]
    if not (its.is_whole and len(sent)):
        return its.end_s
    reach = np.maximum.accumulate(sent["stop"])
    fresh = sent["stop"] > np.concatenate(([-1], reach[:-1]))
    return float(sent["sent_s"][fresh][-1])


def _parts_of_ranks(history: History, stretch: int) -> dict[int, NDArray[np.void]]:
    """The parts of each rank that was to compute, in the order in which they ended."""
    n_workers = history.stretches[stretch].n_workers
    parts = history.parts[history.parts["stretch"] == stretch]
    parts = parts[np.lexsort((parts["ended_s"], parts["rank"]))]
    ranks, first = np.unique(parts["rank"], return_index=True)
    found = dict(zip(ranks.tolist(), np.split(parts, first[1:]), strict=True)) if len(parts) else {}
    own = [h for h in history.happenings if h.stretch == stretch]
    masters = [h.rank for h in own if h.what is What.BEGAN]
    for happening in own:
        if happening.what is What.JOINED:
            found.setdefault(happening.rank, parts[:0])
    unheard = (rank for rank in range(n_workers + 1) if rank not in found and rank not in masters)
    for rank in unheard:
        if len(found) < n_workers:
            found[rank] = parts[:0]
    return dict(sorted(found.items()))


def _split(
    history: History,
    stretch: int,
    own: list[Happening],
    parts: NDArray[np.void],
    tail_s: float,
    is_hired: bool,
) -> NDArray[np.float64]:
    """The seconds of one rank in one stretch, shape (n_uses,).

    They add up to its length; of a master that was hired at last, to the time from then on.
    """
    its = history.stretches[stretch]
    seconds = np.zeros(len(Use))
    joined_s = _joined_s(own, parts, its)
    if not is_hired:
        seconds[Use.START] = joined_s - its.begin_s
    ended_s = np.clip(np.maximum.accumulate(parts["ended_s"]), joined_s, its.end_s)
    before_s = np.concatenate(([joined_s], ended_s[:-1]))[: len(parts)]
    started_s = np.clip(parts["started_s"], before_s, ended_s)
    _add_computed(seconds, parts, ended_s - started_s, own, ended_s > tail_s)
    ready_s = np.clip(np.nan_to_num(parts["sent_s"], nan=-np.inf), before_s, started_s)
    _add_idle(seconds, before_s, ready_s, tail_s)
    is_mended = _has_event(own, (What.FAILED, What.SUSPECT, What.BACK), before_s, ended_s)
    is_dropped = _has_event(own, (What.RECALLED,), before_s, ended_s) & (started_s > tail_s)
    gaps_s = started_s - ready_s
    seconds[Use.RECOVERY] += gaps_s[is_mended].sum()
    seconds[Use.TAIL] += gaps_s[is_dropped & ~is_mended].sum()
    seconds[Use.COMMUNICATION] += gaps_s[~is_dropped & ~is_mended].sum()
    last_s = float(ended_s[-1]) if len(parts) else joined_s
    _add_end(seconds, history, stretch, own, last_s, tail_s)
    return seconds


def _joined_s(own: list[Happening], parts: NDArray[np.void], its: Stretch) -> float:
    """When a rank was there: it has joined, or died, or else had begun to compute."""
    times = [h.t for h in own if h.what in (What.JOINED, What.LOST)]
    times += [float(parts["started_s"].min())] if len(parts) else []
    return float(np.clip(min(times, default=its.end_s), its.begin_s, its.end_s))


def _add_computed(
    seconds: NDArray[np.float64],
    parts: NDArray[np.void],
    computed_s: NDArray[np.float64],
    own: list[Happening],
    in_tail: NDArray[np.bool_],
) -> None:
    """What was computed first counts; the rest was computed again, because of a fault or at the end."""
    fresh = parts["n_fresh"] / np.maximum(parts["stop"] - parts["start"], 1)
    again_s = computed_s * (1 - fresh)
    is_twin = in_tail & (not any(h.what is What.SUSPECT for h in own))
    seconds[Use.COMPUTE] += (computed_s * fresh).sum()
    seconds[Use.TAIL] += again_s[is_twin].sum()
    seconds[Use.RECOVERY] += again_s[~is_twin].sum()


def _add_idle(
    seconds: NDArray[np.float64], begin_s: NDArray[np.float64], end_s: NDArray[np.float64], tail_s: float
) -> None:
    """A rank had nothing to do in these intervals."""
    in_tail_s = np.clip(end_s, tail_s, None) - np.clip(begin_s, tail_s, None)
    seconds[Use.TAIL] += in_tail_s.sum()
    seconds[Use.WAIT] += (end_s - begin_s - in_tail_s).sum()


def _has_event(
    own: list[Happening],
    kinds: tuple[What, ...],
    after_s: NDArray[np.float64],
    until_s: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """In which intervals something of that kind happened."""
    times = np.sort([h.t for h in own if h.what in kinds])
    found: NDArray[np.bool_] = np.searchsorted(times, until_s) > np.searchsorted(times, after_s)
    return found


def _add_end(
    seconds: NDArray[np.float64],
    history: History,
    stretch: int,
    own: list[Happening],
    last_s: float,
    tail_s: float,
) -> None:
    """From the last that a rank delivered to the end."""
    its = history.stretches[stretch]
    gone = [h for h in own if h.what is What.LOST or (h.what is What.BEGAN and h.t > its.begin_s)]
    silent = [h for h in own if h.what in (What.SUSPECT, What.BACK)]
    if gone or (silent and silent[-1].what is What.SUSPECT):
        seconds[Use.RECOVERY] += its.end_s - last_s
    elif its.is_whole:
        _add_idle(seconds, np.array([last_s]), np.array([its.end_s]), tail_s)
    elif stretch == len(history.stretches) - 1 and history.status == "unfinished":
        seconds[Use.UNDER_WAY] += its.end_s - last_s
    else:  # stopped or killed: what was not delivered is computed again
        seconds[Use.RECOVERY] += its.end_s - last_s
