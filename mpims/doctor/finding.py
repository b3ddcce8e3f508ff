"""What the doctor found: one line of its answer, whether it is good, and what cures it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Verdict(str, Enum):
    """What a finding means for a run."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    """A run works, but is slower or survives less than it could."""
    BAD = "bad"
    """A run fails, loses what it computes, or takes many times as long."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    theme, name
        What was looked at: a group of the answer, and the line in it.
    value
        What was found, for people.
    verdict
        Whether that is good.
    cure
        What to do about it; empty where it is good.
    figures
        The same as numbers and words, for programs: durations in seconds (``_s``), sizes in ``_bytes``.

    Raises
    ------
    ValueError
        What is not good has no cure, or what is good has one.
    """

    theme: str
    name: str
    value: str
    verdict: Verdict = Verdict.GOOD
    cure: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.verdict is Verdict.GOOD) == bool(self.cure):
            raise ValueError(f"{self.name} is {self.verdict.value}, its cure {self.cure!r}")

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return {**asdict(self), "verdict": self.verdict.value, "figures": dict(self.figures)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Finding:
        """The finding that `as_dict` gave."""
        return cls(**{**fields, "verdict": Verdict(fields["verdict"])})


_ORDER = list(Verdict)


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict on all of them together.

    Examples
    --------
    >>> worst([Finding("MPI", "library", "Open MPI 5"), Finding("MPI", "x", "y", Verdict.BAD, "z")])
    <Verdict.BAD: 'bad'>
    """
    return max((finding.verdict for finding in findings), key=_ORDER.index, default=Verdict.GOOD)
