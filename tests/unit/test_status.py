"""What is told of a run from its directory: whether it lives, how far it is, what to do next."""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import asdict, replace

import pytest

from mpims.cli.main import make_parser
from mpims.cli.status import as_dict, outside_lines, watch
from mpims.errors import UsageError
from mpims.processes import this_process
from mpims.report.liveness import State, look_from_outside
from mpims.report.status import items_text, ranks_text, read_status, write_status
from mpims.report.views import View
from mpims.storage.lock import STALE_S, RunLock
from mpims.storage.manifest import FORMAT
from tests.unit.test_display import STATUS

LIVE = replace(STATUS, process=this_process().as_dict(), written_at=time.time())
ELSEWHERE = {**this_process().as_dict(), "host": "node07", "boot": "of-another-machine"}


@pytest.fixture
def folder(tmp_path):
    """The directory of a run of which nothing is known but that it began."""
    path = tmp_path / "r"
    path.mkdir()
    manifest = {"format": FORMAT, "job": "Squares", "n_ranks": 65, "versions": {}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture
def living(folder):
    """The directory of a run whose master is this process."""
    lock = RunLock.acquire(folder)
    write_status(folder / "status.json", LIVE)
    yield folder
    lock.release()


def hold(folder, owner, silence_s=0.0):
    """Leave a lock there as that process would, and no sign of life for so long."""
    (folder / "lock").write_text(json.dumps({"owner": owner, "since": ""}))
    then = time.time() - silence_s
    for name in ("lock", "status.json"):
        if (folder / name).exists():
            os.utime(folder / name, (then, then))


def summarise(folder, status, **others):
    summary = {"status": status, "job": "Squares(n=1000)", "n_items": 1000, "n_done": 300, "wall_s": 75.0}
    (folder / "summary.json").write_text(json.dumps({**summary, **others}))


def test_the_file_is_read_as_it_was_written(tmp_path):
    write_status(tmp_path / "status.json", STATUS)
    assert read_status(tmp_path / "status.json") == STATUS
    assert read_status(tmp_path / "none.json") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "null"])
def test_a_damaged_file_is_one_clear_line(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(UsageError, match=r"status\.json is damaged"):
        read_status(tmp_path / "status.json")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("n_ranks", None, "its n_ranks is None"),
        ("n_items", "x", "its n_items is 'x'"),
        ("n_done", True, "its n_done is True"),
        ("work", float("nan"), "its work is nan"),
        ("written_at", 10**30, "its written_at is 1000"),
        ("suspects", [1], r"its suspects is \[1\]"),
        ("lost", {"a": "node01"}, "'a' is no rank"),
        ("lost", {"1": 3}, "its lost is {'1': 3}"),
    ],
)
def test_a_file_with_a_value_of_another_kind_is_one_clear_line(key, value, said, tmp_path):
    (tmp_path / "status.json").write_text(json.dumps({**asdict(STATUS), key: value}))
    with pytest.raises(UsageError, match=rf"status\.json is damaged: {said}.*; a run that lives") as caught:
        read_status(tmp_path / "status.json")
    assert "\n" not in caught.value.message


def test_the_file_of_another_version(tmp_path):
    (tmp_path / "status.json").write_text(json.dumps({**asdict(STATUS), "format": 9}))
    with pytest.raises(UsageError, match="has format 9, known here is 1"):
        read_status(tmp_path / "status.json")


def test_a_run_that_lives(living):
    outside = look_from_outside(living)
    assert outside.state is State.RUNNING
    assert outside.status == LIVE
    lines = outside_lines(outside)
    assert f"running (process {os.getpid()} on {this_process().host}); last sign of life" in lines[0]
    assert lines[1:-1] == [
        "job      Squares(n=1000)",
        lines[2],
        "time     about 40.0 s left, walltime 2:10:00 left, 1:02 gone",
        "ranks    62 of 64 workers busy, 1 lost, 1 suspect, 2 items failed, 17 reissued, 4 failures",
        "lost     rank 9 (node05)",
        "suspect  rank 3 (node02)",
        lines[7],
    ]
    assert lines[2].startswith("done     610/1,000 items, 58.3% of the work, 98.12 items/s, at 2")
    assert lines[7].endswith("rank 9 (node05) lost")
    assert lines[-1] == "next     wait, or watch it: --watch"
    assert as_dict(outside)["resume"] is None


