"""Rows and labels: checked once, kept as they are."""

import json

import numpy as np
import pytest
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode
from tardigrad.problems.data import Dataset, as_dataset

X = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, -3.0]])
Y = np.array([1, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [np.array, sp.csr_array, sp.csc_matrix], ids=["dense", "csr", "csc"])
def test_rows_keep_their_precision(make, dtype):
    data = Dataset(make(X.astype(dtype)), Y)
    assert data.X.dtype == dtype
    assert len(data) == 2


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        *((np.array, dtype) for dtype in (np.int64, np.uint8, bool, np.float16, ">f8", np.longdouble)),
        *((sp.csr_array, dtype) for dtype in (np.int64, np.uint8, bool, np.longdouble)),
    ],
)
def test_other_numbers_become_float64(make, dtype):
    rows = np.array([[1, 0], [0, 1]])
    data = Dataset(make(rows.astype(dtype)), Y)
    assert data.X.dtype == np.dtype("=f8")
    dense = data.X.toarray() if sp.issparse(data.X) else data.X
    assert np.array_equal(dense, rows)


@pytest.mark.parametrize("rows", [X, np.asfortranarray(X)], ids=["by rows", "by columns"])
def test_dense_rows_are_not_copied(rows):
    assert np.shares_memory(Dataset(rows, Y).X, rows)


def test_a_strided_view_is_copied_into_one_piece():
    view = np.arange(24.0).reshape(4, 6)[::2, ::2]
    data = Dataset(view, Y)
    assert data.X.flags.c_contiguous
    assert np.array_equal(data.X, view)


@pytest.mark.parametrize("y", [np.array(["a", 1], object), [1, None], [1j, 0], [np.datetime64("2020-01-01")] * 2], ids=repr)
def test_labels_of_other_kinds_are_refused(y):
    with pytest.raises(InvalidInputError, match="y must hold numbers or strings, all of one kind, not"):
        Dataset(X, y)


@pytest.mark.parametrize("make", [sp.csr_array, sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_sparse_rows_become_csr(make):
    data = Dataset(make(X), Y)
    assert isinstance(data.X, sp.csr_array)
    assert np.array_equal(data.X.toarray(), X)


def test_lists_do_as_arrays():
    data = Dataset(X.tolist(), ["yes", "no"])
    assert np.array_equal(data.X, X)
    assert data.y.tolist() == ["yes", "no"]


@pytest.mark.parametrize(
    "rows",
    [np.ones(3), np.ones((2, 3, 1)), np.zeros((0, 3)), np.zeros((2, 0)), 5.0, [], sp.csr_array((0, 3)), [[1, 2], [3]], None],
    ids=repr,
)
def test_rows_of_a_wrong_shape_are_refused(rows):
    with pytest.raises(InvalidInputError, match=r"X must (have shape \(n_rows, n_features\)|hold numbers|be a matrix)"):
        Dataset(rows, Y)


@pytest.mark.parametrize(
    "rows",
    [[["a", "b"], ["c", "d"]], np.array([[None, 1], [2, 3]]), np.array([[object(), 1]]), np.array([[1j, 0.0], [0.0, 1.0]])],
    ids=["strings", "None", "objects", "complex"],
)
def test_what_are_no_real_numbers_is_refused(rows):
    with pytest.raises(InvalidInputError, match=r"X must hold (real )?numbers|X.* is nan"):
        Dataset(rows, Y)


@pytest.mark.parametrize(("bad", "name"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_that_is_not_finite_is_named_with_its_place(bad, name, dtype):
    rows = X.astype(dtype)
    rows[1, 2] = bad
    with pytest.raises(InvalidInputError, match=rf"X\[1, 2\] is {name}: remove such rows or fill them in"):
        Dataset(rows, Y)


def test_the_first_of_several_such_values_is_named():
    rows = np.array([[1.0, 0.0], [0.0, np.inf], [-np.inf, np.nan]])
    with pytest.raises(InvalidInputError, match=r"X\[1, 1\] is inf"):
        Dataset(rows, [0, 1, 2])


def test_a_stored_value_of_sparse_rows_that_is_not_finite_is_refused():
    rows = sp.csr_array(np.array([[0.0, 4.0], [np.nan, 0.0]]))
    with pytest.raises(InvalidInputError, match="stored value 1 of X is nan"):
        Dataset(rows, Y)


def test_values_whose_sum_overflows_are_fine():
    huge = np.full((2, 1), 1.5e308)
    assert np.array_equal(Dataset(huge, Y).X, huge)


@pytest.mark.parametrize("y", [[1], [1, 2, 3], [[1, 2]], [[1], [2]], 5, None, [[1], [2, 3]]], ids=repr)
def test_there_must_be_a_label_for_each_row(y):
    with pytest.raises(
        InvalidInputError, match=r"y must (have shape \(2,\), a label for each row of X|hold numbers|be one label a row)"
    ):
        Dataset(X, y)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_target_that_is_not_finite_is_named_with_its_place(bad):
    with pytest.raises(InvalidInputError, match=r"y\[1\] is not finite"):
        Dataset(X, [0.5, bad])


def test_as_dataset_takes_a_pair_or_a_dataset():
    data = Dataset(X, Y)
    assert as_dataset(data) is data
    for pair in ((X, Y), [X, Y]):
        assert np.array_equal(as_dataset(pair).X, X)


@pytest.mark.parametrize("data", [X, (X,), (X, Y, Y), "digits", None, {"X": X, "y": Y}])
def test_as_dataset_refuses_everything_else(data):
    with pytest.raises(InvalidInputError, match=r"data must be a pair \(X, y\) or a Dataset, not"):
        as_dataset(data)


def test_repr_says_the_size_and_the_precision():
    assert repr(Dataset(X.astype(np.float32), Y)) == "<Dataset of 2 rows, 3 features, float32>"


@pytest.mark.parametrize("make", [np.array, sp.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("labels", [[0.5, -1.5], [True, False], ["b", "a"]], ids=repr)
def test_data_come_back_from_json_and_arrays(make, labels):
    arrays = {}
    data = Dataset(make(X), labels)
    back = decode(json.loads(json.dumps(encode(data, arrays))), arrays)
    assert type(back.X) is type(data.X)
    assert (back.X != data.X).sum() == 0
    assert back.y.tolist() == labels
