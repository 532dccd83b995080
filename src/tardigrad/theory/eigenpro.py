"""Sizes and steps of EigenPro, one worker or several with stale reads.

The method solves ``K alpha = y``. On a batch b of m rows, with ``g = K[b, :] alpha - y[b]``, it adds ``-gamma g`` to alpha_b
and ``gamma M K[b, nys]' g`` to alpha_nys, M the preconditioner of s rows. All here depends on that subsample's spectrum.

Rules of this file:

- eigenvalues are normalised: ``lam_i = sigma_i / s``, sigma_i those of K_ss (the paper mixes the two in (8), (12));
- gamma is the step a sample, ``eta / m`` of the papers; sizes are numbers of rows, memory is in bytes;
- no step is chosen by the bound of [2]: it stands apart, in `theory.eigenpro_bound`.

References
----------
[1] Ma, Belkin, "Kernel machines that adapt to GPUs for effective large batch training" (EigenPro 2), MLSys 2019.
[2] Giri, Belkin, Pandit, "Asynchronous kernel ridgeless regression" (AsyncEigenPro), 2022.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

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
    """Eigenvalues as a row of float64, checked to be finite and sorted, largest first."""
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

    Between `least` and the smaller of the worker's rows and what its memory allows. With it, `step` is between half of
    ``factor / beta`` and all of it; a larger batch makes shorter steps, so an epoch of it gets less far.

    Parameters
    ----------
    beta, top : float
        As for `critical_batch`.
    in_flight : float
        Batches in flight, as for `step`.
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


def one_worker_step(beta: float, top: float, batch: int) -> float:
    """The step a sample of one worker, EigenPro 2's automatic one; [1].

    ``eta = m / beta`` for ``m < beta / lam' + 1``, else ``0.99 * 2 m / (beta + (m-1) lam')``; gamma = eta / m.

    Parameters
    ----------
    beta, top : float
        As for `critical_batch`.
    batch : int
        m.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> one_worker_step(1.0, 0.01, 100), round(one_worker_step(1.0, 0.01, 1000), 6)
    (1.0, 0.180164)
    """
    diagonal, lam = number(beta, "beta", above=0.0), number(top, "top", low=0.0)
    m = integer(batch, "batch")
    if (m - 1) * lam < diagonal:
        return 1 / diagonal
    return 0.99 * 2 / (diagonal + (m - 1) * lam)


def step(beta: float, top: float, batch: int, in_flight: float, factor: float = 1.0) -> float:
    """The step a sample where several batches are in flight: ``factor / (beta + (in_flight batch - 1) top)``.

    ``in_flight * batch`` samples are computed from points that do not know of each other, as if they were one batch.

    Parameters
    ----------
    beta, top : float
        As for `critical_batch`. The tail in place of top makes a step longer by up to ``(lam_1/tail)^(1-exponent)``, 1.2
        to 1.45 as a rule: the damped directions are left at top, not at the tail.
    batch : int
        m of one worker.
    in_flight : float
        Batches in flight: the mean staleness + 1, which is the number of workers, however uneven their speeds. At least 1.
    factor : float
        c. 1.5 is stable with stale reads, see the notes; 1 is the published step.

    Notes
    -----
    1.5 is the factor to use: it is below `largest_step` of every spectrum, batch and number of workers with equal delays.
    In simulations it held everywhere (Fashion-MNIST, California housing, a9a, random data; 2000 to 12000 rows; 1 to 16
    workers in turn or at random, one of them 10 times slower or not; up to 5 seeds), with the batch of `shared_batch` and
    larger ones up to half of a worker's rows, and the preconditioner's default q. The next larger factors: 1.75 diverged
    in one setting only (batches of 32 of one worker, outliers that its subsample had missed: `beta_of` is the cure); 2
    diverged for 16 workers with batches of half their rows, and for 4 in turn whose subsamples were 13 % of their blocks.

    The **mean** staleness counts, not the largest: it is in_flight - 1 whatever the workers' speeds. A worker 10 times
    slower, with single replies 400 updates late, changed nothing at 1.75 and below.

    A block-diagonal preconditioner, a block each worker, does not raise the top eigenvalue: computed exactly it is lam'
    to 1 % for 4 and 16 workers whose subsamples are their whole blocks. Subsamples smaller than their blocks raise it:
    by 1.1 for four fifths of a block, 1.35 for two fifths, 1.44 for a fifth (q of the default, 4 workers).

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> round(step(1.0, 0.01, 25, in_flight=4), 6)
    0.502513
    """
    diagonal, lam = number(beta, "beta", above=0.0), number(top, "top", low=0.0)
    samples = number(in_flight, "in_flight", low=1.0) * integer(batch, "batch")
    return number(factor, "factor", above=0.0) / (diagonal + (samples - 1) * lam)


def largest_step(beta: float, lam: float, batch: int, delay: int) -> float:
    """The step a sample beyond which one direction grows in mean square, every update being late by the same delay.

    A model, not a bound: the top direction alone, ``x[t+1] = x[t] - (a + noise) x[t-delay]`` with ``a = gamma m lam`` and
    the noise's variance ``gamma^2 m lam (beta - lam)``, what m samples drawn with replacement have at most. Without
    delay it is SGD's exact ``2 / (beta + (m-1) lam)``.

    Parameters
    ----------
    beta : float
        Largest diagonal entry of the preconditioned kernel matrix, > 0.
    lam : float
        Normalised eigenvalue of the direction, ``0 <= lam <= beta``.
    batch : int
        m of one worker.
    delay : int
        Updates between a read and its own: in_flight - 1.

    Notes
    -----
    The deterministic part has an impulse response h; the mean square is bounded where ``variance * sum h^2 < 1``. The
    stationary covariances of ``x[t+1] = x[t] - a x[t-d] + w`` are ``cos(theta k + phi)`` for ``0 <= k <= d + 1``, with
    ``a = 2 sin(theta/2)`` and ``phi = pi/4 - theta (2d+1)/4``, whence
    ``a sum h^2 = cos(phi) / (2 cos(theta d + phi) - a cos(phi))``; infinite from ``theta (2d+1) = pi`` on.

    In terms of `step`'s factor, with in_flight = delay + 1, the limit is 2 without delay, 1.83 for 2 workers, 1.72 for 4,
    1.66 for 8, 1.64 for 16 where ``in_flight m lam = beta``, and tends to ``pi/2`` for many workers and large batches.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> round(largest_step(1.0, 0.01, 100, delay=0) * (1 + 99 * 0.01), 12)
    2.0
    >>> round(largest_step(1.0, 0.01, 25, delay=3) * (1 + 99 * 0.01), 2)
    1.72
    """
    diagonal = number(beta, "beta", above=0.0)
    top, m, d = number(lam, "lam", low=0.0, high=diagonal), integer(batch, "batch"), integer(delay, "delay", 0)
    if top == 0:
        return 2 / diagonal
    end = 2 * math.sin(math.pi / (2 * (2 * d + 1)))  # from this a on the mean itself grows
    limit = end / (m * top)

    def excess(a: float) -> float:
        theta = 2 * math.asin(a / 2)
        phi = math.pi / 4 - theta * (2 * d + 1) / 4
        return a / (m * top) * (diagonal - top) * math.cos(phi) - (2 * math.cos(theta * d + phi) - a * math.cos(phi))

    if excess(end) <= 0:  # no noise to speak of
        return limit
    return float(brentq(excess, 0.0, end, xtol=1e-300, rtol=1e-14)) / (m * top)
