"""The theta and omega with which the averaged method's bound is least, by number, for any delays.

Rules of this file:

- whether a rate can be reached is decided without looking for roots: gamma is reached iff
  ``min over theta, omega of K1 + p K2 <= gamma`` with ``p = sum_d p_d gamma^-d``;
- for one omega the least over theta is in closed form; over omega it is a grid with the kinks 2 and omega* in it, refined
  three times. A coarser grid can only miss some of the gain: what is returned is always a valid bound.

References
----------
Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear systems",
arXiv:2004.02163, Theorems 5 and 6, whose K1 and K2 these are. The paper minimises (36) at omega = 1, 2 and omega*, in closed
form; every omega, the tight constants and histograms of delays are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.theory.delayed_recurrence import Floats, decay, delay_distribution
from tardigrad.theory.sketch_project import constants_and_gap, upper_bound
from tardigrad.theory.spectra import BOUNDS, one_of, spectrum_ends

COARSE, FINE, ZOOMS = 33, 9, 3


@dataclass(frozen=True)
class AveragedParameters:
    """What `best_parameters` found.

    Attributes
    ----------
    theta, omega : float
        Damping and relaxation.
    rate : float
        Factor by which an update multiplies the bound of E|x - x*|_B^2.
    decay : float
        ``-log(rate)``, with the digits that a rate near 1 has lost.

    Examples
    --------
    >>> round(best_parameters(0.01, 0.4, delays=7).complexity(updates=8), 1)
    31.9
    """

    theta: float
    omega: float
    rate: float
    decay: float

    def complexity(self, updates: float) -> float:
        """Intervals of so many updates each that the bound needs for a factor e: ``1 / (1 - rate^updates)``."""
        return -1 / math.expm1(-updates * self.decay)


def least_excess(low: float, high: float, p_minus_1: Floats, bound: str) -> tuple[Floats, Floats, Floats]:
    """The least ``K1 + p K2 - 1`` over theta and omega for each p: the value, theta and omega.

    At one omega and one lam it is ``theta (A + theta (C - A))`` with ``A = (p-1)(1 - b) - b0 - b``,
    ``C = (p-1)(1 - g) - g``, ``b0 = 1 - alpha``, ``b = 1 - |1 - omega lam|``, ``g = omega (2-omega) lam``.

    Examples
    --------
    Without delay, p = 1, it is that of the basic method, ``-lambda_min``:

    >>> round(float(least_excess(0.1, 0.4, np.array([0.0]), "tight")[0][0]), 12)
    -0.1
    """
    P = np.asarray(p_minus_1, np.float64)[:, None]
    end = 2 / high  # beyond it the expectation diverges
    kinks = [omega for omega in (2.0, 2 / (low + high)) if omega <= end]
    grid = np.unique(np.concatenate([np.geomspace(1.0, end, COARSE), kinks]))
    omegas = np.broadcast_to(grid, (len(P), len(grid)))
    rows = np.arange(len(P))
    best: list[Floats] = [np.zeros(len(P)), np.ones(len(P)), np.ones(len(P))]
    for zoom in range(ZOOMS + 1):
        value, theta = _least_over_theta(low, high, P, omegas, bound)
        at = np.argmin(value, axis=1)
        better = value[rows, at] < best[0]
        for kept, found in zip(best, (value, theta, omegas), strict=True):
            kept[better] = found[rows, at][better]
        if zoom < ZOOMS:
            left = omegas[rows, np.maximum(at - 1, 0)]
            right = omegas[rows, np.minimum(at + 1, omegas.shape[1] - 1)]
            omegas = left[:, None] + (right - left)[:, None] * np.linspace(0, 1, FINE)
    return best[0], best[1], best[2]


def _least_over_theta(low: float, high: float, P: Floats, omegas: Floats, bound: str) -> tuple[Floats, Floats]:
    slow = np.minimum(omegas * low, 2 - omegas * high)
    if bound == "paper":
        branches = [(slow, omegas * (2 - omegas) * np.where(omegas <= 2, low, high))]
    else:
        branches = [(np.minimum(omegas * lam, 2 - omegas * lam), omegas * (2 - omegas) * lam) for lam in (low, high)]
    lines = [(P * (1 - near) - slow - near, P * (1 - shrink) - shrink) for near, shrink in branches]
    candidates = [np.ones_like(omegas)]
    with np.errstate(all="ignore"):
        candidates += [A / (2 * (A - C)) for A, C in lines]
        if len(lines) == 2:
            (A1, C1), (A2, C2) = lines
            candidates.append((A2 - A1) / ((C1 - A1) - (C2 - A2)))
    value, theta = np.full(omegas.shape, np.inf), np.ones_like(omegas)
    for candidate in candidates:
        inside = np.where((candidate > 0) & (candidate <= 1), candidate, 1.0)
        found = np.max([inside * (A + inside * (C - A)) for A, C in lines], axis=0)
        better = found < value
        value, theta = np.where(better, found, value), np.where(better, inside, theta)
    return value, theta


def best_parameters(
    lambda_min: float,
    lambda_max: float,
    delays: Any,
    bound: str = "tight",
    *,
    omega: float | None = None,
    theta: float | None = None,
) -> AveragedParameters:
    """The theta and omega with the least rate of the averaged method's bound.

    Parameters
    ----------
    lambda_min, lambda_max : float
        Ends of the nonzero spectrum of W.
    delays : float or array
        One delay, which then bounds every run whose delays are at most that; or a histogram (entry d counts the updates
        with delay d), for which the rate holds if delays are independent from update to update: see `positive_root`.
    bound : {"tight", "paper"}
        Which constants; with the paper's, too, every omega is tried.
    omega, theta : float, optional
        One of them given: the best of the other, from a grid that is refined twice.

    Notes
    -----
    Alternates between the best pair for the present rate's p (`least_excess`) and that pair's rate: the rate falls in
    every round, and quadratically near the end. Without delay the answer is the basic method, theta = omega = 1.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> best_parameters(0.01, 0.4, delays=0).rate
    0.99
    >>> found = best_parameters(0.01, 0.4, delays=7)
    >>> f"{found.theta:.3f} {found.omega:.3f} {found.rate:.5f}"
    '0.145 3.787 0.99603'

    One of four workers is 10 times slower: the largest delay for all, and the delays as they are:

    >>> best_parameters(0.01, 0.4, delays=30).rate > best_parameters(0.01, 0.4, delays=27 * [0] + [0, 0, 30, 1]).rate
    True
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    one_of(bound, "bound", BOUNDS)
    late, chance = delay_distribution(delays)
    if omega is not None or theta is not None:
        return _best_beside(low, high, delays, bound, omega, theta)
    if not late.any():
        rate = 1 - low
        return AveragedParameters(1.0, 1.0, rate, -math.log1p(-low) if low < 1 else math.inf)
    found = AveragedParameters(1.0, 1.0, 1.0, 0.0)
    for _ in range(100):
        p_minus_1 = float(chance @ np.expm1(late * found.decay))
        _, thetas, omegas = least_excess(low, high, np.array([p_minus_1]), bound)
        K1, K2, gap = constants_and_gap(low, high, float(thetas[0]), float(omegas[0]), bound)
        reached = decay(K1, K2, delays, gap)
        if not reached > found.decay * (1 + 1e-13):
            break
        found = AveragedParameters(float(thetas[0]), float(omegas[0]), math.exp(-reached), reached)
        if reached == math.inf:  # one projection solves it
            break
    if not found.decay > 0:
        raise InvalidInputError(f"no theta and omega with a rate below 1: lambda_min = {low:g} is too small for float64")
    return found


