"""``python -m benchmarks.peers.ray_pool N``: N workers of a cluster on this machine."""

import os
import sys

import ray
from ray.util.multiprocessing import Pool as RayPool

from benchmarks.peers.measure import Pool, report


class Ray(Pool):
    """`imap_unordered` of its pool: results are taken as they come, out of shared memory."""

    chunks = True

    def __init__(self, pool):
        self._pool = pool

    def map(self, function, items, chunksize=1):
        return self._pool.imap_unordered(function, items, chunksize=chunksize)


if __name__ == "__main__":
    n_workers = int(sys.argv[1])
    folder = os.environ["BENCH_FOLDER"]
    ray.init(num_cpus=n_workers, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    report(Ray(RayPool(n_workers)))
    ray.shutdown()
