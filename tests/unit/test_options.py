"""The options of a run: what is refused, and what is kept."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.cli.main import make_parser
from mpims.cli.run import options_from
from mpims.errors import ExitStatus, UsageError
from mpims.options import DEFAULT_POLICY, RunOptions


def test_every_option_has_a_default():
    options = RunOptions()
    assert options.policy == DEFAULT_POLICY
    assert (options.chunk_min, options.chunk_max) == (1, None)
    assert options.timeout_s is None
    assert options.seed == 0
    assert options.run_dir is None
    assert (options.retries, options.on_error) == (2, "abort")
    assert (options.durability_s, options.grace_s) == (1.0, 10.0)
    assert not options.resume
    assert not options.quiet


def test_options_are_named_and_cannot_be_changed():
    with pytest.raises(TypeError):
        RunOptions("GSS")
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunOptions().seed = 1


@pytest.mark.parametrize(
    "given",
    [
        {"policy": "gss"},
        {"policy": "CSS:10"},
        {"policy": "FSC:h=5e-5,sigma=0.1"},
        {"chunk_min": 5, "chunk_max": 5},
        {"timeout_s": 0.001},
        {"timeout_s": 10},
        {"seed": 2**100},
        {"run_dir": Path("runs/x")},
        {"run_dir": Path("runs/x"), "resume": True},
        {"retries": 0, "on_error": "skip"},
        {"durability_s": None},
        {"durability_s": 0},
        {"durability_s": 1e9},
        {"grace_s": 0.0},
    ],
)
def test_what_is_in_range_is_kept(given):
    options = RunOptions(**given)
    assert {name: getattr(options, name) for name in given} == given


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"policy": "GS"}, "no policy 'GS': there are .*did you mean GSS?"),
        ({"policy": "CSS"}, "policy CSS needs size .*: write CSS:100"),
        ({"policy": "FAC:mu=0,sigma=1"}, "mu of policy FAC .* must be from .*, found '0'"),
        ({"policy": "GSS:4"}, "policy GSS takes no parameters"),
        ({"chunk_min": 0}, "the least chunk must be at least 1 item, found 0"),
        ({"chunk_min": -5}, "the least chunk must be at least 1 item, found -5"),
        ({"chunk_max": 0}, "the largest chunk must be at least the least one, found 1:0"),
        ({"chunk_min": 10, "chunk_max": 9}, "the largest chunk .* found 10:9"),
        ({"timeout_s": 0.0}, "the timeout must be a number of seconds above 0, found 0.0"),
        ({"timeout_s": -1.0}, "the timeout must be a number of seconds above 0, found -1.0"),
        ({"timeout_s": math.inf}, "the timeout must be a number of seconds above 0, found inf"),
        ({"timeout_s": math.nan}, "the timeout must be a number of seconds above 0, found nan"),
        ({"retries": -1}, "the retries must be at least 0, found -1"),
        ({"on_error": "ignore"}, "on error there is abort or skip, found 'ignore'"),
        ({"on_error": None}, "on error there is abort or skip, found None"),
        ({"durability_s": -0.1}, "the durability must be a number of .*, or off .None., found -0.1"),
        ({"durability_s": math.nan}, "the durability must be a number of .*, or off .None., found nan"),
        ({"durability_s": math.inf}, "the durability must be a number of .*, or off .None., found inf"),
        ({"grace_s": -1.0}, "the grace must be a number of seconds of at least 0, found -1.0"),
        ({"grace_s": math.inf}, "the grace must be a number of seconds of at least 0, found inf"),
        ({"grace_s": math.nan}, "the grace must be a number of seconds of at least 0, found nan"),
        ({"resume": True}, "resume needs the run directory of the run to go on with"),
        ({"seed": -1}, "the seed must be at least 0, found -1"),
    ],
)
def test_what_is_out_of_range_is_refused_in_one_line(given, text):
    with pytest.raises(UsageError, match=text) as caught:
        RunOptions(**given)
    assert caught.value.exit_status == ExitStatus.USAGE
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"policy": None}, "policy must be a text such as 'GSS', found None"),
        ({"chunk_min": None}, "chunk_min must be an integer, found None"),
        ({"chunk_min": 1.5}, "chunk_min must be an integer, found 1.5"),
        ({"chunk_max": "3"}, "chunk_max must be an integer, found '3'"),
        ({"chunk_max": math.nan}, "chunk_max must be an integer, found nan"),
        ({"retries": 2.0}, "retries must be an integer, found 2.0"),
        ({"retries": True}, "retries must be an integer, found True"),
        ({"seed": "7"}, "seed must be an integer, found '7'"),
        ({"seed": math.inf}, "seed must be an integer, found inf"),
        ({"timeout_s": "3"}, "timeout_s must be a number of seconds, found '3'"),
        ({"durability_s": "off"}, "durability_s must be a number of seconds, found 'off'"),
        ({"grace_s": None}, "grace_s must be a number of seconds, found None"),
        ({"log_every_s": [1]}, r"log_every_s must be a number of seconds, found \[1\]"),
        ({"end_time_s": "10:00"}, "end_time_s must be a number of seconds, found '10:00'"),
        ({"run_dir": 3}, "run_dir must be a path, found 3"),
        ({"wait": np.array(["sleep", "spin"])}, "one waits by sleep or spin, found array"),
    ],
)
def test_what_is_of_another_type_is_refused_by_its_name(given, text):
    with pytest.raises(UsageError, match=text):
        RunOptions(**given)


def test_numbers_of_other_kinds_are_kept_as_pythons_own():
    options = RunOptions(
        chunk_max=np.int64(3), seed=np.uint8(7), timeout_s=np.float32(2), grace_s=np.int64(4)
    )
    kept = (options.chunk_max, options.seed, options.timeout_s, options.grace_s)
    assert kept == (3, 7, 2.0, 4)
    assert {type(number) for number in kept} == {int, float}
    assert RunOptions(run_dir="runs/x").run_dir == Path("runs/x")


def test_weights_for_other_workers_are_refused():
    options = RunOptions(policy="WF:1/2")
    options.check_workers(2)
    with pytest.raises(UsageError, match="a weight for each of the 3 workers, found 2"):
        options.check_workers(3)


def test_a_policy_is_shown_as_it_is_defined():
    assert RunOptions(policy="mfsc").policy_text == "mFSC"


@settings(max_examples=100, deadline=None)
@given(st.integers(-5, 20), st.none() | st.integers(-5, 20))
def test_chunk_limits_are_taken_exactly_if_a_chunk_fits_between_them(minimum, maximum):
    fits = minimum >= 1 and (maximum is None or maximum >= minimum)
    if fits:
        RunOptions(chunk_min=minimum, chunk_max=maximum)
    else:
        with pytest.raises(UsageError):
            RunOptions(chunk_min=minimum, chunk_max=maximum)


@pytest.mark.parametrize(
    ("text", "limits"), [("5", (5, None)), ("5:9", (5, 9)), (":9", (1, 9)), (" 7 ", (7, None))]
)
def test_the_limits_of_a_chunk_are_read(text, limits):
    options = options_from(make_parser(["run"]).parse_args(["run", "x.py", "--chunk", text]), RunOptions())
    assert (options.chunk_min, options.chunk_max) == limits


@pytest.mark.parametrize("text", ["", ":", "5:", "1e3", "inf", "nan:5"])
def test_limits_of_a_chunk_that_are_none_are_refused_in_one_line(text):
    arguments = make_parser(["run"]).parse_args(["run", "x.py", "--chunk", text])
    with pytest.raises(UsageError, match=f"--chunk wants MIN or MIN:MAX, found '{text}'"):
        options_from(arguments, RunOptions())
