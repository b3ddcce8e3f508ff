"""What is said of the exit statuses is what they are, wherever it is said."""

from __future__ import annotations

import re
from argparse import SUPPRESS
from pathlib import Path

import pytest

from mpims.__main__ import main
from mpims.cli.main import COMMANDS, EPILOG, make_parser
from mpims.errors import ExitStatus, UsageError

ROOT = Path(__file__).resolve().parent.parent.parent
STATUSES = {int(status) for status in ExitStatus}


def test_the_readme_names_every_exit_status():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| exit status | |") :].split("\n\n")[0]
    assert {int(n) for n in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == STATUSES


def test_the_help_names_every_exit_status():
    assert {int(number) for number in re.findall(r"\b\d+\b", EPILOG)} == STATUSES
    assert " ".join(EPILOG.split()) in " ".join(make_parser().format_help().split())


def test_the_statuses_are_those_that_scripts_rely_on():
    by_name = {status.name: int(status) for status in ExitStatus}
    assert by_name == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "SKIPPED": 3,
        "INTERNAL": 70,
        "STOPPED": 75,
        "INTERRUPTED": 130,
    }


def test_a_current_folder_that_was_removed_is_one_line(tmp_path, monkeypatch, capfd):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main() == ExitStatus.USAGE
    said = (
        "mpims: the current folder is gone or cannot be read (No such file or directory): change to another"
    )
    assert capfd.readouterr().err == f"{said}\n"


@pytest.mark.parametrize(
    ("typed", "shown"), [("simulate --polcy GSS", "mpims simulate"), ("--quite", "mpims")]
)
def test_an_unknown_option_points_to_the_help_that_has_those_there_are(typed, shown):
    with pytest.raises(UsageError, match=f"unrecognized arguments: .*; see {shown} --help"):
        make_parser().parse_args(typed.split())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("drill x.py", "drill wants -n with at least 2 ranks, as in -n 3, found none"),
        ("drill x.py -n 1", "drill wants -n with at least 2 ranks, as in -n 3, found 1"),
        ("script", "the following arguments are required: program; see mpims script --help"),
    ],
)
def test_what_is_missing_is_named(typed, said):
    with pytest.raises(UsageError) as caught:
        parsed = make_parser([typed.split()[0]]).parse_args(typed.split())
        parsed.command(parsed)
    assert caught.value.message == said


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_fits_the_terminal(command, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        make_parser([command] if command else COMMANDS).parse_args([*command.split(), "--help"])
    lines = capsys.readouterr().out.split("\n")
    assert [line for line in lines if len(line) > min(columns, 100)] == []


@pytest.mark.parametrize("columns", [60, 72, 80, 120])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_no_name_is_broken_at_its_hyphen(command, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        make_parser([command] if command else COMMANDS).parse_args([*command.split(), "--help"])
    assert [line for line in capsys.readouterr().out.split("\n") if line.endswith("-")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command):
    """As `--option`, in the README or the pages of `docs/`."""
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    told = {
        option for file in files for option in re.findall(r"--[a-z-]+", file.read_text(encoding="utf-8"))
    }
    parsed = make_parser([command])._subparsers._group_actions[0].choices[command]
    shown = (action for action in parsed._actions if action.help != SUPPRESS)
    options = {option for action in shown for option in action.option_strings if option[:2] == "--"}
    assert options - told - {"--help"} == set()


def help_of(command):
    return " ".join(
        make_parser([command])._subparsers._group_actions[0].choices[command].format_help().split()
    )


def test_the_defaults_of_resume_are_those_of_the_run():
    """They were said to be those of a new one: auto, 2 retries."""
    told = re.findall(r"default ([^;-]*)", help_of("resume"))
    assert told == ["the end of SLURM's allocation"]
    assert "on another rank if there is one; default 2" in help_of("run")


def test_a_drill_offers_no_options_that_do_nothing():
    assert not re.search("--prints|--log-every", help_of("drill"))
