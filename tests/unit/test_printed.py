"""What a kernel prints: labelled, kept, bounded, and no trouble where nothing is printed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mpims
from mpims.errors import UsageError
from mpims.options import RunOptions
from mpims.runtime import printed as module
from mpims.runtime.printed import Printed


class Label:
    """What is computed at the moment."""

    text = "setup"

    def __call__(self) -> str:
        return self.text


@pytest.fixture
def label():
    return Label()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "output" / "rank-3.txt"


@pytest.fixture
def printed(path, label):
    made = Printed(path, "rank 3 (node02)", label)
    yield made
    made.close()


def body(path: Path) -> str:
    """What the file says below its first line."""
    first, rest = path.read_text().split("\n", 1)
    assert first.startswith("--- rank 3 (node02), process ")
    return rest


def test_every_line_is_labelled_with_what_was_computed(printed, path, label, capsys):
    with printed:
        print("reading")
        label.text = "items [0, 4)"
        print("one\n\nthree", file=sys.stderr)
        print("part", end="")
        print(", the rest")
    lines = body(path).splitlines()
    assert lines == [
        "setup: reading",
        "items [0, 4): one",
        "items [0, 4): ",
        "items [0, 4): three",
        "items [0, 4): part, the rest",
    ]
    assert capsys.readouterr().out == ""


def test_without_a_print_there_is_no_file(printed, tmp_path):
    with printed:
        sys.stdout.write("")
        sys.stdout.flush()
    printed.close()
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_is_given_back(printed, capsys):
    before = sys.stdout, sys.stderr
    for _ in range(3):
        with printed:
            print("in")
        print("out")
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "out\n" * 3


def test_a_line_is_in_the_file_at_once(printed, path):
    with printed:
        print("last words")
        pid = os.fork()
        if pid == 0:
            print("of a child")
            os._exit(0)
        os.waitpid(pid, 0)
        assert body(path) == "setup: last words\nsetup: of a child\n"


def test_an_unfinished_line_is_there_in_the_end(printed, path):
    with printed:
        print("90 %", end="")
    printed.close()
    assert body(path) == "setup: 90 %"


def test_a_later_rank_goes_on_in_the_same_file(printed, path, label):
    with printed:
        print("first")
    printed.close()
    with Printed(path, "rank 3 (node07)", label) as later:
        print("second")
    later.close()
    lines = path.read_text().splitlines()
    assert [line for line in lines if not line.startswith("---")] == ["setup: first", "setup: second"]
    assert lines[2].startswith("--- rank 3 (node07), process ")


def test_it_is_bounded_and_says_so(printed, path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    with printed:
        for i in range(1000):
            print("line", i)
    text = path.read_text()
    assert len(text) < 10_100
    assert text.endswith("--- 10,000 bytes are the limit: what follows is not kept\n")
    assert text.count("the limit") == 1


def test_a_disk_that_takes_nothing_costs_no_item(label, capfd, tmp_path):
    printed = Printed(tmp_path / "not" / "here" / "rank-3.txt", "rank 3", label)
    with printed:
        print("still heard")
    assert "setup: still heard" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_the_users_code_puts_there_stays(printed, path, tmp_path):
    with printed, open(tmp_path / "own", "w") as own:
        sys.stdout = own
        printed.__exit__()
        with printed:
            print("mine", flush=True)
        assert (tmp_path / "own").read_text() == "mine\n"
        printed._out = sys.__stdout__


def test_odd_text_is_kept(printed, path):
    with printed:
        print("\ud800 é")
        sys.stdout.buffer.write(b"\xff\n")
        sys.stdout.flush()
        sys.stdout.close()
        print("and on")
    assert path.read_bytes().endswith(b"setup: \\ud800 \xc3\xa9\nsetup: \xff\nsetup: and on\n")


# ---------------------------------------------------------------------------- in a run


class Loud(mpims.Job):
    """Prints on each block."""

    block = 5

    def items(self):
        return 20

    def setup(self):
        print("ready")

    def kernel(self, items):
        print("from", items[0])
        return np.asarray(items)


def test_a_run_keeps_what_its_kernel_prints(tmp_path, capfd):
    outcome = mpims.run(Loud(), run_dir=tmp_path / "r")
    names = [entry.name for entry in (tmp_path / "r" / "output").iterdir()]
    assert names == ["rank-0.txt"]
    lines = (tmp_path / "r" / "output" / "rank-0.txt").read_text().splitlines()
    assert lines[1:] == ["setup: ready", *(f"items [{i}, {i + 5}): from {i}" for i in range(0, 20, 5))]
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("what the job printed is in") == 1
    assert outcome.summary["status"] == "done"


class Starting(Loud):
    """Asks for the file of standard error, as multiprocessing does when it begins a process by spawn."""

    def setup(self):
        sys.stderr.fileno()

    def kernel(self, items):
        return np.asarray(items)


def test_a_file_that_was_only_asked_for_is_not_said_to_have_prints(tmp_path, capfd):
    mpims.run(Starting(), run_dir=tmp_path / "r")
    assert (tmp_path / "r" / "output" / "rank-0.txt").read_text() == ""
    assert "what the job printed" not in capfd.readouterr().err


def test_or_lets_it_pass(tmp_path, capfd):
    mpims.run(Loud(), run_dir=tmp_path / "r", prints="terminal", quiet=True)
    assert capfd.readouterr().out.startswith("ready\nfrom 0\n")
    assert not (tmp_path / "r" / "output").exists()


def test_there_is_no_third_place():
    with pytest.raises(UsageError, match="file or terminal, found 'printer'"):
        RunOptions(prints="printer")
    with pytest.raises(UsageError, match="above 0, found 0"):
        RunOptions(log_every_s=0)


def test_taking_prints_costs_next_to_nothing(printed):
    """A burst of blocks takes 100 µs at the least."""
    fastest = 1.0
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(1000):
            with printed:
                pass
        fastest = min(fastest, (time.perf_counter() - began) / 1000)
    assert fastest < 5e-6
