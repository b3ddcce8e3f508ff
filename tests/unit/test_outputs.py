"""Gather and Reduce: what they make of a block's results."""

from __future__ import annotations

import operator
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpims.core.tree import fold
from mpims.errors import UsageError
from mpims.outputs import Gather, Reduce, ResultError, kept

# -------------------------------------------------------------------------- Gather


def boxed(value):
    """An array without axes that holds an object."""
    array = np.empty((), dtype=object)
    array[()] = value
    return array


def same_array(found, expected):
    """Equal in kind, dtype, shape and value."""
    expected = np.asarray(expected)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "results",
    [
        np.arange(3),
        np.arange(6, dtype=np.int16).reshape(3, 2),
        np.zeros((2, 0)),
        np.array(["a", "bc"]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([True, False]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_an_array_stays_one(results):
    same_array(Gather().pack(results), results)


@pytest.mark.parametrize(
    "results", [np.arange(12).reshape(3, 4).T, np.arange(12)[::-2], np.asfortranarray(np.eye(3, 2))]
)
def test_what_is_packed_lies_in_memory_in_order(results):
    packed = Gather().pack(results)
    assert packed.flags.c_contiguous
    same_array(packed, results)


def test_an_array_of_objects_is_a_list():
    results = np.empty(2, dtype=object)
    results[:] = [{"a": 1}, (2, 3)]
    packed = Gather().pack(results)
    assert packed == [{"a": 1}, (2, 3)]
    assert isinstance(packed, list)


def test_a_structured_array_with_objects_is_a_list_of_its_rows():
    results = np.array([(1, "x"), (2, None)], dtype=[("a", int), ("o", object)])
    packed = Gather().pack(results)
    assert isinstance(packed, list)
    assert [row.dtype for row in packed] == [results.dtype] * 2
    assert [row.item() for row in packed] == [(1, "x"), (2, None)]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    "result",
    [
        np.array([{}, [1, 2]], dtype=object),
        boxed([1, 2]),
        boxed({"a": 1}),
        np.array((1, "x"), dtype=[("a", int), ("o", object)]),
        np.array([(1, "x")], dtype=[("a", int), ("o", object)])[0],
    ],
    ids=lambda result: f"{type(result).__name__}-{result.dtype}-{result.shape}",
)
def test_results_that_hold_objects_stay_in_a_list(result, n):
    """Their bytes are addresses: no file can have them."""
    packed = Gather().pack([result] * n)
    assert isinstance(packed, list)
    assert [repr(one) for one in packed] == [repr(result)] * n


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([np.float32(1), np.float32(2)], np.array([1, 2], np.float32)),
        ([np.arange(2), np.arange(2)], np.array([[0, 1], [0, 1]])),
        ((np.int8(1),), np.array([1], np.int8)),
        ([np.array(1.5), np.array(2.5)], np.array([1.5, 2.5])),
        ([np.array(1.5), np.float64(2.5)], np.array([1.5, 2.5])),
    ],
)
def test_numpy_values_of_one_form_become_an_array(results, expected):
    same_array(Gather().pack(results), expected)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    "result",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,
        np.float32(1.5),
        np.str_("ab"),
        np.bytes_(b"ab"),
        np.array((1, 2.0), dtype=[("a", "i4"), ("b", "f8")]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])[0],
        np.datetime64("2020-01-01"),
        np.zeros((0, 2)),
    ],
    ids=lambda result: f"{type(result).__name__}-{result.dtype}-{result.shape}",
)
def test_results_of_items_become_rows(result, n):
    packed, stacked = Gather().pack([result] * n), np.stack([result] * n)
    assert (packed.dtype, packed.shape) == (stacked.dtype, stacked.shape)
    assert packed.flags.c_contiguous
    assert not np.shares_memory(packed, result)
    assert repr(packed) == repr(stacked)


@pytest.mark.parametrize(
    "results",
    [
        [1, 2, 3],
        ["a", "b"],
        [1.5, np.float64(2.5)],
        [np.float32(1), np.float64(2)],
        [np.arange(2), np.arange(3)],
        [[1, 2], [3, 4]],
        [None],
        [],
    ],
    ids=repr,
)
def test_other_results_stay_as_they_are_in_a_list(results):
    packed = Gather().pack(results)
    assert isinstance(packed, list)
    assert len(packed) == len(results)
    assert all(a is b for a, b in zip(packed, results, strict=True))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("output", "dtype", "shape"),
    [
        (Gather(), object, (2,)),
        (Gather(), [("a", int), ("o", object)], ()),
        (Gather(dtype=object), float, (2,)),
        (Gather(dtype=object), [("a", int), ("b", float)], ()),
    ],
)
def test_a_kernel_may_use_again_what_became_a_list(output, dtype, shape, n):
    """A list is kept until it is pickled, and the kernel is called again before."""
    buffer = np.ones((n, *shape), dtype)
    for results in (buffer, list(buffer)):
        packed = output.pack(results)
        kept = repr(packed)
        buffer[...] = np.zeros((), dtype)
        assert repr(packed) == kept
        buffer[...] = np.ones((), dtype)


