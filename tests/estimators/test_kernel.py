"""What the estimators compute: against exact solutions, and whatever form the data have."""

import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tardigrad as td
from kernel_data import clusters, curve
from tardigrad.estimators.rows import contradiction

KERNELS = {
    "laplacian": td.Laplacian(0.7),
    "gaussian": td.Gaussian(0.7),
    "matern-1/2": td.Matern(0.7, 0.5),
    "matern-3/2": td.Matern(0.7, 1.5),
    "matern-5/2": td.Matern(0.7, 2.5),
    "dispersal": td.Dispersal(0.7, 1.0),
}


def regressor(**kwargs):
    return td.KernelRegressor(**{"bandwidth": 0.7, "random_state": 0, "n_jobs": 1, **kwargs})


@pytest.mark.parametrize("kernel", [td.Laplacian(0.7), td.Dispersal(0.7, 0.5)], ids=repr)
def test_comes_to_the_interpolant_that_a_solver_finds(kernel):
    X, y = curve(80)
    Z = curve(50, seed=1)[0]
    model = regressor(kernel=kernel, bandwidth="auto", dtype="float64", epochs=200, tol=0).fit(X, y)
    exact = y.mean() + kernel(Z, X) @ np.linalg.solve(kernel(X), y - y.mean())
    np.testing.assert_allclose(model.predict(Z), exact, atol=1e-4)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-4)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_by_name_is_the_object(name):
    X, y = curve()
    by_name = regressor(kernel=name).fit(X, y)
    assert by_name.kernel_ == KERNELS[name]
    by_object = regressor(kernel=KERNELS[name], bandwidth="auto").fit(X, y)
    assert by_name.dual_coef_.tobytes() == by_object.dual_coef_.tobytes()
    assert by_name.score(X, y) > 0.99


def test_the_bandwidth_auto_is_the_median_distance():
    X, y = curve(60)
    model = regressor(bandwidth="auto").fit(X, y)
    distances = np.linalg.norm(X[:, None] - X, axis=-1)[np.triu_indices(60, 1)]
    assert model.kernel_.bandwidth == pytest.approx(np.median(distances), rel=1e-5)


def test_prediction_is_the_sum_that_it_is_said_to_be():
    X, y = curve(100)
    Z = curve(30, seed=1)[0]
    model = regressor(dtype="float64").fit(X, y)
    values = model.intercept_ + model.kernel_(Z, model.X_fit_) @ model.dual_coef_
    np.testing.assert_allclose(model.predict(Z), values[:, 0], rtol=1e-12)


def test_far_from_all_data_it_is_the_mean():
    X, y = curve()
    assert regressor().fit(X, y).predict([[1e4, 0.0]]) == pytest.approx(y.mean(), abs=1e-12)


def test_outputs_are_fitted_each_in_its_unit():
    X, y = curve()
    Y = np.stack([y, 1e12 * y - 5e12, np.full(len(y), 7.0)], axis=1)
    model = regressor().fit(X, Y)
    assert model.dual_coef_.shape == Y.shape
    values = model.predict(X)
    np.testing.assert_allclose(values[:, 0], regressor().fit(X, y).predict(X), atol=1e-4)
    np.testing.assert_allclose((values[:, 1] + 5e12) / 1e12, values[:, 0], atol=1e-4)
    assert (values[:, 2] == 7.0).all()
    assert model.predict(X[:1]).shape == (1, 3)


def test_targets_that_are_all_the_same():
    model = regressor().fit(curve()[0], np.full(200, 3.5))
    assert (model.predict(curve(9, seed=2)[0]) == 3.5).all()
    assert model.n_iter_ == 1
    assert model.history_["loss"].tolist() == [0.0]


def test_two_classes_have_one_value():
    X, y = clusters(n_classes=2)
    names = np.array(["no", "yes"])[y]
    model = td.KernelClassifier(random_state=0).fit(X, names)
    X = np.concatenate([X, np.random.default_rng(1).uniform(-1, 5, (150, 2))])  # some are in between
    values = model.decision_function(X)
    assert values.shape == (300,)
    assert np.count_nonzero(np.abs(values) < 0.5) > 10
    assert model.dual_coef_.shape == (150, 1)
    assert model.classes_.tolist() == ["no", "yes"]
    assert (model.predict(X) == np.where(values > 0, "yes", "no")).all()
    assert model.score(X[:150], names) == 1.0
    assert not hasattr(model, "predict_proba")


