"""The file system of the run directory: room, speed, and whether all hosts see the same."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from mpims.doctor.finding import Finding, Verdict
from mpims.doctor.units import size_text, time_text
from mpims.report.wording import counted, name_rank

THEME = "run directory"
_CHOOSE = "choose another file system with --run-dir"

_LITTLE_BYTES, _NO_BYTES = 1 << 30, 64 << 20
_FEW_FILES, _NO_FILES = 1000, 16  # a run has some ten
_WRITE_BYTES, _WRITE_S = 64 << 20, 2.0
_SLOW_BYTES_S = 50e6
_N_COMMITS, _COMMITS_S, _SLOW_COMMIT_S = 16, 2.0, 0.1
_N_FILES, _FILES_S, _SLOW_FILE_S = 200, 2.0, 0.01
_SEEN_S = 5.0  # within which what one node wrote is to be seen by another: NFS asks every 3 s
_TOKEN = "token"


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder within that is removed afterwards, with all that is in it.

    Raises
    ------
    OSError
        It cannot be made.
    """
    with TemporaryDirectory(prefix=".mpims-doctor-", dir=folder, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def disk_findings(folder: Path) -> list[Finding]:
    """Room and speed of a folder's file system, measured there for some seconds at the most."""
    findings = [judge_room(folder, os.statvfs(folder), file_system(folder))]
    try:
        with scratch_folder(folder) as scratch:
            findings.append(judge_write(*_time_write(scratch / "large", _spared(folder))))
            findings.append(judge_commits(_time_commits(scratch / "journal")))
            findings.append(judge_files(_time_files(scratch)))
    except OSError as error:
        value = f"{folder} cannot be written to: {error.strerror}"
        findings.append(Finding(THEME, "write", value, Verdict.BAD, _write_cure(error)))
    return findings


def _write_cure(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"free some room or quota there, or {_CHOOSE}" if full else _CHOOSE


# ------------------------------------------------------------------------------ room


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that a folder lies in, as the kernel calls it; empty if it does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    folder = folder.resolve()
    depth, kind = 0, ""
    for line in lines:
        fields, _, behind = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]))
        if folder.is_relative_to(point) and len(point.parts) >= depth:  # the later lies over the earlier
            depth, kind = len(point.parts), behind.split()[0]
    return kind


def judge_room(folder: Path, room: os.statvfs_result, kind: str) -> Finding:
    """How much room there is, in bytes and in files."""
    n_bytes = room.f_bavail * room.f_frsize
    counts_files = room.f_files > 0  # some file systems make room for files as they need it
    value = f"{size_text(n_bytes)} free in {folder}{f' ({kind})' if kind else ''}"
    figures = {"path": str(folder), "free_bytes": n_bytes, "file_system": kind}
    cure = f"free some room there, or {_CHOOSE}"
    if n_bytes < _NO_BYTES:
        return Finding(THEME, "room", value, Verdict.BAD, cure, figures)
    if counts_files and room.f_favail < _FEW_FILES:
        verdict = Verdict.BAD if room.f_favail < _NO_FILES else Verdict.DOUBTFUL
        return Finding(
            THEME, "room", f"{value}, but for {room.f_favail} files only", verdict, cure, figures
        )
    if n_bytes < _LITTLE_BYTES:
        return Finding(THEME, "room", value, Verdict.DOUBTFUL, cure, figures)
    return Finding(THEME, "room", value, figures=figures)


