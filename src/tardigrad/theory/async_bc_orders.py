"""Orders of asynchronous methods on different data, as table 1 of the AsyncBC paper compares them.

Bounds on ``(1/T) sum_{t<T} E|grad f(x[t])|^2`` after T replies, each gradient exact, f and its clients smooth, not convex.

Rules of this file:

- **orders have no constants**: they serve to compare how bounds grow, never to choose a step or to predict a number;
- L_max is the largest Lipschitz constant of a client's gradient, L that of grad f, gap is ``f(x[0]) - inf f``.

References
----------
Gao, Takezawa, Stich, "A bias correction mechanism for distributed asynchronous optimization", TMLR (OpenReview 8doMbaah0s).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tardigrad.core.validate import integer, number
from tardigrad.theory.async_bc import Floats, update_counts


def async_gd_order(L_max: float, zeta: float, concurrency: int, max_delay: int, horizon: Any, gap: float) -> Floats:
    """Order of asynchronous gradient descent, without constants; table 1, first row (Koloskova et al. 2022).

    ``L_max gap sqrt(concurrency max_delay) / T + sqrt(L_max gap zeta^2 / T) + (L_max gap concurrency zeta / T)^(2/3)``.

    Parameters
    ----------
    L_max : float
        Largest Lipschitz constant of a client's gradient.
    zeta : float
        Bound on ``|grad f_i(x) - grad f_j(x)|`` over all x.
    concurrency, max_delay, horizon, gap
        As for `theory.async_bc.full_gradient_bound`.

    Examples
    --------
    >>> async_gd_order(1.0, zeta=10.0, concurrency=4, max_delay=9, horizon=10**4, gap=1.0).round(4).item()
    0.1258
    """
    scale, tasks, late, T = _order(L_max, concurrency, max_delay, horizon, gap)
    zeta = number(zeta, "zeta", low=0)
    return scale * math.sqrt(tasks * late) / T + zeta * np.sqrt(scale / T) + (scale * tasks * zeta / T) ** (2 / 3)


def asgrad_order(L_max: float, zeta: float, G: float, concurrency: int, horizon: Any, gap: float) -> Floats:
    """Order of AsGrad, without constants; table 1, second row (Islamov et al. 2023).

    ``L_max gap concurrency / T + sqrt(L_max gap zeta^2 / T) + (L_max gap concurrency G / T)^(2/3)``.

    Parameters
    ----------
    L_max, zeta, concurrency, horizon, gap
        As for `async_gd_order`.
    G : float
        Bound on ``|grad f_i(x)|`` over all x.

    Examples
    --------
    >>> asgrad_order(1.0, zeta=10.0, G=10.0, concurrency=4, horizon=10**4, gap=1.0).round(4).item()
    0.1256
    """
    scale, tasks, _, T = _order(L_max, concurrency, 0, horizon, gap)
    zeta, G = number(zeta, "zeta", low=0), number(G, "G", low=0)
    return scale * tasks / T + zeta * np.sqrt(scale / T) + (scale * tasks * G / T) ** (2 / 3)


def printed_async_bc_order(L: float, L_max: float, concurrency: int, max_delay: int, horizon: Any, gap: float) -> Floats:
    """Order of AsyncBC-GD as table 1 prints it, without constants: what Theorem 1 would give if it were true.

    ``L_max gap sqrt(concurrency max_delay) / T + gap sqrt(L L_max max_delay / T)``. See `async_bc_order`.

    Examples
    --------
    >>> printed_async_bc_order(1.0, 1.0, concurrency=4, max_delay=9, horizon=10**4, gap=1.0).round(4).item()
    0.0306
    """
    scale, tasks, late, T = _order(L_max, concurrency, max_delay, horizon, gap)
    L = number(L, "L", above=0)
    return scale * math.sqrt(tasks * late) / T + gap * math.sqrt(L * L_max * late) / np.sqrt(T)


def async_bc_order(L: float, L_max: float, concurrency: int, max_delay: int, horizon: Any, gap: float) -> Floats:
    """Order of AsyncBC-GD from the conditions that its proof needs, without constants: table 1, third row, corrected.

    ``L_max gap sqrt(concurrency max_delay) / T + gap (L_max + sqrt(L L_max max_delay)) / sqrt(T)``: the table's, and what
    ``step <= 1/(10 delta sqrt(T))`` adds for ``delta <= L + L_max`` (Fact 1). It has no zeta: data may differ at will.

    Parameters
    ----------
    L : float
        Lipschitz constant of grad f.
    L_max, concurrency, max_delay, horizon, gap
        As for `async_gd_order`.

    Examples
    --------
    >>> async_bc_order(1.0, 1.0, concurrency=4, max_delay=9, horizon=10**4, gap=1.0).round(4).item()
    0.0406
    """
    printed = printed_async_bc_order(L, L_max, concurrency, max_delay, horizon, gap)
    return printed + gap * L_max / np.sqrt(update_counts(horizon, "horizon"))


def _order(L_max: float, concurrency: int, max_delay: int, horizon: Any, gap: float) -> tuple[float, int, int, Floats]:
    """``L_max gap`` and the checked numbers of the run."""
    scale = number(L_max, "L_max", above=0) * number(gap, "gap", low=0)
    return scale, integer(concurrency, "concurrency"), integer(max_delay, "max_delay", low=0), update_counts(horizon, "horizon")
