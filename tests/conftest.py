"""What all tests share: nothing is left behind by any of them."""

import os
import warnings

import numpy as np
import pytest

import tardigrad as td


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """No test leaves a child process or an open descriptor."""
    descriptors = _open_descriptors()
    yield
    left = _children()
    assert not left, f"processes left behind: {left}"
    assert _open_descriptors() <= descriptors + 4, "descriptors left open"


@pytest.fixture
def small_problem():
    """Least squares over four clients with noise in the gradients."""
    return make_problem()


def make_problem(**kwargs):
    """Least squares over four clients; keyword arguments as for LeastSquares."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(48, 5))
    y = X @ rng.normal(size=5) + 0.1 * rng.normal(size=48)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return td.LeastSquares((X, y), td.Iid(4), **{"batch": 3, **kwargs})


def _children():
    """Command lines of this process's children that are not its own forks (pytest has none)."""
    try:
        with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
            return file.read().split()
    except OSError:
        return []


def _open_descriptors():
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
