"""Whether a run that was made again from its run file is the same in every bit.

Rules of this file:

- what is no difference of the method is told apart from one: other versions, another end, workers whose times are real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.plain import same_bits
from tardigrad.core.result import Result
from tardigrad.core.run_files import other_versions
from tardigrad.core.stopping import Status
from tardigrad.engines.real import RealEngine
from tardigrad.engines.replay import first_difference


@dataclass(frozen=True)
class Compared:
    """What came of the comparison.

    Attributes
    ----------
    identical : bool or None
        Whether every bit is the same; None where the runs cannot be compared.
    message : str
        The same for people.
    as_expected : bool
        False where two runs should have been the same and are not.
    """

    identical: bool | None
    message: str
    as_expected: bool = True


def compare(earlier: Result, again: Result, name: str) -> Compared:
    """Compare a run with an earlier one of the same run file, which is called `name`."""
    if again.status is Status.INTERRUPTED:
        return Compared(None, f"not compared with {name}: it was interrupted")
    if earlier.status in (Status.UNFINISHED, Status.INTERRUPTED):
        return Compared(None, f"not compared with {name}: that run did not come to its end; tardigrad resume {name} goes on")
    if not same_bits(earlier.stop, again.stop):
        return Compared(None, f"not compared with {name}: that run was resumed to another end")
    difference = _difference(earlier, again)
    if not difference:
        return Compared(True, f"every bit is the same as in {name}")
    if isinstance(again.engine, RealEngine):
        kind = type(again.engine).__name__
        return Compared(
            False, f"the times of {kind} are those of real workers, and differ from {name}: {_measures(earlier, again)}"
        )
    other = other_versions(earlier.made_with)
    because = f" ({name} was made with {'; '.join(other)}: bits may differ)" if other else ""
    return Compared(False, f"it differs from {name}: {difference}{because}", as_expected=bool(other))


def _difference(earlier: Result, again: Result) -> str:
    if len(earlier.trace) != len(again.trace):
        return f"{len(again.trace)} replies instead of {len(earlier.trace)}"
    return first_difference(earlier, again) or ("" if same_bits(earlier.x, again.x) else "x differs")


def _measures(earlier: Result, again: Result) -> str:
    """How far the answers are apart, in the problem's measures, or in x where it has none."""
    assert again.problem is not None
    then, now = (again.problem.measures(result.x) for result in (earlier, again))
    apart = float(np.linalg.norm(again.x - earlier.x) / (np.linalg.norm(earlier.x) or 1.0))
    found = [f"{name} {as_text(now[name])}, there {as_text(then[name])}" for name in now]
    return "; ".join(found) or f"x is {100 * apart:.3g} % off"


def as_text(value: Any) -> str:
    """A measure for people; of replicas, or of the values of a sweep, the range."""
    numbers = np.asarray(value, float).ravel()
    if numbers.size == 1:
        return f"{numbers[0]:.6g}"
    known = numbers[np.isfinite(numbers)]
    low, high = (known.min(), known.max()) if known.size else (np.nan, np.nan)
    return f"{low:.6g} to {high:.6g} in {numbers.size} trajectories"
