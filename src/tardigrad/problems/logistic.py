"""Logistic regression with two classes or more.

Rules of this file:

- labels may be anything that sorts; ``classes`` holds them in order, as in scikit-learn;
- nothing overflows: log(1 + exp(t)) and softmax are computed from differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.smoothness import SmoothnessConstants
from tardigrad.core.task import Array
from tardigrad.problems.data import Dataset, as_dataset
from tardigrad.problems.linear_model import LinearModel, chunks, total
from tardigrad.problems.smoothness import linear_constants


class _Classifier(LinearModel):
    """What both share: classes and accuracies."""

    classes: Array

    def __init__(self, data: Any, *args: Any, **kwargs: Any) -> None:
        data = as_dataset(data)
        self.classes = np.unique(data.y)
        super().__init__(data, *args, **kwargs)

    def constants(self) -> SmoothnessConstants:
        """Bounds L, delta and ell from the curvature of the loss: see `problems.smoothness.linear_constants`.

        Examples
        --------
        >>> import numpy as np
        >>> import tardigrad as td
        >>> problem = LogisticRegression((np.array([[1.0], [2.0]]), np.array([0, 1])), td.Given([0, 1]))
        >>> problem.constants()
        SmoothnessConstants(L=0.625, delta=0.5, ell=1.0, exact=False)
        """
        return linear_constants(self, quadratic=False)

    def _codes(self, data: Dataset) -> Array:
        codes = np.minimum(np.searchsorted(self.classes, data.y), len(self.classes) - 1)
        unknown = self.classes[codes] != data.y
        if unknown.any():
            raise InvalidInputError(f"label {data.y[unknown][0].item()!r} of a test row is not among {self.classes}")
        return codes

    def predict(self, x: Array, X: Any) -> Array:
        """Classes predicted for rows `X` at `x` (dim,)."""
        return self.classes[self._decide(self._predict(x, X))]

    def _measures(self) -> dict[str, Any]:
        table = super()._measures()
        table["accuracy"] = lambda x: self._accuracy(x, self.data, self._used, self._n_used)
        if self.test is not None:
            test = self.test
            table["test_accuracy"] = lambda x: self._accuracy(x, test, slice(0, len(test)), len(test))
        return table

    def _accuracy(self, x: Array, data: Dataset, rows: Array | slice, n_rows: int) -> Array:
        codes = self._codes(data)
        right = total((self._decide(self._predict(x, data.X[part])) == codes[part]).sum(-1) for part in chunks(rows))
        return right / n_rows

    def _decide(self, predictions: Array) -> Array:
        raise NotImplementedError


class LogisticRegression(_Classifier):
    """Binary logistic regression, ``loss(z, b) = log(1 + exp(-b z))`` with b = -1 or 1.

    Parameters are those of `LinearModel`; of the two labels the larger one is b = 1. With
    ``regularizer=SmoothNonconvex(0.05)`` it is the problem of the AsyncBC paper, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> problem = LogisticRegression((np.array([[1.0], [-1.0]]), np.array([1, 0])))
    >>> problem.gradient(0, np.zeros(1))
    array([-0.5])
    """

    loss_curvature = 0.25

    def _encode(self, data: Dataset) -> Array:
        if len(self.classes) != 2:
            raise InvalidInputError(
                f"binary logistic regression needs two classes, found {len(self.classes)} ({self.classes[:5]}...):"
                " use SoftmaxRegression, or give a label such as y < 5"
            )
        return (2 * self._codes(data) - 1).astype(data.X.dtype)

    def _losses(self, predictions: Array, y: Array) -> Array:
        return np.logaddexp(0, -y * predictions)

    def _slopes(self, predictions: Array, y: Array) -> Array:
        slopes = expit(-y * predictions)
        slopes *= -y
        return slopes

    def _decide(self, predictions: Array) -> Array:
        return (predictions > 0).astype(np.int64)


class SoftmaxRegression(_Classifier):
    """Multinomial logistic regression, ``loss(z, c) = log sum_k exp(z_k - z_c)``, with a row of weights a class.

    Parameters are those of `LinearModel`; ``dim`` is classes times features, class by class.

    Examples
    --------
    >>> import numpy as np
    >>> problem = SoftmaxRegression((np.eye(3), np.array([0, 1, 2])))
    >>> problem.dim, round(float(problem.loss(np.zeros(9))), 4)
    (9, 1.0986)
    """

    loss_curvature = 0.5

    def _encode(self, data: Dataset) -> Array:
        if len(self.classes) < 2:
            raise InvalidInputError(f"a classifier needs two classes or more, found only {self.classes}")
        self.n_outputs = len(self.classes)
        return self._codes(data)

    def _losses(self, predictions: Array, y: Array) -> Array:
        top = predictions.max(axis=-2)
        total = np.exp(predictions - top[..., None, :]).sum(axis=-2)
        own = predictions[..., y, np.arange(len(y))]
        return np.log(total) + top - own

    def _slopes(self, predictions: Array, y: Array) -> Array:
        slopes = predictions
        slopes -= slopes.max(axis=-2, keepdims=True)
        np.exp(slopes, out=slopes)
        slopes /= slopes.sum(axis=-2, keepdims=True)
        slopes -= np.arange(slopes.shape[-2])[:, None] == y[..., None, :]
        return slopes

    def _decide(self, predictions: Array) -> Array:
        return predictions.argmax(axis=-2)
