"""What tests of rules for clients with different data share: clients that say who they are, and runs written out again."""

import numpy as np

import tardigrad as td
from conftest import make_problem
from tardigrad.core.streams import Domain, Stream


class Names(td.Problem):
    """Each client's gradient is its own number; iterates stay at zero."""

    def __init__(self, n_clients, weights=None):
        self.n_clients, self.dim, self.weights = n_clients, n_clients, weights
        self.equal_weights = weights is None

    def fields(self):
        return {"n_clients": self.n_clients, "weights": self.weights}

    def scale(self, client):
        return 1.0 if self.weights is None else self.n_clients * self.weights[client]

    def gradient(self, client, x, sample=None):
        return np.eye(self.n_clients)[client]


class NoisyQuadratics(td.ClientQuadratics):
    """Clients' quadratics with a sample: noise that is added to the point."""

    def sample(self, client, rng):
        return rng.normal(size=self.dim).astype(self.dtype)

    def gradient(self, client, x, sample=None):
        return super().gradient(client, x if sample is None else x + sample)


def make_quadratics(n=4, dim=3, noisy=True, dtype=float, spread=1.0):
    """Quadratics of n clients."""
    rng = np.random.default_rng(8)
    kind = NoisyQuadratics if noisy else td.ClientQuadratics
    return kind(rng.uniform(0.2, 2.0, n), (spread * rng.normal(size=(n, dim))).astype(dtype))


def make_weighted(batch=3):
    """Least squares over clients of 3, 9, 12 and 24 rows, weighted by them."""
    data = make_problem().data
    owners = np.repeat(np.arange(4), [3, 9, 12, 24])
    return td.LeastSquares((data.X, data.y), td.Given(owners), batch=batch, weights="rows")


def replies(result):
    """Task, client, version read and the client's samples, reply by reply, of a run of one replica."""
    stream = Stream(result.seed, Domain.TASK)
    for row in result.trace.table:
        yield int(row["task"]), int(row["client"]), int(row["version_read"]), stream.at(int(row["task"]))
