"""What the progress says, on a terminal and in a file; time is an argument."""

from __future__ import annotations

import io

import pytest

from mpims.report.progress import TERMINAL_COLUMNS, TextProgress, terminal_columns


def lines(columns: int | None, times: list[float]) -> list[str]:
    """What is written when the run is looked at at these times, ten items done a second."""
    stream = io.StringIO()
    progress = TextProgress(stream, columns)
    progress.begin(1000, 2, 100.0)
    for now in times:
        progress.update(int(10 * now), 2, 100.0 + now)
    progress.end()
    text = stream.getvalue()
    return text.split("\r\x1b[K")[1:-1] if columns else text.splitlines()


def test_a_file_gets_a_line_now_and_then():
    found = lines(None, [0.1 * i for i in range(1000)])
    assert found[0] == "mpims: 5%  about 1:35 left  50/1,000 items  5.0 s gone  10 items/s"
    assert len(found) == 5  # after 5, 10, 20, 40 and 70 s


def test_a_terminal_gets_one_line_that_is_renewed():
    found = lines(100, [0.1 * i for i in range(100)])
    assert len(found) == 19
    assert found[-1].startswith("9%") or found[-1].startswith("10%")


@pytest.mark.parametrize("columns", range(1, 80))
def test_a_narrow_terminal_loses_whole_fields(columns):
    (found,) = lines(columns, [60.0])
    full = "60%  about 40.0 s left  600/1,000 items  1:00 gone  10 items/s"
    assert len(found) < max(columns, 1)
    assert full.startswith(found)
    if columns > 4:
        assert full == found or full[len(found) : len(found) + 2] == "  "


def test_nothing_is_left_on_the_terminal():
    stream = io.StringIO()
    progress = TextProgress(stream, 80)
    progress.begin(10, 1, 0.0)
    progress.update(1, 0, 5.0)
    assert "0 of 1 workers ready" in stream.getvalue()
    progress.end()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_the_launchers_pipe_may_lead_to_a_terminal(monkeypatch):
    monkeypatch.delenv(TERMINAL_COLUMNS, raising=False)
    assert terminal_columns(io.StringIO()) is None
    monkeypatch.setenv(TERMINAL_COLUMNS, "57")
    assert terminal_columns(io.StringIO()) == 57
