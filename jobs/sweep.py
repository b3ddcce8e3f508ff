"""A parameter sweep of an ODE: where the Lorenz system is chaotic.

    mpirun -n 4 python -m mpims run jobs/sweep.py --set n_rho=256 --set n_sigma=256
    mpirun -n 4 python -m mpims run jobs/sweep.py --set rho=0,200 --set tolerance=0.02

An item is one point of a grid over rho and sigma: one trajectory, followed until its largest Lyapunov
exponent is known to `tolerance`. Steady ones settle early, chaotic ones take long. The result is a
float64 array of shape (n_rho * n_sigma, 3): the exponent, its standard error, the time it took. How
much of the grid is chaotic is printed.
"""

import sys

import numpy as np

import mpims

WINDOW = 5.0  # time units over which the growth of a perturbation is measured
TRANSIENT = 4  # windows that are left out
LEAST = 10  # windows, so that their standard error means something


class Sweep(mpims.Job):
    """Largest Lyapunov exponents of the Lorenz system (Benettin et al. 1980) by RK4."""

    n_rho: int = 32
    n_sigma: int = 32
    rho: tuple[float, float] = (0.0, 60.0)
    sigma: tuple[float, float] = (4.0, 20.0)
    beta: float = 8 / 3
    step: float = 0.02
    tolerance: float = 0.05  # standard error at which an exponent counts as known
    longest: float = 300.0  # time units after which it is taken as it is

    output = mpims.Gather()
    # Trajectories share one NumPy call, which pays its overhead once. How many is fixed here, and not
    # by the number of ranks: the last bits of a call may depend on the shape of its arrays.
    block = 64

    def items(self):
        return self.n_rho * self.n_sigma

    def kernel(self, items):
        """Follow some trajectories, each until its exponent has settled.

        Returns
        -------
        ndarray of float64, shape (len(items), 3)
            Exponent, its standard error, and the time it took after the transient. The error is that
            of the mean over windows, and rather too large: what one window has too much of, the next
            has too little.
        """
        rho, sigma = self.point(np.asarray(items))
        state = np.ones((6, len(items)))
        for _ in range(TRANSIENT):
            state, _ = self.follow(state, rho, sigma)
        growth = np.empty((0, len(items)))  # a row per window
        rows = np.empty((len(items), 3))
        active = np.arange(len(items))  # where in `rows` the trajectories that still go on belong
        while active.size:
            state, rate = self.follow(state, rho, sigma)
            growth = np.vstack([growth, rate])
            n = len(growth)
            if n < LEAST:
                continue
            error = growth.std(axis=0, ddof=1) / np.sqrt(n)
            time = np.full_like(error, n * WINDOW)
            rows[active] = np.column_stack([growth.mean(axis=0), error, time])
            going = (error > self.tolerance) & (time < self.longest)
            active, state, growth, rho, sigma = (
                array[..., going] for array in (active, state, growth, rho, sigma)
            )
        return rows

    def point(self, items):
        """The rho and sigma of items: sigma varies fastest."""
        i, j = np.unravel_index(items, (self.n_rho, self.n_sigma))
        return np.linspace(*self.rho, self.n_rho)[i], np.linspace(*self.sigma, self.n_sigma)[j]

    def follow(self, state, rho, sigma):
        """Integrate over one window; give the new state and the perturbation's rate of growth."""
        for _ in range(round(WINDOW / self.step)):
            state = runge_kutta(lorenz, state, self.step, rho, sigma, self.beta)
        length = np.sqrt((state[3:] ** 2).sum(axis=0))
        state[3:] /= length
        return state, np.log(length) / WINDOW

    def finish(self, rows):
        """Print how much of the grid is chaotic, and where most."""
        exponent, error, _ = rows.T
        most = int(np.argmax(exponent))
        rho, sigma = self.point(most)
        print(
            f"chaotic (exponent > 3 standard errors): {np.sum(exponent > 3 * error):,} of {len(rows):,}\n"
            f"largest exponent: {exponent[most]:.3f} +- {error[most]:.3f} at rho={rho:g}, sigma={sigma:g}",
            file=sys.stderr,
        )


def lorenz(state, rho, sigma, beta):
    """The Lorenz system (1963) and its linearisation: d/dt of x, y, z and a perturbation u, v, w."""
    x, y, z, u, v, w = state
    return np.stack([
        sigma * (y - x), x * (rho - z) - y, x * y - beta * z,
        sigma * (v - u), u * (rho - z) - v - x * w, u * y + x * v - beta * w,
    ])  # fmt: skip


def runge_kutta(f, state, step, *parameters):
    """One step of the classical fourth-order Runge-Kutta method."""
    k1 = f(state, *parameters)
    k2 = f(state + step / 2 * k1, *parameters)
    k3 = f(state + step / 2 * k2, *parameters)
    k4 = f(state + step * k3, *parameters)
    return state + step / 6 * (k1 + 2 * (k2 + k3) + k4)
