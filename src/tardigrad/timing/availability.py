"""Clients that come and go: a job goes on only while its client is on.

A volunteer's machine is switched off at night, a process is stopped for a more important one (SIGSTOP, SIGCONT): what it was
at waits, and goes on where it was left. So a job takes the seconds of work that `base` says, and the off times between them.

`OnOff` draws on and off stretches from timings, without end; recorded ones are in `recorded_availability`. Rules of this file:

- the stretches of a client are a pure function of (seed, client), or of the recording: who asks when does not matter;
- they are laid out as far as somebody has asked, and kept; a job is then found by bisection;
- where a client is on all along, durations are those of `base`, bit for bit.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Domain, Stream, check_seed
from tardigrad.core.task import Array
from tardigrad.core.timing import Timing, check_timing
from tardigrad.core.validate import integer, number
from tardigrad.timing.models import ONE_SECOND
from tardigrad.timing.scaled import SECONDS

#: cycles of on and off whose random numbers are drawn at a time
BLOCK = 64
#: so many cycles without a moment on, and a client will never come
PATIENCE = 1000
#: clients are below; each has so many blocks of random numbers
MOST_CLIENTS = 2**32


class _Stretches:
    """The on stretches of a client, in order of time, as far as they were needed."""

    def __init__(self, source: Callable[[], Iterator[tuple[float, float]]], lock: threading.Lock) -> None:
        self._source, self._more, self._lock = source, source(), lock
        self.begins: list[float] = []
        self.ends: list[float] = []
        self.done: list[float] = []  # seconds on until the end of each

    def seconds(self, start: float, work: float) -> float:
        """How long so many seconds of work take from `start` on."""
        self.reach(self.ends, start)
        k = bisect_left(self.ends, start)
        begin, end = self.begins[k], self.ends[k]
        if start >= begin and start + work <= end:
            return work
        if not work:
            return 0.0
        done = self.done[k] - (end - max(start, begin)) + work
        self.reach(self.done, done)
        j = bisect_left(self.done, done, k)
        return max(work, self.ends[j] - (self.done[j] - done) - start)

    def reach(self, numbers: list[float], value: float) -> None:
        """Go on until the last of `numbers`, which are ends or seconds on, is at least `value`."""
        if numbers and numbers[-1] >= value:
            return
        with self._lock:
            while not numbers or numbers[-1] < value:
                try:
                    begin, length = next(self._more)
                except Exception:  # a generator that raised is over: whoever asks again is to be told the same
                    self._more = islice(self._source(), len(self.begins), None)
                    raise
                done = (self.done[-1] if self.done else 0.0) + length  # so late that begin + length is begin, it counts too
                # readers in other threads bisect ends or seconds on: what they look up then must be there first
                self.begins.append(begin)
                self.ends.append(begin + length)
                self.done.append(done)

    def until(self, seconds: float) -> Array:
        """The stretches that begin before then, cut off there."""
        self.reach(self.ends, seconds)
        last = bisect_left(self.begins, seconds)
        return np.column_stack([self.begins[:last], np.minimum(self.ends[:last], seconds)])


class Availability(Timing):
    """Base of timings whose clients are on and off: `duration` says when the work of `base` is done."""

    base: Timing

    def __init__(self, base: Timing) -> None:
        self.base = check_timing(base, f"{type(self).__name__}.base")
        object.__setattr__(self, "random", base.random)  # the number of a task is for its work, stretches have their own
        self._lock = threading.Lock()
        self._of: dict[int, _Stretches] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.fields())  # what was laid out is laid out anew

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.fields().items())})"

    @abstractmethod
    def _stretches(self, client: int) -> Iterator[tuple[float, float]]:
        """Beginnings and lengths of a client's on stretches, in order, without end."""

    def _line(self, client: int) -> _Stretches:
        line = self._of.get(client)
        if line is None:
            line = self._of.setdefault(client, _Stretches(partial(self._stretches, client), self._lock))
        return line

    def duration(self, client: int, start: float, u: float) -> float:
        return self._line(client).seconds(start, self.base.duration(client, start, u))

    def check(self, n_clients: int) -> None:
        self.base.check(n_clients)

    def stretches(self, client: int, seconds: float) -> Array:
        """When a client is on before `seconds`.

        Parameters
        ----------
        client : int
            The client.
        seconds : float
            A time ``> 0``.

        Returns
        -------
        array (k, 2)
            Beginning and end of each stretch, in seconds; the last may be cut off.
        """
        seconds = number(seconds, "stretches, seconds,", above=0, what=SECONDS)
        return self._line(integer(client, "client", low=0, high=MOST_CLIENTS - 1)).until(seconds)

    def shares(self, n_clients: int, seconds: float) -> Array:
        """The share of the first `seconds` in which each client is on.

        Parameters
        ----------
        n_clients : int
            How many clients.
        seconds : float
            A time ``> 0``.

        Returns
        -------
        array (n_clients,)
            Numbers in [0, 1].
        """
        self.check(integer(n_clients, "n_clients"))
        return np.array([np.diff(self.stretches(client, seconds)).sum() for client in range(n_clients)]) / seconds


