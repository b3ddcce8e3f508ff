"""A trace read into tables: one axis of time for all clocks, and what became of every part.

A run is one or more *stretches*: it begins, and each time it is resumed another one does; the time
between them is left out. A master that took over goes on in the stretch of the one before it.

A worker's clock is laid beside the master's by the messages between them: no result was received before it
was computed, and no chunk begun before it was sent. Ranks of one host have one clock. On the master's host
that is the master's own; elsewhere the quickest hand-out is taken to have been picked up within a
millisecond, as the first one of each rank is, or sooner if a result came back sooner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpims.core.ranges import RangeSet
from mpims.errors import UsageError
from mpims.report.wording import name_rank
from mpims.storage.manifest import check_traced
from mpims.storage.rundir import MANIFEST, read_json
from mpims.storage.trace import (
    PART,
    SENT,
    Cause,
    Section,
    Trace,
    TraceEvent,
    What,
    check_records,
    read_trace,
)

PICK_UP_S = 1e-3
"""An idle rank begins a chunk that was sent to it within this."""
ONE_CLOCK_S = 1.0
"""Ranks whose clocks are further apart than this have not the same one, whatever their host is called."""

DELIVERED = np.dtype(
    [*PART.descr, ("sent_s", "<f8"), ("started_s", "<f8"), ("n_fresh", "<i8"), ("stretch", "<i4")]
)
"""A part on the common axis: `sent_s` is its attempt's, NaN where that is not on record; `n_fresh` of its
items had not been delivered before."""
HANDED_OUT = np.dtype([*SENT.descr, ("stretch", "<i4")])
"""An attempt on the common axis."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time without a break, ``[begin_s, end_s]``, in which `n_workers` ranks were to compute."""

    begin_s: float
    end_s: float
    n_workers: int
    is_whole: bool
    """Whether everything was done at its end."""

    @property
    def wall_s(self) -> float:
        """Its length in seconds."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of the trace at `t` seconds of the common axis."""

    t: float
    what: What
    rank: int
    about: Mapping[str, Any]
    stretch: int


