"""Make the environment that the benchmarks run in: ``.venv-bench``, with an MPI, mpims and its peers.

Needs nothing but Python. What is there already is used as it is, until the requirements change. A peer
that cannot be installed is noted with the reason; without the base there is an error. mpims is built once
more into a folder there, compiled, whenever its source has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-bench"
PYTHON = ENVIRONMENT / "bin" / "python"
NOTE = ENVIRONMENT / "installed.json"
COMPILED = ENVIRONMENT / "compiled"
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"
LIMIT_S = 900


def requirements() -> tuple[list[str], list[str]]:
    """The lines of the base and those of the peers."""
    text = REQUIREMENTS.read_text()
    base, _, peers = text.partition("# the peers")
    lines = [
        [line.strip() for line in part.splitlines()[1:] if line.strip() and not line.startswith("#")]
        for part in (base, peers)
    ]
    return lines[0], lines[1]


def run(*arguments: str, **environ: str) -> str | None:
    """Run the environment's Python; give the last line of the error if that fails."""
    try:
        done = subprocess.run(
            [str(PYTHON), *arguments],
            cwd=ROOT,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT_S} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no reason given"]
    return ([line for line in lines if line.startswith("ERROR")] or lines)[-1]


def pip_install(*arguments: str) -> str | None:
    """Install something; give the last line of the error if that fails."""
    return run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)


def install() -> dict[str, str]:
    """Install everything; give the peers that could not be, with the reason."""
    base, peers = requirements()
    # A plain path instead of an import hook, which would cost every Python of the environment files.
    error = pip_install(*base, "--editable", str(ROOT), "--config-settings", "editable_mode=compat")
    if error:
        raise SystemExit(f"the environment of the benchmarks cannot be made: {error}")
    if pip_install(*peers) is None:
        return {}
    failures = {peer: pip_install(peer) for peer in peers}
    return {peer: error for peer, error in failures.items() if error}


def build_compiled() -> None:
    """Build mpims, compiled, if its source is another; where that fails there is none, and it is said."""
    sources = [ROOT / "setup.py", *sorted((ROOT / "mpims").rglob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    mark = COMPILED / "source.sha256"
    if mark.exists() and mark.read_text() == digest:
        return
    shutil.rmtree(COMPILED, ignore_errors=True)
    print("compiling the modules that a simulation waits for", flush=True)
    error = run("setup.py", "-q", "build", "--build-lib", str(COMPILED), MPIMS_COMPILE="1")
    if error:
        shutil.rmtree(COMPILED, ignore_errors=True)
        print(f"not compiled: {error}")
    else:
        mark.write_text(digest)


def main() -> None:
    """Make what is missing, or of other requirements, or of another source."""
    make_environment()
    build_compiled()


def make_environment() -> None:
    """Make the environment if it is missing or of other requirements."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + (ROOT / "setup.cfg").read_bytes()).hexdigest()
    if NOTE.exists() and json.loads(NOTE.read_text())["requirements"] == wanted:
        return
    print("installing the peers into .venv-bench (once; some minutes)", flush=True)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    (ENVIRONMENT / ".gitignore").write_text("*\n")
    missing = install()
    for peer, error in missing.items():
        print(f"not installed: {peer}: {error}")
    NOTE.write_text(json.dumps({"requirements": wanted, "missing": missing}, indent=2))


if __name__ == "__main__":
    main()
