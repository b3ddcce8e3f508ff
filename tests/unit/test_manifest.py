"""What of a run is compared before it is resumed, and what is said of it."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import mpims
from mpims import __version__
from mpims.errors import UsageError
from mpims.options import RunOptions
from mpims.runtime.items import items_identity, resolve_items
from mpims.storage.manifest import (
    FORMAT,
    check_computed,
    check_format,
    check_same_job,
    check_traced,
    make_manifest,
    other_versions,
)

FOLDER = Path("runs/x")


class X(mpims.Job):
    n: int = 10
    scale: float = 1.0

    def items(self):
        return self.n

    def task(self, item):
        return item


def manifest(job=None, options=None, **given):
    job = job or X()
    given = {
        "run_id": "run-1",
        "source_digest": "abc",
        "items": items_identity(resolve_items(job)),
        "block": 1,
        "n_ranks": 4,
        "mpi": "Open MPI",
        "fault_tier": "none",
        "command": ["mpims", "run"],
        **given,
    }
    return make_manifest(job, options or RunOptions(), **given)


def differences(old, new):
    with pytest.raises(UsageError) as caught:
        check_same_job(old, new, FOLDER)
    text = caught.value.message
    assert text.startswith("cannot resume runs/x: ")
    assert text.endswith("; put it back as it was, or start a new run in another --run-dir")
    assert "\n" not in text
    return text.removeprefix("cannot resume runs/x: ").split("; ")[:-1]


class Y(X):
    """Another job with the same parameters."""


def with_output(output):
    return type("X", (X,), {"output": output})()


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"job": X(scale=2.0)}, ["parameter scale is 2.0, was 1.0"]),
        ({"job": Y()}, ["the job is Y, was X"]),
        ({"job": with_output(mpims.Reduce(np.add))}, ["the output is Reduce(add), was Gather()"]),
        ({"options": RunOptions(seed=7)}, ["the seed is 7, was 0"]),
        (
            {"items": (9, "d")},
            ["the number of items is 9, was 10", "items() gives others, or in another order"],
        ),
        ({"block": 3}, ["the block size is 3, was 1"]),
        ({"source_digest": "def"}, ["the source of the job is another"]),
    ],
)
def test_every_change_that_decides_the_result_is_named(new, said):
    assert differences(manifest(), manifest(**new)) == said


def test_all_changes_are_named_at_once():
    found = differences(manifest(), manifest(job=X(n=12, scale=2.0), options=RunOptions(seed=7), block=2))
    assert found == [
        "parameter n is 12, was 10",
        "parameter scale is 2.0, was 1.0",
        "the seed is 7, was 0",
        "the number of items is 12, was 10",
        "items() gives others, or in another order",
        "the block size is 2, was 1",
    ]


class Odd(X):
    what: object = None


def test_a_parameter_of_any_kind_is_compared_by_what_is_in_it():
    def made(value):
        return manifest(Odd(what=value))

    for value in ({(1, 2): 3}, {"a", "b"}, Path("x"), np.zeros(5000), [Path("x"), 1j]):
        check_same_job(json.loads(json.dumps(made(value))), made(deepcopy(value)), FOLDER)
    array = np.zeros(5000)
    array[2500] = 1
    (said,) = differences(made(np.zeros(5000)), made(array))
    assert re.fullmatch(r"parameter what is '<ndarray \w{12}>', was '<ndarray \w{12}>'", said)


def test_a_parameter_that_has_come_or_gone_is_named():
    old = manifest()
    old["parameters"] = {"n": 10, "width": 3}
    assert differences(old, manifest()) == [
        "parameter scale is 1.0, was None",
        "parameter width is None, was 3",
    ]


@pytest.mark.parametrize(
    "new",
    [
        {},
        {"run_id": "another"},
        {"n_ranks": 16, "fault_tier": "ULFM", "mpi": "MPICH", "command": ["mpims", "resume"]},
        {"options": RunOptions(policy="SS", retries=7, on_error="skip", run_dir=Path("y"), timeout_s=3.0)},
    ],
)
def test_what_decides_nothing_may_change(new):
    check_same_job(manifest(), manifest(**new), FOLDER)


@pytest.mark.parametrize(
    "job", [X(scale=float("nan")), X(scale=float("-inf")), X(scale=1e-300)], ids=lambda job: str(job.scale)
)
def test_what_was_written_and_read_again_is_the_same(job):
    made = manifest(job)
    check_same_job(json.loads(json.dumps(made)), manifest(job), FOLDER)


class Adder:
    def __call__(self, left, right):
        return left + right


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: mpims.Reduce(Adder()), "Reduce(Adder)"),
        (lambda: mpims.Reduce(partial(np.add, dtype=float)), "Reduce(partial)"),
        (lambda: mpims.Reduce(lambda a, b: a + b), "Reduce(<lambda>)"),
        (lambda: mpims.Reduce(np.maximum), "Reduce(maximum)"),
        (lambda: mpims.Gather(dtype="f4"), "Gather(dtype='float32')"),
    ],
)
def test_an_output_is_the_same_in_every_process(make, text):
    """What stands for it may not be an address."""
    kept = make(), make()
    assert [repr(output) for output in kept] == [text, text]
    check_same_job(manifest(with_output(kept[0])), manifest(with_output(kept[1])), FOLDER)


def test_the_source_of_a_class_is_told_from_that_of_another():
    found = differences(manifest(X(), source_digest=None), manifest(Y(), source_digest=None))
    assert found == ["the job is Y, was X", "the source of the job is another"]
    check_same_job(manifest(X(), source_digest=None), manifest(X(), source_digest=None), FOLDER)


@pytest.mark.parametrize("found", [FORMAT - 1, FORMAT + 1, None, "2"])
def test_another_format_is_refused(found):
    old = {**manifest(), "format": found, "versions": {"mpims": "9.9"}}
    with pytest.raises(
        UsageError, match=f"has format {found}, made by mpims 9.9; this is mpims {__version__}"
    ):
        check_format(old, FOLDER)
    with pytest.raises(UsageError, match="made by mpims an unknown version"):
        check_format({"format": found}, FOLDER)


def test_our_own_format_is_taken():
    check_format(manifest(), FOLDER)


def test_other_versions_are_told():
    new = manifest()
    assert other_versions(manifest(), new) == []
    old = {**new, "versions": {**new["versions"], "numpy": "1.0", "python": "3.1", "mpims": "0"}}
    assert other_versions(old, new) == [
        f"python {new['versions']['python']}, was 3.1",
        f"numpy {np.__version__}, was 1.0",
    ]


def test_what_the_manifest_says_of_the_options():
    options = manifest(options=RunOptions(policy="SS", run_dir=Path("x"), seed=4, resume=True))["options"]
    assert options.keys() == set(RunOptions.__dataclass_fields__) - {
        "seed",
        "run_dir",
        "resume",
        "end_time_s",
    }
    assert options["policy"] == "SS"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versions": 3}, "its versions is 3"),
        ({"versions": None, "format": 9}, "its versions is None"),
        ({"options": []}, r"its options is \[\]"),
        ({"seed": "0"}, "its seed is '0'"),
        ({"resumed": [None]}, "in resumed stands None"),
        ({"taken_over": {}}, "its taken_over is {}"),
        ({"resumed": [{"n_ranks": "2"}]}, "its n_ranks is '2'"),
        ({"ranks": []}, r"its ranks is \[\]"),
    ],
)
def test_what_is_of_another_kind_is_said_to_be_damaged(changes, said):
    with pytest.raises(UsageError, match=rf"runs/x/manifest\.json is damaged: {said}") as caught:
        check_format({**manifest(), **changes}, FOLDER)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("key", ["run_id", "seed"])
def test_what_is_missing_is_said_to_be(key):
    left = {name: value for name, value in manifest().items() if name != key}
    with pytest.raises(UsageError, match=rf"manifest\.json is damaged: it has no {key}"):
        check_computed(left, FOLDER)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_items": ...}, "it has no n_items"),
        ({"block": ...}, "it has no block"),
        ({"block": 0}, "its block is 0"),
        ({"n_items": -1}, "its n_items is -1"),
        ({"block": 10**20}, "its block is 1000"),
        ({"options": {"timeout_s": "5"}}, "its timeout_s is '5'"),
    ],
)
def test_what_a_trace_cannot_be_read_without_is_said_to_be_damaged(changes, said):
    changed = {key: value for key, value in {**manifest(), **changes}.items() if value is not ...}
    with pytest.raises(UsageError, match=rf"runs/x/manifest\.json is damaged: {said}"):
        check_traced(changed, FOLDER)
    check_traced(manifest(), FOLDER)


def test_a_simulated_run_has_nothing_to_compute():
    with pytest.raises(UsageError, match=r"runs/x is what mpims simulate has left: .*; mpims report says"):
        check_computed({"format": FORMAT, "simulated": True}, FOLDER)


@pytest.mark.parametrize("versions", [None, {}, {"python": "1.0"}])
def test_versions_that_are_not_told_are_others(versions):
    old = {key: value for key, value in {**manifest(), "versions": versions}.items() if value is not None}
    assert f"numpy {np.__version__}, was None" in other_versions(old, manifest())
