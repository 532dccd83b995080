"""What is minimised, as a rule sees it.

The objective is ``f(x) = sum_i w_i f_i(x)`` over clients ``i = 0..n_clients-1`` with weights that add
up to one. Rules of this file:

- oracles are pure: all randomness comes from the sample, the sample from the rng alone;
- iterates have shape ``(..., dim)``; an oracle works on all leading axes at once;
- one sample can be used at several points: differences of gradients need that.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Collection
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain, encode
from tardigrad.core.smoothness import SmoothnessConstants
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Points


class Problem(Plain):
    """Base class of problems. A subclass sets the attributes and defines `gradient`.

    Attributes
    ----------
    n_clients : int
        Number of owners of data.
    dim : int
        Length of an iterate's last axis.
    dtype : numpy.dtype
        Type of the iterates.
    shared_data : bool
        Whether every worker can do every client's tasks (clients then only number the workers).
    equal_weights : bool
        Whether every weight is ``1 / n_clients``; where not, `scale` is overridden.
    payload_type : str or None
        "bfloat16": what workers answer in float32 is rounded to bfloat16, on every engine, and sent in half the bytes by
        those that send it. The server still gets float32 arrays.
    """

    n_clients: int
    dim: int
    dtype: np.dtype[Any] = np.dtype(np.float64)
    shared_data: bool = False
    equal_weights: bool = True
    payload_type: str | None = None

    @abstractmethod
    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        """Gradient of ``f_client`` at `x` (..., dim) on a sample; on all its data where that is None."""

    def gradients(self, client: int, xs: Points, sample: Any = None) -> Points:
        """Gradients of ``f_client`` at several points on one sample: of each, in every bit, what `gradient` gives there.

        A problem overrides this where something is done once for all points, such as fetching rows.
        """
        return tuple(self.gradient(client, x, sample) for x in xs)

    def sample(self, client: int, rng: Rng) -> Any:
        """What one stochastic gradient of a client looks at; None where gradients are exact."""
        return None

    def weight(self, client: int) -> float:
        """The weight ``w_client``."""
        return self.scale(client) / self.n_clients

    def scale(self, client: int) -> float:
        """``n_clients * w_client``: makes a uniformly drawn client's gradient unbiased. 1 for equal weights."""
        return 1.0

    def x0(self) -> Array:
        """Where a run starts unless told otherwise."""
        return np.zeros(self.dim, self.dtype)

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """Quantities of interest at `x` (..., dim) by name, each of shape (...); only those in `names` if given."""
        return {}

    def constants(self) -> SmoothnessConstants:
        """L, delta and ell, from which steps are computed: of least squares and of logistic and softmax regression.

        Raises
        ------
        InvalidInputError
            Unless the problem's class defines it.
        """
        raise InvalidInputError(
            f"{type(self).__name__} does not say how smooth it is: give a step size as a number, or define constants()"
            " to return SmoothnessConstants"
        )

    def fingerprint(self) -> str:
        """A hash of everything that defines the problem: equal problems, equal fingerprints."""
        return fingerprint_of(self)


def fingerprint_of(value: Any) -> str:
    """A hash of a plain value: equal values, equal hashes."""
    arrays: dict[str, Array] = {}
    text = json.dumps(encode(value, arrays))
    # a class is the same one in the script that defines it (__main__) and where that script is imported
    digest = hashlib.sha256(re.sub(r'"\$type": "[^":]*:', '"$type": "', text).encode())
    for name, array in arrays.items():
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
