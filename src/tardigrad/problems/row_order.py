"""Which row, or block, a sketch takes: a pure function of the seed and the task's number.

Rules of this file:

- nothing depends on who asks, or on what was asked before: permutations are kept only because they cost time;
- one number at a time and many at once give the same items, and replicas have items of their own;
- numbers are hashed (splitmix64) instead of drawn from a generator that is built for each: 10 ns instead of 6 microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Domain, Rng, Stream, noise_shape
from tardigrad.core.task import Array

ORDERS = ("shuffled", "uniform", "norms")

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
#: numbers hashed at a time, so that they stay in the cache
_AT_A_TIME = 16384
#: from so many items on, permutations are made by a compiled loop
_COMPILED = 2**15
#: permutations kept: those of the pass that goes on and of its neighbours
_KEPT = 3


class ItemOrder:
    """The order in which the items ``0..n-1`` (rows, blocks) are used.

    Parameters
    ----------
    n : int
        Number of items.
    order : {"shuffled", "uniform", "norms"}
        Each item once a pass, every pass in another order; independent and uniform; independent with `weights`.
    weights : callable, optional
        For "norms": gives the items' weights, called when they are first needed.
    chunk : int
        For "shuffled": so many neighbouring items stay together (the order of chunks is random, and that within each).

    Examples
    --------
    >>> order = ItemOrder(5, "shuffled")
    >>> sorted(order.span(0, 5, 10).tolist()), order.span(0, 7, 8)[0] == order.at(0, 7)
    ([0, 1, 2, 3, 4], np.True_)
    """

    def __init__(self, n: int, order: str, weights: Callable[[], Array] | None = None, chunk: int = 1) -> None:
        self.n, self.order, self.chunk = n, order, chunk
        self._weights = weights
        self._table: tuple[Array, Array] | None = None
        self._lock = threading.Lock()
        self._passes: dict[tuple[int, int, int | None], Array] = {}

    def draw(self, rng: Rng) -> Any:
        """The item of the task that `rng` stands at; for replicas an array of one each.

        A second item of the same task, and every item from a plain NumPy generator, is drawn independently.
        """
        shape, index = noise_shape(rng), task_index(rng)
        if index is not None:
            assert isinstance(rng, Stream)
            return self.at_each(rng.seed, index, shape[0]) if shape else self.at(rng.seed, index)
        if self.order == "norms":
            items = self._by_weight(rng.random(shape or (1,)))
            return items if shape else int(items[0])
        items = rng.integers(self.n, size=shape or None)
        return items if shape else int(items)

    def at(self, seed: int, index: int) -> int:
        """The item of sketch number `index`."""
        if self.order == "shuffled":
            number, place = divmod(index, self.n)
            return int(self.permutation(seed, number)[place])
        word = mixed(key_of(seed) + (index + 1) * _GOLDEN)
        u = (word >> 11) * 2.0**-53
        return int(u * self.n) if self.order == "uniform" else int(self._by_weight(np.array([u]))[0])

    def at_each(self, seed: int, index: int, replicas: int) -> Array:
        """The items of sketch number `index` for each replica."""
        if self.order == "shuffled":
            number, place = divmod(index, self.n)
            return self.permutation(seed, number, replicas)[:, place].copy()
        words = _keys(seed, replicas) + np.uint64((index + 1) * _GOLDEN & _MASK)
        return self._choose(mixed_in_place(words))

    def span(self, seed: int, start: int, stop: int) -> Array:
        """The items of sketches ``start..stop-1``, int64."""
        items = np.empty(max(stop - start, 0), np.int64)
        if self.order == "shuffled":
            low = start
            while low < stop:
                number, place = divmod(low, self.n)
                high = min(stop, low + self.n - place)
                items[low - start : high - start] = self.permutation(seed, number)[place : place + high - low]
                if place > self.n // 2:
                    self._look_ahead(seed, number + 1)
                low = high
            return items
        key = key_of(seed)
        steps = np.arange(1, min(len(items), _AT_A_TIME) + 1, dtype=np.uint64)
        steps *= np.uint64(_GOLDEN)
        for low in range(0, len(items), _AT_A_TIME):
            part = items[low : low + _AT_A_TIME]
            words = steps[: len(part)] + np.uint64(key + (start + low) * _GOLDEN & _MASK)
            part[:] = self._choose(mixed_in_place(words))
        return items

    def _choose(self, words: Array) -> Array:
        u = (words >> np.uint64(11)) * 2.0**-53
        return (u * self.n).astype(np.int64) if self.order == "uniform" else self._by_weight(u)

    def _by_weight(self, u: Array) -> Array:
        if self._table is None:
            assert self._weights is not None
            self._table = alias_table(self._weights())
        kept, other = self._table
        u *= self.n
        items = u.astype(np.int64)
        u -= items
        return np.where(u < kept[items], items, other[items])

    def permutation(self, seed: int, number: int, replicas: int | None = None) -> Array:
        """The permutation of a pass, or one for each replica."""
        key = seed, number, replicas
        found = self._passes.get(key)
        if found is None:
            with self._lock:  # others who want it wait for it, instead of making it too
                found = self._passes.get(key)
                if found is None:
                    found = self._permutation(seed, number, replicas)
                    kept = list(self._passes.items())[1 - _KEPT :]
                    self._passes = {**dict(kept), key: found}
        return found

    def _look_ahead(self, seed: int, number: int) -> None:
        """Make the permutation of a pass before it is needed, unless somebody is at it."""
        if (seed, number, None) not in self._passes and not self._lock.locked():
            self.permutation(seed, number)

    def _permutation(self, seed: int, number: int, replicas: int | None) -> Array:
        words = [key_of(seed), number] if replicas is None else [key_of(seed), number, 1]
        rng = np.random.Generator(np.random.SFC64(words))
        if replicas is not None:
            return rng.permuted(np.broadcast_to(np.arange(self.n), (replicas, self.n)), axis=1)
        if self.chunk == 1:
            if not _COMPILED <= self.n < 2**32:
                return rng.permutation(self.n)
            order = np.arange(self.n)
            _shuffle()(order, np.uint64(mixed(words[0] + (number + 1) * _GOLDEN)))
            return order
        whole = self.n // self.chunk
        inside = np.arange(whole * self.chunk).reshape(whole, self.chunk)
        shuffle = _shuffle()
        for k, items in enumerate(inside):
            shuffle(items, np.uint64(mixed(mixed(words[0] + (number + 1) * _GOLDEN) + (k + 1) * _GOLDEN)))
        last = whole * self.chunk + rng.permutation(self.n - whole * self.chunk)
        place = int(rng.integers(whole + 1))  # where the last chunk, which is shorter, comes
        inside = inside[rng.permutation(whole)]
        return np.concatenate([inside[:place].ravel(), last, inside[place:].ravel()])


@lru_cache
def _shuffle() -> Callable[[Array, np.uint64], None]:
    """Fisher and Yates' shuffle, compiled: NumPy's takes three times as long, and holds the interpreter for all others."""
    import numba

    golden, first, second = np.uint64(_GOLDEN), np.uint64(_FIRST), np.uint64(_SECOND)
    by_30, by_27, by_31, by_32 = (np.uint64(shift) for shift in (30, 27, 31, 32))

    @numba.njit(nogil=True)
    def shuffle(order: Any, key: Any) -> None:
        for i in range(order.size - 1, 0, -1):
            key += golden
            word = (key ^ key >> by_30) * first
            word = (word ^ word >> by_27) * second
            j = (((word ^ word >> by_31) >> by_32) * np.uint64(i + 1)) >> by_32
            order[i], order[j] = order[j], order[i]

    compiled: Callable[[Array, np.uint64], None] = shuffle
    return compiled


def task_index(rng: Rng) -> int | None:
    """The number of the task that a stream stands at, None if something was drawn from it before (this counts too)."""
    if not isinstance(rng, Stream) or rng.domain is not Domain.TASK or rng.index is None:
        return None
    index, _ = rng.index, rng.generator
    return index


def check_order(order: Any, allowed: tuple[str, ...] = ORDERS) -> None:
    """An error unless it is one of the allowed orders."""
    if not isinstance(order, str) or order not in allowed:
        raise InvalidInputError(f"order must be one of {', '.join(map(repr, allowed))}, not {order!r}")


def mixed(word: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014), a bijection of 64-bit words."""
    word &= _MASK
    word = (word ^ word >> 30) * _FIRST & _MASK
    word = (word ^ word >> 27) * _SECOND & _MASK
    return word ^ word >> 31


