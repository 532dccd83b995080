"""Functions that the examples name, where a user would name his own in a file."""

from __future__ import annotations

import numpy as np

from tardigrad.core.task import Array

#: what the points of `gradient` are drawn around
_CENTRE = np.linspace(-1.0, 1.0, 10)


def gradient(x: Array, rng: np.random.Generator) -> Array:
    """A stochastic gradient of `objective`: at one random point near the centre. All its randomness comes from `rng`."""
    return x - (_CENTRE + 0.1 * rng.standard_normal(len(x)))


def objective(x: Array) -> float:
    """Half the squared distance to the centre."""
    return float(np.sum((x - _CENTRE) ** 2)) / 2
