"""``mpirun -n N python -m benchmarks.peers.schwimmbad_pool``: N - 1 workers."""

from schwimmbad import MPIPool

from benchmarks.peers.measure import Pool, report


class Schwimmbad(Pool):
    """`map` of a pool, which makes no chunks."""

    def __init__(self, pool):
        self._pool = pool

    def map(self, function, items, chunksize=1):
        return self._pool.map(function, items)


if __name__ == "__main__":
    with MPIPool() as pool:  # the workers do not come back from here
        report(Schwimmbad(pool))
