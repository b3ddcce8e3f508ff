"""How a user names a technique and its parameters, and what is said where that is wrong."""

from __future__ import annotations

import pytest

from mpims.cli.main import make_parser
from mpims.core.policies import POLICIES, Policy, parse_policy
from mpims.errors import UsageError
from mpims.options import DEFAULT_POLICY


@pytest.mark.parametrize(
    ("spec", "text", "values"),
    [
        ("FAC2", "FAC2", {}),
        ("fac2", "FAC2", {}),
        ("MFSC", "mFSC", {}),
        ("css:100", "CSS:100", {"size": 100}),
        ("CSS:size=7", "CSS:7", {"size": 7}),
        ("fsc:SIGMA=.1, h=5e-5", "FSC:h=5e-5,sigma=.1", {"h": 5e-5, "sigma": 0.1}),
        ("TAP:mu=1,sigma=2", "TAP:mu=1,sigma=2", {"mu": 1.0, "sigma": 2.0, "alpha": 1.3}),
        ("WF:weights=1/1/0.5", "WF:1/1/0.5", {"weights": (1.0, 1.0, 0.5)}),
        ("PLS", "PLS", {"swr": 0.5}),
        ("pls:0.25", "PLS:0.25", {"swr": 0.25}),
    ],
)
def test_a_policy_is_found_by_its_name_in_either_case_with_its_parameters(spec, text, values):
    found = parse_policy(spec)
    assert str(found) == text
    assert found.values == values
    assert parse_policy(str(found)) == found


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_is_found_and_says_where_it_is_from(name):
    for n_workers in (1, 4):
        spec = parse_policy(POLICIES[name].example(n_workers))
        spec.check_workers(n_workers)
        assert spec.technique.name == name
        assert spec.technique.source
        assert spec.technique.__doc__
        assert isinstance(spec.make(10, n_workers), Policy)


def test_the_default_is_one_of_them_and_needs_nothing():
    assert str(parse_policy(DEFAULT_POLICY)) == DEFAULT_POLICY


def test_a_block_of_items_has_the_mean_and_the_deviation_of_many():
    """mu B and sigma sqrt(B): R / P less a margin of alpha sigma / mu / sqrt(B)."""
    for items, block, blocks in [
        ("TAP:mu=1,sigma=4,alpha=1", 16, "TAP:mu=1,sigma=1,alpha=1"),
        ("FSC:h=1,sigma=1", 4, "FSC:h=1,sigma=2"),
        ("BOLD:mu=1,sigma=1,h=2", 4, "BOLD:mu=4,sigma=2,h=2"),
    ]:
        of_items, of_blocks = parse_policy(items).make(1000, 4, block), parse_policy(blocks).make(1000, 4)
        assert of_items.propose(1000, 1) == of_blocks.propose(1000, 1) < 250


@pytest.mark.parametrize(("size", "blocks"), [(1, 1), (7, 1), (8, 2), (14, 2)])
def test_a_size_in_items_is_rounded_up_to_blocks(size, blocks):
    assert parse_policy(f"CSS:{size}").make(100, 4, block=7).propose(100, 1) == blocks


@pytest.mark.parametrize(
    ("spec", "nearest"), [("GS", "GSS"), ("fac2x", "FAC2"), ("STATTIC", "STATIC"), ("awfb", "AWF-B")]
)
def test_an_unknown_policy_is_answered_with_the_list_and_the_nearest(spec, nearest):
    with pytest.raises(ValueError, match="no policy") as caught:
        parse_policy(spec)
    text = str(caught.value)
    assert repr(spec) in text
    assert ", ".join(POLICIES) in text
    assert text.endswith(f"did you mean {nearest}?")


@pytest.mark.parametrize("spec", ["", "quixotic", ":5", "GSS,FAC2,SS,TSS "])
def test_what_is_near_to_nothing_gets_the_list_alone(spec):
    with pytest.raises(ValueError, match=r"there are auto, STATIC, SS, CSS, .*, PLS$"):
        parse_policy(spec)


