"""Functions of known minimiser whose gradients workers see with Gaussian noise.

Rules of this file:

- a gradient is exact; its noise is the sample, so one noise can be used at several points;
- replicas with samples of their own are the first axis of iterates, as they are everywhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import Any

import numpy as np

from tardigrad.core.problem import Problem
from tardigrad.core.streams import Rng, noise_shape
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.problems.convex_set import ConvexSet


class NoisyFunction(Problem):
    """Base class: a function of known minimiser and gradient, which workers see with noise N(0, noise^2 I).

    A subclass gives `objective` and `exact_gradient` and sets ``minimiser`` and ``constraint``.

    Parameters
    ----------
    dim : int
        Number of variables.
    noise : float
        Standard deviation of the noise of every component of a gradient, >= 0; 0 makes gradients exact.
    n_clients : int
        Number of workers; each can do every task.

    Attributes
    ----------
    minimiser : array (dim,)
        The only global minimiser on ``constraint``.
    constraint : ConvexSet
        The feasible set.
    """

    shared_data = True
    minimiser: Array
    constraint: ConvexSet

    def __init__(self, dim: int, noise: float, n_clients: int, low: int) -> None:
        self.dim = integer(dim, "dim", low)
        self.noise = number(noise, "noise", low=0.0)
        self.n_clients = integer(n_clients, "n_clients")

    def fields(self) -> dict[str, Any]:
        return {"dim": self.dim, "noise": self.noise, "n_clients": self.n_clients}

    @abstractmethod
    def objective(self, x: Array) -> Array:
        """``f`` at x (..., dim); 0 at the minimiser."""

    @abstractmethod
    def exact_gradient(self, x: Array) -> Array:
        """Gradient of ``f`` at x (..., dim), a new array."""

    def sample(self, client: int, rng: Rng) -> Array | None:
        if not self.noise:
            return None
        values = rng.standard_normal((*noise_shape(rng), self.dim))
        if self.noise != 1.0:
            values *= self.noise
        return values

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        gradient = self.exact_gradient(x)
        if sample is not None:
            if 1 < sample.ndim < x.ndim:  # replicas are the first axis; further axes see the same noise
                sample = sample.reshape(len(sample), *(1,) * (x.ndim - 2), self.dim)
            gradient += sample
        return gradient

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """``objective``, ``distance`` to the minimiser and ``gradient_norm``, without noise."""
        found = {}
        if names is None or "objective" in names:
            found["objective"] = self.objective(x)
        if names is None or "distance" in names:
            found["distance"] = np.linalg.norm(x - self.minimiser, axis=-1)
        if names is None or "gradient_norm" in names:
            found["gradient_norm"] = np.linalg.norm(self.exact_gradient(x), axis=-1)
        return found
