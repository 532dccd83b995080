"""Runs on the virtual clock whose numerics cost nothing, for what looks at traces."""

import tardigrad as td
from tardigrad.benchmarks.simulator import Identity


def simulated(timing, n_clients=4, n=10_000, rule=None, seed=0, **kwargs):
    """The trace of a run on the virtual clock whose numerics cost nothing."""
    workers = kwargs.pop("workers", None)
    engine = td.Simulated(timing, workers)
    rule = rule or td.AsyncSGD(1e-9)
    return td.run(rule, Identity(n_clients, 1), engine, stop=td.MaxUpdates(n), seed=seed, **kwargs).trace
