"""A linear system sketched by single rows, written independently of the library's, with its moments in closed form."""

import numpy as np

import tardigrad as td
from tardigrad.core.streams import noise_shape


class RowSystem(td.Problem):
    """``A x = b`` in the B-inner product; row i is drawn with probability proportional to its squared B^-1 norm."""

    shared_data = True

    def __init__(self, A, b, B=None, n_clients=1):
        self.A, self.b, self.B, self.n_clients = A, b, np.eye(A.shape[1]) if B is None else B, n_clients
        self.dim, self.dtype = A.shape[1], A.dtype
        self.directions = np.linalg.solve(self.B, A.T).T.astype(A.dtype)  # B^-1 a_i
        self.norms = np.einsum("ij,ij->i", A, self.directions)
        self.chances = (self.norms / self.norms.sum()).astype(float)
        self.limits = np.cumsum(self.chances)

    def fields(self):
        return {"A": self.A, "b": self.b, "B": self.B, "n_clients": self.n_clients}

    def sample(self, client, rng):
        shape = noise_shape(rng)
        rows = np.searchsorted(self.limits, rng.random(shape), "right").clip(0, len(self.b) - 1)
        return rows if shape else int(rows)

    def gradient(self, client, x, sample=None):
        if np.ndim(sample):
            sample = np.reshape(sample, (-1,) + (1,) * (x.ndim - 2))
        a = self.A[sample]
        residual = (np.einsum("...j,...j->...", a, x) - self.b[sample]) / self.norms[sample]
        return np.asarray(residual)[..., None] * self.directions[sample]

    # the moments, in coordinates r = B^1/2 (x - x*), in which a step with row i is I - omega u_i u_i'

    @property
    def units(self):
        """The vectors u_i, one a row, of length one."""
        values, vectors = np.linalg.eigh(self.B)
        rows = self.A @ (vectors / np.sqrt(values)) @ vectors.T
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    @property
    def W(self):
        return np.einsum("i,ij,ik->jk", self.chances, self.units, self.units)

    def root_B(self):
        values, vectors = np.linalg.eigh(self.B)
        return (vectors * np.sqrt(values)) @ vectors.T

    def second(self, C, omega):
        """E[T C T'] for T = I - omega u u'."""
        inner = self.chances * np.einsum("ij,jk,ik->i", self.units, C, self.units)
        return C - omega * (self.W @ C + C @ self.W) + omega**2 * np.einsum("i,ij,ik->jk", inner, self.units, self.units)


def random_system(m=12, n=4, seed=0, n_clients=1, B=None, rank=None, dtype=np.float64):
    """A consistent system and one of its solutions."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(m, n))
    if rank is not None:
        A = A[:, :rank] @ rng.normal(size=(rank, n))
    solution = rng.normal(size=n)
    if B == "diagonal":
        B = np.diag(rng.uniform(0.5, 3.0, n))
    elif B == "dense":
        root = rng.normal(size=(n, n))
        B = root @ root.T + np.eye(n)
    return RowSystem(A.astype(dtype), (A @ solution).astype(dtype), B, n_clients), solution


def accelerated_moments(system, omega, gamma, r, n):
    """E|r[k]|^2 of the accelerated method, exactly: joint moments of r and the step before, u = z[k-1] - x*."""
    T = np.eye(system.dim) - omega * system.W
    C = system.second(np.outer(r, r), omega)  # after x[1] = z[0]: both are z[0] - x*
    rr, ru, uu = C, C, C
    found = [r @ r, np.trace(C)]
    for _ in range(n - 1):
        stepped = system.second(rr, omega)
        cross = T @ ru
        g, h = gamma, 1 - gamma
        rr, ru, uu = (
            g * g * stepped + g * h * (cross + cross.T) + h * h * uu,
            g * stepped + h * ru.T @ T,
            stepped,
        )
        rr = (rr + rr.T) / 2  # an antisymmetric part, which can only be rounding, would grow
        found.append(np.trace(rr))
    return np.array(found) / found[0]
