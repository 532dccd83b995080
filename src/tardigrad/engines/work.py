"""How a worker of a real engine does a job, the same for threads, processes and actors.

Rules of this file:

- a payload leaves a worker canonical (arrays in C order) and judged: the server does not look at it again;
- an injected duration counts from the start of the job: one that is done sooner waits for the rest. It is the
  duration of the worker that the job belongs to: one that stands in does without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from tardigrad.core.guard import canonical, is_finite
from tardigrad.core.streams import Domain, Uniforms
from tardigrad.core.task import Payload, Points, Task
from tardigrad.core.timing import Timing, check_duration
from tardigrad.core.worker import WorkerHalf, single_threaded_blas

#: seconds beyond which systems refuse to sleep
LONGEST = 1e9
#: payload, whether it is finite, seconds of start and end
Done = tuple[Payload, bool, float, float]


@contextmanager
def at_work() -> Iterator[None]:
    """What holds while a worker works: BLAS on one thread, overflows are the server's to judge."""
    with single_threaded_blas(), np.errstate(over="ignore", invalid="ignore"):
        yield


def doing(
    half: WorkerHalf, timing: Timing | None, sleep: Callable[[float], object] = time.sleep
) -> Callable[[Task, Points, float, bool], Done]:
    """A function of (task, points, zero, whether it stands in); zero is the run's start on this worker's monotonic clock."""
    answer, clock = half.open(), time.monotonic
    uniform = Uniforms(half.seed, Domain.TIMING)

    def do(task: Task, points: Points, zero: float, stands_in: bool) -> Done:
        began = clock()
        payload = canonical(answer(task, points), task)
        finite = is_finite(payload)
        if timing is not None and not stands_in:
            u = uniform(task.id) if timing.random else 0.5
            seconds = check_duration(timing.duration(task.client, began - zero, u), timing, task.client)
            left = began + seconds - clock()
            if left > 0:
                sleep(min(left, LONGEST))
        return payload, finite, began - zero, clock() - zero

    return do