REFUSED = [
    ("GSS:5", "policy GSS takes no parameters, found 'GSS:5'"),
    ("FAC2:", "policy FAC2 takes no parameters, found 'FAC2:'"),
    ("CSS", r"policy CSS needs size \(items in a chunk\): write CSS:100$"),
    (
        "FSC:h=1",
        r"policy FSC needs sigma \(standard deviation of one item's time \[s\]\): write FSC:h=.*,sigma=.*; "
        "`mpims simulate --dist trace:RUN` shows what an earlier run measured",
    ),
    (
        "BOLD",
        r"policy BOLD needs mu \(mean .*\), sigma \(.*\), h \(overhead of one hand-out \[s\]\): write ",
    ),
    ("WF", r"policy WF needs weights \(.*\): write WF:1/1/0.5$"),
    ("FAC:1", "policy FAC takes mu .*, sigma .*, found '1': write FAC:mu="),
    ("FAC:", "policy FAC takes mu .*, sigma .*, found '': write FAC:mu="),
    ("FAC:mu=1,sigma=1,h=2", "policy FAC takes mu .*, sigma .*, found 'h=2'"),
    ("FAC:mu=1,mu=1,sigma=2", "policy FAC takes .*, found 'mu' twice"),
    (
        "FAC:mu=0,sigma=1",
        "mu of policy FAC .* must be from 1e-12 to 1e.09, found '0': write for example mu=1e-3",
    ),
    ("FAC:mu=-1,sigma=1", "mu of policy FAC .*, found '-1'"),
    ("FAC:mu=nan,sigma=1", "mu of policy FAC .*, found 'nan'"),
    ("FAC:mu=inf,sigma=1", "mu of policy FAC .*, found 'inf'"),
    ("FAC:mu=1,sigma=-0.1", "sigma of policy FAC .* must be from 0 to 1e.09, found '-0.1'"),
    ("FAC:mu=1,sigma=", "sigma of policy FAC .*, found ''"),
    ("FAC:mu=one,sigma=1", "mu of policy FAC .*, found 'one'"),
    ("TAP:mu=1,sigma=1,alpha=-1", "alpha of policy TAP .*, found '-1'"),
    ("BOLD:mu=1,sigma=1,h=0", "h of policy BOLD .*, found '0'"),
    ("PLS:0", "swr of policy PLS .* must be from 0.01 to 1, found '0'"),
    ("PLS:1.5", "swr of policy PLS .*, found '1.5'"),
    ("WF:1/0/1", "weights of policy WF .* must be one number for each worker, .*, found '1/0/1'"),
    ("WF:1//1", "weights of policy WF .*, found '1//1'"),
    *(
        (f"CSS:{size}", r"size of policy CSS \(items in a chunk\) must be a whole number above 0, found ")
        for size in ("0", "-3", "x", "", "1.5", "1:2", "²")
    ),
]


@pytest.mark.parametrize(("spec", "text"), REFUSED)
def test_wrong_parameters_are_refused_in_one_line(spec, text):
    with pytest.raises(ValueError, match=text) as caught:
        parse_policy(spec)
    assert "\n" not in str(caught.value)


def test_weights_are_for_a_number_of_workers():
    spec = parse_policy("WF:1/2/3")
    spec.check_workers(3)
    with pytest.raises(ValueError, match=r"weight for each of the 4 workers, found 3: write WF:1/1/1/0\.5"):
        spec.check_workers(4)
    parse_policy("FAC2").check_workers(4)


def test_those_that_are_asked_for_are_shown(capsys):
    typed = ["policies", "--items", "100", "--policy", "GSS", "--policy", "FAC2"]
    arguments = make_parser(["policies"]).parse_args(typed)
    assert arguments.command(arguments) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "]
    assert shown == ["GSS", "FAC2"]


@pytest.mark.parametrize(("n_items", "said"), [("2", "GSS      2 chunks."), ("1", "GSS      1 chunk. ")])
def test_a_number_of_workers_may_be_written_with_an_exponent(n_items, said, capsys):
    typed = ["policies", "--items", n_items, "--policy", "GSS", "--workers", "1e3"]
    arguments = make_parser(["policies"]).parse_args(typed)
    assert arguments.workers == 1000
    assert arguments.command(arguments) == 0
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize("n_items", ["0", "-1", "1e8"])
def test_there_are_no_chunks_of_no_items_nor_of_too_many(n_items):
    arguments = make_parser(["policies"]).parse_args(["policies", "--items", n_items])
    with pytest.raises(UsageError, match="--items wants 1 to 10,000,000, found "):
        arguments.command(arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [("2.5", "a whole number, as 8 or 1e3, found '2.5'"), ("1e9", "1 to 1,000,000, found")],
)
def test_a_number_of_workers_that_cannot_be_is_refused(text, said):
    with pytest.raises(UsageError, match=f"--workers wants {said}"):
        arguments = make_parser(["policies"]).parse_args(["policies", "--workers", text])
        arguments.command(arguments)