def test_several_classes_have_a_value_each():
    X, y = clusters(n_classes=4)
    model = td.KernelClassifier(random_state=0).fit(X, 10 - y)
    values = model.decision_function(X)
    assert values.shape == (150, 4)
    assert model.classes_.tolist() == [7, 8, 9, 10]
    assert (model.predict(X) == 7 + values.argmax(axis=1)).all()
    np.testing.assert_allclose(model.intercept_, np.bincount(3 - y) / 150, rtol=1e-6)
    assert model.score(X, 10 - y) == 1.0


def test_values_of_classes_are_those_of_a_regressor_to_their_indicators():
    X, y = clusters()
    classifier = td.KernelClassifier(bandwidth=2.0, random_state=0, dtype="float64", n_jobs=1, tol=0).fit(X, y)
    regressor = td.KernelRegressor(bandwidth=2.0, random_state=0, dtype="float64", n_jobs=1, tol=0).fit(X, np.eye(3)[y])
    np.testing.assert_allclose(classifier.decision_function(X), regressor.predict(X), rtol=1e-9)


def test_digits():
    X, y = load_digits(return_X_y=True)
    model = td.KernelClassifier(epochs=2, random_state=0).fit(X[:800], y[:800])
    assert model.score(X[800:], y[800:]) > 0.92


# -- forms of data


