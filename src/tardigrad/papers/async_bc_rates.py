"""Table 1 of the AsyncBC paper, measured: how the work for a target grows with 1/eps and with zeta.

The table bounds ``(1/T) sum_{t<T} E|grad f(x[t])|^2`` by a sum of powers of T. On the quadratics of figure 1 the smallest T at
which that mean, over the iterates and over seeds, is at most eps is measured at the best of many steps, and the growth of T is
fitted by a power. Rules of this file:

- T counts communications, as the table does: full gradients of restarts too, those of the start not;
- predictions are the table's orders solved for T at the same eps and zeta, and their exponents in the limit;
- orders have no constants: exponents are compared, never numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.rule import Rule
from tardigrad.core.task import Array
from tardigrad.papers import Reproduction
from tardigrad.papers.async_bc import N_CLIENTS, STARTS, Run, finite, progress, quadratics, simulate
from tardigrad.rules.async_bc import AsyncBC
from tardigrad.rules.gradient_descent import AsyncSGD
from tardigrad.rules.incremental import IAG, SAGA
from tardigrad.theory.async_bc_orders import asgrad_order, async_bc_order, async_gd_order

#: what the work is measured for: targets at MIDDLE, and zetas at the first target
TARGETS, ZETAS, MIDDLE = (3.0, 1.0, 0.3), (1.0, 10.0, 100.0), 10.0
STEPS = np.geomspace(1e-5, 0.32, 28)
#: the largest delay with clients drawn uniformly, for the orders
MAX_DELAY = 15
RESTART = 6
#: what diverged counts for, so that sums are finite
HUGE = 1e100


@dataclass(frozen=True)
class Method:
    """A row's method, how many updates are run for each of `ZETAS`, and the exponents of 1/eps and zeta that are claimed."""

    name: str
    rule: Callable[[Array], Rule[Any]]
    updates: tuple[int, ...]
    claimed: tuple[float, float] | None
    source: str
    order: Callable[[float, Array], Array] | None = None


def _constants() -> dict[str, Any]:
    problem, x0 = quadratics(0.0, STARTS[0], 0)
    gap = float(problem.measures(x0)["objective"] - problem.minimum)
    return {"L_max": problem.ell, "concurrency": N_CLIENTS, "gap": gap}


def _async_gd(zeta: float, horizon: Array) -> Array:
    return async_gd_order(zeta=dissimilarity(zeta)[0], max_delay=MAX_DELAY, horizon=horizon, **_constants())


def _asgrad(zeta: float, horizon: Array) -> Array:
    differ, largest = dissimilarity(zeta)
    return asgrad_order(zeta=differ, G=largest, horizon=horizon, **_constants())


def _async_bc(zeta: float, horizon: Array) -> Array:
    return async_bc_order(L=quadratics(zeta, STARTS[0], 0)[0].L, max_delay=MAX_DELAY, horizon=horizon, **_constants())


METHODS = (
    Method("Async-GD", lambda step: AsyncSGD(step, "uniform"), (5000, 150_000, 150_000), (2, 2), "table 1", _async_gd),
    Method("AsGrad (shuffled)", lambda step: AsyncSGD(step, "shuffled"), (5000, 50_000, 50_000), (2, 2), "table 1", _asgrad),
    Method("AsyncBC", AsyncBC, (2000, 20_000, 2000), (2, 0), "table 1", _async_bc),
    Method("SAGA", SAGA, (1000, 1000, 1000), (1, 0), "section 3.1, without delay"),
    Method("IAG", IAG, (1000, 1000, 1000), (1, 0), "section 3.1, for SAG"),
    Method(
        "AsyncBC, restarts", lambda step: AsyncBC(step, restart_every=RESTART), (1000, 1000, 1000), None, "not in the paper"
    ),
)


def dissimilarity(zeta: float) -> tuple[float, float]:
    """Largest ``|grad f_i - grad f_j|`` and ``|grad f_i|`` at the minimiser, the mean over 15 problems.

    No finite number bounds them over all x for these quadratics, as the table's assumptions want.
    """
    found = []
    for seed in range(15):
        problem = quadratics(zeta, STARTS[0], seed)[0]
        gradients = np.array([problem.gradient(i, problem.minimiser) for i in range(problem.n_clients)])
        apart = np.linalg.norm(gradients[:, None] - gradients, axis=-1).max()
        found.append((apart, np.linalg.norm(gradients, axis=-1).max()))
    means = np.mean(found, axis=0)
    return float(means[0]), float(means[1])


