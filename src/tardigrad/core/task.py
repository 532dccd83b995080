"""What travels between the server and its workers: tasks out; replies, losses and ends back.

Rules of this file:

- these objects are read-only by convention; they are slotted, not frozen, because a frozen
  dataclass costs half of the event loop's speed;
- a task says everything that a worker needs besides the points it reads and the problem;
- a reply carries the task it answers, so no table of open tasks is needed to apply it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Payload = Array | tuple[Array, ...]
Points = tuple[Array, ...]


@final
@dataclass(slots=True)
class Task:
    """One assignment. Its random numbers depend on ``(seed, id)`` alone.

    Parameters
    ----------
    id : int
        Tasks are numbered in order of issue, from 0.
    client : int
        The owner of the data to work on, ``0 <= client < problem.n_clients``.
    kind : str
        What to compute, in the rule's own words (``"gradient"``, ``"difference"``, ...).
    setup : int
        Which ``prepare`` result to use (an epoch, say).
    weight : float
        A factor that the rule attaches to the reply.
    part : int
        Which part of the client's data to look at, in the rule's own numbering (a mini-batch of an epoch, say).

    Examples
    --------
    >>> task = Task(id=7, client=2, kind="gradient")
    >>> task.client
    2
    """

    id: int
    client: int
    kind: str = "gradient"
    setup: int = 0
    weight: float = 1.0
    part: int = 0


@final
@dataclass(slots=True)
class Cancel:
    """An order to forget a task that was issued and is not answered yet.

    Parameters
    ----------
    id : int
        Of the task. Where it has been answered already, nothing happens.

    Examples
    --------
    >>> orders = [Cancel(7)]  # what a rule may answer a reply with, beside tasks
    >>> orders[0].id
    7
    """

    id: int


@final
@dataclass(slots=True)
class Reply:
    """The result of a task, with the version it was computed from and its times.

    Parameters
    ----------
    task : Task
        What was asked for.
    version : int
        The version of the points that were read.
    payload : array or tuple of arrays
        What ``work`` returned. It is valid until ``receive`` returns: a rule that keeps it longer copies it, and none changes
        it, since it may share memory with points.
    worker : int
        Who did it.
    submitted, received : float
        Seconds from the start of the run, read on the server.
    started, finished : float
        The same, read at the worker.
    finite : bool
        Whether its worker found the payload finite, so that the server need not look.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> class Late(td.AsyncSGD):
    ...     def receive(self, state, reply, rng):
    ...         if state.version - reply.version > 3:
    ...             print("client", reply.task.client, "read version", reply.version, "and answers at", state.version)
    ...         return super().receive(state, reply, rng)
    >>> problem = td.LeastSquares((np.eye(2), np.ones(2)), td.Iid(2))
    >>> timing = td.PerClient([1.0, 4.5])
    >>> result = td.run(Late(0.1), problem, td.Simulated(timing), stop=td.MaxUpdates(6))
    client 1 read version 0 and answers at 4
    """

    task: Task
    version: int
    payload: Payload
    worker: int
    submitted: float
    started: float
    finished: float
    received: float
    finite: bool = False


@final
@dataclass(slots=True)
class Lost:
    """A task whose worker died or failed. The engine keeps its points until it is submitted again.

    ``reason`` is for people; where the worker's code raised, it ends with the worker's traceback.
    """

    task: Task
    version: int
    reason: str


@final
@dataclass(slots=True)
class Ended:
    """The engine can bring no more replies, though tasks are open (a recorded trace is over)."""

    reason: str
