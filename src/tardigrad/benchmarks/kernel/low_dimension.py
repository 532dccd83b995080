"""28 features: where the exponential, not the product, takes the time.

Rules of this file:

- kernel blocks and the control, NumPy's operations in place in tiles, run on as many threads of one-thread BLAS, in turn;
- entries count where they were multiplied with coefficients: that is what they are for;
- the exponential's error is taken where it is all there is: at squared distances whose roots are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tardigrad.benchmarks.harness import Row, rates_in_turn
from tardigrad.benchmarks.kernel.products import together
from tardigrad.core.task import Array
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems.kernel_blocks import KernelBlocks
from tardigrad.problems.kernel_functions import Laplacian

#: what the control works on at once: the fastest of several
TILE = (256, 2048)
#: units in the last place that the exponential may be off by
ALLOWED_ULP = 4.0


def rows(n_rows: int = 400_000, n_features: int = 28, batch: int = 512, rounds: int = 3, seconds: float = 1.0) -> Iterator[Row]:
    """Entries a second on 1 and 4 threads, and the error."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, n_features)).astype(np.float32)
    Z = rng.normal(size=(4 * batch, n_features)).astype(np.float32)
    alpha = rng.normal(size=(n_rows, 1)).astype(np.float32)
    kernel = Laplacian(float(np.sqrt(n_features)))
    blocks = KernelBlocks(X, kernel)
    norms = np.einsum("ij,ij->i", X, X)
    check_same(blocks.product(Z[:16], alpha)[0], chain(Z[:16], X, norms, alpha, kernel))

    def jobs(product: Callable[[Array], Array], threads: int) -> list[Callable[[], float]]:
        return [partial(entries, product, Z[batch * k : batch * (k + 1)], n_rows) for k in range(threads)]

    def theirs(Z: Array) -> Array:
        return chain(Z, X, norms, alpha, kernel)

    def ours(Z: Array) -> Array:
        return blocks.product(Z, alpha)[0]

    for threads in (1, 4):
        rates = [partial(together, jobs(product, threads), seconds) for product in (ours, theirs)]
        with single_threaded_blas():
            a, b = rates_in_turn(*rates, rounds=rounds)
        what = f"kernel entries, {n_rows} rows x {n_features} features, {threads} threads"
        yield Row(what, a, "billion entries/s", "NumPy in place, tile by tile, as many threads", b)
    fused, numpy = errors()
    yield Row("largest error of the exponential", fused, "ulp", "NumPy's exp in float32", numpy)
    yield Row("largest error of the exponential", fused, "ulp", "allowed", ALLOWED_ULP)


def entries(product: Callable[[Array], Array], Z: Array, n_rows: int) -> float:
    """Multiply, and say how many entries that were, in billions."""
    product(Z)
    return len(Z) * n_rows / 1e9


def chain(Z: Array, X: Array, norms: Array, alpha: Array, kernel: Laplacian) -> Array:
    """``K a`` by NumPy's operations in place."""
    high, wide = TILE
    own = np.einsum("ij,ij->i", Z, Z)
    found = np.zeros((len(Z), alpha.shape[1]), Z.dtype)
    scale = np.float32(-1 / float(kernel.bandwidth))
    for low in range(0, len(X), wide):
        tile, out = X[low : low + wide], slice(low, low + wide)
        for first in range(0, len(Z), high):
            some = slice(first, first + high)
            values = Z[some] @ tile.T
            values *= -2
            values += own[some, None]
            values += norms[out]
            np.maximum(values, 0, out=values)
            np.sqrt(values, out=values)
            values *= scale
            np.exp(values, out=values)
            found[some] += values @ alpha[out]
    return found


def check_same(ours: Array, theirs: Array) -> None:
    """That a comparison is fair: both must compute the same."""
    if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max()):
        raise AssertionError(f"kernel blocks give {ours[:3].ravel()}, NumPy {theirs[:3].ravel()}")


def errors() -> tuple[float, float]:
    """Largest errors of ``exp(-r)`` in units in the last place: of kernel blocks, and of NumPy in float32.

    At r with 12 bits: r^2 and its root are exact, so the kernel's error is the exponential's. Results below float32's
    smallest normal number are left out.
    """
    grid = np.arange(1, 4096, dtype=np.float64)
    r = np.unique(np.concatenate([grid * 2.0**-k for k in range(5, 16)]))
    r = r[r < 87]
    exact = np.exp(-r)
    unit = np.spacing(exact.astype(np.float32)).astype(np.float64)
    kernel = KernelBlocks(r[:, None].astype(np.float32), Laplacian(1.0)).block(np.zeros((1, 1), np.float32))[0]
    plain = np.exp(-r.astype(np.float32))
    ours, theirs = (float(np.max(np.abs(found.astype(np.float64) - exact) / unit)) for found in (kernel, plain))
    return ours, theirs
