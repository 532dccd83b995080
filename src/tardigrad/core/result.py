"""What a run returns: the answer, why it ended, and everything needed to draw it and to replay it.

Rules of this file:

- a result is usable whatever its status;
- how it is saved is `tardigrad.core.run_files`'s business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tardigrad.core.checkpoint import Checkpoint
from tardigrad.core.engine import Engine
from tardigrad.core.errors import RunFileError
from tardigrad.core.in_flight import InFlight
from tardigrad.core.observers import History
from tardigrad.core.plain import decode, encode
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Rule, State
from tardigrad.core.run_files import RunWriter, made_with, read_run
from tardigrad.core.stopping import Status, Stop
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace


@dataclass
class Result:
    """The outcome of `tardigrad.run`.

    Attributes
    ----------
    x : array (..., dim)
        The answer. For a replica that diverged, its last finite iterate.
    status : Status
        Why the run ended.
    message : str
        The same for people.
    state : State
        The rule's state.
    history : History
        Snapshots; ``evaluate()`` computes the problem's measures on them.
    trace : Trace
        A row a reply.
    diverged : array of bool (...)
        Replicas whose payloads turned non-finite.
    problem : Problem or None
        None where a loaded run was saved without it.
    rule, engine, stop, x0, seed, concurrency, max_staleness, replicas, snapshot_every
        What the run was made with, the rule as configured.
    given : Rule or None
        The rule as the user gave it, before `Rule.configure`. None for a run that was saved before this was recorded.
    concurrency_asked : int or None
        What the user gave as concurrency; None where it was left to the rule.
    solver : str or None
        The function that chose rule, engine and the rest, such as "minimize"; None where the user did.
    oracle_calls : int
        Gradients in the replies that were applied.
    wall_seconds, measure_seconds : float
        Real time of the run, and the part of it spent on the measures of tolerances.
    incidents : list of dict
        What went wrong on the way: workers that died, raised or were slow, each with seconds, kind, worker, task, text.
    in_flight : InFlight or None
        Tasks in flight, which `tardigrad.resume` takes up. Kept where the run did not come to its end.
    tolerances_due : list of float
        At which versions the tolerances of `stop` are looked at next.
    checkpoint : Checkpoint or None
        Where and how often the run was saved while it went on.
    replayable : bool
        Whether the trace determines the run: not where workers read what the server was changing.
    made_with : dict
        Versions that the bits of a run may depend on.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(2), np.ones(2)), td.Iid(2))
    >>> result = td.run(td.AsyncSGD(0.5), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(100))
    >>> print(result)
    <Result max_updates: reached the limit of 100 updates; AsyncSGD on Simulated, 100 updates, 100 replies>
    >>> result.x.round(6), result.status.value, result.trace.updates
    (array([1., 1.]), 'max_updates', 100)
    """

    x: Array
    status: Status
    message: str
    state: State
    history: History
    trace: Trace
    diverged: Array
    problem: Problem | None
    rule: Rule[Any]
    engine: Engine
    stop: Stop | None
    x0: Array
    seed: int
    concurrency: int
    max_staleness: int | None
    replicas: int | None
    snapshot_every: int | None
    oracle_calls: int
    wall_seconds: float
    measure_seconds: float
    incidents: list[dict[str, Any]] = field(default_factory=list)
    in_flight: InFlight | None = None
    tolerances_due: list[float] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    replayable: bool = True
    made_with: dict[str, str] = field(default_factory=made_with)
    fingerprint: str | None = None
    given: Rule[Any] | None = None
    concurrency_asked: int | None = None
    solver: str | None = None

    def __repr__(self) -> str:
        return (
            f"<Result {self.status.value}: {self.message}; {type(self.rule).__name__} on {type(self.engine).__name__},"
            f" {self.trace.updates} updates, {len(self.trace)} replies>"
        )

    def copy(self) -> Result:
        """The same run with a state and a history of its own, which can go on without changing this one."""
        arrays: dict[str, Array] = {}
        state = decode(encode(self.state, arrays), {name: array.copy(order="K") for name, array in arrays.items()})
        return dataclasses.replace(self, state=state, history=self.history.copy())

    def evaluate(self, names: Collection[str] | None = None, problem: Problem | None = None) -> dict[str, Array]:
        """Measures at every snapshot of the history: all or those named, of the run's problem or another one."""
        problem = problem or self.problem
        if problem is None:
            raise RunFileError("this run was saved without its problem: pass it, result.evaluate(problem=...)")
        return self.history.evaluate(problem, names)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the run: measures, staleness, who worked when. Returns a matplotlib figure, saved if a path is given."""
        from tardigrad.report.run_figure import draw_run

        return draw_run(self, path)

    def report(self, path: str | Path, name: str = "run", snapshots: int | None = None) -> Path:
        """Write one HTML page about the run, which needs no network; ``tardigrad report`` does it for saved runs.

        Parameters
        ----------
        path : path
            The page; an older one is replaced.
        name : str
            What the page calls the run.
        snapshots : int, optional
            Replay the run if it kept fewer snapshots, for about so many points of its curves.

        Raises
        ------
        InvalidInputError
            If `snapshots` is below 2.
        RunFileError
            If the page cannot be written.
        """
        from tardigrad.report.html_page import ReportedRun, write_report

        return write_report([ReportedRun(name, self)], path, snapshots)

    def save(self, folder: str | Path, with_problem: bool | None = None) -> Path:
        """Write the run as plain data: ``run.json`` and npz files, none of them in place of what another run still needs.

        Parameters
        ----------
        folder : path
            Created if needed; files of an older run in it are replaced.
        with_problem : bool, optional
            Whether to save the problem's data too. By default that is done if the data are a named set
            (saved by name) or at most 256 MiB. Without it, a replay must be given the problem;
            so it must be where the problem's class does not say how it is rebuilt (`Plain.fields`), which is a
            warning unless this is False.

        Raises
        ------
        RunFileError
            If the folder cannot be written.
        """
        writer = RunWriter(Path(folder), with_problem)
        try:
            writer.write(self, self.trace)
        finally:
            writer.close()
        return writer.folder

    @classmethod
    def load(cls, folder: str | Path, problem: Problem | None = None) -> Result:
        """Read a run that `save` wrote, or a checkpoint of a run that goes on or was cut off.

        Parameters
        ----------
        folder : path
            Of the run.
        problem : Problem, optional
            Takes the place of the saved one.

        Raises
        ------
        RunFileError
            If a file is missing, cut short, changed, or from another version, if the run uses classes that
            are not defined here, or if the problem given is another one.
        """
        fields: Mapping[str, Any] = read_run(Path(folder), problem)
        return cls(**fields)
