"""``mpirun -n N python -m benchmarks.peers.raw_mpi4py``: what a loop in mpi4py alone does, the limit.

It has no failures, no chunk sizes to find, no records and no other job than this one. Two items are in
flight for each worker, so that none waits for the next. The master blocks in ``Recv``, which is
fastest, and burns its core.
"""

import os
import tempfile
import time

import numpy as np
from mpi4py import MPI

from benchmarks import work
from benchmarks.peers import measure

IN_FLIGHT = 2
END = -1
comm = MPI.COMM_WORLD


class Raw(measure.Pool):
    """A loop for any function and any results, pickled; the indexes of the items go out alone."""

    def map(self, function, items, chunksize=1):
        items = list(items)
        comm.bcast((function, items))
        results = [None] * len(items)

        def take():
            status = MPI.Status()
            i, result = comm.recv(status=status)
            results[i] = result
            return status.Get_source()

        feed(range(len(items)), take)
        return results


def feed(starts, take):
    """Hand out the items one by one; `take` takes a result in, and gives the rank that it came from."""
    assign = np.empty(2, np.int64)
    waiting = iter(starts)
    n_in_flight = 0

    def hand_out(rank):
        start = next(waiting, END)
        if start != END:
            assign[0] = start
            comm.Send(assign, rank)
        return start != END

    for _ in range(IN_FLIGHT):
        for rank in range(1, comm.size):
            n_in_flight += hand_out(rank)
    while n_in_flight:
        n_in_flight += hand_out(take()) - 1
    assign[0] = END
    for rank in range(1, comm.size):
        comm.Send(assign, rank)


def serve(reply):
    """On a worker: answer every item until the end."""
    assign = np.empty(2, np.int64)
    while True:
        comm.Recv(assign, 0)
        if assign[0] == END:
            return
        reply(int(assign[0]))


# ------------------------------------------------------------------------------------ limits


def single(pool, seconds):
    """Items per second: 16 bytes out, 16 bytes back."""

    def total(n):
        comm.bcast(n)
        buffer, status = np.empty(2, np.int64), MPI.Status()
        answer = 0

        def take():
            nonlocal answer
            comm.Recv(buffer, status=status)
            answer += int(buffer[1])
            return status.Get_source()

        feed(range(n), take)
        return answer

    rate = measure._rate(total, seconds)
    comm.bcast(None)
    return {"items/s": rate}


def serve_single():
    """On a worker."""
    buffer = np.empty(2, np.int64)

    def reply(item):
        buffer[:] = item, work.same(item)
        comm.Send(buffer, 0)

    while comm.bcast(None) is not None:
        serve(reply)


def chunked(pool, seconds, sizes, array_sizes):
    """Items per second where a chunk is a range, its results an array, received into its place."""
    n = 2 * 10**7
    size = max(array_sizes)
    comm.bcast((n, size))
    results = np.empty(n, np.int64)
    results.fill(0)  # the memory is there
    status = MPI.Status()

    def take():
        comm.Probe(status=status)
        rank, start = status.Get_source(), status.Get_tag() * size
        comm.Recv(results[start : start + size], rank, status.Get_tag())
        return rank

    began = time.perf_counter()
    feed(range(0, n, size), take)
    took_s = time.perf_counter() - began
    measure.check(int(results.sum()) == n * (n - 1) // 2, "the sum")
    return {"arrays": n / took_s}


def serve_chunked():
    """On a worker."""
    n, size = comm.bcast(None)
    serve(lambda start: comm.Send(np.arange(start, min(start + size, n)), 0, start // size))


def arrays(pool, sizes):
    """GB/s into one buffer, again and again."""
    rates = {}
    for n_bytes, n in sizes:
        buffer = np.zeros(n_bytes // 8)
        for _ in range(2):  # the first time warms up
            rates[str(n_bytes)] = received_gb_s(n_bytes, n, lambda i, buffer=buffer: buffer)
    comm.bcast(None)
    return rates


def arrays_in_file(pool, sizes):
    """GB/s into the place of each array in a mapped file that has its full size."""
    rates = {}
    for n_bytes, n in sizes:
        buffer = np.zeros(n_bytes // 8)
        received_gb_s(n_bytes, 4, lambda i, buffer=buffer: buffer)  # warms up
        work.warm_memory(n_bytes, n)
        with tempfile.NamedTemporaryFile(dir=os.environ["BENCH_FOLDER"]) as file:
            os.posix_fallocate(file.fileno(), 0, n * n_bytes)
            plain = np.asarray(np.memmap(file.name, np.float64, "r+", shape=(n, n_bytes // 8)))
            rates[str(n_bytes)] = received_gb_s(n_bytes, n, plain.__getitem__)
            measure.check(bool((plain[:, -1] == 1).all()), "the last element of each array")
    comm.bcast(None)
    return rates


def received_gb_s(n_bytes, n, place):
    """GB/s of arrays received where `place` says."""
    comm.bcast(n_bytes)
    received = iter(range(n))
    status = MPI.Status()

    def take():
        comm.Recv(place(next(received)), status=status)
        return status.Get_source()

    began = time.perf_counter()
    feed(range(n), take)
    return n * n_bytes / (time.perf_counter() - began) / 1e9


def serve_arrays():
    """On a worker."""
    while (n_bytes := comm.bcast(None)) is not None:
        array = work.array_of(n_bytes)
        serve(lambda i, array=array: comm.Send(array, 0))


def serve_pool():
    """On a worker of `Raw`."""
    while (task := comm.bcast(None)) is not None:
        function, items = task
        serve(lambda i, function=function, items=items: comm.send((i, function(items[i])), 0))


def main():
    """Measure on rank 0, serve on the others."""
    case = os.environ[measure.CASE]
    own = {"single": (single, serve_single), "chunked": (chunked, serve_chunked)}
    own |= {"arrays": (arrays, serve_arrays), "arrays_in_file": (arrays_in_file, serve_arrays)}
    if comm.rank:
        own.get(case, (None, serve_pool))[1]()
    else:
        measure.MEASURES |= {name: function for name, (function, _) in own.items()}
        measure.report(Raw())
        if case not in own:
            comm.bcast(None)


if __name__ == "__main__":
    main()
