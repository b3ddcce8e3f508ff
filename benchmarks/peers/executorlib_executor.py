"""``python -m benchmarks.peers.executorlib_executor N``: N workers, which stay for all functions."""

import sys

from executorlib import SingleNodeExecutor

from benchmarks.peers.measure import Pool, report


class Executorlib(Pool):
    """`map` of an executor, which makes no chunks whatever the size given."""

    def __init__(self, executor):
        self._executor = executor

    def map(self, function, items, chunksize=1):
        return self._executor.map(function, items)


if __name__ == "__main__":
    with SingleNodeExecutor(max_workers=int(sys.argv[1]), block_allocation=True) as executor:
        report(Executorlib(executor))
