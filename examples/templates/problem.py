"""A problem to start from: robust regression by Huber's loss, over rows that clients own.

    f_i(x) = (1/m_i) sum_r h(a_r . x - y_r),   h(u) = u^2 / 2 for |u| <= 1, |u| - 1/2 beyond

Copy this file, rename the class, change what is marked CHANGE. ``python problem.py`` checks the contract and runs it.
"""

from __future__ import annotations

import numpy as np

import tardigrad as td
from tardigrad.core.streams import noise_shape


class HuberRegression(td.Problem):
    """Robust regression over rows that clients own.

    Parameters
    ----------
    X : array (n_clients, n_rows, dim)
        Rows of each client.
    y : array (n_clients, n_rows)
        Their targets.
    batch : int
        Rows of a stochastic gradient.
    """

    def __init__(self, X, y, batch):
        self.X, self.y, self.batch = np.asarray(X, float), np.asarray(y, float), batch
        self.n_clients, self.n_rows, self.dim = self.X.shape

    # the arguments of __init__, so that a run can be saved with its problem, and replayed
    def fields(self):
        return {"X": self.X, "y": self.y, "batch": self.batch}

    # what one stochastic gradient looks at, from rng alone; leave it out where gradients are exact
    def sample(self, client, rng):
        return rng.integers(self.n_rows, size=(*noise_shape(rng), self.batch))  # CHANGE: noise_shape is for replicas

    # CHANGE: the gradient of f_client at x (..., dim), on all data of the client where sample is None
    def gradient(self, client, x, sample=None):
        X, y = self.X[client], self.y[client]
        if sample is not None:
            X, y = X[sample], y[sample]
        if X.ndim > 2:  # a sample for each replica, the first axis of x; further axes share it
            further = (1,) * (x.ndim - 2)
            X, y = X.reshape(len(X), *further, *X.shape[1:]), y.reshape(len(y), *further, -1)
        residual = np.matmul(X, x[..., np.newaxis])[..., 0] - y
        return np.matmul(np.clip(residual, -1, 1)[..., np.newaxis, :], X)[..., 0, :] / residual.shape[-1]

    # CHANGE: what is worth watching, each of shape (...); by the name "loss" check_problem compares the gradient with it
    def measures(self, x, names=None):
        if names is not None and "loss" not in names:
            return {}
        size = np.abs(np.einsum("cri,...i->...cr", self.X, x) - self.y)
        return {"loss": np.where(size <= 1, size**2 / 2, size - 0.5).mean((-1, -2))}


def make_problem(n_clients: int = 4, n_rows: int = 30, dim: int = 3, seed: int = 0) -> HuberRegression:
    """Random rows, and targets of which some are far off."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_clients, n_rows, dim))
    return HuberRegression(X, X @ np.ones(dim) + 0.1 * rng.standard_cauchy(size=(n_clients, n_rows)), batch=5)


def main() -> None:
    """Check the contract, then minimise."""
    problem = make_problem()
    td.testing.check_problem(problem)
    result = td.run(td.AsyncSGD(0.1), problem, td.Threads(4), stop=td.MaxUpdates(2000), snapshot_every=500)
    print(result, "; loss:", result.evaluate()["loss"].round(4), "; replayed in every bit:", td.replay(result).identical)


if __name__ == "__main__":
    main()
