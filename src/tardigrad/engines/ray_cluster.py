"""RayCluster: workers are actors of a Ray cluster, on one machine or many.

Rules of this file:

- Ray schedules, places and carries; which actor does which task is `Dispatch`'s, as for all real engines;
- an actor is never restarted by Ray, which would not say what was lost: a dead one is replaced by a new one,
  and its tasks are submitted again. It is Ray that says that it is dead;
- a version's points are put into the object store once, or copied into one string of bytes where they are small;
- Ray is imported here alone, when a run starts: a recorded run is replayed without it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from tardigrad.core.engine import Placement
from tardigrad.core.errors import WorkerError
from tardigrad.core.task import Points
from tardigrad.core.timing import Timing
from tardigrad.core.validate import integer
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.dispatch import Job
from tardigrad.engines.interrupts import held_back
from tardigrad.engines.ray_actors import Actor, Call, Calls, actor_class
from tardigrad.engines.ray_session import Session, check_address, find
from tardigrad.engines.ray_worker import ANSWER, LARGE, Layout, fitted, host, in_brief, packed, parcel, read
from tardigrad.engines.real import PATIENCE, START_TIMEOUT, RealEngine, cores, pickled

#: an actor that ends so often before it is ready is not replaced again
MAX_STARTS = 5
#: seconds between two looks at whether the cluster has grown
LOOK_EVERY = 1.0

READY, CLOCK = -1, -2


@dataclass(slots=True)
class _Points:
    """A version's points: small ones as bytes with their layout, large ones in the object store."""

    layout: Layout | None
    content: bytes = b""
    ref: Any = None


