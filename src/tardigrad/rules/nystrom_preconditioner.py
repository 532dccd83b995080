"""EigenPro's preconditioner: the top directions of a subsample's kernel matrix, damped to the level of its tail.

Rules of this file:

- K_ss and its eigenvectors are float64, whatever the problem's type;
- sigma_i are eigenvalues of K_ss, ``lam_i = sigma_i / s``; q directions are damped, lam_{q+1} is the tail;
- what is damped has an eigenvalue above rounding: duplicate rows leave zeros, which are never divided by.

References
----------
[1] Ma, Belkin, "Kernel machines that adapt to GPUs for effective large batch training" (EigenPro 2), MLSys 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.theory import eigenpro

Floats = npt.NDArray[np.float64]


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

    @property
    def n_damped(self) -> int:
        """The number of damped directions, q."""
        return len(self.scale)

    def correction(self, C: Array, g: Array) -> Array:
        """``U diag(scale) U' C' g``: what a batch adds to the subsample's coefficients, before the step.

        Parameters
        ----------
        C : array (m, s)
            Kernel entries of the batch with the subsample.
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
        >>> made.correction(np.eye(2), np.ones((2, 1))).ravel()
        array([0.1875, 0.    ])
        """
        along = self.vectors.T @ (C.T @ g)
        along *= self.scale[:, np.newaxis]
        return (self.vectors @ along).astype(g.dtype, copy=False)


def preconditioner(
    K_ss: npt.ArrayLike,
    diagonal: npt.ArrayLike | None = None,
    n_damped: int | None = None,
    exponent: float = 0.95,
    largest_batch: int = 1,
) -> NystromPreconditioner:
    """The preconditioner of a subsample.

    Parameters
    ----------
    K_ss : array (s, s)
        Kernel matrix of the subsample, symmetric; float64 is used.
    diagonal : float or array (s,), optional
        k(x, x) of the subsample; by default K_ss's diagonal.
    n_damped : int, optional
        q; by default `theory.eigenpro.n_damped` of the spectrum. At most as many as leave a tail above rounding.
    exponent : float
        In (0, 1].
    largest_batch : int
        m_G, for the default of n_damped.

    Returns
    -------
    NystromPreconditioner

    Raises
    ------
    InvalidInputError
        If K_ss is not a square matrix of finite numbers, or an argument is out of its range.

    Notes
    -----
    Memory: K_ss in float64, one copy of it as workspace, and the vectors: `theory.eigenpro.preconditioner_bytes`.

    Examples
    --------
    >>> import numpy as np
    >>> made = preconditioner(np.diag([4.0, 1.0, 0.5]), None, n_damped=1, exponent=1.0)
    >>> made.n_damped, made.beta, made.top * 3, made.tail * 3
    (1, 1.0, 1.0, 1.0)
    """
    matrix = np.asarray(K_ss, np.float64)
    if matrix.ndim != 2 or not matrix.size or matrix.shape[0] != matrix.shape[1]:
        raise InvalidInputError(f"K_ss must be a square matrix, not of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise InvalidInputError("K_ss must be finite: look for NaN or infinity in the data, or for overflow in the kernel")
    s, power = len(matrix), number(exponent, "exponent", above=0.0, high=1.0)
    own = np.broadcast_to(np.asarray(np.diag(matrix) if diagonal is None else diagonal, np.float64), s)
    sigma, vectors = scipy.linalg.eigh(matrix, driver="evr", check_finite=False)
    sigma, vectors = sigma[::-1], vectors[:, ::-1]
    rounding = s * np.finfo(np.float64).eps * max(sigma[0], 0.0)
    positive = int(np.count_nonzero(sigma > rounding))
    if n_damped is None:
        q = eigenpro.n_damped(np.where(sigma > rounding, sigma, 0.0) / s, s, largest_batch, power)
    else:
        q = integer(n_damped, "n_damped", 0)
    q = max(0, min(q, positive - 1))
    tail = float(sigma[q]) if positive else 0.0
    damped = 1 - (tail / sigma[:q]) ** power
    U = np.ascontiguousarray(vectors[:, :q])
    beta = float(np.max(own - (U * U) @ (damped * sigma[:q])))
    top = float(sigma[0] ** (1 - power) * tail**power) if positive else 0.0
    return NystromPreconditioner(U, damped / sigma[:q], beta, top / s, tail / s)
