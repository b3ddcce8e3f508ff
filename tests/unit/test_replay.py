"""``mpims replay``, ``run`` and ``resume`` of one process, as the command line calls them."""

from __future__ import annotations

import json
import pathlib
import re
import signal
import sys

import numpy as np
import pytest

import mpims
from mpims.cli.main import main_command
from mpims.errors import UsageError

TASK = "def task(self, item):\n    return item"

BODY = """
block = 4
factor: float = 2.0

def setup(self):
    print("setting up")

def kernel(self, items):
    if 13 in items:
        return self.explode(13)
    if 17 in items:
        return None
    if 18 in items:
        sys.exit(0)
    print("kernel", self.indices)
    return self.factor * np.asarray(items)

def explode(self, item):
    raise ValueError(f"not {item}")
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """What the command line changes in its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    for name in list(sys.modules):
        if name.startswith("mpims.jobfile."):
            del sys.modules[name]


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """Give status, standard output and standard error of a command."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capfd.readouterr()
        status = main_command([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture
def ran(cli, write_job, tmp_path):
    """A run of 20 items in which some failed; the job file."""
    path = write_job(BODY, items="20")
    options = ("--run-dir", "run", "--on-error", "skip", "--retries", "0", "--quiet", "--seed", "3")
    status, _, err = cli("run", path, "--set", "factor=3.0", *options)
    assert status == 3, err
    return path


def test_a_good_item_is_shown(ran, cli):
    status, out, err = cli("replay", "run", 7)
    assert status == 0
    assert out == "setting up\nkernel range(7, 8)\nitem 7: float64: 21.0\n"
    assert err == "mpims: X(factor=3.0): items [7, 8)\n"


def test_a_block_is_shown_whole(ran, cli):
    status, out, err = cli("replay", "run", 9, "--block")
    assert status == 0
    assert out.splitlines()[1:] == [
        "kernel range(8, 12)",
        *(f"item {i}: float64: {3.0 * i}" for i in range(8, 12)),
    ]
    assert "items [8, 12)" in err


def test_a_result_made_of_the_jobs_own_classes_can_be_loaded(cli, tmp_path):
    (tmp_path / "found.py").write_text(
        "import mpims\n"
        "class Found:\n"
        "    def __init__(self, item):\n"
        "        self.item = item\n"
        "class Search(mpims.Job):\n"
        "    def items(self):\n"
        "        return 3\n"
        "    def task(self, item):\n"
        "        return Found(item)\n"
    )
    status, _, err = cli("run", "found.py", "--run-dir", "run")
    assert status == 0
    assert (
        err.splitlines()[-1] == f"mpims:        to read it in Python: mpims.load({str(tmp_path / 'run')!r})"
    )
    for name in list(sys.modules):
        if name.startswith("mpims.jobfile."):  # another program does not know the job's file
            del sys.modules[name]
    one, two = mpims.load("run"), mpims.load(tmp_path / "run")
    assert [found.item for found in one] == [0, 1, 2]
    assert type(one[0]) is type(two[0])


def test_an_array_is_loaded_as_one(ran):
    assert mpims.load("run")[7] == 21.0


def test_what_is_not_done_cannot_be_loaded(ran, tmp_path):
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(UsageError, match="run run is not done: python -m mpims status run"):
        mpims.load("run")
    with pytest.raises(UsageError, match="no run in nowhere"):
        mpims.load("nowhere")


def test_a_failing_item_shows_the_users_traceback(ran, cli):
    for arguments, span in [((13,), "[13, 14)"), ((12, "--block"), "[12, 16)")]:
        status, out, err = cli("replay", "run", *arguments)
        assert status == 1
        assert "item" not in out
        lines = err.splitlines()
        assert lines[1] == "Traceback (most recent call last):"
        assert f'  File "{ran}"' in err
        assert 'raise ValueError(f"not {item}")' in err
        assert "replay.py" not in err
        assert lines[-1] == f"mpims: items {span} failed: ValueError: not 13"


def test_a_setup_that_fails_is_told_as_such(cli, write_job):
    path = write_job(
        "def setup(self):\n    if os.path.exists('gone'):\n        raise OSError('no table')\n" + TASK
    )
    assert cli("run", path, "--run-dir", "run", "--quiet")[0] == 0
    pathlib.Path("gone").touch()
    status, _, err = cli("replay", "run", 3)
    assert (status, err.splitlines()[-1]) == (1, "mpims: setup() failed: OSError: no table")
    assert cli("run", path, "--run-dir", "other", "--quiet")[0] == 1
    said = json.loads(pathlib.Path("other", "status.json").read_text())["last"]
    assert re.fullmatch(r"rank 0 \(.*\) cannot compute: setup\(\) raised OSError: no table", said)


def test_a_wrong_result_is_told_as_in_a_run(ran, cli):
    status, _, err = cli("replay", "run", 17)
    assert status == 1
    assert err.endswith(
        "mpims: items [17, 18) failed: kernel returned None for 1 item: return one result per item\n"
    )


def test_a_kernel_that_leaves_has_failed(ran, cli):
    """As it has in the run: `failed.json` names the item."""
    status, _, err = cli("replay", "run", 18)
    assert status == 1
    assert err.endswith("mpims: items [18, 19) failed: SystemExit: 0\n")


@pytest.mark.parametrize("item", [-1, 20, 10**20])
def test_an_item_that_is_not_there(ran, item, cli):
    status, _, err = cli("replay", "run", "--", item)
    assert status == 2
    assert err == f"mpims: no item {item}: X(factor=3.0) has items 0 to 19\n"


def test_replay_wants_a_run(ran, cli, tmp_path):
    status, _, err = cli("replay", "nowhere", 1)
    assert status == 2
    assert err == "mpims: no run in nowhere: there is no manifest.json\n"
    status, _, err = cli("replay", "run", "one")
    assert (status, err.count("\n")) == (2, 1)


def test_a_replay_changes_nothing_of_the_run(ran, cli, tmp_path):
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}

    before = files()
    cli("replay", "run", 7)
    cli("replay", "run", 13)
    assert files() == before


def test_another_format_is_refused(ran, cli, tmp_path):
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    for command in (("replay", "run", 1), ("resume", "run")):
        status, _, err = cli(*command)
        assert status == 2
        assert err.startswith("mpims: run directory run has format 1, made by mpims ")


# ------------------------------------------------------------------------------ resume


def test_a_run_that_is_done_says_so(ran, cli, tmp_path):
    status, out, err = cli("resume", "run")
    assert status == 3
    assert out == ""
    assert err == "mpims: run run is done already: the result is in run/result.npy\n"
    status, out, _ = cli("resume", "run", "--json", "--quiet")
    assert status == 3
    assert json.loads(out) == json.loads((tmp_path / "run" / "summary.json").read_text())


STOPPING = """
block = 2

