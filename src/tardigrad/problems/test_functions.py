"""Constrained non-convex problems with known minimisers, and Gaussian noise on their gradients.

Variational coherence (VC) is ``<grad f(x), x - x*> >= 0`` on the feasible set, with equality at minimisers only: then
dual averaging converges however late its gradients come (Zhou et al. 2018, Theorem 4.6). `Ridges` has it by proof,
`SigmoidRegression` too, and `Quadratic` as all convex functions; `Rosenbrock` and `DoubleWell` have it not.

Rules of this file:

- what noise does stands once, in `noisy_function`;
- gradients are the hot path of long runs of many replicas: few NumPy calls, each on all replicas, in arrays of the call.

References
----------
Zhou, Mertikopoulos, Bambos, Glynn, Ye, Li, Fei-Fei, "Distributed asynchronous optimization with unbounded delays: how slow
can you go?", ICML 2018. Zhou, Mertikopoulos, Bambos, Boyd, Glynn, "Stochastic mirror descent for variationally coherent
optimization problems", NIPS 2017 (2017a there).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.noisy_function import NoisyFunction
from tardigrad.problems.projections import Ball, Box


class Rosenbrock(NoisyFunction):
    """The Rosenbrock function (5.1) on the box [0, 2]^dim, with its minimiser (1, ..., 1).

    ``f(x) = sum over i < dim of 100 (x[i+1] - x[i]^2)^2 + (1 - x[i])^2``. Zhou et al. run it with 101 variables and noise 1.

    Parameters
    ----------
    dim : int
        Number of variables, >= 2.
    noise, n_clients
        As for `NoisyFunction`.

    Notes
    -----
    It is not variationally coherent on the box, unlike what the paper says: with two variables
    ``<grad f(x), x - x*> = 2 - 50 = -48`` at (0, 1/2); with 101 it falls to -1496.17, where 0 and .352 take turns.
    `tardigrad.diagnostics.coherence.problem_coherence` finds both points.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Rosenbrock(dim=3)
    >>> float(problem.objective(np.array([1.0, 1.0, 2.0]))), problem.gradient(0, np.ones(3)).tolist()
    (100.0, [0.0, 0.0, 0.0])
    """

    def __init__(self, dim: int = 101, noise: float = 1.0, n_clients: int = 1) -> None:
        super().__init__(dim, noise, n_clients, low=2)
        self.minimiser = np.ones(self.dim)
        self.constraint = Box(0.0, 2.0)

    def objective(self, x: Array) -> Array:
        left = x[..., :-1]
        return np.sum(100 * (x[..., 1:] - left * left) ** 2 + (1 - left) ** 2, axis=-1)

    def exact_gradient(self, x: Array) -> Array:
        flat = x.ravel()  # all replicas as one vector: 2.6 times as fast as row by row for 100 of them
        left = flat[:-1]
        gap = left * left
        np.subtract(flat[1:], gap, out=gap)
        gap *= 200
        gradient = np.empty_like(flat)  # gradient[i] = 2 (x[i] (1 - gap[i]) - 1) + gap[i-1]
        part = gradient[:-1]
        np.subtract(1, gap, out=part)
        part *= left
        part -= 1
        part *= 2
        gradient[self.dim - 1 :: self.dim] = 0  # the last variable of a replica has no gap to the first of the next
        gap[self.dim - 1 :: self.dim] = 0
        gradient[1:] += gap
        return gradient.reshape(x.shape)


class Quadratic(NoisyFunction):
    """``f(x) = sum_i eigenvalues[i] (x[i] - minimiser[i])^2 / 2`` on a ball around the origin; convex.

    Parameters
    ----------
    eigenvalues : array (dim,)
        Positive; the largest is the gradient's Lipschitz constant.
    minimiser : array (dim,), optional
        A point of the ball; by default that in the direction (1, ..., 1) half-way to its boundary.
    radius : float
        Of the ball.
    noise, n_clients
        As for `NoisyFunction`.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Quadratic([1.0, 4.0], minimiser=[0.0, 0.5])
    >>> float(problem.objective(np.zeros(2))), problem.gradient(0, np.zeros(2)).tolist()
    (0.5, [0.0, -2.0])
    """

    def __init__(
        self, eigenvalues: Any, minimiser: Any = None, radius: float = 1.0, noise: float = 1.0, n_clients: int = 1
    ) -> None:
        self.eigenvalues = _vector(eigenvalues, "eigenvalues")
        super().__init__(len(self.eigenvalues), noise, n_clients, low=1)
        if not (self.eigenvalues > 0).all():
            raise InvalidInputError(f"eigenvalues must be positive, not {self.eigenvalues.min():g}")
        ball = Ball(radius)
        self.constraint, self.radius = ball, ball.radius
        middle = np.full(self.dim, ball.radius / 2 / np.sqrt(self.dim))
        self.minimiser = middle if minimiser is None else _vector(minimiser, "minimiser")
        if self.minimiser.shape != (self.dim,) or not self.constraint.contains(self.minimiser):
            raise InvalidInputError(f"minimiser must be {self.dim} numbers within the ball of radius {radius:g}")

    def fields(self) -> dict[str, Any]:
        mine = {"eigenvalues": self.eigenvalues, "minimiser": self.minimiser, "radius": self.radius}
        return {**mine, "noise": self.noise, "n_clients": self.n_clients}

    def objective(self, x: Array) -> Array:
        return np.sum(self.eigenvalues * (x - self.minimiser) ** 2, axis=-1) / 2

    def exact_gradient(self, x: Array) -> Array:
        gradient = x - self.minimiser
        gradient *= self.eigenvalues
        return gradient


def _vector(value: Any, name: str) -> Array:
    """A vector of finite numbers."""
    try:
        found = np.array(value, float)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise InvalidInputError(f"{name} must be a vector of finite numbers, not {value!r}")
    return found


class Ridges(NoisyFunction):
    """Ridges and valleys that run into the minimiser, the origin, on the unit disc; variationally coherent.

    ``f = (3 + sin 5 theta + cos 3 theta) r^2 (5/3 - r)`` in polar coordinates (r, theta), after Zhou et al. (2017a). It is
    not convex: along a circle it rises and falls five times.

    Parameters
    ----------
    noise, n_clients
        As for `NoisyFunction`.

    Notes
    -----
    Coherence: ``<grad f(x), x> = r df/dr = (3 + sin 5 theta + cos 3 theta) r^2 (10/3 - 3 r) >= r^2/3`` on the disc, since
    the first factor is at least 1 and the last at least 1/3. So it is zero at the origin only.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Ridges(noise=0.0)
    >>> x = np.array([0.6, 0.0])  # there the first factor is 4
    >>> round(float(problem.objective(x)), 12), round(float(problem.gradient(0, x) @ x), 12)
    (1.536, 2.208)
    """

    def __init__(self, noise: float = 1.0, n_clients: int = 1) -> None:
        super().__init__(2, noise, n_clients, low=2)
        self.minimiser = np.zeros(2)
        self.constraint = Ball(1.0)

    def fields(self) -> dict[str, Any]:
        return {"noise": self.noise, "n_clients": self.n_clients}

    def x0(self) -> Array:
        """A point between two valleys, on the disc's edge."""
        return np.array([0.0, 1.0])

    def objective(self, x: Array) -> Array:
        radius, angle = np.hypot(x[..., 0], x[..., 1]), np.arctan2(x[..., 1], x[..., 0])
        return (3 + np.sin(5 * angle) + np.cos(3 * angle)) * radius**2 * (5 / 3 - radius)

    def exact_gradient(self, x: Array) -> Array:
        radius, angle = np.hypot(x[..., 0], x[..., 1]), np.arctan2(x[..., 1], x[..., 0])
        outward = (3 + np.sin(5 * angle) + np.cos(3 * angle)) * radius * (10 / 3 - 3 * radius)
        around = (5 * np.cos(5 * angle) - 3 * np.sin(3 * angle)) * radius * (5 / 3 - radius)
        cosine, sine = np.cos(angle), np.sin(angle)
        return np.stack([outward * cosine - around * sine, outward * sine + around * cosine], axis=-1)


