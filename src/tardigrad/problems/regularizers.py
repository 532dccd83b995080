"""Terms added to every client's loss to keep the iterates small.

Rules of this file:

- a regularizer works on iterates (..., dim) and adds its gradient in place.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from tardigrad.core.plain import Plain
from tardigrad.core.task import Array
from tardigrad.core.validate import number


class Regularizer(Plain):
    """Base class of regularizers."""

    @abstractmethod
    def value(self, x: Array) -> Array:
        """The term at `x` (..., dim), shape (...)."""

    @abstractmethod
    def add_gradient(self, x: Array, out: Array) -> None:
        """Add the gradient at `x` to `out`."""

    @property
    @abstractmethod
    def curvature(self) -> float:
        """A bound on the norm of the Hessian."""


@dataclass(frozen=True)
class L2(Regularizer):
    """Ridge, ``rho / 2 |x|^2``.

    Parameters
    ----------
    rho : float
        Its weight, >= 0.

    Examples
    --------
    >>> import numpy as np
    >>> float(L2(0.5).value(np.array([1.0, 1.0])))
    0.5
    """

    rho: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", number(self.rho, "rho", low=0))

    def value(self, x: Array) -> Array:
        return self.rho / 2 * np.einsum("...i,...i->...", x, x)

    def add_gradient(self, x: Array, out: Array) -> None:
        if self.rho:
            out += self.rho * x

    @property
    def curvature(self) -> float:
        return self.rho


@dataclass(frozen=True)
class SmoothNonconvex(Regularizer):
    """The non-convex term ``rho sum_j x_j^2 / (1 + x_j^2)`` of the AsyncBC paper (section 5).

    Its gradient is ``2 rho x_j / (1 + x_j^2)^2``, its second derivative lies in
    ``[-rho / 2, 2 rho]``.

    Parameters
    ----------
    rho : float
        Its weight, >= 0.

    References
    ----------
    Gao, Takezawa, Stich, "A bias correction mechanism for distributed asynchronous optimization", TMLR, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> float(SmoothNonconvex(0.5).value(np.array([1.0, 1.0])))
    0.5
    """

    rho: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", number(self.rho, "rho", low=0))

    def value(self, x: Array) -> Array:
        square = x * x
        return self.rho * (square / (1 + square)).sum(axis=-1)

    def add_gradient(self, x: Array, out: Array) -> None:
        denominator = x * x
        denominator += 1
        denominator *= denominator
        out += 2 * self.rho * x / denominator

    @property
    def curvature(self) -> float:
        return 2 * self.rho
