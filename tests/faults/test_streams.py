"""Standard output and standard error that are closed, full, or have lost their reader."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpims.storage.manifest import FORMAT
from mpims.streams import complain, say, settle, show, take_any_text
from tests.conftest import HARD_LIMIT_S, clean_environment

pytestmark = pytest.mark.timeout(HARD_LIMIT_S)

SQUARES = "def kernel(self, items):\n    return np.asarray(items) ** 2"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of Bash in which ``MPIMS`` is the command, and ``GONE`` a pipe that nobody reads."""
    gone, end = os.pipe()
    os.close(gone)
    try:
        return subprocess.run(
            ["bash", "-c", line.replace("MPIMS", f"{sys.executable} -m mpims").replace("GONE", f"&{end}")],
            cwd=folder,
            env={**clean_environment(), "PYTHONUNBUFFERED": ""},
            pass_fds=[end],
            capture_output=True,
            text=True,
            timeout=HARD_LIMIT_S,
            check=False,
        )
    finally:
        os.close(end)


# -------------------------------------------------------------------- standard error


@pytest.mark.parametrize("options", ["2>/dev/full", "2>GONE", "2>&-", "-n 2 2>GONE", "-n 2 <&- >&- 2>&-"])
def test_what_cannot_be_told_does_not_end_the_run(options, write_job, tmp_path):
    write_job(SQUARES)
    done = shell(f"MPIMS run x.py --run-dir r {options}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "done"


def test_an_error_that_cannot_be_told_keeps_its_status(write_job, tmp_path):
    write_job("def kernel(self, items):\n    return no_such_name")
    assert shell("MPIMS run x.py 2>/dev/full", tmp_path).returncode == 1
    assert shell("MPIMS run y.py 2>GONE", tmp_path).returncode == 2


def test_no_file_of_the_run_gets_the_place_of_a_closed_stream(write_job, tmp_path):
    write_job("def setup(self):\n    os.write(1, bytes(9)); os.write(2, b'\\6' * 99)\n" + SQUARES)
    done = shell("MPIMS run x.py --run-dir r --prints terminal >&- 2>&-", tmp_path)
    assert done.returncode == 0
    assert all(b"\6" * 99 not in path.read_bytes() for path in (tmp_path / "r").iterdir() if path.is_file())


def test_a_program_without_standard_error_computes(write_job, tmp_path):
    """As under some daemons, where Python has None in its place; nothing goes to standard output then."""
    write_job(SQUARES)
    code = "import mpims, x; print(len(mpims.run(x.X(), run_dir='r').value))"
    done = shell(f'{sys.executable} -c "{code}" 2>&-', tmp_path)
    assert (done.returncode, done.stdout) == (0, "100\n")


def test_a_stream_that_is_none_or_closed_is_told_nothing(monkeypatch, tmp_path):
    for stream in (None, (tmp_path / "closed").open("w"), open("/dev/full", "w")):  # noqa: SIM115
        if stream is not None and stream.name != "/dev/full":
            stream.close()
        monkeypatch.setattr(sys, "stderr", stream)
        say("one line")
        complain("some\nlines")
        if stream is not None:
            settle(stream)
            stream.close()


# ------------------------------------------------------------------- standard output

FULL = "mpims: cannot write standard output: No space left on device\n"


@pytest.mark.parametrize(
    "command", ["run x.py --json --quiet", "run x.py --json --quiet -n 2", "policies", "--help", "status r"]
)
def test_what_a_command_is_there_to_print_must_be_written_unless_nobody_reads_it(
    command, write_job, tmp_path
):
    write_job(SQUARES)
    if command == "status r":
        shell("MPIMS run x.py --run-dir r --quiet", tmp_path)
    full = shell(f"MPIMS {command} >/dev/full", tmp_path)
    assert (full.returncode, full.stderr) == (1, FULL)
    if "-n" not in command:
        unread = shell(f"MPIMS {command} >GONE", tmp_path)
        assert (unread.returncode, unread.stderr) == (0, "")


def test_what_the_jobs_own_code_prints_does_not_decide_how_a_run_ended(write_job, tmp_path):
    write_job(f"{SQUARES}\ndef finish(self, result):\n    print('finished')")
    full = shell("MPIMS run x.py --quiet >/dev/full", tmp_path)
    assert (full.returncode, full.stderr) == (0, FULL)
    unread = shell("MPIMS run x.py --quiet >GONE", tmp_path)
    assert (unread.returncode, unread.stderr) == (0, "")
    told = shell("MPIMS run x.py --json 2>/dev/full", tmp_path)
    assert json.loads(told.stdout)["status"] == "done"


# -------------------------------------------------------------------- characters


@pytest.mark.parametrize(("name", "tell"), [("stdout", show), ("stderr", complain)])
def test_a_stream_that_lacks_a_character_shows_it_another_way(name, tell, monkeypatch):
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding="ascii", errors="backslashreplace", write_through=True)
    monkeypatch.setattr(sys, name, stream)
    take_any_text()
    tell("38 \N{MICRO SIGN}s for \N{LATIN SMALL LETTER E WITH ACUTE} in \udcff")
    assert content.getvalue() == b"38 us for \\xe9 in \xff\n"  # the last is a byte of a file's name


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_command_prints_a_name_that_its_encoding_lacks(encoding, tmp_path):
    for name in ("\N{LATIN SMALL LETTER E WITH ACUTE}", "\udcff"):
        folder = tmp_path / f"r{name}"
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "job": "Squares"}))
    done = shell(
        f"for run in r*; do PYTHONIOENCODING={encoding} MPIMS status $run >>told || exit; done", tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
