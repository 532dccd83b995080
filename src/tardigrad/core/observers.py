"""Observers look at a run while it goes on: progress, snapshots of the iterates; `json_lines` has one that writes.

Rules of this file:

- an observer is called after every `every` updates, never for each reply unless it asks for that, or now and then by the
  clock on the wall;
- it must not change what it sees; what it keeps of ``x`` and of the state, it copies. It may end the run;
- progress goes to standard error only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import State
from tardigrad.core.stopping import Limits, Status
from tardigrad.core.task import Array


@dataclass(slots=True)
class Moment:
    """What an observer is shown.

    Attributes
    ----------
    version, replies : int
        Updates applied, and replies that they were made of.
    seconds : float
        The engine's time.
    x : array (..., dim)
        The live iterate; of a replica that diverged its last finite one.
    diverged : array of bool (...)
        Replicas that diverged.
    state : State
        The rule's live state.
    rows : callable
        ``rows(begin, end)`` is a copy of these rows of the trace, with the fields of `tardigrad.core.trace.COLUMNS`. A
        lock-free run has none.
    """

    version: int
    replies: int
    seconds: float
    x: Array
    diverged: Array
    state: State
    rows: Callable[[int, int], Array]


class Observer:
    """Base class of observers; every method may be overridden.

    Attributes
    ----------
    every : int
        Updates between two calls of `observe`.
    every_seconds : float or None
        Seconds on the wall clock after which it is called at the latest; None: only updates count. Each call makes the
        workers of a lock-free run meet.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> class Largest(td.Observer):
    ...     every = 25
    ...     def observe(self, moment):
    ...         if np.abs(moment.x).max() > 0.9:
    ...             return f"an entry is above 0.9 after {moment.version} updates"
    >>> problem = td.LeastSquares((np.eye(2), np.ones(2)), td.Iid(2))
    >>> engine = td.Simulated(td.Constant(1.0))
    >>> td.run(td.AsyncSGD(0.1), problem, engine, stop=td.MaxUpdates(500), observers=Largest()).message
    'an entry is above 0.9 after 50 updates'
    """

    every: int = 1
    every_seconds: float | None = None

    def set_up(self, parts: Mapping[str, Any]) -> None:
        """Called before `open` with what the run is made with, by the names that a `Result` has: rule, engine, seed, ..."""

    def open(self, problem: Problem, stop: Limits) -> None:
        """Called before the first task."""

    def observe(self, moment: Moment) -> str | None:
        """Called every so many updates; a text that it returns ends the run, as its message."""

    def close(self, status: Status | None, message: str) -> None:
        """Called once at the end; the status is None where the run ends with an exception."""


class History(Observer):
    """Snapshots of the iterates: columns ``version``, ``replies``, ``seconds`` and ``x``.

    The first row is the start, the last the end of the run. Measures are evaluated afterwards
    (`evaluate`), not while workers wait.

    Parameters
    ----------
    every : int or None
        Updates between snapshots; None for the first and the last only.

    Attributes
    ----------
    measures : dict of arrays
        What `evaluate` found.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> args = (td.AsyncSGD(step=0.2), problem, td.Simulated(td.Constant(1.0)))
    >>> history = td.run(*args, stop=td.MaxUpdates(40), snapshot_every=20).history
    >>> history.version.tolist(), history.x.shape, history.evaluate(problem, "loss")["loss"].shape
    ([0, 20, 40], (3, 4), (3,))
    """

    def __init__(self, every: int | None = None) -> None:
        self.every = sys.maxsize if every is None else every
        self.measures: dict[str, Array] = {}
        self._rows: list[tuple[int, int, float]] = []
        self._x: list[Array] = []

    def observe(self, moment: Moment) -> None:
        row = (moment.version, moment.replies, moment.seconds)
        if self._rows and self._rows[-1][:2] == row[:2]:
            return
        self._rows.append(row)
        self._x.append(moment.x.copy())

    @classmethod
    def from_columns(cls, stretches: Sequence[Mapping[str, Array]], measures: Mapping[str, Array]) -> History:
        """A history read back from a file."""
        history = cls()
        for columns in stretches:
            history._rows += zip(*(columns[name].tolist() for name in ("version", "replies", "seconds")), strict=True)
            history._x += list(columns["x"])
        history.measures = dict(measures)
        return history

    def copy(self) -> History:
        """One with lists of its own; the snapshots themselves are never changed."""
        history = History(self.every)
        history.measures, history._rows, history._x = dict(self.measures), list(self._rows), list(self._x)
        return history

    def columns(self, begin: int, end: int) -> dict[str, Array]:
        """Some of the snapshots, as they are written to a file."""
        version, replies, seconds = zip(*self._rows[begin:end], strict=True)
        counts = {"version": np.array(version, np.int64), "replies": np.array(replies, np.int64)}
        return {**counts, "seconds": np.array(seconds), "x": np.stack(self._x[begin:end])}

    def go_on(self, every: int | None) -> float:
        """Get ready for more: drop a last snapshot that was taken out of turn; the version at which the next is due."""
        self.every = sys.maxsize if every is None else every
        self.measures = {}
        due = 0
        for i, (version, _, _) in enumerate(self._rows):
            if version < due:
                del self._rows[i:], self._x[i:]
                break
            due = version + self.every
        return due

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def version(self) -> Array:
        """Version of each snapshot."""
        return np.array([row[0] for row in self._rows], np.int64)

    @property
    def replies(self) -> Array:
        """Replies received up to each snapshot."""
        return np.array([row[1] for row in self._rows], np.int64)

    @property
    def seconds(self) -> Array:
        """Engine's time of each snapshot."""
        return np.array([row[2] for row in self._rows], float)

    @property
    def x(self) -> Array:
        """The snapshots, (n, ..., dim)."""
        return np.stack(self._x)

    def evaluate(self, problem: Problem, names: Collection[str] | None = None) -> dict[str, Array]:
        """The problem's measures (or those named) at every snapshot, kept in ``measures``, each of shape (n, ...)."""
        names = (names,) if isinstance(names, str) else names
        values = [problem.measures(x, names) for x in self._x]
        missing = set(names or ()).difference(*values[:1])
        if missing:
            raise InvalidInputError(
                f"the problem has no measure {min(missing)!r}; it has {', '.join(problem.measures(self._x[0]))}"
            )
        self.measures = {name: np.array([value[name] for value in values]) for name in values[0]} if values else {}
        return self.measures


