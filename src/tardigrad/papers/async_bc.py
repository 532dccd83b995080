"""Figure 1 of the AsyncBC paper: quadratics of clients that differ, with the method and without its correction.

Gao, Takezawa, Stich, "A bias correction mechanism for distributed asynchronous optimization", section 5 and appendix D.1: four
clients, ten variables, client i = 1..4 takes ``10 i / 4`` seconds, updates until the mean of the last 20 squared gradient
norms is at most 0.01, at the best step of a grid. Rules of this file:

- the paper does not say where it starts: x[0] = (1, ..., 1), or x[0] - x* = (1, ..., 1), and both are shown;
- a seed draws the clients' data and who is asked; steps are replicas that share both;
- a step of the grid is left out where gradient descent without noise and delay would need more updates than are run.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import Limits, MaxUpdates, Status
from tardigrad.core.task import Array
from tardigrad.engines.simulated import Simulated
from tardigrad.papers import Reproduction
from tardigrad.problems.client_quadratics import ClientQuadratics
from tardigrad.rules.async_bc import AsyncBC
from tardigrad.rules.gradient_descent import AsyncSGD
from tardigrad.timing.models import PerClient

N_CLIENTS, DIM, SLOWEST = 4, 10, 10.0
TARGET, WINDOW, SEEDS = 0.01, 20, 15
#: the paper's: 1e-10, 5e-10, 1e-9, ..., 1e-1
GRID = np.array([float(f"{digit}e{power}") for power in range(-10, -1) for digit in (1, 5)] + [0.1])
#: why AsyncBC takes longer from a fixed x[0]
DIFFERENT = "not the same, as a start further away leaves a floor in proportion to |grad f(x0)|^2"
#: what is fixed for all zeta
STARTS = ("x0 - x*", "x0")


@dataclass(frozen=True)
class Method:
    """A curve's method: a rule for an array of steps, the zetas it is shown for, and the updates run for each."""

    name: str
    rule: Callable[[Array], Rule[Any]]
    updates: dict[float, int]


METHODS = (
    Method("AsyncBC", AsyncBC, dict.fromkeys((0.0, 1.0, 10.0, 100.0, 1000.0), 25_000)),
    Method("Async-GD", lambda step: AsyncSGD(step, "uniform"), {0.0: 2000, 1.0: 5000, 10.0: 30_000, 100.0: 120_000}),
    Method("Async-GD, answered", AsyncSGD, dict.fromkeys((0.0, 1.0, 10.0, 100.0), 5000)),
    Method("AsyncBC, answered", lambda step: AsyncBC(step, "answered"), dict.fromkeys((0.0, 100.0), 8000)),
)


@dataclass(frozen=True)
class Run:
    """``|grad f(x[t])|^2`` (updates + 1, steps), and the replies received up to each update."""

    squared_norms: Array
    replies: Array


class _Norms(Observer):
    """The squared gradient norms of quadratics at every update, computed a block at a time."""

    BLOCK = 1024

    def open(self, problem: Problem, stop: Limits) -> None:
        assert isinstance(problem, ClientQuadratics)
        self._problem = problem
        self._blocks: list[Array] = []
        self._replies: list[int] = []
        self._points: Array | None = None
        self._n = 0

    def observe(self, moment: Moment) -> None:
        if self._points is None:
            self._points = np.empty((self.BLOCK, *moment.x.shape))
        self._replies.append(moment.replies)
        self._points[self._n] = moment.x
        self._n += 1
        if self._n == self.BLOCK:
            self._keep()

    def _keep(self) -> None:
        assert self._points is not None
        gradient = self._problem.full_gradient(self._points[: self._n])
        self._blocks.append(np.einsum("...i,...i->...", gradient, gradient))
        self._n = 0

    def close(self, status: Status | None, message: str) -> None:
        if self._n:
            self._keep()

    def seen(self, updates: int) -> Run:
        """What was seen; infinite norms where all replicas diverged before the end."""
        norms = np.concatenate(self._blocks)[: updates + 1]
        missing = updates + 1 - len(norms)
        if missing:
            norms = np.concatenate([norms, np.full((missing, *norms.shape[1:]), np.inf)])
        return Run(norms, np.array(self._replies[: updates + 1] + self._replies[-1:] * missing))


