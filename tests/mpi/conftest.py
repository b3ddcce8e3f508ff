"""Every MPI test begins and ends on all ranks together, so that no messages of two tests mix."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def together():
    from mpi4py import MPI

    MPI.COMM_WORLD.Barrier()
    yield
    MPI.COMM_WORLD.Barrier()
