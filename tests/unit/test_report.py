"""``mpims report`` as it is typed: text, page, charts and the export, of whole, cut and strange runs."""

from __future__ import annotations

import json
import re
from importlib import import_module
from itertools import pairwise
from math import inf
from types import SimpleNamespace

import numpy as np
import pytest

from mpims.cli import report
from mpims.cli.main import make_parser
from mpims.core.ledger import ATTEMPTS_PER_MASTER
from mpims.drill.plan import Moment
from mpims.errors import ExitStatus, UsageError
from mpims.pages.accounts import make_accounts
from mpims.pages.charts import CHARTS, sizes, waterfall
from mpims.pages.charts.gantt import busy_shares
from mpims.pages.findings import find
from mpims.pages.perfetto import write_perfetto
from mpims.pages.text import facts, report_lines, slow_parts
from mpims.simulator import recorder
from mpims.simulator.costs import Costs, Distribution, draw_costs
from mpims.simulator.machine import Machine
from mpims.simulator.recording import record_run
from mpims.simulator.study import Study
from mpims.storage.trace import TRACE, What, read_trace, split_blocks
from tests.traces import DONE, event, history, joined, section


def run(*arguments) -> int:
    parsed = make_parser(["report", "simulate"]).parse_args([str(argument) for argument in arguments])
    return parsed.command(parsed)


def record(folder, n_workers=4, n_items=400, policy="FAC2", **machine):
    """Leave a run directory of a simulated run."""
    costs = draw_costs(Distribution.named("gamma", 0.02, 1.0), n_items, 1, np.random.default_rng(1))
    machine = Machine(n_workers=n_workers, service_s=1e-5, latency_s=1e-4, report_s=inf, **machine)
    study = Study(policies=[policy], n_workers=[n_workers], machine=machine)
    record_run(study, costs, folder, workers_per_host=2)
    return folder


def test_what_was_skipped_is_told_beside_what_was_delivered():
    skipped = event(What.SKIPPED, 1.0, rank=1, item=17, n_tries=3)
    parts = [(1, 1, 0, 50, 1.0, 2.0, 2.0), (2, 2, 50, 100, 1.0, 2.0, 2.0)]
    its = history(section(*joined(1, 2), skipped, event(What.ENDED, 3.0, **DONE), parts=parts), block=50)
    found = SimpleNamespace(
        history=its, accounts=make_accounts(its), policy="SS", policy_reason="", master_load=0.1
    )
    assert ("items", "99 of 100 delivered, 1 skipped, in blocks of 50; done") in facts(found)


def test_what_was_computed_twice_is_no_computing():
    """The summary's efficiency has it: it is another figure, and has another name."""
    parts = [(1, 1, 0, 100, 1.0, 3.0, 3.0), (2, 2, 50, 100, 1.0, 3.0, 3.0)]
    its = history(section(*joined(1, 2), event(What.ENDED, 3.0, **DONE), parts=parts), block=50)
    accounts = make_accounts(its)
    found = SimpleNamespace(history=its, accounts=accounts, policy="SS", policy_reason="", master_load=0.1)
    told = dict(facts(found))
    assert "efficiency" not in told
    assert told["computing"].startswith(f"{1 / accounts.totals.sum():.1%}, for results that count;")


def test_attempts_of_a_later_master_are_numbered_as_in_its_errors():
    """They stood there as 4294967303."""
    parts = [(1, 1, 0, 50, 1.0, 2.0, 2.0), (2, ATTEMPTS_PER_MASTER + 7, 50, 100, 1.0, 2.0, 2.0)]
    its = history(section(*joined(1, 2), event(What.ENDED, 3.0, **DONE), parts=parts), block=50)
    assert [row[-1] for row in slow_parts(its, 2)] == ["attempt", "1", "7"]