class Progress(Observer):
    """A progress bar on standard error: updates, updates a second, the time. It is redrawn twice a second.

    Parameters
    ----------
    label : str
        Text before the bar.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> args = (td.AsyncSGD(step=0.2), problem, td.Simulated(td.Exponential(1.0)))
    >>> td.run(*args, stop=td.MaxUpdates(500), observers=td.Progress("first try")).status.value
    'max_updates'
    """

    every = sys.maxsize
    every_seconds: float | None = 0.5

    def __init__(self, label: str = "run") -> None:
        self.label = label
        self._bar: Any = None
        self._limits: Limits | None = None
        self._last: Moment | None = None
        self._first = 0

    def open(self, problem: Problem, stop: Limits) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._limits, self._last = stop, None
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn()
        self._bar = Progress(*columns, console=Console(stderr=True))
        total = stop.updates if np.isfinite(stop.updates) else stop.seconds if np.isfinite(stop.seconds) else None
        self._bar.add_task(self.label, total=total, text=self.text(0, stop.updates, 0.0))
        self._bar.start()
        self._started = time.perf_counter()

    def text(self, version: int, most: float, seconds: float, first: int = 0) -> str:
        """What stands behind the bar after so many updates, of at most so many, and seconds of this bar.

        It began after `first` updates: a run that goes on has made those before.
        """
        of = f"/{most:.0f}" if np.isfinite(most) else ""
        return f"{version}{of} updates {(version - first) / max(seconds, 1e-9):.0f} updates/s"

    def observe(self, moment: Moment) -> str | None:
        if self._last is None:
            self._first = moment.version
        self._last = moment
        self._draw()
        return None

    def close(self, status: Status | None, message: str) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.stop()
            self._bar = None

    def _draw(self) -> None:
        moment = self._last
        if self._bar is None or moment is None or self._limits is None:
            return
        done = moment.version if np.isfinite(self._limits.updates) else moment.seconds
        text = self.text(moment.version, self._limits.updates, time.perf_counter() - self._started, self._first)
        self._bar.update(0, completed=done, text=text)