@dataclass(slots=True, kw_only=True)
class History:
    """What happened in a run, on one axis of time that begins with it; in seconds.

    Attributes
    ----------
    name, manifest
        The run directory's name, and what the run is.
    stretches
        The times in which it went on.
    parts : ndarray, shape (n_parts,), dtype `DELIVERED`
        In the order of their delivery, none twice.
    sent : ndarray, shape (n_attempts,), dtype `HANDED_OUT`
        In the order in which they were sent.
    happenings
        All events, by time.
    hosts
        Of each rank that is known.
    status
        ``done``, ``stopped``, ``failed``, or ``unfinished``: it goes on, or was killed.
    is_cut
        Whether the trace was cut within a record.
    """

    name: str
    manifest: Mapping[str, Any]
    stretches: list[Stretch]
    parts: NDArray[np.void]
    sent: NDArray[np.void]
    happenings: list[Happening]
    hosts: dict[int, str]
    status: str
    is_cut: bool
    n_items: int = field(init=False)
    block: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_items, self.block = int(self.manifest["n_items"]), int(self.manifest["block"])

    @property
    def wall_s(self) -> float:
        """Seconds that the run went on, all stretches together."""
        return self.stretches[-1].end_s

    @property
    def n_done(self) -> int:
        """Items that were delivered, without those that were skipped in a block that was."""
        items, order = self._skipped(), np.argsort(self.parts["start"], kind="stable")
        reach = np.concatenate(([0], np.maximum.accumulate(self.parts["stop"][order])))
        n_before = np.searchsorted(self.parts["start"][order], items, side="right")
        return int(self.parts["n_fresh"].sum()) - int((reach[n_before] > items).sum())

    @property
    def n_skipped(self) -> int:
        """Items that were given up."""
        return len(self._skipped())

    @property
    def n_blocks(self) -> int:
        """Blocks that the run has; more are computed where one is computed twice."""
        return -(-self.n_items // self.block)

    def _skipped(self) -> NDArray[np.int64]:
        return np.unique(np.array([h.about["item"] for h in self.of(What.SKIPPED)], np.int64))

    def of(self, *kinds: What) -> list[Happening]:
        """The events of these kinds."""
        return [happening for happening in self.happenings if happening.what in kinds]

    def where(self, rank: int) -> str:
        """A rank with its host, for people."""
        return name_rank(rank, self.hosts.get(rank))


def read_history(folder: Path) -> History:
    """Read what the trace of a run says, live or over.

    Parameters
    ----------
    folder
        The run directory.

    Raises
    ------
    UsageError
        It is no run directory of this version, or its trace is missing, empty or damaged.
    """
    manifest = read_json(folder / MANIFEST)
    check_traced(manifest, folder)
    trace = read_trace(folder)
    if not any(len(section.parts) for section in trace.sections):
        raise UsageError(
            f"the trace in {folder} is empty: nothing had been delivered when it was last written, "
            "which is done every second"
        )
    for section in trace.sections:
        for records in (section.parts, section.sent):
            check_records(records, manifest["n_items"], manifest["block"])
    return make_history(folder.resolve().name, manifest, trace)


def make_history(name: str, manifest: Mapping[str, Any], trace: Trace) -> History:
    """Lay all clocks of a trace on one axis.

    Parameters
    ----------
    name, manifest
        The run's.
    trace
        At least one section.
    """
    offsets, stretch_of = _place(trace.sections)
    happenings, parts, sent = [], [], []
    for section, offset, stretch in zip(trace.sections, offsets, stretch_of, strict=True):
        happenings += [_happening(event, offset, stretch) for event in section.events]
        parts.append(_moved(section.parts, DELIVERED, ["received_s"], offset, stretch))
        sent.append(_moved(section.sent, HANDED_OUT, ["sent_s"], offset, stretch))
    happenings.sort(key=lambda happening: happening.t)
    hosts = {h.rank: str(h.about["host"]) for h in happenings if h.rank >= 0 and h.about.get("host")}
    delivered = np.concatenate(parts)
    # What a master that died had not acknowledged is sent again to the next one.
    keys = delivered["attempt"], delivered["start"]
    _, first = np.unique(np.stack(keys, axis=1), axis=0, return_index=True)
    delivered = delivered[np.sort(first)]
    handed_out = np.concatenate(sent)
    delivered["sent_s"] = _sent_s(delivered["attempt"], handed_out)
    _align(delivered, hosts, _master_clocks(trace.sections, offsets, stretch_of))
    _count_fresh(delivered)
    last = trace.sections[-1].events[-1]
    status = str(last.about.get("status")) if last.what is What.ENDED else "unfinished"
    return History(
        name=name,
        manifest=manifest,
        stretches=_stretches(trace.sections, offsets, stretch_of),
        parts=delivered,
        sent=handed_out,
        happenings=happenings,
        hosts=hosts,
        status=status,
        is_cut=trace.n_cut_bytes > 0,
    )


# ------------------------------------------------------------------- one axis of time


def _last_s(section: Section) -> float:
    """The last time on record, of the master's clock."""
    times = [max(event.t for event in section.events)]
    times += [float(section.sent["sent_s"].max())] if len(section.sent) else []
    times += [float(section.parts["received_s"].max())] if len(section.parts) else []
    return max(times)


def _place(sections: list[Section]) -> tuple[list[float], list[int]]:
    """What is to be added to each section's times, and the stretch that it belongs to."""
    offsets: list[float] = []
    stretch_of: list[int] = []
    end_s = 0.0
    for i, section in enumerate(sections):
        began, begin_s = section.began, end_s
        is_takeover = began.about.get("cause") == Cause.TAKEN_OVER.value
        if i and is_takeover:
            before = sections[i - 1].began
            apart_s = float(began.about.get("wall", 0.0)) - float(before.about.get("wall", 0.0))
            begin_s = max(end_s, before.t + offsets[-1] + apart_s)
        offsets.append(begin_s - began.t)
        stretch_of.append(0 if i == 0 else stretch_of[-1] + (not is_takeover))
        end_s = _last_s(section) + offsets[-1]
    return offsets, stretch_of


def _stretches(sections: list[Section], offsets: list[float], stretch_of: list[int]) -> list[Stretch]:
    found = []
    for stretch in range(stretch_of[-1] + 1):
        own = [i for i, its in enumerate(stretch_of) if its == stretch]
        first, last = own[0], own[-1]
        is_whole = any(
            event.what is What.ENDED and event.about.get("status") == "done"
            for event in sections[last].events
        )
        found.append(
            Stretch(
                sections[first].began.t + offsets[first],
                _last_s(sections[last]) + offsets[last],
                int(sections[first].began.about.get("n_workers", 1)),
                is_whole,
            )
        )
    return found


class _MasterClock(NamedTuple):
    """The first master of a stretch, and what was added to its clock."""

    stretch: int
    host: str
    offset: float


def _master_clocks(
    sections: list[Section], offsets: list[float], stretch_of: list[int]
) -> list[_MasterClock]:
    found: dict[int, _MasterClock] = {}
    for section, offset, stretch in zip(sections, offsets, stretch_of, strict=True):
        host = str(section.began.about.get("host", ""))
        found.setdefault(stretch, _MasterClock(stretch, host, offset))
    return list(found.values())


def _happening(event: TraceEvent, offset: float, stretch: int) -> Happening:
    return Happening(event.t + offset, event.what, event.rank, event.about, stretch)


def _moved(
    records: NDArray[np.void], dtype: np.dtype[Any], times: list[str], offset: float, stretch: int
) -> NDArray[np.void]:
    moved = np.zeros(len(records), dtype)
    for name in records.dtype.names or ():
        moved[name] = records[name]
    for name in times:
        moved[name] += offset
    moved["stretch"] = stretch
    return moved


def _align(parts: NDArray[np.void], hosts: Mapping[int, str], masters: Sequence[_MasterClock]) -> None:
    """Put the workers' times on the axis."""
    unknown = ~np.isfinite(parts["ended_s"])
    for master in masters:
        rows = np.flatnonzero((parts["stretch"] == master.stretch) & ~unknown)
        if not len(rows):
            continue
        its = parts[rows]
        ranks, index = np.unique(its["rank"], return_inverse=True)
        most_s, least_s = np.full(len(ranks), np.inf), np.full(len(ranks), -np.inf)
        np.minimum.at(most_s, index, its["received_s"] - its["ended_s"])
        np.fmax.at(least_s, index, its["sent_s"] - (its["ended_s"] - its["busy_s"]))
        names = np.array([hosts.get(int(rank), f"rank {rank}") for rank in ranks])
        ahead_s = np.empty(len(ranks))
        for name in np.unique(names):
            same = np.flatnonzero(names == name)
            near = most_s[same] < most_s[same].min() + ONE_CLOCK_S
            for clock in (same[near], *same[~near]):
                bounds = float(np.max(least_s[clock])), float(np.min(most_s[clock]))
                ahead_s[clock] = _clock_s(*bounds, master.offset if name == master.host else None)
        parts["ended_s"][rows] += ahead_s[index]
    parts["ended_s"][unknown] = parts["received_s"][unknown]
    parts["started_s"] = parts["ended_s"] - parts["busy_s"]


def _clock_s(least_s: float, most_s: float, masters_s: float | None) -> float:
    """What is to be added to a clock, between these bounds; `masters_s` if it is the master's own."""
    if masters_s is not None and least_s - PICK_UP_S <= masters_s <= most_s + 1e-6:
        return masters_s
    return min(most_s, least_s + PICK_UP_S) if least_s > -np.inf else most_s


def _sent_s(attempts: NDArray[np.int64], sent: NDArray[np.void]) -> NDArray[np.float64]:
    """When these attempts were sent."""
    if not len(sent):
        return np.full(len(attempts), np.nan)
    order = np.argsort(sent["attempt"], kind="stable")
    numbers = sent["attempt"][order]
    at = np.minimum(np.searchsorted(numbers, attempts), len(numbers) - 1)
    return np.where(numbers[at] == attempts, sent["sent_s"][order][at], np.nan)


def _count_fresh(parts: NDArray[np.void]) -> None:
    """Count the items of each part that none before it had delivered."""
    parts["n_fresh"] = parts["stop"] - parts["start"]
    order = np.argsort(parts["start"], kind="stable")
    starts, reach = parts["start"][order], np.maximum.accumulate(parts["stop"][order])
    apart = np.ones(len(parts), dtype=bool)
    apart[1:] = starts[1:] >= reach[:-1]
    groups = np.cumsum(apart) - 1
    crowded = np.bincount(groups)[groups] > 1
    done = RangeSet()
    for i in np.sort(order[crowded]):
        start, stop = int(parts["start"][i]), int(parts["stop"][i])
        parts["n_fresh"][i] = sum(b - a for a, b in done.missing(start, stop))
        done.add(start, stop)
