"""Least squares, logistic and softmax regression against finite differences, torch and scikit-learn."""

import json

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression as SklearnLogistic
from sklearn.linear_model import Ridge

from needs import needs_torch
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode
from tardigrad.core.streams import Domain, Stream
from tardigrad.problems.data import Dataset
from tardigrad.problems.least_squares import LeastSquares
from tardigrad.problems.logistic import LogisticRegression, SoftmaxRegression
from tardigrad.problems.partition import Given, Iid, Shared
from tardigrad.problems.regularizers import L2, SmoothNonconvex

MODELS = [LeastSquares, LogisticRegression, SoftmaxRegression]
N_ROWS, N_FEATURES, N_CLASSES = 30, 4, 3
#: clients of 5, 9 and 16 rows, whose rows are not next to each other
OWNERS = np.random.default_rng(8).permutation(np.repeat([0, 1, 2], [5, 9, 16]))

all_models = pytest.mark.parametrize("model", MODELS)
all_weights = pytest.mark.parametrize("weights", ["equal", "rows"])
all_partitions = pytest.mark.parametrize("partition", [None, Iid(4), Given(np.sort(OWNERS)), Given(OWNERS), Shared(3)])


def make_rows(n_rows=N_ROWS, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, N_FEATURES)) * [1.0, 0.5, 2.0, 1.0]
    return X * (rng.random(X.shape) < 0.8)


def make_labels(model, n_rows=N_ROWS, seed=2):
    rng = np.random.default_rng(seed)
    if model is LeastSquares:
        return rng.normal(size=n_rows)
    n_classes = N_CLASSES if model is SoftmaxRegression else 2
    return rng.permutation(np.arange(n_rows) % n_classes)


def make(model, partition=None, *, sparse=False, dtype=np.float64, labels=None, **kwargs):
    X = make_rows().astype(dtype)
    y = make_labels(model) if labels is None else labels
    return model((sp.csr_array(X) if sparse else X, y), partition, **kwargs)


def make_point(problem, *lead, seed=5):
    return np.random.default_rng(seed).normal(size=(*lead, problem.dim)).astype(problem.dtype)


def differences(f, x, h=1e-6):
    """Central differences of a function of (..., dim), at one point."""
    steps = h * np.eye(len(x))
    return (f(x + steps) - f(x - steps)) / (2 * h)


def rows_of(problem, client):
    return np.arange(len(problem.data))[problem.rows_of(client)]


# --- what is computed --------------------------------------------------------------------------------------------


@all_models
@pytest.mark.parametrize("regularizer", [None, L2(0.3), SmoothNonconvex(0.3)])
def test_a_client_s_gradient_is_the_derivative_of_its_loss(model, regularizer):
    problem = make(model, Given(OWNERS), regularizer=regularizer)
    x = make_point(problem)
    for client in range(3):
        expected = differences(lambda x, client=client: problem.loss(x, client), x)
        assert np.allclose(problem.gradient(client, x), expected, rtol=1e-6, atol=1e-8)


@all_models
@all_weights
@all_partitions
def test_the_full_gradient_is_the_derivative_of_the_loss(model, weights, partition):
    problem = make(model, partition, weights=weights, regularizer=SmoothNonconvex(0.2))
    x = make_point(problem)
    assert np.allclose(problem.full_gradient(x), differences(problem.loss, x), rtol=1e-6, atol=1e-8)


