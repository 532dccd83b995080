"""A rule to start from: asynchronous gradient descent with clipped gradients.

    x <- x - step g min(1, radius / |g|),   g a gradient at a point that may be old

Copy this file, rename the class, change what is marked CHANGE. ``python rule.py`` checks the contract and runs it. What
else a rule can have (several points, caches at workers, state of its own): docs/write-a-rule.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import tardigrad as td


@dataclass(frozen=True)  # frozen: a run must not change its rule
class ClippedSGD(td.Rule):
    """Asynchronous gradient descent with clipped gradients.

    Parameters
    ----------
    step : float
        Step size.
    radius : float
        Longest gradient that is used as it is.
    """

    # CHANGE: the hyper-parameters; they are saved with a run
    step: float
    radius: float = 1.0

    # the worker's half: pure, its random numbers come from `rng` alone
    def work(self, problem, task, points, rng, cache):
        sample = problem.sample(task.client, rng)
        return problem.gradient(task.client, points[0], sample)  # CHANGE: any array, or a tuple of arrays

    # the server's half, first tasks: here one for each client
    def start(self, x0, n_clients, rng):
        state = td.State(x0)  # CHANGE: a subclass of State (slotted dataclass) where more than x is kept
        return state, [state.task(client) for client in range(n_clients)]

    # the server's half, for every reply: change the state, say what comes next
    def receive(self, state, reply, rng):
        gradient = reply.payload  # valid until this returns: copy what you keep, change nothing in it
        length = np.linalg.norm(gradient, axis=-1, keepdims=True)  # iterates are (..., dim): sweeps come for free
        state.x -= self.step * gradient * np.minimum(1.0, self.radius / np.maximum(length, 1e-300))  # CHANGE: the update
        state.version += 1  # one for every update of x
        return state, [state.task(reply.task.client)]  # no task, one, several, or td.Cancel(id)


def main() -> None:
    """Check the contract, then run the rule."""
    problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    td.testing.check_rule(ClippedSGD(step=0.1), problem)
    engine = td.Simulated(td.PerClient([1.0, 1.0, 1.0, 8.0]))
    result = td.run(ClippedSGD(step=0.1), problem, engine, stop=td.MaxUpdates(1000))
    print(result, "; replayed in every bit:", td.replay(result).identical)


if __name__ == "__main__":
    main()