@pytest.mark.parametrize("dtype", [float, [("a", int), ("b", float)]])
@pytest.mark.parametrize("made", [np.asarray, list, lambda rows: object_array(rows)])
def test_what_is_kept_is_not_the_kernels(made, dtype):
    buffer = np.ones((1, 2), dtype)
    results = made(buffer)
    own = kept(results)
    assert type(own) is type(results)
    before = repr(own)
    buffer[...] = np.zeros((), dtype)
    assert repr(own) == before


def object_array(rows):
    """One object for each row."""
    array = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        array[i] = row
    return array


def test_a_kernel_may_use_its_only_result_again():
    result = np.ones(2)
    (packed,) = Gather(dtype=object).pack([result])
    result[:] = 0
    assert packed.tolist() == [1, 1]


def test_rows_of_an_array_in_a_file_are_arrays_in_memory(tmp_path):
    np.save(tmp_path / "rows.npy", np.eye(2))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert [type(row) for row in Gather(dtype=object).pack(rows)] == [np.ndarray] * 2


def test_a_tuple_of_python_objects_becomes_a_list():
    assert Gather().pack((1, "a")) == [1, "a"]


def test_the_list_is_a_new_one():
    results = [1, 2]
    packed = Gather().pack(results)
    results[0] = 9
    assert packed == [1, 2]


@pytest.mark.parametrize(
    ("dtype", "results", "expected"),
    [
        ("f4", [1, 2], np.array([1, 2], np.float32)),
        (np.uint8, np.array([1.0, 2.0]), np.array([1, 2], np.uint8)),
        ("f8", [[1, 2], [3, 4]], np.array([[1, 2], [3, 4]], float)),
        ("U2", ["a", "bc"], np.array(["a", "bc"])),
        ([("a", "i4")], [(1,), (2,)], np.array([(1,), (2,)], dtype=[("a", "i4")])),
    ],
)
def test_a_dtype_that_is_given_is_made(dtype, results, expected):
    same_array(Gather(dtype=dtype).pack(results), expected)


def test_results_that_do_not_fit_the_dtype_are_refused():
    with pytest.raises(ValueError, match=r"could not convert|inhomogeneous|sequence"):
        Gather(dtype=float).pack(["no number"])
    with pytest.raises(ValueError, match=r"could not convert|inhomogeneous|sequence"):
        Gather(dtype=float).pack([[1, 2], [3]])


