"""Step sizes: numbers, arrays for sweeps, and sequences."""

import json

import numpy as np
import pytest

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.core.steps import PowerStep, check_step, step_at, step_shape


@pytest.mark.parametrize(
    ("sequence", "n", "expected"),
    [
        (PowerStep(2.0), 0, 2.0),
        (PowerStep(2.0), 3, 0.5),
        (PowerStep(1.0, power=0.5), 8, 1 / 3),
        (PowerStep(3.0, power=2.0, offset=0.5), 1, 3 / 2.25),
        (PowerStep(0.3, power=0.0), 10**9, 0.3),
    ],
)
def test_power_step_is_scale_over_n_plus_offset_to_the_power(sequence, n, expected):
    assert sequence(n) == pytest.approx(expected, rel=1e-15)


def test_an_array_of_scales_gives_an_array_of_steps():
    sequence = PowerStep(np.array([1.0, 4.0]), power=0.5)
    assert sequence.shape == (2,)
    assert np.allclose(sequence(3), [0.5, 2.0], rtol=1e-15)


def test_a_list_of_scales_does_the_same_as_an_array():
    sequence = PowerStep([1.0, 4.0], power=0.5)
    assert sequence.shape == (2,)
    assert np.allclose(sequence(3), [0.5, 2.0], rtol=1e-15)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, "fast", None, [], [1.0, -1.0], np.array([[0.1, np.nan]])])
def test_power_step_refuses_a_scale_that_is_not_positive_and_finite(scale):
    with pytest.raises(InvalidInputError, match=r"PowerStep\.scale must be a positive number"):
        PowerStep(scale)


@pytest.mark.parametrize("power", [-0.5, np.nan, np.inf, "half", None])
def test_power_step_refuses_a_bad_power(power):
    with pytest.raises(InvalidInputError, match=r"PowerStep\.power must be a finite number >= 0, not"):
        PowerStep(1.0, power=power)


@pytest.mark.parametrize("offset", [0.0, -1.0, np.nan, np.inf, "one", None])
def test_power_step_refuses_a_bad_offset(offset):
    with pytest.raises(InvalidInputError, match=r"PowerStep\.offset must be a finite number > 0, not"):
        PowerStep(1.0, offset=offset)


def test_power_step_refuses_a_sequence_as_its_scale():
    with pytest.raises(InvalidInputError, match=r"PowerStep\.scale must be a positive number or an array of them, not"):
        PowerStep(PowerStep(1.0))


@pytest.mark.parametrize("step", [0.5, 2, np.float32(0.5), np.int64(2), np.array(0.5)])
def test_check_step_gives_numbers_as_plain_floats(step):
    checked = check_step(step)
    assert type(checked) is float
    assert checked == step


@pytest.mark.parametrize("step", [[0.1, 2.0], (0.1, 2.0), np.array([0.1, 2.0]), np.ones((2, 3), np.float32)])
def test_check_step_gives_arrays_of_its_own(step):
    checked = check_step(step)
    assert checked.dtype == float
    assert np.array_equal(checked, step)
    assert not np.shares_memory(checked, step)


def test_check_step_gives_sequences_as_they_are():
    sequence = PowerStep(1.0)
    assert check_step(sequence) is sequence


@pytest.mark.parametrize(
    "step", [0, -0.1, np.nan, np.inf, True, "0.1", "a", None, 1j, {}, np.array([]), [0.1, 0.0], lambda n: 0.1]
)
def test_check_step_refuses_everything_else_and_names_it(step):
    with pytest.raises(InvalidInputError, match="eta must be a positive number, an array of them or a StepSequence, not"):
        check_step(step, "eta")


@pytest.mark.parametrize(
    ("step", "shape"),
    [(0.1, ()), (np.ones(3), (3,)), (np.ones((2, 3)), (2, 3)), (PowerStep(1.0), ()), (PowerStep(np.ones(4)), (4,))],
)
def test_step_shape_is_the_leading_shape_of_a_sweep(step, shape):
    assert step_shape(step) == shape


@pytest.mark.parametrize("step", [np.array([[0.5, 1.0, 2.0]]), PowerStep(np.array([[0.5, 1.0, 2.0]]) * 4, offset=1.0)])
def test_step_at_gives_arrays_the_axis_of_the_iterate(step):
    value = step_at(step, 3 if isinstance(step, PowerStep) else 0)
    product = value * np.ones((1, 3, 5))
    assert product.shape == (1, 3, 5)
    assert np.allclose(product[0, :, 4], [0.5, 1.0, 2.0])


def test_step_at_of_a_number_ignores_the_update_and_of_a_sequence_does_not():
    assert step_at(0.25, 17) == 0.25
    assert step_at(PowerStep(1.0), 3) == 0.25


@pytest.mark.parametrize("sequence", [PowerStep(0.1, 0.75, 3.0), PowerStep(np.array([0.1, 0.2]))])
def test_a_sequence_comes_back_from_json_with_the_same_bits(sequence):
    arrays = {}
    text = json.dumps(encode(sequence, arrays))
    back = decode(json.loads(text), arrays)
    assert type(back) is PowerStep
    assert same_bits(back, sequence)
