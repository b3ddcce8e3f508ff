"""The options of a run: typed, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mpims.errors import UsageError

if TYPE_CHECKING:
    from mpims.core.policies import PolicySpec

DEFAULT_POLICY = "auto"

OnError = Literal["abort", "skip"]
"""What becomes of a run in which an item fails."""
Wait = Literal["sleep", "spin"]
"""How a rank waits."""
Prints = Literal["file", "terminal"]
"""Where what a kernel prints goes."""

_TYPES: tuple[tuple[tuple[str, ...], Any, str, tuple[Any, ...]], ...] = (
    (("policy",), str, "a text such as 'GSS'", ()),
    (("chunk_min", "chunk_max", "retries", "seed"), Integral, "an integer", (int,)),
    (
        ("timeout_s", "durability_s", "grace_s", "log_every_s", "end_time_s"),
        Real,
        "a number of seconds",
        (float, int),
    ),
    (("run_dir",), (str, Path), "a path", (Path,)),
)
"""Of options: what they must be, in words too, and what they are kept as."""
_MAY_BE_NONE = ("chunk_max", "timeout_s", "durability_s", "end_time_s", "run_dir")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a job is to be run; every field has a default.

    Parameters
    ----------
    policy
        Self-scheduling technique, ``NAME``, ``NAME:VALUE`` or ``NAME:KEY=VALUE,KEY=VALUE``; see
        ``mpims policies``.
    chunk_min, chunk_max
        Least and largest chunk, in items; whole blocks are handed out, so both are rounded up.
    timeout_s
        Seconds without a word after which a rank with work counts as hung and its items are given
        to another; a rank speaks at least once a block. None learns it from the measured blocks.
    retries
        A block that fails is tried so many times more, on another rank if there is one; then its items
        alone, each as often.
    on_error
        What an item that fails alone does: ``"abort"`` ends the run, ``"skip"`` leaves the item out and
        names it in ``failed.json``.
    durability_s
        Every so many seconds what is done is forced to the disk, so that a crash of the machine costs no
        more; 0 forces every result, None leaves it to the system. A crash of the run itself costs none.
    grace_s
        A run that is asked to stop takes in what comes within this many seconds.
    wait
        How a rank waits for messages: ``"sleep"`` gives its core away when none come, ``"spin"`` keeps it,
        where every rank has one of its own.
    log_every_s
        Where there is no terminal, a line says every so many seconds how far the run is; sooner at first.
    prints
        Where what the job prints while it computes goes: ``"file"``, one for each rank in ``output/`` of
        the run directory, or ``"terminal"``, as it comes.
    end_time_s
        When the run has to have ended, Unix time in seconds: no block is handed out that is not expected to
        end before, and the run stops in time. None is the end of SLURM's allocation, if there is one.
    seed
        Seed of the items' random numbers (`Job.rng`), at least 0.
    run_dir
        Where the run leaves its files. None makes ``runs/NAME-DATE-TIME``.
    resume
        Go on with the run in `run_dir` if there is one.
    quiet
        Say nothing but errors.

    Raises
    ------
    UsageError
        A value is out of its range, or of another type.
    """

    policy: str = DEFAULT_POLICY
    chunk_min: int = 1
    chunk_max: int | None = None
    timeout_s: float | None = None
    retries: int = 2
    on_error: OnError = "abort"
    durability_s: float | None = 1.0
    grace_s: float = 10.0
    wait: Wait = "sleep"
    log_every_s: float = 30.0
    prints: Prints = "file"
    end_time_s: float | None = None
    seed: int = 0
    run_dir: Path | None = None
    resume: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        self._take_types()
        try:
            self._policy()
        except ValueError as error:
            raise UsageError(str(error)) from None
        if self.chunk_min < 1:
            raise UsageError(f"the least chunk must be at least 1 item, found {self.chunk_min}")
        if self.chunk_max is not None and self.chunk_max < self.chunk_min:
            raise UsageError(
                f"the largest chunk must be at least the least one, found {self.chunk_min}:{self.chunk_max}"
            )
        if self.timeout_s is not None and not (isfinite(self.timeout_s) and self.timeout_s > 0):
            raise UsageError(f"the timeout must be a number of seconds above 0, found {self.timeout_s}")
        if self.retries < 0:
            raise UsageError(f"the retries must be at least 0, found {self.retries}")
        if not _is_one(self.on_error, OnError):
            raise UsageError(f"on error there is abort or skip, found {self.on_error!r}")
        if self.durability_s is not None and not (isfinite(self.durability_s) and self.durability_s >= 0):
            raise UsageError(
                "the durability must be a number of seconds of at least 0, or off (None), "
                f"found {self.durability_s}"
            )
        if not (isfinite(self.grace_s) and self.grace_s >= 0):
            raise UsageError(f"the grace must be a number of seconds of at least 0, found {self.grace_s}")
        if not _is_one(self.wait, Wait):
            raise UsageError(f"one waits by sleep or spin, found {self.wait!r}")
        if not (isfinite(self.log_every_s) and self.log_every_s > 0):
            raise UsageError(
                f"the log wants a line every so many seconds, a number above 0, found {self.log_every_s}"
            )
        if not _is_one(self.prints, Prints):
            raise UsageError(f"what a kernel prints goes to file or terminal, found {self.prints!r}")
        if self.resume and self.run_dir is None:
            raise UsageError("resume needs the run directory of the run to go on with")
        if self.seed < 0:
            raise UsageError(f"the seed must be at least 0, found {self.seed}")

    def _take_types(self) -> None:
        """Make numbers Python's own and a text a path; refuse whatever is none."""
        for names, kind, wanted, make in _TYPES:
            for name in names:
                value = getattr(self, name)
                if value is None and name in _MAY_BE_NONE:
                    continue
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise UsageError(f"{name} must be {wanted}, found {value!r}")
                if make and not isinstance(value, make):
                    object.__setattr__(self, name, make[0](value))

    def _policy(self) -> PolicySpec:
        from mpims.core.policies import parse_policy  # a worker gets the options, and no use for policies

        return parse_policy(self.policy)

    @property
    def policy_text(self) -> str:
        """The policy as it is written where it is defined: ``fac2`` is FAC2."""
        return str(self._policy())

    def check_workers(self, n_workers: int) -> None:
        """Raise UsageError if the policy's parameters are for another number of workers."""
        try:
            self._policy().check_workers(n_workers)
        except ValueError as error:
            raise UsageError(str(error)) from None


def _is_one(value: Any, choices: Any) -> bool:
    return isinstance(value, str) and value in get_args(choices)
