"""What all charts have in common: colours that everybody can tell apart, and units."""

from __future__ import annotations

from typing import Any, NamedTuple

from mpims.pages.accounts import Use

# Okabe and Ito's palette.
BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
PURPLE, GREEN, GREY, LIGHT = "#CC79A7", "#009E73", "#999999", "#DDDDDD"

COLOURS = {
    Use.COMPUTE: BLUE,
    Use.START: GREY,
    Use.WAIT: ORANGE,
    Use.COMMUNICATION: SKY,
    Use.TAIL: PURPLE,
    Use.RECOVERY: VERMILLION,
    Use.UNDER_WAY: LIGHT,
}
HATCHES = {Use.WAIT: "//", Use.TAIL: "\\\\", Use.RECOVERY: "xx"}
"""For those who see no colours at all, or print without."""
DENSITY = "cividis"


class Unit(NamedTuple):
    """A unit of time: its name, and how many seconds it has."""

    name: str
    seconds: float


def unit_for(seconds: float) -> Unit:
    """The unit in which such a time is a number of a few digits.

    Examples
    --------
    >>> [unit_for(s).name for s in (1e-4, 0.2, 90, 3000, 90000)]
    ['µs', 'ms', 's', 'min', 'h']
    """
    for unit in (Unit("h", 3600.0), Unit("min", 60.0)):
        if seconds >= 5 * unit.seconds:
            return unit
    if seconds >= 1:
        return Unit("s", 1.0)
    return Unit("ms", 1e-3) if seconds >= 1e-3 else Unit("µs", 1e-6)


def label_counts(axis: Any) -> None:
    """Label an axis of how many there are: at whole numbers alone."""
    axis.get_major_locator().set_params(integer=True)
    axis.set_major_formatter("{x:,.0f}")


def legend_below(figure: Any, handles: Any, labels: Any) -> None:
    """Put a legend below all axes, in as many lines as it takes."""
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
