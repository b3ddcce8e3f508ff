"""Which faults a drill injects, and when: from options, or drawn from a seed; shown as options. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from mpims.errors import UsageError


class FaultKind(Enum):
    """What is done to a rank, or to all."""

    KILL = "kill"
    """SIGKILL."""
    HANG = "hang"
    """SIGSTOP; after `Fault.hang_s` SIGCONT, if it is given."""
    SLOW = "slow"
    """SIGSTOP and SIGCONT by turns all the time, so that everything takes `Fault.factor` as long."""
    CRASH = "crash"
    """SIGKILL of all ranks and the launcher; then the run is resumed."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is done: at a share of the items, or seconds after all ranks have joined."""

    share: float | None = None
    after_s: float | None = None

    def __str__(self) -> str:
        return f"{100 * self.share:g}%" if self.share is not None else f"{self.after_s:g}s"

    def has_come(self, share: float, elapsed_s: float) -> bool:
        """Whether it has come when so much is done, so many seconds after all have joined."""
        return share >= self.share if self.share is not None else elapsed_s >= (self.after_s or 0.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is done to a run.

    Attributes
    ----------
    kind
        What it is.
    rank
        To whom; meaningless for a crash.
    moment
        When; meaningless for a slow rank.
    hang_s
        How long a rank hangs; None for ever.
    factor
        How many times slower a slow rank is.
    """

    kind: FaultKind
    rank: int = 0
    moment: Moment = Moment(0.0)
    hang_s: float | None = None
    factor: float = 1.0

    @property
    def option(self) -> str:
        """The option that asks for it.

        Examples
        --------
        >>> parse_hang("1@50%:2").option
        '--hang 1@50%:2'
        """
        if self.kind is FaultKind.SLOW:
            return f"--slow {self.rank}:{self.factor:g}x"
        if self.kind is FaultKind.CRASH:
            return f"--crash @{self.moment}"
        length = f":{self.hang_s:g}" if self.hang_s is not None else ""
        return f"--{self.kind.value} {self.rank}@{self.moment}{length}"


# --------------------------------------------------------------------------- options

_NUMBER = r"(\d+(?:\.\d+)?)"
_MOMENT = rf"@{_NUMBER}(%|s)"


def parse_kill(text: str) -> Fault:
    """The fault of ``--kill RANK@40%`` or ``--kill RANK@1.5s``.

    Raises
    ------
    UsageError
        It is anything else; as for the other options.
    """
    rank, number, unit = _match(text, rf"(\d+){_MOMENT}", "--kill wants RANK@40% or RANK@1.5s")
    return Fault(FaultKind.KILL, int(rank), _moment(f"--kill {text}", number, unit))


def parse_hang(text: str) -> Fault:
    """The fault of ``--hang RANK@50%`` or ``--hang RANK@50%:SECONDS``."""
    wanted = "--hang wants RANK@50%, and :SECONDS if it is to go on"
    rank, number, unit, hang_s = _match(text, rf"(\d+){_MOMENT}(?::{_NUMBER})?", wanted)
    moment = _moment(f"--hang {text}", number, unit)
    return Fault(FaultKind.HANG, int(rank), moment, float(hang_s) if hang_s else None)


def parse_slow(text: str) -> Fault:
    """The fault of ``--slow RANK:3x``."""
    rank, factor = _match(text, rf"(\d+):{_NUMBER}x?", "--slow wants RANK:3x")
    if float(factor) < 1:
        raise UsageError(f"--slow wants a factor of at least 1, found {text!r}")
    return Fault(FaultKind.SLOW, int(rank), factor=float(factor))


def parse_crash(text: str) -> Fault:
    """The fault of ``--crash @60%``."""
    number, unit = _match(text, _MOMENT, "--crash wants @60% or @1.5s")
    return Fault(FaultKind.CRASH, moment=_moment(f"--crash {text}", number, unit))


PARSERS: dict[FaultKind, Callable[[str], Fault]] = {
    FaultKind.KILL: parse_kill,
    FaultKind.HANG: parse_hang,
    FaultKind.SLOW: parse_slow,
    FaultKind.CRASH: parse_crash,
}


def _match(text: str, pattern: str, wanted: str) -> Sequence[str]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise UsageError(f"{wanted}, found {text!r}")
    return match.groups()


def _moment(typed: str, number: str, unit: str) -> Moment:
    if unit == "s":
        return Moment(after_s=float(number))
    if float(number) > 100:
        raise UsageError(f"{typed}: there are no {number}% of the items, at most 100%")
    return Moment(float(number) / 100)


# ----------------------------------------------------------------------------- plans


def check_plan(plan: Sequence[Fault], n_ranks: int, *, survives_deaths: bool) -> None:
    """Refuse a plan that cannot be carried out.

    Raises
    ------
    UsageError
        There is no such rank, or the MPI ends a run whose ranks die, or a rank is to be slow in two ways.
    """
    slow: set[int] = set()
    for fault in plan:
        if fault.rank >= n_ranks:
            raise UsageError(f"{fault.option}: there is no rank {fault.rank} among {n_ranks}")
        if not survives_deaths and fault.kind in (FaultKind.KILL, FaultKind.HANG):
            raise UsageError(f"{fault.option}: this MPI ends a run when a rank dies (no ULFM); try --crash")
        if fault.kind is FaultKind.SLOW:
            if fault.rank in slow:
                raise UsageError(
                    f"{fault.option}: it is given twice for that rank: give one factor for each"
                )
            slow.add(fault.rank)


def default_plan(n_ranks: int) -> list[Fault]:
    """A worker is killed at 40%, and rank 0 at 60% if that leaves one.

    Examples
    --------
    >>> [fault.option for fault in default_plan(4)]
    ['--kill 3@40%', '--kill 0@60%']
    """
    plan = [Fault(FaultKind.KILL, n_ranks - 1, Moment(0.4))]
    return [*plan, Fault(FaultKind.KILL, 0, Moment(0.6))] if n_ranks > 2 else plan


def draw_plan(seed: int, n_ranks: int, *, for_ever: bool) -> list[Fault]:
    """Draw faults that a run survives: at least one rank is neither killed nor stopped.

    Parameters
    ----------
    for_ever
        Whether ranks may hang for ever, which takes a timeout to be noticed soon.
    """
    random = Random(seed)
    spared = random.randrange(n_ranks)
    victims = [rank for rank in range(n_ranks) if rank != spared]
    random.shuffle(victims)
    if 0 in victims and random.random() < 0.5:  # the master more often than others, and its successors
        victims.sort()
    plan: list[Fault] = []
    for rank in victims[: random.randint(0, len(victims))]:
        moment = Moment(random.randrange(0, 96) / 100)
        if random.random() < 0.7:
            plan.append(Fault(FaultKind.KILL, rank, moment))
        else:
            hang_s = None if for_ever and random.random() < 0.5 else random.randrange(1, 25) / 10
            plan.append(Fault(FaultKind.HANG, rank, moment, hang_s))
    n_crashes = random.choice([0, 0, 1, 2] if plan else [1, 2])
    plan += [Fault(FaultKind.CRASH, moment=Moment(random.randrange(5, 90) / 100)) for _ in range(n_crashes)]
    return sorted(plan, key=lambda fault: fault.moment.share or 0.0)
