"""The parameters of a job: found in its annotations, converted from text, bound to values."""

from __future__ import annotations

import contextlib
import math
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional, Union

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.errors import UsageError
from mpims.job import Job
from mpims.parameters import REQUIRED, Parameter, bind, find_parameters, parse_settings, type_name


def convert(text, hint):
    """One value from text, by way of the public function."""
    return parse_settings("J", {"x": Parameter("x", hint)}, [f"x={text}"])["x"]


def check(value, hint):
    """One value given in Python, by way of the public function."""
    return bind("J", {"x": Parameter("x", hint)}, {"x": value})["x"]


# ------------------------------------------------------------------------- finding


class Base(Job):
    """A parent of jobs: the annotations of this file are strings."""

    width: int = 3
    name: str = "base"
    required: float
    shared: ClassVar[int] = 1
    _hidden: int = 2
    plain = 4


class Child(Base):
    """Adds a parameter, changes a default, and fills in what was required."""

    extra: Literal["a", "b"] = "a"
    width = 30
    required: float = 0.5


def test_annotated_attributes_are_parameters_and_nothing_else_is():
    assert find_parameters(Base, Job) == {
        "width": Parameter("width", int, 3),
        "name": Parameter("name", str, "base"),
        "required": Parameter("required", float, REQUIRED),
    }


def test_a_child_has_its_parents_parameters_first_and_may_change_their_defaults():
    assert list(find_parameters(Child, Job).items()) == [
        ("width", Parameter("width", int, 30)),
        ("name", Parameter("name", str, "base")),
        ("required", Parameter("required", float, 0.5)),
        ("extra", Parameter("extra", Literal["a", "b"], "a")),
    ]


def test_a_class_variable_takes_a_parents_parameter_away():
    class Fixed(Base):
        width: ClassVar[int] = 7

    assert "width" not in find_parameters(Fixed, Job)


def test_the_annotations_of_a_class_that_is_no_job_are_not_parameters():
    class Mixin:
        tuning: int = 1

    class Mixed(Mixin, Job):
        own: int = 2

    assert list(find_parameters(Mixed, Job)) == ["own"]


DEFINITION = """
{future}
from pathlib import Path
from typing import Literal, Optional
from mpims.job import Job

class Typed(Job):
    a: int = 1
    b: Optional[float] = None
    c: Literal["x", "y"] = "x"
    d: list[int] = [1]
    e: tuple[float, ...] = ()
    f: Path = Path(".")
    g: int | None = None
"""


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_annotations_are_types_whether_they_are_strings_or_not(future):
    namespace = {"__name__": __name__}
    exec(compile(DEFINITION.format(future=future), "typed.py", "exec", dont_inherit=True), namespace)
    if future:  # strings are looked up in the module of their class
        globals().setdefault("Path", Path)
    parameters = find_parameters(namespace["Typed"], Job)
    assert {name: p.type for name, p in parameters.items()} == {
        "a": int,
        "b": Optional[float],  # noqa: UP045
        "c": Literal["x", "y"],
        "d": list[int],
        "e": tuple[float, ...],
        "f": Path,
        "g": int | None,
    }


@pytest.mark.parametrize(
    "name", ["block", "output", "kernel", "items", "rng", "indices", "run_dir", "parameters"]
)
def test_a_name_of_jobs_own_cannot_be_a_parameter(name):
    with pytest.raises(UsageError, match=f"'{name}' cannot be a parameter, mpims.Job uses that name"):
        type("Wrong", (Job,), {"__annotations__": {name: int}, name: 1})


def test_an_annotation_that_cannot_be_evaluated_is_the_authors_mistake():
    with pytest.raises(UsageError, match=r"job Wrong: an annotation cannot be read: .*Colour"):
        type("Wrong", (Job,), {"__annotations__": {"colour": "Colour"}})


def test_class_variables_may_have_jobs_names():
    class Blocked(Job):
        block: ClassVar[int] = 64

    assert Blocked.block == 64
    assert Blocked()._parameters == {}


