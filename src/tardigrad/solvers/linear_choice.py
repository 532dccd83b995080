"""What `linsolve` chooses: the method, the sketch, and the parameters that theory gives for them.

Rules of this file:

- a choice reads a few rows, at most a tenth of a pass over A, and says in words what was chosen and why;
- where nothing is known, lambda_max is 1: W has no eigenvalue above that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.rule import Rule
from tardigrad.core.validate import number
from tardigrad.problems.linear_system import LinearSystem
from tardigrad.problems.sketches import RowBlocks, Rows, Sketch
from tardigrad.rules.row_action import RowAction
from tardigrad.rules.sketch_project import (
    AcceleratedSketchProject,
    AveragedSketchProject,
    ParallelSketchProject,
    SketchProject,
)
from tardigrad.theory.accelerated import accelerated_parameters
from tardigrad.theory.best_parameters import best_parameters
from tardigrad.theory.parallel import parallel_omega
from tardigrad.theory.row_action import best_omega

METHODS = ("auto", "basic", "parallel", "accelerated", "averaged", "row-action")
#: systems of at most so many rows are one block: a single step solves them
ONE_BLOCK = 256
#: a row-action method needs rows that point in nearly as many directions as there are: at least this share of them
SPREAD = 1 / 8
#: rows of a block, at most
LARGEST_BLOCK = 1024
#: rows of a block that determines all unknowns, at most
TALLEST_BLOCK = 3072
#: what randomness and merging cost in rows
LOST = 1.25
#: lambda_min over lambda_max where nothing is known: the best theta and omega hardly depend on it
SMALL = 1e-4


@dataclass(frozen=True)
class Choice:
    """A method and a sketch, and why; `largest` estimates the largest eigenvalue of W, from above where it can."""

    method: str
    sketch: Sketch
    why: str
    largest: float

    def __str__(self) -> str:
        return f"method {self.method} with {self.sketch!r}: {self.why}"


def choose(system: LinearSystem, method: str, sketch: Sketch | str) -> Choice:
    """Fill in what the user left to "auto"."""
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if not (sketch == "auto" or isinstance(sketch, Sketch)):
        raise InvalidInputError(f"sketch must be 'auto' or a sketch such as RowBlocks(64), not {sketch!r}")
    full = min(system.n_rows, system.dim)
    spread, largest = float(full), 1.0
    if system.n_rows > ONE_BLOCK:  # else all rows are looked at anyhow
        probe = system.row_coherence()
        spread = min(full, probe.effective_rank)
        # of rows that are all equally likely: sum lam = 1 and sum lam^2 = 1 / spread
        largest = min(1.0, probe.largest, math.sqrt(1 / spread)) if spread else 1.0
    why = "as asked for"
    if method == "auto":
        method, why = _method(system, sketch, spread)
    if isinstance(sketch, str):
        sketch = Rows() if method == "row-action" else RowBlocks(block_size(system, method), "fixed")
    if method == "row-action" and not isinstance(sketch, Rows):
        raise InvalidInputError(
            f"method 'row-action' takes single rows, not {sketch!r}: choose another method, or sketch=Rows()"
        )
    if isinstance(sketch, Rows) and sketch.order != "norms":
        bound = largest
    elif isinstance(sketch, RowBlocks):
        bound = min(1.0, sketch.size * largest)
    else:  # these look at large rows more often
        bound = 1.0
    return Choice(method, sketch, why, bound)


def _method(system: LinearSystem, sketch: Sketch | str, spread: float) -> tuple[str, str]:
    """The method for "auto"."""
    full_metric = system.B is not None and system.B.ndim == 2
    if isinstance(sketch, Sketch):
        return ("row-action" if isinstance(sketch, Rows) and not full_metric else "basic"), "what suits that sketch"
    full = min(system.n_rows, system.dim)
    reasons = {
        "B is a full matrix, which single rows cannot use cheaply": full_metric,
        f"{system.n_rows} rows are one block": system.n_rows <= ONE_BLOCK,
        f"rows lean to a few directions (effective rank {spread:.0f} of {full}), which blocks of rows remove": (
            spread < SPREAD * full and not sp.issparse(system.A)
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            return "basic", reason
    if sp.issparse(system.A):
        return "row-action", f"rows are sparse ({system.A.nnz / system.n_rows:.3g} entries), so a step costs next to nothing"
    return "row-action", f"rows are spread evenly (effective rank {spread:.0f} of {full}), so that single ones suffice"


def block_size(system: LinearSystem, method: str) -> int:
    """Rows of a block: all of a small system, else a quarter of the unknowns.

    The basic method takes half more rows than there are unknowns, if these are not many: such a block has one solution, which
    is that of the system. That is one step, for one factor.
    """
    if system.n_rows <= ONE_BLOCK:
        return system.n_rows
    tall = 3 * system.dim // 2
    if method == "basic" and ONE_BLOCK < tall <= min(system.n_rows, TALLEST_BLOCK) and not sp.issparse(system.A):
        return tall
    return int(min(system.n_rows, max(64, system.dim // 4), LARGEST_BLOCK))


def rows_of_a_task(system: LinearSystem, workers: int, lock_free: bool) -> int:
    """Row steps of a task: so few that what all workers do meanwhile is an eighth of the unknowns.

    Lock-free a quarter: a merge costs as much as six rows, and copies that are twice as old cost no passes. Short sparse rows
    need no copies: 1. Longer ones, of more than 32 entries for each worker, meet so often that a copy pays, merged when its
    rows have read eight times as much as a merge.
    """
    if lock_free and sp.issparse(system.A):
        entries = system.A.nnz / system.n_rows
        return 1 if workers == 1 or entries < 32 * workers else max(1, int(8 * system.dim / entries))
    return max(1, min(system.dim, system.n_rows) // ((4 if lock_free else 8) * workers))


def passes_of_update(rule: Rule[Any], system: LinearSystem) -> float:
    """Passes over A that an update of the server takes."""
    if isinstance(rule, RowAction):
        return rule.rows / system.n_rows
    rows = (
        1 if isinstance(system.sketch, Rows) else system.sketch.size if isinstance(system.sketch, RowBlocks) else system.n_rows
    )
    return getattr(rule, "tau", 1) * min(rows, system.n_rows) / system.n_rows


def expected_passes(rule: Rule[Any], system: LinearSystem, tol: float) -> float:
    """Passes in which even rows come to the tolerance: s rows of n unknowns take a share s/n off the squared error."""
    per_update, n = passes_of_update(rule, system), min(system.dim, system.n_rows)
    share = per_update * system.n_rows / getattr(rule, "tau", 1) / n
    if share >= 1:
        return per_update
    return LOST * 2 * math.log(max(1 / tol, 2.0)) / -math.log1p(-share) * per_update


def relaxation(value: Any, name: str) -> float | None:
    """A number that the user gave, None for "auto"."""
    if isinstance(value, str):
        if value != "auto":
            raise InvalidInputError(f"{name} must be a number or 'auto', not {value!r}")
        return None
    return number(value, name, above=0)


def rule_for(
    choice: Choice,
    system: LinearSystem,
    workers: int,
    lock_free: bool,
    omega: float | None,
    theta: float | None,
    delays: Any = None,
    smallest: float | None = None,
) -> Rule[Any]:
    """The rule of a choice.

    Parameters
    ----------
    choice : Choice
        Method, sketch, and the bound of lambda_max.
    system : LinearSystem
        What is solved.
    workers : int
        Workers, each with one task.
    lock_free : bool
        Whether workers write to the iterate themselves.
    omega, theta : float or None
        What the user asked for; None for what theory gives.
    delays : array, optional
        How often each staleness was seen in a pilot, for the averaged method.
    smallest : float, optional
        lambda_min as a pilot showed it, for the accelerated method.
    """
    low, high = choice.largest * SMALL, choice.largest
    if choice.method == "row-action":
        rows = rows_of_a_task(system, workers, lock_free)
        late = 0 if lock_free else rows * workers - 1  # private copies damp themselves, sparse rows hardly meet
        return RowAction(omega or min(1.0, best_omega(0.0, high, late)), rows)
    if choice.method == "parallel":
        return ParallelSketchProject(omega or parallel_omega(low, high, workers), workers)
    if choice.method == "accelerated":
        chosen = omega or 1.0  # the rate of the mean asks for 1 / lambda_max, with which single runs may diverge
        gamma = accelerated_parameters(min(smallest or low, high), high, min(chosen, 1 / high)).gamma
        return AcceleratedSketchProject(chosen, gamma)
    if choice.method == "averaged":
        if omega is not None and theta is not None:
            return AveragedSketchProject(omega, theta, workers)
        best = best_parameters(low, high, workers - 1 if delays is None else delays, omega=omega, theta=theta)
        return AveragedSketchProject(best.omega, best.theta, workers)
    return SketchProject(omega or 1.0)
