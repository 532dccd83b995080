"""Fitted estimators are saved as plain data, copied and pickled, and come back the same or not at all."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from kernel_data import clusters, curve
from tardigrad.core.errors import DataError, RunFileError


def regressor(**kwargs):
    return td.KernelRegressor(**{"random_state": 0, "n_jobs": 1, "epochs": 3, **kwargs})


def bumps(squared):
    return np.exp(-squared)


def same(a, b, Z):
    assert type(a) is type(b)
    assert a.get_params() == b.get_params()
    assert a.predict(Z).tolist() == b.predict(Z).tolist()
    for name in ("n_iter_", "message_", "kernel_", "n_features_in_"):
        assert getattr(a, name) == getattr(b, name)
    assert list(a.history_) == list(b.history_)
    assert all(a.history_[name].tobytes() == b.history_[name].tobytes() for name in a.history_)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kernel": "matern-3/2", "bandwidth": 0.5, "dtype": "float64"},
        {"kernel": td.Dispersal(0.5, 0.7)},
        {"kernel": td.UserKernel(bumps)},
        {"early_stopping": True, "tol": None, "memory": 1e8, "n_jobs": -1},
    ],
    ids=str,
)
def test_a_regressor_comes_back(tmp_path, arguments):
    X, y = curve(80)
    model = regressor(**arguments).fit(X, y)
    assert model.save(tmp_path / "model") == tmp_path / "model"
    loaded = td.KernelRegressor.load(tmp_path / "model")
    same(model, loaded, X)
    assert loaded.X_fit_.tobytes() == model.X_fit_.tobytes()
    assert not list(tmp_path.glob("**/*.pkl"))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles(copied):
    X, y = curve(80)
    model = regressor().fit(X, y)
    same(model, copied(model), X)


@pytest.mark.parametrize("kind", [str, object, int])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes_of_every_kind(tmp_path, kind, n_classes):
    X, y = clusters(60, n_classes)
    names = (np.array(["crow", "jay", "rook"], dtype=kind) if kind is not int else np.array([-5, 0, 7]))[y]
    model = td.KernelClassifier(random_state=0, epochs=2).fit(X, names)
    loaded = td.KernelClassifier.load(model.save(tmp_path / "model"))
    same(model, loaded, X)
    assert loaded.classes_.dtype == model.classes_.dtype
    assert loaded.classes_.tolist() == model.classes_.tolist()


def test_sparse_rows_several_outputs_and_names_of_features(tmp_path):
    pd = pytest.importorskip("pandas")
    X, y = curve(80)
    model = regressor(bandwidth=0.5).fit(sp.csr_array(X), np.stack([y, -y], axis=1))
    same(model, td.KernelRegressor.load(model.save(tmp_path / "sparse")), X)
    frame = pd.DataFrame(X, columns=["left", "right"])
    named = td.KernelRegressor.load(regressor().fit(frame, y).save(tmp_path / "named"))
    assert named.feature_names_in_.tolist() == ["left", "right"]
    with pytest.raises(ValueError, match="feature names should match"):
        named.predict(frame[["right", "left"]])


def test_a_loaded_estimator_goes_on(tmp_path):
    X, y = curve(80)
    model = regressor(warm_start=True, early_stopping=True).fit(X, y)
    loaded = td.KernelRegressor.load(model.save(tmp_path / "model"))
    for each in (model, loaded):
        each.fit(X, y)
        each.history_["seconds"] = each.history_["seconds"] * 0
    same(model, loaded, X)
    assert loaded.n_iter_ == 6


# -- rows in a file


@pytest.fixture
def mapped(tmp_path):
    X, y = curve(80)
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r"), y


def test_a_memory_map_is_saved_by_its_path(tmp_path, mapped):
    X, y = mapped
    model = regressor().fit(X[10:70], y[10:70])
    model.save(tmp_path / "model")
    assert b"X.npy" in (tmp_path / "model" / "run.json").read_bytes()
    loaded = td.KernelRegressor.load(tmp_path / "model")
    assert isinstance(loaded.X_fit_, np.memmap)
    same(model, loaded, X)
    pickled = pickle.dumps(model)
    assert X[10].tobytes() not in pickled
    again = pickle.loads(pickled)
    assert str(again.X_fit_.filename) == str(X.filename)
    same(model, again, X)


def test_a_file_that_has_changed_or_gone_is_an_error(tmp_path, mapped):
    X, y = mapped
    regressor().fit(X, y).save(tmp_path / "model")
    np.save(tmp_path / "X.npy", np.asarray(X) + 1)
    with pytest.raises(DataError, match="is not the file that the matrix was in"):
        td.KernelRegressor.load(tmp_path / "model")
    (tmp_path / "X.npy").unlink()
    with pytest.raises(DataError, match="cannot open"):
        td.KernelRegressor.load(tmp_path / "model")


def test_columns_of_a_memory_map_cannot_be_saved(tmp_path, mapped):
    X, y = mapped
    with pytest.raises(RunFileError, match="must be whole rows"):
        regressor().fit(X[:, :1], y).save(tmp_path / "model")
    with pytest.raises(RunFileError, match="must be whole rows"):
        regressor().fit(X[::2], y[::2]).save(tmp_path / "model")


# -- what is refused


def test_a_function_without_a_name_cannot_be_saved(tmp_path):
    X, y = curve(40)
    model = regressor(kernel=td.UserKernel(lambda squared: np.exp(-squared))).fit(X, y)
    with pytest.raises(RunFileError, match=r"kernel=.* cannot be saved: .* define it with def"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_generator_is_saved_as_it_stands(tmp_path):
    X, y = curve(40)
    model = regressor(random_state=np.random.RandomState(0), warm_start=True).fit(X, y)
    model.random_state.normal()  # there is another one to come
    loaded = td.KernelRegressor.load(model.save(tmp_path / "model"))
    assert loaded.random_state.normal() == model.random_state.normal()
    assert loaded.fit(X, y).predict(X).tolist() == model.fit(X, y).predict(X).tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.dtype("float64"), "f8", float, "float64"])
def test_any_form_of_a_type_is_saved_by_its_name(tmp_path, dtype):
    X, y = curve(40)
    model = regressor(dtype=dtype).fit(X, y)
    loaded = td.KernelRegressor.load(model.save(tmp_path / "model"))
    assert loaded.dtype == "float64"
    assert loaded.predict(X).tolist() == model.predict(X).tolist()


@pytest.fixture
def saved(tmp_path):
    X, y = curve(40)
    return regressor().fit(X, y).save(tmp_path / "model")


def change(folder, do):
    header = json.loads((folder / "run.json").read_text())
    do(header)
    (folder / "run.json").write_text(json.dumps(header))


def test_another_class_is_named(saved):
    with pytest.raises(RunFileError, match=r"holds a KernelRegressor: read it by KernelRegressor\.load"):
        td.KernelClassifier.load(saved)


def test_nothing_there(tmp_path):
    with pytest.raises(RunFileError, match=r"holds no saved KernelRegressor \(no run.json\)"):
        td.KernelRegressor.load(tmp_path)


def test_a_run_is_no_estimator(tmp_path, small_problem):
    td.run(td.AsyncSGD(0.1), small_problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(3)).save(tmp_path / "run")
    with pytest.raises(RunFileError, match=r"holds a run, not a KernelRegressor: tardigrad\.Result\.load"):
        td.KernelRegressor.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda header: header["model"].update(format=2), "format 2, written by tardigrad .* upgrade"),
        (lambda header: header.update(format=99), "format 99, written by tardigrad .* upgrade"),
        (lambda header: header["model"].pop("class"), "it was changed"),
        (lambda header: header["model"].update(format="one"), "it was changed"),
        (
            lambda header: header["model"].pop("fitted"),
            "does not say all that makes a KernelRegressor: it was changed, or written by",
        ),
        (
            lambda header: header["model"]["parameters"].update(speed=3),
            "has speed, which a KernelRegressor has not here: it was",
        ),
        (lambda header: header["model"]["fitted"].update(predict=3), "has predict, which a KernelRegressor has not here"),
        (lambda header: header["model"]["fitted"].pop("dual_coef_"), "lacks dual_coef_, which a fitted KernelRegressor has"),
        (lambda header: header["model"].update(parameters=3), "does not say all that makes a KernelRegressor"),
        (lambda header: header["model"]["fitted"].update(X_fit_={"$array": "a99"}), "does not say all that makes"),
        (
            lambda header: header["model"]["parameters"].update(kernel={"$type": "os:system"}),
            "was saved .*not a class of tardigrad",
        ),
        (lambda header: header.update(model=None), "holds a run, not a"),
    ],
)
def test_a_header_that_was_changed_or_is_newer(saved, do, message):
    change(saved, do)
    with pytest.raises(RunFileError, match=message):
        td.KernelRegressor.load(saved)


def test_files_that_were_cut_short_or_lost(saved):
    [part] = saved.glob("*.npz")
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(RunFileError, match="cut short or changed"):
        td.KernelRegressor.load(saved)
    part.unlink()
    with pytest.raises(RunFileError, match="cannot read"):
        td.KernelRegressor.load(saved)


def test_a_folder_is_written_over_whole(saved):
    X, y = curve(40, seed=3)
    model = regressor().fit(X, y)
    model.save(saved)
    same(model, td.KernelRegressor.load(saved), X)
    assert len(list(saved.iterdir())) == 2


def test_where_nothing_can_be_written(tmp_path):
    X, y = curve(40)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFileError, match="cannot write"):
        regressor().fit(X, y).save(tmp_path / "file")


def test_loading_warns_of_nothing(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        td.KernelRegressor.load(saved)


def test_a_pickle_knows_the_file_of_its_rows_again(tmp_path, mapped):
    X, y = mapped
    pickled = pickle.dumps(regressor().fit(X, y))
    np.save(tmp_path / "X.npy", np.array(X) + 1.0)
    with pytest.raises(DataError, match="is not the file that the matrix was in"):
        pickle.loads(pickled)
