"""The jobs that ship: what they compute, against computations that are not theirs."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import mpims
from mpims.core.tree import fold
from mpims.job import block_of
from mpims.loading import load_job_class, read_source

JOBS = Path(__file__).resolve().parents[2] / "jobs"

GOOD = "# a comment\nspam = eggs + spam\n"
UNREADABLE = {
    "not_utf8": b"x = 1\ny = 2\nz = '\xff'\n",
    "cookie_of_no_codec": b"# coding: no-such-codec\nx = 1\n",
    "cookie_of_no_text": b"# coding: hex\nx = 1\n",
    "open_bracket": b"x = f(\n",
    "open_string": b'x = """\n',
    "dedent_to_nowhere": b"if x:\n        y\n    z\n",
}


def job_class(name):
    return load_job_class(read_source(str(JOBS / f"{name}.py")))


def module_of(name):
    return sys.modules[job_class(name).__module__]


def block_ranges(job):
    items = job.items()
    n_items = items if isinstance(items, int) else len(items)
    block = block_of(job, n_items)
    return [range(start, min(start + block, n_items)) for start in range(0, n_items, block)]


def compute_block(job, indices):
    items = job.items()
    job.indices = indices
    return job.kernel(indices if isinstance(items, int) else items[indices.start : indices.stop])


def compute(job):
    """The job's result, block by block."""
    job.setup()
    blocks = [compute_block(job, indices) for indices in block_ranges(job)]
    if isinstance(job.output, mpims.Gather):
        return np.concatenate([job.output.pack(block) for block in blocks])
    return fold([job.output.fold(block) for block in blocks], job.output.function)