@dataclass(frozen=True)
class Course:
    """How a method went with each step, over seeds.

    Attributes
    ----------
    steps : array (steps,)
    reached : array (seeds, steps)
        First update at which the mean of the last `WINDOW` squared gradient norms is at most `TARGET`; infinite if none.
    updates : array (points,)
        Updates at which curves are kept.
    curves : array (seeds, points, steps)
        That mean there (of what there is, before `WINDOW`).
    first, last : array (seeds, steps)
        Squared gradient norms at the start and at the end.
    """

    steps: Array
    reached: Array
    updates: Array
    curves: Array
    first: Array
    last: Array

    def best(self) -> int:
        """The step with the least median; where no median is finite that of most seeds, then of the least end."""
        median = np.median(self.reached, axis=0)
        share = np.isfinite(self.reached).mean(axis=0)
        return min(range(len(self.steps)), key=lambda k: (median[k], -share[k], float(np.median(self.last[:, k]))))


def quadratics(zeta: float, start: str, seed: int) -> tuple[ClientQuadratics, Array]:
    """The problem and where to start, ``(1, ..., 1)`` itself or away from the minimiser."""
    problem = ClientQuadratics.of_paper(zeta, N_CLIENTS, DIM, seed)
    ones = np.ones(DIM)
    return problem, problem.minimiser + ones if start == "x0 - x*" else ones


def hopeful(updates: int, first: float) -> Array:
    """Steps with which gradient descent without noise and delay comes from ``|grad f|^2 = first`` to the target in time."""
    L = float(np.arange(1, N_CLIENTS + 1) @ np.arange(1, N_CLIENTS + 1)) / N_CLIENTS**2
    return GRID[GRID * (2 * L * updates) >= math.log(max(first / TARGET, math.e))]


def simulate(rule: Rule[Any], problem: ClientQuadratics, x0: Array, updates: int, seed: int) -> Run:
    """One run on the paper's timing."""
    norms = _Norms()
    engine = Simulated(PerClient.linear(problem.n_clients, SLOWEST))
    result = run(rule, problem, engine, stop=MaxUpdates(updates), x0=x0, seed=seed, observers=norms)
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return norms.seen(updates)


def course(method: Method, zeta: float, start: str, seeds: int = SEEDS) -> Course:
    """Run a method with all steps that can reach the target, once a seed."""
    updates = method.updates[zeta]
    typical = [
        float((quadratics(zeta, start, seed)[0].full_gradient(x0) ** 2).sum()) for seed, x0 in _starts(zeta, start, seeds)
    ]
    steps = hopeful(updates, float(np.median(typical)))
    due = np.unique(np.concatenate([[0, updates], np.geomspace(1, updates, 90).astype(int)]))
    reached, curves, ends = [], [], []
    for seed, x0 in _starts(zeta, start, seeds):
        problem, _ = quadratics(zeta, start, seed)
        norms = simulate(method.rule(steps), problem, np.tile(x0, (len(steps), 1)), updates, seed).squared_norms
        means = np.lib.stride_tricks.sliding_window_view(norms, WINDOW, axis=0).mean(axis=-1)
        below = means <= TARGET
        reached.append(np.where(below.any(axis=0), below.argmax(axis=0) + WINDOW - 1.0, np.inf))
        curves.append([norms[max(0, n - WINDOW + 1) : n + 1].mean(axis=0) for n in due])
        ends.append(norms[[0, -1]])
    first, last = np.array(ends).swapaxes(0, 1)
    return Course(steps, np.array(reached), due, np.array(curves), first, last)


def _starts(zeta: float, start: str, seeds: int) -> Iterator[tuple[int, Array]]:
    return ((seed, quadratics(zeta, start, seed)[1]) for seed in range(seeds))


def figure1(seeds: int = SEEDS, methods: Iterable[Method] = METHODS) -> Reproduction:
    """Figure 1, with x[0] - x* fixed for all zeta and with x[0] fixed.

    A row a method, zeta and start: its best step, the median number of updates to the target, the share of seeds that reach it,
    the updates after which all have (with the step for which that is least), and the curve at the best step.
    """
    rows = []
    for start in STARTS:
        for method in methods:
            for zeta in method.updates:
                progress(f"figure 1: {method.name}, zeta = {zeta:g}, {start} fixed")
                rows.append(_row(method, zeta, start, course(method, zeta, start, seeds)))

    def draw(path: Path) -> object:
        from tardigrad.report.async_bc_figure import draw_quadratics

        return draw_quadratics(rows, f"Quadratics of 4 clients, 10 variables: median and middle half of {seeds} seeds", path)

    return Reproduction("async-bc-figure1", rows, _comment(rows), _notes(rows), draw)


