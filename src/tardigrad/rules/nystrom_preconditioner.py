"""EigenPro's preconditioner: the top directions of a subsample's kernel matrix, damped to the level of its tail.

Rules of this file:

- K_ss and its eigenvectors are float64, whatever the problem's type (the iteration for large ones goes through float32);
- sigma_i are eigenvalues of K_ss, ``lam_i = sigma_i / s``; q directions are damped, lam_{q+1} is the tail;
- what is damped has an eigenvalue above rounding: duplicate rows leave zeros, which are never divided by.

References
----------
[1] Ma, Belkin, "Kernel machines that adapt to GPUs for effective large batch training" (EigenPro 2), MLSys 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.theory import eigenpro

Floats = npt.NDArray[np.float64]

#: eigenvalues that are looked at, whatever the spectrum
_LEAST = 6
#: eigenvalues below this share of the largest are rounding: kernel entries are float32 in a run
_ROUNDING = 1e-7
#: from so many rows on subspace iteration takes the place of the dense solver, in so many steps
_ITERATED, _STEPS = 1000, 3


@dataclass(frozen=True, eq=False)
class NystromPreconditioner(Plain):
    """What a worker needs of its subsample; `preconditioner` makes one.

    Parameters
    ----------
    vectors : array (s, q)
        Eigenvectors of K_ss that are damped, largest eigenvalue first.
    scale : array (q,)
        ``(1 - (lam_{q+1} / lam_i)^exponent) / sigma_i``.
    beta : float
        Largest diagonal entry of the preconditioned kernel matrix, on the subsample:
        ``max_i k_ii - sum_j (1 - (lam_{q+1}/lam_j)^exponent) sigma_j u_ij^2``.
    top : float
        lam', its largest normalised eigenvalue: ``lam_1^(1-exponent) lam_{q+1}^exponent``.
    tail : float
        lam_{q+1}.
    """

    vectors: Floats
    scale: Floats
    beta: float
    top: float
    tail: float

    @cached_property
    def _of_type(self) -> dict[np.dtype[Any], tuple[Array, Array]]:
        """Vectors and scale in other types."""
        return {}

    def _in(self, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        found = self._of_type.get(dtype)
        if found is None:
            found = self._of_type[dtype] = self.vectors.astype(dtype), self.scale.astype(dtype)
        return found

    def along(self, C: Array) -> Array:
        """``C U``: a batch along the damped directions, from which `beta_of` and `correction` are computed.

        Parameters
        ----------
        C : array (m, s)
            Kernel entries of the batch with the subsample.

        Returns
        -------
        array (m, q)
            In C's type.
        """
        along: Array = C @ self._in(C.dtype)[0]
        return along

    def beta_of(self, along: Array, diagonal: Array | float) -> float:
        """`beta`, or the largest entry of the preconditioned diagonal at a batch's rows where that is larger.

        The subsample's own beta is too small for rows that are unlike it: up to 1.35 times on outliers. With this one in
        each batch's step, batches of 32 rows of California housing converged with factors 1.75 and 2, else they diverged.

        Parameters
        ----------
        along : array (m, q)
            The batch along the damped directions.
        diagonal : float or array (m,)
            k(x, x) of the batch.

        Examples
        --------
        >>> import numpy as np
        >>> made = preconditioner(np.diag([4.0, 1.0]), None, n_damped=1, exponent=1.0)
        >>> made.beta_of(made.along(np.zeros((1, 2))), 3.0)
        3.0
        """
        entries = diagonal - (along * along) @ self._in(along.dtype)[1]
        return max(self.beta, float(np.max(entries)))

    @property
    def n_damped(self) -> int:
        """The number of damped directions, q."""
        return len(self.scale)

    def correction(self, along: Array, g: Array) -> Array:
        """``U diag(scale) U' C' g``: what a batch adds to the subsample's coefficients, before the step.

        Parameters
        ----------
        along : array (m, q)
            The batch along the damped directions, ``C U``, C its kernel entries with the subsample.
        g : array (m, c)
            The batch's residuals.

        Returns
        -------
        array (s, c)
            In g's type.

        Examples
        --------
        >>> import numpy as np
        >>> made = preconditioner(np.diag([4.0, 1.0]), None, n_damped=1, exponent=1.0)
        >>> made.correction(made.along(np.eye(2)), np.ones((2, 1))).ravel()
        array([0.1875, 0.    ])
        """
        vectors, scale = self._in(g.dtype)
        correction: Array = vectors @ (scale[:, np.newaxis] * (along.T @ g))
        return correction


def preconditioner(
    K_ss: npt.ArrayLike,
    diagonal: npt.ArrayLike | None = None,
    n_damped: int | None = None,
    exponent: float = 0.95,
    largest_batch: int | None = None,
) -> NystromPreconditioner:
    """The preconditioner of a subsample.

    Parameters
    ----------
    K_ss : array (s, s)
        Kernel matrix of the subsample, symmetric; float64 is used. It is not changed.
    diagonal : float or array (s,), optional
        k(x, x) of the subsample; by default K_ss's diagonal.
    n_damped : int, optional
        q; by default `theory.eigenpro.n_damped` of the spectrum. At most as many as leave a tail above rounding.
    exponent : float
        In (0, 1].
    largest_batch : int, optional
        m_G, for the default of n_damped; by default s, which damps most.

    Returns
    -------
    NystromPreconditioner

    Raises
    ------
    InvalidInputError
        If K_ss is not a symmetric matrix of finite numbers with a positive entry, or an argument is out of its range.

    Notes
    -----
    Up to 1000 rows LAPACK's dense solver is used, beyond it subspace iteration (`_iterated`): for 2000 rows a fifth of the
    dense solver's time. The preconditioned matrix has the same top eigenvalue to 0.1 % (measured), which is all that counts.

    Memory: `theory.eigenpro.preconditioner_bytes`, K_ss included.

    Damping by the whole subsample (largest_batch = s) fits the directions to the sample. On rows outside it the top
    eigenvalue was 1.1 to 1.7 times `top`, and beta up to 1.35 times as large, the more so the smaller the sample's share
    (EigenPro 2's s/5: 1.1). Steps are longer all the same: after 9 epochs of 4000 rows of Fashion-MNIST, one worker, batches
    of 128, factor 1, the relative residual was 0.014 with it, 0.035 with s/2, and 0.11 with s/5.

    Examples
    --------
    >>> import numpy as np
    >>> made = preconditioner(np.diag([4.0, 1.0, 0.5]), None, n_damped=1, exponent=1.0)
    >>> made.n_damped, made.beta, round(made.top * 3, 12), made.tail * 3
    (1, 1.0, 1.0, 1.0)
    """
    matrix, own = _checked(K_ss, diagonal)
    s, power = len(matrix), number(exponent, "exponent", above=0.0, high=1.0)
    most = s if largest_batch is None else integer(largest_batch, "largest_batch")
    if n_damped is None:
        bound = s * min(max(s // 5, most), s) ** (-1 / power)  # what n_damped counts is above it
        sigma, vectors = _above(matrix, bound, least=_LEAST)
    else:
        sigma, vectors = _largest(matrix, integer(n_damped, "n_damped", 0) + 1)
    positive = int(np.count_nonzero(sigma > _ROUNDING * sigma[0]))
    sigma = sigma[:positive]
    q = eigenpro.n_damped(sigma / s, s, most, power) if n_damped is None else min(n_damped, positive - 1)
    tail = sigma[q]
    damped = 1 - (tail / sigma[:q]) ** power
    U = np.ascontiguousarray(vectors[:, :q])
    top = float(sigma[0] ** (1 - power) * tail**power if q else sigma[0]) / s
    beta = float(np.max(own - (U * U) @ (damped * sigma[:q])))  # a trace is at least the top eigenvalue
    return NystromPreconditioner(U, damped / sigma[:q], max(beta, top), top, float(tail) / s)


def _checked(K_ss: npt.ArrayLike, diagonal: npt.ArrayLike | None) -> tuple[Floats, Floats]:
    matrix = np.asarray(K_ss, np.float64)
    if matrix.ndim != 2 or not matrix.size or matrix.shape[0] != matrix.shape[1]:
        raise InvalidInputError(f"K_ss must be a square matrix, not of shape {matrix.shape}")
    if not np.isfinite(matrix.sum()):
        raise InvalidInputError(
            "kernel values K_ss of a subsample must be finite: look for NaN or infinity in the data, or overflow in the kernel"
        )
    if not np.diag(matrix).max() > 0:
        raise InvalidInputError(
            "kernel values K_ss of a subsample must have a positive diagonal: the kernel of a row with itself is 0 or less"
        )
    own = np.asarray(np.diag(matrix) if diagonal is None else diagonal, np.float64)
    if own.shape not in {(), (len(matrix),)} or not np.isfinite(own).all():
        raise InvalidInputError(
            f"diagonal must be one finite number, or one for each of the {len(matrix)} rows, not {diagonal!r}"
        )
    return matrix, np.broadcast_to(own, len(matrix))


def _largest(matrix: Floats, count: int) -> tuple[Floats, Floats]:
    """The `count` largest eigenvalues, largest first, with their vectors."""
    s = len(matrix)
    if s >= _ITERATED and 6 * count <= s:
        sigma, vectors = _iterated(matrix, count + s // 24)
        return sigma[:count], vectors[:, :count]
    return _dense(matrix, subset_by_index=[max(0, s - count), s - 1])


def _above(matrix: Floats, bound: float, least: int) -> tuple[Floats, Floats]:
    """The eigenvalues above `bound`, and at least `least`; of a large matrix at most a sixth of all."""
    s = len(matrix)
    if s >= _ITERATED:
        sigma, vectors = _iterated(matrix, s // 6)
        count = max(int(np.count_nonzero(sigma > bound)), least)
        return sigma[:count], vectors[:, :count]
    sigma, vectors = _dense(matrix, subset_by_value=[bound, np.inf])
    return (sigma, vectors) if len(sigma) >= min(least, s) else _largest(matrix, least)


def _dense(matrix: Floats, **subset: Any) -> tuple[Floats, Floats]:
    sigma, vectors = scipy.linalg.eigh(matrix, driver="evr", check_finite=False, **subset)
    return sigma[::-1], vectors[:, ::-1]


def _iterated(matrix: Floats, columns: int) -> tuple[Floats, Floats]:
    """Ritz pairs of a large matrix by subspace iteration in float32, with a Rayleigh-Ritz step in float64.

    Ritz vectors U are orthonormal and ``U' K U`` is diagonal to float64's rounding, so what they damp is damped exactly. What
    they miss of a direction i is ``(sigma_columns / sigma_i)^(2 steps)`` of it: the larger, the less, so that the rest stays
    below the tail.
    """
    single = matrix.astype(np.float32)
    Q = np.random.default_rng(0).standard_normal((len(matrix), columns), np.float32)
    for _ in range(_STEPS):
        Q = np.linalg.qr(single @ Q)[0]
    del single
    Q = np.linalg.qr(Q.astype(np.float64))[0]
    sigma, turn = np.linalg.eigh(Q.T @ (matrix @ Q))
    return sigma[::-1], (Q @ turn)[:, ::-1]