@all_models
@all_weights
@all_partitions
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
def test_weighted_client_gradients_and_losses_add_up_to_those_of_the_whole(model, weights, partition, sparse):
    problem = make(model, partition, weights=weights, sparse=sparse, regularizer=L2(0.2))
    x = make_point(problem, 2)
    clients = range(problem.n_clients)
    assert sum(problem.weight(client) for client in clients) == pytest.approx(1, rel=1e-14)
    gradient = sum(problem.weight(client) * problem.gradient(client, x) for client in clients)
    assert np.allclose(gradient, problem.full_gradient(x), rtol=1e-12, atol=1e-14)
    loss = sum(problem.weight(client) * problem.loss(x, client) for client in clients)
    assert np.allclose(loss, problem.loss(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("weights", "partition", "expected", "equal"),
    [
        ("equal", Given(OWNERS), [1, 1, 1], True),
        ("rows", Given(OWNERS), [3 * 5 / 30, 3 * 9 / 30, 3 * 16 / 30], False),
        ("rows", Shared(3), [1, 1, 1], True),
    ],
)
def test_the_scale_of_a_client_is_n_times_its_weight(weights, partition, expected, equal):
    problem = make(LeastSquares, partition, weights=weights)
    assert [problem.scale(client) for client in range(3)] == pytest.approx(expected)
    assert [problem.weight(client) for client in range(3)] == pytest.approx(np.divide(expected, 3))
    assert problem.equal_weights is equal


def torch_loss(model, problem, client, x, torch):
    """The loss of a client written down in torch."""
    rows = rows_of(problem, client)
    A, labels = torch.from_numpy(make_rows()[rows]), make_labels(model)[rows]
    if model is SoftmaxRegression:
        predictions = A @ x.reshape(N_CLASSES, N_FEATURES).T
        return torch.nn.functional.cross_entropy(predictions, torch.from_numpy(labels))
    y = torch.from_numpy(labels.astype(float))
    if model is LogisticRegression:
        return torch.nn.functional.binary_cross_entropy_with_logits(A @ x, y)
    return torch.nn.functional.mse_loss(A @ x, y) / 2


@needs_torch
@all_models
def test_loss_and_gradient_are_those_of_torch_autograd(model):
    import torch

    problem = make(model, Given(OWNERS))
    for client in range(3):
        x = make_point(problem, seed=client)
        point = torch.from_numpy(x.copy()).requires_grad_()
        value = torch_loss(model, problem, client, point, torch)
        value.backward()
        assert float(problem.loss(x, client)) == pytest.approx(value.item(), rel=1e-13)
        assert np.allclose(problem.gradient(client, x), point.grad.numpy(), rtol=1e-12, atol=1e-14)


def sklearn_minimiser(model, X, y, rho):
    """scikit-learn's minimiser of the mean loss plus rho/2 times the squared norm."""
    if model is LeastSquares:
        return Ridge(alpha=rho * len(X), fit_intercept=False, solver="cholesky").fit(X, y).coef_
    classifier = SklearnLogistic(C=1 / (rho * len(X)), fit_intercept=False, solver="newton-cg", tol=1e-10, max_iter=1000)
    return classifier.fit(X, y).coef_.ravel()


@all_models
@pytest.mark.parametrize("weights", ["rows"])
def test_the_minimiser_is_that_of_scikit_learn(model, weights):
    rho = 0.05
    problem = make(model, Given(OWNERS), weights=weights, regularizer=L2(rho))
    expected = sklearn_minimiser(model, make_rows(), make_labels(model), rho)
    assert np.linalg.norm(problem.full_gradient(expected)) < 1e-8
    found = scipy.optimize.minimize(
        problem.loss, problem.x0(), jac=problem.full_gradient, method="BFGS", options={"gtol": 1e-9}
    )
    assert np.allclose(found.x, expected, rtol=1e-6, atol=1e-7)
    assert found.fun == pytest.approx(float(problem.loss(expected)), rel=1e-12)


def test_equal_weights_minimise_scikit_learn_s_loss_with_rows_weighted_by_their_client():
    problem = make(LeastSquares, Given(OWNERS), weights="equal", regularizer=L2(0.05))
    row_weights = 1 / (3 * np.bincount(OWNERS)[OWNERS])
    ridge = Ridge(alpha=0.05, fit_intercept=False, solver="cholesky").fit(
        make_rows(), make_labels(LeastSquares), sample_weight=row_weights
    )
    assert np.linalg.norm(problem.full_gradient(ridge.coef_)) < 1e-12


# --- batch axes, sparsity, precision -------------------------------------------------------------------------------


@all_models
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("lead", [(1,), (4,), (2, 3)])
@pytest.mark.parametrize("what", ["exact", "sample", "full", "loss", "client loss", "measures"])
def test_stacked_points_give_the_stack_of_results(model, sparse, lead, what):
    problem = make(
        model,
        Given(OWNERS),
        sparse=sparse,
        batch=4,
        regularizer=SmoothNonconvex(0.2),
        test=(make_rows(7), make_labels(model, 7)),
    )
    sample = problem.sample(1, np.random.default_rng(0))
    compute = {
        "exact": lambda x: problem.gradient(1, x),
        "sample": lambda x: problem.gradient(1, x, sample),
        "full": problem.full_gradient,
        "loss": problem.loss,
        "client loss": lambda x: problem.loss(x, 2),
        "measures": lambda x: np.stack(list(problem.measures(x).values()), axis=-1),
    }[what]
    x = make_point(problem, *lead)
    found = compute(x)
    expected = np.array([compute(x[at]) for at in np.ndindex(*lead)]).reshape(*lead, *found.shape[len(lead) :])
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-14)


