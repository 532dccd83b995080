"""Losses of linear predictions, over clients that own rows.

``f_i(x) = (1/m_i) sum_{r in R_i} loss(a_r . x, y_r) + reg(x)`` and ``f = sum_i w_i f_i``, client i owning the m_i rows R_i.

A subclass gives the loss and its slope; rows, clients, samples and the batch axis are handled here.

Rules of this file:

- rows are never copied as a whole: a client is an index range into an order of rows;
- a sample is an array of row numbers, (batch,) or (replicas, batch);
- rows that no client owns are in no sum: f is that of the clients alone, and so are its measures;
- predictions have shape (..., rows), with an axis of outputs before the rows where there are several.
"""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, optional_integer
from tardigrad.problems.data import Dataset, as_dataset, draw_rows
from tardigrad.problems.partition import Iid, Partition, Shared
from tardigrad.problems.regularizers import L2, Regularizer

#: rows that a pass over all data takes at a time
CHUNK = 8192


class LinearModel(Problem):
    """Base class of least squares and logistic regression.

    Parameters
    ----------
    data : Dataset or (X, y)
        Rows and labels. No intercept is added: append a column of ones to X for one.
    partition : Partition, optional
        Which client owns which rows; one client with all of them by default.
    batch : int, optional
        Rows of a stochastic gradient, drawn without replacement, or with replacement where the client
        has fewer rows. By default gradients are exact.
    regularizer : Regularizer, optional
        `L2` or `SmoothNonconvex`; none by default.
    weights : {"equal", "rows"}
        Client weights: 1/n each, or in proportion to the rows they own.
    test : Dataset or (X, y), optional
        For the measures whose names begin with ``test_``.
    """

    #: bound on the second derivative of the loss with respect to a prediction
    loss_curvature: float
    #: number of predictions a row, None for a single one without an axis
    n_outputs: int | None = None

    def __init__(
        self,
        data: Any,
        partition: Partition | None = None,
        *,
        batch: int | None = None,
        regularizer: Regularizer | None = None,
        weights: Literal["equal", "rows"] = "equal",
        test: Any = None,
    ) -> None:
        self.data = as_dataset(data)
        self.test = None if test is None else as_dataset(test)
        self.partition = Iid(1) if partition is None else partition
        self.regularizer = L2(0.0) if regularizer is None else regularizer
        self.batch = batch
        self.weights = weights
        self._check()
        self.y = self._encode(self.data)
        if self.test is not None:
            self._encode(self.test)  # unknown labels are an error now, not later
        self._place_rows()
        n_features = int(self.data.X.shape[1])
        self.dim = n_features * (self.n_outputs or 1)
        self.dtype = self.data.X.dtype

    def fields(self) -> dict[str, Any]:
        names = ("data", "partition", "batch", "regularizer", "weights", "test")
        return {name: getattr(self, name) for name in names}

    def _check(self) -> None:
        if not isinstance(self.partition, Partition):
            raise InvalidInputError(f"partition must be a Partition such as Iid(4), not {self.partition!r}")
        if not isinstance(self.regularizer, Regularizer):
            raise InvalidInputError(f"regularizer must be one such as L2(0.01), not {self.regularizer!r}")
        self.batch = optional_integer(self.batch, "batch")
        if not isinstance(self.weights, str) or self.weights not in ("equal", "rows"):
            raise InvalidInputError(f"weights must be 'equal' or 'rows', not {self.weights!r}")
        if self.test is not None and self.test.X.shape[1] != self.data.X.shape[1]:
            raise InvalidInputError(f"test rows have {self.test.X.shape[1]} features, those of data {self.data.X.shape[1]}")

    def _place_rows(self) -> None:
        n_rows = len(self.data)
        self.shared_data = isinstance(self.partition, Shared)
        self.equal_weights = self.weights == "equal" or self.shared_data
        if isinstance(self.partition, Shared):
            self.n_clients = int(self.partition.n_clients)
            self._order, bounds = None, [(0, n_rows)] * self.n_clients
            self._used: Array | slice = slice(0, n_rows)
            self._n_used = n_rows
        else:
            order, offsets = self.partition.split(self.data.y)
            self.n_clients = len(offsets) - 1
            in_order = bool(order[0] == 0 and (np.diff(order) == 1).all())
            self._order = None if in_order else order
            self._n_used = len(order)
            self._used = slice(0, n_rows) if self._n_used == n_rows else np.sort(order)
            ends = offsets.tolist()
            bounds = list(itertools.pairwise(ends))
        self._bounds = bounds

    def rows_of(self, client: int) -> Array | slice:
        """The rows that a client owns."""
        low, high = self._bounds[integer(client, "client", low=0, high=self.n_clients - 1)]
        return slice(low, high) if self._order is None else self._order[low:high]

    def n_rows_of(self, client: int) -> int:
        """How many rows a client owns."""
        low, high = self._bounds[integer(client, "client", low=0, high=self.n_clients - 1)]
        return high - low

    def scale(self, client: int) -> float:
        if self.equal_weights:
            return 1.0
        return self.n_clients * self.n_rows_of(client) / self._n_used

    def sample(self, client: int, rng: Rng) -> Array | None:
        if self.batch is None:
            return None
        low, high = self._bounds[client]
        rows = low + draw_rows(high - low, self.batch, rng)
        return rows if self._order is None else self._order[rows]

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        if sample is None:
            rows = self.rows_of(client)
            share = 1.0 / self.n_rows_of(client)
            gradient = total(self._loss_gradient(x, part, share) for part in chunks(rows))
        else:
            gradient = self._loss_gradient(x, sample, 1.0 / sample.shape[-1])
        self.regularizer.add_gradient(x, gradient)
        return gradient

    def loss(self, x: Array, client: int | None = None) -> Array:
        """``f(x)``, or ``f_client(x)``, for x of shape (..., dim)."""
        if client is not None:
            rows, share = self.rows_of(client), 1.0 / self.n_rows_of(client)
            losses = (self._losses(self._predict(x, self.data.X[part]), self.y[part]).sum(-1) for part in chunks(rows))
            return total(losses) * share + self.regularizer.value(x)
        return self._mean_loss(x, self.data, self.y, self._used, self._row_weights()) + self.regularizer.value(x)

    def full_gradient(self, x: Array) -> Array:
        """The gradient of ``f`` at x (..., dim), over all rows of all clients."""
        weights = self._row_weights()
        gradient = total(self._loss_gradient(x, part, weights[part]) for part in chunks(self._used))
        self.regularizer.add_gradient(x, gradient)
        return gradient

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """``loss``, ``gradient_norm`` and, with test data, ``test_loss``; classifiers add accuracies."""
        found = {}
        for name, compute in self._measures().items():
            if names is None or name in names:
                found[name] = np.asarray(compute(x))
        return found

    def _measures(self) -> dict[str, Any]:
        table = {"loss": self.loss, "gradient_norm": lambda x: np.linalg.norm(self.full_gradient(x), axis=-1)}
        if self.test is not None:
            share = np.full(len(self.test), 1.0 / len(self.test))
            test, y = self.test, self._encode(self.test)
            table["test_loss"] = lambda x: self._mean_loss(x, test, y, slice(0, len(test)), share)
        return table

    def smoothness(self, client: int | None = None) -> float:
        """A bound on the Hessian's norm of ``f_client``, or of ``f``.

        ``L = c lambda_max(sum_r p_r a_r a_r') + L_reg``, with c the largest second
        derivative of the loss and p the rows' weights. Exact for least squares.
        """
        if client is None:
            X, weights = self.data.X, self._row_weights()
        else:
            X = self.data.X[self.rows_of(client)]
            weights = np.full(X.shape[0], 1.0 / X.shape[0])
        scaled = X * np.sqrt(weights)[:, None].astype(X.dtype)
        gram = scaled.T @ scaled if scaled.shape[0] >= scaled.shape[1] else scaled @ scaled.T
        gram = gram.toarray() if sp.issparse(gram) else gram
        last = len(gram) - 1
        largest = scipy.linalg.eigvalsh(gram.astype(float), subset_by_index=[last, last])[0]
        return float(self.loss_curvature * largest + self.regularizer.curvature)

    def _row_weights(self) -> Array:
        weights = np.zeros(len(self.data))
        if self.weights == "rows" or self.shared_data:  # then every row weighs the same
            weights[self._used] = 1.0 / self._n_used
            return weights
        for client in range(self.n_clients):
            weights[self.rows_of(client)] = 1.0 / (self.n_clients * self.n_rows_of(client))
        return weights

    def _mean_loss(self, x: Array, data: Dataset, y: Array, rows: Array | slice, weights: Array) -> Array:
        return total(self._losses(self._predict(x, data.X[part]), y[part]) @ weights[part] for part in chunks(rows))

    def _predict(self, x: Array, A: Any) -> Array:
        """Predictions (..., [n_outputs,] rows) at x (..., dim); A is (rows, features) or (replicas, rows, features)."""
        n_features = A.shape[-1]
        inner = x.shape[:-1] if self.n_outputs is None else (*x.shape[:-1], self.n_outputs)
        if A.ndim == 3:
            points = x.reshape(len(A), -1, n_features)
            return (points @ A.swapaxes(1, 2)).reshape(*inner, A.shape[1])
        if x.ndim == 1 and self.n_outputs is None:
            return A @ x
        flat = x.reshape(-1, n_features)
        values = (A @ flat.T).T if sp.issparse(A) else flat @ A.T
        return values.reshape(*inner, A.shape[0])

    def _loss_gradient(self, x: Array, rows: Any, row_weights: Any) -> Array:
        if sp.issparse(self.data.X) and np.ndim(rows) == 2:
            raise InvalidInputError("replicas with noise of their own need dense rows: pass X.toarray()")
        A, y = self.data.X[rows], self.y[rows]
        predictions = self._predict(x, A)
        if y.ndim == 2:  # replicas have rows of their own: align with (replicas, ..., rows)
            y = y.reshape(len(y), *(1,) * (x.ndim - 2), -1)
        slopes = self._slopes(predictions, y)
        slopes *= row_weights
        if A.ndim == 3:
            return (slopes.reshape(len(A), -1, A.shape[1]) @ A).reshape(x.shape)
        if slopes.ndim == 1:
            return A.T @ slopes
        flat = slopes.reshape(-1, A.shape[0])
        gradient = (A.T @ flat.T).T if sp.issparse(A) else flat @ A
        return gradient.reshape(x.shape)

    @abstractmethod
    def _encode(self, data: Dataset) -> Array:
        """Labels as the loss wants them."""

    @abstractmethod
    def _losses(self, predictions: Array, y: Array) -> Array:
        """Loss of each row, (..., rows)."""

    @abstractmethod
    def _slopes(self, predictions: Array, y: Array) -> Array:
        """Derivative of each row's loss by its predictions, in an array that may be changed."""


def chunks(rows: Array | slice) -> Iterator[Any]:
    """Rows, a bounded number at a time."""
    if isinstance(rows, slice):
        for low in range(rows.start, rows.stop, CHUNK):
            yield slice(low, min(low + CHUNK, rows.stop))
    else:
        for low in range(0, len(rows), CHUNK):
            yield rows[low : low + CHUNK]


def total(parts: Iterable[Array]) -> Array:
    """The sum of at least one array, added in order."""
    return functools.reduce(np.add, parts)
