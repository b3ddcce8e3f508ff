"""The job: what its author writes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import ceil
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mpims.errors import UsageError, brief
from mpims.outputs import Gather, Output
from mpims.parameters import Parameter, bind, find_parameters

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        """Say nothing at run time; type checkers read the real one."""
        return lambda cls: cls


MAX_BLOCKS = 65536
"""A job that sets no block gets the smallest one that makes no more blocks than this."""

START_METHODS = ("fork", "spawn")


@dataclass_transform(kw_only_default=True)
class Job:
    """Many independent items, and how one block of them is computed.

    A job is a class that derives from this one. Annotated class attributes are its parameters: they
    are the keyword arguments of its constructor and can be set with ``--set NAME=VALUE``. Types:
    bool, int, float, complex, str, Path, Literal, an Enum (by its members' names), ``X | None``, and lists
    and tuples of these.

    Override `items`, and either `kernel` or `task`; `setup` and `finish` if they are of use. A job is
    a plain object: its methods can be called without MPI.

    Attributes
    ----------
    output : Gather or Reduce
        What becomes of the item results.
    block : int or None
        Items of one kernel call; block k is items ``[k * block, (k + 1) * block)``. It belongs to
        the job and not to the machine, because the last bits of a result may depend on the shape of
        a call. None stands for ``ceil(n_items / 65536)``.
    start_method : str
        How a child process begins in which a block is tried that may have killed or hung a rank: as a copy
        of the rank ("fork"), or as a new Python, which loads the job and calls `setup` ("spawn"). The
        second is for what does not survive a fork, such as CUDA and pools of threads. With "fork" it is
        tried, too, where a block raises or hangs in a copy.
    indices : range
        In `kernel` and `task`: the indexes of the items at hand.
    run_dir : Path or None
        In `finish`: the run directory. None outside a run.

    Raises
    ------
    UsageError
        A parameter is unknown, missing, or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> class Squares(Job):
    ...     n: int = 5
    ...     def items(self):
    ...         return self.n
    ...     def kernel(self, numbers):
    ...         return np.asarray(numbers) ** 2
    >>> Squares(n=3).kernel(range(3))
    array([0, 1, 4])
    """

    output: ClassVar[Output] = Gather()
    block: ClassVar[int | None] = None
    start_method: ClassVar[str] = "fork"
    _parameters: ClassVar[dict[str, Parameter]] = {}
    _seed: int = 0
    _set_up_for: str = ""
    _setup_s: float = 0.0
    _began_with: dict[str, Any] | None = None
    indices: range = range(0)
    run_dir: Path | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._parameters = find_parameters(cls, Job)

    def __init__(self, **parameters: Any) -> None:
        for name, value in bind(type(self).__name__, self._parameters, parameters).items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({given})"

    @property
    def parameters(self) -> dict[str, Any]:
        """The value of every parameter; in a run the one that it began with."""
        if self._began_with is not None:
            return dict(self._began_with)
        return {name: getattr(self, name) for name in self._parameters}

    def _begin_run(self) -> None:
        """Remember the parameters: they tell what the run is, on each rank and to who takes it over."""
        self._began_with = None
        values = self.parameters.items()
        self._began_with = {name: value.copy() if type(value) is list else value for name, value in values}

    # ------------------------------------------------- what a job's author overrides

    def items(self) -> int | Sequence[Any]:
        """The items: an int n for ``range(n)``, or a sequence; the same on every rank."""
        raise NotImplementedError

    def setup(self) -> None:
        """Prepare to compute: called once on every computing rank, before its first chunk."""

    def kernel(self, items: Any) -> Any:
        """Compute one block.

        Parameters
        ----------
        items : sequence
            ``items()[start:stop]``: a range where `items` gave an int. They are not to be changed: a
            block that failed is computed again from the same ones.

        Returns
        -------
        ndarray or list
            One result per item: an array whose leading axis is the items, or a list.
        """
        task = self.task
        first = self.indices.start
        results = []
        for offset, item in enumerate(items):
            self.indices = range(first + offset, first + offset + 1)
            results.append(task(item))
        return results

    def task(self, item: Any) -> Any:
        """Compute one item, for work that is not vectorised."""
        raise NotImplementedError

    def finish(self, result: Any) -> None:
        """Use the whole result: called once, on the master."""

    # --------------------------------------------------------- what a job can ask for

    def rng(self, index: int) -> np.random.Generator:
        """The random numbers of one item: a function of the run's seed and the item's index alone.

        Parameters
        ----------
        index
            The item's index. Where `items` gives an int that is the item itself; elsewhere
            `indices` has it.

        Returns
        -------
        numpy.random.Generator
            A PCG64 seeded with ``SeedSequence(seed, spawn_key=(index,))``, so that the streams of
            different items are independent (O'Neill 2015; NumPy's parallel generation).

        Raises
        ------
        TypeError
            It is no index, such as an item that is a text.
        """
        from numpy.random import PCG64, Generator, SeedSequence

        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                f"rng wants the index of an item, found {brief(index, 60)}: where items() gave a sequence, "
                "self.indices has those of the items at hand"
            ) from None
        return Generator(PCG64(SeedSequence(self._seed, spawn_key=(number,))))


def defines_work(job: type[Job]) -> bool:
    """Whether a job says how an item is computed, or is but what others derive from."""
    return job.kernel is not Job.kernel or job.task is not Job.task


def block_of(job: Job, n_items: int) -> int:
    """The job's block for that many items.

    Raises
    ------
    UsageError
        The job's block is not a positive integer.
    """
    block: Any = job.block
    if block is None:
        return max(1, ceil(n_items / MAX_BLOCKS))
    if isinstance(block, bool) or not isinstance(block, Integral) or int(block) < 1:
        raise UsageError(
            f"job {type(job).__name__}: block must be a positive integer or None, found {block!r}"
        )
    return int(block)
