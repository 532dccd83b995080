"""The worker's half of SARAH and AsyncBC: differences of gradients between two points, and full gradients.

Rules of this file:

- both gradients of a difference are of the same sample: independent noise would not vanish as the points meet;
- a full gradient is weighted so that those of all clients add up to that of f, a difference so that it is unbiased for a
  client that is drawn uniformly.
"""

from __future__ import annotations

from typing import Any, Generic

from tardigrad.core.problem import Problem
from tardigrad.core.rule import Rule, S
from tardigrad.core.streams import Rng
from tardigrad.core.task import Payload, Points, Task

#: kinds of tasks
FULL, DIFFERENCE = "full", "difference"


class DifferenceRule(Rule[S], Generic[S]):
    """``w_i grad f_i(x)``, or ``n w_i (grad f_i(x; xi) - grad f_i(x_previous; xi))``; points are (x, x_previous)."""

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        client = task.client
        if task.kind == FULL:
            return problem.gradient(client, points[0]) * problem.weight(client)
        here, before = problem.gradients(client, points, problem.sample(client, rng))
        change = here - before
        return change if problem.equal_weights else change * problem.scale(client)

    def oracle_calls(self, task: Task) -> int:
        return 1 if task.kind == FULL else 2
