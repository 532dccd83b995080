"""What SARAH and AsyncBC share: workers compute differences of gradients, or full ones; the server steps along their sum.

Rules of this file:

- both gradients of a difference are of the same sample: independent noise would not vanish as the points meet;
- a full gradient is weighted so that those of all clients add up to that of f, a difference so that it is unbiased for a
  client that is drawn uniformly.
"""

from __future__ import annotations

from typing import Any, Generic

import numpy as np

from tardigrad.core.compiled import subtract_scaled
from tardigrad.core.problem import Problem
from tardigrad.core.rule import S
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Task
from tardigrad.rules.gradient_descent import DescentRule

#: kinds of tasks
FULL, DIFFERENCE = "full", "difference"


class DifferenceRule(DescentRule[S], Generic[S]):
    """``w_i grad f_i(x)``, or ``n w_i (grad f_i(x; xi) - grad f_i(x_previous; xi))``; points are (x, x_previous).

    A state has ``x_previous``, ``m``, and the scratch spaces ``scratch`` and ``part``.
    """

    def points(self, state: Any) -> Points:
        return state.x, state.x_previous

    def _add(self, state: Any, total: Array, part: Array, weight: float) -> None:
        """``total <- total + weight part``, in place."""
        if weight == 1.0:
            total += part
        elif part.ndim == 1 and not state.fresh:
            subtract_scaled(total, part, -weight)
        else:
            if state.part is None:
                state.part = np.empty_like(total)
            total += np.multiply(part, weight, state.part)

    def _advance(self, state: Any) -> None:
        """``x[t+1] = x[t] - step m``, and x[t] is the point before."""
        if state.fresh:
            state.x_previous = state.x  # the step makes a new x
        else:
            state.x_previous[...] = state.x
        self._descend(state, state.m)

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        client = task.client
        if task.kind == FULL:
            return problem.gradient(client, points[0]) * problem.weight(client)
        here, before = problem.gradients(client, points, problem.sample(client, rng))
        change = here - before
        return change if problem.equal_weights else change * problem.scale(client)

    def oracle_calls(self, task: Task) -> int:
        return 1 if task.kind == FULL else 2
