"""Sizes and steps of EigenPro, one worker or several with stale reads.

The method solves ``K alpha = y``. On a batch b of m rows, with ``g = K[b, :] alpha - y[b]``, it adds ``-gamma g`` to alpha_b
and ``gamma M K[b, nys]' g`` to alpha_nys, M the preconditioner of s rows. All here depends on that subsample's spectrum.

Rules of this file:

- eigenvalues are normalised: ``lam_i = sigma_i / s``, sigma_i those of K_ss (the paper mixes the two in (8), (12));
- gamma is the step a sample, ``eta / m`` of the papers;
- sizes stand in `theory.eigenpro_sizes`, and can be imported from here;
- no step is chosen by the bound of [2]: it stands apart, in `theory.eigenpro_bound`.

References
----------
[1] Ma, Belkin, "Kernel machines that adapt to GPUs for effective large batch training" (EigenPro 2), MLSys 2019.
[2] Giri, Belkin, Pandit, "Asynchronous kernel ridgeless regression" (AsyncEigenPro), 2022.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq

from tardigrad.core.validate import integer, number
from tardigrad.theory.eigenpro_sizes import (
    critical_batch,
    largest_batch,
    n_damped,
    n_subsample,
    preconditioner_bytes,
    shared_batch,
    sorted_eigenvalues,
)

__all__ = [
    "critical_batch",
    "largest_batch",
    "largest_step",
    "n_damped",
    "n_subsample",
    "one_worker_step",
    "preconditioner_bytes",
    "shared_batch",
    "sorted_eigenvalues",
    "step",
]


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


def step(beta: float, top: float, batch: int, in_flight: float) -> float:
    """The step a sample where several batches are in flight: ``1 / (beta + (in_flight batch - 1) top)``.

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

    Notes
    -----
    Rules multiply it by a factor: 1 is the published step, 1.5 the factor to use with stale reads. It is below
    `largest_step` of every spectrum, batch and number of workers with equal delays. In simulations it held everywhere
    (Fashion-MNIST, California housing, a9a, random data; 2000 to 12000 rows; 1 to 16 workers in turn or at random, one of
    them 10 times slower or not; up to 5 seeds), with the batch of `shared_batch` and larger ones up to half of a worker's
    rows, and the preconditioner's default q. The next larger factors: 1.75 diverged in one setting only (batches of 32 of
    one worker, outliers that its subsample had missed: `beta_of` is the cure); 2 diverged for 16 workers with batches of
    half their rows, and for 4 in turn whose subsamples were 13 % of their blocks.

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
    return 1.0 / (diagonal + (samples - 1) * lam)


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

    As a multiple of `step`, with in_flight = delay + 1, the limit is 2 without delay, 1.83 for 2 workers, 1.72 for 4,
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
