"""Where each core-second went: from all that there were down to those that went into results."""

from __future__ import annotations

from typing import Any

from mpims.pages.accounts import NAMES, Use
from mpims.pages.charts.style import COLOURS, GREEN, HATCHES, unit_for
from mpims.pages.findings import Findings
from mpims.pages.words import time_text

_EFFICIENT = 0.8
"""Where more than this went into results, the axis does not begin at 0, or one would see nothing else."""
_NOTHING = 1e-6
"""Where less was lost, as on the one rank of a simulation, there is nothing to see."""


def height(findings: Findings) -> float:
    """Inches that it needs."""
    return 1.0 + 0.3 * (2 + len(_losses(findings)))


def _losses(findings: Findings) -> list[Use]:
    totals = findings.accounts.totals
    return [use for use in Use if use is not Use.COMPUTE and totals[use] > 0]


def draw(figure: Any, findings: Findings) -> str:
    """Draw it; give its caption."""
    totals = findings.accounts.totals
    total_s, computed_s = float(totals.sum()), float(totals[Use.COMPUTE])
    unit = unit_for(total_s)
    axes = figure.add_subplot()
    rows: list[tuple[str, float, float, dict[str, Any]]]
    rows = [("ranks x wall", total_s, total_s, {"color": GREEN})]
    left_s = total_s
    for use in _losses(findings):
        colour = {"color": COLOURS[use], "hatch": HATCHES.get(use), "edgecolor": "white", "linewidth": 0}
        rows.append((NAMES[use], left_s, float(totals[use]), colour))
        left_s -= float(totals[use])
    rows.append(("compute", computed_s, computed_s, {"color": COLOURS[Use.COMPUTE]}))
    for y, (_, right_s, width_s, colour) in enumerate(rows):
        axes.barh(y, width_s / unit.seconds, left=(right_s - width_s) / unit.seconds, height=0.7, **colour)
        text = f"{time_text(width_s)} ({width_s / total_s:.1%})"
        axes.annotate(text, (right_s / unit.seconds, y), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    lost_s = total_s - computed_s
    begin_s = computed_s - lost_s if _NOTHING * total_s < lost_s < (1 - _EFFICIENT) * total_s else 0.0
    axes.set_xlim(begin_s / unit.seconds, (total_s + 0.3 * (total_s - begin_s)) / unit.seconds)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel(f"core time ({unit.name})")
    axes.tick_params(axis="y", length=0)
    cut = f" The axis begins at {time_text(begin_s)}." if begin_s else ""
    return (
        "The time of all ranks that compute. Start-up: until a rank had joined. Waiting: it had nothing, "
        "and the master had yet to send. Communication: between two kernel calls, with work at hand. Tail: "
        "nothing was left to hand out. Recovery: dead and silent ranks, failures, and what was computed "
        f"again for them.{cut}"
    )
