"""Regression by a sigmoid with the squared loss: not convex, and variationally coherent where its labels are planted.

Rules of this file: those of `linear_model`; here are the loss, its slope and its curvature alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import expit

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.validate import number
from tardigrad.problems.data import Dataset, as_dataset
from tardigrad.problems.linear_model import LinearModel
from tardigrad.problems.partition import Partition
from tardigrad.problems.projections import Ball

#: where the second derivative of the loss is largest: the label is 0 and the sigmoid has this value
_STEEPEST = (15 - math.sqrt(33)) / 24


class SigmoidRegression(LinearModel):
    """Squared loss of a sigmoid, ``f_i(x) = (1/m_i) sum_r (s(a_r . x) - y_r)^2``, s(z) = 1 / (1 + exp(-z)).

    Parameters
    ----------
    data : Dataset or (X, y)
        Rows and labels; two classes, of which the larger is y = 1. No intercept is added.
    partition : Partition, optional
        Which client owns which rows; one client with all of them by default.
    minimiser : array (dim,), optional
        Plants labels: ``y_r = s(a_r . minimiser)`` instead of those of `data`. Then f is zero there, and coherent.
    radius : float
        Of the feasible set, a ball around 0.
    batch : int, optional
        Rows of a stochastic gradient; by default gradients are exact.

    Attributes
    ----------
    constraint : Ball
        The feasible set.

    Raises
    ------
    InvalidInputError
        If the planted minimiser is not feasible or of wrong shape, or without it if there are not two classes.

    Notes
    -----
    Coherence with planted labels, with ``u = a_r . x`` and ``v = a_r . x*``:
    ``<grad f(x), x - x*> = (1/m) sum_r 2 (s(u) - s(v)) s'(u) (u - v)``. As s rises, no term is negative, and all are zero
    only where X (x - x*) = 0: at minimisers. There is one minimiser if X has full column rank. With labels that are not
    planted nothing of this holds: two rows can pull apart, and f can have local minimisers.

    The second derivative of the loss by a prediction is at most ``2 s^2 (1-s) (2-3s) = 0.154`` at s = (15 - sqrt(33)) / 24,
    for every label in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> problem = SigmoidRegression((np.eye(2), np.array([0, 1])), minimiser=np.array([0.0, 2.0]))
    >>> problem.gradient(0, np.array([0.0, 2.0])).tolist()
    [0.0, 0.0]
    >>> bool(problem.gradient(0, np.array([1.0, 5.0])) @ np.array([1.0, 3.0]) > 0)
    True
    """

    loss_curvature = 2 * _STEEPEST**2 * (1 - _STEEPEST) * (2 - 3 * _STEEPEST)

    def __init__(
        self,
        data: Any,
        partition: Partition | None = None,
        *,
        minimiser: Any = None,
        radius: float = 10.0,
        batch: int | None = None,
    ) -> None:
        data = as_dataset(data)
        self.radius = number(radius, "radius", above=0.0)
        self.constraint = Ball(self.radius)
        self.minimiser = None if minimiser is None else self._plant(minimiser, data)
        super().__init__(data, partition, batch=batch)

    def fields(self) -> dict[str, Any]:
        names = ("data", "partition", "minimiser", "radius", "batch")
        return {name: getattr(self, name) for name in names}

    def _plant(self, minimiser: Any, data: Dataset) -> Array:
        try:
            planted = np.array(minimiser, data.X.dtype)
        except (TypeError, ValueError):
            planted = np.array(np.nan)
        if planted.shape != data.X.shape[1:] or not np.isfinite(planted).all():
            raise InvalidInputError(f"minimiser must be {data.X.shape[1]} finite numbers, one a feature, not {minimiser!r}")
        length = float(np.linalg.norm(planted))
        if length > self.radius:
            raise InvalidInputError(f"the minimiser has norm {length:g}, outside of the ball: give radius={length:.3g} or more")
        return planted

    def _encode(self, data: Dataset) -> Array:
        if self.minimiser is not None:
            labels: Array = expit(data.X @ self.minimiser)
            return labels
        classes = np.unique(data.y)
        if len(classes) != 2:
            raise InvalidInputError(
                f"sigmoid regression needs labels of two classes, found {len(classes)} ({classes[:5]}...): give labels such"
                " as y < 5, or a minimiser to plant"
            )
        return (data.y == classes[1]).astype(data.X.dtype)

    def _losses(self, predictions: Array, y: Array) -> Array:
        residual = expit(predictions) - y
        return residual * residual

    def _slopes(self, predictions: Array, y: Array) -> Array:
        sigmoid = expit(predictions)
        return 2 * (sigmoid - y) * sigmoid * (1 - sigmoid)

    def _measures(self) -> dict[str, Any]:
        table = super()._measures()
        table["objective"] = table["loss"]
        if self.minimiser is not None:
            table["distance"] = lambda x: np.linalg.norm(x - self.minimiser, axis=-1)
        return table