class DoubleWell(NoisyFunction):
    """Two wells along the first variable, the deeper one at 1, the other at -1; not variationally coherent.

    ``f(x) = w(x[0]) + (x[1]^2 + ... + x[dim-1]^2) / 2`` on the box [-2, 2]^dim, with ``w'(u) = (u - 1) (u + 1) (u - b)``
    and the barrier b = -1/8. Descent from the left of the barrier ends in the wrong well, ``trap``, however its delays are.

    Parameters
    ----------
    dim : int
        Number of variables, >= 1.
    noise, n_clients
        As for `NoisyFunction`.

    Attributes
    ----------
    trap : array (dim,)
        The local minimiser that is not the global one.

    Notes
    -----
    ``<grad f(x), x - x*> = (u - 1)^2 (u + 1) (u - b) + x[1]^2 + ...`` with u = x[0]: negative where -1 < u < b and the
    other variables are small.

    Examples
    --------
    >>> import numpy as np
    >>> problem = DoubleWell(dim=2)
    >>> problem.exact_gradient(problem.trap).tolist(), round(float(problem.objective(problem.trap)), 12)
    ([0.0, 0.0], 0.166666666667)
    """

    BARRIER = -0.125

    def __init__(self, dim: int = 10, noise: float = 1.0, n_clients: int = 1) -> None:
        super().__init__(dim, noise, n_clients, low=1)
        self.minimiser = np.eye(1, self.dim)[0]
        self.trap = np.where(self.minimiser > 0, -1.0, 0.0)
        self.constraint = Box(-2.0, 2.0)

    def objective(self, x: Array) -> Array:
        u, b = x[..., 0], self.BARRIER
        well = u**4 / 4 - b * u**3 / 3 - u**2 / 2 + b * u + (1 / 4 - 2 * b / 3)
        return well + np.sum(x[..., 1:] ** 2, axis=-1) / 2

    def exact_gradient(self, x: Array) -> Array:
        gradient = x.copy()
        u = x[..., 0]
        gradient[..., 0] = (u - 1) * (u + 1) * (u - self.BARRIER)
        return gradient
