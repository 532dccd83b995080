"""Checks of the versions that updates read, and of what they follow from.

Rules of this file:

- an error names the update, and the replica where each has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array


def check_versions(versions: Any, updates: Array, replicas: int | None) -> Array:
    """The versions that updates read, as int64, if there are so many, none negative and none in the future."""
    wanted = (len(updates),) if replicas is None else (len(updates), replicas)
    if not isinstance(versions, np.ndarray) or versions.dtype.kind not in "iu" or versions.shape != wanted:
        found = f"{versions.dtype}{versions.shape}" if isinstance(versions, np.ndarray) else repr(versions)
        raise InvalidInputError(f"the versions of {len(updates)} updates must be an array of integers {wanted}, not {found}")
    numbers = updates if replicas is None else updates[:, np.newaxis]
    bad = (versions < 0) | (versions > numbers)
    if bad.any():
        place = tuple(np.argwhere(bad)[0].tolist())
        n, version = int(updates[place[0]]), int(versions[place])
        who = f"update {n}" if replicas is None else f"update {n} of replica {place[1]}"
        raise InvalidInputError(f"{who} cannot read version {version}: there are only versions 0 to {n} by then")
    return versions.astype(np.int64, copy=False)


def one_or_each(value: Any, name: str, check: Callable[[Any, str], Any], dtype: Any = np.float64) -> Any:
    """A checked number, or an array of one for each replica."""
    array = as_array(value)
    if array.ndim == 0 and not array.dtype.hasobject:
        return check(value, name)
    if array.ndim != 1 or not array.size:
        raise InvalidInputError(f"{name} must be a number or an array of one for each replica, not {value!r}")
    return np.array([check(entry, f"{name}, replica {i},") for i, entry in enumerate(array.tolist())], dtype)


def as_array(value: Any) -> Array:
    """An array; that of an object where there is none, as of rows of different lengths."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.array(None)
