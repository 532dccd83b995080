"""Random numbers depend on (seed, domain, index) alone, whoever draws them and when."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Domain, Stream, Uniforms, check_seed, noise_shape


def fresh(index, seed=7, domain=Domain.TASK):
    return Stream(seed, domain).at(index)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 5)), min_size=1, max_size=12))
def test_numbers_of_an_index_do_not_depend_on_what_was_drawn_before(visits):
    stream = Stream(7, Domain.TASK)
    for index, n_draws in visits:
        drawn = stream.at(index).normal(size=n_draws)
        assert np.array_equal(drawn, fresh(index).normal(size=n_draws))


def test_an_index_does_not_inherit_half_a_word_from_the_one_before():
    # a 32-bit draw leaves the other half of a 64-bit word in the generator
    stream = Stream(7, Domain.TASK)
    stream.at(1).integers(0, 2**32, dtype=np.uint32)
    after = stream.at(2).integers(0, 2**32, size=3, dtype=np.uint32)
    assert np.array_equal(after, fresh(2).integers(0, 2**32, size=3, dtype=np.uint32))


def test_going_to_the_same_index_again_begins_anew():
    stream = Stream(7, Domain.TASK)
    first = stream.at(5).random(4)
    assert np.array_equal(stream.at(5).random(4), first)


def test_draws_at_one_index_go_on_without_repeating():
    stream = Stream(7, Domain.TASK).at(5)
    one_by_one = [stream.random() for _ in range(4)]
    assert len(set(one_by_one)) == 4
    assert np.array_equal(one_by_one, fresh(5).random(4))


def test_setting_the_index_is_the_same_as_at():
    stream = Stream(7, Domain.TASK)
    stream.random()
    stream.index = 9
    assert stream.random() == fresh(9).random()


def test_a_new_stream_stands_at_index_0():
    assert Stream(7, Domain.SERVER).random() == fresh(0, domain=Domain.SERVER).random()


def test_a_stream_offers_the_methods_of_a_generator_and_the_generator_itself():
    stream = Stream(7, Domain.TASK)
    for draw in (lambda g: g.permutation(6), lambda g: g.choice(9, 3, replace=False), lambda g: g.dirichlet([1.0, 2.0])):
        assert np.array_equal(draw(stream.at(3)), draw(stream.at(3).generator))
    with pytest.raises(AttributeError):
        stream.no_such_distribution  # noqa: B018


def test_numbers_are_those_of_philox_keyed_by_seed_and_counted_by_index_and_domain():
    # saved runs are replayed from their seed: another keying would silently break all of them
    key = np.random.SeedSequence(7).generate_state(2, np.uint64)
    expected = np.random.Philox(key=key, counter=[0, 0, 11, int(Domain.TIMING)]).random_raw(5)
    drawn = fresh(11, domain=Domain.TIMING).generator.bit_generator.random_raw(5)
    assert np.array_equal(drawn, expected)


def test_numbers_of_domains_never_move():
    assert {domain.name: int(domain) for domain in Domain} == {
        "START": 0,
        "TASK": 1,
        "SERVER": 2,
        "TIMING": 3,
        "PARTITION": 4,
        "PREPARE": 5,
        "AVAILABILITY": 6,
    }


def test_domains_indices_and_seeds_give_uncorrelated_numbers():
    n = 4000
    rows = [fresh(index, seed, domain).normal(size=n) for domain in Domain for index in (0, 1, 2**33) for seed in (0, 1)]
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlations).max() < 6 / np.sqrt(n)
    assert np.abs(np.mean(rows)) < 6 / np.sqrt(n * len(rows))


def test_a_pickled_stream_gives_the_same_numbers_and_keeps_replicas():
    stream = Stream(7, Domain.PREPARE, replicas=3)
    stream.at(4).random(100)
    copy = pickle.loads(pickle.dumps(stream))
    assert (copy.seed, copy.domain, copy.replicas) == (7, Domain.PREPARE, 3)
    for index in (0, 4, 5):
        assert np.array_equal(copy.at(index).random(5), stream.at(index).random(5))


@pytest.mark.parametrize(("replicas", "shape"), [(None, ()), (1, (1,)), (4, (4,))])
def test_noise_shape_is_the_number_of_replicas(replicas, shape):
    assert noise_shape(Stream(0, Domain.TASK, replicas)) == shape


def test_noise_shape_of_a_plain_generator_is_that_of_one_run():
    assert noise_shape(np.random.default_rng(0)) == ()


@pytest.mark.parametrize("seed", [-1, 1.0, 0.5, "1", None, True, np.True_, np.int64(-3), (1, 2)])
@pytest.mark.parametrize(
    "make", [check_seed, lambda seed: Stream(seed, Domain.TASK), lambda seed: Uniforms(seed, Domain.TIMING)]
)
def test_what_is_no_seed_is_refused(make, seed):
    with pytest.raises(InvalidInputError, match="seed must be an integer >= 0, not"):
        make(seed)


@pytest.mark.parametrize("seed", [0, 2**200, np.int32(5), np.uint64(2**63)])
def test_any_integer_from_0_is_a_seed_and_numpy_integers_equal_python_ones(seed):
    assert type(check_seed(seed)) is int
    assert Stream(seed, Domain.TASK).random() == Stream(int(seed), Domain.TASK).random()


def test_seeds_that_differ_in_high_bits_only_differ():
    assert Stream(1, Domain.TASK).random() != Stream(1 + 2**128, Domain.TASK).random()


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.integers(0, 5 * Uniforms.BLOCK), min_size=1, max_size=50))
def test_uniforms_are_equal_in_any_order_of_access(indices):
    asked = Uniforms(3, Domain.TIMING)
    in_order = Uniforms(3, Domain.TIMING)
    expected = {index: in_order(index) for index in sorted(indices)}
    for index in indices:
        assert asked(index) == expected[index]


def test_uniforms_are_equal_after_the_cache_was_exceeded():
    uniforms = Uniforms(3, Domain.TIMING)
    indices = [block * Uniforms.BLOCK + 3 for block in range(Uniforms.KEPT + 6)]
    first = [uniforms(index) for index in indices]
    assert len(set(first)) == len(first)
    assert [uniforms(index) for index in reversed(indices)] == first[::-1]
    assert [Uniforms(3, Domain.TIMING)(index) for index in indices] == first


def test_uniforms_keep_a_bounded_number_of_blocks():
    uniforms = Uniforms(3, Domain.TIMING)
    for block in range(2 * Uniforms.KEPT):
        uniforms(block * Uniforms.BLOCK)
    assert len(uniforms._blocks) <= Uniforms.KEPT


def test_uniforms_are_uniform_and_differ_by_seed_and_domain():
    n = 20_000
    columns = [
        [make(i) for i in range(n)]
        for make in (Uniforms(0, Domain.TIMING), Uniforms(1, Domain.TIMING), Uniforms(0, Domain.TASK))
    ]
    for column in columns:
        assert min(column) >= 0
        assert max(column) < 1
        counts = np.histogram(column, bins=20, range=(0, 1))[0]
        assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 50  # chi squared with 19 degrees of freedom: p = 1e-4
    assert np.abs(np.corrcoef(columns) - np.eye(3)).max() < 6 / np.sqrt(n)
