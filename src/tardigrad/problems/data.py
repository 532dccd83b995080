"""Rows and labels, checked once, and how a batch of them is drawn.

Rules of this file:

- rows are kept in the precision they come in (float32 or float64; everything else becomes float64);
- a value that is not finite, or lengths that differ, are errors that name the place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.streams import Rng, noise_shape
from tardigrad.core.task import Array


class Dataset(Plain):
    """Rows of features with a label each.

    Parameters
    ----------
    X : array or sparse matrix (n_rows, n_features)
        Features; sparse ones are kept as CSR.
    y : array (n_rows,)
        Labels or targets.

    Raises
    ------
    InvalidInputError
        For a wrong shape, no rows, or a value that is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> Dataset(np.eye(3), [1.0, 2.0, 3.0])
    <Dataset of 3 rows, 3 features, float64>
    """

    def __init__(self, X: Any, y: Any) -> None:
        self.X = _as_rows(X)
        self.y = _as_labels(y)
        if self.y.ndim != 1 or len(self.y) != self.X.shape[0]:
            raise InvalidInputError(f"y must have shape ({self.X.shape[0]},), a label for each row of X, not {self.y.shape}")
        if np.issubdtype(self.y.dtype, np.floating) and not np.isfinite(self.y).all():
            raise InvalidInputError(f"y[{int(np.argmin(np.isfinite(self.y)))}] is not finite: remove such rows or fill them in")

    def fields(self) -> dict[str, Any]:
        return {"X": self.X, "y": self.y}

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.X.shape[0]} rows, {self.X.shape[1]} features, {self.X.dtype}>"


def as_dataset(data: Any) -> Dataset:
    """A data set as it is, or made of a pair (X, y)."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return Dataset(*data)
    raise InvalidInputError(f"data must be a pair (X, y) or a Dataset, not {type(data).__name__}")


def draw_rows(n_rows: int, batch: int, rng: Rng) -> Array:
    """Numbers of the rows of a batch, (batch,) or (replicas, batch): without replacement, unless there are too few rows.

    Examples
    --------
    >>> import numpy as np
    >>> sorted(draw_rows(4, 4, np.random.default_rng(0)).tolist()), draw_rows(1, 3, np.random.default_rng(0)).tolist()
    ([0, 1, 2, 3], [0, 0, 0])
    """
    shape = noise_shape(rng)
    if batch > n_rows:
        return rng.integers(0, n_rows, (*shape, batch))
    if shape:
        return np.stack([rng.choice(n_rows, batch, replace=False) for _ in range(shape[0])])
    return rng.choice(n_rows, batch, replace=False)


def _as_labels(y: Any) -> Array:
    try:
        labels = np.asarray(y)
    except ValueError:
        raise InvalidInputError("y must be one label a row: its entries have different lengths") from None
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels.ravel()):
        labels = labels.astype(str)  # a column of strings, as pandas keeps it
    if labels.dtype.kind not in "biufUS":
        raise InvalidInputError(f"y must hold numbers or strings, all of one kind, not {labels.dtype}")
    return labels


def _as_rows(X: Any) -> Any:
    try:
        rows = sp.csr_array(X) if sp.issparse(X) else np.asarray(X)
    except ValueError:
        raise InvalidInputError("X must be a matrix: its rows have different lengths") from None
    if rows.dtype.kind == "c":
        raise InvalidInputError(f"X must hold real numbers, not {rows.dtype}")
    if rows.dtype not in (np.float32, np.float64):
        try:
            rows = rows.astype(np.float64)
        except (TypeError, ValueError):
            raise InvalidInputError(f"X must hold numbers, not {rows.dtype}") from None
    if rows.ndim != 2 or 0 in rows.shape:
        raise InvalidInputError(f"X must have shape (n_rows, n_features) with at least one of each, not {rows.shape}")
    values: Any = rows.data if sp.issparse(rows) else rows
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()  # one pass that nearly always suffices
    if not np.isfinite(total) and not np.isfinite(values).all():
        at = np.argwhere(~np.isfinite(values))[0]
        where = f"X[{at[0]}, {at[1]}]" if values.ndim == 2 else f"stored value {at[0]} of X"
        raise InvalidInputError(f"{where} is {values[tuple(at)]}: remove such rows or fill them in")
    if not (sp.issparse(rows) or rows.flags.c_contiguous or rows.flags.f_contiguous):
        rows = np.ascontiguousarray(rows)  # sums over a view take another order than over its copy at a worker
    return rows
