"""The exact second moments of delayed sketch-and-project steps, by propagation of every cross-covariance.

``e[t+1] = a e[t] + (b I - g P_t) e[s_t]`` with P_t drawn afresh for update t from a finite list of projections: the averaged
method is ``a = 1 - theta, b = theta, g = theta omega``, delayed row steps are ``a = 1, b = 0, g = omega``.
"""

import numpy as np


def row_projections(rows, columns, seed, block=1, scale=None):
    """Projections onto random blocks of rows, and W; columns are scaled for a spread spectrum."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(rows, columns)) * (np.ones(columns) if scale is None else np.asarray(scale))
    parts = np.arange(rows).reshape(-1, block)
    P = np.stack([np.linalg.pinv(A[part]) @ A[part] for part in parts])
    return P, P.mean(0)


def ends(W):
    lam = np.linalg.eigvalsh(W)
    lam = lam[lam > 1e-10]
    return lam[0], lam[-1]


def errors(P, start, a, b, g, version_read=None, chances=None, updates=None):
    """E|e[t]|^2 for t = 0..updates, for given reads or for delays drawn independently with `chances`."""
    n, W = P.shape[1], P.mean(0)
    updates = len(version_read) if updates is None else updates
    C = np.zeros((updates + 1, updates + 1, n, n))  # C[t, s] = E e_t e_s'
    C[0, 0] = np.outer(start, start)
    step = b * np.eye(n) - g * W
    for t in range(updates):
        reads = [(version_read[t], 1.0)] if chances is None else [(max(t - d, 0), p) for d, p in enumerate(chances) if p]
        read = sum(p * C[s, : t + 1] for s, p in reads)  # E e_read e_s'
        C[t + 1, : t + 1] = a * C[t, : t + 1] + step @ read
        C[: t + 1, t + 1] = C[t + 1, : t + 1].transpose(0, 2, 1)
        old = sum(p * C[s, s] for s, p in reads)
        cross = step @ read[t]
        moved = b * b * old - b * g * (W @ old + old @ W) + g * g * (P @ old @ P).mean(0)
        new = a * a * C[t, t] + a * (cross + cross.T) + moved
        C[t + 1, t + 1] = (new + new.T) / 2  # what rounding makes skew would not decay
    return np.trace(C[np.arange(updates + 1), np.arange(updates + 1)], axis1=1, axis2=2)
