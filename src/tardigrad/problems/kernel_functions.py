"""Kernels k(x, z) of two points: functions of their Euclidean distance r, or of their inner product.

Rules of this file:

- a kernel is plain data, and knows nothing of the points: blocks of its values are computed by `kernel_blocks`;
- values are computed in place, from squared distances that are never negative;
- a bandwidth "auto" becomes a number by `fitted`, once, from a seeded subsample.
"""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array
from tardigrad.core.validate import number

#: rows among whose pairs the median distance is taken
_ROWS = 1000


class KernelFunction(Plain):
    """Base class of kernels; ``kernel(X, Z)`` is their matrix.

    Attributes
    ----------
    of : {"squared distances", "inner products"}
        What `apply` is given.
    """

    of: str = "squared distances"

    @abstractmethod
    def apply(self, values: Array) -> None:
        """Replace squared distances (or inner products) by kernel values, in place and in their precision."""

    @property
    def fused(self) -> tuple[str, float, float] | None:
        """Which compiled loop computes it in float32, and its two numbers (see `kernel_loops.formula`); None for none."""
        return None

    @property
    def diagonal(self) -> float | None:
        """k(x, x), where it is the same for every x; else None."""
        return 1.0

    def fitted(self, X: Any, seed: int = 0) -> KernelFunction:
        """The kernel with a number for its bandwidth: where it is "auto", the median distance of rows of X.

        Parameters
        ----------
        X : array or sparse matrix (n_rows, n_features)
            The points; a thousand of them are looked at.
        seed : int
            Chooses these.

        Returns
        -------
        KernelFunction
            The same object where there is nothing to choose.

        Raises
        ------
        InvalidInputError
            If all rows are the same, or one is not finite.

        Examples
        --------
        >>> Gaussian("auto").fitted(np.array([[0.0], [1.0], [3.0]]))
        Gaussian(bandwidth=2.0)
        """
        if getattr(self, "bandwidth", None) != "auto":
            return self
        return replace(self, bandwidth=median_distance(X, seed))  # type: ignore[type-var]

    def __call__(self, X: Any, Z: Any = None) -> Array:
        """The matrix of k(x_i, z_j), in float32 where X is, else in float64; of X with itself where Z is None.

        Examples
        --------
        >>> Laplacian(1.0)(np.array([[0.0], [2.0]])).round(4).tolist()
        [[1.0, 0.1353], [0.1353, 1.0]]
        """
        from tardigrad.problems.kernel_blocks import KernelBlocks

        dtype = np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64
        blocks = KernelBlocks(X if Z is None else Z, self, dtype)
        values = blocks.block(X)
        if Z is None and self.diagonal is not None:
            np.fill_diagonal(values, self.diagonal)
        return values


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


@dataclass(frozen=True)
class UserKernel(KernelFunction):
    """A function of squared distances, or of inner products, element by element.

    Parameters
    ----------
    function : callable
        Takes an array of any shape and returns one of the same shape. Where it is saved it is by module and name, so it must
        be defined at the top of a module: a lambda works in memory only.
    of : {"squared distances", "inner products"}
        What it is given.

    Raises
    ------
    InvalidInputError
        If `function` is no function, or returns another shape; when it is used, not when it is made.
    TypeError
        When it is saved, if it cannot be found again by module and name.

    Examples
    --------
    >>> import numpy as np
    >>> cubic = UserKernel(lambda products: (1 + products) ** 3, of="inner products")
    >>> cubic(np.array([[1.0], [2.0]])).tolist()
    [[8.0, 27.0], [27.0, 125.0]]
    """

    function: Callable[[Array], Any] | str
    of: str = "squared distances"
    _WAYS: ClassVar[tuple[str, ...]] = ("squared distances", "inner products")

    def __post_init__(self) -> None:
        if self.of not in self._WAYS:
            raise InvalidInputError(f"of must be {self._WAYS[0]!r} or {self._WAYS[1]!r}, not {self.of!r}")
        if isinstance(self.function, str):
            object.__setattr__(self, "function", _function_named(self.function))
        if not callable(self.function):
            raise InvalidInputError(f"function must be a function of an array, not {self.function!r}")

    def fields(self) -> dict[str, Any]:
        return {"function": _name_of(self.function), "of": self.of}

    @property
    def diagonal(self) -> float | None:
        return None if self.of == "inner products" else float(self._call(np.zeros(1))[0])

    def apply(self, values: Array) -> None:
        values[...] = self._call(values)

    def _call(self, values: Array) -> Array:
        found = np.asarray(self.function(values))  # type: ignore[operator]  # __post_init__ saw that it is one
        if found.shape != values.shape or found.dtype.kind not in "biuf":
            raise InvalidInputError(
                f"the function of a UserKernel must return real numbers of the shape that it was given, {values.shape},"
                f" not {found.dtype} of shape {found.shape}"
            )
        return found


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


def _name_of(function: Any) -> str:
    """Module and name by which a function can be found again."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", getattr(function, "__name__", None))
    if module is not None and getattr(sys.modules.get(module), str(name), None) is function:
        return f"{module}:{name}"
    raise TypeError(
        f"a UserKernel with {function!r} cannot be saved: a function is saved by module and name, so define it with def at the"
        " top of a module"
    )


def _function_named(name: str) -> Any:
    """The function of a saved kernel; only from modules that are loaded already, so that a file cannot load others."""
    module, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module), attribute, None) if attribute else None
    if found is None:
        raise InvalidInputError(
            f"the function of a UserKernel must be a function; it was saved as {name!r}, which is not loaded here: import that"
            " module first"
        )
    return found


def median_distance(X: Any, seed: int = 0) -> float:
    """The median distance of pairs of rows, among a thousand rows; of duplicates mostly, the mean of positive distances.

    Raises
    ------
    InvalidInputError
        If all rows looked at are the same, or one is not finite.
    """
    from tardigrad.problems.kernel_rows import rows_of

    rows = rows_of(X, np.float64)
    chosen = np.arange(rows.n_rows)
    if rows.n_rows > _ROWS:
        chosen = np.sort(np.random.default_rng(check_seed(seed)).choice(rows.n_rows, _ROWS, replace=False))
    distances = _distances(rows.take(chosen))
    if not np.isfinite(distances).all():
        raise InvalidInputError("X has a value that is not finite (or is too large to be squared): remove such rows or scale")
    median = float(np.median(distances)) if len(distances) else 0.0
    if median == 0:
        positive = distances[distances > 0]
        if not len(positive):
            raise InvalidInputError(
                f"bandwidth 'auto' is the median distance of rows, but all of the {len(chosen)} rows looked at are the same:"
                " give a number"
            )
        median = float(positive.mean())
    return median


def _distances(rows: Any) -> Array:
    """Of all pairs."""
    from scipy.spatial.distance import pdist

    if isinstance(rows, np.ndarray):
        with np.errstate(over="ignore"):
            return pdist(rows)
    # sparse and wide: made dense, a thousand rows could fill the memory
    products = (rows @ rows.T).toarray()
    norms = np.diag(products)
    both = norms[:, None] + norms
    squares = both - 2 * products
    squares[squares < 1e-12 * both] = 0  # what rounding leaves of duplicates
    return np.sqrt(squares[np.triu_indices(len(squares), 1)])
