"""Step sizes: a number, an array (one for each replica of a sweep), or a sequence.

Rules of this file:

- a `StepSequence` is a frozen dataclass of numbers: it has a name and can be saved, a lambda cannot;
- arrays of steps have the shape of the iterates' leading axes; `column` gives them the last axis.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.task import Array
from tardigrad.core.validate import number


@dataclass(frozen=True)
class DelayLimit:
    """Delays under which a sequence of steps is proven to converge: ``d_n = O(n^q)``, counted from the request.

    Attributes
    ----------
    exponent : float
        q may be up to this; infinite for any q.
    attained : bool
        Whether q may be equal to it.
    """

    exponent: float
    attained: bool

    def allows(self, exponent: float) -> bool:
        """Whether delays O(n^exponent) are within."""
        return exponent < self.exponent or (self.attained and exponent == self.exponent)

    def __str__(self) -> str:
        if self.exponent == math.inf:
            return "delays O(n^q) for any q"
        return f"delays O(n^q), q {'<=' if self.attained else '<'} {self.exponent:g}"


class StepSequence(Plain):
    """A step for every update: ``sequence(n)`` is the step of update ``n = 0, 1, 2, ...``."""

    @property
    def proven_for(self) -> DelayLimit | None:
        """Delays under which `DASGD` is proven to converge with these steps; None: not even without delay."""
        return None

    @abstractmethod
    def __call__(self, n: int) -> float | Array:
        """The step of update `n`, a float or an array over replicas."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one step: () or that of the replicas."""


@dataclass(frozen=True)
class PowerStep(StepSequence):
    """Steps ``scale / (n + offset)^power``, n = 0, 1, ...

    Parameters
    ----------
    scale : float or array
        Numerator; an array gives a sweep.
    power : float
        Exponent, ``>= 0``. Powers in (1/2, 1] are square-summable and not summable.
    offset : float
        Added to the number of the update, ``> 0``.

    Notes
    -----
    `proven_for` delays O(n^q), q < power, for powers in (1/2, 1]. Zhou et al. (ICML 2018, Assumption 3.1) ask for bounded
    delays; their proof needs of them only that the steps taken while a reply is under way, ``sum_{r=n}^{n+d_n} step(r)``,
    go to 0, and that sum is O(n^(q - power)).

    Examples
    --------
    >>> PowerStep(1.0, power=0.5)(3)
    0.5
    """

    scale: float | Array
    power: float = 1.0
    offset: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", check_step(self.scale, "PowerStep.scale", sequence=False))
        object.__setattr__(self, "power", number(self.power, "PowerStep.power", low=0))
        object.__setattr__(self, "offset", number(self.offset, "PowerStep.offset", above=0))

    def __call__(self, n: int) -> float | Array:
        step: float | Array = self.scale / (n + self.offset) ** self.power
        return step

    @property
    def proven_for(self) -> DelayLimit | None:
        return DelayLimit(self.power, attained=False) if 0.5 < self.power <= 1 else None

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.scale)


Step = float | Array | StepSequence


def check_step(step: Any, name: str = "step", sequence: bool = True) -> Any:
    """The step as a float, an array or a sequence; an error unless every step is finite and positive."""
    if sequence and isinstance(step, StepSequence):
        return step
    try:
        values = np.array(step, dtype=float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if isinstance(step, (bool, str)) or values.size == 0 or not (np.isfinite(values).all() and (values > 0).all()):
        kinds = "a positive number, an array of them or a StepSequence" if sequence else "a positive number or an array of them"
        raise InvalidInputError(f"{name} must be {kinds}, not {step!r}")
    return values if values.ndim else float(values)


def step_shape(step: Step) -> tuple[int, ...]:
    """Leading shape that a step gives to the iterates: () for a number."""
    return step.shape if isinstance(step, StepSequence) else np.shape(step)


def step_at(step: Step, n: int) -> float | Array:
    """The step of update `n`, ready to multiply an array of shape (..., dim)."""
    value = step(n) if isinstance(step, StepSequence) else step
    return value[..., np.newaxis] if isinstance(value, np.ndarray) else value
