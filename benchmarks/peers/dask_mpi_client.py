"""``mpirun -n N python -m benchmarks.peers.dask_mpi_client``: a scheduler, a client, N - 2 workers."""

import time

import dask
from dask.distributed import Client, as_completed
from dask_mpi import initialize

from benchmarks.peers.measure import Pool, report


class Dask(Pool):
    """A future for each item; results are taken as they come."""

    def __init__(self, client):
        self._client = client

    def map(self, function, items, chunksize=1):
        futures = self._client.map(function, items, pure=False)
        for _, result in as_completed(futures, with_results=True):
            yield result

    def cpu_s(self):
        return time.process_time() + self._client.run_on_scheduler(time.process_time)


if __name__ == "__main__":
    dask.config.set({"distributed.scheduler.worker-ttl": None, "distributed.worker.daemon": False})
    initialize(nthreads=1, dashboard=False, nanny=False)
    with Client() as client:
        report(Dask(client))
