"""A job whose items take a while, but no processor, and each say where they were computed."""

import time

import mpims


class Slowly(mpims.Job):
    """Sums of random numbers: another order of additions, or another item's stream, gives other bits."""

    n: int = 100
    pause_s: float = 0.0
    shift: float = 0.0

    block = 1

    def items(self):
        return self.n

    def task(self, item):
        time.sleep(self.pause_s)
        print(f"computed {item}")
        return self.shift + self.rng(item).normal(size=1000).sum()
