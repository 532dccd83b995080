"""Models of how long a client's job takes, in seconds.

- `Constant`, `PerClient`: no randomness;
- `Exponential`, `Pareto`, `LogNormal`: light to heavy tails;
- `RandomStragglers`: any model, sometimes delayed;
- `FromTrace`: durations measured in a run.

Rules of this file:

- every model turns one uniform number into a duration (see `tardigrad.core.timing`): the same task takes the same time in a
  simulation and where the time is injected into real workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.timing import Timing, check_timing
from tardigrad.core.trace import Trace
from tardigrad.core.validate import integer, number
from tardigrad.timing.scaled import SECONDS, Scaled, durations

_NORMAL = NormalDist()
_LARGEST = 1 - 2.0**-53  # below 1, where quantiles are infinite
_SMALLEST = 2.0**-54  # below every uniform number but 0, where a normal quantile is infinite


@dataclass(frozen=True)
class Constant(Timing):
    """Every job takes `seconds`.

    Parameters
    ----------
    seconds : float
        ``> 0``.

    Examples
    --------
    >>> Constant(2.0).duration(client=0, start=0.0, u=0.5)
    2.0
    """

    random = False

    seconds: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", number(self.seconds, "Constant", above=0, what=SECONDS))

    def duration(self, client: int, start: float, u: float) -> float:
        return self.seconds


#: what a job takes where it is not said
ONE_SECOND = Constant(1.0)


@dataclass(frozen=True)
class PerClient(Timing):
    """Jobs of client i take ``seconds[i]``.

    Parameters
    ----------
    seconds : sequence of float
        One duration a client.

    Examples
    --------
    >>> PerClient.linear(n_clients=4, slowest=10.0).seconds
    (2.5, 5.0, 7.5, 10.0)
    """

    random = False

    seconds: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", durations(self.seconds, "PerClient"))

    @classmethod
    def linear(cls, n_clients: int, slowest: float) -> PerClient:
        """Client i = 1..n takes ``i * slowest / n`` seconds: the timing of the AsyncBC paper's experiments (section 5)."""
        n_clients = integer(n_clients, "n_clients")
        slowest = number(slowest, "PerClient.linear, slowest,", above=0, what=SECONDS)
        return cls([(i + 1) * slowest / n_clients for i in range(n_clients)])

    def duration(self, client: int, start: float, u: float) -> float:
        return self.seconds[client]

    def check(self, n_clients: int) -> None:
        if len(self.seconds) != n_clients:
            raise InvalidInputError(f"PerClient has {len(self.seconds)} durations for {n_clients} clients: give one for each")


@dataclass(frozen=True)
class Exponential(Scaled):
    """Exponential durations, ``P(T > t) = exp(-t / mean)``: without memory, a little uneven.

    Parameters
    ----------
    mean : float or sequence of float
        Mean, in seconds, ``> 0``; a sequence has one for each client.

    Examples
    --------
    >>> timing = Exponential(mean=[1.0, 10.0])
    >>> [round(timing.duration(client, start=0.0, u=0.5), 2) for client in (0, 1)]  # the medians
    [0.69, 6.93]
    """

    mean: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        self._check_mean()

    def duration(self, client: int, start: float, u: float) -> float:
        return -self._mean_of(client) * math.log1p(-u)


@dataclass(frozen=True)
class Pareto(Scaled):
    """Pareto durations, ``P(T > t) = (t_0 / t)^tail``: stragglers of every size.

    Parameters
    ----------
    mean : float or sequence of float
        Mean, in seconds, ``t_0 tail / (tail - 1)``; a sequence has one for each client.
    tail : float
        The exponent, ``> 1``; the variance is infinite up to 2.

    Examples
    --------
    >>> timing = Pareto(mean=1.0, tail=1.5)
    >>> [round(timing.duration(client=0, start=0.0, u=u), 2) for u in (0.0, 0.5, 0.999)]
    [0.33, 0.53, 33.33]
    """

    mean: float | Sequence[float] = 1.0
    tail: float = 1.5

    def __post_init__(self) -> None:
        self._check_mean()
        object.__setattr__(
            self, "tail", number(self.tail, "Pareto.tail", above=1, what="a finite number (up to 1 the mean is infinite)")
        )

    def duration(self, client: int, start: float, u: float) -> float:
        return self._mean_of(client) * (self.tail - 1) / self.tail * (1 - u) ** (-1 / self.tail)


