"""(d) Irregular kernels: how evenly the work is spread, and what that costs."""

from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_most, peers_behind
from benchmarks.peers.measure import over_ideal
from benchmarks.tools import COMMANDS, MPIMS, Settings, run_mpims, run_peer
from benchmarks.work import KERNELS, ROWS

N_WORKERS = 2
ratio = "{:.3f}".format


def make(settings: Settings) -> Case:
    """Make the case."""
    runs = [Run(tool, partial(_peer, tool, settings)) for tool in COMMANDS]
    runs.append(Run(MPIMS, partial(_mpims, settings)))
    return Case(
        key="d",
        title="Irregular kernels, 3 ranks on 2 cores",
        how=(
            f"{ROWS} items on {N_WORKERS} workers: rows of the Mandelbrot set; costs of a gamma "
            "distribution with a coefficient of variation of 1.8; costs that rise, and that fall, "
            "linearly. A cost is a number of steps of the same computing, never a sleep. Peers hand items "
            "out singly, which balances best; mpims has its defaults. 1 is the ideal: all busy time shared "
            "evenly. There are two clocks for what is busy. Seconds on a core are what the items need, so "
            "that whatever a tool's own processes take shows: peers are compared by it. Seconds in the "
            "kernel are longer where the master takes cores from the workers, and hide that; the target is "
            "defined by them."
        ),
        runs=runs,
        views=[
            View("time over the ideal (seconds on a core)", _columns("core"), ratio, limit=1.0),
            View("time over the ideal (seconds in the kernel)", _columns("busy"), ratio),
        ],
        targets=_targets,
    )


def _columns(clock: str) -> dict[str, str]:
    return {f"{kernel}|{clock}": kernel for kernel in KERNELS}


def _busy_s(settings: Settings) -> float:
    return settings.choose(12.0, 0.5)


def _peer(tool: str, settings: Settings) -> dict[str, float]:
    parameters = {"busy_s": _busy_s(settings), "speed": settings.speed}
    return run_peer(tool, "uneven", N_WORKERS, {**parameters, "kernels": KERNELS, "n_workers": N_WORKERS})


def _mpims(settings: Settings) -> dict[str, float]:
    figures = {}
    for kernel in KERNELS:
        parameters = {"busy_s": _busy_s(settings), "speed": settings.speed, "shape": kernel}
        found = run_mpims("Uneven", N_WORKERS, _read, settings=parameters)
        figures |= {f"{kernel}|{key}": value for key, value in found.items()}
    return figures


def _read(run) -> dict[str, float]:
    return over_ideal(run.summary["wall_s"], run.result, N_WORKERS)


def _targets(table: Table) -> list[Target]:
    targets = []
    for kernel in KERNELS:
        of_busy = table.median(MPIMS, f"{kernel}|busy")
        targets.append(at_most(of_busy, 1.04, f"{kernel}: time over the ideal", ratio))
        targets.append(peers_behind(table, f"{kernel}|core", kernel))
    return targets