def write_tree(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


SMALL = {
    "mandelbrot": {"width": 9, "height": 5, "limit": 20},
    "pi": {"samples": 6, "points": 50},
    "tokens": {},
    "sweep": {
        "n_rho": 10,
        "n_sigma": 13,
        "rho": (0.0, 10.0),
        "sigma": (4.0, 8.0),
        "step": 0.1,
        "tolerance": 1.0,
    },
}


def exact(value):
    """A text that is the same for the same bits only, the order of dicts included."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    return repr(value)


@pytest.mark.parametrize("name", SMALL)
def test_blocks_come_out_the_same_on_any_rank_in_any_order(name, tmp_path):
    parameters = dict(SMALL[name])
    if name == "tokens":
        parameters["folder"] = write_tree(tmp_path, {f"{c}.py": GOOD + c for c in "abc"})
    one, other = job_class(name)(**parameters), job_class(name)(**parameters)
    one.setup()
    other.setup()
    ranges = block_ranges(one)
    assert len(ranges) > 2
    forward = {indices: exact(compute_block(one, indices)) for indices in ranges}
    backward = {indices: exact(compute_block(other, indices)) for indices in reversed(ranges)}
    assert forward == backward


# ----------------------------------------------------------------------------- mandelbrot


def test_mandelbrot_agrees_with_a_loop_over_pixels():
    job = job_class("mandelbrot")(width=24, height=16, limit=50, span=3.0)
    times = compute(job)
    assert times.dtype == np.int32
    assert times.shape == (16, 24)
    for row in range(16):
        for column in range(24):
            c = complex(-0.65 + 3.0 * ((column + 0.5) / 24 - 0.5), 3.0 * (8 - (row + 0.5)) / 24)
            z, n = c, 0
            while n < 50 and abs(z) <= 2:
                z, n = z * z + c, n + 1
            assert times[row, column] == n, (row, column)
    assert 0 < np.count_nonzero(times == 50) < times.size


@pytest.mark.parametrize(("c", "time"), [(0, 30), (-1, 30), (-2, 30), (1, 2), (2, 1), (3, 0), (2j, 1)])
def test_mandelbrot_knows_points_done_by_hand(c, time):
    assert compute(job_class("mandelbrot")(width=1, height=1, limit=30, centre=complex(c))) == [[time]]


def test_mandelbrot_block_of_rows_is_its_rows():
    job = job_class("mandelbrot")(width=15, height=11, limit=40)
    job.setup()
    rows = [job.kernel(range(row, row + 1)) for row in range(3, 9)]
    np.testing.assert_array_equal(job.kernel(range(3, 9)), np.concatenate(rows))


def test_mandelbrot_draws_the_set_black(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    job = job_class("mandelbrot")(width=30, height=20, limit=25)
    times = compute(job)
    job.run_dir = tmp_path
    job.finish(times)
    with image_module.open(tmp_path / "mandelbrot.png") as image:
        assert image.size == (30, 20)
        pixels = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal((pixels == 0).all(axis=2), times == 25)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == len(np.unique(times))


def test_mandelbrot_says_so_when_pillow_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    job = job_class("mandelbrot")(width=3, height=2, limit=4)
    job.run_dir = tmp_path
    job.finish(compute(job))
    (line,) = capsys.readouterr().err.splitlines()
    assert 'pip install "mpims[jobs]"' in line
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------- pi


def test_pi_is_within_five_standard_errors():
    result = compute(job_class("pi")(samples=40, points=5000))
    assert result.dtype == np.int64
    assert result.shape == (2,)
    hits, points = result
    assert points == 200_000
    error = 4 * math.sqrt(math.pi / 4 * (1 - math.pi / 4) / points)
    assert 0 < abs(4 * hits / points - math.pi) < 5 * error


def test_pi_counts_the_points_of_each_items_own_stream():
    job = job_class("pi")(samples=8, points=100)
    expected = []
    for sample in range(2, 6):
        xs, ys = job.rng(sample).random((2, 100)).tolist()
        hits = sum(math.hypot(x, y) < 1 for x, y in zip(xs, ys, strict=True))
        expected.append([hits, 100])
    assert job.kernel(range(2, 6)).tolist() == expected
    assert len({hits for hits, _ in expected}) > 1


def test_pi_prints_the_estimate_and_both_errors(capsys):
    job_class("pi")().finish(np.array([785_000, 1_000_000]))
    assert capsys.readouterr().err == (
        "pi = 3.1400000 +- 0.0016433 from 1,000,000 points, off by -0.0015927\n"
    )


# --------------------------------------------------------------------------------- tokens


def test_tokens_counts_good_files_and_survives_bad_ones(tmp_path):
    write_tree(
        tmp_path,
        {"good.py": GOOD, "sub/latin.py": UNREADABLE["not_utf8"], "bad.py": UNREADABLE["open_bracket"]},
    )
    result = compute(job_class("tokens")(folder=tmp_path))
    assert result["files"] == 3
    assert sum(result["unreadable"].values()) == 2
    assert result["unreadable"]["TokenError"] == 1
    assert result["names"] == {"spam": 2, "eggs": 1}
    assert result["types"] == {
        "COMMENT": 1,
        "NL": 1,
        "NAME": 3,
        "OP": 2,
        "NEWLINE": 1,
        "ENDMARKER": 1,
    }


@pytest.mark.parametrize("trouble", UNREADABLE)
def test_tokens_of_an_unreadable_file_are_not_counted(trouble, tmp_path):
    write_tree(tmp_path, {"x.py": UNREADABLE[trouble]})
    counts = compute(job_class("tokens")(folder=tmp_path))
    assert sum(counts["unreadable"].values()) == 1
    assert (counts["types"], counts["names"]) == ({}, {})


def test_tokens_takes_a_file_that_is_gone_for_the_nodes_trouble(tmp_path):
    with pytest.raises(FileNotFoundError):
        job_class("tokens")(folder=tmp_path).task("gone.py")


def test_tokens_keywords_are_no_names(tmp_path):
    write_tree(tmp_path, {"x.py": "for i in None: pass\n"})
    assert compute(job_class("tokens")(folder=tmp_path))["names"] == {"i": 1}


def test_tokens_items_are_sorted_paths_below_the_folder(tmp_path):
    folder = tmp_path / "site-packages"
    names = ["z.py", "b/a.py", "a.py", "b.txt", "b/__pycache__/c.py", "site-packages/d.py"]
    write_tree(folder, dict.fromkeys(names, GOOD))
    (folder / "folder.py").mkdir()
    assert job_class("tokens")(folder=folder).items() == ["a.py", "b/a.py", "z.py"]
    assert job_class("tokens")(folder=folder, limit=2).items() == ["a.py", "b/a.py"]


def test_tokens_reads_the_standard_library_by_default():
    job = job_class("tokens")()
    assert (job.folder / "tokenize.py").is_file()
    counts = job.task("tokenize.py")
    assert not counts["unreadable"]
    assert counts["names"]["TokenInfo"] > 1


@pytest.mark.parametrize(("name", "says"), [("nowhere", "no folder"), ("empty", "holds no .py file")])
def test_tokens_without_files_is_a_usage_error_of_one_line(name, says, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(mpims.UsageError, match=says) as caught:
        job_class("tokens")(folder=tmp_path / name).items()
    assert str(tmp_path / name) in caught.value.message
    assert "\n" not in caught.value.message


def test_tokens_merge_is_associative(tmp_path):
    write_tree(tmp_path, {"a.py": GOOD, "b.py": UNREADABLE["open_bracket"], "c.py": "x = spam\n"})
    job = job_class("tokens")(folder=tmp_path)
    merge = job.output.function
    a, b, c = (job.task(name) for name in job.items())
    left = merge(merge(a, b), c)
    a, b, c = (job.task(name) for name in job.items())
    right = merge(a, merge(b, c))
    assert left == right
    assert left["names"] == {"spam": 3, "eggs": 1, "x": 1}
    assert left["files"] == 3


def test_tokens_finish_writes_json_and_prints_both_tables(tmp_path, capsys):
    job = job_class("tokens")()
    job.run_dir = tmp_path
    result = {
        "files": 1234,
        "unreadable": Counter(SyntaxError=1, TokenError=2),
        "types": Counter(NAME=4000, OP=5),
        "names": Counter({f"name{n:02}": 100 - n // 2 for n in reversed(range(20))}),
    }
    job.finish(result)
    assert json.loads((tmp_path / "tokens.json").read_text()) == result
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1,234 files; unreadable: 2 TokenError, 1 SyntaxError"
    rows = [line.split() for line in lines[1:] if line]
    assert rows[:3] == [["token", "type", "count"], ["NAME", "4,000"], ["OP", "5"]]
    assert [row[0] for row in rows[4:]] == [f"name{n:02}" for n in range(15)]


# ---------------------------------------------------------------------------------- sweep


def jacobian(x, y, z, rho, sigma, beta):
    return np.array([[-sigma, sigma, 0], [rho - z, -1, -x], [y, x, -beta]])


def test_sweep_finds_the_eigenvalues_of_steady_states():
    rho, sigma, beta = (0.5, 10.0), 10.0, 8 / 3
    job = job_class("sweep")(n_rho=2, n_sigma=1, rho=rho, sigma=(sigma, sigma))
    rows = compute(job)
    assert rows.dtype == np.float64
    assert rows.shape == (2, 3)
    x = math.sqrt(beta * (rho[1] - 1))
    origin = np.linalg.eigvals(jacobian(0, 0, 0, rho[0], sigma, beta)).real.max()
    aside = np.linalg.eigvals(jacobian(x, x, rho[1] - 1, rho[1], sigma, beta)).real.max()
    assert rows[0, 0] == pytest.approx(origin, abs=1e-5)
    assert rows[1, 0] == pytest.approx(aside, abs=0.01)


def test_sweep_finds_the_chaos_of_lorenz_and_pays_for_it():
    job = job_class("sweep")(
        n_rho=2, n_sigma=1, rho=(0.5, 28.0), sigma=(10.0, 10.0), longest=60.0, tolerance=0.01
    )
    steady, chaotic = compute(job)
    assert chaotic[0] == pytest.approx(0.906, abs=0.15)  # Sprott, Chaos and Time-Series Analysis, 2003
    assert steady[1] <= 0.01 < chaotic[1]
    assert (steady[2], chaotic[2]) == (50.0, 60.0)


def test_sweep_goes_through_the_grid_with_sigma_fastest():
    job = job_class("sweep")(n_rho=2, n_sigma=3, rho=(1.0, 2.0), sigma=(10.0, 30.0))
    assert job.items() == 6
    rho, sigma = job.point(np.arange(6))
    assert rho.tolist() == [1, 1, 1, 2, 2, 2]
    assert sigma.tolist() == [10, 20, 30, 10, 20, 30]


def test_sweep_perturbation_is_the_difference_of_neighbours():
    lorenz = module_of("sweep").lorenz
    rng = np.random.default_rng(1)
    place, direction = rng.normal(size=(2, 3, 5)) * 10
    nothing, small = np.zeros((3, 5)), 1e-6
    ahead = lorenz(np.vstack([place + small * direction, nothing]), 28.0, 10.0, 8 / 3)[:3]
    behind = lorenz(np.vstack([place - small * direction, nothing]), 28.0, 10.0, 8 / 3)[:3]
    both = lorenz(np.vstack([place, direction]), 28.0, 10.0, 8 / 3)
    np.testing.assert_allclose(both[3:], (ahead - behind) / (2 * small), rtol=1e-6, atol=1e-5)
    x, y, z = place
    np.testing.assert_allclose(both[:3], [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


def test_sweep_runge_kutta_is_of_fourth_order():
    runge_kutta = module_of("sweep").runge_kutta

    def error(n_steps):  # of the harmonic oscillator after one time unit, x = sin(omega t)
        state = np.array([0.0, 3.0])
        for _ in range(n_steps):
            state = runge_kutta(
                lambda s, omega: np.array([s[1], -(omega**2) * s[0]]), state, 1 / n_steps, 3.0
            )
        return abs(state[0] - math.sin(3.0))

    assert math.log2(error(40) / error(80)) == pytest.approx(4, abs=0.15)


def test_sweep_finish_prints_two_lines(capsys):
    job = job_class("sweep")(n_rho=2, n_sigma=2, rho=(1.0, 30.0), sigma=(5.0, 10.0))
    job.finish(np.array([[-1.0, 0, 50], [0.1, 0.05, 50], [0.9, 0.05, 300], [0.8, 0.04, 300]]))
    first, second = capsys.readouterr().err.splitlines()
    assert re.search(r"chaotic .*: 2 of 4$", first)
    assert second == "largest exponent: 0.900 +- 0.050 at rho=30, sigma=5"
