"""A job's items as every rank sees them: a sequence and its digest."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Sequence
from typing import Any

from mpims.digest import digest_items, told
from mpims.errors import UsageError, brief, describe
from mpims.job import START_METHODS, Job, defines_work
from mpims.outputs import Gather, Reduce


def resolve_items(job: Job) -> Sequence[Any]:
    """Call the job's `items` and make a sequence of what it gives.

    Raises
    ------
    UsageError
        It raises, gives something that is no sequence or takes no slices, or nothing at all.
    """
    name = type(job).__name__
    items: Any
    try:
        items = job.items()
    except UsageError:
        raise
    except NotImplementedError:
        raise UsageError(f"job {name} defines no items(): return their number, or a sequence") from None
    except (Exception, SystemExit) as error:  # whatever the user's method raises
        raise UsageError(f"job {name}: items() raised {describe(error)}") from error
    if not isinstance(items, bool) and isinstance(items, numbers.Integral):
        if items < 0:
            raise UsageError(f"job {name}: items() gave {items}: there cannot be fewer than 0")
        items = range(int(items))
    try:
        n_items = len(items)
        is_sequence = hasattr(items, "__getitem__") and not isinstance(items, dict)
    except (TypeError, OverflowError):
        is_sequence = False
    except Exception as error:  # whatever the user's sequence raises
        raise UsageError(
            f"job {name}: items() gave a {type(items).__name__} whose length raised {describe(error)}"
        ) from error
    if not is_sequence:
        raise UsageError(
            f"job {name}: items() gave a {type(items).__name__}: "
            f"return their number, at most {sys.maxsize}, or a sequence such as a list"
        )
    if n_items == 0:
        raise UsageError(f"job {name} has no items: items() gave none for {job!r}")
    try:
        items[0:0]
    except TypeError as error:
        raise UsageError(
            f"job {name}: items() gave a {type(items).__name__} of which no slice can be taken "
            f"({describe(error)}): return a list of them"
        ) from error
    except Exception:  # an empty slice may be too little for it: no kernel is given one
        pass
    sequence: Sequence[Any] = items
    return sequence


def take_items(items: Sequence[Any], start: int, stop: int) -> Sequence[Any]:
    """The items of one block.

    Raises
    ------
    TypeError
        The user's sequence has another idea of slices.
    """
    taken = items[start:stop]
    if len(taken) != stop - start:
        raise TypeError(f"items()[{start}:{stop}] gave {len(taken)} items of a {type(items).__name__}")
    return taken


def call_kernel(job: Job, items: Sequence[Any], start: int, stop: int) -> Any:
    """Compute the items from `start` to `stop`, exclusive; `items` are all."""
    job.indices = range(start, stop)
    return job.kernel(take_items(items, start, stop))


def check_kernel(job: Job) -> None:
    """Refuse a job that says nothing of how an item is computed, or of what becomes of the results.

    Raises
    ------
    UsageError
        It overrides neither `kernel` nor `task`, or its output or its start method is none.
    """
    if job.start_method not in START_METHODS:
        raise UsageError(
            f"job {type(job).__name__}: start_method must be 'fork' or 'spawn', "
            f"found {brief(job.start_method, 60)}"
        )
    output: Any = job.output
    if not isinstance(output, (Gather, Reduce)):
        raise UsageError(
            f"job {type(job).__name__}: output must be a mpims.Gather() or a mpims.Reduce(function), "
            f"found {brief(output, 60)}"
        )
    if not defines_work(type(job)):
        raise UsageError(f"job {type(job).__name__} defines neither kernel(items) nor task(item)")


def job_identity(job: Job) -> str:
    """What two ranks compare: the job and its parameters, as it is told to the user, too."""
    given = ", ".join(f"{name}={told(value)}" for name, value in job.parameters.items())
    return f"{type(job).__name__}({given})"


def items_identity(items: Sequence[Any]) -> tuple[int, str]:
    """What two ranks compare: the number of the items and their digest."""
    try:
        return len(items), digest_items(items)
    except Exception:  # an item that cannot be taken apart, for whatever reason of its own
        return len(items), "unknown"
