"""What the progress says, on a terminal and in a file; time is an argument."""

from __future__ import annotations

import fcntl
import io
import os
import platform
import pty
import struct
import termios

import pytest

from mpims.report.progress import TextProgress, fitted, name_terminal, open_terminal


def show(stream, times: list[float]) -> None:
    """Look at a run at these times; ten items are done a second."""
    progress = TextProgress(stream)
    progress.begin(1000, 2, 100.0)
    for now in times:
        progress.update(int(10 * now), 2, 100.0 + now)
    progress.end()


@pytest.fixture
def terminal():
    """Both ends of a terminal of 40 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with open(slave, "w") as stream:
        yield master, stream
    os.close(master)


def test_a_file_gets_a_line_now_and_then():
    stream = io.StringIO()
    show(stream, [0.1 * i for i in range(1000)])
    lines = stream.getvalue().splitlines()
    assert lines[0] == "mpims: 5%  about 1:35 left  50/1,000 items  5.0 s gone  10 items/s"
    assert len(lines) == 5  # after 5, 10, 20, 40 and 70 s


def test_a_terminal_gets_one_line_that_is_renewed_and_cleared(terminal):
    master, stream = terminal
    show(stream, [0.1 * i for i in range(100)])
    text = ""
    while text.count("\r\x1b[K") < 20:  # a terminal hands on pieces; the test's time limit is the bound
        text += os.read(master, 10_000).decode()
    shown = text.split("\r\x1b[K")
    assert shown[0] == shown[-1] == ""
    assert shown[-2] == "10%  about 1:30 left  95/1,000 items"


def test_the_terminal_is_found_again_by_name(terminal):
    master, stream = terminal
    name = name_terminal(stream)
    assert name is not None
    with open_terminal(name) as again:
        again.write("here")
    assert os.read(master, 100) == b"here"
    assert open_terminal(name.replace(platform.node(), "elsewhere", 1)) is None
    assert open_terminal(platform.node() + ":/dev/nowhere") is None
    assert open_terminal(None) is None


def test_a_file_is_no_terminal(tmp_path):
    with open(tmp_path / "log", "w") as stream:
        assert name_terminal(stream) is None


@pytest.mark.parametrize("width", range(1, 80))
def test_whole_fields_are_dropped_from_the_end(width):
    fields = ["60%", "about 40.0 s left", "600/1,000 items", "1:00 gone", "10 items/s"]
    line = fitted(fields, width)
    assert len(line) <= width
    full = "  ".join(fields)
    assert full.startswith(line)
    if width >= 3:
        assert line == full or full[len(line) : len(line) + 2] == "  "