def png_size(path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_a_report_is_text_page_and_charts(tmp_path, capsys):
    folder = record(tmp_path / "run", deaths=[(3, Moment(share=0.4))])
    assert run("report", folder) == ExitStatus.DONE
    shown = capsys.readouterr()
    assert "items:      400 of 400 delivered; done (simulated)" in shown.out
    assert "rank 3 (virtual2) died; what was left of" in " ".join(shown.out.split())
    assert "ranks x wall" in shown.out
    assert f"mpims: in {folder / 'report'}: report.html, waterfall.png" in shown.err
    left = {path.name for path in (folder / "report").iterdir()}
    assert left == {"report.html", *(f"{name}.png" for name in CHARTS)}
    for name in CHARTS:
        width, height = png_size(folder / "report" / f"{name}.png")
        assert width == 1120
        assert height > 300


def test_a_run_that_lost_nothing_is_drawn_without_a_word(tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    study = Study(policies=["SS"], n_workers=[1], machine=Machine(n_workers=1))
    record_run(study, Costs(np.full(2, 1.0), 2), tmp_path)
    findings = find(tmp_path)
    figure = import_module("matplotlib.figure").Figure()
    assert "begins at" not in waterfall.draw(figure, findings)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", ["times", "sizes"])
@pytest.mark.parametrize(("policy", "n_blocks", "block"), [("SS", 1, 1), ("GSS", 40, 4), ("CSS:3", 12, 1)])
def test_an_axis_of_counts_has_whole_numbers_each_once(name, policy, n_blocks, block, tmp_path):
    """One item had the labels 1 1 1 0 0 0, and an axis from 4 to 80 items one label."""
    pytest.importorskip("matplotlib")
    study = Study(policies=[policy], n_workers=[2], machine=Machine(n_workers=2), classic=True)
    record_run(study, Costs(np.full(n_blocks, 1.0), n_blocks * block, block), tmp_path)
    figure = import_module("matplotlib.figure").Figure()
    import_module(f"mpims.pages.charts.{name}").draw(figure, find(tmp_path))
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    low, high = axis.get_view_interval()
    labels = [
        (label.get_text(), at) for label, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
    ]
    shown = [(text, at) for text, at in labels if low <= at <= high]
    assert len(shown) >= 2
    assert all(float(text) == at for text, at in shown)
    assert not any(label.get_text() for label in axis.get_ticklabels(minor=True))


def test_the_first_chunks_are_drawn_whole(tmp_path):
    """They lie on the edge of the chart, which cut them in half."""
    pytest.importorskip("matplotlib")
    figure = import_module("matplotlib.figure").Figure()
    sizes.draw(figure, find(record(tmp_path / "run", n_items=40)))
    assert [dots.get_clip_on() for dots in figure.axes[0].collections] == [False]


def test_the_page_needs_nothing_else(tmp_path):
    folder = record(tmp_path / "run")
    run("report", folder, "--output", tmp_path / "deep" / "er")
    page = (tmp_path / "deep" / "er" / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)
    assert len(sources) == len(CHARTS)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"<script|https?:|url\(|@import", page)
    for title in CHARTS.values():
        assert f"<h2>{title}</h2>" in page
    for sentence in find(folder).sentences:
        assert re.sub("<[^>]*>", "", page).count(sentence.replace("`", "").replace("'", "&#x27;")) == 1


def test_what_a_page_says_cannot_be_taken_for_markup(tmp_path):
    folder = record(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "job": "<b>&amp;</b>"}))
    run("report", folder)
    page = (folder / "report" / "report.html").read_text()
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in page
    assert "<b>" not in page


def test_a_long_word_makes_no_column_wider_than_the_page(tmp_path):
    """It stood beside the page, and was cut off on paper, with what was done about it."""
    folder = record(tmp_path / "run", deaths=[(3, Moment(share=0.4))])
    run("report", folder)
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"\btd \{ max-width: [^}]*\boverflow-wrap: break-word;", page)
    assert re.search(r"<td>[\d.]+\N{NO-BREAK SPACE}m?s</td><td>rank 3 \(virtual2\) died</td>", page)


def test_a_chart_on_a_narrow_screen_is_scrolled_and_not_shrunk_until_nobody_can_read_it(tmp_path):
    folder = record(tmp_path / "run")
    run("report", folder)
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count('<figure><div class="scroll"><img ') == len(CHARTS)
    assert re.search(r"\bimg \{[^}]* min-width: 36rem;", page)  # labels of 9 points of 7 inches: 10 px


def test_without_matplotlib_the_text_is_there_and_says_so(tmp_path, capsys, monkeypatch):
    folder = record(tmp_path / "run")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert run("report", folder) == ExitStatus.DONE
    shown = capsys.readouterr()
    assert "What limited this run" in shown.out
    assert "no charts, for they need matplotlib: pip install 'mpims[plots]'" in shown.err
    assert [path.name for path in (folder / "report").iterdir()] == ["report.html"]
    assert "No charts, for they need matplotlib" in (folder / "report" / "report.html").read_text()