def mixed_in_place(words: Array) -> Array:
    """`mixed` for an array of uint64, which is changed and returned."""
    scratch = np.empty_like(words)
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        np.right_shift(words, np.uint64(shift), out=scratch)
        words ^= scratch
        if factor != 1:
            words *= np.uint64(factor)
    return words


@lru_cache(64)
def key_of(seed: int, replica: int | None = None) -> int:
    """A 64-bit key of a seed of any size, and of a replica's number."""
    key = mixed(_GOLDEN)
    for part in (*_limbs(seed), *(() if replica is None else (replica, _FIRST))):
        key = mixed(key * 3 + part)
    return key


def _limbs(seed: int) -> list[int]:
    limbs = [seed & _MASK]
    while seed := seed >> 64:
        limbs.append(seed & _MASK)
    return limbs


@lru_cache(8)
def _keys(seed: int, replicas: int) -> Array:
    keys = np.array([key_of.__wrapped__(seed, r) for r in range(replicas)], np.uint64)
    keys.flags.writeable = False
    return keys


def alias_table(weights: Array) -> tuple[Array, Array]:
    """Walker's alias table: entry k stands for item k with probability ``kept[k]``, for item ``other[k]`` otherwise.

    Vectorised with prefix sums: light items, in order, are filled up by heavy ones, in order (Huebschle-Schneider and
    Sanders, "Parallel weighted random sampling", ESA 2019, section 4).

    Examples
    --------
    >>> kept, other = alias_table(np.array([1.0, 2.0, 3.0]))
    >>> ((kept + np.bincount(other, 1 - kept, 3)) / 3 * 6).round(12)
    array([1., 2., 3.])
    """
    n = len(weights)
    if not np.any(weights):
        weights = np.ones(n)  # a matrix of zeros: no row is better than another
    shares = np.asarray(weights, np.float64) / (np.max(weights))  # the sum cannot overflow
    shares *= n / shares.sum()
    kept, other = np.ones(n), np.arange(n)
    light, heavy = np.flatnonzero(shares < 1), np.flatnonzero(shares >= 1)
    if not len(light):
        return kept, other
    missing = np.cumsum(1 - shares[light])  # up to and with each light item
    spare = np.cumsum(shares[heavy] - 1)
    before = np.concatenate([[0.0], missing[:-1]])
    last = len(heavy) - 1
    kept[light] = shares[light]
    other[light] = heavy[np.minimum(np.searchsorted(spare, before, side="right"), last)]
    # a heavy item that has given more than it could spare is filled up by the next one
    given = np.concatenate([[0.0], missing])[np.searchsorted(before, spare[:-1], side="left")]
    kept[heavy[:-1]] = np.clip(1 + spare[:-1] - given, 0.0, 1.0)
    other[heavy[:-1]] = heavy[1:]
    return kept, other
