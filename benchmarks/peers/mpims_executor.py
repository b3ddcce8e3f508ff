"""``mpirun -n N python -m benchmarks.peers.mpims_executor``: `mpims.Executor`, N - 1 ranks compute."""

import mpims
from benchmarks.peers.measure import report
from benchmarks.peers.mpi4py_futures import Futures


class Tasks(Futures):
    """`map` as its users have it: chunks are found by measuring, unless a size is given."""

    def map(self, function, items, chunksize=None):
        return self._executor.map(function, items, chunksize=chunksize)


if __name__ == "__main__":
    with mpims.Executor() as executor:
        report(Tasks(executor))
