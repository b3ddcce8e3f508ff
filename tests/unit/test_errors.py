"""What is shown of a value: its begin, without looking at all of it; and of an exception, in one line."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpims.errors import InternalError, RunFailed, brief, describe, unforeseen

Point = namedtuple("Point", "x y")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.binary(max_size=50),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_short_is_shown_whole(value):
    text = repr(value)
    if len(text) <= 200:
        assert brief(value, 200) == text
    else:
        assert brief(value, 200) == text[:197] + "..."


class Counted:
    n_shown = 0

    def __repr__(self):
        Counted.n_shown += 1
        return "x"


@pytest.mark.parametrize(
    "value",
    [
        [Counted()] * 100_000,
        (Counted(),) * 100_000,
        {i: Counted() for i in range(100_000)},
        [[[[[Counted()] * 1000] * 1000] * 1000] * 1000] * 1000,
        {Counted() for _ in range(1000)},
        defaultdict(int, {i: Counted() for i in range(100_000)}),
    ],
    ids=["list", "tuple", "dict", "nested", "set", "defaultdict"],
)
def test_no_more_is_looked_at_than_is_shown(value):
    Counted.n_shown = 0
    assert len(brief(value, 20)) == 20
    assert Counted.n_shown <= 20


def test_long_bytes_and_texts_are_not_written_out():
    for value in (b"x" * 10, "x" * 10, bytearray(b"x" * 10)):
        assert brief(value, 30) == repr(value)
        assert brief(value * 10_000_000, 30) == repr(value * 10)[:27] + "..."


@pytest.mark.parametrize(
    "value",
    [
        Counter("aab"),
        Point(1, [2]),
        {3, 1, 2},
        frozenset("a"),
        {"b": 1, "a": {}},
        np.float64(1.5),
        (1,),
        [],
        {},
        set(),
    ],
)
def test_other_containers_look_as_ever(value):
    assert brief(value, 200) == repr(value)


def test_what_is_like_a_dict_is_shown_in_its_order():
    assert brief(OrderedDict(b=1, a=2), 200) == "OrderedDict({'b': 1, 'a': 2})"


def test_a_value_that_cannot_be_shown_spoils_nothing():
    class Shy:
        def __repr__(self):
            raise RuntimeError("no")

    assert brief([1, Shy()], 100) == "[1, (cannot be shown: RuntimeError: no)]"


def test_a_list_that_contains_itself():
    value = [1]
    value.append(value)
    assert brief(value, 20) == "[1, [1, [1, [1, [..."
    value[:] = [value, value]
    assert brief(value, 20) == "[" * 17 + "..."


def test_what_the_machine_lacks_is_no_defect_of_ours():
    for error, told in (
        (
            MemoryError("Unable to allocate 19.1 MiB"),
            "out of memory (MemoryError: Unable to allocate 19.1 MiB)",
        ),
        (
            RuntimeError("can't start new thread"),
            "the system gave no other thread, see ulimit -u and ulimit -v",
        ),
    ):
        found = unforeseen(error, "its traceback")
        assert (type(found), found.message, found.detail) == (RunFailed, told, "")
    defect = unforeseen(RuntimeError("a wrong turn"), "its traceback")
    assert isinstance(defect, InternalError)
    assert defect.message == "this is a defect of mpims, please report it: RuntimeError: a wrong turn"
    assert defect.detail == "its traceback"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no convergence\nin item 7", "ValueError: no convergence"),
        ("\x1b[2J\x1b[31mred\x07\x00", "ValueError: ?[2J?[31mred??"),
        ("10 %\r20 %\tdone", "ValueError: 10 % 20 % done"),
        ("\u202egnp.exe \udcff", "ValueError: ?gnp.exe ?"),
        ("größe 日本 שלום", "ValueError: größe 日本 שלום"),
        (" \n", "ValueError"),
    ],
)
def test_what_is_told_of_an_exception_is_one_line_and_no_order_to_a_terminal(text, told):
    assert describe(ValueError(text)) == told


def test_of_a_long_text_of_an_exception_its_begin_is_told():
    assert describe(ValueError("x" * 400)) == "ValueError: " + "x" * 400
    assert describe(ValueError("x" * 5000)) == "ValueError: " + "x" * 397 + "..."
