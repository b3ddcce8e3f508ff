"""``mpirun -n 6 python -m tests.executor.several_hosts``: ranks that take themselves for three hosts.

Ranks 2 and 3 call themselves of a second host, 4 and 5 of a third one; only rank 1 is of the program's. Who
is of one host is told by `mpims.processes.this_process`; nothing else is other than it is with users.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import defaultdict

import numpy as np

import mpims
from mpims import processes

FOLDER = "/dev/shm"


def own_rank() -> int:
    return int(os.environ["OMPI_COMM_WORLD_RANK"])


def host_of(rank: int) -> int:
    return rank // 2


def memory_of(array: np.ndarray) -> tuple[int, int, float]:
    """A task: the rank, the file that lies under the array, and what is in it."""
    time.sleep(2e-3)  # or one rank would do them all
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, _, _, inode, *_ = line.split()
            start, stop = (int(part, 16) for part in span.split("-"))
            if start <= address < stop:
                return own_rank(), int(inode), float(array.sum())
    raise LookupError("the array is nowhere")


def main() -> None:
    own = processes.this_process

    def elsewhere() -> processes.Process:
        process = own()
        host = f"{process.host}-{host_of(own_rank())}"  # by its own name another boot would be a death
        return process._replace(host=host, boot=f"{process.boot}-{host_of(own_rank())}")

    for module in ("mpims.executor.taskworker", "mpims.executor.taskmaster", "mpims.executor.spread"):
        __import__(module)
        sys.modules[module].this_process = elsewhere
    before = set(os.listdir(FOLDER))
    with mpims.Executor() as pool:
        for _ in range(3):
            array = np.random.default_rng(0).normal(size=200_000)
            shared = pool.share(array)
            files: dict[int, set[int]] = defaultdict(set)
            found = set()
            for _ in range(20):
                for rank, inode, total in pool.map(memory_of, [shared] * 50):
                    found.add(rank)
                    files[host_of(rank)].add(inode)
                    assert total == array.sum()
                if len(found) == 5:
                    break
            assert sorted(files) == [0, 1, 2], files
            assert all(len(inodes) == 1 for inodes in files.values()), files
            assert len(set.union(*files.values())) == 3, files
            left = {name for name in set(os.listdir(FOLDER)) - before if re.match(r"mpims-\d", name)}
            assert not left, left
    print("once on each host")


if __name__ == "__main__":
    main()
