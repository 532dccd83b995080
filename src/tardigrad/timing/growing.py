"""Durations under which the largest staleness grows like a power of the number of updates.

Some clients take longer the later they start, the others do not: these give updates at a steady rate, and whoever is
slow meanwhile reads a version that lies further and further back.

Rules of this file:

- the exponent and the scale are those of the staleness, counted from the request, as in `tardigrad.core.growth` and in
  `PowerDelay`; the rate of updates translates versions into seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.timing import Timing, check_timing
from tardigrad.core.validate import integer, number
from tardigrad.timing.models import ONE_SECOND

#: seconds above which a power of the time is cut off, so that a virtual clock stays finite
LONGEST = 1e100


@dataclass(frozen=True)
class Growing(Timing):
    """Jobs of some clients take longer and longer, so that the largest staleness grows like ``scale * version ** exponent``.

    A job that such a client starts at time t takes ``scale * (rate * t) ** exponent / rate`` seconds, and never less than
    under `base`; everybody else's take as long as under `base`. While the others give `rate` updates a second, the job has
    read version ``v = rate * t``, and ``d = scale * v ** exponent`` updates are made until it is answered.

    Parameters
    ----------
    exponent : float
        The power q, ``> 0``: 1 for staleness O(n), more for polynomial growth.
    scale : float
        The factor, ``> 0``: with exponent 1 and scale 0.1 a job lasts as long as a tenth of all updates before it.
    rate : float
        Updates a second that all the other clients give together: four clients with ``Constant(1.0)`` give 4. At another
        rate r the exponent stays, and the scale becomes ``scale * (rate / r) ** (exponent - 1)``.
    clients : sequence of int
        Who slows down; at least one client must be left that does not.
    base : Timing
        Durations of the others, and the shortest ones of those who slow down.

    Raises
    ------
    InvalidInputError
        For a parameter that is not as described; where a run has too few clients, when it starts.

    Notes
    -----
    With K tasks in flight the mean of staleness is at most K - 1, whatever the durations: an update makes each of the K - 1
    other tasks one version older. So few replies can be late, and at an exponent above 1 very few: up to
    version n a client gives about ``n^(1-q) / ((1-q) scale)`` of them if q < 1, ``log(n) / scale`` if q = 1, a bounded number
    if q > 1. Staleness of order n, or n^q, for *every* update cannot come from durations: it exists in `Prescribed` alone.

    References
    ----------
    Zhou et al., "Distributed asynchronous optimization with unbounded delays: how slow can you go?", ICML 2018,
    Assumption 3: delays O(n) and O(n^q).

    Examples
    --------
    Of five clients the first slows down; the others give four updates a second. A job that starts at 100 s has read
    version 400, and is answered 40 versions later:

    >>> timing = Growing(exponent=1, scale=0.1, rate=4, clients=[0])
    >>> timing.duration(client=0, start=100.0, u=0.5), timing.duration(client=1, start=100.0, u=0.5)
    (10.0, 1.0)
    """

    exponent: float = 1.0
    scale: float = 0.1
    rate: float = 1.0
    clients: Sequence[int] = (0,)
    base: Timing = ONE_SECOND

    def __post_init__(self) -> None:
        for name in ("exponent", "scale", "rate"):
            object.__setattr__(self, name, number(getattr(self, name), f"Growing.{name}", above=0))
        check_timing(self.base, "Growing.base")
        try:
            given = list(self.clients)
        except TypeError:
            raise InvalidInputError(f"Growing.clients must be numbers of clients such as [0], not {self.clients!r}") from None
        clients = tuple(sorted({integer(client, "Growing.clients: each", low=0) for client in given}))
        if not clients:
            raise InvalidInputError("Growing.clients needs the clients that slow down, at least one, not an empty list")
        object.__setattr__(self, "clients", clients)
        object.__setattr__(self, "random", self.base.random)

    def duration(self, client: int, start: float, u: float) -> float:
        shortest = self.base.duration(client, start, u)
        if client not in self.clients:
            return shortest
        try:
            seconds = self.scale * (self.rate * start) ** self.exponent / self.rate
        except OverflowError:
            seconds = LONGEST
        return max(shortest, min(seconds, LONGEST))

    def check(self, n_clients: int) -> None:
        if self.clients[-1] >= n_clients:
            raise InvalidInputError(
                f"Growing slows client {self.clients[-1]}, but there are {n_clients} clients, numbered from 0: name others"
            )
        if len(self.clients) == n_clients:
            raise InvalidInputError(
                f"Growing slows all {n_clients} clients: staleness counts updates of others, so leave one at least as it is"
            )
        self.base.check(n_clients)
