"""A job whose items take a while, but no processor, and each leave a line where they are computed."""

import time

import mpims


class Slowly(mpims.Job):
    """Sums of random numbers: another order of additions, or another item's stream, gives other bits."""

    n: int = 100
    pause_s: float = 0.0
    shift: float = 0.0
    log: str = ""  # a file that gets a line for each item

    block = 1

    def items(self):
        return self.n

    def task(self, item):
        time.sleep(self.pause_s)
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{item}\n")
        return self.shift + self.rng(item).normal(size=1000).sum()
