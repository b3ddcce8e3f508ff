"""A child that begins as a new Python, for kernels whose libraries do not survive a fork.

It makes itself ready as a rank does: of a job it loads the file and calls `setup`. Then it computes and
sends blocks as a forked child.

    rank                                                  child

    spawn() ────────────────── posix_spawn ─────────────▶ main(): JobBlocks, setup()
    the child is ready ◀────── frame without buffers ──── run_child(): compute, compute, ...
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

import cloudpickle

from mpims.errors import UsageError, describe
from mpims.loading import construct, make_job
from mpims.processes import ending_with_parent
from mpims.runtime.forkedchild import HEARD_BY_ALL, Compute, run_child
from mpims.runtime.items import call_kernel, resolve_items
from mpims.runtime.printed import Printed, Prints
from mpims.runtime.threads import one_thread
from mpims.world import without_world

if TYPE_CHECKING:
    from mpims.job import Job
    from mpims.loading import JobSource

_ORDER, _FRAMES = 0, 3
"""The child's descriptors: where it reads what it is to do, and where it writes what it did."""
_BEGIN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from mpims.runtime import spawnedchild as s; s.main()"
)


class Order(NamedTuple):
    """What a new Python needs to compute blocks: a function that makes it ready, and for what.

    Attributes
    ----------
    prepare
        Called there; gives what computes a block from its start and stop.
    arguments
        Its arguments, which are pickled.
    """

    prepare: Callable[..., Compute]
    arguments: tuple[Any, ...]


def order_of_job(job: Job, source: JobSource | None, parameters: Any, prints: Prints | None) -> Order:
    """The order to compute blocks of a job that this process has.

    Parameters
    ----------
    source, parameters
        As in a START.
    prints
        Where to print; None for the terminal.

    Raises
    ------
    UsageError
        It has no source, and its class or a parameter cannot be pickled.
    """
    if source is None:
        try:
            parameters = cloudpickle.dumps((type(job), job.parameters))
        except Exception as error:  # whatever an object of the user's raises when it is pickled
            raise UsageError(
                f"job {type(job).__name__}: start_method is 'spawn', but it cannot be pickled for a new "
                f"process: {describe(error)}; define it in a file of its own for `mpims run`"
            ) from None
    return Order(JobBlocks, (source, parameters, job._seed, prints))


class JobBlocks:
    """In a new Python: a job, set up. As `mpims.runtime.forkedchild.Compute`.

    Parameters
    ----------
    source, parameters, seed, prints
        As for `order_of_job`. Without a source the parameters are the job's class and its own, pickled.
    """

    def __init__(self, source: JobSource | None, parameters: Any, seed: int, prints: Prints | None) -> None:
        self._entered = ExitStack()  # until this process ends
        self._entered.enter_context(one_thread())
        self._job: Job | None = None
        if prints is not None:
            self._entered.enter_context(Printed(*prints, self._at_hand))
        job = make_job(source, parameters) if source is not None else construct(*pickle.loads(parameters))
        job._seed = seed
        job._begin_run()
        self._items = resolve_items(job)
        job.setup()
        self._job = job

    def __call__(self, start: int, stop: int) -> Any:
        assert self._job is not None
        return call_kernel(self._job, self._items, start, stop)

    def _at_hand(self) -> str:
        """What is computed at the moment."""
        if self._job is None:
            return "setup"
        return f"items [{self._job.indices.start}, {self._job.indices.stop})"


def spawn(order: Order, blocks: Sequence[tuple[int, int]], write_end: int) -> int:
    """Start the child; give its process number.

    Raises
    ------
    OSError
        There is no room for another process.
    """
    with _memory() as file:  # not a pipe: nobody has to wait until it is read
        pickle.dump((os.getpid(), sys.path, sys.argv, pickle.dumps(order), tuple(blocks)), file, protocol=5)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        for descriptor in (file.fileno(), write_end):  # it may have its number already
            os.set_inheritable(descriptor, True)
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", _BEGIN, str(Path(__file__).parents[2])],
            without_world(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, file.fileno(), _ORDER),
                (os.POSIX_SPAWN_DUP2, write_end, _FRAMES),
            ],
            setsigmask=HEARD_BY_ALL,  # until the child has handlers for them
        )


def _memory() -> IO[bytes]:
    """A file that nobody else sees, in memory where that can be: a full disk is to cost no rank."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("mpims"), "w+b")
    return tempfile.TemporaryFile()


def main() -> NoReturn:
    """All that the child does."""
    end_with_rank = ending_with_parent(signal.SIGKILL)
    with open(_ORDER, "rb", closefd=False) as file:
        rank, sys.path[:], sys.argv, order, blocks = pickle.load(file)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), _ORDER)  # what the user's code would read there
    run_child(partial(_prepare, order), blocks, _FRAMES, rank, end_with_rank, is_new=True)


def _prepare(packed: bytes) -> Compute:
    order: Order = pickle.loads(packed)
    return order.prepare(*order.arguments)
