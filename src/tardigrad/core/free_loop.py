"""Runs without a server: workers read and write the iterate themselves, and nobody waits.

Rules of this file:

- workers run in slices, from one look of observers or checkpoints to the next; between two of them nobody works, so
  there are as few as can be: a slow worker makes all wait at the end of each;
- while a slice goes on, Ctrl-C, the limit of time and whether the iterate is finite are looked at now and then;
- a slice makes exactly the updates that it was asked for, unless it is ended: then fewer. A setup (epoch) ends with one;
- there is no trace, so no replay: the state counts updates by worker. With one worker a run repeats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.guard import Guard
from tardigrad.core.in_place import InPlaceRule, InPlaceState, blocks_of, put_back
from tardigrad.core.loop import Loop
from tardigrad.core.recorder import Recorder
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import Status
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Array, Task
from tardigrad.core.watch import Verdict

if TYPE_CHECKING:
    from tardigrad.core.result import Result

#: longest time between two looks in seconds: how late Ctrl-C is seen
LOOK = 0.2


def check_free(rule: Rule[Any], x0: Array) -> None:
    """A rule and a start that can do without a server."""
    if not isinstance(rule, InPlaceRule):
        raise InvalidInputError(
            f"a lock-free run needs a rule that workers can apply in place, such as Hogwild, not {type(rule).__name__}:"
            " leave lock_free away"
        )
    if x0.ndim != 1:
        raise InvalidInputError(
            f"a lock-free run is a single run, not replicas of shape {x0.shape[:-1]}: use Simulated for them"
        )


class FreeLoop(Loop):
    """One lock-free run, in slices."""

    engine: Engine

    def begin(self, x0: Array, n_clients: int, seed: int) -> Verdict | None:
        self.guard = Guard(())
        self.whole = False
        self.state, _ = self.rule.start(self.engine.house(x0), n_clients, Stream(seed, Domain.START))
        self.state.issued, self.state.parts = 0, [0] * n_clients
        return self._ready(seed)

    def take_up(self, earlier: Result, seed: int) -> Verdict | None:
        assert earlier.in_flight is not None
        self.guard = Guard(())
        self.state = earlier.state
        self.recorder = Recorder(earlier.trace.table)
        self.engine.take_up(earlier.in_flight)
        return self._ready(seed)

    def _ready(self, seed: int) -> Verdict | None:
        self.seed = seed
        self._blocks = self._laid_out()
        self._count()
        self.whole = True
        return self.watch.look(self.moment())

    def go(self) -> Verdict:
        """Run slice after slice until something ends the run."""
        state, bounds, watch, rule = self.state, self.bounds, self.watch, self.rule
        assert isinstance(state, InPlaceState)
        assert isinstance(rule, InPlaceRule)
        length = rule.tasks_per_setup()
        most = math.inf if bounds.oracle_calls is math.inf else math.ceil(bounds.oracle_calls / max(self._cost(), 1))
        while not self.interrupted:
            now = self.engine.now()
            if now >= bounds.seconds:
                return self.out_of_time()
            self._last, counts = self._whole(), state.counts
            self.whole = False
            end = (state.setup + 1) * length if length else math.inf
            # a slice that ends with an exception has made whole updates too
            try:
                self.engine.run_free(self._blocks, state, min(watch.due, most, end), self._look)
            finally:
                self._store(self._blocks)
                self._count()
                self.whole = state.counts is not counts
            if not _finite(self._blocks):
                self._store(self._last)
                return Status.DIVERGED, (
                    f"the iterate is not finite any more after {state.version} updates; the result is that of the last look at"
                    " it before. A smaller step may help"
                )
            if state.version >= watch.due:
                verdict = watch.look(self.moment())
                if verdict is not None:
                    return verdict
            if state.version == end:
                state.setup += 1
                rule.open_setup(state, self.seed)
                self._blocks = self._laid_out()
            if state.version >= most:
                return Status.MAX_ORACLE_CALLS, f"reached the limit of {bounds.oracle_calls} oracle calls"
        return Status.INTERRUPTED, f"interrupted after {state.version} updates; the result is that of this moment"

    def _look(self) -> float:
        """Seconds until the next look while workers work; 0 if they are to stop."""
        left = self.bounds.seconds - self.engine.now()
        if self.interrupted or left <= 0 or not self.watch.due:  # the last: it is time for a checkpoint
            return 0.0
        now = self._whole()
        if not _finite(now):
            return 0.0
        self._last = now
        return min(LOOK, left)

    def _whole(self) -> list[Array]:
        """The blocks as they are; the one array that all workers write to as a copy."""
        return list(self._blocks) if self.state.bounds else [self._blocks[0].copy()]

    def _laid_out(self) -> list[Array]:
        """Blocks for workers to replace, none of them a view of the iterate: the last look's are kept while it is written."""
        blocks = blocks_of(self.state)
        self.state.blocks = None  # workers do not keep these up to date
        return [block.copy() for block in blocks] if self.state.bounds else list(blocks)

    def _store(self, blocks: list[Array]) -> None:
        """Put blocks into the iterate."""
        state = self.state
        assert isinstance(state, InPlaceState)
        if state.order is not None:
            for client in range(state.n_clients):
                put_back(state, blocks, client)
        elif blocks[0] is not state.x:
            np.concatenate(blocks, axis=-1, out=state.x)

    def _cost(self) -> int:
        return self.rule.oracle_calls(Task(0, 0))

    def _count(self) -> None:
        self.state.issued = self.replies = self.state.version
        self.calls = self.state.version * self._cost()


def _finite(blocks: list[Array]) -> bool:
    return all(math.isfinite(block.dot(block)) for block in blocks)
