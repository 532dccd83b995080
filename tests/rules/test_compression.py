"""Compressors: unbiased, with the variance that they say, exact where they can be, and a function of the rng alone."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.core.streams import Domain, Stream

COMPRESSORS = [td.RandomK(1), td.RandomK(3), td.RandomK(6), td.Quantization(1), td.Quantization(4), td.Quantization(300)]
VECTOR = np.array([3.0, -0.5, 0.0, 1.0, -7.0, 0.01])

all_compressors = pytest.mark.parametrize("compressor", COMPRESSORS, ids=repr)
all_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def there_and_back(compressor, vector, rng):
    return compressor.expand(compressor.compress(vector, rng), vector.shape[-1], vector.dtype)


def draws(compressor, vector, n_draws=20_000):
    """Independent results for one vector, as replicas."""
    rng = Stream(5, Domain.TASK, replicas=n_draws)
    return there_and_back(compressor, np.broadcast_to(vector, (n_draws, len(vector))), rng)


# mean and variance


@all_compressors
@all_types
def test_the_mean_is_the_vector(compressor, dtype):
    found = draws(compressor, VECTOR.astype(dtype)).astype(float)
    errors = np.abs(found.mean(0) - VECTOR.astype(dtype))
    assert (errors <= 5 * found.std(0) / np.sqrt(len(found)) + 1e-6).all()


@all_compressors
def test_the_variance_is_within_its_factor(compressor):
    for vector in (VECTOR, np.ones(6), np.eye(6)[2], np.array([1.0, 1, 1, 1, 1, 1e-8])):
        found = draws(compressor, vector, 4000)
        squares = ((found - vector) ** 2).sum(1)
        limit = compressor.omega(6) * (vector @ vector)
        assert squares.mean() <= limit + 5 * squares.std() / np.sqrt(4000) + 1e-12


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_the_factor_of_random_coordinates_is_attained_by_every_vector(k):
    compressor = td.RandomK(k)
    for vector in (VECTOR, np.ones(6), np.eye(6)[2]):
        # exactly, over all sets of k coordinates
        sets = list(itertools.combinations(range(6), k))
        squares = [sum(v**2 * ((6 / k - 1) ** 2 if i in kept else 1) for i, v in enumerate(vector)) for kept in sets]
        assert np.mean(squares) == pytest.approx(compressor.omega(6) * (vector @ vector), rel=1e-12)
        found = ((draws(compressor, vector) - vector) ** 2).sum(1)
        assert found.mean() == pytest.approx(np.mean(squares), abs=5 * found.std() / np.sqrt(len(found)) + 1e-12)


@pytest.mark.parametrize("levels", [1, 2, 7])
def test_the_variance_of_quantisation_is_that_of_its_coordinates(levels):
    size = np.abs(VECTOR) / np.linalg.norm(VECTOR) * levels
    part = size - np.floor(size)
    expected = (part * (1 - part)).sum() * (VECTOR @ VECTOR) / levels**2
    found = ((draws(td.Quantization(levels), VECTOR) - VECTOR) ** 2).sum(1)
    assert found.mean() == pytest.approx(expected, abs=5 * found.std() / np.sqrt(len(found)))
    assert expected <= td.Quantization(levels).omega(6) * (VECTOR @ VECTOR)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 50), st.integers(1, 200), st.integers(0, 2**32))
def test_no_vector_exceeds_the_factor_of_quantisation(levels, dim, seed):
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=dim) * rng.choice([1e-3, 1.0, 1e3], dim)
    size = np.abs(vector) / np.linalg.norm(vector) * levels
    part = size - np.floor(size)
    assert (part * (1 - part)).sum() / levels**2 <= td.Quantization(levels).omega(dim) * (1 + 1e-12)


def test_factors():
    assert td.RandomK(3).omega(12) == 3
    assert td.RandomK(12).omega(12) == 0
    assert td.Quantization(1).omega(9) == 3
    assert td.Quantization(2).omega(9) == 1.5
    assert td.Quantization(10).omega(9) == 0.09


# exact cases


@all_types
def test_all_coordinates_are_the_vector_bit_for_bit(dtype):
    vector = np.random.default_rng(0).normal(size=(3, 9)).astype(dtype)
    assert same_bits(there_and_back(td.RandomK(9), vector, np.random.default_rng(1)), vector)


@all_compressors
@all_types
def test_zero_stays_zero(compressor, dtype):
    for shape in ((6,), (3, 6)):
        found = there_and_back(compressor, np.zeros(shape, dtype), np.random.default_rng(0))
        assert same_bits(found, np.zeros(shape, dtype))


@pytest.mark.parametrize("levels", [1, 3, 127, 128, 10**6, 2**31 - 1])
@all_types
def test_a_single_coordinate_is_quantised_exactly(levels, dtype):
    for value in (0.1, -3.7, 1e-30, 1e30):
        vector = np.array([0, value, 0], dtype)
        assert np.array_equal(there_and_back(td.Quantization(levels), vector, np.random.default_rng(0)), vector)


def test_many_levels_change_little():
    found = there_and_back(td.Quantization(10**8), VECTOR, np.random.default_rng(0))
    assert np.allclose(found, VECTOR, rtol=0, atol=1e-8 * np.linalg.norm(VECTOR))


def test_values_are_kept_coordinates_times_the_factor():
    values, places = td.RandomK(2).compress(VECTOR, np.random.default_rng(0))
    assert len(set(places.tolist())) == 2
    assert np.array_equal(values, VECTOR[places] * 3)
    expanded = td.RandomK(2).expand((values, places), 6, np.dtype(float))
    assert np.array_equal(expanded[places], values)
    assert np.count_nonzero(expanded) == np.count_nonzero(values)


def test_every_set_of_coordinates_is_equally_likely():
    places = td.RandomK(2).compress(np.zeros((6000, 4)), Stream(0, Domain.TASK, replicas=6000))[1]
    sets, counts = np.unique(np.sort(places, axis=1), axis=0, return_counts=True)
    assert len(sets) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 25  # chi-square with 5 degrees of freedom


@all_types
def test_no_level_exceeds_their_number(dtype):
    rng = np.random.default_rng(0)
    vectors = np.concatenate([np.ones((4000, 1)), rng.normal(size=(4000, 3)) * 10.0 ** rng.uniform(-9, -3, (4000, 1))], axis=1)
    vectors = (vectors * rng.uniform(0.1, 1, (4000, 1))).astype(dtype)
    for levels in (127, 32767):
        found, norms = td.Quantization(levels).compress(vectors, rng)
        assert (norms >= np.abs(vectors).max(1)).all()
        assert (np.abs(found[:, 0]) >= levels - 1).all()
        assert (found[:, 0] > 0).all()


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_norms_neither_overflow_nor_vanish(scale):
    found = there_and_back(td.Quantization(100), VECTOR * scale, np.random.default_rng(0)) / scale
    assert np.allclose(found, VECTOR, atol=np.linalg.norm(VECTOR) / 99)


def test_float32_vectors_near_the_limit_of_their_type():
    vector = np.full(4, 1e38, np.float32)
    assert np.allclose(there_and_back(td.Quantization(100), vector, np.random.default_rng(0)), 1e38, rtol=0.03)
    vector = np.full(4, 3e38, np.float32)  # the norm is no float32
    assert np.isnan(there_and_back(td.Quantization(100), vector, np.random.default_rng(0))).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_by_the_receiver(value):
    vector = np.array([[1.0, value, 2.0], [1.0, 2.0, 3.0]])
    found = there_and_back(td.Quantization(4), vector, np.random.default_rng(0))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    found = there_and_back(td.RandomK(3), vector, np.random.default_rng(0))
    assert np.array_equal(found, vector, equal_nan=True)


# what is sent


@all_types
def test_sizes_of_payloads(dtype):
    vector = np.ones(1000, dtype)
    values, places = td.RandomK(10).compress(vector, np.random.default_rng(0))
    assert (values.dtype, places.dtype) == (dtype, np.int32)
    assert values.nbytes + places.nbytes == 10 * (4 + vector.itemsize)
    for levels, size in ((1, 1), (127, 1), (128, 2), (32767, 2), (32768, 4)):
        found, norm = td.Quantization(levels).compress(vector, np.random.default_rng(0))
        assert found.nbytes + norm.nbytes == 1000 * size + vector.itemsize
        assert norm.dtype == dtype
        assert np.abs(found).max() <= levels


def test_places_of_very_long_vectors_are_64_bits():
    vector = np.broadcast_to(np.zeros(1, np.float32), 2**31)
    assert td.RandomK(3).compress(vector, np.random.default_rng(0))[1].dtype == np.int64


@all_compressors
@all_types
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_shapes_and_precision_come_back(compressor, dtype, lead):
    vector = np.random.default_rng(0).normal(size=(*lead, 6)).astype(dtype)
    for rng in (np.random.default_rng(0), Stream(0, Domain.TASK, replicas=lead[0] if lead else None)):
        payload = compressor.compress(vector, rng)
        assert all(isinstance(part, np.ndarray) for part in payload)
        found = compressor.expand(payload, 6, vector.dtype)
        assert (found.shape, found.dtype) == (vector.shape, dtype)


def test_a_payload_can_be_expanded_in_another_precision():
    for compressor in COMPRESSORS:
        payload = compressor.compress(VECTOR, np.random.default_rng(0))
        narrow, wide = (compressor.expand(payload, 6, np.dtype(kind)) for kind in (np.float32, np.float64))
        assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
        assert np.allclose(narrow, wide, rtol=1e-6)


@all_compressors
def test_neither_way_changes_its_input(compressor):
    vector = VECTOR.copy()
    payload = compressor.compress(vector, np.random.default_rng(0))
    kept = [part.copy() for part in payload]
    compressor.expand(payload, 6, vector.dtype)[...] = 5
    assert same_bits(vector, VECTOR)
    assert same_bits(list(payload), kept)


# randomness


@all_compressors
def test_the_rng_alone_decides(compressor):
    stream = Stream(7, Domain.TASK)
    first = compressor.compress(VECTOR, stream.at(3))
    np.random.default_rng().normal()
    compressor.compress(VECTOR, stream.at(4))
    assert same_bits(compressor.compress(VECTOR, stream.at(3)), first)
    if compressor not in (td.RandomK(6), td.Quantization(300)):
        others = [compressor.expand(compressor.compress(VECTOR, stream.at(i)), 6, VECTOR.dtype).tobytes() for i in range(20)]
        assert len(set(others)) > 1


@pytest.mark.parametrize("compressor", [td.RandomK(2), td.Quantization(3)], ids=repr)
def test_replicas_have_noise_of_their_own_and_sweeps_share_it(compressor):
    vector = np.broadcast_to(VECTOR, (40, 5, 6))
    found = there_and_back(compressor, vector, Stream(0, Domain.TASK, replicas=40))
    assert (found == found[:, :1]).all()
    assert len(np.unique(found[:, 0], axis=0)) > 5
    found = there_and_back(compressor, vector, Stream(0, Domain.TASK))
    assert (found == found[0, 0]).all()


@all_compressors
def test_compressors_are_plain_data(compressor):
    assert decode(json.loads(json.dumps(encode(compressor, {}))), {}) == compressor


# bad input


@pytest.mark.parametrize("value", [0, -1, 2.0, True, None, "3"])
def test_bad_numbers_are_named(value):
    with pytest.raises(InvalidInputError, match=r"RandomK\.k must be an integer >= 1"):
        td.RandomK(value)
    with pytest.raises(InvalidInputError, match=r"Quantization\.levels must be an integer between 1 and 2147483647"):
        td.Quantization(value)


def test_too_many_levels_are_refused():
    with pytest.raises(InvalidInputError, match=r"Quantization\.levels"):
        td.Quantization(2**31)


def test_more_coordinates_than_there_are_cannot_be_kept():
    with pytest.raises(InvalidInputError, match=r"RandomK\(7\) cannot keep 7 coordinates of 6: choose k from 1 to 6"):
        td.RandomK(7).compress(VECTOR, np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match="choose k from 1 to 6"):
        td.RandomK(7).omega(6)


def test_a_factor_needs_a_length():
    for compressor in (td.RandomK(1), td.Quantization(1)):
        with pytest.raises(InvalidInputError, match="dim must be an integer >= 1, not 0"):
            compressor.omega(0)
