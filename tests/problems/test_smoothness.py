"""Constants of linear models against Hessians of small cases, all samples of them, and random pairs of points."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode
from tardigrad.problems import smoothness
from tardigrad.problems.smoothness import gram, largest_eigenvalue, single_share

MODELS = [td.LeastSquares, td.LogisticRegression, td.SoftmaxRegression]
CLASSIFIERS = MODELS[1:]
REGULARIZERS = [None, td.L2(0.3), td.SmoothNonconvex(0.3)]
#: clients of 3, 5 and 4 rows, whose rows are not next to each other
OWNERS = np.random.default_rng(8).permutation(np.repeat([0, 1, 2], [3, 5, 4]))

all_models = pytest.mark.parametrize("model", MODELS)
all_classifiers = pytest.mark.parametrize("model", CLASSIFIERS)
all_weights = pytest.mark.parametrize("weights", ["equal", "rows"])
all_regularizers = pytest.mark.parametrize("regularizer", REGULARIZERS, ids=str)
all_batches = pytest.mark.parametrize("batch", [None, 1, 2, 3, 4], ids=str)


def make(model, *, n_rows=12, n_features=3, sparse=False, partition=None, seed=0, skew=3.0, dtype=np.float64, **kwargs):
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(n_rows, n_features)) * np.linspace(1, skew, n_rows)[:, None]).astype(dtype)
    y = rng.normal(size=n_rows) if model is td.LeastSquares else np.arange(n_rows) % (3 if model is td.SoftmaxRegression else 2)
    return model((sp.csr_array(X) if sparse else X, y), td.Given(OWNERS) if partition is None else partition, **kwargs)


def pairs(problem, seed=0, n_pairs=40):
    """Points near and far, and what lies close to them or not, along the axes of the Hessian and elsewhere."""
    rng = np.random.default_rng(seed)
    for scale, apart in itertools.product([0.0, 0.1, 1.0, 10.0], [1e-3, 1.0, 10.0]):
        for _ in range(n_pairs // 10):
            x = scale * rng.normal(size=problem.dim)
            yield x, x + apart * rng.normal(size=problem.dim)


def samples(problem, client):
    """Every sample of a client, equally likely, and None where gradients are exact."""
    rows = np.arange(len(problem.data))[problem.rows_of(client)]
    if problem.batch is None:
        return [None]
    if problem.batch > len(rows):
        return [np.array(s) for s in itertools.product(rows, repeat=problem.batch)]
    return [np.array(s) for s in itertools.combinations(rows, problem.batch)]


def measured(problem, x, y):
    """The three ratios at one pair of points, by oracles alone."""
    apart = np.linalg.norm(x - y)
    whole = problem.full_gradient(x) - problem.full_gradient(y)
    delta, ell = [], []
    for client in range(problem.n_clients):
        scale = problem.scale(client)
        delta.append(np.linalg.norm(whole - scale * (problem.gradient(client, x) - problem.gradient(client, y))))
        squares = [
            np.sum((problem.gradient(client, x, sample) - problem.gradient(client, y, sample)) ** 2)
            for sample in samples(problem, client)
        ]
        ell.append(scale * np.sqrt(np.mean(squares)))
    return np.array([np.linalg.norm(whole), max(delta), max(ell)]) / apart


def hessian(problem, client=None, sample=None):
    """Of least squares, or of a classifier at 0, from differences of gradients."""
    at = problem.full_gradient if client is None else lambda x: problem.gradient(client, x, sample)
    h = 1.0 if isinstance(problem, td.LeastSquares) else 1e-5
    return np.array([(at(h * e) - at(-h * e)) / (2 * h) for e in np.eye(problem.dim)])


def by_hand(problem):
    """L, delta and ell of least squares from Hessians: of all clients, and of all samples."""
    H = hessian(problem)
    delta, ell = [], []
    for client in range(problem.n_clients):
        scale = problem.scale(client)
        delta.append(np.linalg.norm(H - scale * hessian(problem, client), 2))
        squares = np.mean(
            [hessian(problem, client, s).T @ hessian(problem, client, s) for s in samples(problem, client)], axis=0
        )
        ell.append(scale * np.sqrt(np.linalg.eigvalsh(squares)[-1]))
    return np.linalg.norm(H, 2), max(delta), max(ell)


def values(constants):
    return constants.L, constants.delta, constants.ell


# exact


@all_weights
@all_batches
@pytest.mark.parametrize("regularizer", [None, td.L2(0.3), td.L2(30.0)], ids=str)
@pytest.mark.parametrize("sparse", [False, True])
def test_those_of_least_squares_are_exact(weights, batch, regularizer, sparse):
    problem = make(td.LeastSquares, weights=weights, batch=batch, regularizer=regularizer, sparse=sparse)
    found = problem.constants()
    assert found.exact
    assert values(found) == pytest.approx(by_hand(problem), rel=1e-9)


@all_weights
@pytest.mark.parametrize("skew", [1.0, 3.0])
def test_the_most_different_client_is_found_among_many(weights, skew):
    for seed in range(30):
        partition = td.Given(np.random.default_rng(seed).permutation(np.arange(24) % 6 * (np.arange(24) > 3)))
        problem = make(td.LeastSquares, n_rows=24, partition=partition, seed=seed, skew=skew, weights=weights)
        assert problem.constants().delta == pytest.approx(by_hand(problem)[1], rel=1e-9)


def test_a_small_difference_between_clients_with_many_features_is_seen():
    X = np.random.default_rng(0).normal(size=(20, 130))
    problem = td.LeastSquares((np.concatenate([X, X * (1 + 1e-6)]), np.zeros(40)), td.Given(np.repeat([0, 1], 20)))
    found = problem.constants()
    assert found.delta == pytest.approx(1e-6 * found.L, rel=1e-5)


@pytest.mark.parametrize("batch", [None, 2], ids=str)
def test_those_of_least_squares_are_attained_by_a_pair_of_points(batch):
    problem = make(td.LeastSquares, batch=batch, regularizer=td.L2(0.1))
    found, H = problem.constants(), hessian(problem)
    directions = [np.linalg.eigh(H)[1][:, -1]]
    for client in range(3):
        low_to_high = np.linalg.eigh(H - hessian(problem, client))[1]
        directions += [low_to_high[:, 0], low_to_high[:, -1]]
        squares = np.mean([hessian(problem, client, s) @ hessian(problem, client, s) for s in samples(problem, client)], axis=0)
        directions.append(np.linalg.eigh(squares)[1][:, -1])
    x = np.array([3.0, -1.0, 2.0])
    best = np.max([measured(problem, x, x + v) for v in directions], axis=0)
    assert best == pytest.approx(values(found), rel=1e-9)


@all_weights
def test_a_non_convex_regularizer_leaves_l_exact_and_delta_too_where_weights_are_equal(weights):
    found = make(td.LeastSquares, weights=weights, regularizer=td.SmoothNonconvex(0.3)).constants()
    plain = make(td.LeastSquares, weights=weights).constants()
    assert not found.exact
    assert abs(found.L - plain.L - 0.6) < 1e-12
    if weights == "equal":
        assert found.delta == pytest.approx(plain.delta, rel=1e-12)
        assert found.ell == pytest.approx(plain.ell + 0.6, rel=1e-12)
    else:  # the scales are 3/4, 5/4 and 1
        assert plain.delta < found.delta <= plain.delta + 0.6 / 4 + 1e-12


def test_l_of_logistic_regression_is_the_curvature_at_zero():
    for regularizer in REGULARIZERS:
        problem = make(td.LogisticRegression, regularizer=regularizer)
        assert np.linalg.norm(hessian(problem), 2) == pytest.approx(problem.constants().L, rel=1e-6)


# bounds


@all_models
@pytest.mark.parametrize(
    ("weights", "batch"), [("equal", None), ("equal", 1), ("equal", 2), ("equal", 3), ("equal", 4), ("rows", None), ("rows", 2)]
)
@all_regularizers
def test_no_pair_of_points_exceeds_them(model, weights, batch, regularizer):
    problem = make(model, weights=weights, batch=batch, regularizer=regularizer)
    found = problem.constants()
    assert found.exact == (model is td.LeastSquares and not isinstance(regularizer, td.SmoothNonconvex))
    n_pairs = 40 if batch in (None, 1, 2) else 10
    most = np.max([measured(problem, x, y) for x, y in pairs(problem, n_pairs=n_pairs)], axis=0)
    assert (most <= np.array(values(found)) * (1 + 1e-9)).all()


@all_classifiers
@pytest.mark.parametrize("batch", [None, 2], ids=str)
def test_bounds_of_classifiers_are_not_far_from_what_is_measured(model, batch):
    problem = make(model, batch=batch)
    most = np.max([measured(problem, x, x + 1e-3 * v) for x, v in small_moves(problem)], axis=0)
    factors = [1.01, 2.0, 1.6] if model is td.LogisticRegression else [1.7, 3.0, 2.5]
    assert (np.array(values(problem.constants())) <= most * factors).all()


def small_moves(problem):
    rng = np.random.default_rng(3)
    axes = [np.linalg.eigh(hessian(problem, client))[1][:, -1] for client in (None, 0, 1, 2)]
    return [(np.zeros(problem.dim), v) for v in [*axes, *rng.normal(size=(200, problem.dim))]]


@all_classifiers
@all_weights
@all_regularizers
def test_delta_of_a_classifier_is_the_largest_norm_of_either_part(model, weights, regularizer):
    for seed in range(10):
        problem = make(model, partition=td.Given(np.random.default_rng(seed).integers(0, 4, 12)), weights=weights, seed=seed)
        X, parts = problem.data.X, []
        moments = [X[problem.rows_of(i)].T @ X[problem.rows_of(i)] / problem.n_rows_of(i) for i in range(problem.n_clients)]
        whole = sum(problem.weight(i) * H for i, H in enumerate(moments))
        for i, H in enumerate(moments):
            P, N = whole - problem.weight(i) * H, (problem.scale(i) - problem.weight(i)) * H
            parts.append(max(np.linalg.norm(P, 2), np.linalg.norm(N, 2)))
        assert problem.constants().delta == pytest.approx(problem.loss_curvature * max(parts), rel=1e-9)


def test_unequal_weights_add_the_regularizer_to_the_delta_of_a_classifier():
    plain = make(td.LogisticRegression, weights="rows").constants()
    for regularizer in (td.L2(0.4), td.SmoothNonconvex(0.2)):
        found = make(td.LogisticRegression, weights="rows", regularizer=regularizer).constants()
        assert found.delta == pytest.approx(plain.delta + 0.4 / 4, rel=1e-9)  # the scales are 3/4, 5/4 and 1
        equal = [make(td.LogisticRegression, regularizer=r).constants().delta for r in (None, regularizer)]
        assert equal[0] == equal[1]


@all_classifiers
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_ell_of_a_classifier_is_that_of_its_formula(model, batch):
    problem = make(model, batch=batch, regularizer=td.L2(0.4))
    c, found = problem.loss_curvature, []
    for client in range(3):
        A = problem.data.X[problem.rows_of(client)]
        H, Q = A.T @ A / len(A), (A.T * (A**2).sum(1)) @ A / len(A)
        alpha, top = single_share(len(A), batch), np.linalg.norm(H, 2)
        squares = c**2 * (alpha * Q + (1 - alpha) * top * H) + 2 * c * 0.4 * H + 0.4**2 * np.eye(3)
        found.append(np.sqrt(np.linalg.norm(squares, 2)))
    assert problem.constants().ell == pytest.approx(max(found), rel=1e-9)


# limiting cases


@all_models
def test_one_client_differs_from_nobody(model):
    assert make(model, partition=td.Iid(1)).constants().delta == 0


@all_models
@pytest.mark.parametrize("batch", [None, 2], ids=str)
def test_clients_that_share_their_data_differ_by_nothing(model, batch):
    one = make(model, partition=td.Iid(1), batch=batch).constants()
    assert values(make(model, partition=td.Shared(5), batch=batch).constants()) == values(one)


@pytest.mark.parametrize("n_features", [3, 130])
def test_clients_with_the_same_rows_differ_by_nothing(n_features):
    X = np.random.default_rng(0).normal(size=(20, n_features))
    problem = td.LeastSquares((np.concatenate([X, X]), np.zeros(40)), td.Given(np.repeat([0, 1], 20)))
    assert problem.constants().delta <= 1e-12 * problem.constants().L


@all_models
def test_rows_of_zeros_have_no_curvature(model):
    y = np.arange(6) % 2 if model is not td.LeastSquares else np.zeros(6)
    for n_features in (2, 130):
        problem = model((np.zeros((6, n_features)), y), td.Iid(2), batch=2)
        assert values(problem.constants()) == (0, 0, 0)


@all_models
def test_ell_falls_with_the_batch_to_that_of_exact_gradients(model):
    found = [make(model, partition=td.Iid(2), batch=batch).constants().ell for batch in (1, 2, 3, 5, 6, None)]
    assert (np.diff(found[:5]) < 0).all()
    assert found[4] == pytest.approx(found[5], rel=1e-12)


@all_models
def test_ell_is_never_below_l(model):
    for seed in range(10):
        found = make(model, partition=td.Iid(4, seed), seed=seed, regularizer=td.L2(0.2)).constants()
        assert found.ell >= found.L


@pytest.mark.parametrize(("n_rows", "batch"), [(5, 1), (5, 3), (5, 5), (3, 4), (1, 1), (1, 3)])
def test_the_share_of_single_rows_is_that_of_all_samples(n_rows, batch):
    # E|mean|^2 = share mean of squares + (1 - share) square of the mean, for any numbers
    numbers = np.random.default_rng(0).normal(size=n_rows)
    drawn = itertools.product(numbers, repeat=batch) if batch > n_rows else itertools.combinations(numbers, batch)
    expected = np.mean([np.mean(sample) ** 2 for sample in drawn])
    share = single_share(n_rows, batch)
    assert share * np.mean(numbers**2) + (1 - share) * np.mean(numbers) ** 2 == pytest.approx(expected, rel=1e-12)


# large cases by other ways


@pytest.fixture(params=["matrix", "rows", "chunks"])
def way(request, monkeypatch):
    """The three ways to apply a matrix of second moments."""
    if request.param != "matrix":
        monkeypatch.setattr(smoothness, "DENSE", 0)
    if request.param == "chunks":
        monkeypatch.setattr(smoothness, "ENTRIES", 0)
        monkeypatch.setattr("tardigrad.problems.linear_model.CHUNK", 7)
    return request.param


@all_models
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_features_give_what_dense_eigenvalues_give(way, model, sparse, dtype, monkeypatch):
    def constants():
        problem = make(
            model,
            n_rows=90,
            n_features=120,
            partition=td.Iid(3),
            batch=4,
            regularizer=td.L2(0.1),
            sparse=sparse,
            dtype=dtype,
        )
        return values(problem.constants())

    found = constants()
    monkeypatch.setattr(smoothness, "SMALL", 1000)
    assert found == pytest.approx(constants(), rel=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_second_moments_are_applied_to_vectors_and_matrices(way, sparse):
    rng = np.random.default_rng(0)
    X, weights, V = rng.normal(size=(20, 6)), rng.random(20), rng.normal(size=(6, 3))
    G = gram(sp.csr_array(X) if sparse else X, weights)
    assert np.allclose(G(V), X.T @ np.diag(weights) @ X @ V, rtol=1e-12)
    assert np.allclose(G(V[:, 0]), G(V)[:, 0], rtol=1e-12)


@pytest.mark.parametrize("dim", [5, 300])
def test_the_largest_eigenvalue_and_the_largest_magnitude(dim):
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    eigenvalues = np.linspace(-3, 2, dim)
    A = Q @ np.diag(eigenvalues) @ Q.T
    assert largest_eigenvalue(lambda v: A @ v, dim) == pytest.approx(2, rel=1e-9)
    assert largest_eigenvalue(lambda v: A @ v, dim, of=3.0) == pytest.approx(3, rel=1e-9)


# as an object, and elsewhere


def test_constants_are_plain_data():
    found = make(td.LeastSquares).constants()
    assert decode(encode(found, {}), {}) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0.0, 0.0, True), "L must be a finite number >= 0, not -1.0"),
        ((1.0, np.nan, 1.0, True), "delta must be"),
        ((1.0, 0.0, np.inf, True), "ell must be"),
        ((1.0, 0.0, 1.0, 1), "exact must be True or False, not 1"),
    ],
)
def test_bad_constants_are_named(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        td.SmoothnessConstants(*arguments)


@pytest.mark.parametrize(
    "problem",
    [td.Rosenbrock(2), td.SigmoidRegression((np.eye(2), np.array([0, 1])), minimiser=np.array([0.0, 2.0]))],
    ids=lambda problem: type(problem).__name__,
)
def test_other_problems_say_that_they_have_none(problem):
    with pytest.raises(InvalidInputError, match=rf"{type(problem).__name__} does not say how smooth it is: give a step size"):
        problem.constants()