@all_models
@all_weights
def test_sparse_rows_give_what_dense_ones_give(model, weights):
    dense, sparse = (make(model, Given(OWNERS), weights=weights, sparse=s, batch=3, regularizer=L2(0.1)) for s in (False, True))
    for lead in ((), (3,)):
        x = make_point(dense, *lead)
        sample = dense.sample(2, Stream(0, Domain.TASK))
        assert np.array_equal(sample, sparse.sample(2, Stream(0, Domain.TASK)))
        for found, expected in (
            (sparse.gradient(2, x), dense.gradient(2, x)),
            (sparse.gradient(2, x, sample), dense.gradient(2, x, sample)),
            (sparse.full_gradient(x), dense.full_gradient(x)),
            (sparse.loss(x), dense.loss(x)),
        ):
            assert isinstance(found, (np.ndarray, np.floating))
            assert found.shape == expected.shape
            assert np.allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert sparse.smoothness() == pytest.approx(dense.smoothness(), rel=1e-12)
    assert sparse.smoothness(1) == pytest.approx(dense.smoothness(1), rel=1e-12)


@all_models
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
def test_passes_over_many_rows_in_chunks_give_the_same(model, sparse, monkeypatch):
    problem = make(model, Given(OWNERS), sparse=sparse, test=(make_rows(11), make_labels(model, 11)))
    x = make_point(problem, 2)
    compute = (
        lambda: problem.gradient(2, x),
        lambda: problem.full_gradient(x),
        lambda: problem.loss(x, 2),
        lambda: np.stack(list(problem.measures(x).values())),
    )
    whole = [f() for f in compute]
    monkeypatch.setattr("tardigrad.problems.linear_model.CHUNK", 3)
    for f, expected in zip(compute, whole, strict=True):
        assert np.allclose(f(), expected, rtol=1e-13, atol=1e-15)


@all_models
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("rho", [0.1, np.float64(0.1)], ids=["float", "numpy float"])
def test_float32_data_give_float32_points_and_gradients(model, sparse, rho):
    problem = make(model, Given(OWNERS), sparse=sparse, dtype=np.float32, batch=3, regularizer=L2(rho), weights="rows")
    exact = make(model, Given(OWNERS), batch=3, regularizer=L2(rho), weights="rows")
    assert problem.dtype == np.float32
    assert problem.x0().dtype == np.float32
    for lead in ((), (2,)):
        x = make_point(problem, *lead)
        sample = problem.sample(1, np.random.default_rng(0))
        for found, expected in (
            (problem.gradient(1, x), exact.gradient(1, x.astype(float))),
            (problem.gradient(1, x, sample), exact.gradient(1, x.astype(float), sample)),
            (problem.full_gradient(x), exact.full_gradient(x.astype(float))),
        ):
            assert found.dtype == np.float32
            assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


@all_models
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "csr"])
def test_oracles_change_neither_the_point_nor_the_data(model, sparse):
    problem = make(
        model, Given(OWNERS), sparse=sparse, batch=3, regularizer=L2(0.1), test=(make_rows(7), make_labels(model, 7))
    )
    before = problem.fingerprint()
    for lead in ((), (2,)):
        x = make_point(problem, *lead)
        kept = x.copy()
        problem.gradient(0, x)
        problem.gradient(0, x, problem.sample(0, np.random.default_rng(0)))
        problem.full_gradient(x)
        problem.measures(x)
        problem.smoothness()
        assert np.array_equal(x, kept)
    assert problem.fingerprint() == before


