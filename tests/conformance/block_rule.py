"""An in-place rule with disjoint ownership: asynchronous block gradient descent, and a torn read is noticed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import tardigrad as td


@dataclass(frozen=True)
class BlockDescent(td.InPlaceRule):
    """Client i descends along its own block of a gradient at the whole iterate: ``x_i <- x_i - step (grad f(x))_i``."""

    ownership: ClassVar = "disjoint"

    step: float = 0.05
    concurrency: int | None = None

    def work(self, problem, task, points, rng, cache):
        x = np.concatenate(points, axis=-1)
        gradient = problem.gradient(task.client, x, problem.sample(task.client, rng))
        bounds = self.bounds(problem.dim, problem.n_clients)
        return gradient[..., bounds[task.client] : bounds[task.client + 1]].copy()

    def write(self, x, payload, task):
        x -= self.step * payload
