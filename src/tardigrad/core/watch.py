"""Tells the loop when somebody wants to look: observers, tolerances, the limit of updates.

Rules of this file:

- the loop compares one number, `due`, with the version; everything else happens here, rarely;
- a checkpoint is taken last, when all who were due have looked: a resumed run goes on right behind it;
- observers see the last moment of a run exactly once, and are closed whatever happens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from numbers import Integral
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.stopping import Limits, Status, Tolerance
from tardigrad.core.validate import number

if TYPE_CHECKING:
    from tardigrad.core.checkpoint import Keeper
    from tardigrad.core.recorder import Recorder
    from tardigrad.core.result import Result

Verdict = tuple[Status, str]


class Watch:
    """The agenda of a run; a context manager that opens and closes the observers."""

    def __init__(self, observers: Sequence[Observer], bounds: Limits, problem: Problem) -> None:
        self._observers = list(observers)
        for observer in self._observers:
            if not isinstance(observer, Observer):
                raise InvalidInputError(f"observers must be Observer objects such as Progress(), not {observer!r}")
            if not isinstance(observer.every, Integral) or observer.every < 1:
                raise InvalidInputError(f"{type(observer).__name__}.every is an integer >= 1, not {observer.every!r}")
            if observer.every_seconds is not None:
                name = f"{type(observer).__name__}.every_seconds"
                number(observer.every_seconds, name, above=0, what="None or a number of seconds")
        self._bounds = bounds
        self._problem = problem
        self._due = [0.0] * len(self._observers)
        self._seen = [-1] * len(self._observers)
        self._tolerances_due = [0.0] * len(bounds.tolerances)
        self._opened: list[Observer] = []
        self._keeper: Keeper | None = None
        self._keeper_due = inf
        self._over = threading.Event()
        self.due = 0.0
        self.measure_seconds = 0.0

    def take_up(self, history: Observer, due: float, tolerances_due: Sequence[float]) -> None:
        """Go on with an earlier run's history, due next at a version, and the agenda of its tolerances."""
        self._observers[0], self._due[0] = history, due
        if len(tolerances_due) == len(self._tolerances_due):
            self._tolerances_due = list(tolerances_due)

    def keep(self, keeper: Keeper, save: Callable[[], tuple[Result, Recorder]]) -> None:
        """Let a keeper write checkpoints of what `save` gives."""
        self._keeper, self._save, self._keeper_due = keeper, save, 0.0
        if keeper.tick is not None:
            self._remind(keeper.tick, None)

    def _remind(self, tick: float, i: int | None) -> None:
        """Have the loop look at an observer, or at the keeper, every so many seconds, however slowly updates come."""

        def remind() -> None:
            while not self._over.wait(tick):
                if i is None:
                    self._keeper_due = 0.0
                else:
                    self._due[i] = 0.0
                self.due = 0.0  # a number that the loop reads anyway

        threading.Thread(target=remind, name="tardigrad reminder", daemon=True).start()

    @property
    def tolerances_due(self) -> list[float]:
        """At which versions the tolerances are looked at next."""
        return list(self._tolerances_due)

    def tell(self, parts: Mapping[str, Any]) -> None:
        """Tell the observers what the run is made with."""
        for observer in self._observers:
            observer.set_up(parts)

    def __enter__(self) -> Watch:
        try:
            for observer in self._observers:
                observer.open(self._problem, self._bounds)
                self._opened.append(observer)
        except BaseException:
            self._close(None, "")
            raise
        for i, observer in enumerate(self._observers):
            if observer.every_seconds is not None:
                self._remind(observer.every_seconds, i)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close(None, "" if error is None else repr(error))

    def look(self, moment: Moment) -> Verdict | None:
        """Call whoever is due; the verdict that ends the run, if any."""
        verdict: Verdict | None = None
        for i, observer in enumerate(self._observers):
            if moment.version >= self._due[i]:
                message = self._observe(i, observer, moment)
                if message is not None and verdict is None:
                    verdict = Status.STOPPED, message
                self._due[i] = moment.version + observer.every
        for i, tolerance in enumerate(self._bounds.tolerances):
            if moment.version >= self._tolerances_due[i]:
                verdict = verdict or self._judge(tolerance, moment)
                self._tolerances_due[i] = moment.version + tolerance.every
        if verdict is None and moment.version >= self._bounds.updates:
            verdict = Status.MAX_UPDATES, f"reached the limit of {self._bounds.updates} updates"
        if verdict is None and self._keeper is not None and moment.version >= self._keeper_due:
            self._keeper_due = self._keeper.look(moment.version, self._save)
        self.due = min([*self._due, *self._tolerances_due, self._bounds.updates, self._keeper_due])
        return verdict

    def end(self, moment: Moment, status: Status, message: str) -> None:
        """Show everybody the last moment and close."""
        for i, observer in enumerate(self._observers):
            if self._seen[i] != moment.replies:
                self._observe(i, observer, moment)
        self._close(status, message)

    def _observe(self, i: int, observer: Observer, moment: Moment) -> str | None:
        message = observer.observe(moment)
        self._seen[i] = moment.replies
        return message

    def _judge(self, tolerance: Tolerance, moment: Moment) -> Verdict | None:
        began = time.perf_counter()
        value = np.asarray(self._problem.measures(moment.x, (tolerance.measure,))[tolerance.measure])
        self.measure_seconds += time.perf_counter() - began
        value = value[~moment.diverged]  # replicas that are masked will never get there
        if tolerance.at_most is not None:
            worst, bound = value.max(), f"at most {tolerance.at_most:g}"
            met = worst <= tolerance.at_most
        else:
            assert tolerance.at_least is not None
            worst, bound = value.min(), f"at least {tolerance.at_least:g}"
            met = worst >= tolerance.at_least
        if not met:
            return None
        return Status.CONVERGED, f"{tolerance.measure} is {worst:.4g}, {bound}, after {moment.version} updates"

    def _close(self, status: Status | None, message: str) -> None:
        self._over.set()
        while self._opened:
            self._opened.pop().close(status, message)
