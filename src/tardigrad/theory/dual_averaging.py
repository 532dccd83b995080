"""Step sequences for delays that grow without bound.

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
- constants for them are proposed in `tardigrad.theory.step_proposal`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.steps import DelayLimit, StepSequence, check_step
from tardigrad.core.validate import number


class _Quasilinear(StepSequence):
    """What the two sequences share: a scale and an offset from which on the logarithms are positive."""

    scale: Any
    offset: float
    least: float  # offsets must be above

    def __post_init__(self) -> None:
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
    >>> from tardigrad.core.steps import PowerStep
    >>> proven_for(0.1) is None, str(proven_for(PowerStep(1.0, power=1.0)))
    (True, 'delays O(n^q), q < 1')
    """
    return step.proven_for if isinstance(step, StepSequence) else None
