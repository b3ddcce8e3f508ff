"""Messages between rank 0 and the others: who answers, how soon, and how fast large results come."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from mpims.doctor.finding import Finding, Verdict
from mpims.doctor.partner import Answer, encode_count
from mpims.doctor.units import size_text, time_text
from mpims.runtime.transport.base import Transport
from mpims.runtime.wire import Kind, decode_object, encode_object

THEME = "messages"
ANSWER_S = 60.0
"""Within this time a rank answers, which may have to import NumPy from a slow file system before."""

_N_TRIPS, _N_WARM, _TRIPS_S = 200, 20, 1.0
_LARGE_BYTES = 16 << 20
_N_LARGE, _LARGE_S = 6, 2.0
_MOST_LINKS = 64
_EXCHANGE_S = 10.0

_SLOW_TRIP_S = {True: 200e-6, False: 500e-6}
_SLOW_BYTES_S = {True: 500e6, False: 100e6}
"""Slower than this is doubtful, on one host (True) and between hosts: below gigabit Ethernet."""


@dataclass(frozen=True, slots=True)
class Link:
    """What was measured between rank 0 and another; `is_local` if both are on one host."""

    host: str
    is_local: bool
    trip_s: float
    bytes_s: float


def gather_answers(transport: Transport, path: str, limit_s: float = ANSWER_S) -> dict[int, Answer]:
    """Ask all other ranks who they are, and what they see of a file; those that answer, by rank.

    Parameters
    ----------
    path
        The file, held by this rank; empty if there is none.
    """
    silent = set(range(transport.size)) - {transport.rank}
    for rank in silent:
        transport.send(rank, Kind.START, b"", encode_object(path))
    answers: dict[int, Answer] = {}
    limit = time.monotonic() + limit_s
    while silent - transport.lost and (left_s := limit - time.monotonic()) > 0:
        message = transport.receive(left_s)
        if message is not None and message.kind is Kind.JOINED:
            answers[message.source] = decode_object(message.buffers)
            silent.discard(message.source)
    return dict(sorted(answers.items()))


def judge_answers(n_ranks: int, answers: Mapping[int, Answer], lost: set[int]) -> list[Finding]:
    """Which ranks did not answer."""
    silent = sorted(set(range(1, n_ranks)) - answers.keys())
    if not silent:
        return []
    shown = ", ".join(f"{rank}{' (dead)' if rank in lost else ''}" for rank in silent[:8])
    value = f"of {n_ranks} ranks, {len(silent)} did not answer: {shown}{' ...' if len(silent) > 8 else ''}"
    cure = "see which nodes these are (mpirun --display map), and start without them"
    return [Finding("ranks", "answers", value, Verdict.BAD, cure, {"silent": silent})]


def measure_links(transport: Transport, answers: Mapping[int, Answer]) -> dict[str, Link | None]:
    """Measure with one rank of each host; by host, None where it fell silent meanwhile."""
    chosen: dict[str, int] = {}
    for rank, answer in answers.items():
        chosen.setdefault(answer.seat.host, rank)
    here = transport.host
    links: dict[str, Link | None] = {}
    for host, rank in list(chosen.items())[:_MOST_LINKS]:
        trip_s = _usual_time(transport, rank, 0, _N_TRIPS, _TRIPS_S, _N_WARM)
        large_s = _usual_time(transport, rank, _LARGE_BYTES, _N_LARGE, _LARGE_S, 1)
        links[host] = None
        if trip_s is not None and large_s is not None:
            links[host] = Link(host, host == here, trip_s, _LARGE_BYTES / max(large_s - trip_s, 1e-9))
    return links


def _usual_time(
    transport: Transport, rank: int, n_bytes: int, n_times: int, limit_s: float, n_warm: int
) -> float | None:
    """The median seconds from a request to its answer of so many bytes; None without an answer."""
    times: list[float] = []
    while len(times) < n_warm + n_times and (len(times) <= n_warm or sum(times) < limit_s):
        began = time.perf_counter()
        transport.send(rank, Kind.PING, encode_count(n_bytes))
        if not _await_pong(transport, rank):
            return None
        times.append(time.perf_counter() - began)
    return median(times[n_warm:])


def _await_pong(transport: Transport, rank: int) -> bool:
    limit = time.monotonic() + _EXCHANGE_S
    while rank not in transport.lost and (left_s := limit - time.monotonic()) > 0:
        message = transport.receive(left_s)
        if message is not None and message.kind is Kind.PONG and message.source == rank:
            return True
    return False


def judge_links(links: Mapping[str, Link | None]) -> list[Finding]:
    """How long messages are under way, on the host of rank 0 and to the slowest of the others."""
    findings = []
    silent = sorted(host for host, link in links.items() if link is None)
    if silent:
        value = f"no answer within {_EXCHANGE_S:g} s from {', '.join(silent[:8])}"
        cure = "see what else runs there, and whether MPI's processes can reach that host (a firewall?)"
        findings.append(Finding(THEME, "answers", value, Verdict.BAD, cure, {"silent": silent}))
    for is_local in (True, False):
        group = [link for link in links.values() if link and link.is_local is is_local]
        if group:
            findings.append(_judge_trip(max(group, key=lambda link: link.trip_s), is_local))
            findings.append(_judge_speed(min(group, key=lambda link: link.bytes_s), is_local))
    return findings


def _judge_trip(link: Link, is_local: bool) -> Finding:
    value = f"{time_text(link.trip_s)} {_where(link)}"
    figures = {"host": link.host, "is_local": is_local, "trip_s": link.trip_s}
    if link.trip_s <= _SLOW_TRIP_S[is_local]:
        return Finding(THEME, "round trip", value, figures=figures)
    if is_local:
        cure = "ranks that wait for a core answer late: see cores above, and what else runs there"
    else:
        cure = "see that MPI takes the fast network (ucx_info -d, fi_info), and that ranks have free cores"
    return Finding(THEME, "round trip", value, Verdict.DOUBTFUL, cure, figures)


def _judge_speed(link: Link, is_local: bool) -> Finding:
    value = f"{size_text(link.bytes_s)}/s {_where(link)}"
    figures = {"host": link.host, "is_local": is_local, "bytes_s": link.bytes_s}
    if link.bytes_s >= _SLOW_BYTES_S[is_local]:
        return Finding(THEME, "bandwidth", value, figures=figures)
    if is_local:
        cure = (
            "large results take long: MPI may not read the memory of other processes (in a container: "
            "--cap-add=SYS_PTRACE; else kernel.yama.ptrace_scope=0); or without shared memory: "
            "OMPI_MCA_btl=^sm"
        )
    else:
        cure = "large results take long: let MPI take a faster network, or reduce them (mpims.Reduce)"
    return Finding(THEME, "bandwidth", value, Verdict.DOUBTFUL, cure, figures)


def _where(link: Link) -> str:
    return f"on {link.host}" if link.is_local else f"between hosts, the slowest {link.host}"
