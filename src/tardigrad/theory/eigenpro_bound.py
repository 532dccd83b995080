"""The bound of Giri et al. on AsyncEigenPro and its corollaries, as printed, for comparison.

Rules of this file:

- nothing here guarantees anything: the theorem's step diverges with stale reads, and its proof has gaps;
- steps are chosen by `theory.eigenpro.step`.

References
----------
[2] Giri, Belkin, Pandit, "Asynchronous kernel ridgeless regression" (AsyncEigenPro), 2022.
"""

from __future__ import annotations

import math

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import integer, number
from tardigrad.theory import eigenpro


def theorem_1_step(beta: float, tail: float, batch: int) -> float:
    """The largest step a sample that Theorem 1 of [2] allows, whatever the delay: ``1 / (beta + (m-1) tail)``.

    **Not sufficient** with stale reads: see `theorem_1_bound`. At the critical batch it is half of EigenPro 2's.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> round(theorem_1_step(1.0, 0.01, 101), 3)
    0.5
    """
    return eigenpro.step(beta, tail, batch, in_flight=1)


def theorem_1_bound(
    iterations: float, step: float, batch: int, delay: float, smallest: float, distance: float, loss: float
) -> float:
    """The printed bound (14) of [2] on ``E |alpha_T - alpha*|^2`` in the norm of P^-1. No guarantee.

    ``(1 - eta lam_n/2)^T distance + (2 eta^2 delay loss / m) (1 - (1 - eta lam_n/2)^T)`` with ``eta = m step``.

    Parameters
    ----------
    iterations : float
        T, updates of single batches.
    step : float
        gamma, a sample.
    batch : int
        m of one worker.
    delay : float
        tau, the most updates between a read and its own.
    smallest : float
        lam_n, the smallest normalised eigenvalue.
    distance : float
        ``|alpha_0 - alpha*|^2`` in the norm of P^-1.
    loss : float
        ``1/(2n) |K alpha_0 - y|^2``.

    Notes
    -----
    What it does not guarantee: the theorem's condition ``step <= 1/(beta + (m-1) tail)`` knows neither the number of
    workers nor the delay, and it is not sufficient: with stale reads the iteration diverges at steps that it
    allows, while the bound falls (a test has the example; at the critical batch half of that step diverged with 8
    workers). The proof is not to be relied on: P is not symmetric, and signs are wrong. `theory.eigenpro.step` is the
    rule to use.

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> theorem_1_bound(0, 0.5, 100, 3, smallest=1e-4, distance=2.0, loss=0.5)
    2.0
    """
    eta = number(step, "step", above=0.0) * integer(batch, "batch")
    slow = eta * number(smallest, "smallest", low=0.0) / 2
    if slow > 1:
        raise InvalidInputError(f"batch * step * smallest must be at most 2, not {2 * slow:g}")
    left = math.pow(1 - slow, number(iterations, "iterations", low=0.0))
    floor = 2 * eta**2 * number(delay, "delay", low=0.0) * number(loss, "loss", low=0.0) / batch
    return left * number(distance, "distance", low=0.0) + floor * (1 - left)


def corollary_1(
    error: float, batch: int, delay: float, smallest: float, distance: float, loss: float, largest_step: float = math.inf
) -> float:
    """Iterations after which (14) is at most `error`, with the step that makes its second term error/2; [2], corollary 1.

    ``eta = min(m largest_step, sqrt(m error / (4 delay loss)))``, ``T = 2 log(2 distance / error) / (eta lam_n)``. Printed
    is the order ``sqrt(delay loss / (m error)) log(2 distance/error) / lam_n``, without the largest step and the constant 4.

    Parameters
    ----------
    error : float
        The error wanted, > 0.
    batch, delay, smallest, distance, loss
        As for `theorem_1_bound`.
    largest_step : float
        `theorem_1_step`; needed where the delay or the loss is 0.

    Notes
    -----
    An order at best: it follows from a bound that does not hold (see `theorem_1_bound`).

    Raises
    ------
    InvalidInputError
        If an argument is out of its range, or nothing limits the step.

    Examples
    --------
    >>> round(corollary_1(1e-2, 100, delay=3, smallest=1e-3, distance=1.0, loss=0.5))
    25956
    """
    wanted, m = number(error, "error", above=0.0), integer(batch, "batch")
    noise = 4 * number(delay, "delay", low=0.0) * number(loss, "loss", low=0.0)
    eta = min(m * largest_step, math.sqrt(m * wanted / noise) if noise else math.inf)
    if not 0 < eta < math.inf:
        raise InvalidInputError("largest_step must be a number > 0 where delay * loss is 0, such as theorem_1_step gives")
    decades = math.log(2 * number(distance, "distance", above=0.0) / wanted)
    return max(0.0, 2 * decades / (eta * number(smallest, "smallest", above=0.0)))


def corollary_2(error: float, step: float, batch: int, loss: float) -> float:
    """The largest delay for which the second term of (14) is at most error/2: ``m error / (4 eta^2 loss)``; [2], corollary 2.

    Parameters
    ----------
    error : float
        The error wanted, > 0.
    step, batch, loss
        As for `theorem_1_bound`; loss > 0.

    Notes
    -----
    An order at best, and no condition of stability: it follows from a bound that does not hold (see `theorem_1_bound`).

    Raises
    ------
    InvalidInputError
        If an argument is out of its range.

    Examples
    --------
    >>> round(corollary_2(0.5, step=0.01, batch=10, loss=0.5), 6)
    250.0
    """
    m = integer(batch, "batch")
    eta = m * number(step, "step", above=0.0)
    return m * number(error, "error", above=0.0) / (4 * eta**2 * number(loss, "loss", above=0.0))
