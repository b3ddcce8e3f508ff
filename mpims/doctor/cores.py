"""Cores: how many each host gives, how many ranks share them, and how many threads each rank starts."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path

from mpims.doctor.finding import Finding, Verdict, worst
from mpims.report.wording import counted
from mpims.runtime.threads import VARIABLES

THEME = "cores"
_MANY = 4.0
"""So many workers or threads on a core make a run many times slower, not just slower."""
_MOST_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a rank sits.

    Attributes
    ----------
    host
        The name of its node.
    n_online
        How many cores the node has, as its system counts them: hardware threads.
    cores
        Those on which this rank may run.
    quota
        How many cores' worth of time its cgroup may use; None if it is not limited.
    n_threads
        How many threads its BLAS or OpenMP starts.
    threads_from
        What says so.
    """

    host: str
    n_online: int
    cores: frozenset[int]
    quota: float | None
    n_threads: int
    threads_from: str


def this_seat() -> Seat:
    """Where this process sits; imports NumPy, whose BLAS is asked for its threads."""
    n_threads, threads_from = find_threads(os.environ, _blas_threads())
    return Seat(
        host=os.uname().nodename,
        n_online=os.cpu_count() or 1,
        cores=frozenset(os.sched_getaffinity(0)),
        quota=find_quota(),
        n_threads=n_threads,
        threads_from=threads_from,
    )


def _blas_threads() -> dict[str, int]:
    """The threads of each BLAS and OpenMP that is loaded with NumPy."""
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return {pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()}


def find_threads(environ: Mapping[str, str], pools: Mapping[str, int]) -> tuple[int, str]:
    """The most threads that some library starts in this process, and what says so.

    A variable may ask for more than NumPy's own BLAS takes: other libraries obey it.

    Parameters
    ----------
    environ
        The environment.
    pools
        The threads of the libraries that are loaded.

    Examples
    --------
    >>> find_threads({"OMP_NUM_THREADS": "64"}, {"openblas": 2})
    (64, 'OMP_NUM_THREADS=64')
    """
    said = [(count, name) for name, count in pools.items()]
    for name in VARIABLES:
        first = environ.get(name, "").split(",")[0].strip()  # of OpenMP's nested levels
        if first.isdecimal():
            said.append((int(first), f"{name}={environ[name]}"))
    return max(said, key=lambda one: one[0], default=(1, "no BLAS found"))


def find_quota(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """How many cores' worth of time the cgroup of this process may use; None if it is not limited.

    The least of its own limit and those of the groups above it, of both versions of cgroups.
    """
    try:
        entries = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None
    limits: list[float] = []
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        groups = [Path(path), *Path(path).parents]
        limits += [
            limit for group in groups if (limit := _limit(base / str(group).lstrip("/"))) is not None
        ]
    return min(limits, default=None)


def _limit(group: Path) -> float | None:
    """The limit of one group, as version 2 or version 1 has it."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # not there, or "max"
        return None


def judge_seats(seats: Sequence[Seat], n_allocated: int = 0) -> list[Finding]:
    """What there is to say of all ranks; of several hosts, cores and threads of the worst.

    Parameters
    ----------
    seats
        Of each rank that answered; first that of rank 0, which computes only if it is alone.
    n_allocated
        How many nodes a batch system gave; 0 where there is none.
    """
    hosts: dict[str, list[Seat]] = defaultdict(list)
    for seat in seats:
        hosts[seat.host].append(seat)
    n_workers = {host: len(group) for host, group in hosts.items()}
    n_workers[seats[0].host] -= len(seats) > 1
    return [
        judge_hosts({host: len(group) for host, group in hosts.items()}, n_allocated),
        _worst([judge_cores(group, n_workers[host]) for host, group in hosts.items()]),
        _worst([judge_threads(group, n_workers[host]) for host, group in hosts.items()]),
    ]


def _worst(findings: Sequence[Finding]) -> Finding:
    return next(finding for finding in findings if finding.verdict is worst(findings))


def judge_hosts(n_ranks: Mapping[str, int], n_allocated: int) -> Finding:
    """Where the ranks are: how many on each host."""
    shown = [f"{host} {count}" for host, count in list(n_ranks.items())[:_MOST_SHOWN]]
    shown += ["..."] if len(n_ranks) > _MOST_SHOWN else []
    total = sum(n_ranks.values())
    value = f"{counted(total, 'rank')} on {counted(len(n_ranks), 'host')}: {', '.join(shown)}"
    figures = {"n_ranks": total, "n_hosts": len(n_ranks)}
    if total > 1 and len(n_ranks) < n_allocated:
        value += f"; {n_allocated} nodes are allocated"
        cure = (
            "start as many ranks as there are tasks, and no --oversubscribe: it fills the first node only"
        )
        return Finding("ranks", "hosts", value, Verdict.DOUBTFUL, cure, figures)
    return Finding("ranks", "hosts", value, figures=figures)


def judge_cores(group: Sequence[Seat], n_workers: int) -> Finding:
    """Whether the workers of one host have a core each; rank 0 sleeps most of the time."""
    seat = group[0]
    n_cores, usable = len(frozenset().union(*(each.cores for each in group))), usable_cores(group)
    value = f"{_cores(usable)} of {seat.n_online} for {counted(n_workers, 'worker')}"
    if usable < n_cores:
        value += f" (a cgroup limits the time on {_cores(n_cores)} to that of {usable:g})"
    figures = {"host": seat.host, "usable": usable, "online": seat.n_online, "n_workers": n_workers}
    if n_workers <= max(usable, 1):
        return Finding(THEME, "cores", value, figures=figures)
    fewer = f"at most {counted(floor(usable) + 1, 'rank')} here (rank 0 needs no core of its own)"
    if n_cores < seat.n_online:
        cure = (
            f"ask the batch system for more cores, or --bind-to none if the launcher bound them; or {fewer}"
        )
    else:
        cure = fewer
    return Finding(THEME, "cores", f"{value} on {seat.host}", _crowded(n_workers / usable), cure, figures)


def judge_threads(group: Sequence[Seat], n_workers: int) -> Finding:
    """Whether the threads of the workers of one host have a core each."""
    seat = max(group, key=lambda each: each.n_threads)
    usable, total = usable_cores(group), seat.n_threads * max(n_workers, 1)
    figures = {"host": seat.host, "n_threads": seat.n_threads, "usable": usable}
    value = f"{seat.n_threads} for each rank ({seat.threads_from})"
    if seat.n_threads == 1 or total <= usable:
        return Finding(THEME, "BLAS threads", value, figures=figures)
    value += f": {total} in {counted(n_workers, 'worker')} on {_cores(usable)} of {seat.host}"
    share = max(1, floor(usable / max(n_workers, 1)))
    cure = f"export OMP_NUM_THREADS={share}, or unset all such variables: mpims then sets 1"
    return Finding(THEME, "BLAS threads", value, _crowded(total / usable), cure, figures)


def usable_cores(group: Sequence[Seat]) -> float:
    """How many cores' worth of time the ranks of one host have together."""
    n_cores = len(frozenset().union(*(seat.cores for seat in group)))
    quotas = [seat.quota for seat in group]
    # Ranks of one job share a cgroup, or each has its own: the largest limit is surely theirs.
    return n_cores if None in quotas else min(n_cores, max(quota for quota in quotas if quota is not None))


def _crowded(per_core: float) -> Verdict:
    return Verdict.BAD if per_core >= _MANY else Verdict.DOUBTFUL


def _cores(count: float) -> str:
    return "1 core" if count == 1 else f"{count:g} cores"
