"""Step sequences for delays that grow without bound, and constants for them.

A gradient asked for at version n comes at ``n + d_n``. What its age does to a method with steps a_r is governed by the
steps taken meanwhile, the *window* ``w_n = sum_{r=n}^{n+d_n} a_r``: the bias of the gradient is at most L G w_n (L:
Lipschitz constant of the gradient, G: its bound). Last iterates are proven to converge (Zhou et al., ICML 2018, Theorems
3.3 and 4.6) if

- ``sum a_n = inf`` and ``sum a_n^2 < inf``: enough steps, and the noise averages out;
- ``w_n -> 0``: the bias goes to 0. With ``d_n = O(n^q)``:

| steps, for large n | window | goes to 0 for |
|---|---|---|
| n^-p, 1/2 < p <= 1 | n^(q - p); of order 1 for q = p = 1 | q < p |
| 1 / (n log n) | log(log(n + n^q) / log n); log q for q > 1 | q <= 1 |
| 1 / (n log n log log n) | log(log log(n + n^q) / log log n) | every q |
| constant | the constant times d_n | none: it does not average noise either |

Rules of this file:

- the paper's Assumption 3 lists bounded delays for the first line; q < p is a consequence of its proof;
- sequences are numbers alone, so they are saved with a run;
- what is proposed (`steps_for`) is a proposal, and says what it is made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.growth import Growth
from tardigrad.core.steps import DelayLimit, PowerStep, StepSequence, check_step
from tardigrad.core.validate import integer, number

Floats = NDArray[np.float64]

#: power of the steps that are proposed for delays that do not grow: half-way between its limits
POWER = 0.75


class _Quasilinear(StepSequence):
    """What the two sequences share: a scale and an offset from which on the logarithms are positive."""

    scale: Any
    offset: float
    least: float  # offsets must be above

    def _check(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "scale", check_step(self.scale, f"{name}.scale", sequence=False))
        object.__setattr__(self, "offset", number(self.offset, f"{name}.offset", above=self.least))

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.scale)


@dataclass(frozen=True)
class LogStep(_Quasilinear):
    """Steps ``scale / (m log m)``, m = n + offset, n = 0, 1, ...: for delays that grow linearly.

    Parameters
    ----------
    scale : float or array
        Numerator; an array gives a sweep.
    offset : float
        Added to the number of the update, ``> 1``.

    Notes
    -----
    The sum of N steps is about ``scale log(log(N + offset) / log(offset))``: from 10^3 to 10^5 it grows by half a scale.

    References
    ----------
    Zhou et al., ICML 2018, Assumption 3.2; the offset is ours.

    Examples
    --------
    >>> round(LogStep(1.0, offset=10.0)(90), 6), str(LogStep(1.0).proven_for)
    (0.002171, 'delays O(n^q), q <= 1')
    """

    scale: Any
    offset: float = 2.0

    least = 1.0

    def __post_init__(self) -> None:
        self._check()

    def __call__(self, n: int) -> Any:
        m = n + self.offset
        return self.scale / (m * math.log(m))

    @property
    def proven_for(self) -> DelayLimit:
        return DelayLimit(1.0, attained=True)


@dataclass(frozen=True)
class LogLogStep(_Quasilinear):
    """Steps ``scale / (m log m log log m)``, m = n + offset, n = 0, 1, ...: for delays that grow polynomially.

    Parameters
    ----------
    scale : float or array
        Numerator; an array gives a sweep.
    offset : float
        Added to the number of the update, ``> e``.

    Notes
    -----
    The sum of N steps is about ``scale log(log log(N + offset) / log log(offset))``: from 10^3 to 10^5 it grows by 0.23 scales.

    References
    ----------
    Zhou et al., ICML 2018, Assumption 3.3; the offset is ours.

    Examples
    --------
    >>> round(LogLogStep(1.0, offset=10.0)(90), 6), str(LogLogStep(1.0).proven_for)
    (0.001422, 'delays O(n^q) for any q')
    """

    scale: Any
    offset: float = 4.0

    least = math.e

    def __post_init__(self) -> None:
        self._check()

    def __call__(self, n: int) -> Any:
        m = n + self.offset
        log = math.log(m)
        return self.scale / (m * log * math.log(log))

    @property
    def proven_for(self) -> DelayLimit:
        return DelayLimit(math.inf, attained=False)


def proven_for(step: Any) -> DelayLimit | None:
    """Delays under which `DASGD` is proven to converge with these steps, numbers included; None: not even without delay.

    Examples
    --------
    >>> proven_for(0.1) is None, str(proven_for(PowerStep(1.0, power=1.0)))
    (True, 'delays O(n^q), q < 1')
    """
    return step.proven_for if isinstance(step, StepSequence) else None


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