# ------------------------------------------------------------------- text to values


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("7", int, 7),
        ("-7", int, -7),
        ("1_000", int, 1000),
        ("1e6", int, 1_000_000),
        ("2.0", int, 2),
        ("0.5", float, 0.5),
        ("3", float, 3.0),
        ("1e-3", float, 0.001),
        ("-inf", float, -math.inf),
        ("1+2j", complex, 1 + 2j),
        ("text with = and ,", str, "text with = and ,"),
        ("", str, ""),
        ("anything", Any, "anything"),
        ("a/b", Path, Path("a/b")),
        ("b", Literal["a", "b"], "b"),
        ("2", Literal[1, 2], 2),
        ("none", int | None, None),
        ("None", Optional[int], None),  # noqa: UP045
        ("", int | None, None),
        ("5", int | None, 5),
        ("0.5", int | float, 0.5),
        ("5", Union[int, float], 5),  # noqa: UP007
        ("no number", int | str, "no number"),
        ("b", Literal["a", "b"] | None, "b"),
        ("1,2,3", list[int], [1, 2, 3]),
        ("", list[int], []),
        ("1,", tuple[int, ...], (1,)),
        ("1,2", tuple[float, ...], (1.0, 2.0)),
        ("0.5,2", tuple[float, float], (0.5, 2.0)),
        ("a,b", list[str], ["a", "b"]),
        ("1,none", list[int | None], [1, None]),
        ("a,b", list[Path], [Path("a"), Path("b")]),
    ],
)
def test_text_becomes_a_value_of_the_type(text, hint, expected):
    value = convert(text, hint)
    assert value == expected
    assert type(value) is type(expected)
    if isinstance(value, (list, tuple)):
        assert [type(part) for part in value] == [type(part) for part in expected]


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "on"])
def test_words_for_true(text):
    assert convert(text, bool) is True


@pytest.mark.parametrize("text", ["0", "false", "False", "no", "off"])
def test_words_for_false(text):
    assert convert(text, bool) is False


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert convert("~/table.csv", Path) == Path("/somewhere/table.csv")


@pytest.mark.parametrize(
    ("text", "hint", "wanted"),
    [
        ("x", int, "int"),
        ("1.5", int, "int"),
        ("nan", int, "int"),
        ("", int, "int"),
        ("x", float, "float"),
        ("1+", complex, "complex"),
        ("maybe", bool, r"bool, found 'maybe' \(write true or false\)"),
        ("c", Literal["a", "b"], r"Literal\['a', 'b'\]"),
        ("x", int | None, r"int \| None"),
        ("x", Optional[int], "Optional|int"),  # noqa: UP045
        ("1,x", list[int], r"list\[int\]"),
        ("1", bytes, "bytes, found '1' .*set it in Python"),
        ("1", dict[str, int], "dict.*set it in Python"),
    ],
)
def test_text_of_another_type_is_refused_with_the_type_and_the_text(text, hint, wanted):
    with pytest.raises(UsageError, match=f"job J: parameter x wants .*{wanted}") as caught:
        convert(text, hint)
    assert f"found {text!r}" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["inf", "-inf", "1e999"])
def test_infinity_is_no_integer(text):
    with pytest.raises(UsageError, match="wants int, found"):
        convert(text, int)


def test_a_large_integer_is_not_rounded():
    assert convert("1e23", int) == 10**23


@pytest.mark.parametrize(
    ("hint", "default", "text", "value"),
    [
        (tuple, (0.1, 0.2), "0.3,1", (0.3, 1.0)),
        (list, [1, 2.5], "3", [3.0]),
        (list, [1], "2,3", [2, 3]),
        (list, [True], "no", [False]),
        (list, ["a"], "1,2", ["1", "2"]),
        (list, [], "1,2", ["1", "2"]),
        (tuple, (1, "a"), "1,2", ("1", "2")),
        (tuple, REQUIRED, "1,2", ("1", "2")),
    ],
)
def test_a_list_without_types_takes_from_text_what_its_default_holds(hint, default, text, value):
    parsed = parse_settings("J", {"x": Parameter("x", hint, default)}, [f"x={text}"])["x"]
    assert parsed == value
    assert [type(element) for element in parsed] == [type(element) for element in value]


