"""Constants of linear models from their data: L of f, delta of the clients' differences, ell of their samples.

With ``H_i = (1/m) sum a_r a_r'`` over the m rows of client i, ``H = sum_i w_i H_i``, and c the largest curvature of the loss,
the Hessian of ``f_i`` is at most ``c H_i`` and that of the regularizer, and equal to them for least squares.

Rules of this file:

- everything is float64, whatever the rows are; nothing larger than `DENSE` squared is formed, sparse rows stay sparse;
- eigenvalues are those of ARPACK, to `TOLERANCE`, from a seeded start;
- of the clients' differences only those are computed that a bound does not rule out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg

from tardigrad.core.smoothness import SmoothnessConstants
from tardigrad.core.task import Array
from tardigrad.problems.linear_model import LinearModel, chunks
from tardigrad.problems.regularizers import L2

Operator = Callable[[Array], Array]

#: features up to which the matrix of second moments is formed
DENSE = 2048
#: entries of dense rows up to which they are converted to float64 at once
ENTRIES = 2**24
#: features up to which all eigenvalues are computed
SMALL = 100
#: relative accuracy of an eigenvalue
TOLERANCE = 1e-10


def linear_constants(model: LinearModel, *, quadratic: bool) -> SmoothnessConstants:
    """L, delta and ell of a linear model with a convex loss; exact for a quadratic one with `L2` or no regularizer.

    Parameters
    ----------
    model : LinearModel
        Its loss is convex with second derivatives in [0, c], c being ``loss_curvature``.
    quadratic : bool
        Whether they are all equal to c.

    Notes
    -----
    Let ``s_i = n w_i`` (1 for equal weights), and let R be the regularizer's largest curvature, rho for ``L2(rho)``.

    ``L = c lambda_max(H) + R``. Least squares and logistic regression reach it at x = 0, where the regularizers have it too.

    *delta* is the largest ``|H - s_i H_i + (1 - s_i) rho I|`` for least squares with L2: the regularizer drops out where
    weights are equal. Otherwise gradients differ by ``P - N``, averaged along the segment between two points: P is made of
    rows of other clients with ``0 <= P <= c (H - w_i H_i)``, N of the client's with ``0 <= N <= c (s_i - w_i) H_i``, in the
    order of symmetric matrices. Of such a difference the norm is at most ``max(|P|, |N|)``. As ``s_i = n w_i``, P is a sum of
    n - 1 matrices that are each at most ``w_j c H_j``, so no P exceeds the largest ``N = (n-1) w_j c H_j``: delta is at most
    ``c (1 - 1/n) max s_i lambda_max(H_i)``, to which the regularizer adds at most ``R max |1 - s_i|``.

    *ell*: a sample of b rows gives ``g_S = (M_S + rho I) v`` between two points that differ by v, with M_S the mean of its
    ``c_r a_r a_r'``, c_r in [0, c]. Without replacement a pair of different rows is drawn with probability
    ``b (b-1) / (m (m-1))``, a single row with b/m. So with ``alpha = (m-b) / (b (m-1))``, or 1/b with replacement::

        E|M_S v|^2 = alpha (1/m) sum |a_r|^2 c_r^2 (a_r . v)^2 + (1 - alpha) |M v|^2,   M = (1/m) sum c_r a_r a_r'

    For least squares (c_r = c = 1) the expectation of ``|g_S|^2`` is thus ``v' (alpha Q + (1 - alpha) H_i^2 + 2 rho H_i +
    rho^2 I) v``, ``Q = (1/m) sum |a_r|^2 a_r a_r'``, and ell^2 the largest eigenvalue of that matrix, exactly. For other
    losses ``|M v|^2 <= |M| v'Mv <= c^2 lambda_max(H_i) v'H_i v`` bounds the second term, c_r by c the others. A regularizer
    that is not L2 adds at most R to ell (Minkowski). All is multiplied by s_i; several outputs change nothing, as the
    curvature of each row's loss stays between 0 and c, now as a matrix.

    Cost: a few eigenvalues a client; beyond `DENSE` features each may take some hundred passes over all rows.
    """
    n, dim = model.n_clients, int(model.data.X.shape[1])
    whole = gram(model.data.X, model._row_weights())
    top = largest_eigenvalue(whole, dim)
    L = model.loss_curvature * top + model.regularizer.curvature
    exact = quadratic and isinstance(model.regularizer, L2)
    tops, ell = np.empty(n), 0.0
    for client in range(1 if model.shared_data else n):
        X = model.data.X[model.rows_of(client)]
        tops[client], own = _of_samples(model, X, quadratic)
        ell = max(ell, model.scale(client) * own)
    delta = 0.0 if n == 1 or model.shared_data else _dissimilarity(model, whole, top, tops, quadratic)
    return SmoothnessConstants(float(L), float(delta), float(max(ell, L)), exact)


def _of_samples(model: LinearModel, X: Any, quadratic: bool) -> tuple[float, float]:
    """lambda_max of H_i, and ell of the client without its scale."""
    n_rows, dim = X.shape
    c, R = model.loss_curvature, model.regularizer.curvature
    rho = R if isinstance(model.regularizer, L2) else 0.0
    H = gram(X, np.full(n_rows, 1 / n_rows))
    top = largest_eigenvalue(H, dim)
    alpha = single_share(n_rows, model.batch)
    if alpha == 0:
        return top, c * top + R
    sizes = np.asarray((X.multiply(X) if sp.issparse(X) else X.astype(np.float64) ** 2).sum(axis=1)).ravel()
    Q = gram(X, alpha / n_rows * sizes)

    def second_moment(v: Array) -> Array:
        Hv = H(v)
        pairs = H(Hv) if quadratic else top * Hv
        return c**2 * (Q(v) + (1 - alpha) * pairs) + 2 * rho * c * Hv

    return top, math.sqrt(largest_eigenvalue(second_moment, dim) + rho**2) + R - rho


def single_share(n_rows: int, batch: int | None) -> float:
    """The alpha of `linear_constants`: the share of a sample's second moment that is due to single rows.

    Examples
    --------
    >>> single_share(10, None), single_share(10, 1), single_share(10, 10), single_share(4, 8)
    (0.0, 1.0, 0.0, 0.125)
    """
    if batch is None or batch == n_rows:
        return 0.0
    return 1 / batch if batch > n_rows else (n_rows - batch) / (batch * (n_rows - 1))


def _dissimilarity(model: LinearModel, whole: Operator, top: float, tops: Array, quadratic: bool) -> float:
    """The delta of `linear_constants`; the clients that may be the most different first."""
    c, R, dim = model.loss_curvature, model.regularizer.curvature, int(model.data.X.shape[1])
    scales = np.array([model.scale(client) for client in range(model.n_clients)])
    own = c * scales * (1 - 1 / model.n_clients) * tops  # norms of N
    regular = np.abs(1 - scales) * R
    if not quadratic:
        return float(own.max() + regular.max())
    ridge = isinstance(model.regularizer, L2)
    bounds = np.maximum(c * top, own) + regular
    best = 0.0
    for client in np.argsort(-bounds, kind="stable").tolist():
        if bounds[client] <= best:
            break
        X = model.data.X[model.rows_of(client)]
        H, scale = gram(X, np.full(X.shape[0], 1 / X.shape[0])), scales[client]
        difference = _minus(whole, H, scale, (1 - scale) * R / c if ridge else 0.0)
        found = c * largest_eigenvalue(difference, dim, of=top + scale * tops[client])
        best = max(best, found if ridge else found + regular[client])
    return best


def _minus(whole: Operator, H: Operator, factor: float, shift: float) -> Operator:
    return lambda v: whole(v) - factor * H(v) + shift * v


def gram(X: Any, weights: Array) -> Operator:
    """``v -> X' diag(weights) X v`` in float64, for v (features,) or (features, k).

    Examples
    --------
    >>> gram(np.array([[1.0, 2.0]], np.float32), np.ones(1))(np.array([1.0, 0.0]))
    array([1., 2.])
    """
    n_rows, dim = X.shape
    if dim <= DENSE and 2 * n_rows >= dim:
        G = np.zeros((dim, dim))
        for part in chunks(slice(0, n_rows)):
            A = X[part].astype(np.float64)
            product = A.T @ (A * weights[part, None])
            G += product.toarray() if sp.issparse(product) else product
        return lambda v: G @ v
    if sp.issparse(X) or n_rows * dim <= ENTRIES:
        blocks = [(X.astype(np.float64), weights)]
        return lambda v: _pass(blocks, v)
    return lambda v: _pass(((X[part].astype(np.float64), weights[part]) for part in chunks(slice(0, n_rows))), v)


def _pass(blocks: Any, v: Array) -> Array:
    image = np.zeros(v.shape)
    for A, weights in blocks:
        image += A.T @ ((A @ v) * (weights if v.ndim == 1 else weights[:, None]))
    return image


def largest_eigenvalue(apply: Operator, dim: int, *, of: float | None = None) -> float:
    """The largest eigenvalue of a symmetric operator; the largest magnitude of a difference of terms of norm `of`.

    Examples
    --------
    >>> d = np.array([[1.0], [-3.0]])
    >>> largest_eigenvalue(lambda v: d * v, 2), largest_eigenvalue(lambda v: d * v, 2, of=3.0)
    (1.0, 3.0)
    """
    if dim <= SMALL:
        matrix = apply(np.eye(dim))
        values = scipy.linalg.eigvalsh((matrix + matrix.T) / 2)
        return float(values[-1] if of is None else np.abs(values).max())
    start = np.random.default_rng(0).standard_normal(dim)
    if np.linalg.norm(apply(start)) <= 1e-13 * (of or 0.0) * np.linalg.norm(start):
        return 0.0  # rounding: ARPACK would look for the spectrum of noise
    operator = scipy.sparse.linalg.LinearOperator((dim, dim), matvec=apply, dtype=np.float64)
    which = "LA" if of is None else "LM"
    values = scipy.sparse.linalg.eigsh(operator, 1, which=which, v0=start, tol=TOLERANCE, return_eigenvectors=False)
    return float(abs(values[0]) if of is not None else values[0])
