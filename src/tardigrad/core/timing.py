"""A model of durations: how long a client's job takes.

Rules of this file:

- one uniform number a task, keyed by (seed, task id), is all the randomness of a timing: for simple
  distributions it is the quantile function;
- a duration is drawn when the job starts (clients queue);
- times are seconds; staleness is an outcome of a timing, never an input.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain


class Timing(Plain):
    """Base class of duration models.

    Attributes
    ----------
    random : bool
        Whether durations depend on `u`; where not, none is drawn.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Uniform(Timing):
    ...     longest: float
    ...     def duration(self, client, start, u):
    ...         return u * self.longest
    >>> Uniform(4.0).duration(client=0, start=0.0, u=0.25)
    1.0
    """

    random: ClassVar[bool] = True

    @abstractmethod
    def duration(self, client: int, start: float, u: float) -> float:
        """Seconds that a job of `client` takes when it starts at `start`; `u` is uniform in [0, 1)."""

    def check(self, n_clients: int) -> None:
        """Raise `InvalidInputError` if the model does not describe so many clients."""


def check_duration(seconds: float, timing: Timing, client: int) -> float:
    """Seconds, as a timing gave them: a number >= 0. Written so that NaN, which would disorder a virtual clock, fails too."""
    if not seconds >= 0:
        raise InvalidInputError(
            f"{type(timing).__name__}.duration must return seconds >= 0, not {seconds!r}, which it gave for client {client}"
        )
    return seconds


def check_timing(value: object, name: str, such_as: str = "Constant(1.0)") -> Timing:
    """A timing."""
    if not isinstance(value, Timing):
        raise InvalidInputError(f"{name} must be a timing such as {such_as}, not {value!r}")
    return value
