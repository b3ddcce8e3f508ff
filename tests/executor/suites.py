"""Where the tests of other executors are: named by the user, with this Python, or fetched into `.venv`.

mpi4py's are in its source distribution, which is unpacked and not built; CPython's are a package of
Debian's where the running Python was installed without them. What cannot be had raises `NotThere`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import ROOT

KEPT = ROOT / ".venv" / "foreign"
FETCH_S = 90


class NotThere(Exception):
    """There are no such tests, and why."""


def of_cpython() -> str | None:
    """The file or folder of CPython's tests of executors; None: this Python has them.

    Raises
    ------
    NotThere
    """
    told = os.environ.get("MPIMS_CPYTHON_TESTS")
    if told is not None:
        return told
    try:
        if find_spec("test.test_concurrent_futures") is not None:
            return None
    except ModuleNotFoundError:
        pass
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = _once(f"cpython-{name}", lambda folder: _fetch_cpython(name, folder))
    for where in sorted(found.glob("usr/lib/python3*/test/test_concurrent_futures*")):
        return str(where)
    raise NotThere("Debian's package of CPython's tests has no test_concurrent_futures")


def of_mpi4py() -> str:
    """The folder of a source distribution of the mpi4py that is installed.

    Raises
    ------
    NotThere
    """
    told = os.environ.get("MPIMS_MPI4PY_CHECKOUT")
    if told is not None:
        return told
    release = f"mpi4py-{version('mpi4py')}"
    return str(_once(release, lambda folder: _fetch_mpi4py(release, folder)) / release)


def _once(name: str, fetch: Callable[[Path], None]) -> Path:
    """Fetch into a folder unless that was done; it has its name only when it is whole."""
    kept = KEPT / name
    if not kept.is_dir():
        KEPT.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=KEPT) as scratch:
            fetch(Path(scratch))
            Path(scratch).rename(kept)
            Path(scratch).mkdir()  # for it to be removed
    return kept


def _fetch_mpi4py(release: str, folder: Path) -> None:
    name, number = release.split("-")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"]
    _run(
        "mpi4py's source",
        *pip,
        "download",
        "--no-deps",
        "--no-binary",
        name,
        f"{name}=={number}",
        at=folder,
    )
    with tarfile.open(folder / f"{release}.tar.gz") as archive:
        archive.extractall(folder, filter="data")


def _fetch_cpython(name: str, folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotThere("this Python has no test.test_concurrent_futures, and there is no apt-get")
    package = f"lib{name}-testsuite"
    download = ("apt-get", "-q", "download", package)
    try:
        _run(package, *download, at=folder)
    except NotThere:
        if os.geteuid() != 0:
            raise
        _run("apt's lists", "apt-get", "-q", "update", at=folder)
        _run(package, *download, at=folder)
    (archive,) = folder.glob("*.deb")
    _run(package, "dpkg-deb", "-x", str(archive), str(folder), at=folder)


def _run(what: str, *command: str, at: Path) -> None:
    try:
        done = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotThere(f"{what} did not come within {FETCH_S} s") from None
    if done.returncode:
        raise NotThere(f"{what} cannot be had: {done.stderr.strip().split(chr(10))[-1]}")
