"""The tests of other executors, run against `mpims.Executor` on real ranks.

    mpirun -n 6 python -m mpims script tests/executor/foreign.py cpython [FILE OR FOLDER]
    mpirun -n 6 python -m mpims script tests/executor/foreign.py mpi4py CHECKOUT

CPython's are those of this Python (``test.test_concurrent_futures``), where it was installed with them, or
of the file or folder that is given; mpi4py's are in a checkout of it. Nothing of them is copied here; where
they come from is in `tests.executor.suites`. What does not apply is in `LEFT_OUT`.
"""

from __future__ import annotations

import importlib
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mpims

NO_TESTS = 77
"""The exit status where there are no such tests."""

LEFT_OUT = {
    # CPython's
    "test_interpreter_shutdown": "starts programs of its own, with a pool of threads or processes",
    "test_submit_after_interpreter_shutdown": "the same",
    "test_hang_gh83386": "the same",
    "test_hang_gh94440": "the same",
    # mpi4py's
    "test_init_args": "of options that mpi4py's pool alone has",
    "test_init_kwargs": "the same",
    "test_init_pyargs": "the same",
    "test_init_sys_flags": "the same",
    "test_init_globals": "the same",
    "test_run_name": "the same",
    "test_max_workers": "the same: the environment variables that limit its workers",
    "test_max_workers_environ": "the same",
    "test_get_comm_workers": "the same: its workers have a communicator of their own",
    "test_use_pkl5_kwarg": "the same",
    "test_use_pkl5_environ": "the same",
    "test_bootup": "the same: workers are there, or come, without being asked",
    "test_bootup_wait": "the same",
    "test_bootup_nowait": "the same",
    "test_bootup_nowait_wait": "the same",
    "test_bootup_shutdown_nowait": "the same",
    "test_init_bootup_shutdown": "the same",
    "test_initializer_error_del": "the same",
    "test_initializer_error_del_nowait": "the same",
    "test_bad_pickle": "what cannot travel raises CannotTravel here, which says which part of it",
    "test_exc_pickle": "the same",
    "test_exc_unpickle": "asks for mpi4py's own class as the cause",
}
"""Tests that do not apply, each with the reason."""

SUITES = {
    "cpython": ("ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest"),
    "mpi4py": (
        "ProcessPoolInitTest",
        "ExecutorShutdownTestMixin",
        "WaitTestMixin",
        "AsCompletedTestMixin",
        "ExecutorTestMixin",
        "ProcessPoolExecutorTest",
        "ProcessPoolPickleTest",
    ),
}
"""The classes that hold the tests of executors; the others are of futures, or of what is not here."""


class Ready(mpims.Executor):
    """One whose ranks are there, as threads are at once: a test cancels what has not begun by then."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "initializer" not in kwargs:
            assert list(self.map(abs, range(100))) == list(range(100))

    @property
    def num_workers(self) -> int:
        """As mpi4py calls it."""
        return self.n_workers

    def map(self, *args: Any, unordered: bool = False, **kwargs: Any) -> Iterator[Any]:
        """Take mpi4py's word for ``ordered=False``."""
        return super().map(*args, ordered=not unordered, **kwargs)


def modules(name: str, where: str | None) -> list[ModuleType]:
    """The modules that hold the tests, under names by which the other ranks find them too."""
    if name == "mpi4py":
        assert where is not None, "give a checkout of mpi4py"
        core = importlib.import_module("mpi4py.futures._core")
        core.SharedPool = True  # or the module takes its tests of pools away
        sys.path += [str(Path(where) / "test"), str(Path(where) / "demo" / "futures")]
        module = importlib.import_module("test_futures")
        module.futures.MPIPoolExecutor = Ready
        return [module]
    package = "test.test_concurrent_futures"
    if where is not None:
        sys.path.append(str(Path(where).resolve().parent))
        package = Path(where).stem
    found = []
    for part in ("", ".executor", ".util", ".test_wait", ".test_as_completed", ".test_shutdown"):
        try:
            found.append(importlib.import_module(package + part))
        except ModuleNotFoundError:
            continue
    return found


def suite(name: str, found: list[ModuleType]) -> unittest.TestSuite:
    """All tests that apply, with an executor on the ranks of this program for each."""
    known: dict[str, Any] = {}
    for module in found:
        known.update(vars(module))
    base = known.get("BaseTestCase", unittest.TestCase)
    tests = unittest.TestSuite()
    for cases in [known[case] for case in SUITES[name] if case in known]:
        bases = [cases, known["ExecutorMixin"], base]
        bases = [one for one in bases if one is cases or not issubclass(cases, one)]
        adapted = type(f"Mpims{cases.__name__}", tuple(bases), {"executor_type": Ready})
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(adapted):
            if test.id().split(".")[-1] not in LEFT_OUT:
                tests.addTest(test)
    return tests


def main(name: str, where: str | None = None) -> int:
    """Run a suite; give the exit status."""
    found = modules(name, where)
    if not found:
        print("this Python was installed without its tests (test.test_concurrent_futures)")
        return NO_TESTS
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite(name, found))
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