def test_a_list_without_types_refuses_what_is_not_as_in_its_default():
    with pytest.raises(UsageError, match=r"parameter x wants list\[int\], found '1,b'"):
        parse_settings("J", {"x": Parameter("x", list, [1])}, ["x=1,b"])


def test_each_place_of_a_tuple_has_its_own_type():
    assert convert("a,1", tuple[str, int]) == ("a", 1)


@pytest.mark.parametrize("text", ["1", "1,2,3"])
def test_a_tuple_of_two_wants_two(text):
    with pytest.raises(UsageError, match=r"wants tuple\[float, float\]"):
        convert(text, tuple[float, float])


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.tuples(st.just(int), st.integers()),
        st.tuples(st.just(float), st.floats(allow_nan=False)),
        st.tuples(st.just(complex), st.complex_numbers(allow_nan=False)),
        st.tuples(st.just(bool), st.booleans()),
        st.tuples(st.just(str), st.text()),
    )
)
def test_a_value_survives_its_own_text(case):
    hint, value = case
    assert convert(str(value), hint) == value


@settings(max_examples=100, deadline=None)
@given(st.text(), st.sampled_from([int, float, complex, bool, Literal["a"], list[int], int | None]))
def test_no_text_causes_anything_but_a_value_or_a_usage_error(text, hint):
    with contextlib.suppress(UsageError):
        convert(text, hint)


@pytest.mark.parametrize("setting", ["width", "", "--width"])
def test_a_setting_without_equals_is_refused(setting):
    with pytest.raises(UsageError, match="write --set NAME=VALUE"):
        parse_settings("J", {}, [setting])


def test_the_last_of_several_settings_counts_and_unknown_names_pass_as_text():
    parameters = {"n": Parameter("n", int)}
    assert parse_settings("J", parameters, ["n=1", "who=x=y", "n=2"]) == {"n": 2, "who": "x=y"}


# -------------------------------------------------------------------------- binding


def test_what_is_not_given_has_its_default():
    parameters = {"a": Parameter("a", int, 1), "b": Parameter("b", str, "x")}
    assert bind("J", parameters, {"b": "y"}) == {"a": 1, "b": "y"}


def test_a_default_is_held_to_its_type_like_a_value():
    assert type(bind("J", {"a": Parameter("a", float, 1)}, {})["a"]) is float
    with pytest.raises(UsageError, match=r"parameter a wants int, found 'one' \(str\)"):
        bind("J", {"a": Parameter("a", int, "one")}, {})


def test_a_value_that_is_required_is_asked_for():
    with pytest.raises(UsageError, match="job J needs a value for a: --set a=VALUE"):
        bind("J", {"a": Parameter("a", int)}, {})


class Kind(Enum):
    CALL = "call"
    PUT = "put"


def test_an_enum_is_given_by_the_name_of_its_member():
    assert convert("PUT", Kind) is Kind.PUT
    assert convert("PUT", Kind | None) is Kind.PUT
    assert convert("CALL,PUT", list[Kind]) == [Kind.CALL, Kind.PUT]
    with pytest.raises(UsageError, match=r"wants Kind, found 'put' \(write one of CALL, PUT\)"):
        convert("put", Kind)


def test_an_unknown_name_gets_the_list_and_the_nearest():
    parameters = {"width": Parameter("width", int, 1), "height": Parameter("height", int, 1)}
    with pytest.raises(UsageError) as caught:
        bind("J", parameters, {"widht": 3})
    assert (
        caught.value.message == "job J has no parameter 'widht': it has width, height; did you mean width?"
    )