@all_models
def test_the_start_is_zero_and_has_the_problem_s_dim(model):
    problem = make(model)
    assert problem.dim == N_FEATURES * (N_CLASSES if model is SoftmaxRegression else 1)
    assert np.array_equal(problem.x0(), np.zeros(problem.dim))


# --- samples -----------------------------------------------------------------------------------------------------


@all_models
def test_without_a_batch_gradients_are_exact(model):
    assert make(model).sample(0, np.random.default_rng(0)) is None


@pytest.mark.parametrize("partition", [Given(OWNERS), Given(np.sort(OWNERS)), Shared(3)])
@pytest.mark.parametrize("replicas", [None, 4])
def test_a_sample_is_of_distinct_rows_of_the_client(partition, replicas):
    problem = make(LeastSquares, partition, batch=5)
    stream = Stream(0, Domain.TASK, replicas)
    for client in range(3):
        owned = set(rows_of(problem, client).tolist())
        for index in range(10):
            sample = problem.sample(client, stream.at(index))
            assert sample.shape == ((5,) if replicas is None else (replicas, 5))
            for rows in sample.reshape(-1, 5).tolist():
                assert len(set(rows)) == 5
                assert set(rows) <= owned


@pytest.mark.parametrize("replicas", [None, 4])
def test_a_batch_larger_than_a_client_is_drawn_with_replacement_from_its_rows(replicas):
    problem = make(LeastSquares, Given(OWNERS), batch=12)
    for client, n_rows in enumerate((5, 9, 16)):
        sample = problem.sample(client, Stream(0, Domain.TASK, replicas).at(client))
        assert sample.shape == ((12,) if replicas is None else (replicas, 12))
        assert set(sample.ravel().tolist()) <= set(rows_of(problem, client).tolist())
        repeated = any(len(set(rows)) < 12 for rows in sample.reshape(-1, 12).tolist())
        assert repeated is (n_rows < 12)


def test_a_batch_of_all_rows_is_exact():
    problem = make(LeastSquares, Given(OWNERS), batch=9)
    x = make_point(problem)
    sample = problem.sample(1, np.random.default_rng(0))
    assert np.allclose(problem.gradient(1, x, sample), problem.gradient(1, x), rtol=1e-12)


@all_models
@pytest.mark.parametrize("batch", [1, 4, 12])
def test_stochastic_gradients_are_exact_in_the_mean(model, batch):
    # a client of 9 rows: batches of 12 are drawn with replacement
    problem = make(model, Given(OWNERS), batch=batch, regularizer=L2(0.1))
    x, stream, n = make_point(problem), Stream(3, Domain.TASK), 2000
    gradients = np.array([problem.gradient(1, x, problem.sample(1, stream.at(i))) for i in range(n)])
    error = np.abs(gradients.mean(0) - problem.gradient(1, x))
    assert (error < 5 * gradients.std(0) / np.sqrt(n)).all()


def test_every_row_of_a_client_is_drawn_equally_often():
    for batch in (3, 12):
        problem = make(LeastSquares, Given(OWNERS), batch=batch)
        stream, n = Stream(4, Domain.TASK), 1500
        counts = np.bincount(np.concatenate([problem.sample(1, stream.at(i)) for i in range(n)]), minlength=N_ROWS)
        expected = n * batch / 9
        drawn = counts[rows_of(problem, 1)]
        assert drawn.sum() == n * batch
        assert (np.abs(drawn - expected) < 5 * np.sqrt(expected)).all()