def _row(method: Method, zeta: float, start: str, found: Course) -> dict[str, Any]:
    k = found.best()
    low, median, high = np.quantile(found.curves[:, :, k], (0.25, 0.5, 0.75), axis=0)
    return {
        "method": method.name,
        "zeta": zeta,
        "fixed": start,
        "step": float(found.steps[k]),
        "median_updates": finite(np.median(found.reached[:, k])),
        "share": float(np.isfinite(found.reached[:, k]).mean()),
        "share_at_end": float((found.curves[:, -1, k] <= TARGET).mean()),
        "updates_of_all": finite(found.reached.max(axis=0).min()),
        "end_ratio": float(np.median(np.sqrt(found.last[:, k] / found.first[:, k]))),
        "n_updates": int(found.updates[-1]),
        "seeds": len(found.reached),
        "published": None,
        "steps": found.steps.tolist(),
        "medians": [finite(value) for value in np.median(found.reached, axis=0)],
        "shares": np.isfinite(found.reached).mean(axis=0).tolist(),
        "updates": found.updates.tolist(),
        "squared_norm": median.tolist(),
        "squared_norm_low": low.tolist(),
        "squared_norm_high": high.tolist(),
    }


def _by(rows: list[dict[str, Any]], start: str, method: str, key: str) -> dict[float, Any]:
    return {row["zeta"]: row[key] for row in rows if (row["fixed"], row["method"]) == (start, method)}


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    notes = [
        "median_updates: until the mean of the last 20 |grad f|^2 is at most 0.01, at the best step; share: of the seeds that",
        "reach it with that step; share_at_end: of those that are there at the end; updates_of_all: until every seed has been,",
        "at the step for which that is least; end_ratio: |grad f| at the end over that at the start. Published: curves alone.",
    ]
    least = min(min(row["steps"]) for row in rows)
    notes.append(
        f"Steps 1e-10, 5e-10, ..., 1e-1; those below {least:g} are too small for every curve, and more for most (JSON: steps)."
    )
    answered = _by(rows, STARTS[0], "AsyncBC, answered", "end_ratio")
    if answered:
        ratios = ", ".join(f"{ratio:.4g}" for ratio in answered.values())
        notes.append(
            f"AsyncBC that asks whoever answered ends at |grad f| / |m[0]| = {ratios}; it passes the target on its way."
        )
        notes.append("For small steps the limit is |1 - L / sum_i w_i A_i^2| = 0.5625, w_i the share of answers of client i.")
    return notes


def _comment(rows: list[dict[str, Any]]) -> str:
    """The paper's three claims, and what came of each."""
    lines = []
    for start in STARTS:
        ours, theirs = (_by(rows, start, name, "median_updates") for name in ("AsyncBC", "Async-GD"))
        if not (ours and theirs):
            continue
        shares = _by(rows, start, "AsyncBC", "share")
        same = len(set(ours.values())) == 1
        lines += [
            f"{start} fixed. AsyncBC, published: the same for every zeta. Measured: {_list(ours)};"
            f" {'the same' if same else DIFFERENT}; share of seeds {_list(shares)}.",
            f"  Async-GD, published: takes longer as zeta grows. Measured: {_list(theirs)}.",
        ]
        if 0.0 in ours and 0.0 in theirs:
            faster = (theirs[0.0] or math.inf) < (ours[0.0] or math.inf)
            lines.append(f"  At zeta = 0 Async-GD is published as the faster: {'so it is' if faster else 'it is not'}.")
    return "\n".join(lines)


def _list(values: dict[float, Any]) -> str:
    return ", ".join(f"{'-' if value is None else f'{value:.4g}'} (zeta {zeta:g})" for zeta, value in values.items())


def finite(value: float) -> float | None:
    """What JSON can say of a number that may be infinite."""
    return float(value) if np.isfinite(value) else None


def progress(line: str) -> None:
    """Say on standard error what is being computed."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