def test_many_ranks_and_chunks_are_drawn_as_shares(tmp_path):
    """The charts choose another form; the page stays small."""
    folder = record(tmp_path / "run", n_workers=100, n_items=20_000, policy="CSS:2")
    assert len(find(folder).history.parts) >= 10_000
    run("report", folder)
    assert (folder / "report" / "report.html").stat().st_size < 2_000_000


def test_shares_of_time_are_those_of_the_parts():
    its = history(
        section(
            *joined(1, 2),
            event(What.ENDED, 8.0, **DONE),
            parts=[
                (1, 1, 0, 10, 2.0, 3.0, 3.0),
                (1, 2, 10, 20, 4.0, 8.0, 8.0),
                (2, 3, 20, 30, 0.5, 1.0, 1.0),
            ],
        )
    )
    shares = busy_shares(its, np.array([1, 2]), 4)
    assert shares.tolist() == [[0.5, 0.5, 1.0, 1.0], [0.25, 0.0, 0.0, 0.0]]


# ------------------------------------------------------------------------- the export


def test_the_export_has_every_part_where_and_when_it_was_computed(tmp_path):
    folder = record(tmp_path / "run", deaths=[(3, Moment(share=0.4))])
    run("report", folder, "--perfetto")
    content = json.loads((folder / "report" / "trace.perfetto.json").read_text())
    its = find(folder).history
    slices = [one for one in content["traceEvents"] if one["ph"] == "X"]
    assert len(slices) == len(its.parts)
    assert sum(one["dur"] for one in slices) == pytest.approx(1e6 * its.parts["busy_s"].sum(), rel=1e-6)
    assert {one["tid"] for one in slices} == {1, 2, 3, 4}
    assert {one["tid"]: one["pid"] for one in slices} == {1: 1, 2: 1, 3: 2, 4: 2}
    names = {
        one["pid"]: one["args"]["name"] for one in content["traceEvents"] if one["name"] == "process_name"
    }
    assert names == {1: "virtual1", 2: "virtual2"}
    (lost,) = [one for one in content["traceEvents"] if one["name"] == "lost"]
    assert (lost["tid"], lost["ph"]) == (3, "i")
    assert {one["cat"] for one in slices} <= {"done", "part", "duplicate"}


# ------------------------------------------------------------------------ strange runs


def test_no_slice_of_the_export_begins_before_the_one_ahead_of_it_has_ended(tmp_path):
    findings = find(record(tmp_path, n_workers=3, policy="SS"))
    write_perfetto(findings, tmp_path / "trace.json")  # where Perfetto drops a slice that overlaps another
    content = json.loads((tmp_path / "trace.json").read_text())
    slices = [one for one in content["traceEvents"] if one["ph"] == "X"]
    for rank in (1, 2, 3):
        spans = sorted(
            (round(1000 * one["ts"]), round(1000 * one["ts"]) + round(1000 * one["dur"]))
            for one in slices
            if one["tid"] == rank
        )
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_run_that_is_killed_anywhere_has_a_report(tmp_path, monkeypatch):
    """Its trace is cut at many places: what is there is told, to the last whole block."""
    monkeypatch.setattr(recorder, "FLUSH_INTERVAL", 20)
    folder = record(tmp_path / "run", policy="SS", deaths=[(3, Moment(share=0.4))])
    content = (folder / TRACE).read_bytes()
    ends = [12, *(stop for _, _, stop in split_blocks(content, folder))]
    first = content.index(b"PART") + 8
    first += int.from_bytes(content[first - 4 : first], "little")
    assert first < len(content) / 2
    for n_bytes in range(12, len(content), 331):
        (folder / TRACE).write_bytes(content[:n_bytes])
        if n_bytes < first:
            with pytest.raises(
                UsageError, match="is empty: nothing had been delivered when it was last written"
            ):
                find(folder)
        else:
            lines = " ".join(" ".join(report_lines(find(folder))).split())
            assert "it goes on, or was killed" in lines
            assert ("the trace ends within a record" in lines) == (n_bytes not in ends)


