"""A finished run once more, with somebody watching: what a diagnosis needs is not recorded while workers wait."""

from __future__ import annotations

from tardigrad.core.errors import ReplayError, RunFileError
from tardigrad.core.observers import Observer
from tardigrad.core.plain import same_bits
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.engines.replay import replay


def problem_of(result: Result, problem: Problem | None) -> Problem:
    """The problem that is given, or else the run's."""
    found = result.problem if problem is None else problem
    if found is None:
        raise RunFileError("the run was saved without its problem: pass it, problem=...")
    return found


def replay_watched(result: Result, problem: Problem, observer: Observer) -> None:
    """Replay the run with an observer; an error if it does not end in the same bits."""
    if not same_bits(replay(result, problem, observer).result.x, result.x):
        raise ReplayError("replayed, the run ends elsewhere: the problem, the library or the kind of CPU is another one")
