"""The small files of a run directory: whole or not at all, and what is said of damaged ones."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from mpims.cli.main import make_parser
from mpims.errors import Stopped, UsageError
from mpims.report.announcement import advice_lines, resume_command
from mpims.storage.rundir import JOB, MANIFEST, create_run_dir, read_job, read_json, write_job, write_json


def test_json_comes_back(tmp_path):
    path = tmp_path / "x.json"
    value = {"a": [1, 2.5, None, True], "ü": "\udcff", "path": str(tmp_path)}
    write_json(path, value)
    assert read_json(path) == value
    write_json(path, {"of": Path("no JSON")})
    assert read_json(path) == {"of": "no JSON"}
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_folder_in_the_way_of_a_file_is_named(tmp_path):
    (tmp_path / "x.json.part").mkdir()
    with pytest.raises(
        Stopped, match=r"cannot write .*x\.json\.part: Is a directory; remove that folder and resume"
    ):
        write_json(tmp_path / "x.json", {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged: it is no JSON"),
        (b'{"a": 1', "is damaged: it is no JSON"),
        (b"\xff\xfe", "is damaged: it is no JSON"),
        (b"[1]", "is damaged: it holds a list, not an object"),
        (b"3", "is damaged: it holds a int, not an object"),
    ],
)
def test_damaged_json_is_said_to_be_so(content, said, tmp_path):
    path = tmp_path / MANIFEST
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_json(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_files_are_said_to_be_so(tmp_path):
    with pytest.raises(UsageError, match=r"no run in .*: there is no manifest\.json"):
        read_json(tmp_path / MANIFEST)
    with pytest.raises(UsageError, match=r"no run in .*nowhere: there is no job\.pkl"):
        read_job(tmp_path / "nowhere")
    for name, began in (("a", 2), ("b", 3), ("c", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).touch()
        os.utime(tmp_path / name / MANIFEST, (began, began))
    with pytest.raises(UsageError, match=r"is no manifest\.json; the newest run in it is .*/b$"):
        read_json(tmp_path / MANIFEST)
    (tmp_path / MANIFEST).mkdir()
    (tmp_path / JOB).mkdir()
    for read in (lambda: read_json(tmp_path / MANIFEST), lambda: read_job(tmp_path)):
        with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
            read()


def test_a_job_comes_back(tmp_path):
    write_job(tmp_path, {"source": None, "parameters": {"n": 3}})
    assert read_job(tmp_path) == {"source": None, "parameters": {"n": 3}}
    assert os.listdir(tmp_path) == [JOB]


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"cno_such_module\nX\n.", b"(I1\n"])
def test_a_damaged_job_is_said_to_be_so(content, tmp_path):
    (tmp_path / JOB).write_bytes(content)
    with pytest.raises(UsageError, match=r"job\.pkl is damaged: ") as caught:
        read_job(tmp_path)
    assert "\n" not in caught.value.message


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    path = tmp_path / "x.json"
    path.mkdir()  # a file cannot take its name
    with pytest.raises(
        Stopped, match=r"cannot write .*x\.json: Is a directory; remove that folder and resume"
    ):
        write_json(path, {})
    with pytest.raises(Stopped, match=r"cannot write .*job\.pkl: No such file or directory"):
        write_job(tmp_path / "nowhere", 1)
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_run_directory_may_exist_if_it_is_empty(tmp_path):
    folder = tmp_path / "a" / "b"
    assert create_run_dir(folder, "X") == folder
    assert create_run_dir(folder, "X") == folder
    (folder / "lock").touch()
    assert create_run_dir(folder, "X") == folder


def test_a_run_directory_in_use_says_how_to_go_on(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="is not empty: choose another --run-dir, or remove what is in it"):
        create_run_dir(tmp_path, "X")
    (tmp_path / MANIFEST).write_text(json.dumps({}))
    with pytest.raises(UsageError, match=f"or go on with the run in it: python -m mpims resume {tmp_path}"):
        create_run_dir(tmp_path, "X")
    (tmp_path / MANIFEST).write_text(json.dumps({"simulated": True}))
    with pytest.raises(UsageError, match="or remove what is in it"):  # there is no run to go on with
        create_run_dir(tmp_path, "X")
    spaced = tmp_path / "a b"
    spaced.mkdir()
    (spaced / MANIFEST).touch()
    with pytest.raises(UsageError, match=f"python -m mpims resume '{spaced}'$"):
        create_run_dir(spaced, "X")
    with pytest.raises(UsageError, match="is not a folder"):
        create_run_dir(tmp_path / "x", "X")


def test_a_run_directory_that_begins_with_a_dash_is_no_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("-x")
    folder.mkdir()
    (folder / MANIFEST).touch()
    with pytest.raises(UsageError, match=r"python -m mpims resume \./-x$"):
        create_run_dir(folder, "X")
    assert resume_command(folder.absolute(), 1) == "python -m mpims resume ./-x"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("doctor --run-dir LONG", "cannot make run directory LONG: File name too long"),
        ("doctor --run-dir FILE/x", "cannot make run directory FILE/x: Not a directory"),
        ("run FILE --resume --run-dir LONG", "cannot make run directory LONG: File name too long"),
        ("script LONG", "no program LONG"),
    ],
)
def test_a_place_where_one_cannot_look_is_a_mistake_of_the_user_s(typed, said, tmp_path):
    (tmp_path / "x.py").write_text(
        "import mpims\nclass One(mpims.Job):\n def items(self): return 1\n def task(self, item): return 1"
    )
    names = {"LONG": "x" * 300, "FILE": str(tmp_path / "x.py")}
    for name, value in names.items():
        typed, said = typed.replace(name, value), said.replace(name, value)
    parsed = make_parser([typed.split()[0]]).parse_args(typed.split())
    parsed.lead = None
    with pytest.raises(UsageError, match=re.escape(said)):
        parsed.command(parsed)


def test_a_run_of_a_program_is_resumed_by_that_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "the same program, with mpims.run(..., run_dir='runs/x', resume=True)"
    assert resume_command(tmp_path / "runs" / "x", 3, in_program=True) == text


def test_the_advice_for_more_ranks_can_be_followed():
    """A program has no -n, and the mpirun of Open MPI refuses a rank more than there are cores."""
    (of_a_job,), (of_a_program,) = (advice_lines(1, 1, 9, None, in_program=told) for told in (False, True))
    assert of_a_job.endswith(f"for all cores here: -n {len(os.sched_getaffinity(0)) + 1}")
    assert " -n " not in of_a_program.replace("mpirun -n ", "")
    assert "--oversubscribe" in of_a_program


@pytest.mark.parametrize("option", ["run_dir", "--run-dir"])
def test_the_run_of_a_program_in_the_way_is_gone_on_with_by_that_program(option, tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"command": []}))
    said = (
        f"run directory {tmp_path} is not empty: choose another {option}, or go on with the run in it: "
        f"start its program with mpims.run(..., run_dir='{tmp_path}', resume=True)"
    )
    with pytest.raises(UsageError, match=re.escape(said)):
        create_run_dir(tmp_path, "X", option)
