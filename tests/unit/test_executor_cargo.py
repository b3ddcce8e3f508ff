"""Values on their way: nothing is lost or shared with the sender, and what cannot travel is named."""

from __future__ import annotations

import functools
import pickle
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mpims
from mpims.executor import functions as functions_module
from mpims.executor.cargo import (
    ERROR,
    LARGE,
    MOST_BUFFERS,
    PICKLED,
    PLAIN,
    Batch,
    Packer,
    decode,
    empty_batch,
    encode,
    pack_error,
    unpack,
)
from mpims.executor.errors import RemoteTraceback, TaskFailed
from mpims.executor.functions import Function, Functions, Known
from mpims.runtime.buffers import LEAST_BYTES

PACKER = Packer()


def travel(value, packer=PACKER):
    """A value as it arrives."""
    batch = empty_batch()
    batch.append(packer.pack(value))
    arrived = decode([bytes(buffer) for buffer in encode(batch)])
    return unpack(arrived.flags[0], arrived.values[0])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_what_arrives_is_equal_and_of_the_same_type(value):
    arrived = travel(value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize("value", [np.float64(1.5), np.int32(-3), np.bool_(True), np.complex64(1j)])
def test_numpy_scalars_keep_their_type(value):
    assert travel(value) == value
    assert type(travel(value)) is type(value)
    assert PACKER.pack(value)[0] == PLAIN


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_go_beside_the_stream(order):
    array = np.asarray(np.arange(20_000.0).reshape(100, 200), order=order)
    flag, ((stream,), buffers) = PACKER.pack(array)
    assert flag == LARGE
    assert len(stream) < 1000
    assert sum(b.nbytes for b in buffers) == array.nbytes
    np.testing.assert_array_equal(travel(array), array)


def in_pieces():
    """A packer of results whose last result was a large one."""
    packer = Packer(in_pieces=True)
    packer.pack(bytes(LEAST_BYTES))
    return packer


LARGE_ONES = [
    bytes(LEAST_BYTES),
    b"\x80" * LEAST_BYTES,
    b"\x95" * (3 * LEAST_BYTES),
    b"x" * (LEAST_BYTES + 1),
]
LARGE_VALUES = st.recursive(
    st.integers()
    | st.binary()
    | st.sampled_from([*LARGE_ONES, bytearray(LARGE_ONES[3]), "y" * LEAST_BYTES, np.ones(LEAST_BYTES)]),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(LARGE_VALUES)
def test_large_bytes_arrive_in_whatever_they_are(value):
    arrived = travel(value, in_pieces())
    assert type(arrived) is type(value)
    assert pickle.dumps(arrived) == pickle.dumps(travel(value))


LONG = b"x" * 100_000


@pytest.mark.parametrize("value", [LONG, (1, LONG), {"a": [LONG]}], ids=["bytes", "tuple", "dict"])
def test_large_bytes_of_a_result_are_not_copied(value):
    flag, (pieces, buffers) = in_pieces().pack(value)
    assert flag == LARGE
    assert [piece for piece in pieces if piece is LONG]
    assert sum(map(len, pieces)) < len(LONG) + 200
    assert not buffers


def test_what_is_around_large_bytes_may_be_long_too():
    value = [list(range(100_000)), LONG, list(range(100_000)), bytearray(b"y" * 100_000)]
    _, (pieces, _) = in_pieces().pack(value)
    assert len(pieces) == 3
    assert travel(value, in_pieces()) == value


def test_a_bytearray_may_be_changed_afterwards():
    value = [bytearray(b"y" * 100_000)]
    flag, packed = in_pieces().pack(value)
    value[0][0] = 0
    assert unpack(flag, packed) == [b"y" * 100_000]


@pytest.mark.parametrize("are_tuples", [False, True])
def test_large_bytes_in_many_arguments_are_not_copied(are_tuples):
    values = [(i, LONG) for i in range(4)] if are_tuples else [b"a", LONG, b"b", LONG]
    batch = in_pieces().pack_all(values, "arguments", are_tuples=are_tuples)
    beside = [piece for flag, v in zip(batch.flags, batch.values, strict=True) if flag for piece in v[0]]
    assert sum(piece is LONG for piece in beside) == (4 if are_tuples else 2)
    assert [unpack(f, v) for f, v in zip(batch.flags, batch.values, strict=True)] == values


def test_large_bytes_are_looked_for_after_a_large_result():
    packer, value = Packer(in_pieces=True), (1, LONG)
    assert len(packer.pack(value)[1][0]) == 1
    assert len(packer.pack(value)[1][0]) == 3
    assert packer.pack((1, b"x"))[0] == PICKLED
    assert len(packer.pack(value)[1][0]) == 1


class Shared(Packer):
    """One that another thread packs with, small values, just after each step."""

    _was_large = property(lambda self: False, lambda self, value: None)


def test_large_bytes_arrive_whatever_another_thread_packs_meanwhile():
    value = b"b" * LEAST_BYTES
    assert travel(value, Shared(in_pieces=True)) == value


def test_large_bytes_of_a_function_do_not_hide_that_it_is_known():
    functions = Functions(Packer())
    one = functions.get(functools.partial(len, LONG[1:]))
    assert functions.get(functools.partial(len, LONG[1:])) is one


def test_what_is_of_the_program_goes_by_value_beside_large_bytes(monkeypatch):
    kind = type("Own", (), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Own", kind, raising=False)
    value = kind()
    value.data = LONG
    flag, packed = in_pieces().pack((value, 1))
    monkeypatch.undo()
    arrived, _ = unpack(flag, packed)
    assert arrived.data == value.data
    assert len(packed[0]) == 3


PROPERTY = """
from functools import cached_property

class Half:
    def __init__(self, of):
        self.of = of

    @cached_property
    def value(self):
        return self.of / 2
"""


def test_a_class_of_the_program_with_a_cached_property_travels():
    program = {"__name__": "__main__"}
    exec(PROPERTY, program)
    assert travel(program["Half"](3)).value == 1.5
    assert travel(program["Half"].__dict__["value"]).attrname == "value"


def test_a_message_with_large_bytes_has_them_beside_its_pickle():
    batch = empty_batch()
    batch.append(in_pieces().pack((1, LONG)))
    stream, beside = encode(batch.bare())
    assert len(stream) < 1000
    assert beside.nbytes == 100_000


def test_more_large_arrays_than_a_message_has_room_for():
    arrays = [np.full(10_000, i, dtype=float) for i in range(MOST_BUFFERS + 10)]
    batch = PACKER.pack_all(arrays, "an array")
    buffers = encode(batch)
    assert len(buffers) == 1 + MOST_BUFFERS
    arrived = decode([bytes(buffer) for buffer in buffers])
    for array, flag, value in zip(arrays, arrived.flags, arrived.values, strict=True):
        np.testing.assert_array_equal(unpack(flag, value), array)


@pytest.mark.parametrize("value", [[1, 2], np.zeros(5), np.zeros(50_000)], ids=["list", "small", "large"])
def test_what_is_done_to_a_value_afterwards_does_not_matter(value):
    flag, packed = PACKER.pack(value)
    value[0] = 99
    assert unpack(flag, packed)[0] != 99


def test_memory_of_a_large_value_is_not_used_again_while_it_is_needed():
    packer = Packer()
    packed = [packer.pack(np.full(50_000, i, dtype=float)) for i in range(5)]
    for i, (flag, value) in enumerate(packed):
        assert (unpack(flag, value) == i).all()


def test_arguments_of_plain_values_are_not_pickled_one_by_one():
    assert PACKER.pack_all([(1, "a"), (2, "b")], "arguments", are_tuples=True).is_plain
    assert not PACKER.pack_all([(1, []), (2, "b")], "arguments", are_tuples=True).is_plain
    assert list(PACKER.pack_all([1, "a", [2]], "values").flags) == [PLAIN, PLAIN, PICKLED]


def test_a_batch_is_cut_as_a_list():
    batch = PACKER.pack_all([1, [2], 3], "values")
    part = batch[1:]
    assert [unpack(f, v) for f, v in zip(part.flags, part.values, strict=True)] == [[2], 3]
    whole = Batch([], bytearray())
    whole.extend(batch[:1])
    whole.extend(part)
    assert len(whole) == 3


class Locked:
    def __init__(self):
        self.name = "x"
        self.lock = threading.Lock()

    def method(self):
        return self.name


def with_lock(lock):
    def inner():
        return lock

    return inner


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (Locked(), r"it\.lock"),
        ({"a": [1, Locked()]}, r"it\['a'\]\[1\]\.lock"),
        ((1, threading.Lock()), r"it\[1\]"),
        (Locked().method, r"it\.__self__\.lock"),
        (functools.partial(print, Locked()), r"it\.args\[0\]\.lock"),
        (with_lock(threading.Lock()), "it: its variable 'lock'"),
    ],
)
def test_what_cannot_travel_is_named(value, part):
    with pytest.raises(mpims.CannotTravel, match=rf"^{part} \(a lock\) cannot be sent .*cannot pickle"):
        PACKER.pack(value, "it")


def test_what_cannot_travel_is_a_pickling_error_for_those_who_know_only_that():
    with pytest.raises(pickle.PicklingError):
        PACKER.pack(threading.Lock())


class Stubborn(Exception):
    """Pickles, and cannot be made again."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_exception_keeps_its_type_and_tells_where_it_was_raised():
    flag, packed = pack_error(raised(KeyError("k")), "rank 3 (h)")
    error = unpack(flag, packed)
    assert flag == ERROR
    assert type(error) is KeyError
    assert error.args == ("k",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "raise error" in str(error.__cause__)
    assert "rank 3 (h)" in str(error.__cause__)


@pytest.mark.parametrize("error", [Stubborn(1, 2), ValueError(threading.Lock())])
def test_an_exception_that_cannot_travel_is_told_of(error):
    made = unpack(*pack_error(raised(error), "rank 1"))
    assert type(made) is TaskFailed
    assert type(error).__name__ in made.message


class Closed(Exception):
    """Takes no attributes, and no traceback."""

    def __setattr__(self, name, value):
        raise AttributeError(name)

    def with_traceback(self, trace):
        raise TypeError("no traceback")


def test_an_exception_that_takes_no_attributes_travels():
    made = unpack(*pack_error(raised(Closed("c")), "rank 1"))
    assert type(made) is Closed
    assert "raise error" in str(made.__cause__)


def test_a_function_is_known_by_what_it_is():
    functions = Functions(Packer())
    assert functions.get(with_lock) is functions.get(with_lock)
    assert functions.get(functools.partial(pow, 2)) is functions.get(functools.partial(pow, 2))
    assert functions.get(functools.partial(pow, 2)) is not functions.get(functools.partial(pow, 3))


def test_a_function_whose_state_has_changed_is_another():
    functions, state = Functions(Packer()), {"n": 1}
    before = functions.get(functools.partial(state.get, "n"))
    state["n"] = 2
    assert functions.get(functools.partial(state.get, "n")) is not before


def test_a_function_with_a_large_array_is_known_as_long_as_nothing_in_it_changes():
    functions, array = Functions(Packer()), np.zeros(400_000)
    one = functions.get(functools.partial(np.add, array))
    assert functions.get(functools.partial(np.add, array.copy())) is one
    assert functions.get(functools.partial(np.add, array[:-1])) is not one
    array[-1] = 1
    other = functions.get(functools.partial(np.add, array))
    assert other is not one
    assert functions.get(functools.partial(np.add, array)) is other
    assert unpack(*one.stream)(1)[-1] == 1


def test_what_is_known_of_functions_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(functions_module, "MOST_BYTES", 5_000_000)
    functions, known = Functions(Packer()), Known()
    made = [functions.get(functools.partial(np.add, np.full(250_000, i))) for i in range(6)]
    assert [known.add(one) for one in [*made, made[1]]] == [True] * 6 + [False]
    assert known.forget() == [made[0].number, made[2].number, made[3].number]
    assert known.forget() == []
    again = [functions.get(functools.partial(np.add, np.full(250_000, i))) for i in (5, 0)]
    assert again[0] is made[5]
    assert again[1] is not made[0]


def test_what_is_known_of_functions_is_bounded_in_number(monkeypatch):
    monkeypatch.setattr(functions_module, "MOST_KNOWN", 3)
    known = Known()
    for number in range(5):
        known.add(Function(number, (1, b"")))
    assert known.forget() == [0, 1]
    assert known.add(Function(0, (1, b"")))


def test_many_threads_use_more_functions_than_are_known(monkeypatch):
    monkeypatch.setattr(functions_module, "MOST_KNOWN", 2)
    monkeypatch.setattr(threading, "excepthook", lambda raised: errors.append(raised.exc_value))
    functions, errors, before = Functions(Packer()), [], sys.getswitchinterval()

    def use_many():
        for i in range(1000):
            functions.get(functools.partial(pow, i % 5))

    threads = [threading.Thread(target=use_many) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []
