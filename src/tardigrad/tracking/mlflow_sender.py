"""One run at an MLflow tracking server or in its files; the only module that imports MLflow.

Rules of this file:

- all that MLflow does is done in a thread of its own: neither the run nor Ctrl-C waits for a server;
- what could not be sent is kept and sent with the next values; the last failure is told to whoever asks, never raised there.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from tardigrad.core.errors import InvalidInputError, TrackerError

#: seconds that a server has to answer before the run starts, and between two signs of life at its end
PATIENCE = 30.0
#: what MLflow takes in one request
_METRICS, _PARAMETERS = 1000, 100


def import_mlflow() -> Any:
    """MLflow, or an error that says how to get it."""
    try:
        return importlib.import_module("mlflow")
    except ImportError as error:
        raise InvalidInputError(f"MLflow cannot be imported ({error}): pip install 'tardigrad[mlflow]'") from error


class Sender:
    """A run in MLflow, made when this is; values are sent behind the caller's back.

    Parameters
    ----------
    uri : str or None
        Of the tracking server, or a folder; None for MLflow's own choice (``MLFLOW_TRACKING_URI``).
    experiment : str
        Made where there is none of this name.
    run_name : str or None
        None lets MLflow choose.
    parameters : mapping of str
        Of the run.

    Raises
    ------
    TrackerError
        If the server does not answer in time, or refuses the run.
    """

    def __init__(self, uri: str | None, experiment: str, run_name: str | None, parameters: Mapping[str, str]) -> None:
        self._mlflow = import_mlflow()
        self.uri = self._mlflow.get_tracking_uri() if uri is None else uri
        if "://" not in self.uri.removeprefix("file:"):
            # MLflow wants to be told that files are really meant
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._experiment, self._run_name, self._parameters = experiment, run_name, parameters
        self._metrics: list[Any] = []
        self._tags: dict[str, str] = {}
        self._status: str | None = None
        self._given_up = False
        self._turn = threading.Condition()
        self._ready, self._done = threading.Event(), threading.Event()
        self._heard = time.monotonic()
        self.run_id: str | None = None
        self.failure: str | None = None
        threading.Thread(target=self._serve, name="tardigrad MLflow", daemon=True).start()
        try:
            answered = self._ready.wait(PATIENCE)
        except BaseException:  # Ctrl-C
            self._give_up()
            raise
        if not answered or self.run_id is None:
            self._give_up()
            reason = self.failure or f"it did not answer within {PATIENCE:g} s"
            raise TrackerError(
                f"MLflow at {self.uri} takes no run: {reason}. Check tracking_uri: the http address of a running server, or a"
                " folder for files; for databases (sqlite://...) install the whole package, pip install mlflow"
            )

    def send(self, values: Mapping[str, float], step: int, milliseconds: int) -> None:
        """Send some metrics, soon."""
        entity = self._mlflow.entities.Metric
        with self._turn:
            self._metrics += [entity(name, value, milliseconds, step) for name, value in values.items()]
            self._turn.notify()

    def end(self, status: str, tags: Mapping[str, str]) -> str | None:
        """Send what is left, then the status; what was lost by that, if anything."""
        with self._turn:
            self._tags, self._status = dict(tags), status
            self._heard = time.monotonic()
            self._turn.notify()
        while not self._done.wait(0.05):
            if time.monotonic() - self._heard > PATIENCE:
                self._give_up()
                break
        lost = len(self._metrics)
        if self._done.is_set() and self.failure is None:
            return None
        reason = self.failure or f"it did not answer within {PATIENCE:g} s"
        return f"the end of the run, and {lost} values, did not get to MLflow at {self.uri}: {reason}"

    def _give_up(self) -> None:
        with self._turn:
            self._given_up = True
            self._turn.notify()

    # --- in the thread ---

    def _serve(self) -> None:
        try:
            self._begin()
        except Exception as error:  # of the network, of the server
            self.failure = _line(error)
            return
        finally:
            self._ready.set()
        while not self._given_up:
            with self._turn:
                while not (self._metrics or self._status or self._given_up):
                    self._turn.wait()
                ending = self._status
            try:
                self._flush()
                if ending is not None:
                    for name, text in self._tags.items():
                        self._client.set_tag(self.run_id, name, text)
                    self._client.set_terminated(self.run_id, ending)
                self.failure = None
            except Exception as error:
                self.failure = _line(error)
                with self._turn:
                    if self._status is None and not self._given_up:  # try again, with the next values
                        self._turn.wait()
            if ending is not None:
                self._done.set()
                return

    def _begin(self) -> None:
        self._client = client = self._mlflow.MlflowClient(tracking_uri=self.uri)
        found = client.get_experiment_by_name(self._experiment)
        number = client.create_experiment(self._experiment) if found is None else found.experiment_id
        run_id = client.create_run(number, run_name=self._run_name).info.run_id
        parameters = [self._mlflow.entities.Param(name, text) for name, text in self._parameters.items()]
        for low in range(0, len(parameters), _PARAMETERS):
            client.log_batch(run_id, params=parameters[low : low + _PARAMETERS])
        if self._given_up:
            client.set_terminated(run_id, "FAILED")
        self.run_id = run_id

    def _flush(self) -> None:
        while self._metrics and not self._given_up:
            batch = self._metrics[:_METRICS]
            self._client.log_batch(self.run_id, metrics=batch)
            self._heard = time.monotonic()
            with self._turn:
                del self._metrics[: len(batch)]


def _line(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:600]}"
