"""Checks for engines, ours and yours: `check_engine`.

Rules of this file:

- a check runs the real event loop with rules and problems of the library;
- a failure is an `AssertionError` that names the contract and the task at which it broke.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.engine import Engine
from tardigrad.core.plain import same_bits
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.stopping import MaxUpdates
from tardigrad.core.task import Array
from tardigrad.engines.replay import replay
from tardigrad.engines.simulated import Simulated
from tardigrad.rules.gradient_descent import AsyncSGD, SyncSGD
from tardigrad.timing.models import Constant


class _Probe(Problem):
    """Exact gradients of |x - c_i|^2 / 2, and where asked an exception."""

    def __init__(self, n_clients: int, dim: int, shared_data: bool = False, raises: bool = False) -> None:
        self.n_clients, self.dim, self.shared_data, self.raises = n_clients, dim, shared_data, raises

    def fields(self) -> dict[str, Any]:
        return {"n_clients": self.n_clients, "dim": self.dim, "shared_data": self.shared_data, "raises": self.raises}

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        if self.raises and client == self.n_clients - 1 and abs(x[0]) > 0.1:
            raise ZeroDivisionError("an oracle that fails on purpose")
        return x - (client + 1.0)


def check_engine(make_engine: Callable[[], Engine]) -> None:
    """Check that an engine keeps its contract.

    Runs rules on it and checks that: every run replays bit for bit, for small and large iterates and for more
    tasks in flight than workers; each task is answered once and a client's tasks one after another; times are in
    order; a synchronous rule gives the same bits as in a simulation, unless it declares itself unsuited for the
    engine; one engine object serves several runs; it closes twice without harm; and an exception in an oracle ends
    the run with that exception or a `WorkerError` that shows it.

    Parameters
    ----------
    make_engine : callable
        Returns a new engine that can serve 4 clients.

    Raises
    ------
    AssertionError
        Naming the contract that is broken.

    Examples
    --------
    >>> check_engine(lambda: Simulated(Constant(1.0)))
    """
    engine = make_engine()
    for dim, concurrency, shared in ((3, None, False), (3, 11, False), (3, 6, True), (40_000, 5, False)):
        problem = _Probe(4, dim, shared)
        rule = AsyncSGD(0.1, next_client="answered" if concurrency is None else "shuffled")
        result = run(rule, problem, engine, stop=MaxUpdates(60), concurrency=concurrency, snapshot_every=7)
        _check_trace(result, shared)
        replayed = replay(result)
        assert replayed.identical, f"the replay differs for dim {dim}: {replayed.difference}"
    if type(engine).__name__ not in SyncSGD.unsuited:
        both = (engine, Simulated(Constant(1.0)))
        synchronous = [run(SyncSGD(0.1), _Probe(4, 3), on, stop=MaxUpdates(20)).x for on in both]
        assert same_bits(*synchronous), "a synchronous run must give the same bits as on a virtual clock"
    engine.close()
    engine.close()
    _check_failure(make_engine())


def _check_trace(result: Result, shared: bool) -> None:
    trace = result.trace
    assert len(set(trace["task"].tolist())) == len(trace), "a task was applied twice"
    assert (np.diff(trace["received"]) >= 0).all(), "replies were received in another order than their times say"
    for earlier, later in (("submitted", "started"), ("started", "finished"), ("finished", "received")):
        assert (trace[earlier] <= trace[later] + 1e-9).all(), f"a task was {later} before it was {earlier}"
    if shared:
        return
    for client in set(trace["client"].tolist()):
        mine = trace.table[trace["client"] == client]
        assert (np.diff(mine["task"]) > 0).all(), f"tasks of client {client} were answered out of order"
        assert (mine["started"][1:] >= mine["finished"][:-1] - 1e-9).all(), f"two tasks of client {client} ran at a time"


def _check_failure(engine: Engine) -> None:
    try:
        run(AsyncSGD(0.1), _Probe(4, 3, raises=True), engine, stop=MaxUpdates(50_000))
    except Exception as error:
        text = f"{type(error).__name__} {error}"
        assert "ZeroDivisionError" in text, f"the oracle's exception does not show in: {text}"
    else:
        raise AssertionError("an exception in an oracle went unnoticed")
