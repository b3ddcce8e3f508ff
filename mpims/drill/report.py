"""What became of a drill: for people in lines, for programs as a dictionary. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mpims.drill.plan import Fault, FaultKind
from mpims.report.summary import Summary
from mpims.report.wording import counted, duration, name_rank

_DID = {
    FaultKind.KILL: "killed",
    FaultKind.HANG: "stopped",
    FaultKind.SLOW: "slowed down",
    FaultKind.CRASH: "all ranks killed",
}


@dataclass(frozen=True, slots=True)
class Injection:
    """A fault of the plan, and what came of it.

    Attributes
    ----------
    fault
        The fault.
    at_s
        When it was injected, in seconds since the run was started; None if it was not.
    share
        How much was done by then.
    missed
        Why it was not injected.
    host
        Where the rank was.
    """

    fault: Fault
    at_s: float | None = None
    share: float = 0.0
    missed: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: its exit status, what it took from outside, and its summary if it left one."""

    status: int
    wall_s: float
    summary: Summary = field(default_factory=Summary)
    error: str = ""


@dataclass(frozen=True, slots=True)
class DrillOutcome:
    """A run undisturbed and disturbed."""

    job: str
    n_ranks: int
    undisturbed: Ending
    disturbed: Ending
    injections: Sequence[Injection]

    @property
    def n_missing(self) -> int:
        """How many items the disturbed run has no result of."""
        summary = self.disturbed.summary
        n_items = self.undisturbed.summary["n_items"]
        return n_items - summary.get("n_done", 0) if summary.get("status") == "done" else n_items

    @property
    def same_bits(self) -> bool:
        """Whether both runs gave the same result."""
        found = self.disturbed.summary.get("result_digest")
        return found is not None and found == self.undisturbed.summary["result_digest"]

    @property
    def damage(self) -> str:
        """What the faults did to the result; nothing if it is what it should be."""
        if self.disturbed.error:
            return self.disturbed.error
        if self.n_missing:
            return f"{counted(self.n_missing, 'item')} {'was' if self.n_missing == 1 else 'were'} lost"
        return "" if self.same_bits else "the result has other bits"

    @property
    def trouble(self) -> str:
        """Why it does not count as survived; nothing if it does."""
        if self.damage:
            return self.damage
        n_missed = sum(injection.at_s is None for injection in self.injections)
        if n_missed:
            return f"{n_missed} of {len(self.injections)} faults could not be injected: nothing is shown"
        return ""


def outcome_lines(outcome: DrillOutcome) -> list[str]:
    """What a person is told, in lines of at most some 60 characters."""
    before, after = outcome.undisturbed, outcome.disturbed
    lost_s = after.wall_s - before.wall_s
    counts = after.summary
    twice, dead = counts.get("n_duplicates", 0), counts.get("n_lost", 0)
    masters, resumed = counts.get("n_masters", 0), counts.get("n_resumed", 0)
    n_items = before.summary["n_items"]
    bits = "the same" if outcome.same_bits else "NOT the same"
    if counts.get("result_digest") is None:
        bits = "none: it left no result"
    lines = [
        f"undisturbed  {duration(before.wall_s)} on {outcome.n_ranks} ranks",
        *map(injection_line, sorted(outcome.injections, key=lambda i: i.at_s or math.inf)),
        f"disturbed    {duration(after.wall_s)}: {duration(max(0.0, lost_s))} lost",
        f"items        {n_items - outcome.n_missing:,} of {n_items:,}, {twice:,} computed twice",
        f"lost         {counted(dead, 'worker')}, {counted(masters, 'master')}; "
        f"resumed {counted(resumed, 'time')}",
        f"bits         {bits}",
    ]
    return [*lines, f"NOT survived: {outcome.trouble}" if outcome.trouble else "survived"]


def injection_line(injection: Injection) -> str:
    """What was done, and when.

    Examples
    --------
    >>> from mpims.drill.plan import parse_kill
    >>> injection_line(Injection(parse_kill("2@40%"), 1.234, 0.425, host="node02"))
    '  1.23 s       42% done  rank 2 (node02) killed'
    """
    fault = injection.fault
    if injection.at_s is None:
        return f"  {fault.option}: {injection.missed}"
    what = _DID[fault.kind]
    text = what if fault.kind is FaultKind.CRASH else f"{name_rank(fault.rank, injection.host)} {what}"
    if fault.kind is FaultKind.SLOW:
        text += f" {fault.factor:g} times"
    if fault.hang_s is not None:
        text += f" for {fault.hang_s:g} s"
    return f"  {injection.at_s:.2f} s".ljust(13) + f"{int(100 * injection.share):4}% done  {text}"


def outcome_dict(outcome: DrillOutcome) -> dict[str, Any]:
    """The same for programs."""
    counts: dict[str, Any] = dict(outcome.disturbed.summary)
    names = ("n_duplicates", "n_lost", "n_masters", "n_resumed", "n_reissued", "n_timeouts")
    return {
        "survived": not outcome.trouble,
        "trouble": outcome.trouble,
        "same_bits": outcome.same_bits,
        "n_items": outcome.undisturbed.summary["n_items"],
        "n_items_lost": outcome.n_missing,
        "time_lost_s": outcome.disturbed.wall_s - outcome.undisturbed.wall_s,
        "job": outcome.job,
        "n_ranks": outcome.n_ranks,
        "options": " ".join(injection.fault.option for injection in outcome.injections),
        "faults": [
            {
                "option": injection.fault.option,
                "host": injection.host,
                "at_s": injection.at_s,
                "share_done": injection.share,
                "missed": injection.missed,
            }
            for injection in outcome.injections
        ],
        **{name: counts.get(name, 0) for name in names},
        "undisturbed": _ending_dict(outcome.undisturbed),
        "disturbed": _ending_dict(outcome.disturbed),
    }


def _ending_dict(ending: Ending) -> dict[str, Any]:
    return {
        "status": ending.status,
        "wall_s": ending.wall_s,
        "result_digest": ending.summary.get("result_digest"),
        "error": ending.error,
    }
