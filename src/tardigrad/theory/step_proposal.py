"""Step sizes proposed for delays that grow as they were measured, or as is feared: a sequence, its scale and its offset.

Rules of this file:

- the sequence is proven for the growth (`tardigrad.theory.dual_averaging`); its constants are a proposal, and say what they
  are made of;
- sums over many updates are taken on a grid that is fine at both ends, and exact to four digits.

References
----------
Zhou, Mertikopoulos, Bambos, Glynn, Ye, Li, Fei-Fei, "Distributed asynchronous optimization with unbounded delays: how slow can
you go?", ICML 2018, Assumptions 3.1 to 3.3, for which growth fits which sequence. Scale and offset are not in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.growth import Growth
from tardigrad.core.steps import PowerStep, StepSequence
from tardigrad.core.validate import integer, number
from tardigrad.theory.dual_averaging import LogLogStep, LogStep

Floats = NDArray[np.float64]

#: power of the steps that are proposed for delays that do not grow: half-way between its limits
POWER = 0.75


def fitting_sequence(exponent: float, error: float = 0.0) -> str:
    """The steps that fit delays O(n^exponent), in words; of a measured exponent with its standard error.

    Examples
    --------
    >>> fitting_sequence(1.3), fitting_sequence(1.01, error=0.01)
    ('LogLogStep, scale/(n log n log log n)', 'LogStep, scale/(n log n)')
    """
    return _shape(exponent, error).words


def steps_for(
    growth: Growth | float,
    lipschitz: float,
    *,
    delay: float | None = None,
    staleness: float | None = None,
    noise: float = 0.0,
    distance: float = 1.0,
    horizon: int = 100_000,
) -> StepSequence:
    """Propose steps for delays that grow as was measured, or as is feared.

    The sequence is the first of `PowerStep` (power 3/4), `LogStep` and `LogLogStep` that is proven for the growth. Its scale
    and offset minimise a bound on the last iterate after ``horizon`` updates, of all that keep
    ``lipschitz * (sum_{r=n}^{n+d_n} a_r) <= 1``.

    Parameters
    ----------
    growth : Growth or float
        ``result.trace.growth()`` of a run, or q of delays ``d_n = delay n^q``, counted from the request. 0: they do not
        grow. Of a measured one, twice its standard error is added below 3/4 and conceded above.
    lipschitz : float
        Constant of the gradient near where the run goes, ``> 0``: of a quadratic the largest eigenvalue.
    delay : float, optional
        The factor of n^q, ``>= 0``; by default that of the growth where it was measured, which no reply exceeded, else 1.
    staleness : float, optional
        The mean staleness, ``>= 0``, where that does not grow: with K tasks in flight it is below K, and late replies are
        few. Then windows are so many steps long, and the growth only chooses the sequence.
    noise : float
        Standard deviation of a stochastic gradient, ``sqrt(E|U|^2)``.
    distance : float
        Of the start from the minimiser, as far as known: only its order matters.
    horizon : int
        Updates that the run is to take.

    Returns
    -------
    StepSequence

    Raises
    ------
    InvalidInputError
        If a number is out of its range, or too little is known of the growth.

    Notes
    -----
    A proposal, not a theorem. Below 3/2 for the sum, gradient descent on a quadratic is stable under any pattern of such
    delays (Yorke's 3/2 theorem; Erbe, Xia, Yu for recursions), so 1 leaves a margin. The bound is that of the last iterate of
    SGD without delay on a convex function, with S_k the sum of the steps from update k on and V_k that of their squares::

        distance^2 / (2 S_0) + noise^2 / 2 (V_0 / S_0 + sum_k a_k V_k / (S_k S_{k+1}))

    It balances noise against progress, and leaves out the bias of old gradients. Without noise the steps are as large and as
    even as the delays allow.

    References
    ----------
    Zhou et al., ICML 2018, Assumption 3. Yorke, "Asymptotic stability for one dimensional differential-delay equations", J.
    Differential Equations 7, 1970; Erbe, Xia, Yu, "Global stability of a linear nonautonomous delay difference equation", J.
    Difference Equations and Applications 1, 1995. The bound: Defazio, Cutkosky, Mehta, Mishchenko, "Optimal linear decay
    learning rate schedules and further refinements", 2023, with the gradients' squared norms replaced by the noise.

    Examples
    --------
    >>> round(steps_for(0.0, lipschitz=1.0, delay=7, horizon=1000)(0), 3)  # about 1 / (1 + 7)
    0.125
    >>> type(steps_for(1.0, lipschitz=1.0, delay=0.1)).__name__, type(steps_for(2.0, lipschitz=1.0)).__name__
    ('LogStep', 'LogLogStep')
    """
    if isinstance(growth, Growth):
        if not (math.isfinite(growth.exponent) and math.isfinite(growth.scale)):
            raise InvalidInputError(
                f"of this growth too little is known ({growth.replies} replies): measure a longer run, or give an exponent"
            )
        exponent, error = max(growth.exponent, 0.0), growth.error if math.isfinite(growth.error) else 0.0
        delay = growth.scale if delay is None else delay
    else:
        exponent, error = number(growth, "growth", low=0), 0.0
        delay = 1.0 if delay is None else delay
    lipschitz = number(lipschitz, "lipschitz", above=0)
    delay, noise = number(delay, "delay", low=0), number(noise, "noise", low=0)
    distance, horizon = number(distance, "distance", above=0), integer(horizon, "horizon")
    shape = _shape(exponent, error)
    if staleness is not None:
        exponent, delay = 0.0, number(staleness, "staleness", low=0)
    best = math.inf, 1.0, shape.least
    for offset in np.geomspace(shape.least, max(horizon, 10 * shape.least), 100):
        window, total, wander = _sums(shape, float(offset), exponent, delay, horizon)
        scale = 1 / (lipschitz * window)
        if noise:
            scale = min(scale, distance / (noise * math.sqrt(total * wander)))
        bound = distance**2 / (2 * scale * total) + scale * noise**2 * wander / 2
        if bound < best[0]:
            best = bound, scale, float(offset)
    return shape.make(best[1], best[2])


@dataclass(frozen=True)
class _Shape:
    """A kind of sequence for scale 1: steps and their integral as functions of n + offset."""

    step: Callable[[Floats], Floats]
    integral: Callable[[Floats], Floats]
    least: float  # offset
    make: Callable[[float, float], StepSequence]
    words: str


_POWER = _Shape(
    lambda m: m**-POWER,
    lambda m: m ** (1 - POWER) / (1 - POWER),
    1.0,
    lambda scale, offset: PowerStep(scale, POWER, offset),
    f"PowerStep with power={POWER:g}, scale/n^{POWER:g}",
)
_LOG = _Shape(lambda m: 1 / (m * np.log(m)), lambda m: np.log(np.log(m)), 2.0, LogStep, "LogStep, scale/(n log n)")
_LOG_LOG = _Shape(
    lambda m: 1 / (m * np.log(m) * np.log(np.log(m))),
    lambda m: np.log(np.log(np.log(m))),
    4.0,
    LogLogStep,
    "LogLogStep, scale/(n log n log log n)",
)


def _shape(exponent: float, error: float) -> _Shape:
    """The sequence of largest steps that is proven for the growth; an exponent that may be 1 counts as 1."""
    if exponent + 2 * error < POWER:
        return _POWER
    return _LOG if exponent - 2 * error <= 1 else _LOG_LOG


def _sums(shape: _Shape, offset: float, exponent: float, delay: float, horizon: int) -> tuple[float, float, float]:
    """For scale 1: the largest window, the sum of the steps, and what noise^2 / 2 is multiplied by in the bound."""
    horizon = max(horizon, 3)
    early = np.geomspace(1, horizon, 300)
    n = np.unique(np.concatenate([[0.0], early - 1, horizon - early]).round())  # every update at both ends
    steps, integral = shape.step(n + offset), shape.integral(n + offset)
    come = np.minimum(n + delay * np.maximum(n, 1) ** exponent, horizon)
    window = float((steps + np.maximum(shape.integral(come + offset) - integral, 0.0)).max())
    left, left_squares = _from_each_on(n, steps), _from_each_on(n, steps**2)
    tail = _from_each_on(n[:-1], steps[:-1] * left_squares[:-1] / (left[:-1] * (left[:-1] - steps[:-1])))
    return window, float(left[0]), float(left_squares[0] / left[0] + tail[0])


def _from_each_on(n: Floats, values: Floats) -> Floats:
    """Sums over all whole numbers from each n to the last, of what is known at some of them (Euler and Maclaurin)."""
    parts = np.diff(n) * (values[1:] + values[:-1]) / 2
    sums: Floats = np.append(np.cumsum(parts[::-1])[::-1], 0.0) + (values + values[-1]) / 2
    return sums