class RayCluster(RealEngine):
    """Workers in actors of a Ray cluster.

    Parameters
    ----------
    address : str, optional
        "host:port" of a cluster to join, "auto" for the one that runs on this machine, "local" for a new one on
        this machine, which ends with the run. By default the environment variable RAY_ADDRESS decides, "local" if
        it is not set. Where the program has called ``ray.init`` itself, that is used, and left as it is.
    workers : int, optional
        Number of actors, each with one CPU; by default one for each CPU of the cluster, at most one a client where
        data are not shared. Where data are shared and no number is given, nodes that join are used.
    timing : Timing, optional
        Durations to inject: a job that is done sooner sleeps for the rest.
    deadline : float, optional
        Seconds after which a worker that is still at a task is reported as slow.
    reassign : bool
        Whether a task that missed the deadline is given to another worker too; the first answer counts.
    depth : int
        Tasks that an actor is given at a time. With 2 it finds its next task there when it has answered one, if the
        rule keeps more tasks in flight than there are workers: that hides the way to the actor and back. Where data
        are shared and tasks are long and uneven, 1 is better: no task then waits behind a slow one.

    Raises
    ------
    WorkerError
        If Ray is not installed or the cluster cannot be reached, has no CPU, or gives no worker within 60 s.
    InvalidInputError
        If arguments are out of range, or the rule or problem cannot be sent.

    Notes
    -----
    An actor that Ray has no CPU for yet is waited for without holding up the run: the others serve its clients.
    Tasks that take less than about a millisecond are faster in `Processes` on one machine.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> engine = td.RayCluster(workers=2)
    >>> result = td.run(td.AsyncSGD(step=0.3), problem, engine, stop=td.MaxUpdates(100))  # doctest: +SKIP
    >>> result.status.value, td.replay(result).identical  # doctest: +SKIP
    ('max_updates', True)
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        timing: Timing | None = None,
        deadline: float | None = None,
        reassign: bool = False,
        depth: int = 2,
    ) -> None:
        super().__init__(workers, timing, deadline, reassign)
        self.address = check_address(address)
        self.depth = integer(depth, "depth", low=1)
        self._session: Session | None = None
        self._setup: Any = None
        self._actors: list[Actor] = []

    def fields(self) -> dict[str, Any]:
        return {"address": self.address, **super().fields(), "depth": self.depth}

    @property
    def pids(self) -> list[int]:
        """Process ids of the actors, by number, while a run goes on; 0 for those that are not ready."""
        return [actor.pid for actor in self._actors]

    def n_workers(self, placement: Placement) -> int:
        if self.workers is not None:
            return self.workers
        n_cpus = self._session.n_cpus() if self._session is not None else self._look_at_the_cluster()
        if n_cpus < 1:
            raise WorkerError("the Ray cluster has no CPU: add a node, or give the number of workers to wait for them")
        return n_cpus if placement.shared_data else min(n_cpus, placement.n_clients)

    def _look_at_the_cluster(self) -> int:
        """CPUs of the cluster that a run would use, which is left again: the run may never come."""
        ray = need_ray()
        if not ray.is_initialized() and find(self.address) is None:
            return cores()
        with contextlib.closing(Session(ray, self.address, cores())) as session:
            return session.n_cpus()

    def _connect(self, placement: Placement) -> None:
        self._ray = need_ray()
        n_cpus = cores() if placement.shared_data else min(cores(), placement.n_clients)
        self._session = Session(self._ray, self.address, self.workers or n_cpus)

    def _launch(self, half: WorkerHalf, n_workers: int) -> None:
        self._calls = Calls(self._ray)
        self._setup = self._ray.put(pickled(half, self.timing, "Ray actors"))
        self._make = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(actor_class())
        self._host = host()
        self._elastic = self.workers is None and self._dispatch.shared
        self._next_look = time.monotonic() + LOOK_EVERY
        self._starts = [0] * n_workers
        for number in range(n_workers):
            self._actors.append(self._spawn(number))
        began = now = time.monotonic()
        while not any(self._free):
            self._listen(PATIENCE)
            now = time.monotonic()
            if now - began > START_TIMEOUT:
                free = self._ray.available_resources().get("CPU", 0)
                raise WorkerError(
                    f"no worker was ready after {START_TIMEOUT:g} s: {free:g} CPUs of the Ray cluster are free now; is it busy"
                    " with other work?"
                )
        others_until = now + (now - began)  # as long again: those for which there is no CPU are not waited for
        while not all(self._free) and time.monotonic() < others_until:
            self._listen(PATIENCE)

    def _spawn(self, number: int) -> Actor:
        """Ask Ray for an actor; until it is ready, others serve its clients."""
        self._starts[number] += 1
        handle = self._make.remote([entry or os.getcwd() for entry in sys.path], self._setup)
        actor = Actor(number, handle, handle.work)
        self._calls.ask(actor, READY, handle.ready)
        if not self._dispatch.shared:
            self._dispatch.stand_in(number)
        return actor

    def _keep(self, points: Points, fresh: bool) -> _Points:
        if sum(point.nbytes for point in points) > LARGE:
            return _Points(None, ref=self._ray.put(points))
        return _Points(*packed(points))

    def _copy(self, place: _Points) -> Points:
        if place.ref is not None:
            return tuple(point.copy() for point in self._ray.get(place.ref))
        _, points = read(bytearray(parcel((), place.layout, place.content)))
        assert points is not None
        return points

    def _give(self, worker: int, job: Job) -> None:
        actor, points, task = self._actors[worker], job.kept.place, job.task
        fields = task.id, task.client, task.kind, task.setup, task.weight, task.part
        message = parcel((fields, self._zero + actor.ahead, job.stand_in), points.layout, points.content)
        self._calls.ask(actor, task.id, actor.work, message, *([] if points.ref is None else [points.ref]))

    def _listen(self, timeout: float) -> None:
        if self._elastic and time.monotonic() > self._next_look:
            self._use_new_nodes()
        lending = self._dispatch.lending
        for call in self._calls.come(timeout):
            self._hear(call.actor, call)
        if lending:
            self._feed_all()

    def _hear(self, actor: Actor, call: Call) -> None:
        if isinstance(call.answer, Exception):
            self._replace(actor, call.answer)
        elif call.what == READY:
            trouble, name, actor.pid = call.answer
            if trouble is not None:
                raise WorkerError(f"worker {actor.number} could not start:\n{trouble}")
            if name == self._host != "":
                self._begin(actor)
            else:
                self._calls.ask(actor, CLOCK, actor.handle.clock)
        elif call.what == CLOCK:
            actor.ahead = call.answer - (call.given + time.monotonic()) / 2
            self._begin(actor)
        else:
            self._hear_of_task(actor, call)

    def _begin(self, actor: Actor) -> None:
        actor.ready = True
        self._starts[actor.number] = 0
        self._is_ready(actor.number)

    def _hear_of_task(self, actor: Actor, call: Call) -> None:
        large = isinstance(call.answer, tuple)
        (kind, task_id, *content), arrays = read(call.answer[0] if large else bytearray(call.answer))
        if kind == ANSWER:
            finite, started, finished, is_tuple = content
            answer = tuple(call.answer[1]) if large else arrays or ()
            times = fitted(started, finished, call.given - self._zero, self.now())
            self._has_answered(actor.number, task_id, answer if is_tuple else answer[0], finite, *times)
        else:
            self._calls.forget(actor)  # what it was given beside goes to the line again, behind the failed task
            self._has_failed(actor.number, task_id, *content)

    def _replace(self, actor: Actor, error: Exception) -> None:
        """An actor has died, or Ray has lost sight of it: ask for another in its place, report what it held."""
        number, how = actor.number, in_brief(error)
        self._discard(actor)
        if actor.ready:
            self._has_died(number, how)
        elif self._starts[number] >= MAX_STARTS:
            raise WorkerError(f"worker {number} ended {MAX_STARTS} times before it was ready; the last one {how}")
        self._actors[number] = self._spawn(number)
        self._feed_all()

    def _discard(self, actor: Actor) -> None:
        self._calls.forget(actor)
        with contextlib.suppress(Exception):  # it may be dead already, or the cluster gone
            self._ray.kill(actor.handle)

    def _use_new_nodes(self) -> None:
        """Where any worker serves any client: more workers if the cluster has more CPUs than there are."""
        assert self._session is not None
        self._next_look = time.monotonic() + LOOK_EVERY
        while len(self._actors) < self._session.n_cpus():
            number = self._dispatch.add_worker()
            self._free.append(0)
            self._starts.append(0)
            self._actors.append(self._spawn(number))

    def close(self) -> None:
        with held_back():  # a second Ctrl-C would leave actors behind, or a cluster
            while self._actors:
                self._discard(self._actors.pop())
            self._setup = self._make = None
            if self._session is not None:
                self._session.close()
                self._session = None
            self._forget()


def need_ray() -> Any:
    """The module ray."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise WorkerError(f'RayCluster needs Ray, which cannot be imported ({error}): pip install "tardigrad[ray]"') from error
