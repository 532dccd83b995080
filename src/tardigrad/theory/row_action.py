"""Rates of delayed row steps: ``x[t+1] = x[t] - omega B^-1 Z_t (x[t-d] - x*)``, the step of an old point on the new one.

Not the method of Sahu et al., which mixes the whole old point back in (`sketch_project`): here nothing that others did is
lost. Both rates are functions of the ends of the nonzero spectrum of ``W = B^-1/2 E[Z] B^-1/2`` and of the delay.

**Weak** (of the expectation). Along an eigenvector of lam, ``p[t+1] = p[t] - omega lam p[t-delay]``, exactly.

**Strong** (of E|x - x*|_B^2), for any delays ``d_t <= delay`` that do not depend on the sketches. Proof, with
``e = B^1/2 (x - x*)``, ``P_t`` the projection ``B^-1/2 Z_t B^-1/2`` (drawn for update t, independent of the points before
it), ``s_t = max(t - d_t, 0)``, ``v_t = E<e_s, W e_s>`` at ``s = s_t``, ``D_t = E|e_t|^2``, M = lambda_max, l = lambda_min:

1. ``D[t+1] = D[t] - 2 omega E<e_t, W e_s> + omega^2 v_t``, since P_t is a projection and fresh.
2. ``e_t - e_s = -omega sum_{j=s}^{t-1} P_j e_{s_j}``. P_j is independent of ``e_{s_j}`` and of ``e_s``, as ``s_j, s <= j``.
   So ``-2 omega E<e_t - e_s, W e_s> = 2 omega^2 sum_j E<W e_{s_j}, W e_s> <= omega^2 M sum_j (v_j + v_t)``, by
   ``|W e|^2 <= M <e, W e>``. There are at most `delay` terms:
   ``D[t+1] <= D[t] - omega (2 - omega - omega M delay) v_t + omega^2 M sum_{i=1}^{delay} v_{t-i}``.
3. Step 2 from s to t, its negative terms left out: ``D[t] <= D[s] + omega^2 M sum_{k,i=1}^{delay} v_{t-k-i}``, and
   ``D[s] <= v_t / l``, as e stays in the range of W.
4. Weigh step 2 with ``rho^-(t+1)`` and add up to T, with step 3 for the terms ``(1-rho) D[t]`` that this leaves. No v is
   left over with a positive factor iff, with ``S = sum_{i=1}^{delay} rho^-i``,
   ``(1 - rho) (1/l + omega^2 M S^2) <= omega (2 - omega - omega M (delay + S))``.
   Then ``E|x_T - x*|_B^2 <= rho^T |x_0 - x*|_B^2``. (Updates before the first do not exist, so no term is lost there, and
   reads before the start find x0, which is ``d_t <= t``.)

Without delay this is the exact ``rho = 1 - l omega (2 - omega)``. It converges iff ``omega (1 + 2 M delay) < 2``.

**One constant delay.** The v_{t-delay} may then pay for D[t-delay] itself, which gives
``1 - rho = l omega rho^-delay (2 - omega - omega M (delay + S))``, a little smaller than the above. But the last `delay`
terms stay unpaid: the bound is ``rho^T / (1 - delay (1/rho - 1))``, for ``rho > delay/(delay+1)`` only. It is not used here.

Rules of this file:

- a delay is the number of updates between a task's read and its application, the largest that occurs;
- nothing is claimed for delays that depend on what the sketches were.

References
----------
Liu, Wright, Sridhar, "An asynchronous parallel randomized Kaczmarz algorithm", arXiv:1401.4780, has a linear rate with
nearly linear speed-up for as many processors as rows divided by the largest eigenvalue of A'A allow: with normalised rows
that is 1/lambda_max, and the same order as ``2 lambda_max delay << 1`` here.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq, minimize_scalar

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import integer, number
from tardigrad.theory.spectra import spectrum_ends

DIGITS = 4 * 2.0**-52


def stable_omega(lambda_max: float, delay: int) -> float:
    """The relaxation below which `rate` is below 1: ``2 / (1 + 2 lambda_max delay)``.

    Examples
    --------
    >>> stable_omega(0.01, delay=0), round(stable_omega(0.01, delay=7), 3)
    (2.0, 1.754)
    """
    high = spectrum_ends(lambda_max, lambda_max)[1]
    return 2 / (1 + 2 * high * integer(delay, "delay", 0))


def _decay(low: float, high: float, omega: float, late: int) -> float:
    """``-log(rho)``: step 4 with equality. Its left side grows with ``-log(rho)``, its right side falls."""

    def balance(y: float) -> float:
        total = math.exp(y) * math.expm1(late * y) / math.expm1(y) if y > 0 else float(late)  # S
        loss = -math.expm1(-y) * (1 + low * omega**2 * high * total**2)
        return loss - low * omega * (2 - omega - omega * high * (late + total))

    if not late:
        gap = low * omega * (2 - omega)
        return -math.log1p(-gap) if gap < 1 else math.inf
    end = math.log(2 / (omega * high)) / late  # S >= exp(late y), which makes the right side negative there
    return float(brentq(balance, 0.0, end, xtol=1e-300, rtol=DIGITS))


def rate(lambda_min: float, lambda_max: float, omega: float, delay: int) -> float:
    """Factor by which an update multiplies the bound of E|x - x*|_B^2, for all delays up to `delay`.

    The rho of ``(1-rho) (1/lambda_min + omega^2 lambda_max S^2) = omega (2 - omega - omega lambda_max (delay + S))``,
    ``S = sum_{i=1}^{delay} rho^-i``; see the proof above. The bound is ``rho^T |x_0 - x*|_B^2`` after T updates.

    Parameters
    ----------
    lambda_min, lambda_max : float
        Ends of the nonzero spectrum of W.
    omega : float
        Relaxation, > 0 and below `stable_omega`.
    delay : int
        The largest delay.

    Raises
    ------
    InvalidInputError
        If omega is not below `stable_omega`: nothing is then proved.

    Examples
    --------
    >>> rate(0.01, 0.02, omega=1.0, delay=0)
    0.99
    >>> round(rate(0.01, 0.02, omega=1.0, delay=7), 5)
    0.99291
    """
    return math.exp(-strong_decay(lambda_min, lambda_max, omega, delay))


def strong_decay(lambda_min: float, lambda_max: float, omega: float, delay: int) -> float:
    """``-log(rate)``, with the digits that a rate near 1 has lost.

    Examples
    --------
    >>> f"{strong_decay(1e-18, 0.5, omega=0.5, delay=1):.6g}"
    '5e-19'
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    late, top = integer(delay, "delay", 0), stable_omega(lambda_max, delay)
    relaxation = number(omega, "omega", above=0.0)
    if relaxation >= top:
        raise InvalidInputError(f"omega must be below stable_omega = {top:g} for delay {late}, not {relaxation:g}")
    return _decay(low, high, relaxation, late)