def kernel(self, items):
    if 10 in items and not os.path.exists("go"):
        raise KeyboardInterrupt
    return np.asarray(items) / 7
"""


def test_a_stopped_run_goes_on_with_the_options_it_had(cli, write_job, tmp_path, monkeypatch):
    monkeypatch.setattr("mpims.runtime.computing.BURST_S", 0.0)
    monkeypatch.setattr("mpims.runtime.computing.HOLD_BACK_S", 0.0)
    path = write_job(STOPPING, items="20")
    options = ("--run-dir", "run", "--policy", "ss", "--retries", "1", "--seed", "5")
    status, _, err = cli("run", path, *options)
    assert status == 75
    last = err.splitlines()[-1]
    assert (
        last == "mpims: stopped at once: 10 of 20 items are done; resume with: python -m mpims resume run"
    )
    (tmp_path / "go").touch()
    status, _, err = cli("resume", "run", "--retries", "4")
    assert status == 0
    assert "10 of 20 items are done already (50%)" in err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["seed"], manifest["options"]["policy"], manifest["options"]["retries"]) == (5, "ss", 4)
    assert np.array_equal(np.load(tmp_path / "run" / "result.npy"), np.arange(20) / 7)


def test_a_job_file_that_has_changed_is_refused(cli, write_job, tmp_path):
    path = write_job(STOPPING, items="20")
    assert cli("run", path, "--run-dir", "run", "--quiet")[0] == 75
    (tmp_path / "go").touch()
    path.write_text(path.read_text().replace("/ 7", "/ 8"))
    status, _, err = cli("resume", "run")
    assert status == 2
    assert "has changed since the run began: line 15 is 'return np.asarray(items) / 8', was" in err
    assert err.count("\n") == 1
    path.unlink()  # what was kept of it will do
    assert cli("resume", "run", "--quiet") == (0, "", "")
    assert np.array_equal(np.load(tmp_path / "run" / "result.npy"), np.arange(20) / 7)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("job.pkl", None, "no run in run: there is no job.pkl"),
        ("job.pkl", b"\x80", "job.pkl is damaged: "),
        ("manifest.json", b"{}", "has format None, made by mpims an unknown version"),
        ("manifest.json", b"", "manifest.json is damaged: it is no JSON"),
        ("journal", None, "cannot read journal"),
    ],
)
def test_a_damaged_run_directory_is_one_line(name, content, said, cli, write_job, tmp_path):
    path = write_job(STOPPING, items="20")
    assert cli("run", path, "--run-dir", "run", "--quiet")[0] == 75
    (tmp_path / "go").touch()
    file = tmp_path / "run" / name
    file.unlink() if content is None else file.write_bytes(content)
    status, _, err = cli("resume", "run", "--quiet")
    assert status == 2
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 7}, "the seed is 7 in its manifest.json, was 0 when it began"),
        ({"options": {"policy": None}}, "manifest.json is damaged: its options are {'policy': None}"),
    ],
)
def test_a_manifest_that_was_changed_is_one_line(changes, said, cli, write_job, tmp_path):
    """Half of the items would have random numbers of another seed."""
    assert cli("run", write_job(STOPPING, items="20"), "--run-dir", "run", "--quiet")[0] == 75
    (tmp_path / "go").touch()
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    status, _, err = cli("resume", "run", "--quiet")
    assert (status, err.count("\n")) == (2, 1)
    assert said in err


def test_a_run_of_a_program_is_for_that_program_to_go_on_with(cli, tmp_path):
    import mpims

    class Y(mpims.Job):
        def items(self):
            return 3

        def task(self, item):
            return item

    mpims.run(Y(), run_dir="run", quiet=True)
    for command in (("resume", "run"), ("replay", "run", 1)):
        status, _, err = cli(*command)
        assert status == 2
        assert "run run was started by a program (mpims.run)" in err
