"""A child that begins as a new Python, for kernels whose libraries do not survive a fork.

It loads the job and calls `setup` as a rank does; then it computes and sends blocks as a forked child.

    rank                                                  child

    spawn() ────────────────── posix_spawn ─────────────▶ main() loads the job, setup()
    the child is ready ◀────── frame without buffers ──── run_child(): compute, compute, ...
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

import cloudpickle

from mpims.errors import UsageError, describe
from mpims.loading import construct, make_job
from mpims.processes import ending_with_parent
from mpims.runtime.forkedchild import HEARD_BY_ALL, run_child
from mpims.runtime.items import call_kernel, resolve_items
from mpims.runtime.printed import Printed
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
    """What a new Python needs to compute blocks of a job.

    Attributes
    ----------
    source, parameters
        As in a START. Where ranks have the job already the source is None, and the parameters are its class
        and its parameters, packed.
    seed
        That of the run.
    prints
        The file for what it prints, and who is to stand there; None if that goes to the terminal.
    """

    source: JobSource | None
    parameters: Any
    seed: int
    prints: tuple[Path, str] | None


def make_order(
    job: Job, source: JobSource | None, parameters: Any, prints: tuple[Path, str] | None
) -> Order:
    """The order for a job that this process has.

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
    return Order(source, parameters, job._seed, prints)


def spawn(order: Order, blocks: Sequence[tuple[int, int]], write_end: int) -> int:
    """Start the child; give its process number.

    Raises
    ------
    OSError
        There is no room for another process.
    """
    with _memory() as file:  # not a pipe: nobody has to wait until it is read
        pickle.dump((os.getpid(), sys.path, pickle.dumps(order), tuple(blocks)), file, protocol=5)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
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
        rank, path, order, blocks = pickle.load(file)
    sys.path[:] = path
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), _ORDER)  # what the user's code would read there
    run_child(partial(_Spawned, order), blocks, _FRAMES, rank, end_with_rank, is_new=True)


class _Spawned:
    """The job of an order, set up; called as `mpims.runtime.forkedchild.Compute`."""

    def __init__(self, packed: bytes) -> None:
        order: Order = pickle.loads(packed)
        self._entered = ExitStack()  # until this process ends
        self._entered.enter_context(one_thread())
        self._job: Job | None = None
        if order.prints is not None:
            self._entered.enter_context(Printed(*order.prints, self._at_hand))
        if order.source is None:
            job = construct(*pickle.loads(order.parameters))
        else:
            job = make_job(order.source, order.parameters)
        job._seed = order.seed
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
