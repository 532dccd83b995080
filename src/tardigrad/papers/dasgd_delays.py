"""Delays that grow like n^2, and steps that fit them or do not: Assumption 3.3 of the DASGD paper, which tries none.

A gradient asked for at version m comes at update ``m + m^2``, so update n reads version s(n), about sqrt(n), as
``y[n+1] = y[n] - a[n+1] g(x[s(n)])`` of Algorithm 2 has it. A noisy quadratic over a ball, 20 realisations. Rules of this file:

- every sequence runs on the same noise; constants are given, not tuned: larger ones make the failure larger;
- runs are watched as those of users are, and what was said is a column.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.errors import TheoryWarning
from tardigrad.core.steps import PowerStep, StepSequence
from tardigrad.core.stopping import MaxUpdates, Status
from tardigrad.core.task import Array
from tardigrad.engines.prescribed import Prescribed
from tardigrad.engines.reads import PowerDelay
from tardigrad.papers import Reproduction
from tardigrad.papers.at_updates import AtUpdates, geometric
from tardigrad.problems.test_functions import Quadratic
from tardigrad.rules.dual_averaging import DASGD
from tardigrad.solvers.growth_watch import GrowthWatch
from tardigrad.theory.dual_averaging import LogLogStep, LogStep, proven_for
from tardigrad.theory.step_proposal import steps_for

#: exponent of the delays, and what is minimised
GROWTH = 2.0
EIGENVALUES = np.geomspace(1.0, 0.05, 10)


@dataclass(frozen=True)
class Course:
    """How the objective went with a sequence of steps.

    Attributes
    ----------
    step : StepSequence
    updates : array (n,)
        Updates at which the values were taken.
    values : array (n, realisations)
        The objective at the last iterate.
    warning : str
        What the observer of staleness said, if anything.
    """

    step: StepSequence
    updates: Array
    values: Array
    warning: str


def course(step: StepSequence, n_updates: int, realisations: int = 20, seed: int = 0) -> Course:
    """Run DASGD with these steps under delays n^2, from the far side of the ball."""
    problem = Quadratic(EIGENVALUES)
    tens = 10 ** np.arange(int(np.log10(n_updates)) + 1)
    seen = AtUpdates(np.union1d(geometric(n_updates, points=60), tens), values=lambda moment: problem.objective(moment.x))
    watch = GrowthWatch(step)
    engine = Prescribed(PowerDelay(GROWTH), horizon=n_updates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TheoryWarning)  # it is a column
        result = run(
            DASGD(step, problem.constraint),
            problem,
            engine,
            stop=MaxUpdates(n_updates),
            x0=-2 * problem.minimiser,
            replicas=realisations,
            seed=seed,
            observers=[seen, watch],
        )
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return Course(step, np.array(seen.updates), np.array(seen.values["values"]), watch.warning)


def sequences(n_updates: int) -> dict[str, StepSequence]:
    """What is compared: the third sequence with given and with proposed constants, and two that are too large."""
    problem = Quadratic(EIGENVALUES)
    noise = problem.noise * np.sqrt(problem.dim)
    return {
        "1/(n log n log log n)": LogLogStep(5.0, offset=10.0),
        "the same, proposed": steps_for(GROWTH, lipschitz=EIGENVALUES[0], noise=noise, distance=1.5, horizon=n_updates),
        "1/(n log n)": LogStep(5.0, offset=10.0),
        "1/n^(3/4)": PowerStep(0.5, 0.75, offset=10.0),
    }


def delays(n_updates: int = 1_000_000, realisations: int = 20) -> Reproduction:
    """Medians over the realisations after 10^2, 10^3, ... updates, and whether the observer warned."""
    found = {name: course(step, n_updates, realisations) for name, step in sequences(n_updates).items()}
    rows = [_row(name, one) for name, one in found.items()]
    start = float(next(iter(found.values())).values[0, 0])

    def draw(path: Path) -> object:
        from tardigrad.report.realisations_figure import draw_courses

        title = f"Delays n^2 (update n reads version sqrt(n)), a noisy quadratic over a ball: {realisations} realisations"
        return draw_courses(found, title, path)

    said = next((one.warning for one in found.values() if one.warning), "none")
    falls = [row["steps"] for row in rows if row["final"] < row["at_1000"]]
    comment = (
        f"f(x0) = {start:.3g}. Assumption 3.3: only 1/(n log n log log n) is proven for such delays. From 1000 updates on the\n"
        f"median falls with: {', '.join(falls)}. First warning: {said}"
    )
    return Reproduction("dasgd-delays", rows, comment, [], draw)


def _row(name: str, one: Course) -> dict[str, Any]:
    medians = np.median(one.values, axis=1)
    step: Any = one.step
    tens = [n for n in one.updates.tolist() if n >= 100 and n == 10 ** round(np.log10(n))]
    return {
        "steps": name,
        "scale": float(step.scale),
        "offset": float(step.offset),
        "proven_for": str(proven_for(step)),
        **{f"at_{n}": float(medians[one.updates == n][0]) for n in tens},
        "final": float(medians[-1]),
        "final_min": float(one.values[-1].min()),
        "final_max": float(one.values[-1].max()),
        "warned": bool(one.warning),
        "published": None,
        "updates": one.updates.tolist(),
        "medians": medians.tolist(),
    }
