"""The scheduler of a run, made from its options and from what the masters before have done."""

from __future__ import annotations

from mpims.core.deadlines import Deadlines
from mpims.core.ledger import ATTEMPTS_PER_MASTER, Ledger
from mpims.core.policies import Sizer, parse_policy
from mpims.core.scheduler import Scheduler
from mpims.options import RunOptions
from mpims.storage.past import Past


def make_scheduler(
    options: RunOptions,
    past: Past,
    *,
    n_items: int,
    block: int,
    n_workers: int,
    end_at: float | None = None,
) -> Scheduler:
    """Make the scheduler of a run.

    Parameters
    ----------
    options
        How it is to be run; the sizes of chunks in them count items, and are rounded up to whole blocks.
    past
        What is done already, and what may be the reason why all ranks died.
    n_items, block
        How many items the job has, and how many of them one kernel call computes.
    n_workers
        How many ranks compute.
    end_at
        When the time for computing is over, monotonic seconds; None if that is not known.
    """
    sizer = Sizer(
        parse_policy(options.policy).make(-(-n_items // block), max(1, n_workers), block),
        -(-options.chunk_min // block),
        options.chunk_max and -(-options.chunk_max // block),
    )
    first_attempt = 1 + past.epoch * ATTEMPTS_PER_MASTER
    ledger = Ledger(n_items, block, done=past.done, first_attempt=first_attempt)
    for start, stop in past.suspicious:
        ledger.strike(start - start % block, min(-(-stop // block) * block, n_items))
    return Scheduler(
        ledger,
        sizer,
        Deadlines(options.timeout_s),
        n_workers,
        n_retries=options.retries,
        skip=options.on_error == "skip",
        end_at=end_at,
    )
