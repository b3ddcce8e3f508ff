"""What the progress says, writes and notices; time is an argument."""

from __future__ import annotations

import fcntl
import io
import json
import os
import platform
import pty
import re
import struct
import termios

import pytest

from mpims.report.pace import Pace
from mpims.report.progress import (
    LOOK_SHARE,
    Progress,
    make_view,
    name_terminal,
    open_terminal,
)
from mpims.report.status import Sight
from mpims.report.views import LogLines, View
from mpims.report.wording import fitted, shorten

FIGURES = {"busy_s": {}, "n_skipped": 0, "n_chunks": 0, "n_reissued": 0, "n_failures": 0, "n_timeouts": 0}
SIGHT = Sight(
    n_items=1000,
    n_done=0,
    n_workers=3,
    n_joined=3,
    n_busy=3,
    hosts={1: "n1", 2: "n2", 3: "n2"},
    suspects=set(),
    lost=set(),
    figures=FIGURES,
)


class Notes(View):
    """Keeps what it is told."""

    def __init__(self):
        self.statuses, self.notes = [], []

    def show(self, status):
        self.statuses.append(status)

    def note(self, text):
        self.notes.append(text)


class Run:
    """A run that can be looked at; ten items are done a second."""

    def __init__(self, view: View, **options):
        options = {"cpu_clock": lambda: 0.0, "clock": lambda: 0.0, "job": "X()", "n_ranks": 4, **options}
        self.sight = SIGHT
        self.progress = Progress(lambda: view, **options)
        self.progress.begin(lambda: self.sight, 100.0)

    def at(self, second: float, **changes):
        figures = {**FIGURES, "busy_s": {"1": 2.0 * second, "2": second}}
        self.sight = self.sight._replace(n_done=min(1000, int(10 * second)), figures=figures)
        self.sight = self.sight._replace(**changes)
        self.progress.update(100.0 + second)


# ------------------------------------------------------------------------------- a log


def test_a_log_gets_lines_of_fixed_fields_sooner_at_first():
    stream = io.StringIO()
    run = Run(LogLines(stream, 30.0))
    for tenths in range(1000):
        run.at(0.1 * tenths)
    lines = stream.getvalue().splitlines()
    assert [re.search(r"gone=(\S+)", line)[1] for line in lines] == [
        f"0:{s // 60:02}:{s % 60:02}" for s in (5, 10, 20, 40, 70)
    ]
    assert re.fullmatch(
        r"mpims: time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d done=7\.0% items=70/1000 work=7\.0% rate=10/s "
        r"gone=0:00:07 left=0:01:33 walltime=- busy=3/3 suspect=0 lost=0 reissued=0 failures=0 skipped=0 "
        r"last=-",
        one_line_at(7.0),
    )
    assert len({tuple(re.findall(r"(\w+)=", line)) for line in lines}) == 1


def one_line_at(second: float) -> str:
    stream = io.StringIO()
    run = Run(LogLines(stream, 1.0))
    for s in range(1, int(second) + 1):
        run.at(float(s))
    return stream.getvalue().splitlines()[-1]


@pytest.mark.timeout(5)
def test_a_log_that_is_wanted_all_the_time_holds_nothing_up():
    stream = io.StringIO()
    run = Run(LogLines(stream, 1e-12))
    for s in (1.0, 2.0, 86400.0):
        run.at(s)
    assert stream.getvalue().count("\n") == 3


def test_never_all_before_the_end():
    stream = io.StringIO()
    run = Run(LogLines(stream, 1.0))
    run.at(1.0, n_items=10**9, n_done=10**9 - 1)
    assert "done=99.9%" in stream.getvalue()


def test_what_happened_last_stays_in_its_quotes():
    stream = io.StringIO()
    run = Run(LogLines(stream, 1.0))
    run.progress.happened('no "luck"\n\x1b[2J')
    run.at(2.0)
    assert "last=\"no 'luck' ?[2J\"\n" in stream.getvalue()


# ---------------------------------------------------------------------- what it notices


def test_ranks_that_die_fall_silent_and_come_back_are_named_once_with_their_hosts():
    view = Notes()
    run = Run(view)
    run.at(1.0, lost={2})
    run.at(2.0, lost={2}, suspects={1, 3})
    run.at(3.0, suspects={1})
    run.at(4.0, suspects={1})
    assert view.notes == [
        "rank 2 (n2) lost: what was under way there is computed elsewhere",
        "rank 1 (n1), rank 3 (n2) silent past the deadline: what was under way there goes to others",
        "rank 3 (n2) heard of again",
    ]
    assert view.statuses[-1].last == "rank 3 (n2) heard of again"
    assert view.statuses[-1].lost == {"2": "n2"}


def test_a_rank_that_dies_while_it_is_silent_is_not_heard_of_again():
    view = Notes()
    run = Run(view)
    run.at(1.0, suspects={1})
    run.at(2.0, suspects=set(), lost={1})
    assert [note.split()[3] for note in view.notes] == ["silent", "lost:"]


