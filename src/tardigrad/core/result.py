"""What a run returns: the answer, why it ended, and everything needed to draw it and to replay it.

Rules of this file:

- a result is usable whatever its status;
- a saved run is a folder of plain data: ``run.json``, ``arrays.npz``, ``trace.npz``, ``history.npz``.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.engine import Engine
from tardigrad.core.errors import RunFileError
from tardigrad.core.files import pack_arrays, read_folder, unpack_arrays, write_folder
from tardigrad.core.observers import History
from tardigrad.core.plain import decode, encode
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Rule, State
from tardigrad.core.stopping import Status, Stop
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace

#: arrays of a problem above this size are saved only if asked for
LARGE = 256 * 2**20

#: what is saved as it is, apart from the trace, the history and the problem
_PLAIN = (
    *("x", "message", "state", "diverged", "rule", "engine", "stop", "x0", "seed", "concurrency", "max_staleness"),
    *("replicas", "snapshot_every", "oracle_calls", "wall_seconds", "measure_seconds"),
)


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
    oracle_calls : int
        Gradients in the replies that were applied.
    wall_seconds, measure_seconds : float
        Real time of the run, and the part of it spent on the measures of tolerances.
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
    fingerprint: str | None = field(default=None)

    def __repr__(self) -> str:
        return (
            f"<Result {self.status.value}: {self.message}; {type(self.rule).__name__} on {type(self.engine).__name__},"
            f" {self.trace.updates} updates, {len(self.trace)} replies>"
        )

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

    def save(self, folder: str | Path, with_problem: bool | None = None) -> Path:
        """Write the run as plain data.

        Parameters
        ----------
        folder : path
            Created if needed; files of an older run in it are replaced.
        with_problem : bool, optional
            Whether to save the problem's data too. By default that is done if the data are a named set
            (saved by name) or at most 256 MiB. Without it, a replay must be given the problem;
            so it must be where the problem's class does not say how it is rebuilt (`Plain.fields`).

        Raises
        ------
        RunFileError
            If the folder cannot be written.
        """
        folder = Path(folder)
        arrays: dict[str, Array] = {}
        try:
            tree = {name: encode(getattr(self, name), arrays) for name in _PLAIN}
        except TypeError as error:
            raise RunFileError(f"this run cannot be saved: {error}") from error
        files = {"arrays.npz": pack_arrays(arrays), "trace.npz": self.trace.to_bytes()}
        columns = {name: getattr(self.history, name) for name in ("version", "replies", "seconds", "x")}
        columns.update({f"measure_{name}": values for name, values in self.history.measures.items()})
        files["history.npz"] = pack_arrays(columns)
        problem_tree = self._save_problem(files, with_problem) if self.problem is not None else None
        header = {
            "tardigrad": version("tardigrad"),
            "made_with": made_with(),
            "status": self.status.value,
            "fingerprint": self.fingerprint,
            "problem": problem_tree,
            "run": tree,
        }
        write_folder(folder, header, files)
        return folder

    def _save_problem(self, files: dict[str, bytes], wanted: bool | None) -> Any:
        """The problem's tree, its data added to the files; None where it is left out."""
        assert self.problem is not None
        data: dict[str, Array] = {}
        try:
            tree = encode(self.problem, data)
        except TypeError as error:
            if wanted:
                raise RunFileError(f"the problem cannot be saved: {error}") from error
            warnings.warn(f"saved without the problem, so a replay must be given it: {error}", stacklevel=3)
            return None
        self.fingerprint = self.problem.fingerprint()
        if wanted is None:
            wanted = sum(array.nbytes for array in data.values()) <= LARGE
        if not wanted:
            return None
        files["problem.npz"] = pack_arrays(data)
        return tree

    @classmethod
    def load(cls, folder: str | Path, problem: Problem | None = None) -> Result:
        """Read a run that `save` wrote; a given problem takes the place of the saved one.

        Raises
        ------
        RunFileError
            If a file is missing, cut short, changed, or from a newer version, if the run uses classes that
            are not defined here, or if the problem given is another one.
        """
        folder = Path(folder)
        header, files = read_folder(folder)
        try:
            arrays = unpack_arrays(files["arrays.npz"], folder / "arrays.npz")
            columns = unpack_arrays(files["history.npz"], folder / "history.npz")
            trace = Trace.from_bytes(files["trace.npz"], folder / "trace.npz")
            measures = {name.removeprefix("measure_"): columns[name] for name in columns if name.startswith("measure_")}
            values = {name: decode(header["run"][name], arrays) for name in _PLAIN}
            fingerprint, status = header["fingerprint"], Status(header["status"])
            tree = header["problem"]
        except (KeyError, ValueError, TypeError) as error:
            raise RunFileError(f"{folder} is not a saved run that this version understands ({error!r})") from error
        if problem is None and tree is not None:
            if "problem.npz" not in files:
                raise RunFileError(f"{folder}: run.json lists no problem.npz, but the run was saved with its problem")
            problem = decode(tree, unpack_arrays(files["problem.npz"], folder / "problem.npz"))
        if problem is not None and fingerprint is not None and problem.fingerprint() != fingerprint:
            raise RunFileError(
                f"the run in {folder} was made on another problem (fingerprint {fingerprint[:12]}, not"
                f" {problem.fingerprint()[:12]}): pass the one it was made on"
            )
        history = History.from_columns(columns, measures)
        return cls(status=status, history=history, trace=trace, problem=problem, fingerprint=fingerprint, **values)


def made_with() -> dict[str, str]:
    """Versions and machine that bits may depend on."""
    return {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
