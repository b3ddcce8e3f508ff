"""``python -m benchmarks.peers.loky_executor N``: N worker processes, without joblib's batches."""

import sys

from loky import get_reusable_executor

from benchmarks.peers.measure import Pool, report


class Loky(Pool):
    """`map` of an executor."""

    chunks = True

    def __init__(self, executor):
        self._executor = executor

    def map(self, function, items, chunksize=1):
        return self._executor.map(function, items, chunksize=chunksize)


if __name__ == "__main__":
    executor = get_reusable_executor(max_workers=int(sys.argv[1]))
    report(Loky(executor))
    executor.shutdown()
