"""Where rows and targets come from: what a [data] table may say.

A source is a function; the key by which a table chooses it is its first parameter, its other keys are the other parameters.
Rules of this file:

- a data set is opened when a run file is checked: what is wrong with it shows before anything starts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.problems.data import Dataset


def named(name: str, part: Literal["train", "test"] = "train") -> Dataset:
    """A part of a known set, see `tardigrad.datasets.load`."""
    from tardigrad import datasets

    if name.replace("_", "-") not in datasets.names():
        from tardigrad.run_config.place import nearest

        raise InvalidInputError(
            f"there is no data set {name!r}: {nearest(name, datasets.names())}the sets are {', '.join(datasets.names())}; files"
            " of yours are given with csv, libsvm, or X and y"
        )
    return datasets.load(name, part)


def of_csv(csv: Path, target: str, delimiter: str = ",") -> Dataset:
    """A file of numbers with a header line; `target` is the column to predict."""
    from tardigrad import datasets

    return datasets.read_csv(csv, target, delimiter)


def of_libsvm(libsvm: Path, n_features: int | None = None, zero_based: bool = False) -> Dataset:
    """A LIBSVM (svmlight) file; its features stay sparse."""
    from tardigrad import datasets

    return datasets.read_libsvm(libsvm, n_features, zero_based)


def of_arrays(X: Array, y: Array) -> tuple[Any, Any]:
    """Arrays in files (``X = "X.npy"``, ``y = "both.npz:y"``), or written out."""
    return X, y


def of_function(function: Callable[[], Any]) -> Any:
    """What a function of the user's without arguments returns: (X, y), or whatever else the problem takes."""
    return function()


def made_up(rows: int, columns: int, noise: float = 0.0, seed: int = 0) -> tuple[Array, Array]:
    """Rows of standard normal numbers, and targets that are linear in them, plus normal noise of a deviation.

    Examples
    --------
    >>> X, y = made_up(rows=20, columns=3)
    >>> X.shape, y.shape, int(np.linalg.matrix_rank(np.column_stack([X, y])))
    ((20, 3), (20,), 3)
    """
    rng = np.random.default_rng(check_seed(seed))
    X = rng.standard_normal((integer(rows, "rows"), integer(columns, "columns")))
    return X, X @ rng.standard_normal(columns) + number(noise, "noise", low=0) * rng.standard_normal(rows)


#: by the key that chooses each
SOURCES: dict[str, Callable[..., Any]] = {
    "name": named,
    "csv": of_csv,
    "libsvm": of_libsvm,
    "X": of_arrays,
    "rows": made_up,
    "function": of_function,
}
