"""mpims with its compiled modules: they say what their source says, and real ranks are killed under them.

The copy is built once, with the tests of the compiled modules beside it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment

BUILD_LIMIT_S = 240
LIMIT_S = 180
TESTS = ["scheduler", "scheduler_batches", "ledger", "ranges", "simulate_agenda", "simulate_engine"]
STUDY = {
    "policy": "all",
    "dist": "gamma",
    "cov": 1.8,
    "items": 3000,
    "workers": "3,20",
    "overhead": 1e-3,
    "latency": 1e-4,
    "service": 1e-4,
    "slow": "2:3x",
    "fail": "1@40%",
}

pytestmark = pytest.mark.timeout(BUILD_LIMIT_S + LIMIT_S)


def run(folder: Path, *command: str, limit_s: float = LIMIT_S, **environ: str) -> str:
    """Run Python in a folder, whose mpims it and all its children take; give what it prints."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**clean_environment(), "PYTHONPATH": str(folder), **environ},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert done.returncode == 0, (
        f"{command}: status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    )
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mpims as it is installed with ``MPIMS_COMPILE=1``, and the tests."""
    if shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no C compiler, or not the headers of this Python")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "mpims", source / "mpims", ignore=shutil.ignore_patterns("__pycache__"))
    build = ["setup.py", "-q", "build", "--build-lib", str(built)]
    run(source, *build, limit_s=BUILD_LIMIT_S, MPIMS_COMPILE="1")
    for name in ("tests", "jobs"):
        shutil.copytree(ROOT / name, built / name)
    shutil.copy(ROOT / "pyproject.toml", built)
    return built


def test_modules_are_compiled(built: Path) -> None:
    names = [path.relative_to(built).as_posix() for path in built.rglob("mpims/**/*.so")]
    modules = [name.partition(".")[0].replace("/", ".") for name in names]
    assert "mpims.core.scheduler" in modules
    for module in modules:
        assert run(built, "-c", f"import {module} as m; print(m.__file__)").endswith(".so\n"), module


def test_a_simulation_says_the_same(built: Path) -> None:
    simulate = [
        "-m",
        "mpims",
        "simulate",
        "--json",
        *(f"--{name}={value}" for name, value in STUDY.items()),
    ]
    assert json.loads(run(built, *simulate)) == json.loads(run(ROOT, *simulate))


def test_what_is_tested_of_the_source_is_so(built: Path) -> None:
    of_the_code = "not published and not really"  # the others are of formulas, and of the seeds
    pytest_here = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", of_the_code]
    units = [f"tests/unit/test_{name}.py" for name in TESTS]
    run(built, *pytest_here, "tests/simulation", *units)


def test_ranks_are_killed_and_the_bits_are_the_same(built: Path) -> None:
    said = json.loads(
        run(built, "-m", "mpims", "drill", "jobs/pi.py", "-n", "4", "--set", "samples=500", "--json")
    )
    assert said["survived"], said