@all_models
@pytest.mark.parametrize("batch", [3, 12])
@pytest.mark.parametrize("sweep", [(), (2,), (2, 3)])
def test_each_replica_s_gradient_is_the_single_one_on_its_rows(model, batch, sweep):
    problem = make(model, Given(OWNERS), batch=batch, regularizer=L2(0.1))
    sample = problem.sample(1, Stream(0, Domain.TASK, replicas=4).at(9))
    assert len({tuple(rows) for rows in sample.tolist()}) == 4
    x = make_point(problem, 4, *sweep)
    found = problem.gradient(1, x, sample)
    assert found.shape == x.shape
    for replica, *place in np.ndindex(4, *sweep):
        at = (replica, *place)
        assert np.allclose(found[at], problem.gradient(1, x[at], sample[replica]), rtol=1e-12, atol=1e-14)


@all_models
def test_one_sample_serves_at_two_points(model):
    problem = make(model, Given(OWNERS), batch=3)
    sample = problem.sample(0, np.random.default_rng(0))
    kept = sample.copy()
    x, z = make_point(problem), make_point(problem, seed=6)
    together = problem.gradient(0, np.stack([x, z]), sample)
    assert np.allclose(together, [problem.gradient(0, x, sample), problem.gradient(0, z, sample)], rtol=1e-12, atol=1e-14)
    assert np.array_equal(sample, kept)


@all_models
def test_sparse_rows_with_noise_per_replica_say_to_use_dense_ones(model):
    problem = make(model, Given(OWNERS), sparse=True, batch=3)
    sample = problem.sample(1, Stream(0, Domain.TASK, replicas=4))
    with pytest.raises(InvalidInputError, match=r"dense rows: pass X\.toarray\(\)"):
        problem.gradient(1, make_point(problem, 4), sample)


@all_models
def test_sparse_rows_may_share_their_noise_among_replicas(model):
    problem = make(model, Given(OWNERS), sparse=True, batch=3)
    x = make_point(problem, 4)
    assert problem.gradient(1, x, problem.sample(1, Stream(0, Domain.TASK))).shape == x.shape


# --- smoothness --------------------------------------------------------------------------------------------------


def hessian_norm(gradient, x):
    hessian = differences(gradient, x, h=1e-5)
    return np.abs(np.linalg.eigvalsh((hessian + hessian.T) / 2)).max()


@all_weights
@pytest.mark.parametrize("client", [None, 0, 2])
def test_smoothness_of_least_squares_is_the_largest_eigenvalue_of_the_hessian(weights, client):
    problem = make(LeastSquares, Given(OWNERS), weights=weights, regularizer=L2(0.3))
    gradient = problem.full_gradient if client is None else lambda x: problem.gradient(client, x)
    assert problem.smoothness(client) == pytest.approx(hessian_norm(gradient, make_point(problem)), rel=1e-7)


@pytest.mark.parametrize("model", [LogisticRegression, SoftmaxRegression])
@pytest.mark.parametrize("regularizer", [L2(0.3), SmoothNonconvex(0.3)])
@pytest.mark.parametrize("client", [None, 0, 2])
def test_smoothness_of_a_classifier_bounds_the_hessian_everywhere(model, regularizer, client):
    problem = make(model, Given(OWNERS), regularizer=regularizer)
    gradient = problem.full_gradient if client is None else lambda x: problem.gradient(client, x)
    points = [problem.x0(), *(make_point(problem, seed=seed) * scale for seed in range(5) for scale in (0.1, 1, 5))]
    norms = [hessian_norm(gradient, x) for x in points]
    assert max(norms) <= problem.smoothness(client) * (1 + 1e-7)


def test_smoothness_of_logistic_regression_is_reached_at_zero():
    problem = make(LogisticRegression, regularizer=L2(0.3))
    assert problem.smoothness() == pytest.approx(hessian_norm(problem.full_gradient, problem.x0()), rel=1e-7)


def test_smoothness_of_softmax_regression_is_reached_where_two_classes_share_the_probability():
    problem = SoftmaxRegression((np.ones((6, 1)), np.arange(6) % 3))
    assert hessian_norm(problem.full_gradient, np.array([0.0, 0.0, -30.0])) == pytest.approx(problem.smoothness(), rel=1e-6)


def test_smoothness_with_more_features_than_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 8))
    problem = LeastSquares((X, rng.normal(size=3)))
    assert problem.smoothness() == pytest.approx(np.linalg.norm(X, 2) ** 2 / 3, rel=1e-12)


