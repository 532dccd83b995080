"""What a user may get wrong."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError

import tardigrad as td
from kernel_data import clusters, curve


def fit(X=None, y=None, cls=td.KernelRegressor, **kwargs):
    rows, values = curve(40)
    return cls(**kwargs).fit(rows if X is None else X, values if y is None else y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bandwidth": 0}, r"bandwidth must be 'auto' or a finite number > 0, not 0"),
        ({"bandwidth": -1.0}, "bandwidth must be"),
        ({"bandwidth": "wide"}, "bandwidth must be"),
        ({"kernel": "rbf"}, "kernel must be one of laplacian, gaussian, matern-1/2, .* not 'rbf' .*is 'gaussian', with gamma"),
        ({"kernel": td.Laplacian}, "kernel must be one of"),
        ({"kernel": td.Laplacian(1.0), "bandwidth": 2.0}, "bandwidth must be 'auto' where the kernel is an object"),
        ({"epochs": 0}, "epochs must be an integer >= 1, not 0"),
        ({"epochs": 1.5}, "epochs must be an integer"),
        ({"tol": -1e-3}, "tol must be a finite number >= 0"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be"),
        ({"early_stopping": 1}, "early_stopping must be True or False, not 1"),
        ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction must be"),
        ({"warm_start": "yes"}, "warm_start must be True or False"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"memory": 0}, "memory must be 'auto' or a number of bytes > 0, not 0"),
        ({"memory": "1 GB"}, "memory must be"),
        ({"memory": 1e3}, "hold not even a row|does not fit the memory"),
        ({"memory": 1e5, "batch_size": 40}, "a batch of 40 rows does not fit the memory: 100000 bytes"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', not 'float16'"),
        ({"dtype": "single precision"}, "dtype must be"),
        ({"n_jobs": 0}, "n_jobs must be an integer >= 1, or None"),
        ({"n_jobs": 1.5}, "n_jobs must be"),
        ({"device": 3}, "device must be a name such as 'cuda', a list of names, or None, not 3"),
        ({"device": ["cpu", 0]}, "device must be"),
        ({"device": []}, "device must be"),
        ({"random_state": "lucky"}, "cannot be used to seed"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(**arguments)


@pytest.mark.parametrize("cls", [td.KernelRegressor, td.KernelClassifier])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
def test_values_that_are_not_finite(cls, form):
    X, y = clusters(40, 2)
    X[7, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        fit(form(X), y, cls)
    X[7, 1] = np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        fit(form(X), y, cls)


def test_values_that_are_not_finite_in_a_file(tmp_path):
    X, y = curve(40)
    X[3, 0] = np.nan
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(ValueError, match="contains NaN"):
        fit(np.load(tmp_path / "X.npy", mmap_mode="r"), y)


def test_targets_that_are_not_finite():
    X, y = curve(40)
    y[3] = np.nan
    with pytest.raises(ValueError, match="Input y contains NaN"):
        fit(X, y)


def test_values_too_large_for_the_precision():
    X, y = curve(40)
    with pytest.raises(ValueError, match="too large to be squared in float32"):
        fit(1e30 * X, y)
    assert fit(1e30 * X, y, dtype="float64").score(1e30 * X, y) > 0.9


@pytest.mark.parametrize(("unit", "dtype"), [(1e-42, "float32"), (1e42, "float32"), (1e200, "float64")])
def test_targets_in_a_unit_that_is_not_in_the_precision(unit, dtype):
    X, y = curve(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of a square that overflows
        with pytest.raises(ValueError, match=rf"deviation of .* cannot be fitted in {dtype}: give them in another unit"):
            td.KernelRegressor(dtype=dtype).fit(X, unit * y)
    if dtype == "float32":
        model = td.KernelRegressor(dtype="float64", n_jobs=1).fit(X, unit * y)
        assert model.score(X, unit * y) > 0.9


def test_one_row_held_out_has_no_score():
    with pytest.raises(ValueError, match=r"validation_fraction=0.01 holds out 1 of 40 rows"):
        fit(early_stopping=True, validation_fraction=0.01)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            ["a"] * 10 + ["b"] * 9 + ["c"],
            "holds out rows of each class, but 1 of 3 classes have 1 row only, such as 'c': give more",
        ),
        ([0] * 18 + [4, 7], "2 of 3 classes have 1 row only, such as 4: give more of them, leave them out, or set early_st"),
        ([0] * 15 + [1, 1, 1, 2, 2], "fraction=0.1 holds out 2 of 20 rows, fewer than the 3 classes: give a larger share"),
    ],
)
def test_classes_that_cannot_be_held_out_alike(y, message):
    """scikit-learn's own messages speak of a test_size that nobody gave."""
    X = curve(20)[0]
    with pytest.raises(td.InvalidInputError, match=message):
        fit(X, np.array(y), td.KernelClassifier, early_stopping=True)
    assert fit(X, np.array(y), td.KernelClassifier, epochs=1).n_iter_ == 1