def needed(
    rule: Callable[[Array], Rule[Any]], zeta: float, updates: int, targets: Sequence[float], seeds: int, steps: Array = STEPS
) -> list[tuple[float, float]]:
    """Least communications for each target, and the step with which they are enough; infinite where no step is in time."""
    total: Array | None = None
    replies = np.zeros(updates + 1)
    for seed in range(seeds):
        problem, x0 = quadratics(zeta, STARTS[0], seed)
        found: Run = simulate(rule(steps), problem, np.tile(x0, (len(steps), 1)), updates, seed)
        norms = np.minimum(found.squared_norms, HUGE)
        total = norms if total is None else total + norms
        replies += found.replies
    assert total is not None
    counts = np.arange(1, updates + 2)
    means = np.cumsum(total / seeds, axis=0) / counts[:, None]
    replies /= seeds
    answers = []
    for target in targets:
        below = means <= target
        first = np.where(below.any(axis=0), below.argmax(axis=0), updates + 1)
        k = int(first.argmin())
        if first[k] > updates:
            answers.append((np.inf, np.nan))
            continue
        last = int(first[k])  # the mean is of iterates 0..last
        answers.append((float(replies[last] - replies[min(1, last)] + 1), float(steps[k])))
    return answers


def exponent(values: Sequence[float], work: Sequence[float]) -> float:
    """The power of `values` that fits `work` best, in logarithms; not a number where work is infinite."""
    if not np.isfinite(work).all():
        return float("nan")
    return float(np.polyfit(np.log(values), np.log(work), 1)[0])


def predicted(order: Callable[[float, Array], Array], zeta: float, target: float) -> float:
    """The T at which an order is the target."""
    horizons = np.unique(np.geomspace(1, 1e15, 4000).astype(np.int64))
    values = order(zeta, horizons)
    return float(np.exp(np.interp(-np.log(target), -np.log(values), np.log(horizons))))


def table1(seeds: int = 15, methods: Sequence[Method] = METHODS) -> Reproduction:
    """Table 1: a row a method, with the work for three targets and three zetas, its growth, and the growth that is claimed."""
    rows = [_row(method, seeds) for method in methods]
    notes = [
        f"n_eps: communications until (1/T) sum |grad f|^2, mean of {seeds} seeds, is at most eps, zeta {MIDDLE:g}, best step;",
        f"n_zeta: the same for eps = {TARGETS[0]:g}. x0 - x* is fixed. eps^-1 and zeta: fitted exponents; order: those of the",
        "table's formulas over the same values; claimed: for eps to 0 and zeta to infinity (upper bounds for any problem).",
    ]
    return Reproduction("async-bc-table1", rows, "\n".join(_said(row) for row in rows), notes)


def _row(method: Method, seeds: int) -> dict[str, Any]:
    work: dict[float, list[tuple[float, float]]] = {}
    for zeta, updates in zip(ZETAS, method.updates, strict=True):
        progress(f"table 1: {method.name}, zeta = {zeta:g}")
        work[zeta] = needed(method.rule, zeta, updates, TARGETS, seeds)
    by_target = [n for n, _ in work[MIDDLE]]
    by_zeta = [work[zeta][0][0] for zeta in ZETAS]
    inverse = [1 / target for target in TARGETS]
    order_eps = order_zeta = None
    if method.order is not None:
        order_eps = exponent(inverse, [predicted(method.order, MIDDLE, target) for target in TARGETS])
        order_zeta = exponent(ZETAS, [predicted(method.order, zeta, TARGETS[0]) for zeta in ZETAS])
    claimed = method.claimed or (None, None)
    return {
        "method": method.name,
        **{f"n_eps_{target:g}": finite(n) for target, n in zip(TARGETS, by_target, strict=True)},
        "eps^-1": finite(exponent(inverse, by_target)),
        "order_eps": order_eps,
        "claimed_eps": claimed[0],
        **{f"n_zeta_{zeta:g}": finite(n) for zeta, n in zip(ZETAS, by_zeta, strict=True)},
        "zeta": finite(exponent(ZETAS, by_zeta)),
        "order_zeta": order_zeta,
        "claimed_zeta": claimed[1],
        "source": method.source,
        "seeds": seeds,
        "steps_eps": [finite(step) for _, step in work[MIDDLE]],
        "steps_zeta": [finite(work[zeta][0][1]) for zeta in ZETAS],
    }


def _said(row: dict[str, Any]) -> str:
    """What is claimed of a method and what was measured, in a line."""

    def power(value: float | None) -> str:
        return "not reached in time" if value is None else f"{value:.2f}"

    measured = f"measured eps^-{power(row['eps^-1'])}, zeta^{power(row['zeta'])}"
    if row["claimed_eps"] is None:
        return f"{row['method']}: {row['source']}; {measured}."
    words = []
    for key, claim, what in (("eps^-1", "claimed_eps", "1/eps"), ("zeta", "claimed_zeta", "zeta")):
        if row[key] is not None:
            words.append(f"in {what} {_verdict(row[key], row[claim])}")
    claim = f"claimed ({row['source']}) eps^-{row['claimed_eps']:g}, zeta^{row['claimed_zeta']:g}"
    return f"{row['method']}: {claim}; {measured}: {', '.join(words)}."


def _verdict(found: float, claimed: float) -> str:
    """A claim is an upper bound on the growth; 0.2 is what a fit over three points can be off."""
    if abs(found - claimed) <= 0.2:
        return "as claimed"
    return "less than claimed" if found < claimed else "more than claimed"
