"""The averaged method simulated, beside its bound: how much Theorem 5 gives away, under fixed and changing delays.

Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear systems",
bound ``E|x[t] - x*|_B^2`` by ``q[t+1] = K1 q[t] + K2 q[s(t)]``, s(t) the version that update t read. Here many replicas of a
small system are run, and that expectation is also computed exactly. Rules of this file:

- nothing is asserted: the numbers are reported, also where a bound should fail;
- parameters are those that theory advises for the scenario's largest delay: the paper's closed form, with omega at most 2, or
  the best with the tight constants, which allow much larger omega.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.stopping import MaxUpdates
from tardigrad.core.task import Array
from tardigrad.core.validate import integer
from tardigrad.engines.prescribed import Prescribed
from tardigrad.engines.simulated import Simulated
from tardigrad.papers import Reproduction
from tardigrad.papers.apsgd_moments import exact_second_moment, root_of_metric, row_projections
from tardigrad.problems.linear_system import LinearSystem
from tardigrad.problems.sketches import Rows
from tardigrad.rules.sketch_project import AveragedSketchProject
from tardigrad.theory.best_parameters import best_parameters
from tardigrad.theory.delayed_recurrence import positive_root, recurrence_curve
from tardigrad.theory.sketch_project import best_theta, omega_star, recurrence_constants
from tardigrad.theory.spectra import BOUNDS, one_of
from tardigrad.timing.models import PerClient

N_WORKERS = 4


def _uniform(n: int) -> Array:
    """Delays uniform on 0, ..., 15."""
    updates = np.arange(n)
    return np.maximum(updates - np.random.default_rng(15).integers(16, size=n), 0)


def _periodic(n: int) -> Array:
    """Three workers in turn, and a straggler whose reply, 16 updates old, is every sixteenth."""
    updates = np.arange(n)
    return np.maximum(updates - np.where(updates % 16 == 15, 15, 2), 0)


#: what is simulated: a name, and the engine for a number of updates
SCENARIOS: dict[str, Callable[[int], Engine]] = {
    "no delay": lambda n: Prescribed(0),
    "delay 7": lambda n: Prescribed(7),
    "delays uniform on 0 to 15": lambda n: Prescribed(_uniform(n)),
    "delay 2, every sixteenth 15": lambda n: Prescribed(_periodic(n)),
    "4 workers, one 10 times slower": lambda n: Simulated(PerClient([1.0] * (N_WORKERS - 1) + [10.0])),
}


@dataclass(frozen=True)
class BoundCheck:
    """What one scenario gave with one choice of parameters.

    Curves have an entry for each version 0, 1, ..., relative to that of version 0.

    Attributes
    ----------
    scenario, chosen_by : str
        The delays, and by which constants theta and omega were chosen.
    theta, omega : float
    delay_max, delay_mean : float
        Of the versions read.
    measured, standard_error : array
        The mean of ``|x - x*|_B^2`` over the replicas.
    exact : array
        Its expectation, by the operator of second moments.
    tight, paper : array
        Theorem 5's recurrence along the versions that were read, with the tight constants and the paper's.
    rates : dict
        Factor an update, in the second half of the run, of the curves "exact", "tight" and "paper"; "root" is the positive
        root of the characteristic polynomial for the largest delay, tight constants. At 1 or more a bound says nothing.
    """

    scenario: str
    chosen_by: str
    theta: float
    omega: float
    delay_max: int
    delay_mean: float
    measured: Array
    standard_error: Array
    exact: Array
    tight: Array
    paper: Array
    rates: dict[str, float]

    def slack(self, bound: str = "tight") -> float | None:
        """``log(exact rate) / log(rate of the bound)``: how many times faster the error falls than promised, if anything is."""
        rate = self.rates[bound]
        return float(np.log(self.rates["exact"]) / np.log(rate)) if rate < 1 else None

    def largest_ratio(self, bound: str = "tight") -> float:
        """The largest of exact over bound; a bound holds if it is at most 1."""
        curve: Array = getattr(self, bound)
        return float((self.exact[1:] / curve[1:]).max())

    def largest_deviation(self) -> float:
        """The largest distance of measured from exact, in standard errors."""
        return float((np.abs(self.measured - self.exact)[1:] / self.standard_error[1:]).max())

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        bounds = ("tight", "paper", "root")
        curves = {name: getattr(self, name).tolist() for name in ("measured", "standard_error", "exact", "tight", "paper")}
        return {
            "scenario": self.scenario,
            "chosen_by": self.chosen_by,
            "theta": self.theta,
            "omega": self.omega,
            "delay_max": self.delay_max,
            "delay_mean": self.delay_mean,
            **{f"rate_{name}": rate for name, rate in self.rates.items()},
            **{f"slack_{name}": self.slack(name) for name in bounds},
            **{f"largest_ratio_{name}": self.largest_ratio(name) for name in bounds[:2]},
            "largest_deviation": self.largest_deviation(),
            **curves,
        }


def small_system() -> LinearSystem:
    """A Gaussian system of 40 rows in the metric of a diagonal B, rows drawn by their squared norms."""
    rng = np.random.default_rng(0)
    A, solution = rng.normal(size=(40, 8)), rng.normal(size=8)
    B = rng.uniform(0.5, 2.0, 8)
    return LinearSystem(A, A @ solution, B, sketch=Rows("norms"), n_clients=N_WORKERS, solution=solution)


def check_bound(
    scenario: str,
    chosen_by: str = "tight",
    *,
    updates: int = 400,
    replicas: int = 4000,
    seed: int = 0,
    system: LinearSystem | None = None,
) -> BoundCheck:
    """Run one of `SCENARIOS` and compute what theory says of it.

    Parameters
    ----------
    scenario : str
        A key of `SCENARIOS`.
    chosen_by : {"tight", "paper"}
        "tight": theta and omega with the least rate by the tight constants, for the largest delay. "paper": omega =
        min(2, omega*) and the paper's theta for it, with delta_a = largest delay + 1 updates in a unit of time.
    updates, replicas, seed : int
        Of the run.
    system : LinearSystem, optional
        A small one whose solution is given, with a dense matrix, B diagonal or None, and the sketch ``Rows("norms")``; by
        default `small_system`.

    Raises
    ------
    InvalidInputError
        If the scenario is not known, or the system is another.

    Examples
    --------
    >>> found = check_bound("delay 7", updates=100, replicas=200)
    >>> found.largest_ratio("tight") <= 1 <= found.slack("tight")
    True
    """
    updates, replicas = integer(updates, "updates", low=2), integer(replicas, "replicas", low=2)
    if scenario not in SCENARIOS:
        raise InvalidInputError(f"scenario must be one of {', '.join(map(repr, SCENARIOS))}, not {scenario!r}")
    system = small_system() if system is None else system
    units, chances = row_projections(system)
    spectrum = np.linalg.eigvalsh((units.T * chances) @ units)
    ends = float(spectrum[spectrum > 1e-10 * spectrum[-1]][0]), float(spectrum[-1])
    engine, stop = SCENARIOS[scenario](updates), MaxUpdates(updates)
    # delays do not depend on what is computed: a pilot run has the same
    delays = run(AveragedSketchProject(1.0, 0.5), system, engine, stop=stop).trace.staleness
    theta, omega = _parameters(*ends, int(delays.max()), chosen_by)
    rule = AveragedSketchProject(omega, theta)
    result = run(rule, system, engine, stop=stop, seed=seed, replicas=replicas, snapshot_every=1)
    versions = result.trace["version_read"]
    squares = result.evaluate(("error",))["error"] ** 2
    exact = exact_second_moment(units, chances, versions, omega, theta, start=root_of_metric(system) * system.solution)
    constants = {bound: recurrence_constants(*ends, theta, omega, bound) for bound in ("tight", "paper")}
    curves = {bound: recurrence_curve(K1, K2, versions) for bound, (K1, K2) in constants.items()}
    return BoundCheck(
        scenario,
        chosen_by,
        theta,
        omega,
        int(delays.max()),
        float(delays.mean()),
        squares.mean(axis=1),
        squares.std(axis=1, ddof=1) / np.sqrt(replicas),
        exact,
        curves["tight"],
        curves["paper"],
        {
            "exact": _late_rate(exact),
            **{bound: _late_rate(curve) for bound, curve in curves.items()},
            "root": positive_root(*constants["tight"], int(delays.max())),
        },
    )


def _parameters(lambda_min: float, lambda_max: float, delay: int, chosen_by: str) -> tuple[float, float]:
    """Theta and omega."""
    if one_of(chosen_by, "chosen_by", BOUNDS) == "tight":
        best = best_parameters(lambda_min, lambda_max, delay)
        return best.theta, best.omega
    omega = min(2.0, omega_star(lambda_min, lambda_max))
    return best_theta(lambda_min, lambda_max, omega, delay + 1), omega


def check_all(updates: int = 400, replicas: int = 4000, seed: int = 0) -> list[BoundCheck]:
    """`check_bound` for every scenario and both choices of parameters."""
    kept: dict[str, Any] = {"updates": updates, "replicas": replicas, "seed": seed}
    return [check_bound(scenario, chosen_by, **kept) for scenario in SCENARIOS for chosen_by in ("paper", "tight")]


def bound() -> Reproduction:
    """The averaged method simulated under fixed and changing delays, beside Theorem 5's bound."""
    checks = check_all()

    def draw(path: Path) -> object:
        from tardigrad.report.bound_figure import draw_bounds

        return draw_bounds(checks, "Averaged sketch-and-project: mean square error of 4000 replicas, and its bound", path)

    slacks = [slack for check in checks if (slack := check.slack()) is not None]
    held = all(max(check.largest_ratio("tight"), check.largest_ratio("paper")) <= 1 + 1e-12 for check in checks)
    comment = (
        f"the bound {'held' if held else 'FAILED'} in {len(checks)} cases; the error falls {min(slacks):.2f} to"
        f" {max(slacks):.2f} times as fast as the tight bound along the delays promises"
    )
    notes = [
        "rate_root: the bound for the largest delay alone; slack: log(rate_exact) / log(rate of the bound)",
        "largest_deviation: simulated from exact, in standard errors; '-': a bound that promises nothing",
    ]
    return Reproduction("apsgd-bound", [check.to_json() for check in checks], comment, notes, draw)


def _late_rate(curve: Array) -> float:
    """The factor an update, in the second half."""
    half = len(curve) // 2
    return float((curve[-1] / curve[half]) ** (1 / (len(curve) - 1 - half)))
