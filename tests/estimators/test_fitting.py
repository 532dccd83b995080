"""How a fit goes and ends: history, tolerance, early stopping, plateaus, divergence, Ctrl-C, warm starts."""

import signal
import time
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV

import tardigrad as td
from kernel_data import clusters, curve
from tardigrad.core.errors import TardigradError
from tardigrad.estimators import fitting
from tardigrad.estimators.epochs import EpochBar, Epochs

#: a kernel of few functions: straight lines through the origin
LINE = td.UserKernel(lambda products: products, of="inner products")


def regressor(**kwargs):
    return td.KernelRegressor(**{"bandwidth": 0.7, "random_state": 0, "n_jobs": 1, **kwargs})


def quietly(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


def contradicting():
    X, _ = curve(100)
    noise = np.random.default_rng(5).normal(size=200)
    return np.concatenate([X, X]), noise


def test_history_has_an_entry_an_epoch():
    X, y = curve()
    began = time.perf_counter()
    model = regressor(epochs=4, tol=0).fit(X, y)
    assert model.history_["seconds"].sum() < time.perf_counter() - began
    assert list(model.history_) == ["epoch", "loss", "staleness", "staleness_max", "seconds", "waited"]
    assert {len(column) for column in model.history_.values()} == {4}
    assert model.history_["epoch"].tolist() == [1, 2, 3, 4]
    assert (model.history_["seconds"] > 0).all()
    assert model.n_iter_ == 4
    assert model.message_ == "all 4 epochs were made"


def test_the_loss_is_what_the_epochs_batches_showed():
    """With all rows in one batch it is the loss at the epoch's beginning: 1, then 1 - R^2 of the epoch before."""
    X, y = curve(60)
    fits = [regressor(epochs=n, tol=0, batch_size=60, dtype="float64").fit(X, y) for n in (1, 2, 3)]
    loss = fits[2].history_["loss"]
    assert loss[0] == pytest.approx(1.0)
    np.testing.assert_allclose(loss[1:], [1 - fit.score(X, y) for fit in fits[:2]], rtol=1e-6)


def test_ends_where_the_loss_is_small_enough():
    X, y = curve()
    model = regressor(epochs=50, tol=1e-3).fit(X, y)
    loss = model.history_["loss"]
    assert loss[-1] <= 1e-3 < loss[-2]
    assert model.n_iter_ == len(loss) < 50
    assert "at most tol=0.001" in model.message_


@pytest.mark.parametrize("tol", [None, 0, 0.0])
def test_no_tolerance_makes_all_epochs_also_where_the_loss_does_not_fall(tol):
    X, y = curve(50)
    model = regressor(epochs=40, tol=tol, kernel=LINE, bandwidth="auto").fit(X, y)
    assert model.n_iter_ == 40
    assert model.history_["loss"][-1] == pytest.approx(model.history_["loss"][-8], rel=0.05)


# -- early stopping


def noisy():
    X, y = curve(300)
    return X, y + np.random.default_rng(1).normal(size=300)


def test_early_stopping_keeps_the_best_coefficients():
    X, y = noisy()
    model = regressor(early_stopping=True, epochs=40, n_iter_no_change=4, validation_fraction=0.25).fit(X, y)
    score = model.history_["score"]
    best = int(score.argmax())
    assert model.n_iter_ == len(score) == best + 1 + 4 < 40
    assert "has not risen" in model.message_
    held = model.held_out_
    assert len(held) == 75
    assert r2_score(y[held], model.predict(X[held])) == pytest.approx(score[best], rel=1e-5)
    np.testing.assert_array_equal(model.X_fit_, np.delete(X, held, axis=0).astype(np.float32))


def test_the_rows_held_out_are_not_fitted_to():
    X, y = noisy()
    first = regressor(early_stopping=True, epochs=1).fit(X, y)
    changed = y.copy()
    changed[first.held_out_] += 100
    second = regressor(early_stopping=True, epochs=1).fit(X, changed)
    assert first.dual_coef_.tobytes() == second.dual_coef_.tobytes()


def test_each_class_is_held_out_alike():
    X, y = clusters(200, 4)
    model = td.KernelClassifier(early_stopping=True, validation_fraction=0.25, random_state=0, epochs=3).fit(X, y)
    share = np.bincount(y[model.held_out_]) / np.bincount(y)
    np.testing.assert_allclose(share, 0.25, atol=0.03)
    assert model.history_["score"].max() == np.mean(model.predict(X[model.held_out_]) == y[model.held_out_])


# -- what keeps the loss from falling


def test_duplicate_rows_with_contradicting_targets_are_told():
    X, y = contradicting()
    with pytest.warns(ConvergenceWarning, match=r"200 rows of X are equal to others .* cannot fall below") as caught:
        model = regressor(epochs=10).fit(X, y)
    assert caught[0].filename == __file__
    floor = np.mean(np.square(y[:100] - y[100:])) / 4 / y.var()
    assert f"cannot fall below {floor:.3g}" in str(caught[0].message)
    assert floor < model.history_["loss"][-1] < 3 * floor
    assert model.score(X, y) == pytest.approx(1 - floor, abs=0.15)  # the means are the best; steps jump about them


def test_labels_that_contradict_each_other_are_told_too():
    X, y = clusters(60, 3)
    with pytest.warns(ConvergenceWarning, match="6 rows of X are equal to others"):
        model = td.KernelClassifier(random_state=0).fit(np.concatenate([X, X[:3]]), np.append(y, (y[:3] + 1) % 3))
    assert model.score(X[3:], y[3:]) == 1.0


def test_with_early_stopping_contradictions_need_no_word():
    X, y = contradicting()
    model = regressor(epochs=10, early_stopping=True).fit(X, y)
    assert model.history_["loss"][-1] > 0.1


def test_duplicate_rows_that_agree_are_fitted_in_silence():
    X, y = curve(100)
    model = regressor(epochs=20).fit(np.concatenate([X, X]), np.concatenate([y, y]))
    assert model.score(X, y) > 0.999


def test_one_contradiction_among_many_rows_is_not_told_while_more_epochs_help():
    X, y = curve()
    regressor(epochs=1).fit(np.append(X, X[:1], axis=0), np.append(y, y[0] + 0.01))


def test_a_kernel_that_cannot_reach_the_targets_is_a_plateau():
    X, y = curve()
    with pytest.warns(ConvergenceWarning, match=r"has not fallen below .* for 3 epochs: a smaller bandwidth"):
        model = regressor(kernel=LINE, bandwidth="auto", epochs=50).fit(X, y)
    assert model.n_iter_ < 50
    line = np.linalg.lstsq(X, y - y.mean(), rcond=None)[0]
    assert model.score(X, y) == pytest.approx(r2_score(y, y.mean() + X @ line), abs=0.01)


@pytest.mark.parametrize(
    ("losses", "end"),
    [
        ([1.0, 0.9, 0.88, 0.87, 0.86, 0.855], None),
        ([1.0, 0.995, 0.996, 0.9901], 4),
        ([1.0, 0.995, 0.996, 0.9899, 0.99, 0.99], None),
        ([1.0, 2.0, 3.0, 4.0], 4),
        ([1.0, 1e-5], 2),
    ],
)
def test_a_plateau_is_three_epochs_that_improve_by_less_than_one_percent(losses, end):
    epochs = Epochs(every=10, size=1.0, tol=1e-4, patience=3, score=None, shape=(1, 1))
    texts = [epochs._judge(number, loss, None, np.zeros((1, 1))) for number, loss in enumerate(losses, 1)]
    assert [number for number, text in enumerate(texts, 1) if text] == ([end] if end else [])
    assert epochs.plateau == (end == 4)


def test_a_fit_that_diverges_is_begun_again_with_smaller_steps(monkeypatch):
    X, y = curve(300)
    rule = td.AsyncEigenPro
    monkeypatch.setattr("tardigrad.estimators.machine.AsyncEigenPro", lambda **kwargs: rule(step_factor=24.0, **kwargs))
    with pytest.warns(ConvergenceWarning, match="begun again with a quarter of the step") as caught:
        model = regressor(batch_size=30).fit(X, y)
    assert len(caught) in (1, 2)
    assert caught[0].filename == __file__
    assert model.score(X, y) > 0.9


def test_a_fit_that_always_diverges_is_an_error(monkeypatch):
    X, y = curve(300)
    rule = td.AsyncEigenPro
    monkeypatch.setattr("tardigrad.estimators.machine.AsyncEigenPro", lambda **kwargs: rule(step_factor=1e4, **kwargs))
    model = regressor(batch_size=30)
    with pytest.raises(TardigradError, match=r"diverges, also with 0.0625 of the step .* smaller bandwidth"):
        quietly(model, X, y)
    assert not hasattr(model, "dual_coef_")


class Interrupting:
    """A kernel during whose evaluation Ctrl-C is pressed."""

    def __init__(self, after):
        self.left = after

    def __call__(self, squared):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return np.exp(-np.sqrt(squared))


@pytest.mark.usefixtures("ctrl_c")
def test_after_ctrl_c_there_is_an_estimator_with_what_was_found():
    X, y = curve(300)
    kernel = td.UserKernel(Interrupting(after=200))
    model = regressor(kernel=kernel, bandwidth="auto", epochs=100_000, tol=0, batch_size=50)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted in epoch \d+: the coefficients found so far are kept"):
        model.fit(X, y)
    assert 0 < model.n_iter_ == len(model.history_["loss"]) < 100_000
    assert model.score(X, y) > 0.9
    assert model.message_.startswith("interrupted in epoch")
    kernel.function.left = 0
    model.set_params(warm_start=True, epochs=2).fit(X, y)
    assert model.message_ == "all 2 epochs were made"


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_search_too():
    """It went on with the next fit."""
    X, y = clusters(60)
    model = td.KernelClassifier(td.UserKernel(Interrupting(after=50)), epochs=100_000, tol=0, random_state=0, n_jobs=1)
    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(model, {"batch_size": [10, 20]}).fit(X, y)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(kernel=td.UserKernel(Interrupting(after=50))).fit(X, y)
    assert model.score(X, y) > 0.9


# -- warm starts


def test_a_warm_start_goes_on_with_other_partitions():
    X, y = curve()
    whole = regressor(epochs=4, tol=0).fit(X, y)
    parts = regressor(epochs=2, tol=0, warm_start=True).fit(X, y)
    before = parts.history_["loss"]
    parts.fit(X, y)
    assert parts.n_iter_ == 4
    assert parts.history_["epoch"].tolist() == [1, 2, 3, 4]
    assert parts.history_["loss"][:2].tolist() == before.tolist() == whole.history_["loss"][:2].tolist()
    assert (np.diff(parts.history_["loss"]) < 0).all()
    assert parts.history_["loss"][-1] < 1.5 * whole.history_["loss"][-1]
    assert parts.dual_coef_.tobytes() != whole.dual_coef_.tobytes()


def test_seeds_of_warm_starts_count_epochs(monkeypatch):
    seeds, run = [], fitting.run
    monkeypatch.setattr(fitting, "run", lambda *args, **kwargs: seeds.append(kwargs["seed"]) or run(*args, **kwargs))
    X, y = curve(60)
    model = regressor(warm_start=True, epochs=2, tol=0)
    for _ in range(3):
        model.fit(X, y)
    assert [seed - seeds[0] for seed in seeds] == [0, 2, 4]


def test_a_warm_start_with_other_targets_begins_at_the_old_function():
    X, y = curve(60)
    model = regressor(epochs=30, warm_start=True, batch_size=60).fit(X, y)
    model.set_params(epochs=1).fit(X, 1.01 * y + 5)
    assert model.history_["loss"][-1] < 0.01
    assert model.score(X, 1.01 * y + 5) > 0.99


def test_without_a_warm_start_a_fit_begins_anew():
    X, y = curve()
    model = regressor(epochs=2).fit(X, y)
    first = model.dual_coef_.tobytes()
    assert model.fit(X, y).dual_coef_.tobytes() == first
    assert model.n_iter_ == 2


def test_a_warm_start_holds_out_the_same_rows():
    X, y = noisy()
    model = regressor(early_stopping=True, warm_start=True, epochs=2, random_state=None).fit(X, y)
    held = model.held_out_
    model.fit(X, y)
    assert model.held_out_ is held
    assert len(model.history_["score"]) == 4


def test_a_warm_start_keeps_the_best_coefficients_of_the_fit_before():
    X, y = noisy()
    model = regressor(early_stopping=True, warm_start=True, epochs=40, validation_fraction=0.25).fit(X, y)
    best, held = model.dual_coef_.copy(), model.held_out_
    score = r2_score(y[held], model.predict(X[held]))
    model.fit(X, y)
    assert model.history_["score"][-3:].max() < score
    np.testing.assert_allclose(model.dual_coef_, best, rtol=1e-6)
    assert f"has not risen above {score:.3g}" in model.message_


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:-1], y[:-1]), r"of shape \(199, 2\), are others"),
        (lambda X, y: (X + 1e-3, y), "are others"),
        (lambda X, y: (X[:, :1], y), "has 1 features, but KernelRegressor is expecting 2"),
        (lambda X, y: (X, np.stack([y, y], axis=1)), "with 1 outputs, y has 2 now"),
    ],
)
def test_a_warm_start_needs_the_same_rows(change, message):
    X, y = curve()
    model = regressor(warm_start=True, epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=message):
        model.fit(*change(X, y))
    assert model.predict(X).shape == (200,)  # as it was


