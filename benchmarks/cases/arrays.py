"""(c) Large results: how fast they come home."""

from functools import partial

from benchmarks.case import Case, Run, Table, Target, View, at_least
from benchmarks.peers.measure import check
from benchmarks.tools import LIMIT, MPIMS, Settings, mpirun, run_mpims, run_peer, run_program, tools

N_WORKERS = 1
SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000)
FILE_LIMIT = "raw mpi4py into a file"
NO_SYNC = "mpims, --durability off"
EXECUTOR = "mpims.Executor"


def make(settings: Settings) -> Case:
    """Make the case."""
    runs = [Run(tool, partial(_peer, tool, "arrays", settings)) for tool in tools(N_WORKERS)]
    runs.insert(1, Run(FILE_LIMIT, partial(_peer, LIMIT, "arrays_in_file", settings)))
    runs.append(Run(EXECUTOR, partial(_executor, settings)))
    runs.append(Run(NO_SYNC, partial(_mpims, settings, "--durability", "off")))
    runs.append(Run(MPIMS, partial(_mpims, settings)))
    return Case(
        key="c",
        title="Large results",
        how=(
            "One worker gives float64 arrays that it has already; the peers' results are dropped as they "
            "come. `raw mpi4py` receives into one plain buffer, again and again. `raw mpi4py into a file` "
            "receives each array into its place in a mapped file that has its full size on the disk: no "
            "tool that leaves the result in a file can do better. `mpims.Executor` drops results as the "
            "peers do. A job of mpims leaves them in a file, makes that within the time measured, and "
            "forces it to the disk every second, unless told `--durability "
            "off`; its seconds in the kernel, whose first call makes the array, do not count. ray's "
            "arrays stay in its shared memory, where they are only looked at. joblib computes in the "
            "calling process when it has one worker: it is not in this case. Memory that was not used of "
            "late comes slowly where the machine is a virtual one; so just before its clock begins each "
            "writes as much to a file as it will need, and removes it."
        ),
        runs=runs,
        views=[
            View(
                "GB/s",
                {str(n): f"{n / 1e6:g}" for n in SIZES},
                "{:.2f}".format,
                relative_to=LIMIT,
                is_log=True,
                is_line=True,
                along="result, MB",
            )
        ],
        targets=_targets,
    )


def _counts(volume: int) -> list[tuple[int, int]]:
    """Each size, and how many results of it are sent."""
    return [(n_bytes, max(3, volume // n_bytes)) for n_bytes in SIZES]


def _own_counts(settings: Settings) -> list[tuple[int, int]]:
    """For what is fast: enough to take a second or so."""
    return _counts(settings.choose(1_000_000_000, 50_000_000))


def _peer(tool: str, case: str, settings: Settings) -> dict[str, float]:
    counts = _own_counts(settings) if tool == LIMIT else _counts(settings.choose(300_000_000, 50_000_000))
    return run_peer(tool, case, N_WORKERS, {"sizes": counts})


def _executor(settings: Settings) -> dict[str, float]:
    command = [*mpirun(N_WORKERS + 1), "-m", "benchmarks.peers.mpims_executor"]
    return run_program(command, "arrays", {"sizes": _own_counts(settings)})


def _mpims(settings: Settings, *options: str) -> dict[str, float]:
    figures = {}
    for n_bytes, n in _own_counts(settings):

        def read(run, n_bytes=n_bytes, n=n):
            whole = run.result.nbytes == n * n_bytes and bool((run.result[:, -1] == 1).all())
            check(whole, "the arrays")
            seconds = run.summary["wall_s"] - sum(run.summary["busy_s"].values())
            return {str(n_bytes): n * n_bytes / seconds / 1e9}

        parameters = {"n": n, "n_bytes": n_bytes}
        figures |= run_mpims("Arrays", N_WORKERS, read, *options, settings=parameters)
    return figures


def _targets(table: Table) -> list[Target]:
    asked = (
        (EXECUTOR, "dropped", 0.85, LIMIT),
        (EXECUTOR, "dropped", 5, "mpi4py.futures"),
        (MPIMS, "in a file", 0.85, LIMIT),
        (MPIMS, "in a file", 0.85, FILE_LIMIT),
        (MPIMS, "in a file", 5, "mpi4py.futures"),
    )
    return [
        at_least(table, str(n), factor, other, f"results of {n / 1e6:g} MB, {what}", tool)
        for n in SIZES[1:]
        for tool, what, factor, other in asked
    ]
