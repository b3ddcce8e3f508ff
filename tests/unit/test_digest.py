"""Digests: equal values are equal, and different ones are different."""

from __future__ import annotations

import copy
import enum
import functools
import hashlib
import operator
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from itertools import combinations
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.digest import digest, digest_items, told


class Colour(enum.Enum):
    """An enum."""

    RED = 1
    GREEN = 2


class Shade(enum.Enum):
    """An enum with the same members."""

    RED = 1
    GREEN = 2


class Level(enum.IntEnum):
    """An enum whose members are ints."""

    ONE = 1


@dataclass
class Point:
    """A dataclass."""

    x: float
    y: float = 0.0
    tags: list = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Slotted:
    """A frozen dataclass with slots."""

    x: float
    y: float = 0.0


class Plain:
    """A class without anything."""

    def __init__(self, **values):
        self.__dict__.update(values)


class MyList(list):
    """A kind of list."""


Pair = namedtuple("Pair", "a b")

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.binary(),
)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.frozensets(st.integers() | st.text(max_size=3), max_size=4),
    ),
    max_leaves=12,
)


def rebuilt(value):
    """An equal value that shares nothing with the first."""
    return copy.deepcopy(value)


# ----------------------------------------------------------------- equal: the same


@settings(max_examples=150, deadline=None)
@given(values)
def test_a_value_and_its_copy_have_one_digest(value):
    assert digest(rebuilt(value)) == digest(value)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), st.integers(), max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_a_dict_does_not_show(value, random):
    entries = list(value.items())
    random.shuffle(entries)
    assert digest(dict(entries)) == digest(value)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers() | st.text(), max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_a_set_does_not_show(value, random):
    members = list(value)
    random.shuffle(members)
    other = set(members + list(range(100)))
    other -= set(range(100)) - value
    assert digest(other) == digest(value)


def test_which_objects_are_the_same_one_does_not_show():
    first, second = [1, 2], [1, 2]
    assert digest((first, first)) == digest((first, second))
    assert digest({"a": first, "b": first}) == digest({"a": first, "b": second})
    assert digest([first] * 3) == digest([[1, 2], [1, 2], [1, 2]])


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(6, dtype=np.int16).reshape(2, 3),
        lambda: np.array(["a", "bc"]),
        lambda: np.array([[1, "a"], [None, (2,)]], dtype=object),
        lambda: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
        lambda: np.zeros((0, 3)),
        lambda: np.array(5.0),
        lambda: np.array(None, dtype=object),
        lambda: np.array([1.0, np.nan]),
        lambda: Point(1.0, 2.0, ["a"]),
        lambda: Slotted(1.0),
        lambda: Plain(a=[1], b=Plain(c={1, 2})),
        lambda: Counter("hello"),
        lambda: OrderedDict(a=1, b=2),
        lambda: defaultdict(list, a=[1]),
        lambda: deque([1, 2], maxlen=3),
        lambda: Pair(1, [2]),
        lambda: MyList([1]),
        lambda: {Colour.RED: Level.ONE},
        lambda: Fraction(1, 3),
        lambda: date(2020, 1, 1),
        lambda: PurePosixPath("a/b"),
        lambda: range(2, 9, 3),
        lambda: functools.partial(operator.add, 1),
        lambda: [Point, len, rebuilt],
        lambda: np.random.default_rng(3),
        lambda: np.dtype("f4"),
        lambda: slice(1, 2),
        lambda: {"text": "\ud800"},
    ],
)
def test_what_is_made_twice_has_one_digest(make):
    assert digest(make()) == digest(make())


def test_how_an_array_lies_in_memory_does_not_show():
    array = np.arange(12).reshape(3, 4)
    assert digest(np.asfortranarray(array)) == digest(array)
    assert digest(array[::2]) == digest(array[::2].copy())
    assert digest(array.T) == digest(np.ascontiguousarray(array.T))


def test_a_numpy_scalar_is_an_array_without_axes():
    assert digest(np.float32(1.5)) == digest(np.array(1.5, dtype=np.float32))
    assert digest([np.int64(3)]) == digest([np.array(3)])


def test_the_padding_between_fields_does_not_show():
    """It holds whatever was in memory before, which is nothing that two ranks share."""
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    clean = np.zeros(2, dtype)
    dirty = np.frombuffer(b"\xff" * (2 * dtype.itemsize), dtype).copy()
    dirty["a"], dirty["b"] = 0, 0
    assert (clean == dirty).all()
    assert digest(clean) == digest(dirty)


