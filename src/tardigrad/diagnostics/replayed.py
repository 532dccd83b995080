"""A finished run once more, with somebody watching: what a diagnosis needs is not recorded while workers wait."""

from __future__ import annotations

from tardigrad.core.drive import run
from tardigrad.core.errors import ReplayError, RunFileError
from tardigrad.core.observers import Observer
from tardigrad.core.plain import same_bits
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.engines.replay import Replay


def problem_of(result: Result, problem: Problem | None) -> Problem:
    """The problem that is given, or else the run's; an error where it can be neither replayed nor has one."""
    if not result.replayable:
        raise ReplayError("this run cannot be replayed: its workers read the iterate while it was being changed")
    found = result.problem if problem is None else problem
    if found is None:
        raise RunFileError("the run was saved without its problem: pass it, problem=...")
    return found


def replay_watched(result: Result, problem: Problem, observer: Observer) -> None:
    """Replay the run with an observer; an error if it does not end in the same bits."""
    again = run(
        result.rule,
        problem,
        Replay(result.trace),
        stop=None,
        x0=result.x0,
        seed=result.seed,
        concurrency=result.concurrency,
        max_staleness=result.max_staleness,
        replicas=result.replicas,
        observers=observer,
    )
    if not same_bits(again.x, result.x):
        raise ReplayError("replayed, the run ends elsewhere: the problem, the library or the kind of CPU is another one")
