"""Compares two runs in every bit."""

from tardigrad.core.plain import same_bits
from tardigrad.core.trace import COLUMNS

PARTS = ("status", "message", "x", "state", "diverged", "oracle_calls", "rule", "x0", "seed", "concurrency", "replicas")


def assert_same_runs(a, b, in_flight=True):
    """All that a run's course decides: trace, history, state, counts, tasks in flight and clock."""
    assert len(a.trace) == len(b.trace)
    for name in COLUMNS:
        assert same_bits(a.trace[name], b.trace[name]), f"column {name} of the trace"
    assert a.trace.updates == b.trace.updates
    for name in ("version", "replies", "seconds", "x"):
        assert same_bits(getattr(a.history, name), getattr(b.history, name)), f"{name} of the history"
    for name in (*PARTS, "tolerances_due"):
        assert same_bits(getattr(a, name), getattr(b, name)), f"{name}: {getattr(a, name)!r} and {getattr(b, name)!r}"
    if in_flight:
        assert (a.in_flight is None) == (b.in_flight is None)
        assert same_bits(a.in_flight, b.in_flight), "the tasks in flight"
