"""Hsu's partition: equal clients with mixtures of their own, whatever alpha; and problems that do not use every row."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma, polygamma

import tardigrad as td
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode
from tardigrad.problems.hsu_dirichlet import draw_classes, log_dirichlet
from tardigrad.problems.partition import Partition

ALPHAS = [1e-308, 1e-300, 1e-6, 0.001, 0.1, 1.0, 10.0, 1e6, 1e40, 1e300, 1e308]
#: ten classes of 100 rows, mixed
LABELS = np.random.default_rng(2).permutation(np.repeat(np.arange(10), 100))


def split(partition, labels=LABELS):
    order, offsets = partition.split(labels)
    return np.split(order, offsets[1:-1])


def n_classes_of_each(partition, labels=LABELS):
    return [len(np.unique(labels[rows])) for rows in split(partition, labels)]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.lists(st.integers(-2, 3), min_size=1, max_size=60).map(np.array),
    st.integers(1, 12),
    st.sampled_from(ALPHAS),
    st.none() | st.integers(1, 9),
    st.integers(0, 2**70),
)
def test_clients_have_the_same_number_of_rows_and_no_row_has_two_owners(labels, n_clients, alpha, rows_per_client, seed):
    partition = td.HsuDirichlet(n_clients, alpha, rows_per_client, seed)
    wanted = rows_per_client or len(labels) // n_clients
    if not wanted or wanted * n_clients > len(labels):
        with pytest.raises(InvalidInputError, match="ask for fewer"):
            partition.split(labels)
        return
    parts = split(partition, labels)
    assert [len(rows) for rows in parts] == [wanted] * n_clients
    assert len(set(np.concatenate(parts).tolist())) == wanted * n_clients
    for rows in parts:
        assert (np.diff(rows) > 0).all()
        assert rows.min() >= 0
        assert rows.max() < len(labels)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_it_is_a_function_of_its_seed(alpha):
    partition = td.HsuDirichlet(7, alpha, None, 3)
    again = decode(json.loads(json.dumps(encode(partition, {}))), {})
    assert again == partition
    assert np.array_equal(again.owners(LABELS), partition.owners(LABELS))
    others = [td.HsuDirichlet(7, alpha, None, seed).owners(LABELS).tolist() for seed in range(5)]
    assert all(a != b for a, b in itertools.combinations(others, 2))


@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 0.001])
def test_a_tiny_alpha_gives_each_client_one_class_while_there_are_rows_of_it(alpha):
    mixed = 0
    for seed in range(20):
        counts = n_classes_of_each(td.HsuDirichlet(10, alpha, 10, seed))  # a class serves all ten clients
        mixed += sum(count > 1 for count in counts)
    assert mixed <= 4 * (alpha == 0.001)  # 200 clients of ten rows; a share of 2 alpha has a class of more than 1 percent


def test_a_tiny_alpha_uses_up_one_class_before_the_next():
    # 9 classes of 100, clients of 150: every one but by chance takes one or two classes whole
    labels = np.repeat(np.arange(9), 100)
    for seed in range(10):
        rows = split(td.HsuDirichlet(6, 1e-6, 150, seed), labels)
        assert all((np.sort(np.bincount(labels[part], minlength=9))[:-4] == 0).all() for part in rows)
        assert sorted(np.bincount(labels[rows[0]], minlength=9).tolist())[-2:] == [50, 100]


@pytest.mark.parametrize("alpha", [1e-308, 1e-300, 1e-6, 0.001])
def test_what_is_left_of_a_mixture_keeps_its_order_where_numbers_underflow(alpha):
    # the second class of a client, after its first is used up, is drawn by the prior and not by position
    second = []
    for seed in range(400):
        labels = np.repeat([0, 1, 2], 10)
        rows = td.HsuDirichlet(1, alpha, 20, seed).owners(labels)
        full = [int((rows[labels == i] == 0).sum()) for i in range(3)]
        second.append(int(np.argmin(full)))
        assert sorted(full) == [0, 10, 10] or alpha == 0.001
    assert (np.bincount(second, minlength=3) > 90).all()  # 133 expected, 4.6 standard deviations


@pytest.mark.parametrize("alpha", [1e8, 1e40, 1e308])
def test_a_huge_alpha_gives_every_client_the_mixture_of_the_whole(alpha):
    labels = np.repeat([0, 1], [30_000, 10_000])
    for rows in split(td.HsuDirichlet(4, alpha, 5000, 1), labels):
        assert labels[rows].mean() == pytest.approx(0.25, abs=5 * np.sqrt(3 / 16 / 5000))


def test_the_prior_is_the_share_of_each_class():
    # the first client's only class, at tiny alpha
    labels = np.repeat([4, 7], [900, 100])
    first = [labels[split(td.HsuDirichlet(2, 1e-6, 1, seed), labels)[0][0]] for seed in range(1000)]
    assert np.mean(np.array(first) == 7) == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 1000))


def test_rows_of_a_class_are_drawn_at_random():
    owners = td.HsuDirichlet(2, 1.0, 500, 0).owners(np.zeros(2000, int))
    for client in range(2):
        assert 180 < (owners[:1000] == client).sum() < 320
        places = np.flatnonzero(owners == client)
        assert len(set(np.diff(places))) > 3


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_first_mixtures_have_the_mean_and_variance_of_the_distribution(alpha):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50_000, 30_000, 20_000]))
    prior = np.array([0.5, 0.3, 0.2])
    shares = np.array(
        [
            np.bincount(labels[split(td.HsuDirichlet(1, alpha, 2000, seed), labels)[0]], minlength=3) / 2000
            for seed in range(400)
        ]
    )
    variance = prior * (1 - prior) / (alpha + 1)
    assert np.allclose(shares.mean(0), prior, atol=5 * np.sqrt(variance.max() / 400))
    assert np.allclose(shares.var(0), variance, rtol=0.25)


def test_clients_draw_independently():
    first, second = [], []
    for seed in range(400):
        parts = split(td.HsuDirichlet(2, 1.0, 50, seed), LABELS % 2)
        first.append((LABELS % 2)[parts[0]].mean())
        second.append((LABELS % 2)[parts[1]].mean())
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(400)


# the two draws


@pytest.mark.parametrize("alpha", [0.01, 0.3, 1.0, 50.0])
def test_logarithms_of_a_dirichlet_draw_have_their_moments(alpha):
    # log q1 - log q2 has mean digamma(a1) - digamma(a2) and variance trigamma(a1) + trigamma(a2)
    prior, rng = np.array([0.7, 0.3]), np.random.default_rng(0)
    draws = np.array([log_dirichlet(alpha, prior, rng) for _ in range(4000)])
    ratio = (draws[:, 0] - draws[:, 1]) / min(alpha, 1)
    a = alpha * prior
    variance = polygamma(1, a).sum()
    assert ratio.mean() == pytest.approx(digamma(a[0]) - digamma(a[1]), abs=5 * np.sqrt(variance / 4000))
    assert ratio.var() == pytest.approx(variance, rel=0.2)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_logarithms_are_finite_and_differ(alpha):
    rng = np.random.default_rng(0)
    for _ in range(50):
        logs = log_dirichlet(alpha, np.array([0.1, 0.2, 0.7]), rng)
        assert np.isfinite(logs).all()
        assert len(set(logs)) == 3


def test_drawing_at_once_is_drawing_one_by_one():
    # exact distribution of the counts, by all sequences of draws
    shares, left = np.array([0.7, 0.2, 0.1]), np.array([2, 1, 3])
    exact = {(0, 0, 0): 1.0}
    for _ in range(4):
        following = {}
        for counts, chance in exact.items():
            possible = np.where(np.array(counts) < left, shares, 0)
            for i in np.flatnonzero(possible):
                more = tuple(np.array(counts) + (np.arange(3) == i))
                following[more] = following.get(more, 0) + chance * possible[i] / possible.sum()
        exact = following
    rng, n_draws = np.random.default_rng(0), 20_000
    found = {}
    for _ in range(n_draws):
        counts = tuple(draw_classes(4, 0.5 * np.log(shares), 0.5, left, rng).tolist())
        found[counts] = found.get(counts, 0) + 1
    assert set(found) <= {tuple(int(c) for c in counts) for counts in exact}
    for counts, chance in exact.items():
        assert found.get(tuple(int(c) for c in counts), 0) / n_draws == pytest.approx(chance, abs=5 * np.sqrt(0.25 / n_draws))


# problems that leave rows out


@pytest.fixture(params=[td.LeastSquares, td.LogisticRegression, td.SoftmaxRegression])
def pair(request):
    """A problem that leaves rows out, and the one of its rows alone."""

    def make(**kwargs):
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(40, 3)), np.arange(40) % 4 // (2 if request.param is td.LogisticRegression else 1)
        partition = td.HsuDirichlet(3, 5.0, 9, 1)
        problem = request.param((X, y), partition, **kwargs)
        order, offsets = partition.split(y)
        owners = np.repeat(np.arange(3), np.diff(offsets))
        return problem, request.param((X[order], y[order]), td.Given(owners), **kwargs)

    return make


@pytest.mark.parametrize("weights", ["equal", "rows"])
def test_rows_that_nobody_owns_are_in_no_sum(pair, weights):
    problem, alone = pair(weights=weights, regularizer=td.L2(0.1))
    x = np.random.default_rng(1).normal(size=(2, problem.dim))
    assert np.allclose(problem.full_gradient(x), alone.full_gradient(x), rtol=1e-12, atol=1e-14)
    measures, expected = problem.measures(x), alone.measures(x)
    assert measures.keys() == expected.keys()
    for name, values in measures.items():
        assert np.allclose(values, expected[name], rtol=1e-12), name
    gradients = sum(problem.weight(i) * problem.gradient(i, x) for i in range(3))
    assert np.allclose(gradients, problem.full_gradient(x), rtol=1e-12, atol=1e-14)
    assert sum(problem.weight(i) for i in range(3)) == pytest.approx(1, rel=1e-12)
    assert problem.smoothness() == pytest.approx(alone.smoothness(), rel=1e-12)
    found, wanted = problem.constants(), alone.constants()
    assert (found.L, found.delta, found.ell) == pytest.approx((wanted.L, wanted.delta, wanted.ell), rel=1e-12)


def test_samples_are_of_a_client_s_own_rows(pair):
    problem, _ = pair(batch=4)
    rng = np.random.default_rng(0)
    for client in range(3):
        own = set(problem.rows_of(client).tolist())
        assert {row for _ in range(50) for row in problem.sample(client, rng).tolist()} == own


class Late(Partition):
    """Two clients that own the last rows, in order."""

    def fields(self):
        return {}

    def owners(self, labels):
        return np.array([-1, -1, 0, 0, 1])


def test_rows_left_out_at_the_beginning_are_left_out():
    problem = td.LeastSquares((np.eye(5), np.arange(5.0)), Late())
    assert [np.arange(5)[problem.rows_of(i)].tolist() for i in range(2)] == [[2, 3], [4]]


def test_owners_by_other_labels_can_be_given():
    X, classes = np.random.default_rng(0).normal(size=(1000, 2)), LABELS
    owners = td.HsuDirichlet(3, 0.001, 90).owners(classes)
    problem = td.LogisticRegression((X, classes < 5), td.Given(owners), weights="rows")
    assert [len(set(classes[problem.rows_of(i)])) for i in range(3)] == [1, 1, 1]
    assert [problem.scale(i) for i in range(3)] == [1, 1, 1]
    arrays = {}
    again = decode(encode(problem, arrays), arrays)
    assert again.fingerprint() == problem.fingerprint()
    with pytest.raises(InvalidInputError, match="clients are all -1: at least one row needs an owner"):
        td.Given([-1, -1])


# bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1.0), "n_clients must be an integer >= 1, not 0"),
        ((3, 0.0), "alpha must be a finite number > 0, not 0.0"),
        ((3, -1), "alpha must be a finite number > 0, not -1"),
        ((3, np.inf), "alpha must be"),
        ((3, 1.0, 0), "rows_per_client must be an integer >= 1, not 0"),
        ((3, 1.0, 2.5), "rows_per_client must be"),
        ((3, 1.0, None, -1), "seed must be an integer >= 0, not -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        td.HsuDirichlet(*arguments)


def test_too_few_rows_are_said():
    with pytest.raises(InvalidInputError, match="4 clients with 3 rows each need more than the 11 rows there are"):
        td.HsuDirichlet(4, 1.0, 3).split(np.zeros(11, int))
    with pytest.raises(InvalidInputError, match="4 clients with 1 rows each need more than the 3 rows there are"):
        td.HsuDirichlet(4, 1.0).split(np.zeros(3, int))


def test_real_targets_are_refused():
    with pytest.raises(InvalidInputError, match="HsuDirichlet shares out classes, but the labels are real numbers"):
        td.HsuDirichlet(2, 1.0).split(np.array([0.5, 1.0]))


@pytest.mark.parametrize("labels", [LABELS.astype(float), LABELS > 4, LABELS.astype(str)], ids=lambda labels: str(labels.dtype))
def test_any_labels_that_are_classes_are_taken(labels):
    assert [len(rows) for rows in split(td.HsuDirichlet(8, 0.1), labels)] == [125] * 8
