"""The self-scheduling techniques: how many blocks the next chunk has.

A policy is asked once for every chunk and sees nothing but counts, the rank that asks, and, if it
learns, what the chunks before took. Its unit is the block; where the block is one item the sizes are the
published ones. `Sizer` limits them. ``docs/policies.md`` has them all on one page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mpims.core.policies.adaptive import (
    AdaptiveFactoring,
    AdaptiveWeightedFactoringB,
    AdaptiveWeightedFactoringC,
    AdaptiveWeightedFactoringD,
    AdaptiveWeightedFactoringE,
)
from mpims.core.policies.auto import Auto
from mpims.core.policies.base import Policy, Sample
from mpims.core.policies.bold import Bold
from mpims.core.policies.decreasing import (
    FixedIncrease,
    GuidedSelfScheduling,
    PerformanceLoopScheduling,
    Taper,
    TrapezoidFactoring,
    TrapezoidSelfScheduling,
    VariableIncrease,
)
from mpims.core.policies.factoring import Factoring, Factoring2, WeightedFactoring
from mpims.core.policies.fixed import (
    ChunkSelfScheduling,
    FixedSizeChunking,
    ModifiedFixedSizeChunking,
    SelfScheduling,
    Static,
)
from mpims.core.policies.parameters import Parameter, Value
from mpims.core.policies.sizer import Sizer, chunk_sizes

__all__ = [
    "POLICIES",
    "Policy",
    "PolicySpec",
    "Sample",
    "Sizer",
    "chunk_sizes",
    "parse_policy",
]

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        Auto,
        Static,
        SelfScheduling,
        ChunkSelfScheduling,
        FixedSizeChunking,
        ModifiedFixedSizeChunking,
        GuidedSelfScheduling,
        TrapezoidSelfScheduling,
        Factoring,
        Factoring2,
        WeightedFactoring,
        AdaptiveWeightedFactoringB,
        AdaptiveWeightedFactoringC,
        AdaptiveWeightedFactoringD,
        AdaptiveWeightedFactoringE,
        AdaptiveFactoring,
        Taper,
        Bold,
        TrapezoidFactoring,
        FixedIncrease,
        VariableIncrease,
        PerformanceLoopScheduling,
    )
}

_BY_UPPER_NAME = {name.upper(): policy for name, policy in POLICIES.items()}


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A technique and its parameters, as a user asked for it.

    Attributes
    ----------
    technique
        The technique.
    given
        The parameters that were given, as they were written.
    values
        All parameters that it takes, in the user's units: of one item, or of one hand-out.
    """

    technique: type[Policy]
    given: Mapping[str, str]
    values: Mapping[str, Value]

    def __str__(self) -> str:
        name, only_one = self.technique.name, len(self.technique.parameters) == 1
        given = [text if only_one else f"{key}={text}" for key, text in self.given.items()]
        return ":".join([name, ",".join(given)] if given else [name])

    @property
    def meanings(self) -> str:
        """What each parameter means and its unit, and the value of one that was not given."""
        return "; ".join(
            f"{one.name}: {_meaning(one)}"
            + ("" if one.name in self.given else f" (default {one.default:g})")
            for one in self.technique.parameters
        )

    def check_workers(self, n_workers: int) -> None:
        """Raise ValueError unless the parameters are for so many workers."""
        weights = self.values.get("weights")
        if isinstance(weights, tuple) and len(weights) != n_workers:
            name = self.technique.name
            raise ValueError(
                f"policy {name} wants a weight for each of the {n_workers} workers, found {len(weights)}: "
                f"write {self.technique.example(n_workers)} with the speeds of ranks 1 to {n_workers}"
            )

    def make(self, n_blocks: int, n_workers: int, block: int = 1) -> Policy:
        """The technique, set up for so many blocks of `block` items and so many workers, at least 1."""
        make: Callable[..., Policy] = self.technique
        of_block: dict[str, Any] = {
            parameter.name: parameter.for_block(self.values[parameter.name], block)
            for parameter in self.technique.parameters
        }
        return make(n_blocks, n_workers, **of_block)


def parse_policy(text: str) -> PolicySpec:
    """Read ``NAME``, ``NAME:VALUE`` (of the only parameter) or ``NAME:KEY=VALUE,KEY=VALUE``.

    Raises
    ------
    ValueError
        There is no such technique, or a parameter is missing, unknown or out of range; one line says
        which, what it means and how to write it.
    """
    name, colon, rest = text.partition(":")
    technique = _BY_UPPER_NAME.get(name.upper())
    if technique is None:
        from difflib import get_close_matches  # for this line alone

        near = get_close_matches(name.upper(), _BY_UPPER_NAME, n=1, cutoff=0.5)
        hint = f"; did you mean {_BY_UPPER_NAME[near[0]].name}?" if near else ""
        raise ValueError(f"no policy {name!r}: there are {', '.join(POLICIES)}{hint}")
    if colon and not technique.parameters:
        raise ValueError(f"policy {technique.name} takes no parameters, found {text!r}")
    given = _given(technique, rest) if colon else {}
    missing = [one for one in technique.parameters if one.default is None and one.name not in given]
    if missing:
        raise ValueError(_says_missing(technique, missing))
    values: dict[str, Value] = {}
    for one in technique.parameters:
        if one.name in given:
            values[one.name] = _read(technique, one, given[one.name])
        elif one.default is not None:
            values[one.name] = one.default
    return PolicySpec(technique, given, values)


def _given(technique: type[Policy], text: str) -> dict[str, str]:
    """The parameters in ``VALUE`` or ``KEY=VALUE,KEY=VALUE``, by name, in the technique's own order."""
    names = [parameter.name for parameter in technique.parameters]
    if "=" not in text and len(names) == 1:
        return {names[0]: text}
    given: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        key = key.lower()
        if not equals or key not in names or key in given:
            found = f"{key!r} twice" if key in given else repr(part)
            raise ValueError(
                f"policy {technique.name} takes {_listed(technique.parameters)}, found {found}: "
                f"write {technique.example(3)}"
            )
        given[key] = value
    return {name: given[name] for name in names if name in given}


def _read(technique: type[Policy], parameter: Parameter, text: str) -> Value:
    try:
        return parameter.read(text)
    except ValueError:
        raise ValueError(
            f"{parameter.name} of policy {technique.name} ({_meaning(parameter)}) must be "
            f"{parameter.range}, found {text!r}: write for example {parameter.name}={parameter.example}"
        ) from None


def _says_missing(technique: type[Policy], missing: list[Parameter]) -> str:
    how = f"policy {technique.name} needs {_listed(missing)}: write {technique.example(3)}"
    if any(parameter.is_measured for parameter in missing):
        how += "; `mpims simulate --dist trace:RUN` shows what an earlier run measured"
    return how


def _listed(parameters: tuple[Parameter, ...] | list[Parameter]) -> str:
    return ", ".join(f"{one.name} ({_meaning(one)})" for one in parameters)


def _meaning(parameter: Parameter) -> str:
    return f"{parameter.meaning} [{parameter.unit}]" if parameter.unit else parameter.meaning
