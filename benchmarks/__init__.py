"""The benchmarks: mpims beside its peers, in one run. See README.md."""