class OnOff(Availability):
    """On and off stretches in turn, with random lengths: the volunteer grid.

    Parameters
    ----------
    on, off : Timing
        Lengths of stretches, in seconds: any timing is one, asked with the client and the time at which the stretch begins.
        A heavy tail of `off` makes records of staleness, one that grows with the time makes it grow.
    base : Timing
        Seconds of work of a job.
    seed : int
        Of the stretches. They are not the run's: another seed of the run sees the same machines.

    Raises
    ------
    InvalidInputError
        For a parameter that is not as described; during a run, where a length is negative or not finite, or where 1000
        on stretches in a row have no length.

    Notes
    -----
    At time 0 an on stretch of every client begins. Each client has random numbers of its own, two for an on and an off
    stretch, so its stretches depend on the seed and on nothing else. Laying out costs about a microsecond a stretch, up to
    the latest time asked for; then a duration costs two bisections.

    Examples
    --------
    A volunteer works for an hour and is gone for two; of a job of 90 minutes that begins with the run, a third waits:

    >>> from tardigrad import Constant
    >>> timing = OnOff(on=Constant(3600), off=Constant(7200), base=Constant(5400))
    >>> timing.duration(client=0, start=0.0, u=0.5) / 3600
    3.5
    >>> timing.stretches(client=0, seconds=20_000).tolist()
    [[0.0, 3600.0], [10800.0, 14400.0]]
    """

    def __init__(self, on: Timing, off: Timing, base: Timing = ONE_SECOND, seed: int = 0) -> None:
        super().__init__(base)
        for name, value in (("on", on), ("off", off)):
            check_timing(value, f"OnOff.{name}", "Exponential(3600.0)")
        self.on, self.off, self.seed = on, off, check_seed(seed)

    def fields(self) -> dict[str, Any]:
        return {"on": self.on, "off": self.off, "base": self.base, "seed": self.seed}

    def check(self, n_clients: int) -> None:
        for timing in (self.on, self.off, self.base):
            timing.check(n_clients)

    def _stretches(self, client: int) -> Iterator[tuple[float, float]]:
        now, empty = 0.0, 0
        uniforms = self._uniforms(client)
        while True:
            length = self._length("on", self.on, client, now, next(uniforms))
            empty = 0 if length else empty + 1
            if empty > PATIENCE:
                raise InvalidInputError(
                    f"OnOff.on, {self.on!r}, gave client {client} {PATIENCE} stretches of 0 seconds: its jobs would never end"
                )
            yield now, length
            now += length
            now += self._length("off", self.off, client, now, next(uniforms))

    def _uniforms(self, client: int) -> Iterator[float]:
        stream = Stream(self.seed, Domain.AVAILABILITY)
        for block in count():
            yield from stream.at(client * MOST_CLIENTS + block).random(2 * BLOCK).tolist()

    @staticmethod
    def _length(name: str, timing: Timing, client: int, start: float, u: float) -> float:
        length = timing.duration(client, start, u)
        if not 0 <= length < math.inf:
            wanted = "must be a finite number of seconds >= 0"
            raise InvalidInputError(f"OnOff.{name}: a stretch of client {client} {wanted}, not {length!r}; it is {timing!r}'s")
        return length


def _rebuild(kind: type[Availability], fields: dict[str, Any]) -> Availability:
    return kind(**fields)
