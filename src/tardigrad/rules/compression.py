"""Unbiased compression of what workers send: random coordinates, and stochastic quantisation.

``E[expand(compress(v))] = v`` and ``E|expand(compress(v)) - v|^2 <= omega |v|^2``: the noise is proportional to what is sent,
so differences of gradients, which tend to zero, suffer less and less of it.

Rules of this file:

- all randomness comes from the rng that is handed over, so a replay compresses as the run did;
- replicas have noise of their own; further leading axes (a sweep of step sizes) share it: see `core.streams.noise_shape`;
- a payload is a tuple of arrays, in the precision of the vector, and expanding it takes no randomness.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.streams import Rng, noise_shape
from tardigrad.core.task import Array, Payload
from tardigrad.core.validate import integer


class Compressor(Plain):
    """Base class: turns vectors (..., dim) into payloads and back, without bias.

    Notes
    -----
    A subclass is a frozen dataclass with `compress`, `expand` and `omega`; what it draws comes from the rng alone.

    References
    ----------
    Unbiased compressors with variance factor omega: Horvath, Kovalev, Mishchenko, Richtarik, Stich, "Stochastic distributed
    learning with gradient quantization and double-variance reduction", Optimization Methods and Software 2023.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> compressor: td.Compressor = td.RandomK(1)
    >>> vector, rng = np.array([1.0, -1.0]), np.random.default_rng(0)
    >>> sent = [compressor.expand(compressor.compress(vector, rng), 2, vector.dtype) for _ in range(4000)]
    >>> bool(np.allclose(np.mean(sent, axis=0), vector, atol=0.1)), compressor.omega(2)
    (True, 1.0)
    """

    @abstractmethod
    def compress(self, vector: Array, rng: Rng) -> Payload:
        """What is sent instead of `vector` (..., dim)."""

    @abstractmethod
    def expand(self, payload: Payload, dim: int, dtype: np.dtype[Any]) -> Array:
        """The vector (..., dim) that a payload stands for, in this precision."""

    @abstractmethod
    def omega(self, dim: int) -> float:
        """The variance factor: ``E|expand(compress(v)) - v|^2 <= omega |v|^2`` for v of length `dim`."""


@dataclass(frozen=True)
class RandomK(Compressor):
    """k coordinates drawn uniformly without replacement, times ``dim / k``.

    ``omega = dim / k - 1``, attained by every vector. A payload is ``(values (..., k), places (k,))``, with places (replicas,
    k) in a run of replicas: ``k (4 + itemsize)`` bytes a vector, places being int32 up to 2^31 coordinates.

    Parameters
    ----------
    k : int
        Coordinates to keep, from 1 to dim; all of them send the vector as it is, in another order.

    Raises
    ------
    InvalidInputError
        If k is no positive integer, or a vector is shorter than k.

    References
    ----------
    Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018, definition 2.1; the factor makes it unbiased.

    Examples
    --------
    >>> import numpy as np
    >>> payload = RandomK(2).compress(np.array([1.0, 2.0, 3.0, 4.0]), np.random.default_rng(0))
    >>> RandomK(2).expand(payload, 4, np.dtype(float))
    array([0., 0., 6., 8.])
    >>> RandomK(2).omega(4)
    1.0
    """

    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", integer(self.k, "RandomK.k"))

    def compress(self, vector: Array, rng: Rng) -> tuple[Array, Array]:
        dim = vector.shape[-1]
        self._check(dim)
        kind = np.int32 if dim <= np.iinfo(np.int32).max else np.int64
        replicas = noise_shape(rng)
        if replicas:
            draws = [rng.choice(dim, self.k, replace=False, shuffle=False) for _ in range(replicas[0])]
            places = np.stack(draws).astype(kind)
        else:
            places = rng.choice(dim, self.k, replace=False, shuffle=False).astype(kind)
        values = np.take_along_axis(vector, _aligned(places, vector.ndim), axis=-1)
        return values * (dim / self.k), places

    def expand(self, payload: Payload, dim: int, dtype: np.dtype[Any]) -> Array:
        values, places = payload
        vector = np.zeros((*values.shape[:-1], dim), dtype)
        np.put_along_axis(vector, _aligned(places, values.ndim), values.astype(dtype, copy=False), axis=-1)
        return vector

    def omega(self, dim: int) -> float:
        self._check(integer(dim, "dim"))
        return dim / self.k - 1

    def _check(self, dim: int) -> None:
        if self.k > dim:
            raise InvalidInputError(f"RandomK({self.k}) cannot keep {self.k} coordinates of {dim}: choose k from 1 to {dim}")


@dataclass(frozen=True)
class Quantization(Compressor):
    """Stochastic quantisation (QSGD): coordinates are rounded to multiples of ``|v| / levels``, up or down at random.

    With s levels, ``|v_i| s / |v|`` lies between two integers; it becomes the upper one with the probability that makes the
    mean right. ``omega = min(dim / s^2, sqrt(dim) / s)`` is a bound. A payload is ``(levels (..., dim), norms (...))``, the
    levels signed integers of 1 byte for s <= 127, of 2 for s <= 32767, else of 4.

    Parameters
    ----------
    levels : int
        s, from 1 to 2^31 - 1; with 1 a coordinate becomes the norm, its negative, or 0.

    Raises
    ------
    InvalidInputError
        If levels is no integer in that range.

    Notes
    -----
    A vector with a NaN or an infinity comes back as NaN in every coordinate, so that whoever receives it sees that.

    References
    ----------
    Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: communication-efficient SGD via gradient quantization and encoding", NIPS
    2017, section 3.1 and Lemma 3.1. Integers are sent as they are, without the paper's Elias coding.

    Examples
    --------
    >>> import numpy as np
    >>> levels, norm = Quantization(5).compress(np.array([3.0, -4.0]), np.random.default_rng(0))
    >>> levels, norm.item()
    (array([ 3, -4], dtype=int8), 5.0)
    >>> Quantization(5).omega(2)
    0.08
    """

    levels: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", integer(self.levels, "Quantization.levels", high=2**31 - 1))

    def compress(self, vector: Array, rng: Rng) -> tuple[Array, Array]:
        norms = _norms(vector)
        usable = np.isfinite(norms) & (norms > 0)
        divisor = np.where(usable, norms, 1)[..., None]
        size = np.where(usable[..., None], np.abs(vector), 0).astype(np.float64) / divisor * self.levels
        lower = np.floor(size)
        replicas = noise_shape(rng)
        chance = rng.random((*replicas, *(1,) * (vector.ndim - 1 - len(replicas)), vector.shape[-1]))
        lower += chance < size - lower
        found = np.copysign(lower, np.where(usable[..., None], vector, 0)).astype(self._kind)
        return found, norms

    def expand(self, payload: Payload, dim: int, dtype: np.dtype[Any]) -> Array:
        levels, norms = payload
        vector = levels.astype(dtype)
        vector /= self.levels
        vector *= norms[..., None].astype(dtype)
        return vector

    def omega(self, dim: int) -> float:
        dim = integer(dim, "dim")
        return min(dim / self.levels**2, math.sqrt(dim) / self.levels)

    @property
    def _kind(self) -> type[np.signedinteger[Any]]:
        kinds = (np.int8, np.int16, np.int32)
        return next(kind for kind in kinds if self.levels <= np.iinfo(kind).max)


def _aligned(places: Array, ndim: int) -> Array:
    """Places (k,) or (replicas, k) as indices along the last of `ndim` axes."""
    return places.reshape(*places.shape[:-1], *(1,) * (ndim - places.ndim), places.shape[-1])


def _norms(vector: Array) -> Array:
    """Norms (...) of vectors (..., dim) in their precision, NaN where that is not finite.

    Nothing overflows on the way, and no norm is rounded to less than its vector's largest coordinate.
    """
    largest = np.abs(vector).max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(largest) & (largest > 0), largest, 1)
    scaled = np.where(np.isfinite(largest), vector, np.nan) / safe
    norms = np.sqrt(np.square(scaled, dtype=np.float64).sum(axis=-1)) * safe[..., 0]
    with np.errstate(over="ignore"):
        rounded = np.asarray(norms).astype(vector.dtype)
    return np.where(np.isfinite(rounded), rounded, np.asarray(np.nan, vector.dtype))
