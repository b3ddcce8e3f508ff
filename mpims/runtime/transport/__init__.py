"""How messages get from rank to rank: one contract, carried by MPI or within a process."""
