"""Eigenvalues of ``W = B^-1/2 E[Z] B^-1/2``, on which every rate of sketch-and-project methods depends.

W is the mean of the projections that a sketch makes, ``W = F'F`` with the rows of F orthonormal within a sketch.

Rules of this file:

- what is reported as an interval holds up to what its text says; where nothing is known the end is 0 or 1;
- estimates are seeded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array
from tardigrad.core.validate import integer
from tardigrad.problems.block import metric_solve, orthonormal_rows
from tardigrad.problems.block_steps import FixedBlocks
from tardigrad.problems.lanczos import lanczos
from tardigrad.problems.metric import Metric
from tardigrad.problems.row_steps import RowSteps
from tardigrad.problems.system_matrix import row_sizes, rows_of

if TYPE_CHECKING:
    from tardigrad.problems.linear_system import LinearSystem

#: entries of F and operations of its singular values up to which they are computed unless asked otherwise
_SMALL, _WORK = 2**23, 2e10
#: entries of F that are computed at all
_LARGEST = 2**27
#: standard errors to either side of an average over sketches
_ERRORS = 3.0
#: rows of F are orthonormal up to rounding that the dependence of a block's rows magnifies: so much is allowed for
_ROUNDING = 100
_ZERO = "A is zero: there is no nonzero eigenvalue"


@dataclass(frozen=True)
class Spectrum(Plain):
    """The smallest nonzero and the largest eigenvalue of W, with what is known of them.

    Attributes
    ----------
    lambda_min, lambda_max : float
        The smallest nonzero eigenvalue and the largest one, or their best estimates.
    lambda_min_interval, lambda_max_interval : (float, float)
        Where they lie. "exact": up to rounding. "lanczos": `lambda_max` with probability 0.999 over the start vector;
        `lambda_min` is only an upper bound unless the method ended by itself, so its interval begins at 0. "sampled":
        within three standard errors, and what choosing the extremes adds.
    method : {"exact", "lanczos", "sampled"}
        All eigenvalues, of all sketches; Lanczos steps; all eigenvalues of an average over seeded sketches.
    lambda_min_is_bound : bool
        Whether `lambda_min` is only known to be at least the smallest eigenvalue's value.
    trace : float or None
        Sum of the eigenvalues: the mean rank of a sketch.
    rank : int or None
        Number of nonzero eigenvalues, those above rounding.
    """

    lambda_min: float
    lambda_max: float
    lambda_min_interval: tuple[float, float]
    lambda_max_interval: tuple[float, float]
    method: Literal["exact", "lanczos", "sampled"]
    lambda_min_is_bound: bool = False
    trace: float | None = None
    rank: int | None = None

    @property
    def exact(self) -> bool:
        """Whether the eigenvalues are those of W up to rounding."""
        return self.method == "exact"


@dataclass(frozen=True)
class RowCoherence(Plain):
    """How alike the rows of a system are, from a few of them.

    Attributes
    ----------
    n_sample : int
        Rows looked at.
    mean_square : float
        Mean squared inner product, in B^-1, of two different rows scaled to unit norm.
    standard_error : float
        Of `mean_square`.
    effective_rank : float
        ``trace(W)^2 / trace(W^2)`` for single rows, all equally likely: the rank of W if its eigenvalues were equal.
    largest : float
        Largest eigenvalue of the sampled rows' W. It is at least that of all rows, on average.
    """

    n_sample: int
    mean_square: float
    standard_error: float
    effective_rank: float
    largest: float


def spectrum(
    system: LinearSystem, exact: bool | None = None, *, seed: int = 0, steps: int = 100, n_sketches: int = 400
) -> Spectrum:
    """See `LinearSystem.spectrum`."""
    check_seed(seed)
    steps, n_sketches = integer(steps, "steps", 2), integer(n_sketches, "n_sketches", 2)
    sketch = system._steps
    finite = isinstance(sketch, (RowSteps, FixedBlocks))
    n_rows, dim = system.n_rows, system.dim
    if finite:
        if exact is None:
            exact = n_rows * dim <= _SMALL and float(n_rows) * dim * min(n_rows, dim) <= _WORK
        if exact:
            _check_size(n_rows * dim, "steps of Lanczos (exact=False)")
            return _exact(_all_rows(system, sketch))
        return _by_lanczos(system, sketch, seed, steps)
    if exact:
        raise InvalidInputError(f"the average over all {system.sketch!r} is not finite work: leave exact out, or False")
    return _sampled(system, sketch, seed, n_sketches)


def _check_size(entries: int, instead: str) -> None:
    if entries > _LARGEST:
        raise InvalidInputError(f"all eigenvalues would need a matrix of {entries} numbers: use {instead}")


def _all_rows(system: LinearSystem, sketch: Any) -> Array:
    """F, in float64 so that rounding of float32 does not look like rank."""
    if isinstance(sketch, FixedBlocks):
        return np.concatenate(_bases(system, sketch, range(sketch.n_blocks))) / np.sqrt(sketch.n_blocks)
    return _whitened(system) * np.sqrt(sketch.row_weights())[:, None]


def _bases(system: LinearSystem, sketch: Any, samples: Iterable[Any]) -> list[Array]:
    """Orthonormal rows for each sample."""
    metric = Metric(system.B, system.dim, np.dtype(np.float64))
    found = []
    for sample in samples:
        M, c, _ = sketch.equations(sample)
        found.append(orthonormal_rows(M.astype(np.float64), c.astype(np.float64), metric))
    return found


def _whitened(system: LinearSystem) -> Array:
    """All rows, whitened."""
    A = rows_of(system.A, slice(0, system.n_rows))
    dense = np.asarray(A.toarray() if sp.issparse(A) else A, np.float64)
    return Metric(system.B, system.dim, np.dtype(np.float64)).whiten(dense)


def _exact(F: Array) -> Spectrum:
    values = scipy.linalg.svdvals(F, check_finite=False)
    eps = float(np.finfo(np.float64).eps)
    if not values.any():
        raise InvalidInputError(_ZERO)
    cutoff = _ROUNDING * values[0] * max(F.shape) * eps
    rank = int(np.count_nonzero(values > cutoff))
    smallest, largest = float(values[rank - 1]), float(values[0])
    slack = _ROUNDING * max(F.shape) * eps * largest  # singular values are found up to this
    low = max(0.0, smallest - slack) ** 2, (smallest + slack) ** 2
    high = (largest - slack) ** 2, min((largest + slack) ** 2, 1.0)
    return Spectrum(min(smallest**2, 1.0), min(largest**2, 1.0), low, high, "exact", trace=float(values @ values), rank=rank)


def _by_lanczos(system: LinearSystem, sketch: Any, seed: int, steps: int) -> Spectrum:
    metric, dim, dtype = system.metric, system.dim, system.dtype

    def apply(v: Array) -> Array:
        """``L' (B^-1 E[Z]) L'^-1 v``, the same eigenvalues as W."""
        return np.asarray(metric.weigh(sketch.expected(metric.unwhiten(v.astype(dtype)), homogeneous=True)), np.float64)

    rng = np.random.Generator(np.random.SFC64([seed, dim]))
    start = apply(rng.standard_normal(dim))  # in the range of W: its null space stays out
    found = lanczos(apply, start, steps, float(np.finfo(dtype).eps))
    top, bottom = min(float(found.values[-1]), 1.0), found.smallest
    if top <= 0:
        raise InvalidInputError(_ZERO)
    slack = 16 * float(np.finfo(dtype).eps) * float(np.sqrt(dim)) * top
    trace = sketch.trace()
    if found.ended:
        slack += float(found.residuals.max())
        low, high = (max(0.0, bottom - slack), bottom + slack), (top - slack, min(1.0, top + slack))
        return Spectrum(bottom, top, low, high, "lanczos", trace=trace, rank=None)
    share = found.share_missed(dim)
    high = top - slack, min(1.0, top / (1 - share) + slack if share < 1 else 1.0)
    return Spectrum(bottom, top, (0.0, bottom + slack), high, "lanczos", True, trace=trace)


def _sampled(system: LinearSystem, sketch: Any, seed: int, n_sketches: int) -> Spectrum:
    _check_size(n_sketches * sketch.size * system.dim, "fewer sketches (n_sketches) or single rows")
    _check_size(system.n_rows * system.dim, "single rows with Lanczos")
    samples = sketch.rows_at(seed, 0, n_sketches)
    bases = _bases(system, sketch, samples)
    rows = _whitened(system)
    values, V = scipy.linalg.svd(rows, full_matrices=False, check_finite=False)[1:]
    if not values.any():
        raise InvalidInputError(_ZERO)
    V = V[values > _ROUNDING * values[0] * max(rows.shape) * np.finfo(np.float64).eps]
    rank = len(V)
    bases = [basis @ V.T for basis in bases]  # within the range of W, where it has no eigenvalue 0
    mean = sum(basis.T @ basis for basis in bases) / n_sketches
    eigenvalues, vectors = scipy.linalg.eigh(mean)
    half = n_sketches // 2
    first = scipy.linalg.eigh(sum(basis.T @ basis for basis in bases[:half]) / half)[1]
    ends = []
    for k in (0, -1):
        # the extreme eigenvalue of an average lies outside on average; that of one half, tried on the other, inside
        whole = np.array([np.sum((basis @ vectors[:, k]) ** 2) for basis in bases])
        other = np.array([np.sum((basis @ first[:, k]) ** 2) for basis in bases[half:]])
        errors = [_ERRORS * float(part.std(ddof=1)) / np.sqrt(len(part)) for part in (whole, other)]
        ends.append((float(eigenvalues[k]), errors[0], float(other.mean()), errors[1]))
    (low, low_error, low_inside, inside_error), (high, high_error, high_inside, top_error) = ends
    return Spectrum(
        max(low, 0.0),
        high,
        (max(0.0, low - low_error), max(low, low_inside) + inside_error),
        (max(0.0, min(high, high_inside) - top_error), min(1.0, high + high_error)),
        "sampled",
        trace=float(np.mean([len(basis) for basis in bases])),
        rank=rank,
    )


def row_coherence(system: LinearSystem, n_sample: int | None = None, seed: int = 0) -> RowCoherence:
    """See `LinearSystem.row_coherence`."""
    n_rows = system.n_rows
    if n_sample is None:  # products of rows, and eigenvalues of these, each cost less than a tenth of a pass
        entries = system.A.nnz if sp.issparse(system.A) else system.A.size
        n_sample = max(32, int(min(np.sqrt(0.1 * n_rows), np.cbrt(0.1 * entries))))
    n_sample = min(integer(n_sample, "n_sample", 2), n_rows)
    rng = np.random.Generator(np.random.SFC64([check_seed(seed), n_rows]))
    A = rows_of(system.A, np.sort(rng.choice(n_rows, n_sample, replace=False, shuffle=False)))
    sizes = row_sizes(A)  # rows are divided by them first: squares neither overflow nor vanish
    if not np.isfinite(sizes).all():
        raise InvalidInputError(system.explain_nonfinite() or "A has entries that are not finite")
    weights = 1 / np.where(sizes >= np.finfo(A.dtype).tiny, sizes, 1.0)
    A = sp.csr_array(sp.diags_array(weights) @ A) if sp.issparse(A) else A * weights[:, None]
    dense = A.toarray() if sp.issparse(A) and system.metric.is_matrix else A
    products = _products(dense, system)
    norms = np.sqrt(np.diag(products))
    norms[norms == 0] = np.inf  # rows of zeros count as orthogonal to all, themselves too
    products /= np.multiply.outer(norms, norms)
    squares = products**2
    np.fill_diagonal(squares, 0.0)
    pairs = max(n_sample * (n_sample - 1), 1)
    mean = float(squares.sum() / pairs)
    by_row = squares.sum(axis=1) / max(n_sample - 1, 1)
    error = float(2 * by_row.std() / np.sqrt(n_sample))
    trace = float(np.mean(np.isfinite(norms)))
    square = trace / n_rows + (1 - 1 / n_rows) * mean
    largest = float(scipy.linalg.eigvalsh(products)[-1] / n_sample)
    return RowCoherence(n_sample, mean, error, trace**2 / square if square else 0.0, largest)


def _products(A: Any, system: LinearSystem) -> Array:
    """``A B^-1 A'`` of a few rows, in float64."""
    products = A @ metric_solve(A, system.metric).T
    return np.asarray(products.toarray() if sp.issparse(products) else products, np.float64)
