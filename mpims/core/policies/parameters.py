"""What a user may set of a technique, in the units that users think in, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "int | float | tuple[float, ...]"


@dataclass(slots=True, kw_only=True)
class Parameter:
    """A number that a technique takes.

    Attributes
    ----------
    name, meaning, unit
        For the user. The unit is of one item or of one hand-out.
    example
        A value as a user may write it.
    default
        Its value if none is given; None if one must be.
    least, most
        The range, both ends included.
    power
        The value for a block of B items is that for an item times ``B**power``: 1 for a mean, 0.5
        for a standard deviation (the items' times taken as independent).
    is_measured
        Whether an earlier run can tell.
    """

    name: str
    meaning: str
    unit: str = ""
    example: str
    default: float | None = None
    least: float = 0.0
    most: float = 1e9
    power: float = 0.0
    is_measured: bool = False

    @property
    def range(self) -> str:
        """What a value must be, in words."""
        return f"from {self.least:g} to {self.most:g}"

    def read(self, text: str) -> Value:
        """The value that a user wrote; ValueError if it is none or out of range."""
        return self._in_range(text)

    def for_block(self, value: Value, block: int) -> Value:
        """The value for blocks of so many items."""
        return value * block**self.power if isinstance(value, float) else value

    def example_for(self, n_workers: int) -> str:
        """A value that would do for so many workers."""
        return self.example

    def _in_range(self, text: str) -> float:
        value = float(text)
        if not self.least <= value <= self.most:
            raise ValueError
        return value


class Size(Parameter):
    """A number of items: whole blocks are handed out, so it is rounded up to them."""

    __slots__ = ()

    @property
    def range(self) -> str:
        """What a value must be, in words."""
        return "a whole number above 0"

    def read(self, text: str) -> Value:
        """The value that a user wrote; ValueError if it is none or out of range."""
        if not (text.isdecimal() and int(text) > 0):
            raise ValueError
        return int(text)

    def for_block(self, value: Value, block: int) -> Value:
        """The value in blocks of so many items."""
        return -(-value // block) if isinstance(value, int) else value


class Weights(Parameter):
    """A number for each worker, by rank, with slashes between them."""

    __slots__ = ()

    @property
    def range(self) -> str:
        """What a value must be, in words."""
        return f"one number for each worker, from {self.least:g} to {self.most:g}"

    def read(self, text: str) -> Value:
        """The value that a user wrote; ValueError if it is none or out of range."""
        return tuple(self._in_range(part) for part in text.split("/"))

    def example_for(self, n_workers: int) -> str:
        """A value that would do for so many workers: the last is half as fast as the others."""
        return "/".join(["1"] * (n_workers - 1) + ["0.5"])


MEAN = Parameter(
    name="mu",
    meaning="mean time of one item",
    unit="s",
    example="1e-3",
    least=1e-12,
    power=1.0,
    is_measured=True,
)
DEVIATION = Parameter(
    name="sigma",
    meaning="standard deviation of one item's time",
    unit="s",
    example="5e-4",
    power=0.5,
    is_measured=True,
)
OVERHEAD = Parameter(
    name="h",
    meaning="overhead of one hand-out",
    unit="s",
    example="5e-5",
    least=1e-12,
    is_measured=True,
)
