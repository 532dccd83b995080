"""What `minimize` must know to propose steps: Lipschitz constant and noise of the gradient, the minimiser's distance, delays.

Rules of this file:

- everything is estimated from a few dozen gradients, near the start and at random points of a bounded set;
- differences of gradients are of the same random numbers, so noise does not pass for curvature;
- nothing depends on the units of the variables.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace
from tardigrad.problems.projections import ConvexSet
from tardigrad.problems.user_gradient import UserGradient
from tardigrad.solvers.growth_watch import usual_staleness

#: stochastic gradients that tell the noise, points and power iterations that tell the Lipschitz constant
SAMPLES, POINTS, ITERATIONS = 16, 3, 8
#: without a bounded set the minimiser is taken to be so many times farther than the first step of gradient descent leads
FARTHER = 3.0
#: how much longer a difference is made that is lost in the rounding of the gradient
LONGER = 10.0
#: lengths that are tried of a difference, and of the first step until it leads to where the gradient is not much steeper
ROUNDS = 20
#: delays that are reckoned with, in numbers of workers
LATE = 2


def delays_of(steps: Trace | str, workers: int) -> dict[str, Any]:
    """What `steps_for` is told of delays."""
    if isinstance(steps, str):
        return {"growth": 0.0, "delay": LATE * workers}
    return {"growth": steps.growth(), "staleness": usual_staleness(steps)}


def constants_near(problem: UserGradient, feasible: ConvexSet, x: Array, seed: int) -> dict[str, float]:
    """What `steps_for` is told of the problem, from some gradients at x and at other points.

    The noise is that of 16 gradients at x. The Lipschitz constant is the largest of power iterations on differences of
    gradients with the same random numbers. The minimiser is taken to be half a diameter away, or three first steps.
    """
    rng = np.random.default_rng(seed)
    mean, squares = np.zeros(len(x)), 0.0
    for k in range(SAMPLES):  # one by one: x may be large
        gradient = problem.gradient(0, x, problem.sample(0, rng))
        change = gradient - mean
        mean += change / (k + 1)
        squares += float(change @ (gradient - mean))
    noise = math.sqrt(squares / (SAMPLES - 1))
    points = [x]
    across = max(feasible.diameter(len(x)), 1e-12)  # infinite for a user's bounded set too: nobody knows it
    if math.isfinite(across):
        points += list(feasible.sample(rng, (POINTS - 1,), len(x)).astype(x.dtype))
    lipschitz = max(_curvature(problem, feasible, point, rng) for point in points)
    length = float(np.linalg.norm(mean))
    if lipschitz > 0 and not math.isfinite(across):  # where the first step leads
        for _ in range(ROUNDS):
            there = feasible.project((x - mean / lipschitz).astype(x.dtype))
            found = _curvature(problem, feasible, there, rng)
            if found <= 2 * lipschitz:
                lipschitz = max(lipschitz, found)
                break
            lipschitz = min(found, 10 * lipschitz)  # a step that goes where it is much steeper is too long itself
    if not (math.isfinite(lipschitz) and math.isfinite(noise)):
        raise InvalidInputError(
            f"gradient(x, rng) is so large that no steps can be proposed: its noise is {noise:.3g}, its Lipschitz constant"
            f" {lipschitz:.3g}: scale the objective, or pass steps"
        )
    if math.isfinite(across):
        # a linear objective: its minimiser is on the boundary
        return {"lipschitz": lipschitz or (max(length, noise) or 1.0) / across, "noise": noise, "distance": across / 2}
    if lipschitz <= 0:
        raise InvalidInputError(
            "gradient(x, rng) is the same everywhere, and nothing bounds x: pass a bounded constraint such as Ball(10.0), or"
            " steps of your own"
        )
    signal = math.sqrt(max(length**2 - noise**2 / SAMPLES, 0.01 * length**2))  # what of the mean is not noise
    return {"lipschitz": lipschitz, "noise": noise, "distance": max(FARTHER * signal / lipschitz, 1e-12)}


def _curvature(problem: UserGradient, feasible: ConvexSet, x: Array, rng: np.random.Generator) -> float:
    """The largest difference quotient of the gradient near x that power iterations find, random numbers being the same."""
    sample = problem.sample(0, rng)
    here = problem.gradient(0, x, sample)
    again = problem.gradient(0, x, sample)
    if np.linalg.norm(again - here) > 1e-3 * np.linalg.norm(here):
        raise InvalidInputError(
            "gradient(x, rng) gave two different answers for the same x and rng: draw all random numbers from rng, or pass"
            " steps (a number or a StepSequence), since none can be proposed then"
        )
    eps, size = float(np.finfo(x.dtype).eps), float(np.linalg.norm(here))
    step = eps ** (1 / 3) * (1.0 + float(np.linalg.norm(x)))
    direction, largest, iterations = rng.standard_normal(len(x)), 0.0, 0
    for _ in range(ITERATIONS + ROUNDS):
        length = float(np.linalg.norm(direction))
        if iterations == ITERATIONS or not (length > 0 and math.isfinite(length)):
            break
        there = feasible.project((x + step / length * direction).astype(x.dtype))
        moved = float(np.linalg.norm(there.astype(np.float64) - x))
        if moved == 0:
            direction = -direction
            continue
        change = (problem.gradient(0, there, sample) - here).astype(np.float64)
        if np.linalg.norm(change) <= eps**0.5 * size:  # mostly rounding: the point is on another scale than thought
            step *= LONGER
            continue
        direction, iterations = change, iterations + 1
        if np.isfinite(direction).all():
            largest = max(largest, float(np.linalg.norm(direction)) / moved)
    return largest
