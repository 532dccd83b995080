"""What a kernel k(x, z) is, and the median heuristic for its bandwidth.

Rules of this file:

- a kernel is plain data, and knows nothing of the points: blocks of its values are computed by `kernel_blocks`;
- a bandwidth "auto" becomes a number by `fitted`, once, from a seeded subsample.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array

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
        >>> from tardigrad import Gaussian
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
        >>> from tardigrad import Laplacian
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