def test_a_run_whose_time_will_not_suffice(living):
    write_status(living / "status.json", replace(LIVE, walltime_left_s=30.0))
    last = outside_lines(look_from_outside(living))[-1]
    assert "its allocation ends before it does; then: python -m mpims resume" in last


def test_a_master_that_has_yet_to_write_its_first(living):
    write_status(living / "status.json", replace(LIVE, process={**LIVE.process, "pid": 1}))
    assert look_from_outside(living).state is State.STARTING
    (living / "status.json").unlink()
    outside = look_from_outside(living)
    assert outside.state is State.STARTING
    assert "starting" in outside_lines(outside)[0]


def test_a_run_of_a_program_is_resumed_by_that_program(folder):
    write_status(folder / "status.json", STATUS)
    hold(folder, {**this_process().as_dict(), "started": 1})
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "command": []}))
    outside = look_from_outside(folder)
    assert outside.state is State.DEAD
    assert outside_lines(outside)[-1].startswith("next     the same program, with mpims.run(..., run_dir=")
    assert as_dict(outside)["resume"] is None


def test_a_master_that_was_killed(folder):
    write_status(folder / "status.json", STATUS)
    hold(folder, {**this_process().as_dict(), "started": 1})
    outside = look_from_outside(folder)
    assert outside.state is State.DEAD
    assert outside.resume.endswith("r -n 65")
    lines = outside_lines(outside)
    assert "dead: its master" in lines[0]
    assert "is gone without a last word" in lines[0]
    assert lines[-1] == f"next     {outside.resume}"
    moved = folder.rename(folder.with_name("it's r"))
    assert shlex.split(look_from_outside(moved).resume)[3:] == ["resume", str(moved), "-n", "65"]
    assert not any(line.startswith(("time", "ranks")) for line in lines)


@pytest.mark.parametrize(("silence_s", "state"), [(5.0, State.RUNNING), (STALE_S + 5.0, State.DEAD)])
def test_a_master_on_another_machine_lives_as_long_as_it_gives_signs(folder, silence_s, state):
    write_status(folder / "status.json", replace(STATUS, process=ELSEWHERE))
    hold(folder, ELSEWHERE, silence_s)
    outside = look_from_outside(folder)
    assert outside.state is state
    assert outside.silence_s == pytest.approx(silence_s, abs=1.0)


def test_a_lock_that_is_being_written(folder):
    (folder / "lock").write_text("")
    assert look_from_outside(folder).state is State.STARTING


def test_a_run_that_ended(folder):
    summarise(folder, "stopped", error="stopped: 300 of 1,000 items are done")
    outside = look_from_outside(folder)
    assert outside.state is State.STOPPED
    assert outside_lines(outside)[1:] == [
        "job      Squares(n=1000)",
        "done     300 of 1,000 items, in 1:15",
        "error    stopped: 300 of 1,000 items are done",
        f"next     {outside.resume}",
    ]
    summarise(folder, "done", n_done=1000, result_file="/where/it/was/result.npy", result_digest="abc")
    outside = look_from_outside(folder)
    assert outside.state is State.DONE
    assert outside_lines(outside)[3:] == [
        f"result   {folder / 'result.npy'}",
        "sha256   abc",
        "next     nothing is left to do",
    ]
    assert as_dict(outside)["resume"] is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"status": "done"}', '{"status": "failed", "n_done": "x"}', "[" * 10_000],
)
def test_a_damaged_summary_does_not_hide_the_rest(folder, content):
    write_status(folder / "status.json", STATUS)
    (folder / "summary.json").write_text(content)
    outside = look_from_outside(folder)
    assert (outside.state, outside.summary) == (State.DEAD, None)
    lines = outside_lines(outside)
    assert lines[0].startswith(f"{folder}: nobody knows how it ended: {folder}/summary.json is damaged")
    assert lines[0].endswith("; resume writes it anew")
    assert lines[1:] == [*lines[1:-1], f"next     {outside.resume}"]
    assert lines[2].startswith("done     610/1,000 items")
    assert as_dict(outside)["resume"] == outside.resume


