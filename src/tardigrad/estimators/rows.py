"""The rows that a kernel machine is fitted to: as they are kept, held out, compared, and contradicting each other.

Rules of this file:

- what lies in a file is never copied, and never read but in stretches;
- everything else is converted once to the precision that is computed in, unless that would lose differences: rows far from
  the origin are shifted tile by tile, in their own precision (`problems.kernel_rows`).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.task import Array
from tardigrad.problems.kernel_rows import rows_of
from tardigrad.problems.system_matrix import canonical

#: rows that are looked at together
_STRETCH = 4096


def in_file(X: Any) -> bool:
    """Whether an array's entries lie in a memory-mapped file."""
    while X is not None:
        if isinstance(X, (np.memmap, mmap.mmap)):
            return True
        X = getattr(X, "base", None)
    return False


def as_kept(given: Any, checked: Any, dtype: Any) -> Any:
    """What is kept of X: a memory map as it was given; what scikit-learn made of it; that in this precision."""
    if isinstance(given, np.memmap):
        return given
    if in_file(checked) or rows_of(checked, dtype).centre is not None:
        return checked
    with np.errstate(over="ignore"):  # what is too large is told by its row, later
        if sp.issparse(checked):
            return canonical(checked, "X").astype(dtype, copy=False)
        return np.ascontiguousarray(checked, dtype)


def held_out(X: Any, fraction: float, seed: int, classes: Array | None) -> tuple[Any, Any]:
    """Which rows are fitted to, and which are held out: index arrays, or slices of what lies in a file.

    Parameters
    ----------
    X : array, memory map or sparse matrix (n_rows, n_features)
        Of a file the last rows are held out: others would have to be copied.
    fraction : float
        Share that is held out.
    seed : int
        Draws them.
    classes : array (n_rows,) or None
        Held out alike, where given.
    """
    from sklearn.model_selection import train_test_split

    n_rows = X.shape[0]
    if in_file(X):
        cut = max(1, n_rows - max(1, round(fraction * n_rows)))
        return slice(0, cut), slice(cut, n_rows)
    fitted, held = train_test_split(np.arange(n_rows), test_size=fraction, random_state=seed, stratify=classes)
    return np.sort(fitted), np.sort(held)


def same_rows(X: Any, Z: Any) -> bool:
    """Whether two matrices have equal entries."""
    if X.shape != Z.shape or sp.issparse(X) != sp.issparse(Z):
        return False
    if sp.issparse(X):
        return all(np.array_equal(getattr(X, name), getattr(Z, name)) for name in ("indptr", "indices", "data"))
    return X is Z or all(np.array_equal(X[some], Z[some]) for some in _stretches(len(X)))


@dataclass(frozen=True)
class Contradiction:
    """Equal rows of X whose targets differ.

    Attributes
    ----------
    floor : float
        The mean squared residual that no function of x falls below.
    n_rows : int
        How many rows are concerned.
    example : (int, int)
        Two of them.
    """

    floor: float
    n_rows: int
    example: tuple[int, int]


def contradiction(X: Any, targets: Array) -> Contradiction | None:
    """What equal rows with different targets (n_rows, n_outputs) cost, found by a hash of each row; None without such rows.

    Examples
    --------
    >>> contradiction(np.array([[0.0], [1.0], [0.0]]), np.array([[1.0], [5.0], [3.0]]))
    Contradiction(floor=0.6666666666666666, n_rows=2, example=(0, 2))
    """
    keys = np.fromiter(_hashes(X), np.int64, X.shape[0])
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return None
    values = targets.astype(np.float64)
    mean = np.stack([np.bincount(group, column) for column in values.T], axis=1) / counts[:, None]
    beside = np.square(values - mean[group])
    # a mean of equal numbers may differ from them by rounding
    apart = beside.max(axis=1) > 1e-12 * np.square(values).max(initial=1e-300)
    if not apart.any():
        return None
    row = int(np.argmax(apart))
    others = np.flatnonzero((group == group[row]) & (targets != targets[row]).any(axis=1))
    concerned = int(np.isin(group, group[apart]).sum())
    return Contradiction(float(beside.sum() / beside.size), concerned, (row, int(others[0])))


def _hashes(X: Any) -> Iterator[int]:
    """A hash of each row; equal rows have equal ones."""
    if sp.issparse(X):
        matrix = canonical(X, "X")
        if not matrix.data.all():
            matrix = matrix.copy()
            matrix.eliminate_zeros()
        for low, high in zip(matrix.indptr, matrix.indptr[1:], strict=False):
            yield hash(matrix.indices[low:high].tobytes() + matrix.data[low:high].tobytes())
        return
    for some in _stretches(len(X)):
        for row in np.ascontiguousarray(X[some]) + 0:  # adding 0 makes -0.0 the same as 0.0
            yield hash(row.tobytes())


def _stretches(n: int) -> Iterator[slice]:
    for low in range(0, n, _STRETCH):
        yield slice(low, min(low + _STRETCH, n))
