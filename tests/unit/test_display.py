"""What stands on a terminal while a run goes on and afterwards, as an emulated terminal shows it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
from dataclasses import replace

import pyte
import pytest

from mpims.report.display import LiveDisplay
from mpims.report.status import Status, status_lines

STATUS = Status(
    job="Squares(n=1000)",
    n_items=1000,
    n_done=610,
    n_skipped=2,
    work=0.583,
    rate=98.12,
    elapsed_s=62.0,
    left_s=40.0,
    walltime_left_s=7800.0,
    n_ranks=65,
    n_workers=64,
    n_joined=63,
    n_busy=62,
    suspects={"3": "node02"},
    lost={"9": "node05"},
    n_chunks=90,
    n_reissued=17,
    n_failures=4,
    n_timeouts=1,
    last="rank 9 (node05) lost",
    last_at=0.0,
    process={},
    written_at=0.0,
)


class Terminal:
    """A terminal that shows what is written to it."""

    def __init__(self, columns: int, lines: int = 12) -> None:
        self._master, self._slave = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.resize(columns, lines)
        self.file = open(os.ttyname(self._slave), "w")  # noqa: SIM115 - closed below

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def flow(self, goes: bool) -> None:
        """Type Ctrl-S or Ctrl-Q."""
        termios.tcflow(self._slave, termios.TCOON if goes else termios.TCOOFF)

    @property
    def text(self) -> list[str]:
        """The lines that hold something."""
        while select.select([self._master], [], [], 0.05)[0]:
            self._stream.feed(os.read(self._master, 10_000))
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def close(self) -> None:
        self.file.close()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def terminal(monkeypatch):
    """Makes terminals of some size."""
    monkeypatch.setenv("TERM", "xterm-256color")
    made = []

    def make(columns: int, lines: int = 12) -> Terminal:
        made.append(Terminal(columns, lines))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_all_of_it_on_a_wide_terminal(terminal):
    wide = terminal(100)
    LiveDisplay(wide.file).show(STATUS)
    title, bar, *rest = wide.text
    assert title == "Squares(n=1000)"
    assert bar.endswith(" 61%")
    assert rest[:3] == [
        "610/1,000 items  58.3% of the work  98.12 items/s",
        "about 40.0 s left  walltime 2:10:00 left  1:02 gone",
        "62 of 64 workers busy  1 lost  1 suspect  2 items failed  17 reissued  4 failures",
    ]
    assert rest[3].endswith("rank 9 (node05) lost")
    assert not wide.screen.cursor.hidden


def test_a_narrow_terminal_gets_what_matters_most(terminal):
    narrow = terminal(40)
    LiveDisplay(narrow.file).show(STATUS)
    assert narrow.text[2:5] == [
        "610/1,000 items  58.3% of the work",
        "about 40.0 s left",
        "62 of 64 workers busy  1 lost",
    ]


@pytest.mark.parametrize("columns", [1, 5, 20, 40, 80, 300])
def test_no_line_is_broken(columns):
    assert all(len(line) <= columns for line in status_lines(STATUS, columns))


def test_it_is_renewed_in_place_and_leaves_nothing(terminal):
    screen = terminal(60)
    screen.file.write("$ mpims run\r\n")
    screen.file.flush()
    display = LiveDisplay(screen.file)
    for n_done in range(0, 1000, 100):
        display.show(replace(STATUS, n_done=n_done))
        assert len(screen.text) == 7
    assert "900/1,000 items" in screen.text[3]
    display.end()
    assert screen.text == ["$ mpims run"]
    assert (screen.screen.cursor.y, screen.screen.cursor.x) == (1, 0)


def test_what_is_noted_stands_above_it_and_stays(terminal):
    screen = terminal(60)
    display = LiveDisplay(screen.file)
    display.show(STATUS)
    display.note("rank 9 (node05) lost")
    assert screen.text[:2] == ["mpims: rank 9 (node05) lost", "Squares(n=1000)"]
    display.end()
    assert screen.text == ["mpims: rank 9 (node05) lost"]


@pytest.mark.parametrize("sizes", [(80, 120), (80, 81, 79, 120)])
def test_the_terminal_may_change_its_size(terminal, sizes):
    screen = terminal(80, 24)
    display = LiveDisplay(screen.file)
    for columns in sizes:
        screen.resize(columns, 24)
        display.show(STATUS)
    assert len(screen.text) == 6
    assert screen.text[1].endswith("61%")


def test_what_a_narrower_terminal_breaks_is_taken_back(terminal):
    screen = terminal(80, 24)
    display = LiveDisplay(screen.file)
    display.show(STATUS)
    n_before = [len(line) for line in screen.text]
    screen.resize(40, 24)
    # As a terminal does that breaks lines: each of more than 40 columns stands on two.
    n_more = sum(-(-n // 40) - 1 for n in n_before)
    assert n_more == 4
    screen.screen.cursor.y += n_more
    display.show(STATUS)
    assert screen.text[0] == "Squares(n=1000)"
    assert len(screen.text) == 6


def test_a_low_terminal_shows_the_first_lines(terminal):
    low = terminal(80, 5)
    display = LiveDisplay(low.file)
    for _ in range(5):
        display.show(STATUS)
    assert low.text[0] == "Squares(n=1000)"
    assert len(low.text) == 3


def test_a_terminal_that_takes_nothing_does_not_hold_the_run_up(terminal):
    screen = terminal(80)
    display = LiveDisplay(screen.file)
    display.show(STATUS)
    assert len(screen.text) == 6
    screen.flow(False)
    for _ in range(5000):  # several times what a terminal holds
        display.show(STATUS)
    display.note("meanwhile")
    screen.flow(True)
    display.show(replace(STATUS, n_done=700))
    assert screen.text[0] == "mpims: meanwhile"
    assert "700/1,000 items" in screen.text[3]


def test_a_run_of_a_moment_shows_none(terminal):
    screen = terminal(80)
    display = LiveDisplay(screen.file)
    display.show(replace(STATUS, elapsed_s=0.0))
    display.end()
    assert screen.text == []


def test_too_little_walltime_is_red(terminal):
    screen = terminal(80)
    LiveDisplay(screen.file).show(replace(STATUS, walltime_left_s=30.0))
    row = next(i for i, line in enumerate(screen.text) if "walltime" in line)
    assert screen.screen.buffer[row][0].fg == "red"
