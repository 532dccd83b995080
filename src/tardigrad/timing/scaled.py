"""What timings share whose parameters are durations: one for all clients, or one for each.

Rules of this file:

- a message names the timing, its parameter, and the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.timing import Timing
from tardigrad.core.validate import number

SECONDS = "a number of seconds"


def durations(values: Any, name: str) -> tuple[float, ...]:
    """A duration for each client."""
    try:
        array = np.asarray(values, float).ravel()
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name} must be a duration or one for each client, not {values!r}") from None
    if not len(array):
        raise InvalidInputError(f"{name} needs a duration for each client, not an empty list")
    return tuple(number(value, f"{name}, client {i},", above=0, what=SECONDS) for i, value in enumerate(array.tolist()))


class Scaled(Timing):
    """A distribution times a mean, which is a number or one for each client."""

    mean: float | Sequence[float]

    def _check_mean(self) -> None:
        name = f"{type(self).__name__}.mean"
        mean = number(self.mean, name, above=0, what=SECONDS) if np.ndim(self.mean) == 0 else durations(self.mean, name)
        object.__setattr__(self, "mean", mean)

    def _mean_of(self, client: int) -> float:
        return self.mean if isinstance(self.mean, float) else self.mean[client]

    def check(self, n_clients: int) -> None:
        if not isinstance(self.mean, float) and len(self.mean) != n_clients:
            name = type(self).__name__
            counts = f"{len(self.mean)} means for {n_clients} clients"
            raise InvalidInputError(f"{name} has {counts}: give one number or one for each")
