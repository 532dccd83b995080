"""Lets only proper and finite payloads come to a rule.

Rules of this file:

- a rule gets arrays in C order: sums depend on the order, and from another process no other comes;
- finiteness is judged by the squared norm, one pass of a dot product: a payload whose squared norm
  overflows (norm above 1e154 in float64, 1e19 in float32) counts as not finite;
- a replica that turns non-finite keeps its last finite iterate, and its later payloads are zero, so
  that the others go on undisturbed.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.stopping import Status
from tardigrad.core.task import Array, Payload, Reply, Task


def canonical(payload: Any, task: Task) -> Payload:
    """The payload, its arrays in C order; an error where it holds anything but arrays of numbers."""
    arrays: tuple[Any, ...] = payload if isinstance(payload, tuple) else (payload,)
    for array in arrays:
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InvalidInputError(
                f"the reply to task {task.id} of client {task.client} holds {what}: work (and the problem's gradient) must"
                " return a NumPy array of numbers, or a tuple of them"
            )
    # not ascontiguousarray, which gives numbers an axis
    ordered: tuple[Array, ...] = tuple(array if array.flags.c_contiguous else array.copy(order="C") for array in arrays)
    return ordered if isinstance(payload, tuple) else ordered[0]


def is_finite(payload: Payload) -> bool:
    """Whether the squared norms of all arrays are finite."""
    arrays = payload if isinstance(payload, tuple) else (payload,)
    return all(isfinite(np.vdot(array, array)) for array in arrays)


class Guard:
    """Judges payloads of a run whose iterates have leading shape `lead`."""

    def __init__(self, lead: tuple[int, ...]) -> None:
        self.dead = np.zeros(lead, bool)
        self._any_dead = False
        self._last: Array | None = None

    def take_up(self, dead: Array, x: Array) -> None:
        """Go on with masked replicas, `x` being what `answer` gave."""
        self._any_dead = bool(dead.any())
        if self._any_dead:
            self.dead, self._last = dead.copy(), x.copy()

    def admit(self, reply: Reply, x: Array) -> bool:
        """Whether a reply may be applied; the payload of masked replicas is set to zero in it."""
        payload = reply.payload = canonical(reply.payload, reply.task)
        arrays = payload if isinstance(payload, tuple) else (payload,)
        if not self._any_dead and is_finite(payload):
            return True
        if not self.dead.ndim:
            return False
        self._mask(arrays, x)
        if self.dead.all():
            return False
        masked = tuple(np.where(self._over(self.dead, array), 0, array) for array in arrays)
        reply.payload = masked if isinstance(payload, tuple) else masked[0]
        return True

    def _mask(self, arrays: Payload, x: Array) -> None:
        lead = self.dead.shape
        bad = np.zeros(lead, bool)
        for array in arrays:
            if array.shape[: len(lead)] == lead:
                rows = array.reshape((*lead, -1))
                bad |= ~np.isfinite(np.einsum("...i,...i->...", rows, rows))
            elif not isfinite(np.vdot(array, array)):
                bad[...] = True  # a payload that all replicas share
        newly = bad & ~self.dead
        if newly.any():
            self._last = x.copy() if self._last is None else self._last
            self._last[newly] = x[newly]
            self.dead |= newly
            self._any_dead = True

    def _over(self, dead: Array, array: Array) -> Array:
        if array.shape[: dead.ndim] != dead.shape:
            return np.zeros((), bool)
        return dead.reshape(dead.shape + (1,) * (array.ndim - dead.ndim))

    def answer(self, x: Array) -> Array:
        """The iterates, those of masked replicas as they were last finite; `x` itself where none is masked."""
        if self._last is None:
            return x
        answer = x.copy()
        answer[self.dead] = self._last[self.dead]
        return answer

    def mask(self, status: Status) -> Array:
        """Which replicas diverged; all of them where the run ended for that."""
        return np.ones_like(self.dead) if status is Status.DIVERGED else self.dead

    def describe(self, message: str) -> str:
        """The message of the run, with the number of masked replicas."""
        if not self._any_dead:
            return message
        return f"{message}; {int(self.dead.sum())} of {self.dead.size} replicas diverged and were masked"