def test_lines_are_no_longer_than_the_terminal(tmp_path):
    findings = find(record(tmp_path / "run", deaths=[(3, Moment(share=0.4))]))
    for width in (50, 80):
        assert max(map(len, report_lines(findings, width))) <= width


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda folder: (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace('"n_items"', '"n"')
            ),
            "manifest.json is damaged: it has no n_items",
        ),
        (lambda folder: (folder / "manifest.json").unlink(), "no run in .*: there is no manifest.json"),
        (lambda folder: (folder / TRACE).unlink(), "no trace in .*: there is no trace"),
        (lambda folder: (folder / TRACE).write_bytes(b""), "is empty: the run ended before"),
        (lambda folder: (folder / TRACE).write_bytes(b"MPIMST\r\n\x01\0\0\0" + bytes(8)), "has format 1"),
        (
            lambda folder: (folder / TRACE).write_bytes(b"MPIMST\r\n\x02\0\0\0"),
            "nothing had been delivered",
        ),
        (
            lambda folder: (folder / TRACE).write_bytes(
                (folder / TRACE).read_bytes().replace(b"PART", b"PRAT")
            ),
            "is damaged: at byte .* there is no block of a trace",
        ),
        (
            lambda folder: (folder / "report").write_text("x"),
            "cannot make .*report: File exists; choose another",
        ),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(spoil, text, tmp_path):
    folder = record(tmp_path / "run")
    spoil(folder)
    with pytest.raises(UsageError, match=text) as caught:
        run("report", folder)
    assert "\n" not in caught.value.message
    assert caught.value.exit_status == ExitStatus.USAGE


def test_a_page_that_cannot_be_written_is_told(tmp_path):
    folder = record(tmp_path / "run")
    (folder / "report" / "report.html").mkdir(parents=True)
    with pytest.raises(Exception, match=r"cannot write .*report.html: Is a directory"):
        report.report_command(SimpleNamespace(run=folder, output=None, perfetto=False))


# ---------------------------------------------------------------------- simulated runs


def test_a_simulated_run_leaves_a_run_directory(tmp_path, capsys):
    folder = tmp_path / "made"
    options = ["--policy", "GSS", "--items", 500, "--block", 3, "--workers", 3, "--mean", 0.1]
    assert run("simulate", *options, "--trace", folder) == ExitStatus.DONE
    its = find(folder).history
    assert (its.n_items, its.block, its.n_done, its.status) == (500, 3, 500, "done")
    assert set(its.parts["rank"].tolist()) == {1, 2, 3}
    assert set((its.parts["start"] % 3).tolist()) == {0}
    capsys.readouterr()
    assert run("simulate", "--dist", f"trace:{folder}", "--workers", 2, "--policy", "SS") == 0
    assert "as made recorded" in capsys.readouterr().out


@pytest.mark.parametrize("n_items", [3000, 2999])
def test_the_trace_of_a_simulation_has_every_chunk_of_many_handed_out_as_one(n_items, tmp_path):
    folder = tmp_path / "run"
    options = ["--policy", "SS", "--items", n_items, "--block", 3, "--mean", 1e-5, "--workers", 2]
    assert run("simulate", *options, "--trace", folder) == ExitStatus.DONE
    sent = read_trace(folder).sections[0].sent
    first = np.sort(sent[sent["attempt"] <= 1000], order="attempt")  # what comes later was taken over
    assert first["attempt"].tolist() == list(range(1, 1001))
    assert first["start"].tolist() == list(range(0, 3000, 3))
    assert first["stop"].tolist() == [*range(3, 3000, 3), n_items]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--policy", "all"], "--trace records one run: give one --policy"),
        ([], "--trace records one run"),
        (["--policy", "SS", "--policy", "GSS"], "--trace records one run"),
        (["--policy", "SS", "--workers", "2,4"], "--trace records one run"),
        (["--policy", "SS", "--repeat", "2"], "--trace records one run"),
        (["--policy", "nothing"], "nothing"),
    ],
)
def test_only_one_run_can_be_recorded(options, text, tmp_path):
    with pytest.raises(UsageError, match=text):
        run("simulate", "--items", 50, "--trace", tmp_path / "made", *options)
    assert not (tmp_path / "made").exists()


def test_times_whose_squares_have_no_place_in_a_record_are_recorded(tmp_path):
    study = Study(policies=["auto"], n_workers=[2], machine=Machine(n_workers=2))
    record_run(study, Costs(np.full(10, 1e20), 10), tmp_path)
    assert find(tmp_path).history.n_done == 10


def test_a_folder_with_a_run_in_it_is_not_written_to(tmp_path):
    folder = record(tmp_path / "run")
    with pytest.raises(UsageError, match=r"is not empty: choose another --trace, or remove what is in it"):
        run("simulate", "--items", 50, "--policy", "SS", "--trace", folder)
