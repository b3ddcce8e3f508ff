"""The scheduler: pure. No clock, no I/O, no MPI, no NumPy; time is an argument."""
