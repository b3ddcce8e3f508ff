"""``mpims simulate`` as it is typed: the table, the JSON, the picture, and every mistake in one line."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import numpy as np
import pytest

from mpims.cli.main import make_parser
from mpims.core.policies import POLICIES
from mpims.errors import ExitStatus, UsageError
from mpims.simulator.costs import Costs
from mpims.simulator.machine import Machine
from mpims.simulator.study import complete, possible_policies, what_is_known
from mpims.storage.manifest import FORMAT
from mpims.storage.trace import PART, TRACE, encode_block, encode_head, encode_notes


def simulate(*arguments: str) -> int:
    parsed = make_parser().parse_args(["simulate", *arguments])
    return parsed.command(parsed)


def rows(capsys, *arguments: str) -> list[dict]:
    assert simulate("--json", *arguments) == ExitStatus.DONE
    return json.loads(capsys.readouterr().out)["rows"]


@pytest.fixture
def recorded(tmp_path):
    """A run of 4,000 items in blocks of 10, of which each block took 20 ms and the master 50 us."""
    starts = np.arange(0, 4000, 40)
    trace = np.zeros(len(starts), PART)
    trace["rank"], trace["start"], trace["stop"] = 1, starts, starts + 40
    trace["busy_s"], trace["squares_s2"], trace["service_s"] = 0.08, 4 * 0.02**2, 5e-5
    folder = tmp_path / "run"
    folder.mkdir()
    began = encode_notes([{"what": "began", "t": 0.0}])
    (folder / TRACE).write_bytes(encode_head() + began + encode_block(b"PART", trace.tobytes()))
    manifest = {"format": FORMAT, "n_items": 4000, "block": 10}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


# ----------------------------------------------------------------------------- output


def test_all_policies_that_have_what_they_need_are_shown(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert simulate("--items", "300", "--overhead", "0.1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "300 items, exponential: mu = 1.000 s, sigma = 1.000 s"
    shown = [line.split()[0] for line in lines[3:-1]]
    assert shown == [name for name in POLICIES if name != "CSS"]
    assert lines[-1] == "Left out, for they need more: CSS:100"


def test_a_policy_is_not_shown_twice(capsys):
    found = rows(capsys, "--items", "50", "--policy", "gss", "--policy", "GSS", "--policy", "css:5")
    assert [row["policy"] for row in found] == ["GSS", "CSS:5"]


def test_there_is_a_row_for_each_number_of_workers(capsys):
    found = rows(capsys, "--items", "500", "--policy", "FAC2", "--policy", "SS", "--workers", "2,4,8,4")
    assert [(row["policy"], row["n_workers"]) for row in found] == [
        (policy, n) for policy in ("FAC2", "SS") for n in (2, 4, 8)
    ]
    assert found[0]["makespan_s"] > found[1]["makespan_s"] > found[2]["makespan_s"]


def test_equal_items_on_one_worker_take_their_sum(capsys):
    (row,) = rows(
        capsys, "--dist", "constant", "--mean", "2", "--items", "10", "--policy", "SS", "--workers", "1"
    )
    assert row["makespan_s"] == 20
    assert row["efficiency"] == 1
    assert row["wasted_s"] == 0
    assert row["most_workers"] is None  # a hand-out costs the master nothing


def test_blocks_are_counted_in_items(capsys):
    options = ["--items", "105", "--block", "10", "--dist", "constant", "--classic", "--workers", "2"]
    (row,) = rows(capsys, *options, "--policy", "CSS:20")
    assert (row["n_chunks"], row["largest"], row["least"]) == (6, 20, 10)
    assert row["makespan_s"] == 60  # 20 20 20, while the other has 20 20 5


def test_repeated_runs_give_means_and_their_spread(capsys):
    options = ["--items", "500", "--policy", "FAC2", "--workers", "4"]
    single = [rows(capsys, *options, "--seed", str(seed))[0]["makespan_s"] for seed in (3, 4)]
    assert single[0] != single[1]
    (row,) = rows(capsys, *options, "--seed", "3", "--repeat", "5")
    assert row["makespan_sd_s"] > 0
    assert abs(row["makespan_s"] - single[0]) < 5 * row["makespan_sd_s"]
    (again,) = rows(capsys, *options, "--seed", "3", "--repeat", "5")
    assert again == row


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_no_line_of_the_table_is_wider_than_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    simulate("--items", "200", "--overhead", "0.5", "--service", "0.01", "--fail", "1@50%")
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith(("policy", *POLICIES)) and ":" not in line]
    assert len(table) == len(POLICIES)  # the head, and all but CSS
    assert max(map(len, table)) <= width
    assert any("--json has all" in line for line in lines) == (width < 200)


def test_it_says_how_many_workers_one_master_feeds(capsys):
    options = ["--dist", "constant", "--mean", "1", "--items", "100", "--workers", "4", "--classic"]
    (row,) = rows(capsys, *options, "--policy", "SS", "--service", "0.1")
    assert row["most_workers"] == pytest.approx((1 + 0.1) / 0.1)
    simulate(*options, "--policy", "SS", "--service", "0.1")
    assert capsys.readouterr().out.rstrip().endswith("results as large as on 4: 11 by SS")


def test_beyond_that_number_the_master_limits(capsys):
    options = ["--dist", "constant", "--items", "2000", "--policy", "SS", "--service", "0.1", "--classic"]
    few, enough, more = rows(capsys, *options, "--workers", "5,11,44")
    assert few["master_load"] < 0.5
    assert enough["makespan_s"] < 1.1 * more["makespan_s"]
    assert more["master_load"] > 0.98
    assert more["wait_s"] > 3


# ----------------------------------------------------------------------------- faults


def test_deaths_and_slow_ranks_cost_time(capsys):
    options = ["--items", "1000", "--policy", "FAC2", "--workers", "4"]
    plain, dead, slow = (
        rows(capsys, *options, *more)[0] for more in ([], ["--fail", "2@30%"], ["--slow", "3:4x"])
    )
    assert (plain["n_lost"], dead["n_lost"], slow["n_lost"]) == (0, 1, 0)
    assert dead["n_reissued"] > 0
    assert dead["makespan_s"] > 1.1 * plain["makespan_s"]
    assert slow["makespan_s"] > 1.1 * plain["makespan_s"]


# --------------------------------------------------------------------------- policies


def test_the_simulator_tells_policies_what_it_knows():
    costs = Costs(np.array([1.0, 3.0]), 2)
    machine = Machine(n_workers=2, overhead_s=0.5, service_s=0.25, latency_s=1.0, slowness={2: 4.0})
    known = what_is_known(costs, machine, classic=False)
    assert known == {"mu": "2.0", "sigma": "1.0", "weights": "1.0/0.25", "h": "0.75"}
    assert what_is_known(costs, machine, classic=True)["h"] == "2.75"
    assert complete("fac", known)[1].values == {"mu": 2.0, "sigma": 1.0}
    assert complete("FAC:mu=7", known)[1].values == {"mu": 7.0, "sigma": 1.0}
    assert complete("wf", known)[1].values == {"weights": (1.0, 0.25)}
    assert complete("WF:1/2", known)[1].values == {"weights": (1.0, 2.0)}
    assert "BOLD" in possible_policies(known)
    assert "BOLD" not in possible_policies({"mu": "1.0", "sigma": "1.0"})


# ------------------------------------------------------------------------ a recorded run


@pytest.mark.parametrize(
    "extreme",
    ["--overhead 1e-13", "--mean 1e-13", "--dist gamma --cov 1e2 --mean 1e8", "--slow 1:10000000x"],
)
def test_what_policies_are_told_is_within_what_they_take(extreme, capsys):
    found = rows(capsys, "--items", "20", "--workers", "2", *extreme.split())
    assert {"FAC", "TAP", "WF"} <= {row["policy"] for row in found}


def test_a_recorded_run_answers_what_if(capsys, recorded):
    simulate("--dist", f"trace:{recorded}", "--workers", "2,4,8", "--policy", "SS", "--classic", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert (answer["items"], answer["block"]) == (4000, 10)
    assert answer["service_s"] == pytest.approx(5e-5)
    assert answer["mean_s"] == pytest.approx(0.002)
    two, _, eight = answer["rows"]
    assert two["n_chunks"] == 400
    assert two["makespan_s"] == pytest.approx(200 * (0.02 + 5e-5), rel=0.01)
    assert eight["makespan_s"] == pytest.approx(50 * (0.02 + 5e-5), rel=0.02)
    assert eight["most_workers"] == pytest.approx((0.02 + 5e-5) / 5e-5)


def test_the_service_time_can_be_another_than_was_measured(capsys, recorded):
    (row,) = rows(capsys, "--dist", f"trace:{recorded}", "--policy", "SS", "--service", "0")
    assert row["master_load"] == 0


@pytest.mark.parametrize("option", ["--items", "--block", "--mean", "--cov"])
def test_what_the_trace_says_cannot_be_given(option, recorded):
    with pytest.raises(UsageError, match=f"{option} is known from the trace"):
        simulate("--dist", f"trace:{recorded}", option, "1")


def test_a_trace_of_another_version_is_refused(recorded):
    content = (recorded / TRACE).read_bytes()
    (recorded / TRACE).write_bytes(content[:8] + b"\x09" + content[9:])
    with pytest.raises(UsageError, match="has format 9, this mpims reads format 2"):
        simulate("--dist", f"trace:{recorded}")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no run in"):
        simulate("--dist", f"trace:{tmp_path}")


# --------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--policy GSX", "no policy 'GSX': .* did you mean GSS"),
        ("--policy GSS:5", "policy GSS takes no parameters"),
        ("--policy CSS", "policy CSS needs size"),
        ("--policy FSC", "needs the overhead of a hand-out, which is 0 here: give --overhead"),
        ("--policy FAC:x=3", "policy FAC takes"),
        ("--policy WF:1/2/3", "wants a weight for each of the 8 workers, found 3"),
        ("--items 0", "--items wants 1 to"),
        ("--items x", "--items wants a whole number"),
        ("--mean -1", "--mean wants seconds above 0, found -1"),
        ("--mean nan", "--mean wants seconds above 0, found nan"),
        ("--dist gamma --cov -1", "--cov wants a number of at least 0"),
        ("--dist uniform --cov 0.6", "take gamma"),
        ("--dist weibull", "--dist wants exponential, gamma, uniform, constant or trace:RUN"),
        ("--workers 0", "--workers wants numbers from 1"),
        ("--workers 2,,4", "--workers wants numbers from 1"),
        ("--workers 2000000", "--workers wants numbers from 1"),
        ("--overhead -1", "--overhead wants seconds of at least 0, found -1"),
        ("--service inf", "--service wants seconds of at least 0, found inf"),
        ("--latency nan", "--latency wants seconds of at least 0, found nan"),
        ("--latency 1e300", r"--latency wants 1e\+09 seconds at the most, found 1e\+300"),
        ("--mean 1e10", r"--mean wants 1e\+09 seconds at the most, found 1e\+10"),
        ("--fail 3@1e400s", r"--fail 3@1e400s: a time wants 1e\+09 seconds at the most"),
        ("--detection -1", "--detection wants seconds of at least 0"),
        ("--fail 3", "--fail wants RANK@40% or RANK@90s, found '3'"),
        ("--fail 3@140%", "at most 100%"),
        ("--fail 0@40%", "rank 0 hands out here"),
        ("--fail 9@40%", "--fail 9: the ranks that compute are 1 to 8"),
        ("--fail 2@40% --fail 1@50% --fail 2@90s", "--fail is given twice for a rank"),
        ("--slow 9:3x", "--slow 9: the ranks that compute are 1 to 8"),
        ("--slow 2:3x --slow 1:2x --slow 2:4x", "--slow is given twice for a rank"),
        ("--slow 2:0.5x", "a factor of at least 1"),
        ("--repeat 0", "--repeat wants at least 1"),
        ("--processes 0", "--processes wants at least 1, found 0"),
        ("--seed -1", "--seed wants at least 0"),
    ],
)
def test_a_mistake_gets_one_line(arguments, text):
    with pytest.raises(UsageError, match=text) as caught:
        simulate(*arguments.split())
    assert "\n" not in caught.value.message


# ----------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("workers", ["4", "2,4,8"])
def test_a_picture_is_drawn(workers, tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    path = tmp_path / "policies.png"
    simulate("--items", "100", "--workers", workers, "--plot", str(path))
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10  # not blank


@pytest.mark.parametrize(
    "workers", ["2,3,4,5,6,7,8,9,10,1000", "5,6,7,990,1000", "1,2,4,8,16,32,64,128,256,512,1024,2048"]
)
def test_no_two_numbers_of_workers_overlap_in_a_picture(workers, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    simulate("--items", "10", "--policy", "SS", "--workers", workers, "--plot", str(tmp_path / "x.png"))
    [figure] = drawn
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = axes.get_xticklabels()
        assert [labels[0].get_text(), labels[-1].get_text()] == [
            f"{int(n):,}" for n in (workers.split(",")[0], workers.split(",")[-1])
        ]
        slant = labels[0].get_rotation()
        least = 1.2 * labels[0].get_fontsize() / 72 * figure.dpi  # between the lines of slanted labels
        boxes = [label.get_window_extent() for label in labels]
        for before, after in pairwise(boxes):
            apart = (after.x0 + after.x1 - before.x0 - before.x1) / 2 * np.sin(np.radians(slant))
            assert apart >= least if slant else after.x0 > before.x1


def test_one_worker_is_no_plural_in_a_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    simulate("--items", "10", "--policy", "SS", "--workers", "1", "--plot", str(tmp_path / "x.png"))
    assert drawn[0].axes[0].get_xlabel() == "wasted time per worker (s), 1 worker"


def test_a_picture_without_matplotlib_is_refused_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"--plot needs matplotlib: pip install 'mpims\[plots\]'"):
        simulate("--plot", str(tmp_path / "x.png"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.txt", "ends in .png"),
        ("no/x.png", "there is no folder"),
        (f"{'x' * 300}/x.png", "there is no folder"),  # one may not even look
    ],
)
def test_a_picture_that_cannot_be_written_is_refused(name, text, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match=text):
        simulate("--plot", str(tmp_path / name))


@pytest.mark.parametrize("command", ["simulate", "policies"])
@pytest.mark.parametrize("text", ["1e3", "1_000", "1000"])
def test_a_number_of_items_may_be_written_with_an_exponent(command, text):
    assert make_parser().parse_args([command, "--items", text]).items == 1000


@pytest.mark.parametrize("text", ["1.5", "many", "inf", "nan", "1e-3"])
def test_a_number_of_items_is_whole(text):
    with pytest.raises(UsageError, match="--items wants a whole number, as 10000 or 1e6, found"):
        make_parser().parse_args(["simulate", "--items", text])
