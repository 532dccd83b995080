"""Dual averaging beside its mean-field limit: the energy, the flow, and how far the iterates are from it.

``y[n+1] = y[n] - a[n+1] (grad f(x[n]) + b[n] + u[n+1])`` with ``x[n] = P(y[n])``, P the projection onto the feasible set, b
the bias of old points and u noise. Where both average out, y follows ``dy/dt = -grad f(P(y))`` in the time
``t[n] = a[1] + ... + a[n]``.

Rules of this file:

- iterates are (n, ..., dim), times (n,); everything works on all middle axes at once;
- an explicit solver is enough: where the steps of the run are stable, the flow needs no more steps than the run has.

References
----------
Zhou, Mertikopoulos, Bambos, Glynn, Ye, Li, Fei-Fei, "Distributed asynchronous optimization with unbounded delays: how slow
can you go?", ICML 2018, sections 3.1, 4.2 and 4.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import integer, number

Array = NDArray[Any]
Map = Callable[[Array], Array]

#: gradients that one solution may take
MOST_GRADIENTS = 10**6


def energy(y: Any, minimiser: Any, project: Map) -> Array:
    """The energy (3.1) of a dual variable, ``E(y) = |p|^2 - |P(y)|^2 + 2 <y, P(y) - p>``; zero where P(y) = p.

    Computed as ``|P(y) - p|^2 + 2 <y - P(y), P(y) - p>``, which is the same and does not cancel: no term is negative, the
    second by the variational inequality of the projection. So ``E(y) >= |P(y) - p|^2``.

    Parameters
    ----------
    y : array (..., dim)
        Dual variables.
    minimiser : array (dim,)
        The point p of the feasible set.
    project : callable
        P.

    Returns
    -------
    array (...)

    Notes
    -----
    ``E(y) = |y - p|^2 - |y - P(y)|^2``, so its gradient is ``2 (P(y) - p)``. Along the flow (4.5) then
    ``dE/dt = -2 <grad f(x), x - p>`` with x = P(y): the energy falls where f is variationally coherent, Lemma 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> energy([[3.0, 0.0], [1.0, 0.0]], [0.0, 0.0], lambda y: np.clip(y, -2, 2)).tolist()
    [8.0, 1.0]
    """
    y, p = np.asarray(y, float), np.asarray(minimiser, float)
    x = project(y)
    way = x - p
    value: Array = np.sum(way * way, axis=-1) + 2 * np.sum((y - x) * way, axis=-1)
    return value


def mean_field(gradient: Map, project: Map, y0: Any, times: Any, *, rtol: float = 1e-8, atol: float = 1e-10) -> Array:
    """The flow of the mean-field equation (4.5), ``dy/dt = -grad f(P(y))``, ``y(times[0]) = y0``.

    Parameters
    ----------
    gradient, project : callable
        grad f and P, of arrays (..., dim).
    y0 : array (..., dim)
        Where it starts.
    times : array (n,)
        When to look, in order.
    rtol, atol : float
        Error that a step of the solver (scipy, RK45) may make: ``atol + rtol |y|`` in each component. With the defaults about
        1e-6 of error add up, most of it where the flow meets or leaves the set's boundary.

    Returns
    -------
    array (n, ..., dim)

    Raises
    ------
    InvalidInputError
        If times do not rise, or if the solver cannot go on: the gradient is not finite, too steep, or jumps.

    Examples
    --------
    The bowl |x|^2 / 2 without a constraint:

    >>> import numpy as np
    >>> mean_field(lambda x: x, lambda y: y, [1.0], [0.0, 1.0])[-1].round(6).tolist()
    [0.367879]
    """
    y0, times = np.asarray(y0, float), np.asarray(times, float)
    if times.ndim != 1 or not times.size or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise InvalidInputError(f"times must be a rising vector of finite numbers, not {times!r}")
    if times[-1] == times[0]:
        return np.repeat(y0[None], len(times), axis=0)

    follow = _Flow(gradient, project, y0.shape)
    span = (float(times[0]), float(times[-1]))
    distinct, place = np.unique(times, return_inverse=True)
    precision = {"rtol": number(rtol, "rtol", above=0), "atol": number(atol, "atol", above=0)}
    with np.errstate(all="ignore"):  # what is not finite is told by an error
        found = solve_ivp(follow, span, y0.ravel(), t_eval=distinct, **precision)
    if not found.success:
        raise InvalidInputError(f"the mean-field equation has no solution from t = {span[0]:g} to {span[1]:g}: {found.message}")
    values: Array = found.y.T.reshape(len(distinct), *y0.shape)[place]
    return values


class _Flow:
    """``-grad f(P(y))`` of flat vectors, for the solver, which takes steps for ever where this is not finite or jumps."""

    def __init__(self, gradient: Map, project: Map, shape: tuple[int, ...]) -> None:
        self.gradient, self.project, self.shape = gradient, project, shape
        self.calls = 0

    def __call__(self, t: float, y: Array) -> Array:
        slope: Array = -self.gradient(self.project(y.reshape(self.shape))).ravel()
        self.calls += 1
        if not np.isfinite(slope).all():
            raise InvalidInputError(f"the gradient on the mean-field flow is not finite at t = {t:g}")
        if self.calls > MOST_GRADIENTS:
            raise InvalidInputError(
                f"the mean-field equation was followed to t = {t:g} with {MOST_GRADIENTS} gradients: the gradient is too steep"
                " or not continuous; choose a shorter time"
            )
        return slope


def interpolate(times: Any, y: Any, t: Any) -> Array:
    """The affine interpolation A(t) of iterates y (n, ..., dim) at rising times (n,); t may be an array.

    Examples
    --------
    >>> interpolate([0.0, 1.0, 3.0], [[0.0], [2.0], [4.0]], [0.5, 2.0]).tolist()
    [[1.0], [3.0]]
    """
    times, y, t = np.asarray(times, float), np.asarray(y, float), np.asarray(t, float)
    if t.size and not (times[0] <= t.min() and t.max() <= times[-1]):
        raise InvalidInputError(f"t must lie between {times[0]:g} and {times[-1]:g}, the times of the iterates, not {t!r}")
    right = np.clip(np.searchsorted(times, t, side="right"), 1, len(times) - 1)
    share = (t - times[right - 1]) / (times[right] - times[right - 1])
    share = share.reshape(share.shape + (1,) * (y.ndim - 1))
    value: Array = (1 - share) * y[right - 1] + share * y[right]
    return value


def flow_distance(
    gradient: Map, project: Map, times: Any, y: Any, start: float, window: float, *, points: int = 500, **tolerances: float
) -> Array:
    """``sup over 0 <= h <= window of |A(start + h) - P(h, A(start))|``: how far the iterates leave the flow, (4.6).

    A is the affine interpolation of the iterates and P(h, .) the flow (4.5). Where the distance goes to 0 as `start` grows, for
    every window, A is an asymptotic pseudotrajectory of the flow.

    Parameters
    ----------
    gradient, project : callable
        grad f and P, of arrays (..., dim).
    times : array (n,)
        When the iterates are reached: 0, a[1], a[1] + a[2], ...
    y : array (n, ..., dim)
        The iterates.
    start, window : float
        Both in the unit of times; ``start + window`` must not be later than the last time.
    points : int
        Times of the window at which the distance is taken: its ends, the iterates' times and the middles between them, or
        so many of these if there are more.
    **tolerances
        Of `mean_field`.

    Returns
    -------
    array (...)

    Raises
    ------
    InvalidInputError
        If the window is not within the times.

    Examples
    --------
    Gradient descent on |x|^2 / 2 with step 0.1 stays behind exp(-t) by 0.019:

    >>> import numpy as np
    >>> times, y = 0.1 * np.arange(21), 0.9 ** np.arange(21.0)[:, None]
    >>> round(float(flow_distance(lambda x: x, lambda y: y, times, y, start=0.0, window=2.0)), 3)
    0.019
    """
    times = np.asarray(times, float)
    begin, length = number(start, "start"), number(window, "window", above=0.0)
    if begin < times[0] or begin + length > times[-1] * (1 + 1e-12):
        raise InvalidInputError(
            f"the window from {begin:g} to {begin + length:g} is not within the times, {times[0]:g} to {times[-1]:g}: choose a"
            " smaller window or an earlier start"
        )
    end = min(begin + length, float(times[-1]))
    inside = times[np.searchsorted(times, begin, side="right") : np.searchsorted(times, end)]
    ends = np.concatenate([[begin], inside, [end]])
    moments = np.sort(np.concatenate([ends, (ends[1:] + ends[:-1]) / 2]))
    most = integer(points, "points", low=2)
    if len(moments) > most:
        moments = moments[np.linspace(0, len(moments) - 1, most).astype(int)]
    curve = interpolate(times, y, moments)
    flow = mean_field(gradient, project, curve[0], moments, **tolerances)
    distance: Array = np.linalg.norm(curve - flow, axis=-1).max(axis=0)
    return distance
