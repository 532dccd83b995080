"""Tells when staleness grows faster than the steps are proven for.

Rules of this file:

- it looks at 1000 updates, whenever their number has doubled, and at the end;
- it warns, once, where growth is surely too fast at two looks in succession, and records of staleness grow with it (half as
  fast: they lag behind): a long pause looks like growth until later replies are seen, and phases in which pauses are more
  frequent do longer still;
- it never warns where too little is known.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from tardigrad.core.errors import TheoryWarning
from tardigrad.core.growth import Growth
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.steps import check_step
from tardigrad.core.stopping import Limits
from tardigrad.core.trace import Trace
from tardigrad.theory.dual_averaging import proven_for
from tardigrad.theory.step_proposal import fitting_sequence

#: updates before the first look
FIRST = 1000
#: replies that a growth must have been found from
ENOUGH = 100
#: how far beyond a limit an exponent must surely be: a measured 1 may be 1.05, and what is short of a limit near it
BEYOND, SHORT = 0.1, -0.05


class GrowthWatch(Observer):
    """Watches the measured staleness, and raises a `TheoryWarning` when it outgrows what the steps are proven for.

    Parameters
    ----------
    step : float, array or StepSequence
        The steps of the run.
    known : mapping of str to float, optional
        What is known of the problem, by the names of `steps_for`: lipschitz, noise, distance, horizon. The warning says it, so
        that its proposal can be copied.

    Attributes
    ----------
    growth : Growth or None
        As of the last look.
    warning : str
        The warning's text, if there was one.

    Notes
    -----
    What it cannot tell is what `Trace.growth` cannot: see there. Lock-free runs have no trace to look at.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)))
    >>> step = td.PowerStep(0.5, power=0.75, offset=100)
    >>> watch = GrowthWatch(step)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     result = td.run(
    ...         td.DASGD(step), problem, td.Prescribed(td.UniformDelay(0.5)), stop=td.MaxUpdates(4000), observers=[watch]
    ...     )
    >>> print(watch.warning.partition(":")[0])
    staleness grows like n^0.99, and the steps are proven for delays O(n^q), q < 0.75 only (Assumption 3)
    """

    def __init__(self, step: Any, known: Mapping[str, float] | None = None) -> None:
        self.limit = proven_for(check_step(step))
        self.known = dict(known or {})
        self.every = FIRST
        self.growth: Growth | None = None
        self.warning = ""
        self._suspect = False
        self._horizon = math.inf

    def open(self, problem: Problem, stop: Limits) -> None:
        self.every, self.growth, self.warning, self._suspect = FIRST, None, "", False
        self._horizon = stop.updates

    def observe(self, moment: Moment) -> None:
        self.every = max(FIRST, moment.version)
        if self.warning or moment.replies < ENOUGH:
            return
        trace = Trace(moment.rows(0, moment.replies), moment.version)
        self.growth = seen = trace.growth()
        limit = self.limit
        most = BEYOND if limit is None else limit.exponent + (BEYOND if limit.attained else SHORT)
        surely = seen.exponent - 2 * seen.error > most and seen.record_exponent > most / 2
        before, self._suspect = self._suspect, surely and seen.replies >= ENOUGH
        if before and self._suspect:
            self.warning = _text(seen, "no delays at all" if limit is None else f"{limit} only", trace, self._constants())
            warnings.warn(self.warning, TheoryWarning, stacklevel=_callers_level())

    def _constants(self) -> str:
        """The arguments of `steps_for` after the growth; by name alone where nobody has said their value."""
        known = dict(self.known)
        if math.isfinite(self._horizon):
            known.setdefault("horizon", self._horizon)
        if "lipschitz" not in known:
            return ", ".join(["lipschitz", "noise=noise", *(f"{name}={value:g}" for name, value in known.items())])
        return ", ".join(f"{name}={value:.0f}" if name == "horizon" else f"{name}={value:.3g}" for name, value in known.items())


def _callers_level() -> int:
    """The `stacklevel` of whoever called this package, from the function that calls this one."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


def _text(seen: Growth, proven: str, trace: Trace, constants: str) -> str:
    whose = "" if seen.client is None else f" (that of client {seen.client})"
    mean = usual_staleness(trace)
    few = "" if mean is None else f", staleness={mean:.2g}"
    return (
        f"staleness grows like n^{seen.exponent:.2f}{whose}, and the steps are proven for {proven} (Assumption 3): the last"
        f" iterate may stall or wander. For such delays take {fitting_sequence(seen.exponent, seen.error)};"
        f" tardigrad.steps_for(result.trace.growth(), {constants}{few}) proposes one with its scale and offset,"
        " and tardigrad.minimize(..., steps=result.trace) does so by itself"
    )


def usual_staleness(trace: Trace) -> float | None:
    """The mean staleness, where late replies are few: with K tasks in flight it is below K and does not grow; else None."""
    mean = float(trace.staleness.mean()) if len(trace) else 0.0
    return mean if mean < trace["in_flight"].max(initial=1) else None
