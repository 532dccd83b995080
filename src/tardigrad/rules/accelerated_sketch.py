"""Richtarik and Takac's accelerated sketch-and-project method.

Rules of this file: those of `sketch_project`, whose basic method this is for gamma = 1, bit for bit. What the server does with
the last two replies is an affine combination, not a convex one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, State, scratch_field
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Reply
from tardigrad.rules.gradient_descent import check_shape
from tardigrad.rules.sketch_steps import NO_STALENESS, MixingRule, joint_shape, share_of, start_of, take


@dataclass(slots=True, kw_only=True)
class AcceleratedSketchState(State):
    """State of `AcceleratedSketchProject`: the step computed last."""

    n_clients: int
    previous: Array | None = None
    scratch: tuple[Array | None, Any, Any] | None = scratch_field()


@dataclass(frozen=True)
class AcceleratedSketchProject(MixingRule[AcceleratedSketchState]):
    """Richtarik and Takac's accelerated method, which extrapolates from two steps in a row.

    ``z[k] = x[k] - omega grad f_{S[k]}(x[k])``, ``x[k+1] = gamma z[k] + (1 - gamma) z[k-1]``, and ``x[1] = z[0]``.

    Parameters
    ----------
    omega : float or array
        Step size, ``> 0``; an array runs one replica for each entry.
    gamma : float or array
        Weight of the newer step in (0, 2); 1 is the basic method.

    Notes
    -----
    What is accelerated is the expected error. In an eigenvector of ``W = B^-1/2 E[Z] B^-1/2`` to the eigenvalue lambda,
    with ``s = 1 - omega lambda``, it obeys ``p[k+1] = gamma s p[k] + (1 - gamma) s p[k-1]``, whose characteristic polynomial
    is ``r^2 - gamma s r - (1 - gamma) s``. Choose ``omega <= 1 / lambda_max``, so that s >= 0, and
    ``gamma = 2 / (1 + q)``, ``q = sqrt(omega lambda_min)``. For lambda_min, ``s = 1 - q^2``, the discriminant vanishes and both
    roots are 1 - q. For larger lambda the roots are complex, and their squared modulus is
    ``(gamma - 1) s <= (1 - q)/(1 + q) (1 - q^2) = (1 - q)^2``. So ``|E[x[k] - x*]|`` falls like ``k (1 - q)^k``, which takes
    about the square root of the basic method's number of steps.

    `tardigrad.theory.accelerated.accelerated_parameters` computes them. The mean square error is another matter: with
    ``omega = 1 / lambda_max`` it grows without bound where sketches are single rows (lambda_max is then small, so omega is
    large): the average of many runs has the fast rate, and every single run diverges. With a small enough omega it falls,
    in small examples at best 0.9 to 1.7 times as fast as the basic method's at its best; which omega that is, theory does
    not say. With blocks of more than half of the unknowns ``1 / lambda_max`` was safe, and no faster than the basic method.

    References
    ----------
    Richtarik, Takac, "Stochastic reformulations of linear systems: algorithms and convergence theory", SIAM J. Matrix
    Anal. Appl. 2020, the accelerated method and its weak rate. There x[1] is free; here it makes gamma = 1 the basic method.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), batch=1)
    >>> rule = AcceleratedSketchProject(omega=1.0, gamma=1.2)
    >>> result = td.run(rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(100))
    >>> bool(np.allclose(result.x, 1.0, atol=1e-6))
    True
    """

    unsuited: ClassVar[Mapping[str, str]] = NO_STALENESS

    omega: float | Array
    gamma: float | Array

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "gamma", share_of(self.gamma, "gamma", 2, closed=False))
        joint_shape(self, omega=self.omega, gamma=self.gamma)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return joint_shape(self, omega=self.omega, gamma=self.gamma)

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return 1

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> AcceleratedSketchProject:
        self._warm_up(problem)
        return self

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[AcceleratedSketchState, Orders]:
        state = AcceleratedSketchState(**start_of(x0), n_clients=n_clients)
        return state, [state.task(0)]

    def receive(self, state: AcceleratedSketchState, reply: Reply, rng: Rng) -> tuple[AcceleratedSketchState, Orders]:
        z: Any = reply.payload
        check_shape(z, state.x, "step")
        if state.previous is None:
            take(state, z)
            state.previous = np.array(z, state.x.dtype)
        else:
            point = state.previous
            if not state.fresh:  # x keeps its own memory, which may be an engine's
                state.x[...] = point
                point = state.x
            state.x = self._mix(state, self.gamma, point, z)
            state.previous[...] = z
        state.version += 1
        return state, [state.task(state.issued % state.n_clients)]
