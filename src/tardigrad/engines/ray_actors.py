"""The actors of `RayCluster`: their class, what they were asked for, and what has come of it.

Ray is passed in as a module: only `ray_cluster` imports it. Rules of this file:

- all that has come is taken at once: asking Ray costs more than an answer does;
- an actor's answers are heard in the order of asking, since small ones overtake large ones;
- an error is an answer too.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Actor:
    """An actor, from the server's side; `ahead` are the seconds by which its clock is ahead of the server's."""

    number: int
    handle: Any
    work: Any
    calls: deque[Call] = field(default_factory=deque)
    ready: bool = False
    pid: int = 0
    ahead: float = 0.0


@dataclass(slots=True, eq=False)
class Call:
    """Something that an actor was asked for: a task by its number, or what has a number below 0."""

    actor: Actor
    what: int
    ref: Any
    given: float  # on the server's monotonic clock
    come: bool = False
    answer: Any = None


class Calls:
    """Calls that are under way.

    Parameters
    ----------
    ray : module
        Ray.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._waiting: dict[Any, Call] = {}

    def ask(self, actor: Actor, what: int, method: Any, *arguments: Any) -> None:
        """Call a method of an actor; its answer will come."""
        given = time.monotonic()  # before the call: on a busy machine the actor may begin before the call returns
        call = Call(actor, what, method.remote(*arguments), given)
        actor.calls.append(call)
        self._waiting[call.ref] = call

    def forget(self, actor: Actor) -> None:
        """Expect nothing more of what an actor was asked for."""
        for call in actor.calls:
            self._waiting.pop(call.ref, None)
        actor.calls.clear()

    def come(self, timeout: float) -> Iterator[Call]:
        """Calls that were answered, after a wait of so many seconds if there are none yet.

        What is forgotten while one is looked at does not come any more.
        """
        refs, wait = list(self._waiting), self._ray.wait
        if not refs:
            time.sleep(timeout)
            return
        ready, _ = wait(refs, num_returns=len(refs), timeout=0)
        if not ready:
            ready, _ = wait(refs, num_returns=1, timeout=timeout)
        actors = {}
        for ref, answer in zip(ready, self._answers(ready), strict=True):
            call = self._waiting.pop(ref)
            call.come, call.answer = True, answer
            actors[call.actor.number] = call.actor
        for actor in actors.values():
            while actor.calls and actor.calls[0].come:
                yield actor.calls.popleft()

    def _answers(self, refs: list[Any]) -> list[Any]:
        """What came, an exception where it is one."""
        try:
            answers: list[Any] = self._ray.get(refs)
        except self._ray.exceptions.RayError:
            answers = [self._answer(ref) for ref in refs]
        return answers

    def _answer(self, ref: Any) -> Any:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return error


def actor_class() -> type:
    """The class of the actors; made in a function, so that it is sent by value, to processes that may not find this module."""

    class TardigradWorker:
        def __init__(self, path: list[str], setup: tuple[bytes, list[Any]]) -> None:
            import sys
            import traceback

            self.trouble, self.host = None, ""
            try:
                sys.path += [entry for entry in path if entry not in sys.path]
                from tardigrad.engines import ray_worker

                self.host, self.now = ray_worker.host(), ray_worker.clock
                self.answer = ray_worker.Worker(*setup).work
            except Exception:
                self.trouble = traceback.format_exc()

        def ready(self) -> tuple[str | None, str, int]:
            return self.trouble, self.host, os.getpid()

        def clock(self) -> float:
            return self.now()

        def work(self, message: bytes, points: Any = ()) -> Any:
            return self.answer(message, points)

    return TardigradWorker
