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

from tardigrad.core.plain import Plain


class Timing(Plain):
    """Base class of duration models.

    Attributes
    ----------
    random : bool
        Whether durations depend on `u`; where not, none is drawn.
    """

    random: ClassVar[bool] = True

    @abstractmethod
    def duration(self, client: int, start: float, u: float) -> float:
        """Seconds that a job of `client` takes when it starts at `start`; `u` is uniform in [0, 1)."""

    def check(self, n_clients: int) -> None:
        """Raise if the model does not describe so many clients."""
