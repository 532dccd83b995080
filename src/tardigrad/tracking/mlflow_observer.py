"""An observer that logs a run to MLflow: what it is made with, how it goes on, how it ended.

Rules of this file:

- a tracker is never worth a run: once a run has begun, a server that fails costs a warning and nothing else;
- steps are updates; times are the engine's seconds after the start, so that charts over relative time show these.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.stopping import Limits, Status
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace
from tardigrad.tracking.mlflow_sender import Sender, import_mlflow
from tardigrad.tracking.parameters import flatten

When = Literal["after", "live", "never"]
_ENDED = {Status.INTERRUPTED: "KILLED", Status.DIVERGED: "FAILED"}


class MLflow(Observer):
    """Log a run to MLflow (extra ``mlflow``).

    Parameters of rule, problem, engine, stop and the rest are logged at the start; every so many updates the engine's
    seconds, replies, updates per second and diverged replicas; at the end the measures, a summary of staleness, and why the
    run ended (tags ``tardigrad.status`` and ``tardigrad.message``). MLflow's status is KILLED for an interrupted run, FAILED
    for one that diverged or ended with an exception, else FINISHED. A resumed run is a new one in MLflow, whose steps go on.

    A server that does not answer before the run starts is an error. One that fails later costs a warning: values are kept
    and sent when it answers again. The run does not wait for it, except for up to 30 s without an answer at the very end.

    Parameters
    ----------
    experiment : str
        Name of the experiment; made if there is none.
    run_name : str, optional
        By default MLflow makes one up.
    tracking_uri : str, optional
        Address of a tracking server (``http://...``), or a folder; by default MLflow's own choice, such as
        ``MLFLOW_TRACKING_URI``.
    every : int
        Updates between two points of the curves.
    measures : {"after", "live", "never"}
        When the problem's measures are evaluated: when the run has ended, from copies of the iterate that are kept until
        then; while it goes on, for which workers may wait; or not at all. Of several replicas: minimum, mean, maximum.

    Raises
    ------
    InvalidInputError
        If MLflow is not installed.

    Examples
    --------
    >>> import tempfile, numpy as np, tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tracker = td.MLflow("identity", tracking_uri=folder, every=50)
    ...     engine, stop = td.Simulated(td.Constant(1.0)), td.MaxUpdates(200)
    ...     result = td.run(td.AsyncSGD(0.1), problem, engine, stop=stop, observers=tracker)
    ...     run = tracker.client().get_run(tracker.run_id)
    >>> run.info.status, run.data.params["rule.step"], run.data.metrics["replies"]
    ('FINISHED', '0.1', 200.0)
    """

    def __init__(
        self,
        experiment: str = "tardigrad",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        every: int = 100,
        measures: When = "after",
    ) -> None:
        if measures not in ("after", "live", "never"):
            raise InvalidInputError(f"measures must be 'after', 'live' or 'never', not {measures!r}")
        if not (isinstance(experiment, str) and experiment.strip()):
            raise InvalidInputError(f"experiment must be the name of one, not {experiment!r}")
        import_mlflow()
        self.experiment, self.run_name, self.every, self.measures = experiment, run_name, every, measures
        self.tracking_uri = None if tracking_uri is None else str(tracking_uri)
        self.run_id: str | None = None
        self._sender: Sender | None = None
        self._parts: Mapping[str, Any] = {}

    def client(self) -> Any:
        """MLflow's own client for the place that runs are logged to."""
        return import_mlflow().MlflowClient(tracking_uri=self.tracking_uri)

    def set_up(self, parts: Mapping[str, Any]) -> None:
        self._parts = parts

    def open(self, problem: Problem, stop: Limits) -> None:
        parameters: dict[str, str] = {}
        for name, part in self._parts.items():
            parameters.update(flatten(name, part))
        parameters.update({f"problem.{name}": str(getattr(problem, name)) for name in ("n_clients", "dim", "dtype")})
        self._problem = problem
        self._points: list[tuple[int, int, Array]] = []
        self._last: Moment | None = None
        self._warned = False
        self._sender = Sender(self.tracking_uri, self.experiment, self.run_name, parameters)
        self.run_id = self._sender.run_id
        self._began = time.time()

    def observe(self, moment: Moment) -> None:
        sender, last = self._sender, self._last
        if sender is None:
            return
        values: dict[str, float] = {"seconds": moment.seconds, "replies": moment.replies}
        if last is not None and moment.seconds > last.seconds:
            values["updates_per_second"] = (moment.version - last.version) / (moment.seconds - last.seconds)
        if moment.diverged.any():
            values["diverged"] = int(moment.diverged.sum())
        when = round(1000 * (self._began + moment.seconds))
        if self.measures == "live":
            values.update(_measured(self._problem, moment.x))
        elif self.measures == "after":
            self._points.append((moment.version, when, moment.x.copy()))
        self._last = moment
        sender.send(values, moment.version, when)
        if sender.failure is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"MLflow at {sender.uri} takes no values ({sender.failure}); the run goes on, they are kept and sent when it"
                " answers again",
                stacklevel=2,
            )

    def close(self, status: Status | None, message: str) -> None:
        sender, self._sender = self._sender, None
        if sender is None:
            return
        ended = _ENDED.get(status, "FINISHED") if status is not None else "FAILED"
        if status is None and message.startswith("KeyboardInterrupt"):
            ended = "KILLED"
        try:
            if status is not None:
                self._summarize(sender)
        except KeyboardInterrupt:
            ended = "KILLED"
            raise
        finally:
            tags = {"tardigrad.status": "failed" if status is None else status.value, "tardigrad.message": message[:5000]}
            lost = sender.end(ended, tags)
            self._points, self._last, self._parts = [], None, {}
        if lost is not None:
            warnings.warn(lost, stacklevel=2)

    def _summarize(self, sender: Sender) -> None:
        """Measures of the points that were kept, and the staleness of the whole run."""
        for version, when, x in self._points:
            sender.send(_measured(self._problem, x), version, when)
        last = self._last
        if last is None or not last.replies:
            return
        rows = last.rows(0, last.replies)
        if not len(rows):  # a lock-free run has none
            return
        summary = dataclasses.asdict(Trace(rows, last.version).summary())
        quantiles = {f"staleness_q{round(100 * level)}": value for level, value in summary["staleness_quantiles"].items()}
        numbers = {name: value for name, value in summary.items() if isinstance(value, Real)}
        values = {f"summary.{name}": float(value) for name, value in {**numbers, **quantiles}.items()}
        sender.send(values, last.version, round(1000 * (self._began + last.seconds)))


def _measured(problem: Problem, x: Array) -> dict[str, float]:
    """Measures at `x`; of replicas their minimum, mean and maximum."""
    values: dict[str, float] = {}
    for name, value in problem.measures(x).items():
        array = np.asarray(value, float)
        if array.ndim:
            values.update({f"{name}.{what}": float(getattr(array, what)()) for what in ("min", "mean", "max")})
        else:
            values[name] = float(array)
    return values