def test_shares_that_leave_nothing_to_fit_to():
    X = curve(20)[0]
    with pytest.raises(
        td.InvalidInputError, match=r"holds out 20 of 20 rows, which leaves none to fit to: give a smaller share"
    ):
        fit(X, X[:, 0], early_stopping=True, validation_fraction=0.99)
    with pytest.raises(
        td.InvalidInputError, match=r"18 of 20 rows and leaves 2, fewer than the 4 classes: give a smaller share"
    ):
        fit(X, np.arange(20) % 4, td.KernelClassifier, early_stopping=True, validation_fraction=0.9)


@pytest.mark.parametrize("kind", [int, str, object])
def test_a_file_sorted_by_class_has_nothing_to_hold_out(tmp_path, kind):
    """Without early stopping the order of rows does not matter: partitions are drawn."""
    X, y = clusters(400, 4)
    order = np.argsort(y, kind="stable")
    X, y, labels = X[order], y[order], np.array(["d", "e", "f", "g"] if kind is not int else [4, 5, 6, 7], kind)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    last = int((y == 3).sum())
    stopping = {"cls": td.KernelClassifier, "early_stopping": True, "epochs": 2, "random_state": 0, "n_jobs": 1}
    with pytest.raises(td.InvalidInputError, match=r"the last 160 rows .* class ('g'|7) has no other rows: write the file in"):
        fit(mapped, labels[y], validation_fraction=0.4, **stopping)
    assert last < 160
    with pytest.warns(UserWarning, match=r"there is none of 3 classes among them, such as ('d'|4)") as caught:
        fit(mapped, labels[y], validation_fraction=0.2, **stopping)
    assert caught[0].filename == __file__
    shuffled = np.random.default_rng(0).permutation(400)
    np.save(tmp_path / "shuffled.npy", X[shuffled])
    fit(np.load(tmp_path / "shuffled.npy", mmap_mode="r"), labels[y[shuffled]], validation_fraction=0.2, **stopping)
    assert fit(mapped, labels[y], td.KernelClassifier, random_state=0).score(X, labels[y]) > 0.99


def test_constant_features():
    X, y = np.ones((40, 2)), curve(40)[1]
    with pytest.raises(ValueError, match="all of the 40 rows looked at are the same: give a number"):
        fit(X, y)
    with pytest.warns(match="40 rows of X are equal to others whose targets differ"):
        model = fit(X, y, bandwidth=1.0)
    assert model.predict(X) == pytest.approx(np.full(40, y.mean()), abs=0.5 * y.std())
    beside, _ = curve(40)
    beside[:, 1], y = 3.0, np.sin(beside[:, 0])
    assert fit(beside, y).score(beside, y) > 0.9


@pytest.mark.parametrize("n", [2, 3, 5, 17])
def test_fewer_rows_than_any_subsample(n):
    X, y = curve(n)
    model = fit(X, y, n_jobs=4, epochs=100)
    np.testing.assert_allclose(model.predict(X), y, atol=0.05)


def test_one_row():
    with pytest.raises(ValueError, match="1 sample"):
        fit(np.ones((1, 2)), [1.0])


def test_one_class():
    X, _ = curve(40)
    with pytest.raises(ValueError, match="y has one class only, 3: a classifier needs rows of 2 classes"):
        fit(X, np.full(40, 3), td.KernelClassifier)


def test_targets_of_a_classifier_that_are_no_classes():
    X, y = curve(40)
    with pytest.raises(ValueError, match="Unknown label type"):
        fit(X, y, td.KernelClassifier)


@pytest.mark.parametrize("method", ["predict", "save"])
def test_before_a_fit(method, tmp_path):
    with pytest.raises(NotFittedError):
        getattr(td.KernelClassifier(), method)(tmp_path / "model")


def test_sample_weights_are_no_argument():
    X, y = curve(40)
    with pytest.raises(TypeError, match="sample_weight"):
        td.KernelRegressor().fit(X, y, sample_weight=np.ones(40))


def test_a_user_kernel_that_returns_another_shape():
    with pytest.raises(ValueError, match="must return real numbers of the shape"):
        fit(kernel=td.UserKernel(lambda squared: squared[:1]))
