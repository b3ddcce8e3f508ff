"""``python -m charmrun.start +pN benchmarks/peers/charm4py_pool.py``: N - 1 workers."""

import traceback

from charm4py import charm

from benchmarks.peers.measure import Pool, report


class Charm(Pool):
    """`map` of the pool, whose scheduler is on the first process."""

    chunks = True

    def map(self, function, items, chunksize=1):
        return charm.pool.map(function, items, chunksize=chunksize)


def main(arguments):
    """Run on the first process alone."""
    try:
        report(Charm())
    except BaseException:
        traceback.print_exc()
        charm.exit(1)
    charm.exit()


if __name__ == "__main__":
    charm.start(main)
