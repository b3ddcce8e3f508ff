"""``mpirun -n N python -m mpi4py.futures -m benchmarks.peers.mpi4py_futures``: N - 1 workers."""

from mpi4py.futures import MPIPoolExecutor

from benchmarks.peers.measure import Pool, report


class Futures(Pool):
    """`map` of an executor."""

    chunks = True

    def __init__(self, executor):
        self._executor = executor

    def map(self, function, items, chunksize=1):
        return self._executor.map(function, items, chunksize=chunksize)

    def submit(self, function, *args):
        return self._executor.submit(function, *args)


if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        report(Futures(executor))