def test_a_run_that_is_gone_on_with_is_not_what_its_last_summary_says(living):
    summarise(living, "stopped")
    outside = look_from_outside(living)
    assert (outside.state, outside.summary) == (State.RUNNING, None)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_master_that_was_killed_when_all_was_written_has_done_it(folder, is_whole):
    write_status(folder / "status.json", STATUS)
    hold(folder, {**this_process().as_dict(), "started": 1})
    summarise(folder, "done", n_done=1000, result_file="/where/it/was/result.npy", result_digest="abc")
    if is_whole:
        (folder / "result.npy").touch()  # else it was lost, and was being made anew
    outside = look_from_outside(folder)
    assert outside.state is (State.DONE if is_whole else State.DEAD)
    assert (
        outside_lines(outside)[-1] == f"next     {'nothing is left to do' if is_whole else outside.resume}"
    )


def test_a_run_that_died_before_anything(folder):
    assert look_from_outside(folder).state is State.DEAD


def test_a_simulated_run_is_not_dead_but_done(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "simulated": True}))
    outside = look_from_outside(folder)
    assert (outside.state, outside.is_over) == (State.SIMULATED, True)
    assert outside_lines(outside) == [
        f"{folder}: done (simulated)",
        f"next     python -m mpims report {folder}",
    ]
    assert as_dict(outside)["resume"] is None


def test_a_folder_that_may_only_be_read_is_read(living, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert look_from_outside(living).silence_s == pytest.approx(0.0, abs=5.0)


def test_nothing_is_left_there(living):
    before = sorted(entry.name for entry in living.iterdir())
    look_from_outside(living)
    assert sorted(entry.name for entry in living.iterdir()) == before


def test_watching_goes_on_until_it_is_over(folder):
    lock = RunLock.acquire(folder)
    write_status(folder / "status.json", LIVE)
    seen = []

    class Shown(View):
        def show(self, status):
            seen.append(status.n_done)

        def end(self):
            seen.append("end")

    def sleep(seconds):
        write_status(folder / "status.json", replace(LIVE, n_done=700))
        if len(seen) == 2:
            summarise(folder, "done", result_file="result.npy", result_digest="abc")
            lock.release()

    assert watch(folder, Shown(), sleep=sleep).state is State.DONE
    assert seen == [610, 700, "end"]


def test_ctrl_c_leaves_it_alone(living):
    def sleep(seconds):
        raise KeyboardInterrupt

    assert watch(living, View(), sleep=sleep).state is State.RUNNING


def test_the_command(living, capsys, tmp_path):
    def run(*arguments):
        parsed = make_parser(["status"]).parse_args(["status", *map(str, arguments)])
        return parsed.command(parsed)

    assert run(living, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "running"
    assert told["status"]["n_done"] == 610
    assert told["master"]["pid"] == os.getpid()
    with pytest.raises(UsageError, match="no run in "):
        run(tmp_path / "none")
    with pytest.raises(UsageError, match="--watch: not allowed with argument --json"):
        run(living, "--json", "--watch")


@pytest.mark.parametrize(
    ("rate", "text"), [(18612.3, "18,612 items/s"), (2e6, "2,000,000 items/s"), (5e-5, "0.18 items/h")]
)
def test_a_rate_is_written_out(rate, text):
    assert text in items_text(replace(STATUS, rate=rate))


def test_one_is_no_plural(folder):
    summarise(folder, "stopped", n_skipped=1)
    assert "skipped  1 item failed: failed.json names it" in outside_lines(look_from_outside(folder))
    one = replace(STATUS, n_skipped=1, n_failures=1, n_reissued=0, suspects={}, lost={}, n_joined=64)
    assert ranks_text(one) == "62 of 64 workers busy, 1 item failed, 1 failure"
