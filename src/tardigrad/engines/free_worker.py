"""A worker of a lock-free run: draws a task, computes it from the live iterate, writes the result, draws the next.

Rules of this file:

- tasks are numbered by one counter that all workers draw from, one number at a time or a stretch of them: each number
  is drawn once, and what was drawn is done;
- a worker serves its own clients in turn, all equally often; where data are shared it is a client itself;
- a task that raises is tried again; after the third time the slice ends for all. A stretch that raises is not: some of it
  is written;
- where durations are injected, each task is drawn for itself.
"""

from __future__ import annotations

import math
import time
import traceback
from itertools import count
from threading import Event

from tardigrad.core.free_loop import LOOK
from tardigrad.core.in_place import InPlaceRule, InPlaceState, SetupTally, sweep_free, write_free
from tardigrad.core.loop import MAX_FAILURES
from tardigrad.core.streams import Domain, Uniforms
from tardigrad.core.task import Array, Points, Task
from tardigrad.core.timing import Timing, check_duration
from tardigrad.core.worker import WorkerHalf

#: draws of each worker in a slice, at least, where tasks are drawn several at a time
DRAWS = 4


class Slice:
    """A stretch of a lock-free run, shared by all workers: the iterate, and the numbers of the tasks to be done."""

    def __init__(self, blocks: list[Array], state: InPlaceState, until: float, n_workers: int) -> None:
        self.blocks = blocks
        self.begin = state.version
        self.draws = count()
        self.until = until
        # where a run was resumed with fewer workers, the counts of the others stay
        self.done = state.counts + [0] * (n_workers - len(state.counts))
        #: tasks that each worker has done in this slice, once it has ended
        self.ended: list[int | None] = [None] * n_workers
        self.n_workers = n_workers
        self.n_clients = state.n_clients
        self.setup, self.weight, self.parts = state.setup, state.weight, state.parts
        #: updates of each worker in this slice, from which staleness is told, and what else a setup tallies
        self.written = [0] * n_workers
        self.tallies = [SetupTally() for _ in range(n_workers)]
        self.halt = False
        self.error = ""

    def tally(self, total: SetupTally) -> None:
        """Add what workers have tallied, once all have ended: each noted when."""
        last = max(tally.waited for tally in self.tallies)
        for tally in self.tallies:
            tally.waited = last - tally.waited
            total.merge(tally)


class FreeWorker:
    """One worker, from slice to slice.

    Parameters
    ----------
    number : int
        Of the worker.
    half : WorkerHalf
        Its rule is an `InPlaceRule`.
    timing : Timing or None
        Durations to inject between reading and writing.
    closing : Event
        Set when workers are to end: nobody waits any longer.
    """

    def __init__(self, number: int, half: WorkerHalf, timing: Timing | None, closing: Event) -> None:
        assert isinstance(half.rule, InPlaceRule)
        self.number = number
        self.rule = half.rule
        self.problem = half.problem
        self.seed = half.seed
        #: tasks drawn at a time, where the rule can do several in one go; one where each has a duration of its own
        length = half.rule.sweep_length(half.problem)
        self.length = length if timing is None else min(length, 1)
        self.tallied = half.rule.tasks_per_setup() > 0
        self.answer = half.open()
        self.timing = timing
        self.closing = closing
        self.uniform = Uniforms(half.seed, Domain.TIMING)

    def run(self, part: Slice, zero: float) -> int:
        """Do tasks of a slice until there are no more; how many."""
        mine = range(self.number % part.n_clients, part.n_clients, part.n_workers)
        before, n_done = part.done[self.number], 0
        size = self._at_a_time(part)
        while not (part.halt or self.closing.is_set()):
            number = part.begin + size * next(part.draws)
            if number >= part.until:
                break
            client = mine[(before + n_done) // size % len(mine)]
            if self.tallied:
                n_now = self._do(part, Task(number, client, "gradient", part.setup, part.weight, part.parts[client]), zero)
                part.parts[client] += n_now
            elif self.length:
                tasks = range(number, int(min(number + size, part.until)))
                n_now = self._sweep(part, client, tasks, zero)
            else:
                n_now = self._do(part, Task(number, client), zero)
            if not n_now:
                break
            n_done += n_now
        return n_done

    def _at_a_time(self, part: Slice) -> int:
        """Tasks drawn at a time: fewer in a short slice, of which every worker is to have a few draws."""
        fair = (part.until - part.begin) / (DRAWS * part.n_workers)
        return max(1, min(self.length, math.ceil(fair) if fair < math.inf else self.length))

    def _sweep(self, part: Slice, client: int, tasks: range, zero: float) -> int:
        """Tasks in one go; how many were done. An injected duration follows: what was read is written at once."""
        began = time.monotonic()
        try:
            sweep_free(self.rule, self.problem, client, tasks, self.seed, part.blocks[0])
        except BaseException:
            return self._give_up(part, tasks[0], client, "could not be done")
        if self.timing is not None:
            until = began + self._duration(tasks[0], client, began - zero)
            while not part.halt and (left := until - time.monotonic()) > 0:
                self.closing.wait(min(left, LOOK))
        return len(tasks)

    def _do(self, part: Slice, task: Task, zero: float) -> int:
        """One task; 0 where it could not be done."""
        began, read = time.monotonic(), 0

        def points() -> Points:
            nonlocal read
            read = sum(part.written)
            return tuple(part.blocks)

        for failures in range(1, MAX_FAILURES + 1):
            try:
                payload = self.answer(task, points)
                break
            except BaseException:
                if failures == MAX_FAILURES:
                    return self._give_up(part, task.id, task.client, f"failed {failures} times")
        try:
            if self.timing is not None:
                duration = self._duration(task.id, task.client, began - zero)
                self.closing.wait(max(0.0, began + duration - time.monotonic()))
            write_free(self.rule, part.blocks, payload, task)
            if self.tallied:
                part.tallies[self.number].add(sum(part.written) - read, self.rule.reading(payload))
                part.written[self.number] += 1
        except BaseException:  # not tried again: half of it may be written
            return self._give_up(part, task.id, task.client, "could not be written")
        return 1

    def _duration(self, number: int, client: int, now: float) -> float:
        assert self.timing is not None
        seconds = self.timing.duration(client, now, self.uniform(number) if self.timing.random else 0.5)
        return check_duration(seconds, self.timing, client)

    def _give_up(self, part: Slice, number: int, client: int, what: str) -> int:
        """End the slice for all."""
        part.error = f"task {number} of client {client} {what} on worker {self.number}:\n{traceback.format_exc()}"
        part.halt = True
        return 0
