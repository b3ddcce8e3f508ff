"""One BLAS and OpenMP thread per rank, unless the user set another number.

N ranks on N cores with a pool of N threads each would fight for the cores. It is so on a single rank
too: with another number of threads a BLAS gives other last bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def set_thread_variables(environ: MutableMapping[str, str]) -> None:
    """Ask for one thread; of use only before NumPy is imported. A variable of the user's stands."""
    if not any(name in environ for name in VARIABLES):
        for name in VARIABLES:
            environ[name] = "1"


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold the libraries that are loaded already to one thread, unless a variable is set."""
    if any(name in os.environ for name in VARIABLES):
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield
