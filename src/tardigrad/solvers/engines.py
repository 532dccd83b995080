"""The engine that a solver's argument names."""

from __future__ import annotations

from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError
from tardigrad.engines.processes import Processes
from tardigrad.engines.threads import Threads


def engine_of(engine: Engine | str, workers: int, lock_free: bool = False) -> Engine:
    """The engine itself, or one with so many workers; lock-free where that is possible and asked for."""
    if isinstance(engine, Engine):
        return engine
    if engine == "threads":
        return Threads(workers, lock_free=lock_free)
    if engine == "processes":
        return Processes(workers)
    if engine == "ray":
        from tardigrad import RayCluster

        cluster: Engine = RayCluster(workers=workers)
        return cluster
    raise InvalidInputError(f"engine must be 'threads', 'processes', 'ray' or an engine such as Threads(4), not {engine!r}")
