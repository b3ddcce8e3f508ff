"""What several test files use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HARD_LIMIT_S = 60


@pytest.fixture
def jobs_dir() -> Path:
    """The folder of the jobs that ship."""
    return ROOT / "jobs"


@pytest.fixture
def mpims_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m mpims`` in an empty folder, as a user would, under a hard time limit."""

    def run(
        *arguments: str | Path, cwd: Path = tmp_path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mpims", *map(str, arguments)],
            cwd=cwd,
            env={**clean_environment(), **(env or {})},
            capture_output=True,
            text=True,
            timeout=HARD_LIMIT_S,
            check=False,
        )

    return run


def clean_environment() -> dict[str, str]:
    """The environment without a launcher's variables, should the tests run under one."""
    ours = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPIMS_", "SLURM_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def write_job(tmp_path: Path) -> Callable[..., Path]:
    """Write a job file; `body` is what stands in the class below ``items``."""

    def write(body: str, name: str = "x.py", head: str = "", items: str = "100") -> Path:
        indented = "\n".join("    " + line for line in body.strip("\n").split("\n"))
        path = tmp_path / name
        path.write_text(
            f"import sys, os, time\nimport numpy as np\nimport mpims\n{head}\n\n"
            f"class X(mpims.Job):\n    def items(self):\n        return {items}\n\n{indented}\n"
        )
        return path

    return write