def _spared(folder: Path) -> int:
    """How much may be written for a test: a small part of what is free."""
    room = os.statvfs(folder)
    return max(1 << 20, min(_WRITE_BYTES, room.f_bavail * room.f_frsize // 10))


# ----------------------------------------------------------------------------- speed


def _time_write(path: Path, n_bytes: int) -> tuple[int, float]:
    """Write so many bytes, and force them to the disk; give how many were written and the seconds."""
    piece = os.urandom(1 << 20)  # some file systems compress
    began = time.perf_counter()
    written = 0
    with path.open("wb", buffering=0) as file:
        while written < n_bytes and time.perf_counter() - began < _WRITE_S:
            written += file.write(piece)
        os.fsync(file.fileno())
    return written, time.perf_counter() - began


def judge_write(n_bytes: int, seconds: float) -> Finding:
    """How fast large results are written."""
    speed = n_bytes / seconds
    value = f"{size_text(speed)}/s, forced to the disk"
    figures = {"bytes_s": speed}
    if speed < _SLOW_BYTES_S:
        cure = f"large results wait for it: {_CHOOSE}, such as the scratch of your cluster"
        return Finding(THEME, "write", value, Verdict.DOUBTFUL, cure, figures)
    return Finding(THEME, "write", value, figures=figures)


def _time_commits(path: Path) -> float:
    """The usual seconds for one small record forced to the disk, as the journal does."""
    with path.open("wb", buffering=0) as file:

        def commit(i: int) -> None:
            file.write(bytes(100))
            os.fdatasync(file.fileno())

        return _usual_time(commit, _N_COMMITS, _COMMITS_S)


def judge_commits(seconds: float) -> Finding:
    """How long the journal takes to be on the disk; by default it is forced there once a second."""
    value = f"{time_text(seconds)} to force a record to the disk"
    figures = {"commit_s": seconds}
    if seconds > _SLOW_COMMIT_S:
        cure = f"{_CHOOSE}, or --durability 10: a machine that goes down may cost 10 s of results then"
        return Finding(THEME, "commit", value, Verdict.DOUBTFUL, cure, figures)
    return Finding(THEME, "commit", value, figures=figures)


def _time_files(folder: Path) -> float:
    """The usual seconds to make a small file, give it another name, and remove it."""

    def make(i: int) -> None:
        part, whole = folder / f"{i}.part", folder / str(i)
        part.write_bytes(b"x")
        part.rename(whole)
        whole.unlink()

    return _usual_time(make, _N_FILES, _FILES_S)


def judge_files(seconds: float) -> Finding:
    """How long small files take: many at a time, as at the start of a run with many ranks."""
    value = f"{time_text(seconds)} to make, rename and remove one"
    figures = {"file_s": seconds}
    if seconds > _SLOW_FILE_S:
        cure = (
            f"many ranks will start slowly from it: {_CHOOSE}, and keep Python elsewhere than on this one"
        )
        return Finding(THEME, "small files", value, Verdict.DOUBTFUL, cure, figures)
    return Finding(THEME, "small files", value, figures=figures)


def _usual_time(act: Callable[[int], None], n_times: int, limit_s: float) -> float:
    """The median of so many times, or of as many as there is time for."""
    times: list[float] = []
    while len(times) < n_times and sum(times) < limit_s:
        began = time.perf_counter()
        act(len(times))
        times.append(time.perf_counter() - began)
    return median(times)


# --------------------------------------------------------------------------- sharing


class Sight(Enum):
    """What another rank sees of a file that rank 0 made and locked."""

    LOCKED = "locked"
    UNLOCKED = "unlocked"
    """It got the lock that rank 0 holds."""
    LOCKLESS = "lockless"
    """The file system has no locks."""
    ABSENT = "absent"
    """The file is not there."""


@contextmanager
def held_token(folder: Path) -> Iterator[str]:
    """Make a file for the other ranks to see, and hold its lock; give its path."""
    with (folder / _TOKEN).open("wb") as file:
        with suppress(OSError):  # the others will find that there are no locks
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file.name


def look_at(path: str, limit_s: float = _SEEN_S) -> Sight:
    """Look for a file that another rank holds; what it wrote may take a moment to get here."""
    limit = time.monotonic() + limit_s
    while not os.path.exists(path):
        if time.monotonic() > limit:
            return Sight.ABSENT
        time.sleep(0.1)
    with open(path, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Sight.LOCKED if error.errno in (errno.EAGAIN, errno.EACCES) else Sight.LOCKLESS
    return Sight.UNLOCKED


def judge_sharing(here: str, sights: Mapping[str, Sight]) -> list[Finding]:
    """Whether hosts share the run directory, and the locks that keep two runs out of one.

    Parameters
    ----------
    here
        The host of rank 0.
    sights
        By host, what a rank of it sees, if there is one beside rank 0.
    """
    if not sights:
        return []
    blind = sorted(host for host, sight in sights.items() if sight is Sight.ABSENT)
    if blind:
        hosts = f"{', '.join(blind[:8])}{' ...' if len(blind) > 8 else ''}"
        value = f"no rank on {hosts} sees what {name_rank(0, here)} writes to the run directory"
        cure = "choose a folder that all nodes share with --run-dir: one of a node's own goes with the node"
        return [Finding("ranks", "shared", value, Verdict.BAD, cure, {"blind": blind})]
    hosts = counted(len(sights), "host")
    return [
        Finding("ranks", "shared", f"ranks on {hosts} see the run directory"),
        _judge_locks(here, sights),
    ]


def _judge_locks(here: str, sights: Mapping[str, Sight]) -> Finding:
    for sight, value in (
        (Sight.UNLOCKED, f"a lock that {name_rank(0, here)} holds in the run directory does not count"),
        (Sight.LOCKLESS, "the file system of the run directory has none"),
    ):
        host = next((host for host in sights if sights[host] is sight), None)
        if host is not None:
            cure = (
                "start no two runs in one run directory: only their heartbeat, every 10 s, tells them apart"
            )
            return Finding("ranks", "locks", f"{value} on {host}", Verdict.DOUBTFUL, cure)
    return Finding("ranks", "locks", "those in the run directory count for all ranks")
