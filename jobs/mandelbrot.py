"""Escape times of the Mandelbrot set: the first job to try.

    mpirun -n 4 python -m mpims run jobs/mandelbrot.py
    mpirun -n 4 python -m mpims run jobs/mandelbrot.py --set centre=-0.745+0.113j --set span=0.01

An item is one row of the image. Rows through the set cost many times what rows beside it cost, which
is what self-scheduling is for. The result is an int32 array of shape (height, width); the run
directory also gets mandelbrot.png, if Pillow is there (``pip install "mpims[jobs]"``).
"""

import sys

import numpy as np

import mpims

COLOURS = np.array([(0, 7, 60), (24, 82, 177), (237, 255, 255), (255, 170, 0), (60, 12, 24)])


class Mandelbrot(mpims.Job):
    """How long the points of a rectangle stay near 0 under z -> z**2 + c."""

    width: int = 1200
    height: int = 800
    limit: int = 1000  # iterations after which a point counts as one of the set
    centre: complex = -0.65 + 0j
    span: float = 3.5  # width of the image in the complex plane

    output = mpims.Gather()

    def items(self):
        return self.height

    def setup(self):
        self.step = self.span / self.width
        self.real = self.centre.real + self.step * (np.arange(self.width) - (self.width - 1) / 2)

    def kernel(self, rows):
        """Compute the escape times of some rows.

        Returns
        -------
        ndarray of int32, shape (len(rows), width)
            The iterations n for which all of z_1 ... z_n have ``abs(z) <= 2``; `limit` in the set.
        """
        imag = self.centre.imag + self.step * ((self.height - 1) / 2 - np.asarray(rows))
        c = (self.real + 1j * imag[:, np.newaxis]).ravel()
        z = np.zeros_like(c)
        times = np.full(c.size, self.limit, dtype=np.int32)
        active = np.arange(c.size)  # where in `times` the points that have not escaped belong
        for n in range(self.limit):
            z = z * z + c
            escaped = z.real**2 + z.imag**2 > 4
            if escaped.any():
                times[active[escaped]] = n
                active, z, c = active[~escaped], z[~escaped], c[~escaped]
            if not active.size:
                break
        return times.reshape(len(rows), self.width)

    def finish(self, times):
        """Draw the image."""
        try:
            from PIL import Image
        except ImportError:
            print('mandelbrot.png needs Pillow: pip install "mpims[jobs]"', file=sys.stderr)
            return
        picture = self.run_dir / "mandelbrot.png"
        Image.fromarray(palette(self.limit)[times]).save(picture)
        print(f"picture in {picture}", file=sys.stderr)


def palette(limit):
    """One colour for each escape time, black for `limit`: uint8, shape (limit + 1, 3)."""
    shades = np.log1p(np.arange(limit + 1)) / np.log1p(limit)
    stops = np.linspace(0, 1, len(COLOURS))
    colours = np.column_stack([np.interp(shades, stops, channel) for channel in COLOURS.T])
    colours[limit] = 0
    return colours.astype(np.uint8)
