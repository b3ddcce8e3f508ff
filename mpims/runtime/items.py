"""A job's items as every rank sees them: a sequence and its digest."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from mpims.digest import digest_items
from mpims.errors import UsageError
from mpims.job import Job


def resolve_items(job: Job) -> Sequence[Any]:
    """Call the job's `items` and make a sequence of what it gives.

    Raises
    ------
    UsageError
        It raises, gives something that is no sequence, or nothing at all.
    """
    name = type(job).__name__
    items: Any
    try:
        items = job.items()
    except UsageError:
        raise
    except NotImplementedError:
        raise UsageError(f"job {name} defines no items(): return their number, or a sequence") from None
    except Exception as error:  # whatever the user's method raises
        raise UsageError(f"job {name}: items() raised {type(error).__name__}: {error}") from error
    if isinstance(items, numbers.Integral) and not isinstance(items, bool):
        if items < 0:
            raise UsageError(f"job {name}: items() gave {items}: there cannot be fewer than 0")
        items = range(int(items))
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")) or isinstance(items, dict):
        raise UsageError(
            f"job {name}: items() gave a {type(items).__name__}: "
            "return their number, or a sequence such as a list"
        )
    if len(items) == 0:
        raise UsageError(f"job {name} has no items: items() gave none for {job!r}")
    sequence: Sequence[Any] = items
    return sequence


def check_kernel(job: Job) -> None:
    """Refuse a job that says nothing of how an item is computed.

    Raises
    ------
    UsageError
        It overrides neither `kernel` nor `task`.
    """
    if type(job).kernel is Job.kernel and type(job).task is Job.task:
        raise UsageError(f"job {type(job).__name__} defines neither kernel(items) nor task(item)")


def items_identity(items: Sequence[Any]) -> tuple[int, str]:
    """What two ranks compare: the number of the items and their digest."""
    try:
        return len(items), digest_items(items)
    except Exception:  # an item that cannot be taken apart, for whatever reason of its own
        return len(items), "unknown"
