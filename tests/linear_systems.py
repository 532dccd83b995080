"""Linear systems for tests, and sketch-and-project written down naively."""

import numpy as np
import scipy.sparse as sp

import tardigrad as td
from tardigrad.core.streams import Domain, Stream

METRICS = ["identity", "diagonal", "matrix"]


def make_metric(kind, dim, seed=3):
    rng = np.random.default_rng(seed)
    if kind == "identity":
        return None
    if kind == "diagonal":
        return rng.uniform(0.5, 3.0, dim)
    root = rng.normal(size=(dim, dim))
    return root @ root.T + dim * np.eye(dim)


def inverse_of(B, dim):
    if B is None:
        return np.eye(dim)
    return np.diag(1 / B) if B.ndim == 1 else np.linalg.inv(B)


def make_matrix(n_rows=30, dim=6, seed=1, *, density=1.0, rank=None):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n_rows, dim))
    if rank is not None:
        A = rng.normal(size=(n_rows, rank)) @ rng.normal(size=(rank, dim))
    return A * (rng.random(A.shape) < density)


def make_system(n_rows=30, dim=6, seed=1, *, metric="identity", sparse=False, dtype=np.float64, rank=None, **kwargs):
    A = make_matrix(n_rows, dim, seed, density=0.5 if sparse else 1.0, rank=rank).astype(dtype)
    b = A @ np.random.default_rng(seed + 100).normal(size=dim).astype(dtype)
    return td.LinearSystem(sp.csr_array(A) if sparse else A, b, make_metric(metric, dim), **kwargs)


def dense(system):
    return np.asarray(system.A.toarray() if sp.issparse(system.A) else system.A, np.float64)


def projection_step(system, S, x):
    """``B^-1 A'S (S'A B^-1 A'S)^+ S'(A x - b)`` by the pseudo-inverse of numpy, at x (..., dim), in float64."""
    A, inverse = dense(system), inverse_of(system.B, system.dim)
    M = S.T @ A
    pinv = np.linalg.pinv(M @ inverse @ M.T, rcond=1e-10, hermitian=True)
    return ((x @ A.T - system.b) @ S) @ (pinv @ M @ inverse)


def selection(n_rows, rows):
    """S for single rows or blocks."""
    return np.eye(n_rows)[:, np.atleast_1d(rows)]


def tasks(seed=0, replicas=None):
    return Stream(seed, Domain.TASK, replicas)


def points(system, *lead, seed=5):
    return np.random.default_rng(seed).normal(size=(*lead, system.dim)).astype(system.dtype)


def matrix_of(system, sample):
    """S of a sample, from what the sketch says of itself."""
    sketch, steps = system.sketch, system._steps
    if isinstance(sketch, td.Rows):
        return selection(system.n_rows, sample)
    if isinstance(sketch, td.RowBlocks):
        return selection(system.n_rows, steps.blocks[sample] if sketch.partition == "fixed" else sample)
    S = steps.matrix(int(sample), slice(0, system.n_rows))
    return np.asarray(S.toarray() if sp.issparse(S) else S).T
