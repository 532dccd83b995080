"""Which version an update reads: sequences s(n) <= n for the engine `Prescribed`.

Update n = 0, 1, ... takes the state from version n to n + 1; its gradient is computed from the point of version s(n),
so its delay, or staleness, is n - s(n).

- `ConstantDelay(d)`: s(n) = max(0, n - d);
- `UniformDelay(c)`: n - s(n) uniform on 0, 1, ..., floor(c n);
- `PowerDelay(q)`: a gradient asked for at m comes at m + floor(m^q), as the DASGD paper counts delays;
- `GivenVersions(versions)`: a table.

Rules of this file:

- a sequence is a pure function of (seed, n): numbers are drawn in blocks of `BLOCK` updates, keyed by the block;
- a parameter may be an array: one entry for each replica, along the first axis of the iterates; then each replica reads
  its own version;
- `last_update(v)` bounds the updates that may still read version v, so that no other version need be kept.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.streams import Domain, Rng, Stream
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.engines.read_checks import as_array, check_versions, one_or_each

#: updates drawn at a time, from one stream
BLOCK = 1024

#: above this c, a uniform delay's versions would have to be drawn more than 100 n ahead
_LARGEST_SHARE = 0.99

Read = Callable[[int, Rng], Any]


class ReadSequence(Plain):
    """Base class of sequences s(n). A subclass is plain data and defines `versions` and `last_update`."""

    @property
    def replicas(self) -> int | None:
        """Replicas that read a version each; None where all read the same."""
        return None

    @property
    def length(self) -> int | None:
        """Updates that the sequence has versions for; None: all."""
        return None

    @abstractmethod
    def versions(self, updates: Array, rng: Rng) -> Array:
        """The versions s(n) that consecutive updates read.

        Parameters
        ----------
        updates : array of int (k,)
            The updates n, at most `BLOCK` of them, beginning at a multiple of `BLOCK`.
        rng : Rng
            The random numbers of these updates. Fewer updates must get the same versions as the first of more.

        Returns
        -------
        array of int (k,) or (k, replicas)
            ``0 <= s(n) <= n``.
        """

    @abstractmethod
    def last_update(self, version: int) -> int | None:
        """A bound on the updates that read `version`, not decreasing in it; None, for all versions, if there is none."""


@dataclass(frozen=True)
class ConstantDelay(ReadSequence):
    """Every update reads the point of d updates ago, the first ones the start: ``s(n) = max(0, n - d)``.

    Parameters
    ----------
    d : int or array of int
        The delay, ``>= 0``, in updates; an array gives each replica its own.

    Examples
    --------
    >>> import numpy as np
    >>> ConstantDelay(2).versions(np.arange(5), np.random.default_rng())
    array([0, 0, 0, 1, 2])
    """

    d: int | Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "d", one_or_each(self.d, "ConstantDelay", lambda d, name: integer(d, name, low=0), np.int64))

    @property
    def replicas(self) -> int | None:
        return _replicas(self.d)

    def versions(self, updates: Array, rng: Rng) -> Array:
        return np.maximum(_beside(updates, self.d) - self.d, 0)

    def last_update(self, version: int) -> int:
        return version + int(np.max(self.d))


@dataclass(frozen=True)
class UniformDelay(ReadSequence):
    """Delays that may grow linearly: that of update n is uniform on the integers 0, 1, ..., floor(c n).

    Parameters
    ----------
    c : float or array
        In (0, 1]; at 1 an update may read any version. An array gives each replica independent delays with its own c,
        a number gives all replicas the same delays. Above 0.99 `Prescribed` needs a horizon: else versions would have to
        be drawn up to n / (1 - c) ahead to know which of them to keep.

    References
    ----------
    Zhou et al., "Distributed asynchronous optimization with unbounded delays", ICML 2018: delays O(n), Assumption 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> n = np.arange(1000)
    >>> delays = n - UniformDelay(0.5).versions(n, np.random.default_rng(0))
    >>> bool((delays <= n / 2).all()), int(delays.max())
    (True, 462)
    """

    c: float | Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "c", one_or_each(self.c, "UniformDelay", lambda c, name: number(c, name, above=0, high=1)))

    @property
    def replicas(self) -> int | None:
        return _replicas(self.c)

    def versions(self, updates: Array, rng: Rng) -> Array:
        numbers = _beside(updates, self.c)
        largest = np.floor(self.c * numbers)
        # one number a version, not rng.integers, which may take several: a shorter block begins like a longer one
        delays = rng.random((len(updates), *np.shape(self.c))) * (largest + 1)
        return numbers - delays.astype(np.int64)

    def last_update(self, version: int) -> int | None:
        largest = float(np.max(self.c))
        return None if largest > _LARGEST_SHARE else math.ceil((version + 1) / (1 - largest))


@dataclass(frozen=True)
class PowerDelay(ReadSequence):
    """Delays that grow like m^q where they are counted from the request, as in the DASGD paper.

    A gradient asked for at version m comes at update ``m + floor(m^q)``; update n uses the latest one that has come:
    ``s(n) = max {m : m + floor(m^q) <= n}``, of order n^(1/q) where q > 1. So updates read versions that fall behind ever
    further: with q = 2, update 10^6 reads version 999.

    Parameters
    ----------
    q : float or array
        The exponent, ``> 0``; an array gives each replica its own. Above 1 `Prescribed` needs a horizon: else every
        version would have to be kept.

    References
    ----------
    Zhou et al., "Distributed asynchronous optimization with unbounded delays", ICML 2018: s(n) and d_n are defined
    below Algorithm 2, delays O(n^q) are Assumption 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> PowerDelay(2.0).versions(np.arange(13), np.random.default_rng())
    array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3])
    """

    q: float | Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", one_or_each(self.q, "PowerDelay", lambda q, name: number(q, name, above=0)))

    @property
    def replicas(self) -> int | None:
        return _replicas(self.q)

    def versions(self, updates: Array, rng: Rng) -> Array:
        columns = [_latest_come(updates, float(q)) for q in np.ravel(self.q)]
        return np.stack(columns, axis=1) if np.ndim(self.q) else columns[0]

    def last_update(self, version: int) -> int | None:
        largest = float(np.max(self.q))
        return None if largest > 1 else int(_comes(version + 1, largest)) - 1


class GivenVersions(ReadSequence):
    """A table of the versions to be read; ``Prescribed(array)`` makes one.

    Parameters
    ----------
    table : array of int (n,) or (n, replicas)
        Row n holds s(n), ``0 <= s(n) <= n``, one for all replicas or one for each.
    """

    def __init__(self, table: Array) -> None:
        given = as_array(table)
        if given.ndim not in (1, 2) or not given.size or given.dtype.kind not in "iu":
            found = f"{given.dtype}{given.shape}" if given.ndim else repr(table)
            shapes = "(updates,) or (updates, replicas)"
            raise InvalidInputError(f"versions to be read must be an array of integers, {shapes}, not {found}")
        self.table = check_versions(given, np.arange(len(given)), None if given.ndim == 1 else given.shape[1])

    def fields(self) -> dict[str, Any]:
        return {"table": self.table}

    def __repr__(self) -> str:
        return f"GivenVersions(<array {self.table.shape}>)"

    @property
    def replicas(self) -> int | None:
        return None if self.table.ndim == 1 else self.table.shape[1]

    @property
    def length(self) -> int:
        return len(self.table)

    def versions(self, updates: Array, rng: Rng) -> Array:
        return self.table[updates]

    def last_update(self, version: int) -> int:
        return len(self.table) - 1


def tabulate(read: Read, seed: int, horizon: int) -> GivenVersions:
    """The versions that a function ``read(n, rng)`` gives; rng is keyed by (seed, n)."""
    stream = Stream(seed, Domain.TIMING)
    rows: list[Array] = []
    for n in range(horizon):
        given = read(n, stream.at(n))
        row = as_array(given)
        if row.dtype.kind not in "iu" or row.ndim > 1 or not row.size or (rows and row.shape != rows[0].shape):
            before = f", as for the updates before, {rows[0].shape}" if rows else ""
            raise InvalidInputError(
                f"read({n}, rng) must return an integer, or one for each replica{before}, not {given!r}: the version that"
                f" update {n} reads"
            )
        rows.append(row)
    return GivenVersions(np.stack(rows))


def _replicas(value: Any) -> int | None:
    return len(value) if np.ndim(value) else None


def _beside(updates: Array, parameter: Any) -> Array:
    """The updates in a shape that broadcasts with a parameter of each replica."""
    return updates[:, np.newaxis] if np.ndim(parameter) else updates


def _comes(m: int, q: float) -> float:
    """The update at which the gradient comes that was asked for at version m."""
    try:
        return m + math.floor(float(m) ** q)
    except OverflowError:
        return math.inf


def _latest_come(updates: Array, q: float) -> Array:
    """``max {m : m + floor(m^q) <= n}`` for consecutive n: arrivals increase by one at least, so a few m serve them all."""
    low, high = 0, 1
    while _comes(high, q) <= updates[0]:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _comes(middle, q) <= updates[0] else (low, middle)
    arrivals: list[float] = []  # of low + 1, low + 2, ...
    while (comes := _comes(low + 1 + len(arrivals), q)) <= updates[-1]:
        arrivals.append(comes)
    return low + np.searchsorted(np.array(arrivals, np.int64), updates, side="right").astype(np.int64)
