"""What mpims knows of SLURM: the allocation that it runs in, and batch scripts."""