# --- labels, measures, predictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "relabel"),
    [
        (LogisticRegression, lambda y: np.array(["no", "yes"])[y]),
        (LogisticRegression, lambda y: y == 1),
        (LogisticRegression, lambda y: 2.0 * y - 1),
        (LogisticRegression, lambda y: np.array([-7, 3])[y]),
        (SoftmaxRegression, lambda y: np.array(["a", "b", "c"])[y]),
        (SoftmaxRegression, lambda y: np.array([1, 5, 200], np.uint8)[y]),
    ],
    ids=["strings", "bools", "signs", "integers", "softmax strings", "softmax bytes"],
)
def test_labels_may_be_anything_that_sorts(model, relabel):
    labels = relabel(make_labels(model))
    numbered, problem = make(model), make(model, labels=labels)
    x = make_point(problem)
    assert np.array_equal(problem.classes, np.unique(labels))
    assert problem.loss(x) == numbered.loss(x)
    assert np.array_equal(problem.gradient(0, x), numbered.gradient(0, x))
    assert np.array_equal(problem.predict(x, make_rows()), relabel(numbered.predict(x, make_rows())))


@pytest.mark.parametrize("model", [LogisticRegression, SoftmaxRegression])
def test_predictions_are_those_of_scikit_learn_and_accuracy_is_their_share(model):
    X, y = make_rows(), make_labels(model)
    classifier = SklearnLogistic(C=10.0, fit_intercept=False).fit(X, y)
    test = make_rows(50, seed=9), make_labels(model, 50, seed=9)
    problem = make(model, test=test)
    x = classifier.coef_.ravel()
    assert np.array_equal(problem.predict(x, test[0]), classifier.predict(test[0]))
    measures = problem.measures(x)
    assert measures["accuracy"] == pytest.approx(classifier.score(X, y), rel=1e-15)
    assert measures["test_accuracy"] == pytest.approx(classifier.score(*test), rel=1e-15)
    assert 0 < measures["test_accuracy"] < 1


@all_models
def test_test_loss_is_the_mean_over_test_rows_without_the_regularizer(model):
    test = make_rows(7, seed=9), make_labels(model, 7, seed=9)
    problem = make(model, test=test, regularizer=L2(3.0))
    x = make_point(problem)
    assert problem.measures(x)["test_loss"] == pytest.approx(float(model(test).loss(x)), rel=1e-13)


@all_models
def test_measures_by_name(model):
    accuracy = [] if model is LeastSquares else ["accuracy"]
    problem = make(model)
    x = make_point(problem, 2)
    assert sorted(problem.measures(x)) == sorted(["loss", "gradient_norm", *accuracy])
    tested = make(model, test=(make_rows(7), make_labels(model, 7)))
    names = ["loss", "gradient_norm", "test_loss", *accuracy, *(f"test_{name}" for name in accuracy)]
    found = tested.measures(x)
    assert sorted(found) == sorted(names)
    assert all(value.shape == (2,) for value in found.values())
    assert np.array_equal(found["loss"], tested.loss(x))
    assert np.allclose(found["gradient_norm"], np.linalg.norm(tested.full_gradient(x), axis=-1))
    assert list(tested.measures(x, ["test_loss"])) == ["test_loss"]
    assert np.array_equal(tested.measures(x, ["test_loss"])["test_loss"], found["test_loss"])


