"""Pi by Monte Carlo: random numbers that do not depend on the machine, and a reduction.

    mpirun -n 4 python -m mpims run jobs/pi.py --set samples=10000

An item is one sample of random points in the unit square, drawn from the item's own stream: the same
seed gives the same hits on any number of ranks. The result is the sum over all samples, an int64
array [hits, points]; the estimate of pi and its error are printed.
"""

import math
import sys

import numpy as np

import mpims


class Pi(mpims.Job):
    """The part of the unit square that lies within a quarter of the unit circle."""

    samples: int = 2000
    points: int = 100_000  # of one sample

    output = mpims.Reduce(np.add)

    def items(self):
        return self.samples

    def kernel(self, samples):
        """Count the hits of some samples.

        Returns
        -------
        ndarray of int64, shape (len(samples), 2)
            Hits and points of each sample.
        """
        counts = np.empty((len(samples), 2), dtype=np.int64)
        for row, sample in zip(counts, samples, strict=True):
            x, y = self.rng(sample).random((2, self.points))
            row[:] = np.count_nonzero(x * x + y * y < 1), self.points
        return counts

    def finish(self, counts):
        """Print the estimate, its standard error (that of a binomial share) and the true one."""
        hits, points = map(int, counts)
        share = hits / points
        estimate, error = 4 * share, 4 * math.sqrt(share * (1 - share) / points)
        print(
            f"pi = {estimate:.7f} +- {error:.7f} from {points:,} points, off by {estimate - math.pi:+.7f}",
            file=sys.stderr,
        )
