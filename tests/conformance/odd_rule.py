"""A rule that uses every part of the contract that the shipped ones leave out."""

from dataclasses import dataclass, field

import numpy as np

from tardigrad.core.rule import Rule, State
from tardigrad.core.task import Cancel


@dataclass(slots=True, kw_only=True)
class OddState(State):
    x_prev: np.ndarray
    n_clients: int
    open: dict[int, int] = field(default_factory=dict)
    log: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class OddRule(Rule[OddState]):
    """Reads two points, sends tuples, prepares caches, cancels tasks, uses kinds, setups, weights and all generators."""

    step: float = 0.05
    cancel_every: int = 5

    def start(self, x0, n_clients, rng):
        state = OddState(x=x0, x_prev=x0 + rng.normal(size=x0.shape), n_clients=n_clients)
        return state, [self._ask(state, client) for client in range(n_clients)]

    def points(self, state):
        return state.x, state.x_prev

    def receive(self, state, reply, rng):
        difference, noise = reply.payload
        del state.open[reply.task.id]
        state.x_prev[...] = state.x
        state.x -= self.step * reply.task.weight * difference + 1e-3 * noise
        state.version += 1
        state.log = [*state.log[-3:], float(noise[0])]
        orders = [self._ask(state, int(rng.integers(state.n_clients)))]
        if state.version % self.cancel_every == 0:
            oldest = min(state.open)
            client = state.open.pop(oldest)
            orders += [Cancel(oldest), self._ask(state, client)]
        return state, orders

    def prepare(self, problem, client, setup, rng):
        return rng.normal(size=problem.dim) + client + setup

    def work(self, problem, task, points, rng, cache):
        x, x_prev = points
        sample = problem.sample(task.client, rng)
        difference = problem.gradient(task.client, x, sample) - 0.5 * problem.gradient(task.client, x_prev, sample)
        return difference + 1e-3 * cache, rng.normal(size=1 if task.kind == "short" else x.shape)

    def oracle_calls(self, task):
        return 2

    def _ask(self, state, client):
        kind = "short" if state.issued % 3 == 0 else "long"
        task = state.task(client, kind=kind, setup=state.version // 10, weight=1.0 + state.issued % 2)
        state.open[task.id] = client
        return task
