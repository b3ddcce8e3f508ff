"""The status of a run while it goes on: what the master sees, as a file, as one line, as a few lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from mpims.core.scheduler import Scheduler
from mpims.errors import UsageError
from mpims.report.wording import counted, duration, fitted, shorten
from mpims.storage.rundir import Damaged, check_kinds, read_json

FORMAT = 1
"""Version of ``status.json``."""


class Sight(NamedTuple):
    """What the master sees of its run at one moment.

    Attributes
    ----------
    n_done
        Items that are done or given up.
    n_workers, n_busy
        Ranks that were to compute, and those that do.
    hosts
        Of all ranks that have joined, the dead ones too.
    suspects, lost
        Ranks that are silent past their deadline; ranks known to be dead.
    figures
        The figures of this master and all before it, see `mpims.record`.
    """

    n_items: int
    n_done: int
    n_workers: int
    n_joined: int
    n_busy: int
    hosts: Mapping[int, str]
    suspects: Collection[int]
    lost: Collection[int]
    figures: Mapping[str, Any]


def take_sight(
    scheduler: Scheduler,
    *,
    n_workers: int,
    hosts: Mapping[int, str],
    lost: Collection[int],
    figures: Mapping[str, Any],
) -> Sight:
    """Look at the scheduler's state."""
    workers = scheduler.workers.values()
    return Sight(
        n_items=scheduler.ledger.n_items,
        n_done=scheduler.ledger.done.size,
        n_workers=n_workers,
        n_joined=len(workers),
        n_busy=sum(1 for worker in workers if worker.queue and not worker.suspect),
        hosts=hosts,
        suspects=scheduler.suspects,
        lost=set(lost),
        figures=figures,
    )


@dataclass(slots=True, kw_only=True)
class Status:
    """The contents of ``status.json``.

    Attributes
    ----------
    job
        The job as text.
    n_items, n_done, n_skipped
        Items; those that are done or given up; those given up.
    work
        The share of the expected work that is done, see `mpims.report.pace`; None if not known yet.
    rate
        Items per second of late.
    elapsed_s, left_s, walltime_left_s
        Since this master began; until the end, if it goes on like this; until the allocation ends.
    n_ranks, n_workers, n_joined, n_busy
        Ranks that were started; those of them that were to compute; that have joined and live; that
        have work.
    suspects, lost
        The hosts of ranks that are silent past their deadline, and of dead ones, by their numbers.
    n_chunks, n_reissued, n_failures, n_timeouts
        As in ``summary.json``.
    last, last_at
        What happened last, and when (Unix time).
    process
        The master's, see `mpims.processes.Process`.
    written_at
        Unix time of the master's clock.
    """

    format: int = FORMAT
    job: str
    n_items: int
    n_done: int
    n_skipped: int
    work: float | None
    rate: float | None
    elapsed_s: float
    left_s: float | None
    walltime_left_s: float | None
    n_ranks: int
    n_workers: int
    n_joined: int
    n_busy: int
    suspects: dict[str, str]
    lost: dict[str, str]
    n_chunks: int
    n_reissued: int
    n_failures: int
    n_timeouts: int
    last: str
    last_at: float | None
    process: dict[str, Any]
    written_at: float


def write_status(path: Path, status: Status) -> None:
    """Write the file, whole or not at all; it need not outlive a crash of the machine.

    Raises
    ------
    OSError
        The file system does not take it.
    """
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(asdict(status), indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)


def read_status(path: Path) -> Status | None:
    """Read what `write_status` wrote; None if there is nothing yet.

    Raises
    ------
    UsageError
        It cannot be read, is damaged, or of another version of mpims.
    """
    if not path.exists():
        return None
    try:
        value = read_json(path)
        kinds = get_type_hints(Status)
        check_kinds(path, value, {}, ["format"])
        if value["format"] != FORMAT:
            raise UsageError(
                f"{path} has format {value['format']!r}, known here is {FORMAT}: use that mpims"
            )
        check_kinds(path, value, kinds, kinds)
        for rank in [*value["suspects"], *value["lost"]]:
            if not rank.isdecimal():
                raise Damaged(f"{path} is damaged: {rank!r} is no rank")
        return Status(**{name: value[name] for name in kinds})
    except Damaged as error:
        raise UsageError(f"{error.message}; a run that lives writes it anew, else remove it") from None