def _best_beside(
    low: float, high: float, delays: Any, bound: str, omega: float | None, theta: float | None
) -> AveragedParameters:
    """The best theta for an omega, the best omega for a theta, or what two given ones reach."""

    def reached(omega: float, theta: float) -> float:
        K1, K2, gap = constants_and_gap(low, high, theta, omega, bound)
        return decay(K1, K2, delays, gap) if gap > 0 else 0.0

    omegas = np.array([omega]) if omega is not None else np.geomspace(2.0**-6, 2 / high, COARSE)
    thetas = np.array([theta]) if theta is not None else np.geomspace(2.0**-10, 1.0, COARSE)
    for _ in range(ZOOMS):
        found = max((reached(float(o), float(t)), float(o), float(t)) for o in omegas for t in thetas)
        omegas, thetas = (_around(grid, place) for grid, place in ((omegas, found[1]), (thetas, found[2])))
    if not found[0] > 0:
        raise InvalidInputError(f"no convergence is proved with omega = {omega} and theta = {theta}: leave one of them out")
    return AveragedParameters(found[2], found[1], math.exp(-found[0]), found[0])


def _around(grid: Floats, place: float) -> Floats:
    """A finer grid between a point's neighbours."""
    i = int(np.argmin(np.abs(grid - place)))
    return np.geomspace(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)], FINE) if len(grid) > 1 else grid


def best_upper_bound(lambda_min: float, lambda_max: float, delta_a: float, bound: str = "tight") -> tuple[float, float, float]:
    """The least U(theta, omega) over both, by number, for every omega: (value, theta, omega); (36).

    With the paper's constants and omega up to min(2, omega*), `least_upper_bound` is the same in closed form.

    Notes
    -----
    ``U <= V`` iff ``K1 + p K2 - 1 <= -1/(delta_a (V-1))`` with ``p = V/(V-1)``: as `best_parameters`.

    Examples
    --------
    >>> value, theta, omega = best_upper_bound(0.1, 0.9, delta_a=8, bound="paper")
    >>> f"{value:.6f} {theta:.4f} {omega:.3f}"
    '5.500000 0.2500 2.000'
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    one_of(bound, "bound", BOUNDS)
    theta = omega = 1.0
    value = upper_bound(low, high, theta, omega, delta_a, bound)
    for _ in range(100):
        _, damping, relaxation = least_excess(low, high, np.array([1 / (value - 1)]), bound)
        trial = upper_bound(low, high, float(damping[0]), float(relaxation[0]), delta_a, bound)
        if not trial < value * (1 - 1e-14):
            break
        value, theta, omega = trial, float(damping[0]), float(relaxation[0])
    return value, theta, omega
