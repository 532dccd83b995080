"""Least squares: linear regression with the squared loss.

Rules of this file: those of `linear_model`; here are the loss, its slope and its constants alone.
"""

from __future__ import annotations

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.smoothness import SmoothnessConstants
from tardigrad.core.task import Array
from tardigrad.problems.data import Dataset
from tardigrad.problems.linear_model import LinearModel
from tardigrad.problems.smoothness import linear_constants


class LeastSquares(LinearModel):
    """Linear regression, ``f_i(x) = |A_i x - b_i|^2 / (2 m_i) + reg(x)``.

    Parameters are those of `LinearModel`; ``dim`` is the number of features.

    Examples
    --------
    >>> import numpy as np
    >>> problem = LeastSquares((np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1.0, 2.0])))
    >>> problem.gradient(0, np.zeros(2))
    array([-0.5, -2. ])
    >>> round(problem.smoothness(), 12)
    2.0
    """

    loss_curvature = 1.0

    def constants(self) -> SmoothnessConstants:
        """L, delta and ell, exactly with `L2` or no regularizer: see `problems.smoothness.linear_constants`.

        Examples
        --------
        >>> import numpy as np
        >>> import tardigrad as td
        >>> problem = LeastSquares((np.array([[1.0], [2.0]]), np.zeros(2)), td.Given([0, 1]))  # Hessians 1 and 4
        >>> problem.constants()
        SmoothnessConstants(L=2.5, delta=1.5, ell=4.0, exact=True)
        """
        return linear_constants(self, quadratic=True)

    def _encode(self, data: Dataset) -> Array:
        try:
            with np.errstate(over="ignore"):
                targets: Array = data.y.astype(data.X.dtype)
        except (TypeError, ValueError):
            raise InvalidInputError(f"least squares needs numbers as targets, not {data.y.dtype}") from None
        if not np.isfinite(targets).all():
            raise InvalidInputError(
                f"targets up to {np.abs(data.y).max():g} do not fit {data.X.dtype}, the type of X: scale them"
            )
        return targets

    def _losses(self, predictions: Array, y: Array) -> Array:
        residual = predictions - y
        return residual * residual / 2

    def _slopes(self, predictions: Array, y: Array) -> Array:
        return predictions - y
