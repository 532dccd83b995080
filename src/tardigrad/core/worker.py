"""The worker's half of a run, the same on every engine: it answers a task from the points it is given.

Rules of this file:

- a payload depends on rule, problem, seed, task and points alone: any worker, now or in a replay,
  computes the same bits;
- what `prepare` returns is a cache: kept for the latest setup of each client, rebuilt at need;
- BLAS runs on one thread while workers work (`single_threaded_blas`): several workers with several
  threads each are 10 to 20 times slower, and a replay must use the same kernels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from tardigrad.core.bfloat16 import rounded
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Rule
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Payload, Points, Task

Read = Callable[[], Points]
Answer = Callable[[Task, Points | Read], Payload]


class WorkerHalf:
    """What a worker is made of; it can be sent to another process, and ``half.open()`` answers tasks.

    Parameters
    ----------
    rule : Rule
        The configured rule.
    problem : Problem
        The problem, or the part of it that the worker's clients own.
    seed : int
        Seed of the run.
    replicas : int or None
        Replicas with independent noise.
    """

    def __init__(self, rule: Rule[Any], problem: Problem, seed: int, replicas: int | None = None) -> None:
        self.rule = rule
        self.problem = problem
        self.seed = seed
        self.replicas = replicas

    def open(self) -> Answer:
        """A function of (task, points) that returns the payload; points may be a function too, which reads them."""
        answer = self._open()
        if self.problem.payload_type is None:
            return answer
        return lambda task, points: rounded(answer(task, points))

    def _open(self) -> Answer:
        """The function without rounding. A closure: this is a hot path."""
        work, problem = self.rule.work, self.problem
        stream = Stream(self.seed, Domain.TASK, self.replicas)
        if type(self.rule).prepare is Rule.prepare:

            def answer(task: Task, points: Points | Read) -> Payload:
                stream.index = task.id
                try:
                    return work(problem, task, points() if callable(points) else points, stream, None)
                except Exception as error:
                    error.add_note(_where(task))
                    raise

            return answer

        prepare = self.rule.prepare
        caches: dict[int, tuple[int, Any]] = {}

        def answer_with_cache(task: Task, points: Points | Read) -> Payload:
            client, setup = task.client, task.setup
            setup_kept, cache = caches.get(client, (-1, None))
            try:
                if setup_kept != setup:
                    # keyed by client and setup, not by task: whoever rebuilds a cache gets the same numbers
                    rng = Stream(self.seed, Domain.PREPARE, self.replicas).at(setup << 32 | client)
                    cache = prepare(problem, client, setup, rng)
                    caches[client] = setup, cache
                stream.index = task.id
                # read only now: what is prepared takes long, and others write meanwhile
                return work(problem, task, points() if callable(points) else points, stream, cache)
            except Exception as error:
                error.add_note(_where(task))
                raise

        return answer_with_cache


_NOTE = "raised while a worker computed"


def _where(task: Task) -> str:
    return f"{_NOTE} task {task.id} ({task.kind}) of client {task.client}"


def last_line(text: str) -> str:
    r"""The line of a worker's traceback that names the exception: the last one before the note on the task.

    Examples
    --------
    >>> last_line("Traceback ...\nKeyError: 'x'\nraised while a worker computed task 3 (gradient) of client 1\n")
    "KeyError: 'x'"
    """
    return text.partition(f"\n{_NOTE}")[0].rstrip().rpartition("\n")[2]


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to one thread within the block."""
    import scipy.linalg  # noqa: F401 (SciPy brings a BLAS of its own, which can only be limited once it is loaded)

    with _libraries(len(sys.modules)).limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> Any:  # noqa: ARG001 (the cache's key)
    """The BLAS libraries of this process: looking for them takes 0.6 ms, so that is done only after further imports."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