@dataclass(frozen=True)
class LogNormal(Scaled):
    """Log-normal durations, ``exp(mu + sigma Z)`` with Z standard normal and ``mu = log(mean) - sigma^2 / 2``.

    Parameters
    ----------
    mean : float or sequence of float
        Mean, in seconds, ``> 0``; a sequence has one for each client.
    sigma : float
        Standard deviation of the logarithm, ``> 0``: with 1 the mean is 1.6 times the median.

    Examples
    --------
    >>> timing = LogNormal(mean=1.0, sigma=1.0)
    >>> [round(timing.duration(client=0, start=0.0, u=u), 2) for u in (0.5, 0.999)]
    [0.61, 13.33]
    """

    mean: float | Sequence[float] = 1.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        self._check_mean()
        object.__setattr__(self, "sigma", number(self.sigma, "LogNormal.sigma", above=0))

    def duration(self, client: int, start: float, u: float) -> float:
        z = _NORMAL.inv_cdf(max(u, _SMALLEST))
        return self._mean_of(client) * math.exp(self.sigma * z - self.sigma**2 / 2)


@dataclass(frozen=True)
class RandomStragglers(Timing):
    """With probability `p` a job takes `delay` seconds more than under `base`.

    Parameters
    ----------
    p : float
        Probability, in [0, 1].
    delay : float
        Seconds added, ``>= 0``.
    base : Timing
        Durations without the delay.

    Examples
    --------
    >>> timing = RandomStragglers(p=0.1, delay=5.0)
    >>> [timing.duration(client=0, start=0.0, u=u) for u in (0.05, 0.5)]
    [6.0, 1.0]
    """

    p: float
    delay: float
    base: Timing = ONE_SECOND

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", number(self.p, "RandomStragglers.p", low=0, high=1, what="a probability"))
        object.__setattr__(self, "delay", number(self.delay, "RandomStragglers.delay", low=0, what=SECONDS))
        check_timing(self.base, "RandomStragglers.base")

    def duration(self, client: int, start: float, u: float) -> float:
        # given that u < p, u / p is uniform again: one number serves both draws
        if u < self.p:
            return self.base.duration(client, start, u / self.p) + self.delay
        return self.base.duration(client, start, min((u - self.p) / (1 - self.p), _LARGEST))

    def check(self, n_clients: int) -> None:
        self.base.check(n_clients)


Measure = Literal["occupancy", "computation"]


class FromTrace(Timing):
    """Durations drawn from those that each client showed in a recorded run.

    Parameters
    ----------
    trace : Trace or array (n_replies, 2)
        A trace, or rows of client and seconds. A client that never answered takes its durations from all clients'.
    measure : {"occupancy", "computation"}
        Which seconds of a trace. "occupancy" is how long a job kept its worker from the next one: computation, transport
        and the server's own time; with it `Simulated` with as many workers predicts the run's updates a second.
        "computation" is what the worker needed alone: to inject into real workers, which add the rest themselves.
        Of no effect on rows.

    Notes
    -----
    A prediction for more workers than were measured leaves out that they queue for the server: jobs of one worker
    hold the server's time, but simulated servers answer all workers at once.

    Examples
    --------
    >>> timing = FromTrace([[0, 1.0], [0, 3.0], [1, 2.0]])
    >>> [timing.duration(0, 0.0, u) for u in (0.2, 0.9)]
    [1.0, 3.0]
    """

    def __init__(self, trace: Trace | Array, measure: Measure = "occupancy") -> None:
        if measure not in get_args(Measure):
            raise InvalidInputError(f"FromTrace.measure must be one of {', '.join(get_args(Measure))}, not {measure!r}")
        if isinstance(trace, Trace):
            seconds = trace.occupancy() if measure == "occupancy" else trace["finished"] - trace["started"]
            trace = np.column_stack([trace["client"], seconds])
        try:
            rows = np.asarray(trace, float)
        except (TypeError, ValueError):
            raise InvalidInputError(f"FromTrace needs a trace (such as result.trace) or an array, not {trace!r}") from None
        if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows) or not (np.isfinite(rows).all() and (rows >= 0).all()):
            raise InvalidInputError(f"FromTrace needs rows of client and seconds >= 0, at least one, not shape {rows.shape}")
        if (rows[:, 0] % 1).any():
            raise InvalidInputError("FromTrace needs rows of client and seconds >= 0: clients are integers")
        if not rows[:, 1].any():
            raise InvalidInputError("FromTrace has only durations of 0 seconds: with them time would stand still")
        order = np.lexsort((rows[:, 1], rows[:, 0]))
        self.rows = rows[order]
        clients, first = np.unique(self.rows[:, 0], return_index=True)
        parts = np.split(self.rows[:, 1], first[1:])
        self._seconds = {int(client): part.tolist() for client, part in zip(clients, parts, strict=True)}
        self._all = np.sort(self.rows[:, 1]).tolist()

    def fields(self) -> dict[str, Array]:
        return {"trace": self.rows}

    def __repr__(self) -> str:
        return f"FromTrace(<{len(self.rows)} durations of {len(self._seconds)} clients>)"

    def duration(self, client: int, start: float, u: float) -> float:
        seconds = self._seconds.get(client, self._all)
        return seconds[min(int(u * len(seconds)), len(seconds) - 1)]
