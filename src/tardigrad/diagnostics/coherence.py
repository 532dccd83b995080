"""Variational coherence of a problem that knows its feasible set and its minimiser.

Rules of this file:

- the search is that of `theory.coherence`; here a problem is asked for what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.task import Array
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems.projections import as_constraint
from tardigrad.problems.user_gradient import UserGradient
from tardigrad.theory.coherence import Coherence, check_coherence


def problem_coherence(problem: Problem, minimiser: Any = None, constraint: Any = None, **options: Any) -> Coherence:
    """Look for feasible points where a problem is not variationally coherent, with exact gradients.

    Parameters
    ----------
    problem : Problem
        Its gradients without a sample are those of f.
    minimiser : array (dim,), optional
        A global minimiser on the feasible set; by default ``problem.minimiser``.
    constraint : ConvexSet and what `as_constraint` takes, optional
        The feasible set; by default ``problem.constraint``.
    **options
        Of `check_coherence`: samples, searches, steps, tolerance, seed.

    Raises
    ------
    InvalidInputError
        If there is no minimiser or no feasible set, or they are none of this problem.

    Examples
    --------
    >>> import tardigrad as td
    >>> print(problem_coherence(td.Rosenbrock(dim=2), samples=2000))  # doctest: +ELLIPSIS
    not variationally coherent: <grad f(x), x - x*> = -48 at x = [0. , 0.5] (least cosine ...
    """
    p = known_minimiser(problem, minimiser)
    feasible = getattr(problem, "constraint", None) if constraint is None else constraint
    if feasible is None:
        raise InvalidInputError(
            f"{type(problem).__name__} has no feasible set to sample: pass one, such as constraint=Ball(10.0)"
        )
    found = as_constraint(feasible, problem.dim)
    with single_threaded_blas():  # many small products: threads only wait for each other
        return check_coherence(
            exact_gradient(problem), lambda rng, n: found.sample(rng, (n,), problem.dim), found.project, p, **options
        )


def known_minimiser(problem: Problem, minimiser: Any = None) -> Array:
    """The minimiser given, or the problem's own, as a vector (dim,) of finite numbers."""
    given = getattr(problem, "minimiser", None) if minimiser is None else minimiser
    if given is None:
        raise InvalidInputError(
            f"{type(problem).__name__} knows no minimiser: pass one, minimiser=array of {problem.dim} numbers"
        )
    try:
        p = np.array(given, float)
    except (TypeError, ValueError):
        p = np.array(np.nan)
    if p.shape != (problem.dim,) or not np.isfinite(p).all():
        raise InvalidInputError(f"minimiser must be a vector of {problem.dim} finite numbers, not {given!r:.200}")
    return p


def exact_gradient(problem: Problem) -> Callable[[Array], Array]:
    """Grad f of points (..., dim): the weighted sum over clients, of one client where all have the same data."""
    if isinstance(problem, UserGradient):
        raise InvalidInputError(
            "a function gradient(x, rng) gives no exact gradients, which this needs: pass them, diagnose(..., gradient=function"
            " of x) or check_coherence(function of x, ...)"
        )
    if problem.shared_data or problem.n_clients == 1:
        return lambda x: problem.gradient(0, x)

    def gradient(x: Array) -> Array:
        total = problem.weight(0) * problem.gradient(0, x)
        for client in range(1, problem.n_clients):
            total += problem.weight(client) * problem.gradient(client, x)
        return total

    return gradient
