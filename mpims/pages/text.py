"""The report as text: on a terminal, and where nothing can be drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

from mpims.core.ledger import ATTEMPTS_PER_MASTER
from mpims.pages.accounts import NAMES, Use
from mpims.pages.findings import Findings
from mpims.pages.history import History
from mpims.pages.incidents import MOST_INCIDENTS, Incident
from mpims.pages.slowest import paces, slowest
from mpims.pages.words import core_time_text, items_text, time_text

_FEW = 10
"""On a terminal this many lines of a long table are enough."""


def report_lines(findings: Findings, width: int = 80) -> list[str]:
    """The report in lines of at most `width` characters, where words allow it."""
    lines = []
    for name, value in facts(findings):
        lines += textwrap.wrap(
            f"{name + ':':<11} {value}", width, subsequent_indent=" " * 12, break_on_hyphens=False
        )
    lines.append("")
    for sentence in findings.sentences:
        lines += textwrap.wrap(sentence, width, break_on_hyphens=False)
    lines += ["", "where each core-second went", *_table(uses(findings), width)]
    if len(set(findings.history.hosts.values())) > 1:
        lines += ["", "load", *_table(loads(findings)[: _FEW + 1], width)]
    lines += ["", "the longest blocks", *_table(slow_parts(findings.history, _FEW), width)]
    lines += ["", *_incident_lines(findings, width)]
    return lines


def facts(findings: Findings) -> list[tuple[str, str]]:
    """What the run was, and how it ended: names with values."""
    history = findings.history
    n_ranks = max(stretch.n_workers for stretch in history.stretches)
    ranks = "1 rank computes" if n_ranks == 1 else f"{n_ranks:,} ranks compute"
    hosts = sorted({host for host in history.hosts.values() if host})
    on = f" on {hosts[0]}" if len(hosts) == 1 else f" on {len(hosts)} hosts" if hosts else ""
    delivered = f"{history.n_done:,} of {history.n_items:,} delivered"
    skipped = f", {history.n_skipped:,} skipped" if history.n_skipped else ""
    blocks = f"{',' if skipped else ''} in blocks of {history.block:,}" if history.block > 1 else ""
    n_again = len(history.stretches) - 1
    resumed = f", resumed {'once' if n_again == 1 else f'{n_again} times'}" if n_again else ""
    shares = findings.accounts.shares
    told = [
        ("run", f"{history.name}: {history.manifest.get('job', 'unknown job')}"),
        ("items", f"{delivered}{skipped}{blocks}; {_status(history)}"),
        ("ranks", f"{ranks}{on}"),
        ("time", f"{time_text(history.wall_s)}{resumed}"),
        ("policy", f"{findings.policy}{': ' if findings.policy_reason else ''}{findings.policy_reason}"),
        (
            "computing",  # the summary's efficiency has in it what was computed twice
            f"{shares[Use.COMPUTE]:.1%}, for results that count; "
            f"the master was busy for {findings.master_load:.1%}",
        ),
    ]
    if history.is_cut:
        told.append(("note", "the trace ends within a record: its master was killed, or writes it now"))
    return told


def _status(history: History) -> str:
    status = "it goes on, or was killed" if history.status == "unfinished" else history.status
    return f"{status} (simulated)" if history.manifest.get("simulated") else status


def uses(findings: Findings) -> list[tuple[str, ...]]:
    """Where each core-second went: a head and rows."""
    totals, shares = findings.accounts.totals, findings.accounts.shares
    rows = [("", "core time", "share")]
    rows += [
        (NAMES[use], core_time_text(float(totals[use])), f"{shares[use]:.2%}")
        for use in Use
        if totals[use] > 0
    ]
    return [*rows, ("ranks x wall", core_time_text(float(totals.sum())), f"{shares.sum():.2%}")]


def loads(findings: Findings) -> list[tuple[str, ...]]:
    """The load of each host: a head and rows, the least busy first."""
    ranks, seconds = findings.accounts.of_ranks()
    pace = paces(findings.history)
    hosts: dict[str, list[int]] = {}
    for i, rank in enumerate(ranks.tolist()):
        hosts.setdefault(findings.history.hosts.get(rank) or "unknown", []).append(i)
    rows = []
    for host, its in hosts.items():
        own = seconds[its].sum(axis=0)
        known = [pace[int(ranks[i])] for i in its if int(ranks[i]) in pace]
        slowness = f"{np.median(known):.2f}" if known else "-"
        rows.append((float(own[Use.COMPUTE] / own.sum()), host, str(len(its)), slowness))
    head = ("host", "ranks", "computed", "time per item / median")
    return [head, *((host, n, f"{share:.1%}", slow) for share, host, n, slow in sorted(rows))]


def slow_parts(history: History, n: int) -> list[tuple[str, ...]]:
    """The longest blocks: a head and rows, the longest first."""
    rows: list[tuple[str, ...]] = [("block of", "longest", "rank", "attempt")]
    for part in slowest(history, n):
        items = items_text(int(part["start"]), int(part["stop"]))
        where = history.where(int(part["rank"]))
        attempt = int(part["attempt"]) % ATTEMPTS_PER_MASTER  # as in what is said of one that failed
        rows.append((items, time_text(float(part["longest_s"])), where, str(attempt)))
    return rows


def _incident_lines(findings: Findings, width: int) -> list[str]:
    lines = ["nothing went wrong"]
    if findings.incidents:
        lines = ["what went wrong, and what was done about it", *_told(findings.incidents, width)]
    return [*lines, "", "stopped by request", *_told(findings.stops, width)] if findings.stops else lines


def _told(incidents: Sequence[Incident], width: int) -> list[str]:
    lines = []
    for incident in incidents[:_FEW]:
        text = f"{time_text(incident.t):>9}  {incident.what}; {incident.remedy}".rstrip("; ")
        lines += textwrap.wrap(text, width, subsequent_indent=" " * 11, break_on_hyphens=False)
    if len(incidents) > _FEW:
        lines.append(f"... and {len(incidents) - _FEW:,} more")
    return lines


def incident_rows(incidents: Sequence[Incident]) -> list[tuple[str, ...]]:
    """What happened: a head and rows."""
    shown = incidents[:MOST_INCIDENTS]
    rows: list[tuple[str, ...]] = [("after", "what happened", "what was done about it")]
    rows += [
        (time_text(incident.t).replace(" ", "\N{NO-BREAK SPACE}"), incident.what, incident.remedy)
        for incident in shown
    ]
    n_more = len(incidents) - len(shown)
    return [*rows, ("", f"... and {n_more:,} more", "")] if n_more else rows


def _table(rows: Sequence[Sequence[str]], width: int) -> Iterable[str]:
    """Columns as wide as they must be, all but the first to the right; the last ones only if they fit."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    while len(widths) > 1 and sum(widths) + 2 * len(widths) > width:
        del widths[-1]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(n) for cell, n in zip(row[1 : len(widths)], widths[1:], strict=True)]
        yield "  " + "  ".join(cells).rstrip()
