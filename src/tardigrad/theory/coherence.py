"""A search for points where variational coherence fails: (VC) ``<grad f(x), x - x*> >= 0`` on the feasible set.

Two stages. Feasible points are sampled, half of them pulled towards x* by a random share. Then from the worst of them (and
from some others) ``phi(x) = <grad f(x), x - x*>`` is made as small as it gets by projected gradient steps, and once more
from around the worst point, in rounds. The gradient of
phi is ``grad f(x) + H(x) (x - x*)``; the product with the Hessian H is a difference of gradients along the segment
from x to x*, which is feasible. So gradients and a projection are all that is asked for, in any dimension.

Rules of this file:

- what is reported was evaluated at a feasible point: the search may miss a violation, it never invents one;
- no violation found is never called coherence: that takes a proof.

References
----------
Zhou, Mertikopoulos, Bambos, Glynn, Ye, Li, Fei-Fei, "Distributed asynchronous optimization with unbounded delays: how slow
can you go?", ICML 2018, Assumption 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import integer, number

Array = NDArray[Any]

#: numbers of points that are evaluated together
_BLOCK = 2**20
#: length of the differences, as a share of the way to the minimiser
_SHARE = 1e-4
#: rounds of searches, and how far towards a sample those after the first begin, seen from the worst point so far
_ROUNDS, _REACH = 4, 0.6
#: values that a step of the search may rise above: the largest of so many
_MEMORY = 10


@dataclass(frozen=True)
class Coherence:
    """What `check_coherence` found.

    Attributes
    ----------
    worst_value : float
        The least ``<grad f(x), x - x*>`` met.
    worst_point : array (dim,)
        Where that is.
    worst_cosine : float
        The least ``<grad f(x), x - x*> / (|grad f(x)| |x - x*|)`` met: -1 where descent leads straight away from x*.
    worst_cosine_point : array (dim,)
        Where that is.
    samples, violations : int
        Points sampled, and how many of them violate (VC).
    searches, violating_searches : int
        Searches started, in all rounds, and how many of them met a violation.
    threshold : float
        A value counts as a violation below -threshold; less is put down to round-off.

    Examples
    --------
    >>> found = check_coherence(lambda x: x, lambda rng, n: rng.normal(size=(n, 2)), lambda x: x, np.zeros(2))
    >>> found.violations, found.violating_searches
    (0, 0)
    """

    worst_value: float
    worst_point: Array
    worst_cosine: float
    worst_cosine_point: Array
    samples: int
    violations: int
    searches: int
    violating_searches: int
    threshold: float

    @property
    def violated(self) -> bool:
        """Whether a point was found that violates (VC)."""
        return self.worst_value < -self.threshold

    def __str__(self) -> str:
        looked = f"{self.samples} samples and {self.searches} searches"
        if not self.violated:
            return (
                f"no violation of variational coherence found in {looked} (least cosine of grad f(x) and x - x*:"
                f" {self.worst_cosine:.3g}); this is no proof that there is none"
            )
        return (
            f"not variationally coherent: <grad f(x), x - x*> = {self.worst_value:.6g} at x = {_short(self.worst_point)}"
            f" (least cosine {self.worst_cosine:.3g}); found in {looked}: {self.violations} samples violate it,"
            f" {self.violating_searches} searches met a violation"
        )


def check_coherence(
    gradient: Callable[[Array], Array],
    sample_points: Callable[[np.random.Generator, int], Array],
    project: Callable[[Array], Array],
    minimiser: Any,
    *,
    samples: int = 10_000,
    searches: int = 60,
    steps: int = 300,
    tolerance: float = 1e-12,
    seed: int = 0,
) -> Coherence:
    """Look for feasible points with ``<grad f(x), x - x*> < 0``, x* being the minimiser given.

    Parameters
    ----------
    gradient : callable
        Exact gradients (n, dim) at points (n, dim).
    sample_points : callable
        ``sample_points(rng, n)``: n points (n, dim), best spread over the set with some on its faces. They are projected.
    project : callable
        Nearest feasible points (n, dim) of points (n, dim).
    minimiser : array (dim,)
        A global minimiser.
    samples : int
        Points to sample.
    searches : int
        Points to search from: a third those of least value, a third those of least cosine, the others arbitrary. Then
        three times as many between the worst point met and samples.
    steps : int
        Steps of a search, each of three gradients.
    tolerance : float
        A value is a violation below ``-tolerance`` times the largest ``|grad f(x)| |x - x*|`` of the samples.
    seed : int
        Of the samples.

    Raises
    ------
    InvalidInputError
        If the minimiser is not feasible, or if gradients have a wrong shape or are not finite.

    Notes
    -----
    (VC) also asks for equality at minimisers only. A critical point elsewhere breaks that without a negative value, and
    this check does not see it. With one variable or two, or with a function that is a chain of them, look on a grid.

    The search is the spectral projected gradient method of Birgin, Martinez and Raydan (2000), on all starts at once.

    Examples
    --------
    A well at 1 and a shallower one at -1, with derivative (x - 1) (x + 1) (x + 1/8):

    >>> import numpy as np
    >>> found = check_coherence(
    ...     lambda x: (x - 1) * (x + 1) * (x + 1 / 8),
    ...     lambda rng, n: rng.uniform(-2, 2, (n, 1)),
    ...     lambda x: np.clip(x, -2, 2),
    ...     minimiser=[1.0],
    ... )
    >>> found.violated, round(found.worst_value, 3), found.worst_point.round(2).tolist()
    (True, -0.502, [-0.67])
    """
    check = _Check(gradient, project, np.array(minimiser, float), number(tolerance, "tolerance", low=0.0))
    n = integer(samples, "samples")
    rng = np.random.default_rng(integer(seed, "seed", low=0))
    x = np.asarray(sample_points(rng, n), float)
    if x.shape != (n, len(check.p)):
        raise InvalidInputError(f"sample_points(rng, {n}) must return shape ({n}, {len(check.p)}), not {x.shape}")
    x = np.array(project(x), float)  # of points of the set nothing changes
    x[1::2] = check.p + rng.random((n // 2, 1)) * (x[1::2] - check.p)  # feasible: the set is convex
    values, cosines = check.look_at(x)
    violations = int((values < -check.threshold).sum())
    count = min(integer(searches, "searches", low=0), n)
    third = count // 3
    order = np.concatenate([np.argsort(values)[:third], np.argsort(cosines)[:third], rng.permutation(n)[: count - 2 * third]])
    length, met = integer(steps, "steps"), 0
    starts = x[order]
    for _ in range(_ROUNDS if count else 0):
        met += int((check.search(starts, length) < -check.threshold).sum())
        worst = check.points[0]
        starts = worst + _REACH * rng.random((count, 1)) * (x[rng.integers(n, size=count)] - worst)
    least, points = check.least, check.points
    searched = count * _ROUNDS
    return Coherence(float(least[0]), points[0], float(least[1]), points[1], n, violations, searched, met, check.threshold)


class _Check:
    """The function searched, and the worst points met so far."""

    def __init__(self, gradient: Any, project: Any, minimiser: Array, tolerance: float) -> None:
        if minimiser.ndim != 1 or not minimiser.size or not np.isfinite(minimiser).all():
            raise InvalidInputError(f"minimiser must be a vector of finite numbers, not {minimiser!r}")
        self.p, self.project, self.tolerance = minimiser, project, tolerance
        self._gradient = gradient
        off = float(np.linalg.norm(project(minimiser[None])[0] - minimiser))
        if off > 1e-9 * (1 + float(np.linalg.norm(minimiser))):
            raise InvalidInputError(f"the minimiser is not feasible: its projection is {off:.3g} away from it")
        self.threshold = 0.0
        self.least = np.full(2, np.inf)
        self.points = [minimiser, minimiser]

    def gradient(self, x: Array) -> Array:
        found = np.asarray(self._gradient(x), float)
        if found.shape != x.shape:
            raise InvalidInputError(f"gradients at points of shape {x.shape} must have that shape, not {found.shape}")
        bad = ~np.isfinite(found).all(-1)
        if bad.any():
            raise InvalidInputError(f"the gradient is not finite at x = {_short(x[bad][0])}: restrict the feasible set")
        return found

    def look_at(self, x: Array) -> tuple[Array, Array]:
        """Values and cosines at samples, some at a time; sets the threshold."""
        size = max(1, _BLOCK // x.shape[1])
        parts = [self._products(part, self.gradient(part)) for part in (x[i : i + size] for i in range(0, len(x), size))]
        values, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.threshold = self.tolerance * float(lengths.max())
        return values, self._keep(x, values, lengths)

    def _products(self, x: Array, gradient: Array) -> tuple[Array, Array]:
        way = x - self.p
        return np.sum(gradient * way, axis=-1), np.linalg.norm(gradient, axis=-1) * np.linalg.norm(way, axis=-1)

    def _keep(self, x: Array, values: Array, lengths: Array) -> Array:
        """Cosines, 1 where the lengths are round-off; the worst points are kept."""
        counts = lengths > self.threshold
        cosines = np.divide(values, lengths, out=np.ones_like(values), where=counts)
        for i, found in enumerate((values, cosines)):
            worst = int(np.argmin(found))
            if found[worst] < self.least[i]:
                self.least[i], self.points[i] = found[worst], x[worst].copy()
        return cosines

    def value_and_slope(self, x: Array) -> tuple[Array, Array]:
        """Values of phi and its gradients ``grad f(x) + H(x) (x - x*)``, the product to second order in the differences."""
        way, first = x - self.p, self.gradient(x)
        values, lengths = self._products(x, first)
        self._keep(x, values, lengths)
        second, third = self.gradient(x - _SHARE * way), self.gradient(x - 2 * _SHARE * way)
        return values, first + (3 * first - 4 * second + third) / (2 * _SHARE)

    def search(self, x: Array, steps: int) -> Array:
        """Descend from all rows of x at once; the least value that each met.

        A step is the projected gradient step of Barzilai and Borwein's length. It is taken if the value falls below
        the largest of the last few, else tried again a quarter as long.
        """
        value, slope = self.value_and_slope(x)
        best, recent = value.copy(), np.repeat(value[None], _MEMORY, axis=0)
        size = np.linalg.norm(slope, axis=-1)
        length = np.linalg.norm(x - self.p, axis=-1) / np.where(size > 0, size, 1)
        shortest, longest = 1e-12 * length.max(), 1e6 * length.max()
        for step in range(steps):
            trial = self.project(x - length[:, None] * slope)
            move = trial - x
            trial_value, trial_slope = self.value_and_slope(trial)
            good = trial_value <= recent.max(0) + 1e-4 * np.sum(slope * move, axis=-1)
            bend = np.sum(move * (trial_slope - slope), axis=-1)
            square = np.sum(move * move, axis=-1)
            spectral = np.divide(square, bend, out=np.full_like(square, longest), where=bend > 0)
            length = np.clip(np.where(good, spectral, length / 4), shortest, longest)
            x = np.where(good[:, None], trial, x)
            slope = np.where(good[:, None], trial_slope, slope)
            value = np.where(good, trial_value, value)
            recent[step % _MEMORY] = value
            np.minimum(best, trial_value, out=best)
        return best


def _short(x: Array) -> str:
    """A vector, its middle left out where it is long."""
    return np.array2string(x, precision=4, threshold=8, edgeitems=3, separator=", ", suppress_small=True)