# ------------------------------------------------------------------------------- text


def log_line(status: Status) -> str:
    """The status in one line of fixed ``key=value`` fields; a dash is what is not known."""
    work = "-" if status.work is None else f"{status.work:.1%}"
    rate = "-" if status.rate is None else f"{status.rate:.4g}/s"
    pairs = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(status.written_at)),
        "done": f"{_floor_percent(status.n_done / status.n_items)}",
        "items": f"{status.n_done}/{status.n_items}",
        "work": work,
        "rate": rate,
        "gone": _clock(status.elapsed_s),
        "left": _clock(status.left_s),
        "walltime": _clock(status.walltime_left_s),
        "busy": f"{status.n_busy}/{status.n_workers}",
        "suspect": len(status.suspects),
        "lost": len(status.lost),
        "reissued": status.n_reissued,
        "failures": status.n_failures,
        "skipped": status.n_skipped,
        "last": '"' + shorten(status.last).replace('"', "'") + '"' if status.last else "-",
    }
    return " ".join(f"{key}={value}" for key, value in pairs.items())


def status_lines(status: Status, width: int) -> list[str]:
    """The status in lines of that width for people, the most important first in each."""
    rows = [_items_fields(status), _time_fields(status), _rank_fields(status)]
    lines = [shorten(status.job, width), *(fitted(fields, width) for fields in rows)]
    if status.last and status.last_at is not None:
        at = time.strftime("%H:%M:%S", time.localtime(status.last_at))
        lines.append(shorten(f"{at} {status.last}", width))
    return lines


def items_text(status: Status) -> str:
    """How far the run is, in one phrase."""
    return ", ".join(_items_fields(status))


def time_text(status: Status) -> str:
    """How long it took and will take, in one phrase."""
    return ", ".join(_time_fields(status))


def ranks_text(status: Status) -> str:
    """What the ranks do, and what went wrong, in one phrase."""
    return ", ".join(_rank_fields(status))


def _items_fields(status: Status) -> list[str]:
    fields = [f"{status.n_done:,}/{status.n_items:,} items"]
    if status.work is not None:
        fields.append(f"{_floor_percent(status.work)} of the work")
    if status.rate is not None:
        fields.append(rate_text(status.rate))
    return fields


def rate_text(rate: float) -> str:
    """So many items a second, or an hour where they take long.

    Examples
    --------
    >>> [rate_text(rate) for rate in (18612.3, 98.123, 0.0123, 1e-4)]
    ['18,612 items/s', '98.12 items/s', '0.0123 items/s', '0.36 items/h']
    """
    if rate < 1e-3:
        return f"{3600 * rate:.3g} items/h"
    return f"{rate:,.0f} items/s" if rate >= 1000 else f"{rate:.4g} items/s"


def _time_fields(status: Status) -> list[str]:
    fields = [] if status.left_s is None else [f"about {duration(status.left_s)} left"]
    if status.walltime_left_s is not None:
        fields.append(f"walltime {duration(max(0.0, status.walltime_left_s))} left")
    return [*fields, f"{duration(status.elapsed_s)} gone"]


def _rank_fields(status: Status) -> list[str]:
    fields = [f"{status.n_busy:,} of {counted(status.n_workers, 'worker')} busy"]
    n_absent = status.n_workers - status.n_joined - len(status.lost)
    for number, text in (
        (len(status.lost), f"{len(status.lost):,} lost"),
        (len(status.suspects), f"{len(status.suspects):,} suspect"),
        (max(0, n_absent), f"{n_absent:,} yet to join"),
        (status.n_skipped, f"{counted(status.n_skipped, 'item')} failed"),
        (status.n_reissued, f"{status.n_reissued:,} reissued"),
        (status.n_failures, counted(status.n_failures, "failure")),
    ):
        if number:
            fields.append(text)
    return fields


def is_short_of_time(status: Status) -> bool:
    """Whether the allocation will end before the run."""
    left_s, walltime_left_s = status.left_s, status.walltime_left_s
    return left_s is not None and walltime_left_s is not None and left_s > walltime_left_s


def _floor_percent(share: float) -> str:
    """Never 100 % before the end."""
    return f"{int(1000 * share) / 10:.1f}%"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, s = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{s:02}"