def test_a_warm_start_needs_the_same_classes_and_the_same_rows_held_out():
    X, y = clusters(60)
    model = td.KernelClassifier(warm_start=True, epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"goes on with the classes \[0, 1, 2\], y has \[1, 2, 3\]"):
        model.fit(X, y + 1)
    with pytest.raises(ValueError, match="early_stopping and dtype must be as they were"):
        model.set_params(early_stopping=True).fit(X, y)


def test_a_warm_start_needs_the_same_kernel():
    X, y = curve()
    model = regressor(warm_start=True, epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"with the kernel Laplacian\(bandwidth=0.7\), it is Laplacian\(bandwidth=0.8\) now"):
        model.set_params(bandwidth=0.8).fit(X, y)
    auto = regressor(warm_start=True, epochs=1, bandwidth="auto").fit(X, y)
    assert auto.fit(X, y).n_iter_ == 2


# -- progress


def test_progress_is_shown_on_standard_error_where_asked_for(capfd):
    X, y = curve()
    regressor(verbose=True, epochs=2, tol=0).fit(X, y)
    out, err = capfd.readouterr()
    assert not out
    assert "KernelRegressor" in err
    assert "2.0/2 epochs" in err
    assert "updates" not in err
    silent = regressor(epochs=2, tol=0).fit(X, y)
    assert capfd.readouterr() == ("", "")
    bars = [EpochBar("fit", length, workers) for length, workers in [(1000, 4), (33, 4), (60, 4), (5, 1)]]
    assert [bar.every for bar in bars] == [100, 32, 32, 5]
    shown = regressor(verbose=1, epochs=2, tol=0).fit(X, y)
    assert shown.dual_coef_.tobytes() == silent.dual_coef_.tobytes()