def best_omega(lambda_min: float, lambda_max: float, delay: int) -> float:
    """The relaxation with the least `rate`; near ``1 / (1 + 2 lambda_max delay)``, which is exact for lambda_min = 0.

    Parameters
    ----------
    lambda_min : float
        0 where it is not known: the limit is then returned.
    lambda_max : float
        Largest eigenvalue of W.
    delay : int
        The largest delay.

    Examples
    --------
    >>> best_omega(0, 0.05, delay=10), best_omega(0.01, 0.05, delay=0)
    (0.5, 1.0)
    >>> round(best_omega(0.01, 0.05, delay=10), 3)
    0.49
    """
    low, high = spectrum_ends(lambda_min, lambda_max, zero=True)
    limit = stable_omega(high, delay) / 2
    if low == 0.0 or not delay:
        return limit
    found = minimize_scalar(
        lambda omega: -_decay(low, high, float(omega), delay) / low,
        bounds=(limit / 4, 2 * limit * (1 - 1e-9)),
        method="bounded",
        options={"xatol": 1e-9 * limit},
    )
    return float(found.x)


def weak_stable_omega(lambda_max: float, delay: int) -> float:
    """The relaxation below which the expectation converges, exactly: ``2 sin(pi / (2 (2 delay + 1))) / lambda_max``.

    Beyond it the method diverges, whatever the sketches. Where ``lambda_max delay`` is large, `stable_omega` is below it
    by a factor of pi/2 only; where it is small, `stable_omega` asks for less than 2, as single projections do.

    Examples
    --------
    >>> round(weak_stable_omega(0.5, delay=0), 12), round(weak_stable_omega(0.5, delay=1), 12)
    (4.0, 2.0)
    """
    high = spectrum_ends(lambda_max, lambda_max)[1]
    return 2 * math.sin(math.pi / (2 * (2 * integer(delay, "delay", 0) + 1))) / high


def _largest_root(strength: float, late: int) -> float:
    """Largest modulus among the roots of ``gamma^(late+1) - gamma^late + strength``."""
    if not late:
        return abs(1 - strength)
    split = late * math.log(late / (late + 1)) - math.log(late + 1)
    if math.log(strength) <= split:
        # the real root above late/(late+1): gamma = exp(-y), exp(-late y) (1 - exp(-y)) = strength
        meet = math.log1p(1 / late)
        if math.exp(-late * meet) * -math.expm1(-meet) <= strength:
            return math.exp(-meet)
        y = brentq(lambda y: math.exp(-late * y) * -math.expm1(-y) - strength, 0.0, meet, xtol=1e-300, rtol=DIGITS)
        return math.exp(-y)

    # a pair r exp(+-i phi): r = sin(late phi) / sin((late+1) phi), |1 - gamma| = sin(phi) / sin((late+1) phi)
    def log_modulus(phi: float) -> float:
        return math.log(math.sin(late * phi) / math.sin((late + 1) * phi))

    def excess(phi: float) -> float:
        return late * log_modulus(phi) + math.log(math.sin(phi) / math.sin((late + 1) * phi)) - math.log(strength)

    end = math.pi / (late + 1)
    start = end * 1e-7
    if excess(start) >= 0:  # so near to the double root that rounding decides
        return late / (late + 1)
    return math.exp(log_modulus(float(brentq(excess, start, end * (1 - 1e-12), xtol=1e-300, rtol=DIGITS))))


def weak_rate(lambda_min: float, lambda_max: float, omega: float, delay: int) -> float:
    """Factor by which an update multiplies |E[x] - x*|_B in the long run, for one constant delay; exact.

    The largest modulus among the roots of ``gamma^(delay+1) - gamma^delay + omega lam``, at the worse end of the
    spectrum: it falls with omega lam down to ``delay/(delay+1)``, then rises, and is 1 at `weak_stable_omega`.

    Examples
    --------
    >>> round(weak_rate(0.1, 0.9, omega=1.0, delay=0), 12)
    0.9
    >>> round(weak_rate(0.5, 0.5, weak_stable_omega(0.5, delay=3), delay=3), 9)
    1.0
    """
    low, high = spectrum_ends(lambda_min, lambda_max)
    late, relaxation = integer(delay, "delay", 0), number(omega, "omega", above=0.0)
    return max(_largest_root(relaxation * lam, late) for lam in (low, high))
