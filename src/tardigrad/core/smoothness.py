"""How curved a problem is: the constants from which step sizes are computed.

Rules of this file:

- a constant holds at all pairs of points; whether a smaller one would too is said beside it (`exact`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tardigrad.core.plain import Plain
from tardigrad.core.validate import number, yes_or_no


@dataclass(frozen=True)
class SmoothnessConstants(Plain):
    """Lipschitz constants of gradients, or upper bounds of them.

    They speak of ``f = (1/n) sum_i g_i`` with ``g_i = n w_i f_i``, w_i the weights of clients: of what a uniformly drawn
    client's reply estimates. With equal weights g_i is f_i.

    Parameters
    ----------
    L : float
        ``|grad f(x) - grad f(y)| <= L |x - y|``.
    delta : float
        ``|grad f(x) - grad f(y) - (grad g_i(x) - grad g_i(y))| <= delta |x - y|`` for every client i.
    ell : float
        ``E|grad g_i(x, S) - grad g_i(y, S)|^2 <= ell^2 |x - y|^2`` for every client i, S a sample as the problem draws
        them. Where gradients are exact it is the largest Lipschitz constant of a client's gradient, L_max.
    exact : bool
        Whether all three are the least constants possible, up to rounding, and not only bounds.

    References
    ----------
    Assumptions 1, 2 and 5 of Gao, Takezawa, Stich, "A bias correction mechanism for distributed asynchronous optimization",
    TMLR.

    Examples
    --------
    >>> SmoothnessConstants(L=1.0, delta=0.5, ell=2.0, exact=True).delta
    0.5
    """

    L: float
    delta: float
    ell: float
    exact: bool

    def __post_init__(self) -> None:
        for name in ("L", "delta", "ell"):
            object.__setattr__(self, name, number(getattr(self, name), name, low=0))
        object.__setattr__(self, "exact", yes_or_no(self.exact, "exact"))