def test_losses_of_far_away_points_do_not_overflow():
    X = np.array([[1.0], [-1.0]])
    x = np.array([1e4])
    assert LogisticRegression((X, [0, 1])).loss(x) == 1e4
    assert LogisticRegression((X, [1, 0])).loss(x) == 0
    assert np.array_equal(LogisticRegression((X, [0, 1])).gradient(0, x), [1.0])
    assert SoftmaxRegression((X, [0, 1])).loss(np.array([-1e4, 1e4])) == 2e4
    assert np.array_equal(SoftmaxRegression((X, [0, 1])).gradient(0, np.array([-1e4, 1e4])), [-1.0, 1.0])


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "test_labels", "message"),
    [
        ([0, 1], [0, 2], r"label .*2.* of a test row is not among .*\[0 1\]"),
        ([0, 1], [-1, 0], r"label .*-1.* of a test row"),
        ([0, 5], [3, 0], r"label .*3.* of a test row"),
        (["a", "b"], ["b", "c"], r"label .*'c'.* of a test row"),
        ([0, 1], ["0", "1"], "label .*'0'.* of a test row"),
    ],
)
@pytest.mark.parametrize("model", [LogisticRegression, SoftmaxRegression])
def test_a_test_label_that_the_data_do_not_have_is_named(model, labels, test_labels, message):
    with pytest.raises(InvalidInputError, match=message):
        model((np.eye(2), labels), test=(np.eye(2), test_labels))


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 1, 2]])
def test_logistic_regression_needs_two_classes(labels):
    with pytest.raises(InvalidInputError, match=rf"two classes, found {len(set(labels))} .*: use SoftmaxRegression"):
        LogisticRegression((np.eye(3), labels))


def test_softmax_regression_needs_two_classes_or_more():
    with pytest.raises(InvalidInputError, match=r"two classes or more, found only \[4\]"):
        SoftmaxRegression((np.eye(2), [4, 4]))


@pytest.mark.parametrize(
    "targets", [["a", "b"], np.array([1.0, None], object), np.array([1.0, np.nan], object), [1j, 0]], ids=repr
)
def test_least_squares_needs_real_numbers_as_targets(targets):
    with pytest.raises(InvalidInputError, match=r"targets|y must hold numbers"):
        LeastSquares((np.eye(2), targets))


def test_targets_too_large_for_the_precision_of_the_rows_are_refused():
    with pytest.raises(InvalidInputError, match="float32"):
        LeastSquares((np.eye(2, dtype=np.float32), [1.0, 1e300]))


