"""A worker of a lock-free run: draws a task, computes it from the live iterate, writes the result, draws the next.

Rules of this file:

- tasks are numbered by one counter that all workers draw from: each number is drawn once, and what was
  drawn is done;
- a worker serves its own clients in turn, all equally often; where data are shared it is a client itself;
- a task that raises is tried again; after the third time the slice ends for all.
"""

from __future__ import annotations

import time
import traceback
from itertools import count
from threading import Event

from tardigrad.core.in_place import InPlaceRule, InPlaceState, write_free
from tardigrad.core.loop import MAX_FAILURES
from tardigrad.core.streams import Domain, Uniforms
from tardigrad.core.task import Array, Task
from tardigrad.core.timing import Timing
from tardigrad.core.worker import WorkerHalf


class Slice:
    """A stretch of a lock-free run, shared by all workers: the iterate, and the numbers of the tasks to be done."""

    def __init__(self, blocks: list[Array], state: InPlaceState, until: float, n_workers: int) -> None:
        self.blocks = blocks
        self.numbers = count(state.version)
        self.until = until
        # where a run was resumed with fewer workers, the counts of the others stay
        self.done = state.counts + [0] * (n_workers - len(state.counts))
        #: tasks that each worker has done in this slice, once it has ended
        self.ended: list[int | None] = [None] * n_workers
        self.n_workers = n_workers
        self.n_clients = state.n_clients
        self.halt = False
        self.error = ""


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
        self.answer = half.open()
        self.timing = timing
        self.closing = closing
        self.uniform = Uniforms(half.seed, Domain.TIMING)

    def run(self, part: Slice, zero: float) -> int:
        """Do tasks of a slice until there are no more; how many."""
        mine = range(self.number % part.n_clients, part.n_clients, part.n_workers)
        before, n_done = part.done[self.number], 0
        while not (part.halt or self.closing.is_set()):
            number = next(part.numbers)
            if number >= part.until:
                break
            task = Task(number, mine[(before + n_done) % len(mine)])
            if not self._do(part, task, zero):
                break
            n_done += 1
        return n_done

    def _do(self, part: Slice, task: Task, zero: float) -> bool:
        """One task; whether it was done."""
        began = time.monotonic()
        for failures in range(1, MAX_FAILURES + 1):
            try:
                payload = self.answer(task, tuple(part.blocks))
                break
            except BaseException:
                if failures == MAX_FAILURES:
                    return self._give_up(part, task, f"failed {failures} times")
        try:
            if self.timing is not None:
                u = self.uniform(task.id) if self.timing.random else 0.5
                self.closing.wait(max(0.0, began + self.timing.duration(task.client, began - zero, u) - time.monotonic()))
            write_free(self.rule, part.blocks, payload, task)
        except BaseException:  # not tried again: half of it may be written
            return self._give_up(part, task, "could not be written")
        return True

    def _give_up(self, part: Slice, task: Task, what: str) -> bool:
        """End the slice for all."""
        part.error = f"task {task.id} of client {task.client} {what} on worker {self.number}:\n{traceback.format_exc()}"
        part.halt = True
        return False
