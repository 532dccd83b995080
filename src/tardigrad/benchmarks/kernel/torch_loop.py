"""EigenPro 2 as one would write it in PyTorch: whole blocks of the kernel matrix, all threads on each operation.

Rules of this file:

- the same sizes and steps as the rule `EigenPro`, so the same number of blocks; whatever can be in place is;
- entries with the subsample are taken from the block, not computed twice;
- an epoch is with its preconditioner.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tardigrad.engines.real import cores
from tardigrad.papers.async_eigenpro_runs import Case
from tardigrad.problems.kernel_functions import Laplacian
from tardigrad.problems.torch_module import import_torch
from tardigrad.rules.nystrom_preconditioner import preconditioner
from tardigrad.theory.eigenpro import one_worker_step


def torch_epoch(case: Case, batch_size: int, n_subsample: int, n_damped: int) -> tuple[float, float]:
    """Seconds of one epoch, and the test accuracy after it."""
    assert isinstance(case.kernel, Laplacian)
    torch = import_torch()
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        with torch.no_grad():
            return _epoch(case, float(case.kernel.bandwidth), batch_size, n_subsample, n_damped)
    finally:
        torch.set_num_threads(threads)


def _epoch(case: Case, bandwidth: float, batch_size: int, n_subsample: int, n_damped: int) -> tuple[float, float]:
    torch = import_torch()
    X, Y = torch.from_numpy(np.ascontiguousarray(case.X)), torch.from_numpy(case.Y)
    order = np.random.default_rng(0).permutation(len(X))
    alpha = torch.zeros_like(Y)
    laplacian(X[:batch_size], X, (X * X).sum(dim=1), bandwidth)  # warm-up
    began = time.perf_counter()
    norms = (X * X).sum(dim=1)
    sub = torch.from_numpy(np.sort(np.random.default_rng(1).permutation(len(X))[:n_subsample]))
    made = preconditioner(laplacian(X[sub], X[sub], norms[sub], bandwidth).double().numpy(), 1.0, n_damped)
    U, scale = torch.from_numpy(made.vectors).float(), torch.from_numpy(made.scale).float()
    gamma = one_worker_step(made.beta, made.top, batch_size)
    for first in range(0, len(X), batch_size):
        batch = torch.from_numpy(order[first : first + batch_size])
        block = laplacian(X[batch], X, norms, bandwidth)
        g = block @ alpha - Y[batch]
        alpha.index_add_(0, batch, g, alpha=-gamma)
        alpha.index_add_(0, sub, U @ (scale[:, None] * (U.T @ (block[:, sub].T @ g))), alpha=gamma)
    seconds = time.perf_counter() - began
    right = 0
    for first in range(0, len(case.test_rows), batch_size):
        some = slice(first, first + batch_size)
        values = laplacian(torch.from_numpy(np.ascontiguousarray(case.test_rows[some])), X, norms, bandwidth) @ alpha
        right += int((values.argmax(dim=1).numpy() == case.test_labels[some]).sum())
    return seconds, right / max(len(case.test_rows), 1)


def laplacian(Z: Any, X: Any, norms: Any, bandwidth: float) -> Any:
    """The block of ``exp(-|z - x| / bandwidth)``."""
    block = import_torch().addmm(norms, Z, X.T, alpha=-2.0)
    block += (Z * Z).sum(dim=1)[:, None]
    return block.clamp_(min=0).sqrt_().mul_(-1 / bandwidth).exp_()