@pytest.mark.parametrize("model", [LeastSquares, SoftmaxRegression])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch": 0}, "batch must be an integer >= 1, not"),
        ({"batch": -3}, "batch must be an integer >= 1, not"),
        ({"batch": 3.0}, "batch must be an integer >= 1, not"),
        ({"batch": 1.5}, "batch must be an integer >= 1, not"),
        ({"batch": True}, "batch must be an integer >= 1, not"),
        ({"batch": "4"}, "batch must be an integer >= 1, not"),
        ({"batch": "all"}, "batch must be an integer >= 1, not"),
        ({"batch": np.inf}, "batch must be an integer >= 1, not"),
        ({"batch": np.nan}, "batch must be an integer >= 1, not"),
        ({"weights": "size"}, "weights must be 'equal' or 'rows', not 'size'"),
        ({"weights": None}, "weights must be 'equal' or 'rows', not None"),
        ({"partition": 4}, r"partition must be a Partition such as Iid\(4\), not 4"),
        ({"partition": Iid}, r"partition must be a Partition such as Iid\(4\)"),
        ({"regularizer": 0.1}, r"regularizer must be one such as L2\(0\.01\), not 0\.1"),
        ({"test": (np.ones((2, 5)), [0, 1])}, "test rows have 5 features, those of data 4"),
        ({"test": np.ones((2, 4))}, r"data must be a pair \(X, y\) or a Dataset"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused(model, kwargs, message):
    with pytest.raises(InvalidInputError, match=message):
        make(model, **kwargs)


def test_a_numpy_integer_is_a_batch():
    assert make(LeastSquares, batch=np.int64(3)).sample(0, np.random.default_rng(0)).shape == (3,)


@pytest.mark.parametrize("client", [-1, 3])
@pytest.mark.parametrize(
    "ask",
    [
        lambda problem, client: problem.rows_of(client),
        lambda problem, client: problem.n_rows_of(client),
        lambda problem, client: problem.smoothness(client),
        lambda problem, client: problem.loss(problem.x0(), client),
        lambda problem, client: problem.gradient(client, problem.x0()),
    ],
    ids=["rows_of", "n_rows_of", "smoothness", "loss", "gradient"],
)
def test_a_client_that_does_not_exist_is_refused(ask, client):
    with pytest.raises(InvalidInputError, match=rf"client must be an integer between 0 and 2, not {client}"):
        ask(make(LeastSquares, Given(OWNERS)), client)


# --- identity ------------------------------------------------------------------------------------------------------


def variants(model):
    X, y = make_rows(), make_labels(model)
    other_X, other_y = X.copy(), y.copy()
    other_X[-1, -1] = np.nextafter(other_X[-1, -1], 9)
    other_y[0], other_y[1:] = y[-1], y[:-1]
    test = make_rows(7), make_labels(model, 7)
    return {
        "plain": model((X, y)),
        "one bit of X": model((other_X, y)),
        "labels": model((X, other_y)),
        "float32": model((X.astype(np.float32), y)),
        "sparse": model((sp.csr_array(X), y)),
        "iid": model((X, y), Iid(4)),
        "iid, other seed": model((X, y), Iid(4, seed=1)),
        "given": model((X, y), Given(OWNERS)),
        "batch": model((X, y), batch=3),
        "regularizer": model((X, y), regularizer=L2(0.1)),
        "other regularizer": model((X, y), regularizer=SmoothNonconvex(0.1)),
        "weights": model((X, y), weights="rows"),
        "test": model((X, y), test=test),
        "other test": model((X, y), test=(test[0] * 2, test[1])),
    }


@all_models
def test_fingerprints_change_with_everything_that_defines_the_problem(model):
    prints = {problem.fingerprint(): name for name, problem in variants(model).items()}
    assert sorted(prints.values()) == sorted(variants(model))


def test_fingerprints_change_with_the_model():
    data = make_rows(), make_labels(LogisticRegression)
    assert len({model(data).fingerprint() for model in MODELS}) == 3


@all_models
def test_equal_problems_have_equal_fingerprints(model):
    for one, other in zip(variants(model).values(), variants(model).values(), strict=True):
        assert one.fingerprint() == other.fingerprint()


@all_models
def test_data_with_the_same_values_in_another_layout_have_the_same_fingerprint(model):
    y = make_labels(model)
    assert model((np.asfortranarray(make_rows()), y)).fingerprint() == model((make_rows(), y)).fingerprint()


@all_models
def test_a_problem_comes_back_from_json_and_arrays(model):
    for name, problem in variants(model).items():
        arrays = {}
        back = decode(json.loads(json.dumps(encode(problem, arrays))), arrays)
        assert back.fingerprint() == problem.fingerprint(), name
        x = make_point(problem, 2)
        assert np.array_equal(back.full_gradient(x), problem.full_gradient(x)), name
        assert [back.rows_of(i) if back._order is None else back.rows_of(i).tolist() for i in range(back.n_clients)] == [
            problem.rows_of(i) if problem._order is None else problem.rows_of(i).tolist() for i in range(problem.n_clients)
        ]


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_the_fingerprint_of_sparse_data_survives_saving_whatever_the_type_of_the_indices(index_dtype):
    X = sp.csr_array(make_rows())
    X = sp.csr_array((X.data, X.indices.astype(index_dtype), X.indptr.astype(index_dtype)), shape=X.shape)
    X.indices, X.indptr = X.indices.astype(index_dtype), X.indptr.astype(index_dtype)
    problem = LeastSquares((X, make_labels(LeastSquares)))
    arrays = {}
    back = decode(json.loads(json.dumps(encode(problem, arrays))), arrays)
    assert back.fingerprint() == problem.fingerprint()


def test_a_dataset_is_taken_as_it_is():
    data = Dataset(make_rows(), make_labels(LeastSquares))
    assert LeastSquares(data).data is data


@pytest.mark.parametrize("words", [np.array([False, True]), np.array(["no", "yes"])], ids=["bools", "strings"])
def test_a_problem_with_labels_that_are_no_numbers_can_be_saved(words):
    arrays = {}
    problem = make(LogisticRegression, labels=words[make_labels(LogisticRegression)])
    assert problem.fingerprint() != make(LogisticRegression).fingerprint()
    back = decode(json.loads(json.dumps(encode(problem, arrays))), arrays)
    assert back.fingerprint() == problem.fingerprint()
    assert back.classes.tolist() == words.tolist()
