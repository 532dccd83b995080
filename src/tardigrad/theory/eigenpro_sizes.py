"""Sizes of EigenPro: rows of a subsample and of a batch, and directions that are damped.

Rules of this file:

- eigenvalues are normalised: ``lam_i = sigma_i / s``, sigma_i those of K_ss (the paper mixes the two in (8), (12));
- sizes are numbers of rows, memory is in bytes.

References
----------
[1] Ma, Belkin, "Kernel machines that adapt to GPUs for effective large batch training" (EigenPro 2), MLSys 2019.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import integer, number

#: at least so many eigenvalues are looked at, as EigenPro 2's code does: one less is damped
_LEAST = 5


def n_subsample(n: int, memory_bytes: float, n_workers: int = 1) -> int:
    """Rows of a worker's subsample: 2000, or 12000 from 100000 rows on, as far as memory and the worker's rows reach.

    Parameters
    ----------
    n : int
        Rows in all; a worker owns ``n // n_workers``.
    memory_bytes : float
        For all workers together. Building a preconditioner takes `preconditioner_bytes` of a worker's share.
    n_workers : int

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> n_subsample(60_000, 1e9, n_workers=4), n_subsample(1_000_000, 1e9, n_workers=4), n_subsample(1000, 1e9, n_workers=4)
    (2000, 3952, 250)
    """
    rows, workers = integer(n, "n"), integer(n_workers, "n_workers")
    share = number(memory_bytes, "memory_bytes", above=0.0) / workers
    fits = math.isqrt(int(share / preconditioner_bytes(1)))
    return max(1, min(rows // workers, 2000 if rows < 100_000 else 12_000, fits))


def preconditioner_bytes(s: int) -> int:
    """Memory that building a preconditioner of s rows takes, its workspace included: ``16 s^2``.

    Examples
    --------
    >>> preconditioner_bytes(2000)
    64000000
    """
    return 16 * integer(s, "s") ** 2


def largest_batch(n: int, n_features: int, n_outputs: int, memory_bytes: float, n_workers: int = 1, itemsize: int = 4) -> int:
    """The largest batch m_G whose working set fits a worker's share of the memory; [1], section 3.

    The working set of m rows: the rows, their kernel block, their predictions and residuals:
    ``m (n_features + n + 2 n_outputs) itemsize`` bytes.

    Parameters
    ----------
    n : int
        Columns of the kernel block that are held at once: all rows in [1]; a tile and the subsample where the product
        is made in tiles. The batch is not limited by the number of rows: the caller does that.
    n_features, n_outputs : int
    memory_bytes : float
        For all workers together.
    n_workers : int
    itemsize : int
        Bytes a number.

    Returns
    -------
    int
        m_G >= 1.

    Raises
    ------
    InvalidInputError
        If not even one row fits, or an argument is out of its range.

    Examples
    --------
    >>> largest_batch(60_000, 784, 10, 1e9)
    4111
    """
    columns = integer(n, "n") + integer(n_features, "n_features") + 2 * integer(n_outputs, "n_outputs")
    row = columns * integer(itemsize, "itemsize")
    share = number(memory_bytes, "memory_bytes", above=0.0) / integer(n_workers, "n_workers")
    if share < row:
        raise InvalidInputError(
            f"memory_bytes must be at least {row * n_workers} for a batch of one row for each of {n_workers} workers,"
            f" not {memory_bytes!r}: give more memory or fewer workers"
        )
    return int(share // row)


def n_damped(eigenvalues_normalised: npt.ArrayLike, s: int, largest_batch: int, exponent: float = 0.95) -> int:
    """q, the number of directions that the preconditioner damps; [1], as its code has it.

    ``m_max = min(max(s/5, m_G), s)``, ``Q = max(#{i: lam_i^-exponent < m_max} - 1, 5)``, ``q = Q - 1``; lam_{q+1} is the
    tail. At most as many as leave a positive tail.

    Parameters
    ----------
    eigenvalues_normalised : array
        lam_i = sigma_i / s, largest first; those that matter suffice. Values <= 0 are no directions.
    s : int
        Rows of the subsample.
    largest_batch : int
        m_G: what memory allows, or the batch that is wanted.
    exponent : float
        In (0, 1].

    Raises
    ------
    InvalidInputError
        If the eigenvalues are not sorted, or an argument is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> n_damped(0.4 / np.arange(1, 1001.0) ** 1.5, s=1000, largest_batch=400)
    34
    >>> n_damped([1.0], s=1, largest_batch=400)
    0
    """
    rows, wanted = integer(s, "s"), integer(largest_batch, "largest_batch")
    power = number(exponent, "exponent", above=0.0, high=1.0)
    lam = sorted_eigenvalues(eigenvalues_normalised)
    positive = int(np.count_nonzero(lam > 0))
    most = min(max(rows // 5, wanted), rows)
    counted = int(np.count_nonzero(lam[:positive] ** -power < most))
    return max(0, min(max(counted - 1, _LEAST) - 1, positive - 1, rows - 1))


def sorted_eigenvalues(eigenvalues: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Eigenvalues as a row of float64, checked to be finite and sorted, largest first.

    Examples
    --------
    >>> sorted_eigenvalues([2, 1])
    array([2., 1.])
    """
    lam = np.asarray(eigenvalues, np.float64)
    if lam.ndim != 1 or not lam.size or not np.isfinite(lam).all() or (np.diff(lam) > 0).any():
        raise InvalidInputError(f"eigenvalues must be a row of finite numbers, largest first, not {eigenvalues!r}")
    return lam


def critical_batch(beta: float, top: float) -> int:
    """The critical batch ``m* = floor(beta / lam' + 1)``: beyond it, more rows a step save hardly any steps; [1].

    Parameters
    ----------
    beta : float
        Largest diagonal entry of the preconditioned kernel matrix, > 0 (`NystromPreconditioner.beta`).
    top : float
        lam', its largest normalised eigenvalue (`NystromPreconditioner.top`), >= 0. 0: no limit.

    Returns
    -------
    int
        At most 2**62.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> critical_batch(1.0, 0.01), critical_batch(1.0, 0.0) == 2**62
    (101, True)
    """
    diagonal, lam = number(beta, "beta", above=0.0), number(top, "top", low=0.0)
    return 2**62 if lam <= diagonal / 2.0**62 else math.floor(diagonal / lam + 1)


def shared_batch(beta: float, top: float, in_flight: float, rows: int, largest_batch: int, least: int = 1) -> int:
    """The batch of one of several workers: the critical batch shared among those in flight, ``m* / in_flight``.

    Between `least` and the smaller of the worker's rows and what its memory allows. With it, `theory.eigenpro.step` is
    between half of ``1 / beta`` and all of it; a larger batch makes shorter steps, so an epoch of it gets less far.

    Parameters
    ----------
    beta, top : float
        As for `critical_batch`.
    in_flight : float
        Batches in flight, as for `theory.eigenpro.step`.
    rows : int
        Rows that the worker owns.
    largest_batch : int
        m_G.
    least : int
        The smallest batch that the machine works on at full speed; it counts less than rows and memory.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> shared_batch(0.65, 1 / 2000, in_flight=4, rows=15_000, largest_batch=4000)
    325
    """
    fits = min(integer(rows, "rows"), integer(largest_batch, "largest_batch"))
    share = critical_batch(beta, top) / number(in_flight, "in_flight", low=1.0)
    return max(1, min(fits, max(int(min(share, 2.0**62)), integer(least, "least"))))
