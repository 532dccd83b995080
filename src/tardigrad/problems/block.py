"""Projection onto the solutions of a block of equations.

Rules of this file:

- a block's equations are scaled to unit norm first: a projection does not depend on the scale, rounding does;
- products of rows are factored by Cholesky, and what that solves is refined once where they are badly conditioned; where rows
  depend on each other, by singular values of the rows themselves, with a cut-off: a block may hold an equation twice.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.metric import Metric

#: products whose condition is below one over so many roundings are factored by Cholesky: 4e11 in float64
REFINED = 1e4
#: threads that multiply the columns of a tall block
PANELS = 4


class Block:
    """The equations ``M x = c``, ready to be projected onto.

    Parameters
    ----------
    M : array or CSR array (k, dim)
        Left-hand sides; a dense one is changed.
    c : array (k,)
        Right-hand sides.
    metric : Metric
        In which to project.
    names : array (k,), optional
        Numbers of the rows, for messages.
    factor : Factor, optional
        The factor of the same block, found earlier.

    Raises
    ------
    InvalidInputError
        If a row is zero and its right-hand side is not.

    Examples
    --------
    >>> import numpy as np
    >>> block = Block(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([3.0, 6.0]), Metric(None, 2, np.dtype(float)))
    >>> block.step(np.array([[1.0, 1.0]]))
    array([[-2.,  0.]])
    """

    def __init__(self, M: Any, c: Array, metric: Metric, names: Array | None = None, factor: Factor | None = None) -> None:
        self.metric = metric
        scales = scales_of(M, c, metric, names) if factor is None else factor.scales
        self._scales = scales
        if sp.issparse(M):
            self.M: Any = sp.csr_array(sp.diags_array(1 / scales) @ M)
        else:
            M /= scales[:, None]
            self.M = M
        self.c = c / scales
        self.factor = Factor(self.M, metric, scales) if factor is None else factor

    def step(self, x: Array, homogeneous: bool = False) -> Array:
        """``B^-1 M' (M B^-1 M')^+ (M x - c)`` for x (n, dim): subtracted from x, it gives the nearest solutions.

        `homogeneous`: for c = 0.
        """
        if self.factor.kind == "columns":
            return np.concatenate([self._all_unknowns(point, homogeneous) for point in x]).reshape(x.shape)
        if len(x) == 1 and not sp.issparse(self.M):  # products with vectors take another path than with matrices
            residual = self.M @ x[0]
            if not homogeneous:
                residual -= self.c
            return self.metric.solve(self.factor.solve(residual[None])[0] @ self.M)[None]
        residual = (self.M @ x.T).T
        multipliers = self.factor.solve(residual if homogeneous else residual - self.c)
        return self.metric.solve(np.ascontiguousarray((self.M.T @ multipliers.T).T))

    def _all_unknowns(self, x: Array, homogeneous: bool) -> Array:
        """``(M'M)^-1 M'(M x - c)`` at x (dim,): such a block has one solution, whatever B is. Refined once."""
        residual = self.M @ x
        if not homogeneous:
            residual -= self.c
        step = self.factor.solve((residual @ self.M)[None])[0]
        step += self.factor.solve(((residual - self.M @ step) @ self.M)[None])[0]
        return step

    @property
    def nbytes(self) -> int:
        """Memory of the rows."""
        M = self.M
        return int(M.data.nbytes + M.indices.nbytes + M.indptr.nbytes if sp.issparse(M) else M.nbytes)


class Factor:
    """The pseudo-inverse of the products ``M B^-1 M'`` of unit rows.

    Attributes
    ----------
    kind : {"cholesky", "columns", "basis", "nonfinite"}
        How it was found: by Cholesky; by Cholesky of ``M'M``, where there are more rows than unknowns; by singular values,
        where rows depend on each other or nearly so; not at all.
    """

    def __init__(self, M: Any, metric: Metric, scales: Array) -> None:
        self.scales = scales
        self._products: Array | None = None
        if M.shape[0] > M.shape[1] and not sp.issparse(M) and self._by_columns(M):
            return
        dense = M.toarray() if sp.issparse(M) and metric.is_matrix else M
        products = dense @ metric_solve(dense, metric).T
        products = products.toarray() if sp.issparse(products) else products
        #: rows of zeros: they are given the norm 1, so that the others can be factored
        zero = np.diagonal(products) == 0
        self.n_zero = int(np.count_nonzero(zero))
        products[zero, zero] = 1
        self.kind = "cholesky"
        if not np.isfinite(products).all():
            self.kind, self._left = "nonfinite", products
            return
        potrf, pocon = scipy.linalg.get_lapack_funcs(("potrf", "pocon"), (products,))
        norm = np.abs(products).sum(axis=0).max()
        self._left, info = potrf(products, lower=True, clean=False)
        if info == 0:
            rcond, _ = pocon(self._left, norm, uplo="L")
            eps = np.finfo(products.dtype).eps
            if rcond > min(np.sqrt(eps), REFINED * eps):
                self._products = products if rcond < np.sqrt(eps) else None
                return
        self.kind = "basis"
        rows = metric.whiten(M.toarray() if sp.issparse(M) else M)
        left, values, _ = _svd(rows)
        kept = values > _cutoff(rows.shape, values)
        self._left, self._inverse = np.ascontiguousarray(left[:, kept]), values[kept] ** -2

    def _by_columns(self, M: Array) -> bool:
        """Factor ``M'M``; False where the unknowns are not clearly determined."""
        products = gram(M)
        self.n_zero, trace = 0, float(np.trace(products))
        if not np.isfinite(trace):
            return False
        potrf, pocon = scipy.linalg.get_lapack_funcs(("potrf", "pocon"), (products,))
        self._left, info = potrf(products, lower=True, clean=False)
        self.kind = "columns"
        return bool(info == 0 and pocon(self._left, trace, uplo="L")[0] > REFINED * np.finfo(products.dtype).eps)

    def solve(self, r: Array) -> Array:
        """``(M B^-1 M')^+ r`` for r (n, k); ``(M'M)^-1 r`` for r (n, dim) where the kind is "columns"."""
        if self.kind == "nonfinite":
            return np.full_like(r, np.nan)
        if self.kind in ("cholesky", "columns"):
            solved: Array = scipy.linalg.cho_solve((self._left, True), r.T, check_finite=False)
            if self._products is not None:
                solved += scipy.linalg.cho_solve((self._left, True), r.T - self._products @ solved, check_finite=False)
            return solved.T
        return ((r @ self._left) * self._inverse) @ self._left.T

    @property
    def rank(self) -> int:
        """Number of independent rows; rows of zeros in a block whose others are independent are not counted."""
        return self._left.shape[1] - (self.n_zero if self.kind == "cholesky" else 0)

    @property
    def nbytes(self) -> int:
        """Memory of the factor."""
        return int(self._left.nbytes) * (1 if self._products is None else 2)


def gram(M: Array) -> Array:
    """``M'M``, its lower half; panels of columns on plain threads, with the same bits whatever their number."""
    n = M.shape[1]
    products = np.zeros((n, n), M.dtype)
    ends = [n * k // (2 * PANELS) for k in range(2 * PANELS + 1)]

    def panels(k: int) -> None:
        for i in (k, 2 * PANELS - 1 - k):  # a short one and a long one
            low, high = ends[i], ends[i + 1]
            np.matmul(M[:, low:high].T, M[:, :high], out=products[low:high, :high])

    threads = [threading.Thread(target=panels, args=(k,)) for k in range(1, PANELS)]
    for thread in threads:
        thread.start()
    panels(0)
    for thread in threads:
        thread.join()
    return products


def orthonormal_rows(M: Any, c: Array, metric: Metric) -> Array:
    """Rows (rank, dim), orthonormal, that span the whitened rows of M: the block's ``B^-1/2 Z B^-1/2`` is ``Q'Q``.

    In the precision of `c` and `metric`.
    """
    dense = metric.whiten((M.toarray() if sp.issparse(M) else M).astype(c.dtype) / scales_of(M, c, metric)[:, None])
    _, values, V = _svd(dense)
    return V[values > _cutoff(dense.shape, values)]


def metric_solve(M: Any, metric: Metric) -> Any:
    """``M B^-1``; of a sparse M for an identity or diagonal B only."""
    if not sp.issparse(M):
        return metric.solve(M)
    return M if metric.B is None else sp.csr_array(M @ sp.diags_array(1 / metric.B))


def scales_of(M: Any, c: Array, metric: Metric, names: Array | None = None) -> Array:
    """The rows' norms in B^-1; 1 for rows of zeros."""
    from tardigrad.problems.row_steps import inconsistent_row, row_squares

    precision = np.finfo(c.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = row_squares(M, metric)
    right = (squares > precision.tiny / precision.eps) & (squares < precision.max)
    if right.all():
        return np.sqrt(squares).astype(c.dtype)
    scales = np.sqrt(np.where(right, squares, 1.0))
    for i in np.flatnonzero(~right):
        row = M[[i]].toarray()[0] if sp.issparse(M) else M[i]
        largest = float(np.abs(row).max())
        if largest == 0:
            if c[i] != 0 and names is not None:
                raise inconsistent_row(int(names[i]), c[i])
            if c[i] != 0:
                raise InvalidInputError(f"a combination of equations reads 0 = {c[i]:g}: the system has no solution")
        else:
            unit = row.astype(np.float64) / largest
            scales[i] = largest * float(np.sqrt(unit @ metric.solve(unit.astype(c.dtype))))
    return scales.astype(c.dtype)


def _svd(rows: Array) -> tuple[Array, Array, Array]:
    try:
        left, values, right = scipy.linalg.svd(rows, full_matrices=False, check_finite=False)
    except np.linalg.LinAlgError:  # the fast algorithm fails for a few matrices
        left, values, right = scipy.linalg.svd(rows, full_matrices=False, check_finite=False, lapack_driver="gesvd")
    return left, values, right


def _cutoff(shape: tuple[int, ...], values: Array) -> float:
    """Singular values up to this are rounding: numpy's `matrix_rank` takes the same."""
    return float(values[0] * max(shape) * np.finfo(values.dtype).eps)
