"""When a run ends: conditions joined with ``|``; the first that holds ends it.

Rules of this file:

- a condition is plain data; the loop asks for its limits once, then compares numbers;
- `Tolerance` evaluates measures of the problem during the run: on real engines that delays the server
  (the result says how long), so choose `every` with care.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.validate import integer, number


class Status(StrEnum):
    """Why a run ended: ``result.status``, a string such as "max_updates".

    Attributes
    ----------
    MAX_UPDATES, MAX_SECONDS, MAX_ORACLE_CALLS
        A limit was reached.
    CONVERGED
        A `Tolerance` was met.
    DIVERGED
        A payload or the iterate was not finite; the result is the last finite one.
    INTERRUPTED
        Ctrl-C; the run can be saved and resumed.
    STALLED
        No task was in flight and the rule issued none.
    ENDED
        The engine could bring no more replies, such as at the end of a recorded trace.
    STOPPED
        An observer ended it, with its own message.
    INCONSISTENT, PRECISION, MAX_PASSES
        Of `linsolve`: no x solves the system; the number format allows no better; the limit of passes over the matrix.
    UNFINISHED
        Of a checkpoint: the run went on, or was cut off.

    Examples
    --------
    >>> Status.CONVERGED == "converged", Status.CONVERGED.value
    (True, 'converged')
    """

    MAX_UPDATES = "max_updates"
    MAX_SECONDS = "max_seconds"
    MAX_ORACLE_CALLS = "max_oracle_calls"
    CONVERGED = "converged"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    STALLED = "stalled"
    ENDED = "ended"
    STOPPED = "stopped"
    INCONSISTENT = "inconsistent"
    PRECISION = "precision"
    MAX_PASSES = "max_passes"
    UNFINISHED = "unfinished"


class Stop(Plain):
    """Base class of stopping conditions: limits, `Tolerance`, or several of them joined with ``|``: the first that holds.

    Examples
    --------
    >>> stop = MaxUpdates(10_000) | MaxSeconds(60)
    >>> [part for part in stop.parts()]
    [MaxUpdates(n=10000), MaxSeconds(seconds=60.0)]
    """

    def __or__(self, other: Stop) -> AnyOf:
        if not isinstance(other, Stop):
            return NotImplemented
        return AnyOf((*self.parts(), *other.parts()))

    def parts(self) -> Iterator[Stop]:
        """The simple conditions that this one is made of."""
        yield self


@dataclass(frozen=True)
class MaxUpdates(Stop):
    """End after `n` updates of the server.

    Parameters
    ----------
    n : int
        ``>= 1``. A rule that collects replies makes an update of several.

    Examples
    --------
    >>> MaxUpdates(1000)
    MaxUpdates(n=1000)
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", integer(self.n, "MaxUpdates"))


@dataclass(frozen=True)
class MaxSeconds(Stop):
    """End after so many seconds of the engine's clock (virtual seconds on a virtual clock).

    Parameters
    ----------
    seconds : float
        ``> 0``. A reply that comes later is not applied.

    Examples
    --------
    >>> MaxSeconds(0.5)
    MaxSeconds(seconds=0.5)
    """

    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", number(self.seconds, "MaxSeconds", above=0))


@dataclass(frozen=True)
class MaxOracleCalls(Stop):
    """End after the replies to `n` oracle calls, as counted by ``rule.oracle_calls``.

    Parameters
    ----------
    n : int
        ``>= 1``. A method that asks for two gradients a task counts two.

    Examples
    --------
    >>> MaxOracleCalls(1000)
    MaxOracleCalls(n=1000)
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", integer(self.n, "MaxOracleCalls"))


@dataclass(frozen=True)
class Tolerance(Stop):
    """End when a measure of the problem is small (or large) enough, looked at every so many updates.

    Parameters
    ----------
    measure : str
        A name among those of ``problem.measures(x)``.
    at_most, at_least : float, optional
        Exactly one of the two bounds. In a batched run every replica must meet it.
    every : int
        Updates between two looks.

    Examples
    --------
    >>> stop = MaxUpdates(10_000) | Tolerance("loss", at_most=0.5)
    """

    measure: str
    at_most: float | None = None
    at_least: float | None = None
    every: int = 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", integer(self.every, "Tolerance.every"))
        if (self.at_most is None) == (self.at_least is None):
            raise InvalidInputError(f"Tolerance({self.measure!r}) needs one of at_most and at_least, not both or none")
        for name in ("at_most", "at_least"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, number(getattr(self, name), f"Tolerance.{name}"))


@dataclass(frozen=True)
class AnyOf(Stop):
    """End when the first of several conditions holds; ``a | b`` makes one."""

    conditions: tuple[Stop, ...]

    def parts(self) -> Iterator[Stop]:
        yield from self.conditions


@dataclass(frozen=True, slots=True)
class Limits:
    """The smallest limit of each kind; infinite where there is none."""

    updates: float
    seconds: float
    oracle_calls: float
    tolerances: tuple[Tolerance, ...]


def limits(stop: Stop | None) -> Limits:
    """Collect a condition's limits; None never ends a run."""
    if not (stop is None or isinstance(stop, Stop)):
        raise InvalidInputError(f"stop must be a condition such as MaxUpdates(1000), not {stop!r}")
    parts = [] if stop is None else list(stop.parts())
    updates = [p.n for p in parts if isinstance(p, MaxUpdates)]
    seconds = [p.seconds for p in parts if isinstance(p, MaxSeconds)]
    calls = [p.n for p in parts if isinstance(p, MaxOracleCalls)]
    tolerances = tuple(p for p in parts if isinstance(p, Tolerance))
    if len(updates) + len(seconds) + len(calls) + len(tolerances) != len(parts):
        known = "MaxUpdates, MaxSeconds, MaxOracleCalls and Tolerance"
        raise InvalidInputError(f"stop must be made of {known}, joined with |, not {stop!r}")
    infinite = math.inf
    return Limits(min(updates, default=infinite), min(seconds, default=infinite), min(calls, default=infinite), tolerances)
