"""Private copies of an iterate that several threads change: taken, worked on, merged.

Rules of this file:

- what others did meanwhile is not done twice: the merge takes back what both changed alike;
- alone, a merge leaves the iterate equal to the copy in every bit;
- no change is lost: the iterate is the start plus the sum of all merged changes, each times one number, up to rounding. What
  all changes have in common (projections onto rows of A: they lie in the range of B^-1 A') holds of the iterate too. What
  was read may be any mixture of versions; a change is counted from just that.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from tardigrad.problems.atomic import atomic

#: sums may be reordered and products fused with them, but infinities and NaN keep their meaning
FAST = {"reassoc", "nsz", "contract"}


def compilers() -> tuple[Any, Any]:
    """For sums, and for all else. No cache on disk: numba keys it by file, not by what a closure holds."""
    import numba

    return numba.njit(nogil=True, fastmath=FAST), numba.njit(nogil=True)


@lru_cache
def copy_kernels(scaled: bool) -> SimpleNamespace:
    """``take(x, read, mine)`` and ``merge(x, read, mine, scale)``, and the `agreement` of which a merge makes use."""
    fast, plain = compilers()
    load, replace = atomic().load, atomic().replace

    @plain
    def take(x: Any, read: Any, mine: Any) -> None:
        """Copy the iterate twice: as it was read, and to work on."""
        for j in range(x.size):
            read[j] = x[j]
            mine[j] = read[j]

    @fast
    def agreement(mine: Any, read: Any, x: Any, scale: Any) -> Any:
        """``1 - <d, o>_B / |d|_B^2`` in [0, 1], d = mine - read the copy's change and o = x - read that of others.

        1 where others changed nothing, however small d is; NaN where d has one.
        """
        both = own = x.dtype.type(0)
        for j in range(x.size):
            d = mine[j] - read[j]
            weighted = d / scale[j] if scaled else d
            both += weighted * (x[j] - read[j])
            own += weighted * d
        if both == 0:
            return x.dtype.type(1)
        return min(max(1 - both / own, x.dtype.type(0)), x.dtype.type(1)) if own > 0 else own

    @plain
    def merge(x: Any, read: Any, mine: Any, scale: Any) -> None:
        """``x += alpha (mine - read)``, alpha the agreement, entry by entry in one step; then both copies are taken anew.

        With e the error of what was read and d the copy's change, steps of omega = 1 are projections: <d, e> is about
        -|d|^2, so ``alpha = 1 - <d, o> / |d|^2`` minimises |e + o + alpha d|. Alone, alpha is 1 and x becomes the copy.
        """
        alpha = agreement(mine, read, x, scale)
        for j in range(x.size):
            found = merged = load(x, j)
            if mine[j] != read[j] or mine[j] == 0:  # 0 and -0 are equal, but not in every bit
                while True:
                    merged = mine[j] if found == read[j] and alpha == 1 else found + alpha * (mine[j] - read[j])
                    if replace(x, j, found, merged):
                        break
                    found = load(x, j)
            read[j] = merged  # not read again from x: what others write is seen by the next merge
            mine[j] = merged

    return SimpleNamespace(take=take, agreement=agreement, merge=merge)
