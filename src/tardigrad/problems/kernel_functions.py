"""Kernels k(x, z) of two points: functions of their Euclidean distance r, or of their inner product.

Rules of this file:

- values are computed in place, from squared distances that are never negative, by the formula as it is printed; in float32 it
  is the compiled loop that `fused` names that does it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.validate import number
from tardigrad.problems.kernel_base import KernelFunction, median_distance
from tardigrad.problems.user_kernel import UserKernel

__all__ = [
    "Dispersal",
    "Gaussian",
    "KernelFunction",
    "Laplacian",
    "Matern",
    "UserKernel",
    "kernel_named",
    "median_distance",
]


def _bandwidth(value: Any) -> float | Literal["auto"]:
    if isinstance(value, str) and value == "auto":
        return "auto"
    return number(value, "bandwidth", above=0, what="'auto' or a finite number")


def _number(bandwidth: float | str) -> float:
    if isinstance(bandwidth, str):
        raise InvalidInputError("a kernel with bandwidth 'auto' has no values yet: call kernel.fitted(X) first")
    return bandwidth


def _scale(factor: float, bandwidth: float | str, dtype: Any = np.float32, power: int = 1) -> float:
    """``factor / bandwidth^power``, finite in a precision: 0 times infinity would be no number."""
    largest = float(np.finfo(dtype).max)
    for _ in range(power):
        factor = factor / _number(bandwidth)
    return min(factor, largest)


@dataclass(frozen=True)
class Laplacian(KernelFunction):
    """``exp(-r / bandwidth)``, of the Euclidean distance r.

    Parameters
    ----------
    bandwidth : float or "auto"
        Length in the features' unit; "auto": the median distance of the data's rows.

    Raises
    ------
    InvalidInputError
        For a bandwidth that is not positive.

    Examples
    --------
    >>> Laplacian(10.0)(np.array([[0.0, 0.0]]), np.array([[6.0, 8.0]])).round(4).tolist()
    [[0.3679]]
    """

    bandwidth: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bandwidth", _bandwidth(self.bandwidth))

    @property
    def fused(self) -> tuple[str, float, float]:
        return "exp(-r)", _scale(1, self.bandwidth), 1.0

    @np.errstate(over="ignore")  # of a distance over a tiny bandwidth: the value is 0
    def apply(self, values: Array) -> None:
        np.sqrt(values, out=values)
        values *= -_scale(1, self.bandwidth, values.dtype)
        np.exp(values, out=values)


@dataclass(frozen=True)
class Gaussian(KernelFunction):
    """``exp(-r^2 / (2 bandwidth^2))``.

    Parameters
    ----------
    bandwidth : float or "auto"
        Standard deviation, in the features' unit; "auto": the median distance of the data's rows.

    Raises
    ------
    InvalidInputError
        For a bandwidth that is not positive.

    Examples
    --------
    >>> Gaussian(1.0)(np.array([[0.0]]), np.array([[1.0]])).round(4).tolist()
    [[0.6065]]
    """

    bandwidth: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bandwidth", _bandwidth(self.bandwidth))

    @property
    def fused(self) -> tuple[str, float, float]:
        return "exp(-r^2)", _scale(0.5, self.bandwidth, power=2), 1.0

    @np.errstate(over="ignore")  # of a distance over a tiny bandwidth: the value is 0
    def apply(self, values: Array) -> None:
        values *= -_scale(0.5, self.bandwidth, values.dtype, power=2)
        np.exp(values, out=values)


@dataclass(frozen=True)
class Matern(KernelFunction):
    """The Matern kernel of half-integer smoothness (Rasmussen and Williams 2006, equations 4.16 and 4.17).

    With ``s = sqrt(2 nu) r / bandwidth``: ``exp(-s)`` for nu = 0.5 (the Laplacian), ``(1 + s) exp(-s)`` for 1.5,
    ``(1 + s + s^2 / 3) exp(-s)`` for 2.5.

    Parameters
    ----------
    bandwidth : float or "auto"
        Length in the features' unit; "auto": the median distance of the data's rows.
    nu : {0.5, 1.5, 2.5}
        Smoothness.

    Raises
    ------
    InvalidInputError
        For a bandwidth that is not positive, or another smoothness.

    Examples
    --------
    >>> Matern(1.0, nu=1.5)(np.array([[0.0]]), np.array([[1.0]])).round(4).tolist()
    [[0.4834]]
    """

    bandwidth: float | Literal["auto"] = "auto"
    nu: float = 1.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "bandwidth", _bandwidth(self.bandwidth))
        if self.nu not in (0.5, 1.5, 2.5):
            raise InvalidInputError(f"nu must be 0.5, 1.5 or 2.5, not {self.nu!r}")
        object.__setattr__(self, "nu", float(self.nu))

    @property
    def fused(self) -> tuple[str, float, float]:
        kind = {0.5: "exp(-r)", 1.5: "matern 3/2", 2.5: "matern 5/2"}[self.nu]
        return kind, _scale(math.sqrt(2 * self.nu), self.bandwidth), 1.0

    @np.errstate(over="ignore")  # of a distance over a tiny bandwidth: the value is 0
    def apply(self, values: Array) -> None:
        np.sqrt(values, out=values)
        values *= _scale(math.sqrt(2 * self.nu), self.bandwidth, values.dtype)
        factor: Any = 1.0 if self.nu == 0.5 else 1 + values
        if self.nu == 2.5:
            factor += values * values / 3
        np.negative(values, out=values)
        np.exp(values, out=values)
        np.multiply(values, factor, out=values, where=values != 0)  # 0 times infinity is 0 here


@dataclass(frozen=True)
class Dispersal(KernelFunction):
    """``exp(-(r / bandwidth)^gamma)``: the Laplacian for gamma = 1, as wide as a Gaussian for gamma = 2.

    Parameters
    ----------
    bandwidth : float or "auto"
        Length in the features' unit; "auto": the median distance of the data's rows.
    gamma : float
        Power, above 0 and at most 2: beyond, it is no kernel.

    Raises
    ------
    InvalidInputError
        For a bandwidth that is not positive, or another power.

    Examples
    --------
    >>> Dispersal(4.0, gamma=0.5)(np.array([[0.0]]), np.array([[1.0]])).round(4).tolist()
    [[0.6065]]
    """

    bandwidth: float | Literal["auto"] = "auto"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "bandwidth", _bandwidth(self.bandwidth))
        object.__setattr__(self, "gamma", number(self.gamma, "gamma", above=0, high=2))

    @property
    def fused(self) -> tuple[str, float, float]:
        if self.gamma == 1:
            return "exp(-r)", _scale(1, self.bandwidth), 1.0
        if self.gamma == 2:
            return "exp(-r^2)", _scale(1, self.bandwidth, power=2), 1.0
        return "exp(-r^gamma)", -2 * math.log2(_number(self.bandwidth)), self.gamma / 2

    @np.errstate(over="ignore")  # of a distance over a tiny bandwidth: the value is 0
    def apply(self, values: Array) -> None:
        if self.gamma == 1:
            Laplacian(self.bandwidth).apply(values)
            return
        np.sqrt(values, out=values)
        values *= _scale(1, self.bandwidth, values.dtype)
        np.power(values, self.gamma, out=values)
        np.negative(values, out=values)
        np.exp(values, out=values)


_NAMED: dict[str, type[KernelFunction]] = {
    "laplacian": Laplacian,
    "gaussian": Gaussian,
    "matern": Matern,
    "dispersal": Dispersal,
}


def kernel_named(name: Any, **parameters: Any) -> KernelFunction:
    """A kernel from its name in small letters and its parameters; a kernel is returned as it is.

    Raises
    ------
    InvalidInputError
        For another name, or parameters that the kernel does not have.

    Examples
    --------
    >>> kernel_named("laplacian", bandwidth=2.0)
    Laplacian(bandwidth=2.0)
    """
    if isinstance(name, KernelFunction):
        return name
    if not isinstance(name, str) or name not in _NAMED:
        raise InvalidInputError(f"kernel must be one of {', '.join(_NAMED)}, or a kernel object, not {name!r}")
    try:
        return _NAMED[name](**parameters)
    except TypeError as error:
        raise InvalidInputError(f"the kernel {name!r} does not take these parameters: {error}") from None
