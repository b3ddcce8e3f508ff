"""The tests of other executors, and the libraries that take one; skipped where they are not installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment
from tests.executor import suites
from tests.executor.test_ranks import HEAD, on_ranks, run_on_ranks

LIMIT_S = 100


def run_suite(*arguments: str) -> None:
    program = ["-m", "mpims", "script", str(ROOT / "tests" / "executor" / "foreign.py"), *arguments]
    done = subprocess.run(
        on_ranks(6, program),
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "\nOK" in done.stdout


def test_those_of_cpython():
    try:
        where = suites.of_cpython()
    except suites.NotThere as reason:
        pytest.skip(f"{reason} (MPIMS_CPYTHON_TESTS may name a file or folder)")
    run_suite("cpython", *([where] if where is not None else []))


def test_those_of_mpi4py():
    try:
        where = suites.of_mpi4py()
    except suites.NotThere as reason:
        pytest.skip(f"{reason} (MPIMS_MPI4PY_CHECKOUT may name a folder)")
    run_suite("mpi4py", where)


RECIPES = {
    "scipy": """
    from scipy.optimize import differential_evolution, rosen
    def answer(pool):
        workers = pool.map if pool else 1
        return differential_evolution(
            rosen, [(-2, 2)] * 3, workers=workers, updating="deferred", rng=1, maxiter=20
        ).x
    """,
    "emcee": """
    import emcee
    def log_prob(x):
        return -0.5 * float(np.sum(x**2))
    def answer(pool):
        np.random.seed(3)
        sampler = emcee.EnsembleSampler(16, 3, log_prob, pool=pool)
        sampler.run_mcmc(np.random.default_rng(0).normal(size=(16, 3)), 20)
        return sampler.get_chain()
    """,
    "sklearn": """
    import joblib
    import mpims.executor.joblib_backend
    from contextlib import nullcontext
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC
    def answer(pool):
        features, classes = make_classification(200, 10, random_state=0)
        search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}, cv=3, n_jobs=2)
        with joblib.parallel_config("mpims", executor=pool) if pool else nullcontext():
            return search.fit(features, classes).cv_results_["mean_test_score"]
    """,
    "dask": """
    import dask.array
    def answer(pool):
        total = (dask.array.arange(100_000, chunks=10_000) ** 2).sum()
        return np.asarray(total.compute(scheduler=pool or "synchronous"))
    """,
    "joblib": """
    import joblib
    import mpims.executor.joblib_backend
    def answer(pool):
        if pool is None:
            return np.array([i * i for i in range(50)])
        with joblib.parallel_config("mpims", executor=pool):
            return np.array(joblib.Parallel()(joblib.delayed(square)(i) for i in range(50)))
    """,
}


@pytest.mark.parametrize("library", RECIPES)
def test_libraries_give_the_same_numbers_as_alone(tmp_path: Path, library):
    pytest.importorskip(library)
    body = "\n".join(line.removeprefix("    ") for line in RECIPES[library].split("\n"))
    (tmp_path / "program.py").write_text(
        HEAD
        + body
        + "\nalone = answer(None)\n"
        + "with mpims.Executor() as pool:\n    spread = answer(pool)\n"
        + "assert np.array_equal(alone, spread), (alone, spread)\nprint('same')\n"
    )
    done = run_on_ranks(3, ["-m", "mpims", "script", "program.py"], tmp_path, LIMIT_S)
    assert done.stdout.strip() == "same", done.stdout + done.stderr
