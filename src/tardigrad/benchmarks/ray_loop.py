"""`RayCluster` against the plain loop that one would write with Ray: actors, `ray.put` of each iterate, `ray.wait`.

Rules of this file:

- both do asynchronous SGD with gradient = x, as many tasks in flight on as many actors, in turn, on one cluster;
- rates are updates a second without the first tenth;
- what `RayCluster` does and the plain loop does not: a trace with times, a check that each gradient is finite, and
  replacing actors that die;
- the limit at dim 1000 is the server's processor: Ray's submitting a call (130 microseconds) and waiting for and
  fetching its result; at dim 1e6 it is the memory: `ray.put` of the iterate at the server, of the gradient at the
  worker, and the update, 1 to 2 ms each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from tardigrad.benchmarks.harness import Row
from tardigrad.benchmarks.simulator import STEP, Identity, finished, rate
from tardigrad.core.drive import run
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.stopping import MaxUpdates
from tardigrad.engines.ray_cluster import RayCluster, need_ray
from tardigrad.engines.ray_session import Session
from tardigrad.engines.real import cores
from tardigrad.rules.gradient_descent import AsyncSGD

#: dim, updates
SIZES = ((1000, 4000), (1_000_000, 600))


def rows(
    sizes: Sequence[tuple[int, int]] = SIZES, in_flight: Sequence[int] = (4, 8), workers: int = 4, rounds: int = 3
) -> Iterator[Row]:
    """All rows of the benchmark: the best of each over the rounds."""
    with closing(Session(need_ray(), "local", max(workers, cores()))):
        for dim, n_updates in sizes:
            for k in in_flight:
                ours, plain = [], []
                for _ in range(rounds):
                    plain.append(plain_loop(dim, n_updates, k, workers))
                    ours.append(ray_cluster(dim, n_updates, k, workers))
                name = f"RayCluster, dim {dim}, {k} tasks in flight on {workers} actors"
                yield Row(name, max(ours), "updates/s", "plain ray.wait loop", max(plain))


def ray_cluster(dim: int, n_updates: int, in_flight: int, workers: int = 4, **options: Any) -> float:
    """Updates a second of `RayCluster`, on the cluster that `ray.init` has joined or started, else on its own."""
    problem, engine = Identity(in_flight, dim), RayCluster(workers=workers, **options)
    return rate(finished(run(AsyncSGD(STEP), problem, engine, stop=MaxUpdates(n_updates))))


def plain_loop(dim: int, n_updates: int, in_flight: int, workers: int = 4) -> float:
    """Updates a second of the plain loop; Ray must be initialised."""
    ray = need_ray()
    if n_updates < 2:
        raise InvalidInputError(f"n_updates must be at least 2, not {n_updates}")
    actors = [ray.remote(num_cpus=1, max_restarts=0)(_worker()).remote() for _ in range(workers)]
    x = np.ones(dim)
    point = ray.put(x)
    busy = {actors[i % workers].gradient.remote(point): actors[i % workers] for i in range(in_flight)}
    began = 0.0
    for version in range(1, n_updates + 1):
        (ref,), _ = ray.wait(list(busy), num_returns=1)
        actor = busy.pop(ref)
        x -= STEP * ray.get(ref)
        busy[actor.gradient.remote(ray.put(x))] = actor
        if version == _warm_up(n_updates):
            began = time.perf_counter()
    rate = (n_updates - _warm_up(n_updates)) / (time.perf_counter() - began)
    for actor in actors:
        ray.kill(actor)
    return rate


def _warm_up(n_updates: int) -> int:
    return max(1, n_updates // 10)


def _worker() -> type:
    """Made in a function, so that Ray sends it by value."""

    class Plain:
        def gradient(self, x: Any) -> Any:
            return x

    return Plain
