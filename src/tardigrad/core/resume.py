"""Go on with a run that was saved with its tasks in flight.

Rules of this file:

- on a virtual clock the resumed run equals the uninterrupted one in every bit; on real engines tasks in
  flight are submitted again, and the whole trace still replays;
- another problem, rule or version is refused, and the difference named: it would be another run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tardigrad.core.checkpoint import Checkpoint
from tardigrad.core.checks import check_parts
from tardigrad.core.drive import check_stop, execute
from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError, RunFileError
from tardigrad.core.observers import Observer
from tardigrad.core.plain import same_bits, type_name
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.rule import Rule
from tardigrad.core.run_files import other_versions
from tardigrad.core.session import Setup
from tardigrad.core.stopping import Status, Stop

#: statuses of runs that can go on; those of the others are final
_CAN_GO_ON = (Status.UNFINISHED, Status.INTERRUPTED)
_HAS_ENDED = (Status.DIVERGED, Status.STALLED)


def resume(
    run: Result | str | Path,
    rule: Rule[Any] | None = None,
    problem: Problem | None = None,
    *,
    engine: Engine | None = None,
    stop: Stop | None = None,
    observers: Observer | Sequence[Observer] = (),
    any_version: bool = False,
) -> Result:
    """Go on with a run from its last checkpoint.

    Parameters
    ----------
    run : path or Result
        A run's folder (`checkpoint=` of `tardigrad.run` writes one); or a result with its tasks in flight, such as that
        of an interrupted run or of a `WorkerError`.
    rule : Rule, optional
        The rule, to make sure that it is the saved one.
    problem : Problem, optional
        The problem, where it was not saved with the run; else to make sure that it is the same one.
    engine : Engine, optional
        Another engine to go on with: tasks in flight are submitted to it again. By default the saved one.
    stop : Stop, optional
        When to end, instead of the saved condition. Counts and seconds go on, they do not start again.
    observers : Observer or sequence of them
        Called while the run goes on.
    any_version : bool
        Go on although the run was made with other versions of Python, NumPy or tardigrad: bits may then differ.

    Returns
    -------
    Result
        Of the whole run. Checkpoints go on as before; a run that has ended is returned as it is unless there is a new `stop`.

    Raises
    ------
    RunFileError
        If the run cannot be read, holds no tasks in flight, or belongs to another problem, rule or version.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> args = (td.AsyncSGD(step=0.2), problem, td.Simulated(td.Exponential(1.0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = td.run(*args, stop=td.MaxUpdates(50), checkpoint=folder)
    ...     both = td.resume(folder, stop=td.MaxUpdates(100))
    >>> bool((both.x == td.run(*args, stop=td.MaxUpdates(100)).x).all())
    True
    """
    if isinstance(run, (str, Path)):
        where, earlier = str(run), Result.load(run, problem)
    elif isinstance(run, Result):
        # what goes on changes its state: that of the result given stays as it is
        where, earlier = "this result", run.copy()
    else:
        raise InvalidInputError(f"resume needs the folder of a run or a Result, not {run!r}")
    problem = problem or earlier.problem
    if problem is None:
        raise RunFileError(
            f"{where} was saved without its problem: pass it, tardigrad.resume(run, problem=...) (on the command line:"
            " --config RUN/config.toml where `tardigrad run` made it)"
        )
    _check(earlier, rule, problem, where, any_version)
    if stop is None and earlier.status not in _CAN_GO_ON:
        return earlier
    if earlier.in_flight is None or earlier.status in _HAS_ENDED:
        why = f"it {earlier.status.value}" if earlier.status in _HAS_ENDED else "make runs with checkpoint=FOLDER"
        raise RunFileError(f"{where} holds no tasks in flight, so it cannot go on: {why}")
    if engine is None:
        engine = earlier.engine
    elif not same_bits(engine, earlier.engine):
        earlier.in_flight = earlier.in_flight.bare()
    check_parts(earlier.rule, problem, engine)
    _check_engine(earlier, engine, where)
    stop = earlier.stop if stop is None else stop
    bounds = check_stop(stop, engine)
    if bounds.updates < earlier.state.version:
        raise InvalidInputError(f"{where} has {earlier.state.version} updates already: a limit of {bounds.updates} is too low")
    checkpoint = earlier.checkpoint
    if isinstance(run, (str, Path)):  # the folder may have been moved since
        kept = checkpoint or Checkpoint(str(run))
        checkpoint = dataclasses.replace(kept, folder=str(run))
    setup = Setup(
        rule=earlier.rule,
        given=earlier.given,
        problem=problem,
        engine=engine,
        stop=stop,
        x0=earlier.x0,
        seed=earlier.seed,
        concurrency=earlier.concurrency,
        concurrency_asked=earlier.concurrency_asked,
        max_staleness=earlier.max_staleness,
        replicas=earlier.replicas,
        snapshot_every=earlier.snapshot_every,
        checkpoint=checkpoint,
    )
    return execute(setup, observers, earlier)


def _check(earlier: Result, rule: Rule[Any] | None, problem: Problem, where: str, any_version: bool) -> None:
    """Refuse what would make another run of it."""
    expected = earlier.fingerprint
    if expected is None and earlier.problem is not None and problem is not earlier.problem:
        expected = _fingerprint(earlier.problem)
    if expected is not None and (given := _fingerprint(problem)) != expected:
        raise RunFileError(
            f"{where} was made on another problem (fingerprint {expected[:12]}, not {given and given[:12]}): pass the one"
            " it was made on"
        )
    if rule is not None:
        if isinstance(rule, Problem):
            raise InvalidInputError("the second argument of resume is the rule: pass problem=...")
        if not isinstance(rule, Rule):
            raise InvalidInputError(f"rule must be a rule such as AsyncSGD(step=0.1), not {rule!r}")
        difference = _difference(rule.configure(problem, earlier.concurrency, earlier.max_staleness), earlier.rule)
        if difference:
            raise RunFileError(f"{where} was made with another rule: {difference}")
    other = other_versions(earlier.made_with)
    if other and not any_version:
        raise RunFileError(
            f"{where} was made with {'; '.join(other)}: bits may differ. Use the same versions, or go on all the same with"
            " any_version=True (--any-version)"
        )


def _fingerprint(problem: Problem) -> str | None:
    """A problem's fingerprint; None where its class does not say what defines it."""
    try:
        return problem.fingerprint()
    except TypeError:
        return None


def _check_engine(earlier: Result, engine: Engine, where: str) -> None:
    """Refuse an engine on which a run of this kind cannot go on."""
    if engine.lock_free != earlier.engine.lock_free:
        how = "without a server (lock_free=True)" if earlier.engine.lock_free else "with a server"
        raise RunFileError(f"{where} was made {how}, and can only go on so: {engine!r} does otherwise")
    if engine.prescribes and not earlier.engine.prescribes:
        raise RunFileError(f"{where} has staleness as it came about: it cannot go on with {engine!r}, which prescribes it")


def _difference(given: Rule[Any], saved: Rule[Any]) -> str:
    """What sets two rules apart, for people."""
    if type_name(type(given)).partition(":")[2] != type_name(type(saved)).partition(":")[2]:
        return f"{type(saved).__name__}, not {type(given).__name__}"
    fields = saved.fields()
    for name, value in given.fields().items():
        if not same_bits(value, fields.get(name)):
            return f"its {name} is {fields.get(name)!r}, not {value!r}"
    return ""
