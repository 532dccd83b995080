"""Parameters and weak rate of the accelerated method."""

import numpy as np
import pytest

from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.accelerated import accelerated_parameters


def radius(omega, gamma, lam):
    """The largest root's modulus, from the companion matrix."""
    s = 1 - omega * lam
    return np.abs(np.linalg.eigvals(np.array([[gamma * s, (1 - gamma) * s], [1.0, 0.0]]))).max()


@pytest.mark.parametrize("ends", [(1e-4, 0.9), (0.01, 0.25), (0.1, 0.1), (0.3, 1.0)])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_no_eigenvalue_decays_slower_and_the_smallest_no_faster(ends, share):
    found = accelerated_parameters(*ends, omega=share / ends[1])
    for lam in np.linspace(*ends, 50):
        assert radius(found.omega, found.gamma, lam) <= found.rate + 1e-6  # a double root is known to half the digits
    assert radius(found.omega, found.gamma, ends[0]) == pytest.approx(found.rate, abs=1e-6)


@pytest.mark.parametrize("ends", [(1e-3, 0.9), (0.01, 0.25)])
def test_no_other_gamma_is_better_and_no_other_omega(ends):
    found = accelerated_parameters(*ends)
    grid = np.linspace(*ends, 30)
    for gamma in np.linspace(0.5, 1.99, 60):
        assert max(radius(found.omega, gamma, lam) for lam in grid) >= found.rate - 1e-9
    rates = [accelerated_parameters(*ends, omega=share / ends[1]).rate for share in (0.1, 0.5, 0.9, 1.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == found.rate == pytest.approx(1 - np.sqrt(ends[0] / ends[1]))


def test_one_eigenvalue_is_done_in_one_step():
    found = accelerated_parameters(0.2, 0.2)
    assert (found.omega, found.gamma, found.rate) == (5.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0.0, 0.5), "lambda_min"), ((0.6, 0.5), "lambda_min"), ((0.1, 0.5, 2.1), "omega"), ((0.1, 0.5, 0.0), "omega")],
)
def test_arguments_out_of_range_are_named(arguments, name):
    with pytest.raises(InvalidInputError, match=name):
        accelerated_parameters(*arguments)
