"""The trace in the JSON that the Perfetto viewer and Chrome's about:tracing read.

A process for each host, a thread for each rank, a slice for each part that was delivered; what went wrong
are instants. Times are microseconds since the run began.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpims.errors import RunFailed
from mpims.pages.findings import Findings
from mpims.pages.history import History
from mpims.pages.outcomes import AttemptOutcome
from mpims.pages.words import items_text
from mpims.storage.trace import What

_INSTANTS = (What.LOST, What.SUSPECT, What.BACK, What.FAILED, What.SKIPPED, What.RECALLED, What.TRIMMED)


def write_perfetto(findings: Findings, path: Path) -> None:
    """Write the file.

    Raises
    ------
    RunFailed
        It cannot be written.
    """
    events = [*_names(findings.history), *_slices(findings), *_instants(findings.history)]
    try:
        with path.open("w", encoding="utf-8") as file:
            json.dump({"displayTimeUnit": "ms", "traceEvents": events}, file, separators=(",", ":"))
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror}") from None


def _pids(history: History) -> dict[int, int]:
    """The number of the process that stands for each rank's host."""
    hosts = sorted({history.hosts.get(rank, "") for rank in _ranks(history)})
    return {rank: 1 + hosts.index(history.hosts.get(rank, "")) for rank in _ranks(history)}


def _ranks(history: History) -> list[int]:
    return sorted({h.rank for h in history.happenings if h.rank >= 0} | set(history.parts["rank"].tolist()))


def _names(history: History) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for rank, pid in _pids(history).items():
        host = history.hosts.get(rank) or "unknown host"
        found.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": host}})
        thread = {"pid": pid, "tid": rank}
        found.append({"ph": "M", "name": "thread_name", **thread, "args": {"name": f"rank {rank}"}})
        found.append({"ph": "M", "name": "thread_sort_index", **thread, "args": {"sort_index": rank}})
    return found


def _slices(findings: Findings) -> list[dict[str, Any]]:
    parts, attempts, pids = findings.history.parts, findings.attempts, _pids(findings.history)
    outcomes = attempts["outcome"][attempts["attempt"].searchsorted(parts["attempt"])]
    names = [outcome.name.lower().replace("_", " ") for outcome in AttemptOutcome]
    started_ns, ended_ns = _spans_ns(parts)
    columns = ("rank", "attempt", "start", "stop", "received_s", "sent_s")
    return [
        {
            "ph": "X",
            "name": items_text(start, stop),
            "cat": names[outcome],
            "pid": pids[rank],
            "tid": rank,
            "ts": from_ns / 1000,
            "dur": (to_ns - from_ns) / 1000,
            "args": {
                "attempt": attempt,
                "outcome": names[outcome],
                "received_s": round(received_s, 6),
                **({"sent_s": round(sent_s, 6)} if sent_s == sent_s else {}),
            },
        }
        for rank, attempt, start, stop, received_s, sent_s, from_ns, to_ns, outcome in zip(
            *(parts[name].tolist() for name in columns),
            *(times.tolist() for times in (started_ns, ended_ns, outcomes)),
            strict=True,
        )
    ]


def _spans_ns(parts: NDArray[np.void]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each part began and ended, in whole nanoseconds; of a rank none begins before another has ended.

    The viewer drops a slice that overlaps the one before it, be it by what was lost in rounding.
    """
    started_ns, ended_ns = (np.rint(1e9 * parts[name]) for name in ("started_s", "ended_s"))
    for rank in np.unique(parts["rank"]):
        own = np.flatnonzero(parts["rank"] == rank)
        own = own[np.argsort(ended_ns[own], kind="stable")]
        reach = np.concatenate((started_ns[own[:1]], ended_ns[own[:-1]]))
        started_ns[own] = np.clip(started_ns[own], reach, ended_ns[own])
    return started_ns, ended_ns


def _instants(history: History) -> list[dict[str, Any]]:
    pids = _pids(history)
    found: list[dict[str, Any]] = []
    for happening in history.happenings:
        instant = {"ph": "i", "name": happening.what.value, "ts": round(happening.t * 1e6, 3)}
        args = {key: value for key, value in happening.about.items() if key not in ("what", "t")}
        if happening.what in _INSTANTS and happening.rank in pids:
            of = {"pid": pids[happening.rank], "tid": happening.rank, "s": "t"}
            found.append({**instant, **of, "args": args})
        elif happening.what not in (What.POLICY, What.JOINED):
            first = next(iter(pids.values()), 1)
            found.append({**instant, "pid": first, "tid": 0, "s": "g", "args": args})
    return found
