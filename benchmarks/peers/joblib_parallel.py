"""``python -m benchmarks.peers.joblib_parallel N``: N worker processes by loky, joblib's default."""

import sys

from joblib import Parallel, delayed

from benchmarks.peers.measure import Pool, report


class Joblib(Pool):
    """A `Parallel` that keeps its workers; results are taken as they come."""

    chunks = True

    def __init__(self, parallel):
        self._parallel = parallel

    def map(self, function, items, chunksize=1):
        self._parallel.batch_size = chunksize
        return self._parallel(delayed(function)(item) for item in items)


if __name__ == "__main__":
    with Parallel(n_jobs=int(sys.argv[1]), return_as="generator_unordered") as parallel:
        report(Joblib(parallel))