@pytest.mark.parametrize("dtype", ["g", "G", np.dtype("g").newbyteorder(), [("a", "i1"), ("b", "g", 2)]])
def test_the_padding_of_long_doubles_does_not_show(dtype):
    """The processor writes 10 of their 16 bytes."""
    zeros = np.zeros((2, 3), dtype)
    dirty = np.frombuffer(b"\xab" * zeros.nbytes, zeros.dtype).reshape(zeros.shape).copy()
    clean = zeros.copy()
    for array in (clean, dirty):
        for part in [array[name] for name in array.dtype.names or ()] or [array]:
            np.add(np.zeros_like(part), 1, out=part)
    assert (clean == dirty).all()
    assert digest(clean) == digest(dirty)
    assert digest(clean) != digest(zeros)


def test_large_arrays_are_hashed_to_their_end():
    array = np.zeros((1 << 24) + 10, dtype=np.uint8)
    other = array.copy()
    other[-1] = 1
    assert digest(array) != digest(other)


# -------------------------------------------------------- different: different

DIFFERENT = [
    None,
    False,
    True,
    0,
    1,
    1.0,
    -1.0,
    0.0,
    1 + 0j,
    float("nan"),
    "",
    "1",
    "None",
    b"1",
    bytearray(b"1"),
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    (1,),
    {1},
    frozenset({1}),
    {1: None},
    [[1]],
    [[], 1],
    [1, []],
    [1, 2],
    [2, 1],
    ["ab", "c"],
    ["a", "bc"],
    [12],
    {"a": 1, "b": 2},
    {"a": 2, "b": 1},
    [("a", 1), ("b", 2)],
    range(3),
    range(0, 4, 2),
    [0, 1, 2],
    np.arange(3),
    np.arange(3, dtype=np.int32),
    np.arange(3, dtype=np.uint32),
    np.arange(3, dtype=">i4"),
    np.arange(3.0),
    np.arange(3).reshape(3, 1),
    np.arange(3).reshape(1, 3),
    np.array([0, 1, 2], dtype=object),
    np.array([[0, 1, 2]], dtype=object),
    np.array([], dtype=np.int64),
    np.zeros((0, 3), dtype=np.int64),
    np.zeros((0, 4), dtype=np.int64),
    np.array(1),
    np.float64(1),
    np.float32(1),
    np.bool_(True),
    np.str_("1"),
    np.array([(0, 1)], dtype=[("a", "i4"), ("b", "i4")]),
    np.array([(0, 1)], dtype=[("a", "i4"), ("c", "i4")]),
    np.datetime64(0, "s"),
    np.datetime64(0, "D"),
    np.timedelta64(0, "s"),
    Point(1.0),
    Point(2.0),
    Slotted(1.0),
    Slotted(2.0),
    Plain(x=1.0, y=0.0),
    Plain(x=1.0),
    MyList([1]),
    Pair(1, 2),
    (1, 2),
    Counter({"a": 1, "b": 2}),
    Counter("a"),
    OrderedDict(a=1, b=2),
    Colour.RED,
    Colour.GREEN,
    Shade.RED,
    Level.ONE,
    Point,
    Slotted,
    len,
    rebuilt,
    deque([1, 2]),
    Fraction(1, 2),
    10**4000,
    10**4000 + 1,
]


def test_no_two_of_many_different_values_have_one_digest():
    digests = [digest(value) for value in DIFFERENT]
    same = [(a, b) for (a, x), (b, y) in combinations(zip(DIFFERENT, digests, strict=True), 2) if x == y]
    assert same == []


@settings(max_examples=150, deadline=None)
@given(values, values)
def test_two_values_have_one_digest_only_if_they_are_equal(first, second):
    if digest(first) == digest(second):
        assert first == second


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=20), st.data())
def test_one_element_changes_the_digest_of_an_array(numbers, data):
    array = np.array(numbers, dtype=np.uint8)
    changed = array.copy()
    changed[data.draw(st.integers(0, len(numbers) - 1))] ^= 1
    assert digest(changed) != digest(array)


def test_integers_of_any_length_have_digests():
    """Python's `repr` refuses integers of more than 4300 digits; items may be such."""
    assert digest(1 << 20000) == digest(1 << 20000)
    assert digest(1 << 20000) != digest((1 << 20000) + 1)


def test_the_shape_of_an_array_of_objects_shows():
    assert digest(np.empty((2, 0), object)) != digest(np.empty((2, 0, 5), object))
    row = np.empty(1, dtype=object)
    row[0] = [1, 2]
    assert digest(row) != digest(np.array([[1, 2]], dtype=object))


def test_the_mask_of_an_array_shows():
    first = np.ma.masked_array([1, 2], mask=[False, True])
    second = np.ma.masked_array([1, 2], mask=[True, False])
    assert digest(first) != digest(second)


