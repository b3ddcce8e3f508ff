"""``mpirun -n N python -m benchmarks.peers.bare_mpi4py``: to each worker a message, and one back.

The least that a program in mpi4py and NumPy can do before its first item is computed.
"""

import json

import numpy as np
from mpi4py import MPI

from benchmarks import work

if __name__ == "__main__":
    comm = MPI.COMM_WORLD
    message = np.zeros(2)
    if comm.rank:
        comm.Recv(message, 0)
        comm.Send(np.array(work.stamp(0), float), 0)
    else:
        answers = []
        for rank in range(1, comm.size):
            comm.Send(message, rank)
            comm.Recv(message, rank)
            answers.append(message.tolist())
        print(json.dumps({"at": min(at for at, _ in answers), "files": max(n for _, n in answers)}))
