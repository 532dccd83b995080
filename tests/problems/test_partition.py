"""Partitions: every row has one owner, whatever the labels, the numbers and the seed."""

import itertools
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.problems.partition import Dirichlet, Given, Iid, Shards, Shared

#: four classes of unequal size, mixed
LABELS = np.random.default_rng(2).permutation(np.repeat([3, 5, 7, 9], [40, 100, 30, 70]))

COUNTS = st.integers(1, 12)
SEEDS = st.integers(0, 2**70)
PARTITIONS = st.one_of(
    st.builds(Iid, COUNTS, SEEDS),
    st.builds(Dirichlet, COUNTS, st.sampled_from([1e-300, 1e-6, 0.1, 1.0, 1e6, 1e300, 1e308]), SEEDS),
    st.builds(Shards, COUNTS, st.integers(1, 4), SEEDS),
)
CLASSES = st.lists(st.integers(-2, 3), min_size=1, max_size=60).map(np.array)


def split(partition, labels=LABELS):
    """The rows of each client, without the warning about empty ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        order, offsets = partition.split(labels)
    return np.split(order, offsets[1:-1])


def check_split(partition, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        order, offsets = partition.split(labels)
    assert np.array_equal(np.sort(order), np.arange(len(labels)))
    assert offsets[0] == 0
    assert offsets[-1] == len(labels)
    assert (np.diff(offsets) > 0).all()
    for rows in np.split(order, offsets[1:-1]):
        assert (np.diff(rows) > 0).all()


@settings(deadline=None, derandomize=True, max_examples=200)
@given(PARTITIONS, CLASSES)
def test_no_row_is_lost_or_given_twice(partition, labels):
    check_split(partition, labels)
    assert len(split(partition, labels)) <= partition.n_clients


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_a_given_partition_loses_no_row_and_numbers_its_clients_in_order(clients):
    labels = np.zeros(len(clients))
    check_split(Given(clients), labels)
    parts = split(Given(clients), labels)
    assert [set(np.array(clients)[rows]) for rows in parts] == [{client} for client in sorted(set(clients))]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(PARTITIONS, CLASSES)
def test_a_partition_is_a_function_of_its_seed(partition, labels):
    again = decode(json.loads(json.dumps(encode(partition, {}))), {})
    assert again == partition
    assert same_bits(split(again, labels), split(partition, labels))


@pytest.mark.parametrize(
    "make", [lambda seed: Iid(4, seed), lambda seed: Dirichlet(4, 1.0, seed), lambda seed: Shards(4, 2, seed)]
)
def test_another_seed_gives_another_partition(make):
    owners = [tuple(make(seed).owners(LABELS)) for seed in range(5)]
    assert len(set(owners)) == 5


@pytest.mark.parametrize("n_rows", [4, 7, 9, 100])
def test_iid_clients_have_the_same_number_of_rows_up_to_one(n_rows):
    sizes = [len(rows) for rows in split(Iid(4), np.zeros(n_rows))]
    assert len(sizes) == 4
    assert max(sizes) - min(sizes) <= 1


def test_iid_deals_at_random_and_not_by_the_order_of_rows():
    places = np.concatenate([rows / 4000 for rows in split(Iid(2), np.zeros(4000))[:1]])
    assert abs(places.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 2000)
    assert len(set(np.diff(np.sort(places)).round(9))) > 3


def test_one_client_has_all_rows_in_their_order():
    for partition in (Iid(1), Dirichlet(1, 0.5), Shards(1, 3), Given(np.zeros(len(LABELS), int))):
        assert np.array_equal(split(partition)[0], np.arange(len(LABELS)))


@pytest.mark.parametrize("alpha", [1e-6, 1e-300])
def test_a_tiny_alpha_gives_each_class_to_one_client(alpha):
    for seed in range(20):
        owners = Dirichlet(5, alpha, seed).owners(LABELS)
        assert [len(set(owners[label == LABELS])) for label in (3, 5, 7, 9)] == [1, 1, 1, 1]


@pytest.mark.parametrize("alpha", [1e-6, 1e-300])
def test_a_tiny_alpha_favours_no_client(alpha):
    owners = [Dirichlet(4, alpha, seed).owners(LABELS)[0] for seed in range(400)]
    assert (np.bincount(owners, minlength=4) > 60).all()  # 100 expected, 4.6 standard deviations


@pytest.mark.parametrize("alpha", [1e8, 1e300, 1e308])
def test_a_huge_alpha_gives_each_client_the_same_share_of_each_class(alpha):
    owners = Dirichlet(10, alpha).owners(LABELS)
    for label, n_rows in zip((3, 5, 7, 9), (40, 100, 30, 70), strict=True):
        assert np.bincount(owners[label == LABELS], minlength=10).tolist() == [n_rows // 10] * 10


def test_dirichlet_shares_have_the_mean_and_variance_of_the_distribution():
    labels, n_clients, alpha = np.zeros(2000, int), 4, 0.7
    shares = (
        np.array([np.bincount(Dirichlet(n_clients, alpha, seed).owners(labels), minlength=n_clients) for seed in range(800)])
        / 2000
    )
    variance = (1 / 4) * (3 / 4) / (n_clients * alpha + 1)
    assert np.allclose(shares.mean(0), 0.25, atol=5 * np.sqrt(variance / 800))
    assert np.allclose(shares.var(0), variance, rtol=0.2)


def test_dirichlet_shares_of_two_classes_are_independent():
    labels = np.repeat([0, 1], 500)
    owners = np.array([Dirichlet(2, 1.0, seed).owners(labels) for seed in range(400)])
    shares = owners[:, :500].mean(1), owners[:, 500:].mean(1)
    assert abs(np.corrcoef(shares)[0, 1]) < 4 / np.sqrt(400)


def test_dirichlet_rows_of_a_class_are_dealt_at_random_within_it():
    owners = Dirichlet(2, 1e6).owners(np.zeros(1000, int))
    # dealt in order, the first half would be all of one client
    assert 200 < owners[:500].sum() < 300


@pytest.mark.parametrize(
    "labels",
    [LABELS.astype(float), LABELS > 4, LABELS.astype(str), LABELS.astype(np.uint8)],
    ids=lambda labels: str(labels.dtype),
)
def test_dirichlet_takes_any_labels_that_are_classes(labels):
    check_split(Dirichlet(3, 0.5), labels)


def test_dirichlet_refuses_real_targets():
    with pytest.raises(InvalidInputError, match="Dirichlet shares out classes, but the labels are real numbers: use Iid"):
        Dirichlet(3, 0.5).split(np.array([0.5, 1.0]))


@pytest.mark.parametrize(("n_clients", "per_client"), [(4, 2), (5, 3), (12, 1), (3, 7)])
def test_shards_are_equal_runs_of_the_sorted_labels(n_clients, per_client):
    n_shards = n_clients * per_client
    owners = Shards(n_clients, per_client).owners(LABELS)
    in_order = owners[np.argsort(LABELS, kind="stable")]
    ends = np.ceil(np.arange(n_shards + 1) * len(LABELS) / n_shards).astype(int)
    assert set(np.diff(ends)) <= {len(LABELS) // n_shards, len(LABELS) // n_shards + 1}
    shards = [set(in_order[low:high]) for low, high in itertools.pairwise(ends)]
    assert all(len(shard) == 1 for shard in shards)
    assert np.bincount([shard.pop() for shard in shards]).tolist() == [per_client] * n_clients


def test_a_client_with_one_shard_of_equal_classes_sees_one_class():
    labels = np.repeat([0, 1, 2, 3], 25)
    assert sorted(tuple(np.unique(labels[rows])) for rows in split(Shards(4, 1), labels)) == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("partition", "labels", "message"),
    [
        (Iid(5), np.zeros(3), "2 of 5 clients got no rows and are left out: n is 3"),
        (Iid(4), np.zeros(3), "1 of 4 clients got no rows and are left out: n is 3"),
        (Given([0, 0, 3]), np.zeros(3), "2 of 4 clients got no rows and are left out: n is 2"),
        (Shards(6, 1), np.zeros(4), "2 of 6 clients got no rows and are left out: n is 4"),
        (Dirichlet(6, 1e-6), np.zeros(9, int), "5 of 6 clients got no rows and are left out: n is 1"),
    ],
    ids=["Iid", "Iid, one", "Given", "Shards", "Dirichlet"],
)
def test_clients_without_rows_are_left_out_with_a_warning(partition, labels, message):
    with pytest.warns(UserWarning, match=message):
        order, offsets = partition.split(labels)
    assert len(offsets) - 1 == int(message[-1])
    assert np.array_equal(np.sort(order), np.arange(len(labels)))


def test_the_warning_counts_the_clients_of_the_problem():
    with pytest.warns(UserWarning, match="2 of 5 clients"):
        problem = td.LeastSquares((np.eye(3), np.ones(3)), Iid(5))
    assert problem.n_clients == 3


def test_a_split_without_empty_clients_warns_of_nothing():
    for partition in (Iid(4), Shards(4), Given(LABELS // 2 % 2), Dirichlet(2, 1e3)):
        partition.split(LABELS)


def test_rows_of_a_shared_partition_have_no_owner():
    with pytest.raises(TypeError, match="no single owner"):
        Shared(3).split(LABELS)


def test_given_must_name_the_client_of_each_row():
    with pytest.raises(InvalidInputError, match="clients has 2 entries for 3 rows"):
        Given([0, 1]).split(np.zeros(3))


@pytest.mark.parametrize(
    "clients", [[], [[0, 1]], [0.0, 1.0], [True, False], ["a"], 3, None, [0, None], [[0], [1, 2]]], ids=repr
)
def test_given_refuses_what_are_no_client_numbers(clients):
    with pytest.raises(InvalidInputError, match="clients must be a 1-d array"):
        Given(clients)


def test_given_names_a_negative_client():
    with pytest.raises(InvalidInputError, match="-2"):
        Given([0, -2])


@pytest.mark.parametrize("n_clients", [0, -1, 2.0, True, "3", None])
@pytest.mark.parametrize(
    "make", [Iid, lambda n: Dirichlet(n, 1.0), Shards, Shared], ids=["Iid", "Dirichlet", "Shards", "Shared"]
)
def test_a_number_of_clients_is_an_integer_from_1(make, n_clients):
    with pytest.raises(InvalidInputError, match="n_clients must be an integer >= 1, not"):
        make(n_clients)


def test_numpy_integers_are_integers():
    assert len(split(Iid(np.int64(3)))) == 3
    assert len(split(Shards(np.int64(3), np.int64(2)))) == 3


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan, np.inf, "small", None])
def test_dirichlet_refuses_a_concentration_that_is_not_positive(alpha):
    with pytest.raises(InvalidInputError, match="alpha must be a finite number > 0, not"):
        Dirichlet(3, alpha)


@pytest.mark.parametrize("per_client", [0, -1, 1.5, "2", None])
def test_shards_refuse_a_number_per_client_that_is_no_integer_from_1(per_client):
    with pytest.raises(InvalidInputError, match="per_client must be an integer >= 1, not"):
        Shards(3, per_client)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
@pytest.mark.parametrize(
    "make", [lambda seed: Iid(2, seed), lambda seed: Dirichlet(2, 1.0, seed), lambda seed: Shards(2, 2, seed)]
)
def test_a_bad_seed_is_refused(make, seed):
    with pytest.raises(InvalidInputError, match="seed must be an integer >= 0"):
        make(seed).split(LABELS)


def test_a_given_partition_comes_back_from_json():
    arrays = {}
    back = decode(json.loads(json.dumps(encode(Given([2, 0, 1, 1]), arrays))), arrays)
    assert same_bits(back, Given([2, 0, 1, 1]))