def test_what_was_lost_before_this_master_is_no_news_and_has_its_host():
    view = Notes()
    progress = Progress(lambda: view, job="X()", n_ranks=4, hosts={0: "n0"})
    progress.begin(lambda: SIGHT._replace(lost={0}), 0.0)
    progress.update(5.0)
    assert view.notes == []
    assert view.statuses[-1].lost == {"0": "n0"}


def test_a_view_that_is_gone_does_not_end_the_run():
    class Gone(View):
        def show(self, status):
            raise OSError(5, "Input/output error")

    run = Run(Gone())
    run.at(1.0)
    run.progress.note("still there")
    run.progress.end(103.0)


def test_the_walltime_left_is_told(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 5000.0)
    view = Notes()
    Run(view, end_time_s=8600.0).at(1.0)
    assert view.statuses[-1].walltime_left_s == 3600.0


# ---------------------------------------------------------------------------- its cost


def test_a_look_that_is_dear_is_taken_less_often():
    spent = iter(range(10_000))
    view = Notes()
    run = Run(view, cpu_clock=lambda: next(spent) * 0.1)  # a tenth of a second each
    for tenths in range(1000):
        run.at(0.1 * tenths)
    assert len(view.statuses) == 1 + int(99.9 // (0.1 / LOOK_SHARE))


def test_the_file_is_written_at_once_sooner_at_first_and_at_the_end(tmp_path):
    path = tmp_path / "status.json"
    run = Run(View(), path=path)
    written = []
    for second in range(41):
        before = json.loads(path.read_text())["elapsed_s"]
        run.at(float(second))
        if json.loads(path.read_text())["elapsed_s"] != before:
            written.append(second)
    assert written == [1, 2, 4, 8, 13, 18, 23, 28, 33, 38]
    run.progress.end(142.0)
    assert json.loads(path.read_text())["elapsed_s"] == 42.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_a_file_system_that_is_slow_is_asked_less_often(tmp_path):
    passed = iter(range(10_000))
    path = tmp_path / "status.json"
    run = Run(View(), path=path, clock=lambda: next(passed) * 0.02)  # 20 ms for each write: 20 s apart
    for second in range(20):
        run.at(float(second))
    assert json.loads(path.read_text())["elapsed_s"] == 0.0
    run.at(20.0)
    assert json.loads(path.read_text())["elapsed_s"] == 20.0


def test_a_folder_that_takes_no_file_does_not_end_the_run(tmp_path):
    run = Run(View(), path=tmp_path / "nowhere" / "status.json")
    run.at(10.0)
    run.progress.end(111.0)


# -------------------------------------------------------------------------------- pace


def test_the_rate_is_that_of_late():
    pace = Pace()
    for second in range(101):
        pace.add(float(second), 10 * second, 1.0 * second)
    for second in range(101, 141):
        pace.add(float(second), 1000 + (second - 100), 1.0 * second)
    assert pace.rate == pytest.approx(1.0)
    assert pace.left_s(1140) == pytest.approx(100.0)
    # 100 items to come, one second each, after 140 s of work
    assert pace.work(1140) == pytest.approx(140 / 240)


def test_what_was_done_before_has_no_part_in_the_rate():
    pace = Pace()
    pace.add(0.0, 500, 50.0)
    assert (pace.rate, pace.left_s(1000), pace.work(1000)) == (None, None, None)
    pace.add(10.0, 600, 60.0)
    assert pace.rate == 10.0
    assert pace.left_s(1000) == 40.0
    assert pace.work(1000) == pytest.approx(0.6)


def test_nothing_came_back_of_late():
    pace = Pace()
    pace.add(0.0, 0, 0.0)
    pace.add(10.0, 100, 10.0)
    pace.add(1000.0, 100, 10.0)
    assert pace.rate == pytest.approx(0.1)


def test_memory_does_not_grow_with_the_run():
    pace = Pace()
    for second in range(100_000):
        pace.add(float(second), second, 1.0 * second)
    assert len(pace._points) <= 40


# --------------------------------------------------------------------------- terminals


@pytest.fixture
def terminal():
    """Both ends of a terminal of 40 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with open(slave, "w") as stream:
        yield master, stream
    os.close(master)


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
        assert isinstance(make_view(stream, 30.0), LogLines)


def test_a_terminal_that_knows_no_orders_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_view(terminal[1], 30.0), LogLines)


@pytest.mark.parametrize("width", range(1, 80))
def test_whole_fields_are_dropped_from_the_end(width):
    fields = ["60%", "about 40.0 s left", "600/1,000 items", "1:00 gone", "10 items/s"]
    line = fitted(fields, width)
    assert len(line) <= width
    full = "  ".join(fields)
    assert full.startswith(line)
    if width >= 3:
        assert line == full or full[len(line) : len(line) + 2] == "  "
    assert len(shorten(full, width)) <= width