def test_one_worker_repeats_in_every_bit_and_another_seed_does_not():
    X, y = curve()
    first, again, other = (regressor(random_state=seed, epochs=2).fit(X, y).dual_coef_ for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_rows_are_kept_in_the_precision_that_is_computed_in():
    X, y = curve()
    for given in (X, X.astype(np.float32)):
        for dtype in ("float32", "float64"):
            model = regressor(dtype=dtype, epochs=1).fit(given, y)
            assert model.X_fit_.dtype == model.dual_coef_.dtype == np.dtype(dtype)
            assert model.predict(given).dtype == np.float64
    as_given = np.ascontiguousarray(X, np.float32)
    assert np.shares_memory(regressor(epochs=1).fit(as_given, y).X_fit_, as_given)


def test_rows_far_from_the_origin_keep_their_differences():
    X, y = curve()
    far = X + 1e9  # float32 would leave nothing of them
    model = regressor().fit(far, y)
    assert model.X_fit_.dtype == np.float64
    np.testing.assert_allclose(model.predict(far), regressor().fit(X, y).predict(X), atol=1e-3)


def test_integers_lists_and_columns_in_fortran_order():
    X = np.arange(60).reshape(20, 3) % 7
    y = X[:, 0] - X[:, 1]
    models = [regressor(bandwidth=3.0).fit(form, y) for form in (X, X.tolist(), np.asfortranarray(X, np.float32))]
    assert models[0].dual_coef_.tobytes() == models[1].dual_coef_.tobytes() == models[2].dual_coef_.tobytes()


@pytest.mark.parametrize("form", [sp.csr_array, sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_sparse_rows(form):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 30)) * (rng.random((120, 30)) < 0.3)
    y = X @ rng.normal(size=30)
    dense, sparse = (regressor(bandwidth=5.0).fit(rows, y) for rows in (X, form(X)))
    assert sp.issparse(sparse.X_fit_)
    np.testing.assert_allclose(sparse.predict(X[:40]), dense.predict(X[:40]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sparse.predict(form(X)), dense.predict(form(X)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8])
def test_sparse_rows_in_disorder_are_fitted_to_and_left_alone(dtype):
    rng = np.random.default_rng(0)
    X = (9 * rng.normal(size=(60, 8))).astype(dtype)
    matrix = sp.csr_array(X)
    for part in (matrix.data, matrix.indices):
        part[: matrix.indptr[-1]] = np.concatenate([part[a:b][::-1] for a, b in itertools.pairwise(matrix.indptr)])
    matrix.has_sorted_indices = False
    kept = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    model = regressor(bandwidth=5.0).fit(matrix, X[:, 0])
    model.predict(matrix)
    td.Laplacian(5.0)(matrix)
    for before, after in zip(kept, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        assert after.tolist() == before.tolist()
    assert (model.X_fit_.toarray() == X.astype(np.float32)).all()


def in_a_file(tmp_path, X, name="X.npy"):
    np.save(tmp_path / name, X)
    return np.load(tmp_path / name, mmap_mode="r")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_a_memory_map_is_not_copied_and_gives_the_same(tmp_path, dtype):
    X, y = curve()
    X = (100 * X + 100).astype(dtype)
    mapped = in_a_file(tmp_path, X)
    model = regressor(bandwidth=50.0).fit(mapped, y)
    assert model.X_fit_ is mapped
    same = regressor(bandwidth=50.0).fit(X, y)
    assert model.dual_coef_.tobytes() == same.dual_coef_.tobytes()
    assert model.predict(mapped).tobytes() == same.predict(X).tobytes()
    part = regressor(bandwidth=50.0).fit(mapped[20:120], y[20:120])
    assert part.dual_coef_.tobytes() == regressor(bandwidth=50.0).fit(X[20:120], y[20:120]).dual_coef_.tobytes()


@pytest.mark.parametrize("view", [np.asanyarray, np.asarray])
def test_checking_a_memory_map_reads_it_in_stretches(tmp_path, view):
    X = np.random.default_rng(0).normal(size=(20_000, 100))
    mapped = view(in_a_file(tmp_path, X))
    model = regressor()
    tracemalloc.start()
    try:
        kept, _ = model._checked(mapped, X[:, 0], y_numeric=True)
        contradiction(kept, X[:, :1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.shares_memory(kept, mapped)
    assert peak < X.nbytes / 2


def test_a_plain_view_of_a_memory_map_is_not_copied_either(tmp_path):
    X, y = curve()
    mapped = in_a_file(tmp_path, X)
    assert np.shares_memory(regressor(epochs=1).fit(np.asarray(mapped), y).X_fit_, mapped)


def test_of_a_memory_map_the_last_rows_are_held_out(tmp_path):
    X, y = curve()
    mapped = in_a_file(tmp_path, X)
    model = regressor(early_stopping=True, validation_fraction=0.2).fit(mapped, y)
    assert model.held_out_ == slice(160, 200)
    assert isinstance(model.X_fit_, np.memmap)
    assert model.dual_coef_.shape == (160, 1)
    assert model.dual_coef_.tobytes() != b"\0" * model.dual_coef_.nbytes


def test_pandas_frames_and_names_of_features():
    X, y = curve()
    frame = pd.DataFrame(X, columns=["left", "right"])
    model = regressor().fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == ["left", "right"]
    assert model.predict(frame).tobytes() == regressor().fit(X, y).predict(X).tobytes()
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["right", "left"]])


def test_works_in_pipelines_and_searches():
    X, y = clusters(90)
    pipeline = make_pipeline(StandardScaler(), td.KernelClassifier(epochs=2, random_state=0))
    assert cross_val_score(pipeline, 1000 * X, y, cv=3).mean() > 0.9
    search = GridSearchCV(td.KernelClassifier(epochs=2, random_state=0), {"bandwidth": [1e-3, 3.0]}, cv=2).fit(X, y)
    assert search.best_params_ == {"bandwidth": 3.0}


# -- workers


def test_several_workers_fit_as_well():
    X, y = curve(4500)
    model = regressor(n_jobs=2, epochs=2, batch_size=100).fit(X, y)
    assert len(model._blocks) == 2
    assert 0 <= model.history_["staleness"][-1] <= 1  # 0: a busy machine may never run the other worker
    assert model.score(*curve(200, seed=1)) > 0.99


def test_small_data_have_one_worker():
    X, y = curve(300)
    model = regressor(n_jobs=4, epochs=1).fit(X, y)
    assert len(model._blocks) == 1
    assert model.history_["staleness"].tolist() == [0.0]


@pytest.mark.parametrize("n_jobs", [1, 2, 3, -1])
def test_predictions_are_those_of_one_thread_and_of_single_rows(n_jobs):
    X, y = curve(300)
    Z = curve(1500, seed=1)[0]
    model = regressor(epochs=2).fit(X, y)
    alone = model.predict(Z)
    assert model.set_params(n_jobs=n_jobs).predict(Z).tobytes() == alone.tobytes()
    assert [model.predict(Z[i : i + 1])[0] for i in (0, 77, 1499)] == alone[[0, 77, 1499]].tolist()


def test_pytorch_computes_the_same():
    pytest.importorskip("torch")
    X, y = curve(100)
    model = regressor(device="cpu").fit(X, y)
    np.testing.assert_allclose(model.predict(X), regressor().fit(X, y).predict(X), atol=1e-3)
