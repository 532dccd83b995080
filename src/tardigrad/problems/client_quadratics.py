"""Quadratics whose minimisers differ from client to client: all that matters of heterogeneous data, with exact answers.

Rules of this file:

- gradients are exact: what a method gains or loses here it owes to staleness and to who is asked, not to noise;
- constants are exact up to rounding, in float64 whatever the type of the iterates.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.smoothness import SmoothnessConstants
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number


class ClientQuadratics(Problem):
    """``f_i(x) = curvatures[i] |x - centres[i]|^2 / 2`` for clients i = 0..n-1, each of weight ``1/n``.

    Parameters
    ----------
    curvatures : array (n,)
        Curvature of each client; single ones may be zero or negative, their mean is positive.
    centres : array (n, dim)
        Stationary point of each client. In float32 the iterates are of that type too, else they are float64.

    Attributes
    ----------
    minimiser : array (dim,)
        The minimiser of f, ``sum_i curvatures[i] centres[i] / sum_i curvatures[i]``.
    minimum : float
        ``f(minimiser)``.
    L : float
        Lipschitz constant of the gradient of f: the mean curvature.
    delta : float
        Dissimilarity of Hessians, ``max_i |curvatures[i] - L|``: the gradient of ``f_i - f`` has this Lipschitz constant.
    ell : float
        ``max_i |curvatures[i]|``, the largest Lipschitz constant of the clients' own gradients.

    Raises
    ------
    InvalidInputError
        If the numbers are not finite, the shapes do not fit or the mean curvature is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> problem = ClientQuadratics([1.0, 3.0], [[4.0], [0.0]])
    >>> problem.minimiser.tolist(), problem.L, problem.delta, problem.gradient(1, np.ones(1)).tolist()
    ([1.0], 2.0, 1.0, [3.0])
    """

    def __init__(self, curvatures: Any, centres: Any) -> None:
        self.curvatures = _numbers(curvatures, "curvatures", 1, np.dtype(float))
        single = getattr(centres, "dtype", None) == np.float32
        self.centres = _numbers(centres, "centres", 2, np.dtype(np.float32 if single else np.float64))
        self.n_clients, self.dim = self.centres.shape
        self.dtype = self.centres.dtype
        if self.curvatures.shape != (self.n_clients,):
            raise InvalidInputError(
                f"curvatures must have one number for each of the {self.n_clients} rows of centres, not {self.curvatures.size}"
            )
        self.L = float(self.curvatures.mean())
        if not self.L > 0:
            raise InvalidInputError(f"the mean of curvatures must be positive, not {self.L:g}: f has no minimiser otherwise")
        self.delta = float(np.abs(self.curvatures - self.L).max())
        self.ell = float(np.abs(self.curvatures).max())
        minimiser = self.curvatures @ self.centres.astype(float) / self.curvatures.sum()
        self.minimiser = minimiser.astype(self.dtype)
        self.minimum = float(self.curvatures @ ((minimiser - self.centres) ** 2).sum(axis=1)) / (2 * self.n_clients)
        self._factors = self.curvatures.tolist()  # Python's numbers leave float32 as it is

    @classmethod
    def of_paper(cls, zeta: float, n: int = 4, dim: int = 10, seed: int = 0) -> Self:
        """The quadratics of the AsyncBC paper: ``f_i(x) = |A_i x - b_i|^2 / 2``, ``A_i = i/sqrt(n) I``, i = 1..n.

        ``b_i = (zeta / i) z_i`` with z_i standard normal; the z_i depend on the seed alone, so problems of different zeta
        are scaled copies. Client 0 is the paper's worker 1.

        Parameters
        ----------
        zeta : float
            Heterogeneity, >= 0; with 0 all clients have the minimiser 0.
        n : int
            Number of clients.
        dim : int
            Number of variables.
        seed : int
            Of the z_i.

        References
        ----------
        AsyncBC, section 5, after Koloskova, Loizou, Boreiri, Jaggi, Stich, "A unified theory of decentralized SGD with
        changing topology and local updates", ICML 2020.

        Examples
        --------
        >>> problem = ClientQuadratics.of_paper(zeta=10.0)
        >>> problem.curvatures.tolist(), problem.L, problem.delta
        ([0.25, 1.0, 2.25, 4.0], 1.875, 2.125)
        """
        zeta, n, dim = number(zeta, "zeta", low=0.0), integer(n, "n"), integer(dim, "dim")
        i = np.arange(1.0, n + 1)
        normal = np.random.default_rng(check_seed(seed)).standard_normal((n, dim))
        centres = zeta * np.sqrt(n) * normal / (i * i)[:, np.newaxis]  # b_i / A_i
        return cls(i * i / n, centres)

    def fields(self) -> dict[str, Any]:
        return {"curvatures": self.curvatures, "centres": self.centres}

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        gradient = x - self.centres[client]
        gradient *= self._factors[client]
        return gradient

    def constants(self) -> SmoothnessConstants:
        """L, delta and ell, exact."""
        return SmoothnessConstants(self.L, self.delta, self.ell, exact=True)

    def full_gradient(self, x: Array) -> Array:
        """Gradient of f at x (..., dim), a new array."""
        gradient = x - self.minimiser
        gradient *= self.L
        return gradient

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """``objective``, ``distance`` to the minimiser and ``gradient_norm`` (of f)."""
        found = {}
        distance = np.linalg.norm(x - self.minimiser, axis=-1)
        if names is None or "objective" in names:
            found["objective"] = self.minimum + self.L / 2 * distance**2
        if names is None or "distance" in names:
            found["distance"] = distance
        if names is None or "gradient_norm" in names:
            found["gradient_norm"] = self.L * distance
        return found


def _numbers(value: Any, name: str, ndim: int, dtype: np.dtype[Any]) -> Array:
    """A new array of finite numbers."""
    try:
        found = np.array(value, dtype)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.ndim != ndim or not found.size or not np.isfinite(found).all():
        shape = "(n,)" if ndim == 1 else "(n, dim)"
        raise InvalidInputError(f"{name} must be an array {shape} of finite numbers, not {value!r}")
    return found