def test_a_digest_is_sha_256_of_the_form_that_is_documented():
    """It is written into files and compared between versions: it may not change unnoticed."""

    def part(data):
        return len(data).to_bytes(8, "little") + data

    assert digest("é") == hashlib.sha256(b"s" + part("é".encode())).hexdigest()
    assert digest(7) == hashlib.sha256(b"a" + part(b"int") + part(b"7")).hexdigest()
    inner = hashlib.sha256(b"a" + part(b"int") + part(b"7")).digest()
    assert digest([7]) == hashlib.sha256(b"l" + part(b"builtins.list") + part(inner)).hexdigest()
    array = np.array([1, 2], dtype="<i2")
    form = b"n" + part(b"'<i2'") + part(b"(2,)") + array.tobytes()
    assert digest(array) == hashlib.sha256(form).hexdigest()


# ------------------------------------------------------------------------- refused


def cyclic_list():
    value = [1]
    value.append(value)
    return value


def cyclic_dict():
    value = {}
    value["self"] = [value]
    return value


def cyclic_object():
    value = Plain()
    value.me = value
    return value


def cyclic_array():
    value = np.empty(1, dtype=object)
    value[0] = value
    return value


@pytest.mark.parametrize("make", [cyclic_list, cyclic_dict, cyclic_object, cyclic_array])
def test_what_contains_itself_has_no_digest(make):
    with pytest.raises(TypeError, match="that contains itself has no digest"):
        digest(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: (i for i in range(3)),
        lambda: memoryview(b"abc"),
        lambda: np,
        lambda: [open(__file__, "rb")],  # noqa: SIM115
        lambda: {"f": Plain(g=(i for i in ()))},
    ],
)
def test_what_cannot_be_taken_apart_has_no_digest(make):
    with pytest.raises(TypeError):
        digest(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: 1.5,
        lambda: ["a", PurePosixPath("x"), np.float32(2)],
        lambda: {"a": (1, 2)},
        lambda: [Plain(a=1)],
        lambda: {"a": Plain(a=1)},
        lambda: {Plain: 1},
        lambda: lambda: 1,
        lambda: open(__file__, "rb"),  # noqa: SIM115
        lambda: {(1, 2): {"a", "b"}},
    ],
)
def test_what_is_made_twice_is_told_alike(make):
    first, second = make(), make()
    assert told(first) == told(second)
    assert " at 0x" not in told(first)


def test_what_is_told_of_a_large_array_has_no_gaps():
    array = np.zeros(5000)
    before = told(array)
    array[2500] = 1
    assert told(array) != before


def test_one_object_twice_is_not_within_itself():
    shared = [1]
    assert digest([shared, [shared], {"a": shared}])


# --------------------------------------------------------------------------- items


@pytest.mark.parametrize("items", [range(10), np.arange(10.0), np.array(["a", "b"])])
def test_ranges_and_arrays_are_hashed_whole(items):
    assert digest_items(items) == digest(items)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_short_sequences_of_items_are_told_apart(first, second):
    assert (digest_items(first) == digest_items(second)) == (first == second)


class Counting:
    """A long sequence that counts how often it is asked."""

    def __init__(self, n):
        self.n = n
        self.n_asked = 0

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.n_asked += 1
        return index % self.n


def test_of_a_long_sequence_a_sample_and_the_last_are_looked_at():
    items = Counting(10**9)
    assert len(digest_items(items)) == 64
    assert items.n_asked <= 100_002


def test_the_last_item_and_the_length_of_a_long_sequence_show():
    items = [None] * 250_000  # every second one is looked at, and the last is none of those
    changed = [*items[:-1], 1]
    assert digest_items(items) != digest_items(changed)
    assert digest_items(items) != digest_items(items[:-1])
    assert digest_items(items) == digest_items(list(items))


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.5, 2.5]),
        np.array([1, 2], np.uint8),
        np.array(["a", "bc"]),
        np.array(["2020-01-01", "NaT"], "M8[D]"),
        np.array([(1, 2.0), (3, 4.0)], "i4,f8"),
        np.array([[1], "x"], object),
    ],
)
def test_what_fills_a_masked_array_is_no_part_of_it(values):
    """It is kept beside the values, and two that a kernel made in two ways are equal."""
    one = np.ma.masked_array(values, mask=[False, True])
    other = one.copy()
    other.fill_value = values[1]
    other.data[1] = values[0]  # nor is what lies under the mask
    assert digest(one) == digest(other)
    assert digest(one) != digest(np.ma.masked_array(values, mask=[True, False]))


def test_a_masked_element_is_not_what_stands_for_it():
    masked = np.ma.array([1, 0], mask=[False, True])
    assert digest(masked) != digest(np.ma.array([1, 0], mask=False))


def test_of_many_items_one_more_is_another_sequence():
    """Only some are looked at; with one more at the end these may be the same."""
    assert digest_items([0] * 20_001) != digest_items([0] * 20_002)
