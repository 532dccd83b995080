"""The rows that clients of a PyTorch model own.

Rules of this file:

- arrays stay NumPy arrays, which engines share with their workers in memory; rows are copied into tensors as they are used;
- tensors are made by PyTorch, whose memory is aligned the same way in every process: kernels then give the same bits;
- an error names the client.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.data import Dataset
from tardigrad.problems.partition import Partition, Shared
from tardigrad.problems.torch_module import import_torch


class ArrayRows:
    """Rows of arrays that a client owns.

    Parameters
    ----------
    X, y : arrays
        Of floats or of int64, a row for each entry of the first axis.
    rows : int array, optional
        Which rows are the client's; all by default.
    """

    def __init__(self, X: Array, y: Array, rows: Array | None = None) -> None:
        self.X, self.y, self.rows = X, y, rows

    def __len__(self) -> int:
        return len(self.y) if self.rows is None else len(self.rows)

    def labels(self) -> Array:
        """Targets of the client's rows."""
        return self.y if self.rows is None else self.y[self.rows]

    def fetch(self, numbers: Array) -> tuple[Any, Any]:
        """Some of the client's rows as new tensors."""
        rows = numbers if self.rows is None else self.rows[numbers]
        return _taken(self.X, rows), _taken(self.y, rows)


class MapRows:
    """Rows of a data set with ``len(dataset)`` and ``dataset[i] = (x, y)``, as PyTorch's are.

    Parameters
    ----------
    dataset : object
        Must always give the same row for the same number.
    dtype : str
        Of floats.
    """

    def __init__(self, dataset: Any, dtype: str) -> None:
        self.dataset, self.dtype = dataset, dtype

    def __len__(self) -> int:
        return len(self.dataset)

    def labels(self) -> None:
        """Unknown until they are fetched."""

    def fetch(self, numbers: Array) -> tuple[Any, Any]:
        """Some rows as new tensors."""
        rows = [self.dataset[int(number)] for number in numbers]
        X = np.stack([_numbers(x, "x", self.dtype) for x, _ in rows])
        y = np.stack([_numbers(y, "y", self.dtype) for _, y in rows])
        everything = np.arange(len(rows))
        return _taken(X, everything), _taken(y, everything)


Rows = ArrayRows | MapRows


def clients_of(client_data: Any, partition: Partition | None, dtype: str) -> list[Rows]:
    """What each client owns: one data set cut by a partition, or one data set each."""
    if partition is not None:
        if not isinstance(partition, Partition):
            raise InvalidInputError(f"partition must be a Partition such as Iid(4), not {partition!r}")
        whole = as_rows(client_data, dtype, "client_data")
        if not isinstance(whole, ArrayRows):
            raise InvalidInputError("a partition needs the labels of all rows: give client_data as (X, y) or a Dataset")
        if isinstance(partition, Shared):
            return [whole] * partition.n_clients
        if whole.y.ndim != 1:
            raise InvalidInputError(f"a partition needs one label a row, not targets of shape {whole.y.shape}")
        order, offsets = partition.split(whole.y)
        return [ArrayRows(whole.X, whole.y, order[low:high]) for low, high in itertools.pairwise(offsets)]
    if not isinstance(client_data, (list, tuple)) or not client_data:
        raise InvalidInputError(
            f"client_data must be a list with a data set (X, y) for each client, or one data set and a partition such as"
            f" Iid(4), not {type(client_data).__name__}{' without entries' if isinstance(client_data, (list, tuple)) else ''}"
        )
    if len(client_data) == 2 and all(hasattr(part, "shape") for part in client_data):
        raise InvalidInputError("client_data is one pair (X, y): give a partition too, or [(X, y)] for a single client")
    return [as_rows(data, dtype, f"the data of client {i}") for i, data in enumerate(client_data)]


def as_rows(data: Any, dtype: str, name: str) -> Rows:
    """One data set as it is used here, checked as far as that is cheap."""
    if isinstance(data, Dataset):
        data = (data.X, data.y)
    if isinstance(data, (tuple, list)):
        if len(data) != 2:
            raise InvalidInputError(f"{name} must be a pair (X, y), not {len(data)} things")
        if sp.issparse(data[0]):
            raise InvalidInputError(f"{name} is sparse, which modules do not take: pass X.toarray()")
        X, y = (_numbers(part, f"{letter} of {name}", dtype) for part, letter in zip(data, "Xy", strict=True))
        if not X.ndim or not y.ndim or len(X) != len(y):
            raise InvalidInputError(f"{name} must have as many rows as targets, not X {X.shape} and y {y.shape}")
        found: Rows = ArrayRows(X, y)
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        found = MapRows(data, dtype)
    else:
        raise InvalidInputError(
            f"{name} must be a pair (X, y) or have len(data) and data[i] = (x, y), not {type(data).__name__}"
        )
    if not len(found):
        raise InvalidInputError(f"{name} has no rows: leave that client out")
    return found


def fetch(rows: Rows, client: int | None, numbers: Array) -> tuple[Any, Any]:
    """Some of a client's rows; whatever the data set raises names the client (None: the rows are for testing)."""
    whose = "the test data" if client is None else f"the data of client {client}"
    try:
        if numbers.min() < 0 or numbers.max() >= len(rows):
            raise IndexError(f"there are rows 0 to {len(rows) - 1}")
        return rows.fetch(numbers)
    except Exception as error:
        which = f"rows {numbers.min()} to {numbers.max()}"
        raise DataError(f"{whose} raised {type(error).__name__} when {which} were fetched: {error}") from error


def check_labels(labels: Array, shape: tuple[int, ...], loss: Any, whose: str) -> None:
    """Class numbers must be among those that are predicted."""
    if not is_classification(labels, shape):
        return
    bad = (labels < 0) | (labels >= shape[1])
    bad &= labels != getattr(loss, "ignore_index", 0)
    if bad.any():
        row = int(np.argmax(bad.reshape(len(labels), -1).any(axis=1)))
        raise InvalidInputError(
            f"label {labels[bad].flat[0]} in row {row} of {whose} is not in 0..{shape[1] - 1}: the module predicts"
            f" {shape[1]} classes"
        )


def is_classification(labels: Array, shape: tuple[int, ...]) -> bool:
    """Whether targets number the entries of the predictions' second axis: (n, classes, ...) and (n, ...)."""
    one_each = len(shape) == labels.ndim + 1 and shape[2:] == labels.shape[1:]
    return labels.dtype.kind in "iu" and one_each and shape[1] > 1


def _numbers(values: Any, name: str, dtype: str) -> Array:
    """Floats in the model's precision, integers as int64; a tensor or anything that NumPy takes."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) in ("torch.bfloat16", "torch.float16") else values
    try:
        array: Array = np.asarray(values)
    except ValueError:
        raise InvalidInputError(f"{name} must be one array: its rows have different shapes") from None
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"{name} must hold numbers, not {array.dtype}: number classes from 0 (np.unique(y, return_inverse=True))"
        )
    array = array.astype(np.int64 if array.dtype.kind in "iu" else dtype, copy=False)
    if array.dtype.kind == "f" and array.size and not np.isfinite(array).all():
        raise InvalidInputError(f"{name} holds values that are not finite in {dtype}: remove such rows or fill them in")
    return array


def _taken(array: Array, rows: Array) -> Any:
    torch = import_torch()
    kind = getattr(torch, array.dtype.name)
    tensor = torch.empty((len(rows), *array.shape[1:]), dtype=kind)
    np.take(array, rows, axis=0, out=tensor.numpy(), mode="clip")  # another mode would copy twice
    return tensor