@pytest.mark.parametrize(
    ("dtype", "results", "found"),
    [
        ("U2", ["a", "abc"], "'abc', which <U2"),
        ("S2", np.array([b"a", b"abc"]), "b'abc', which |S2"),
        ("U2", [1, 234], "'234', which <U2"),
        (np.uint8, np.array([3, 300]), "300, which uint8"),
        (np.uint8, np.array([3, -1]), "-1, which uint8"),
        (np.int64, np.array([2**63 + 1], np.uint64), "9223372036854775809, which int64"),
        (int, [1.0, 2.7], "2.7, which int64"),
        (int, np.array([[1.0, np.nan]]), "nan, which int64"),
        (float, np.array([1.0, 2 + 1e-9j]), "(2+1e-09j), which float64"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:Casting complex")
def test_what_the_dtype_would_cut_off_is_refused(dtype, results, found):
    with pytest.raises(ResultError, match=f"kernel returned {re.escape(found)} cannot hold"):
        Gather(dtype=dtype).pack(results)


@pytest.mark.parametrize(
    ("dtype", "results"),
    [
        ("f4", np.array([0.1, 1e300, np.nan])),
        ("U2", np.array(["abc", "ab"], dtype="U9")[1:]),
        ("U9", np.array([1.5])),
        (float, np.array([1 + 0j])),
        (bool, np.array([0, 2])),
        ("M8[D]", np.array(["2020-01-01T12"], "M8[h]")),
        (np.uint64, np.array([2**63], np.uint64)),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:Casting complex")
def test_what_the_dtype_rounds_is_kept(dtype, results):
    same_array(Gather(dtype=dtype).pack(results), results.astype(dtype))


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_masked_array_for_which_a_dtype_has_no_mask_is_refused(kind):
    results = kind([np.zeros(2), np.ma.masked_array([1.0, 2.0], mask=[True, False])])
    with pytest.raises(ResultError, match="kernel returned a masked array: return"):
        Gather(dtype=float).pack(results)


@pytest.mark.parametrize("dtype", [None, object])
def test_masked_arrays_keep_their_masks_in_a_list(dtype):
    result = np.ma.masked_array([1.0, 2.0], mask=[True, False])
    packed = Gather(dtype=dtype).pack([result, result])
    assert isinstance(packed, list)
    assert [one.mask.tolist() for one in packed] == [[True, False]] * 2


def test_a_dtype_that_is_none_is_refused_at_once():
    with pytest.raises(TypeError):
        Gather(dtype="no dtype")


def test_a_dtype_with_a_shape_is_refused():
    """NumPy would repeat each number of a result in the shape."""
    with pytest.raises(
        UsageError, match=r"with a shape \(3,\): give float64, the shape is that of the results"
    ):
        Gather(dtype=(float, (3,)))


def test_a_gather_says_how_it_was_made():
    assert repr(Gather()) == "Gather()"
    assert repr(Gather(dtype="f4")) == "Gather(dtype='float32')"


# -------------------------------------------------------------------------- Reduce


def same_bits(found, expected):
    """Equal to the last bit, NaN and the sign of 0 included."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


float32s = st.floats(width=32, allow_nan=False)
ufuncs = st.sampled_from([np.add, np.multiply, np.maximum, np.minimum, np.subtract])


@settings(max_examples=200, deadline=None)
@given(ufuncs, st.lists(float32s, min_size=1, max_size=70))
def test_a_ufunc_folds_numbers_as_the_tree_does_to_the_last_bit(ufunc, values):
    results = np.array(values, dtype=np.float32)
    with np.errstate(all="ignore"):
        same_bits(Reduce(ufunc).fold(results), fold(list(results), ufunc))


@settings(max_examples=100, deadline=None)
@given(ufuncs, st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**32))
def test_a_ufunc_folds_arrays_as_the_tree_does_to_the_last_bit(ufunc, n, width, seed):
    results = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    same_bits(Reduce(ufunc).fold(results), fold(list(results), ufunc))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40))
def test_integers_wrap_around_as_one_by_one(values):
    results = np.array(values, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        same_bits(Reduce(np.add).fold(results), fold(list(results), np.add))


@pytest.mark.parametrize(
    ("dtype", "ufunc"),
    [
        (dtype, ufunc)
        for dtype in (np.bool_, np.int8, np.uint16, np.int64, np.dtype(">i2"))
        for ufunc in (
            np.add,
            np.multiply,
            np.maximum,
            np.minimum,
            np.bitwise_xor,
            np.logical_and,
            np.subtract,
        )
        if not (dtype is np.bool_ and ufunc is np.subtract)
    ],
)
@pytest.mark.parametrize("shape", [(1,), (7,), (64, 3)])
def test_whole_numbers_keep_their_dtype_and_their_bits(dtype, ufunc, shape):
    results = np.random.default_rng(1).integers(0, 2 if dtype is np.bool_ else 4, shape).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = fold(list(results), ufunc)
        found = Reduce(ufunc).fold(results)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_case_where_the_order_shows():
    """In float32, 1e8 + 1 is 1e8: the tree's sum is neither the sequential one nor numpy.sum's."""
    results = np.array([1e8, 1, -1e8, 1, 1], dtype=np.float32)
    assert Reduce(np.add).fold(results) == 1  # ((1e8 + 1) + (-1e8 + 1)) + 1
    assert sum(results, np.float32(0)) == 2  # (((1e8 + 1) - 1e8) + 1) + 1


@settings(max_examples=50, deadline=None)
@given(st.lists(float32s, min_size=1, max_size=40))
def test_an_array_and_the_list_of_its_rows_are_folded_alike(values):
    results = np.array(values, dtype=np.float32)
    with np.errstate(all="ignore"):
        same_bits(Reduce(np.add).fold(results), Reduce(np.add).fold(list(results)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=40))
def test_functions_that_do_not_commute_keep_the_order(words):
    assert Reduce(operator.add).fold(words) == "".join(words)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**32))
def test_matrices_are_multiplied_in_order(n, seed):
    """The integers are small, so that every order of rounding gives the same and only theirs counts."""
    results = np.random.default_rng(seed).integers(0, 2, (n, 3, 3))
    expected = results[0]
    for matrix in results[1:]:
        expected = expected @ matrix
    np.testing.assert_array_equal(Reduce(np.matmul).fold(results), expected)


def test_vectors_are_no_matrix():
    """Four vectors of two, halved as one array, are two matrices of two by two."""
    results = np.arange(8.0).reshape(4, 2)
    with pytest.raises(ValueError, match="matmul: Input operand 0 does not have enough dimensions"):
        Reduce(np.matmul).fold(results)


def test_a_function_of_ones_own_gets_each_value_once():
    def extend(left, right):
        left.extend(right)
        return left

    assert Reduce(extend).fold([[i] for i in range(9)]) == list(range(9))


def test_an_array_of_objects_is_folded_with_python_functions():
    results = np.empty(3, dtype=object)
    results[:] = [(1,), (2,), (3,)]
    assert Reduce(np.add).fold(results) == (1, 2, 3)
    assert Reduce(operator.add).fold(results) == (1, 2, 3)


def keep_larger(left, right):
    """The row that begins with the larger number: one of the two, and not a new one."""
    return left if left[0] >= right[0] else right


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (np.add, ()),
        (np.add, (3,)),
        (np.maximum, (3, 3)),
        (np.matmul, (3, 3)),
        (max, ()),
        (operator.add, (3,)),
        (keep_larger, (3,)),
    ],
    ids=lambda case: getattr(case, "__name__", None),
)
def test_a_kernel_may_use_its_array_again(n, function, shape):
    """What is folded may wait for its sibling, while the kernel fills the same array anew."""
    buffer = np.arange(1.0, 1 + n * int(np.prod(shape, dtype=int))).reshape((n, *shape))
    value = Reduce(function).fold(buffer)
    kept = np.copy(value)
    buffer[...] = -1.0
    np.testing.assert_array_equal(value, kept)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_kernel_may_use_its_array_of_fields_again(n):
    buffer = np.array([(i, 2.0 * i) for i in range(n)], dtype=[("a", "i4"), ("b", "f8")])
    value = Reduce(lambda left, right: left if left["a"] > right["a"] else right).fold(buffer)
    buffer["a"] = -1
    assert value.item() == (n - 1, 2.0 * (n - 1))


def halves(n):
    """Masked arrays of two, of which every other one has no first."""
    return [np.ma.masked_array([float(i), 2.0], mask=[i % 2 == 1, False]) for i in range(n)]


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("function", [np.add, operator.add, np.ma.add])
def test_masked_arrays_are_combined_with_their_masks(n, function):
    value = Reduce(function).fold(halves(n))
    expected = fold(halves(n), function)
    assert isinstance(value, np.ma.MaskedArray)
    assert value.mask.tolist() == expected.mask.tolist() == [n > 1, False]
    same_bits(value.data, expected.data)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("function", "expected"), [(operator.mul, [1, 3, 0, 1]), (np.add, [3, 3, 0, 3])])
def test_matrices_stay_such(n, function, expected):
    value = Reduce(function).fold([np.matrix([[1, 1], [0, 1]])] * n)
    assert isinstance(value, np.matrix)
    assert value.ravel().tolist() == [expected if n == 3 else [1, 1, 0, 1]]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("function", [np.add, operator.add])
def test_a_kernels_matrix_is_folded_by_its_rows(function):
    value = Reduce(function).fold(np.matrix([[1, 2], [3, 4], [5, 6]]))
    assert isinstance(value, np.matrix)
    assert value.tolist() == [[9, 12]]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("function", [np.add, operator.add, keep_larger])
def test_an_array_in_a_file_is_folded_as_one_in_memory(n, function, tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(2.0 * n).reshape(n, 2))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for results in (rows, list(rows)):
        value = Reduce(function).fold(results)
        assert type(value) is np.ndarray
        same_bits(value, fold(list(np.array(rows)), function))


def test_folding_leaves_the_kernels_array_as_it_is():
    results = np.arange(7.0)
    Reduce(np.add).fold(results)
    np.testing.assert_array_equal(results, np.arange(7.0))


@pytest.mark.parametrize("function", [3, None, "add"])
def test_what_cannot_be_called_reduces_nothing(function):
    with pytest.raises(UsageError, match="Reduce wants a function of two results, found"):
        Reduce(function)


@pytest.mark.parametrize("ufunc", [np.negative, np.divmod, np.modf])
def test_a_ufunc_must_make_one_of_two(ufunc):
    with pytest.raises(UsageError, match=r"that gives one, found <ufunc .*\(\d in, \d out\)"):
        Reduce(ufunc)


def test_a_reduce_says_how_it_was_made():
    assert repr(Reduce(np.add)) == "Reduce(add)"
    assert repr(Reduce(keep_larger)) == "Reduce(keep_larger)"
