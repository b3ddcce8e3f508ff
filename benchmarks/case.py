"""A case: what is run, the figures that come of it, how they are shown, and what is asked of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.tools import LIMIT, MPIMS, Figures


@dataclass(frozen=True)
class Run:
    """One way to measure a tool; every round does it once."""

    tool: str
    measure: Callable[[], Figures]


@dataclass(frozen=True)
class View:
    """Some columns of a case, as one table.

    Attributes
    ----------
    title
        What the figures are, with their unit.
    columns
        The heading of each column, by the name of its figure.
    form
        How a figure is written.
    relative_to
        A tool that stands for 1 in a second table of ratios.
    is_log, is_line
        How it is drawn: on a logarithmic axis; as a line over the columns, which are then numbers.
    along
        What those numbers are, with their unit.
    limit
        A value to be marked in the drawing.
    """

    title: str
    columns: Mapping[str, str]
    form: Callable[[float], str]
    relative_to: str | None = None
    is_log: bool = False
    is_line: bool = False
    along: str = ""
    limit: float | None = None


@dataclass(frozen=True)
class Target:
    """What is asked, what was measured, and whether that is enough; None where it was not measured."""

    asked: str
    measured: str
    met: bool | None


@dataclass
class Table:
    """The figures of a case: by tool and name, one for each round; and why a tool has none."""

    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, tool: str, figures: Figures) -> None:
        """Take in what one run gave."""
        for name, value in figures.items():
            self.figures.setdefault(tool, {}).setdefault(name, []).append(value)

    def values(self, tool: str, name: str) -> list[float]:
        """One figure in all rounds."""
        return self.figures.get(tool, {}).get(name, [])

    def median(self, tool: str, name: str) -> float | None:
        """The median over the rounds; None if there is no such figure."""
        values = self.values(tool, name)
        return statistics.median(values) if values else None

    def ratio(self, tool: str, other: str, name: str) -> float | None:
        """The median of the ratios in the same round, so that a machine that drifts does not show."""
        pairs = list(zip(self.values(tool, name), self.values(other, name), strict=False))
        return statistics.median(a / b for a, b in pairs) if pairs else None


@dataclass(frozen=True)
class Case:
    """One case of the suite.

    Attributes
    ----------
    key, title
        Its letter; what it is.
    how
        What is measured, in some sentences.
    runs
        What a round consists of, in this order.
    views
        How the figures are shown; the first one is drawn.
    targets
        What is asked.
    most_rounds
        Figures that do not vary need no more.
    """

    key: str
    title: str
    how: str
    runs: Sequence[Run]
    views: Sequence[View]
    targets: Callable[[Table], list[Target]]
    most_rounds: int = 100


def at_least(table: Table, name: str, factor: float, other: str, what: str, tool: str = MPIMS) -> Target:
    """Ask that mpims, or one way to use it, has at least so many times the figure of another tool."""
    ratio = table.ratio(tool, other, name)
    asked = f"{what}: at least {factor:g} times {other}"
    return Target(asked, *(("not measured", None) if ratio is None else (f"{ratio:.2f}", ratio >= factor)))


def at_most(value: float | None, limit: float, what: str, form: Callable[[float], str]) -> Target:
    """Ask that a figure of mpims is no larger than a limit."""
    asked = f"{what}: at most {form(limit)}"
    return Target(asked, *(("not measured", None) if value is None else (form(value), value <= limit)))


def peers_behind(table: Table, name: str, what: str) -> Target:
    """Ask that no other tool has a figure as low as that of mpims."""
    own = table.median(MPIMS, name)
    peers = [tool for tool in table.figures if not tool.startswith((MPIMS, LIMIT))]
    others = {tool: table.median(tool, name) for tool in peers}
    ahead = {tool: value for tool, value in others.items() if value and own and value <= own}
    asked = f"{what}: every peer behind"
    if own is None:
        return Target(asked, "not measured", None)
    names = ", ".join(f"{tool} {value:.3f}" for tool, value in ahead.items())
    return Target(asked, f"not {names} (mpims {own:.3f})" if ahead else f"yes (mpims {own:.3f})", not ahead)