def test_an_unknown_name_near_to_none_gets_the_list_alone():
    with pytest.raises(UsageError, match=r"job J has no parameter 'q': it has none$"):
        bind("J", {}, {"q": 3})


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (np.int64(3), int, 3),
        (3, float, 3.0),
        (np.float32(0.5), float, 0.5),
        (1j, complex, 1j),
        ("x", Path, Path("x")),
        (Path("x"), Path, Path("x")),
        (None, int | None, None),
        (3, int | None, 3),
        (3, float | None, 3.0),
        (3, int | float, 3),
        ("a", Literal["a", "b"], "a"),
        ([1], list[int], [1]),
        ((1, 2), tuple[int, ...], (1, 2)),
        ({"a": 1}, dict[str, int], {"a": 1}),
        (b"x", bytes, b"x"),
        ([1, "a"], list, [1, "a"]),
        ([1, None], list[int | None], [1, None]),
        (["a", "b"], list[Literal["a", "b"]], ["a", "b"]),
        (["a"], list[Path], [Path("a")]),
        ([[1], []], list[list[int]], [[1], []]),
        (("a", 1), tuple[str, int], ("a", 1)),
        ((1, 2), tuple[float, float], (1.0, 2.0)),
        (1, Any, 1),
        (object, Any, object),
    ],
)
def test_a_value_of_the_type_is_taken(value, hint, expected):
    taken = check(value, hint)
    assert taken == expected
    assert type(taken) is type(expected)
    if isinstance(taken, (list, tuple)):
        assert [type(part) for part in taken] == [type(part) for part in expected]


@pytest.mark.parametrize(
    ("value", "hint", "text"),
    [
        ("3", int, r"parameter x wants int, found '3' \(str\)"),
        (0.5, int, r"parameter x wants int, found 0.5 \(float\)"),
        (True, int, r"parameter x wants int, found True \(bool\)"),
        (True, float, r"wants float, found True \(bool\)"),
        (1, bool, r"wants bool, found 1 \(int\)"),
        (None, int, "wants int, found None"),
        ("c", Literal["a", "b"], "found 'c'"),
        ("x", int | None, r"wants int \| None, found 'x'"),
        ((1,), list[int], r"wants list\[int\], found \(1,\)"),
        (3, Path, "wants Path, found 3"),
        (3, str, "wants str, found 3"),
        (["a"], list[int], r"wants list\[int\], found \['a'\]"),
        ([1, None], list[int], r"wants list\[int\]"),
        (("a", "b"), tuple[str, int], r"wants tuple\[str, int\]"),
        ((1.0, 2.0, 3.0), tuple[float, float], r"wants tuple\[float, float\]"),
    ],
)
def test_a_value_of_another_type_is_refused(value, hint, text):
    with pytest.raises(UsageError, match=f"job J: .*{text}"):
        check(value, hint)


def test_an_integer_beyond_all_floats_is_refused_as_a_float():
    with pytest.raises(UsageError, match="wants float, found 1000"):
        check(10**400, float)


@pytest.mark.parametrize("value", [1, 0.5, np.float64(0.5)])
def test_a_real_number_is_a_complex_one(value):
    taken = check(value, complex)
    assert taken == value


def test_an_array_is_refused_where_a_word_is_wanted():
    with pytest.raises(UsageError, match="wants Literal"):
        check(np.array(["a", "b"]), Literal["a", "b"])


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, "int"),
        (Path, "Path"),
        (list[int], "list[int]"),
        (int | None, "int | None"),
        (Literal["a"], "Literal['a']"),
    ],
)
def test_a_type_is_named_as_it_was_written(hint, expected):
    assert type_name(hint) == expected


def test_a_type_may_be_one_of_the_class_itself():
    class Shades(Job):
        Shade = Literal["light", "dark"]
        shade: Shade = "dark"

    class Numbered(Shades):
        n: int = 1

    assert Numbered().parameters == {"shade": "dark", "n": 1}
    with pytest.raises(UsageError, match="shade"):
        Numbered(shade="red")
