"""How a run is laid out in its folder, finished or not.

Rules of this file:

- everything is plain data: a JSON tree, arrays, the columns of the trace and of the history;
- what grows with a run (trace, history) is written in stretches: a checkpoint adds one, and now and then
  merges small ones, so that in all each row is written a few times, not once a checkpoint;
- a problem is written once.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tardigrad.core.errors import RunFileError
from tardigrad.core.files import RunFolder, read_folder
from tardigrad.core.observers import History
from tardigrad.core.plain import decode, encode
from tardigrad.core.problem import Problem
from tardigrad.core.stopping import Status
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace, columns_of

if TYPE_CHECKING:
    from tardigrad.core.result import Result

#: arrays of a problem above this size are saved only if asked for
LARGE = 256 * 2**20

#: what is saved as it is, apart from the trace, the history and the problem
_PLAIN = (
    *("x", "message", "state", "diverged", "rule", "engine", "stop", "x0", "seed", "concurrency", "max_staleness"),
    *("replicas", "snapshot_every", "oracle_calls", "wall_seconds", "measure_seconds", "incidents", "in_flight"),
    *("tolerances_due", "checkpoint", "replayable"),
)
#: what runs are saved with that older ones lack, which are read all the same
_ADDED = ("given", "concurrency_asked", "solver")
#: the part of the data that the tree refers to, and the problem's
_ARRAYS, _PROBLEM, _MEASURES = "arrays", "problem", "measures"


class Rows(Protocol):
    """Rows of a trace, finished (`Trace`) or growing (`Recorder`)."""

    def __len__(self) -> int: ...

    def rows(self, begin: int, end: int) -> Array:
        """Some of them."""


class RunWriter:
    """Writes a run to a folder, once or again and again.

    Parameters
    ----------
    folder : Path
        Created if needed; files of an older run in it are replaced.
    with_problem : bool, optional
        See `Result.save`.
    """

    def __init__(self, folder: Path, with_problem: bool | None = None) -> None:
        self.folder = folder
        self._store = RunFolder(folder)
        self._with_problem = with_problem
        self._problem: tuple[Any, str | None] | None = None
        self._stretches: dict[str, list[int]] = {"trace": [], "history": []}

    def close(self) -> None:
        """Let others write to the folder."""
        self._store.close()

    def write(self, run: Result, rows: Rows) -> None:
        """Make `run`, its trace being `rows`, the run in the folder."""
        arrays: dict[str, Array] = {}
        try:
            tree = {name: encode(getattr(run, name), arrays) for name in _PLAIN}
        except TypeError as error:
            raise RunFileError(f"this run cannot be saved: {error}") from error
        tree |= _as_asked(run, arrays)
        names = [self._store.put(_ARRAYS, arrays)]
        problem, fingerprint = self._problem or self._save_problem(run.problem)
        if _PROBLEM in self._store:
            names.append(_PROBLEM)
        trace = self._grow("trace", len(rows), lambda low, high: columns_of(rows.rows(low, high)))
        history = self._grow("history", len(run.history), run.history.columns)
        if run.history.measures:
            names.append(self._store.put(_MEASURES, run.history.measures))
        header = {
            "tardigrad": run.made_with["tardigrad"],
            "made_with": run.made_with,
            "status": run.status.value,
            "updates": int(run.state.version),
            "fingerprint": fingerprint or run.fingerprint,
            "problem": problem,
            "trace": trace,
            "history": history,
            "run": tree,
        }
        self._store.commit(header, [*names, *trace, *history])

    def _grow(self, kind: str, total: int, columns: Any) -> list[str]:
        """Write what has been added, merging the last stretches while they are small; the names of all."""
        ends = self._stretches[kind]
        if total > (ends[-1] if ends else 0):
            ends.append(total)
        while len(ends) > 1 and 2 * (ends[-1] - ends[-2]) >= ends[-2] - (ends[-3] if len(ends) > 2 else 0):
            del ends[-2]
        names = []
        for begin, end in zip([0, *ends], ends, strict=False):
            name = f"{kind}-{begin}-{end}"
            if name not in self._store:
                self._store.put(name, columns(begin, end))
            names.append(name)
        return names

    def _save_problem(self, problem: Problem | None) -> tuple[Any, str | None]:
        """The problem's tree, its data in the folder, and its fingerprint; None where it is left out."""
        nothing: tuple[Any, str | None] = (None, None)
        if problem is None:
            self._problem = nothing
            return nothing
        data: dict[str, Array] = {}
        try:
            tree = encode(problem, data)
        except TypeError as error:
            if self._with_problem:
                raise RunFileError(f"the problem cannot be saved: {error}") from error
            if self._with_problem is None:  # who said False knows
                warnings.warn(f"saved without the problem, so a replay must be given it: {error}", stacklevel=4)
            self._problem = None, _fingerprint(problem)
            return self._problem
        fingerprint = problem.fingerprint()
        wanted = self._with_problem
        if wanted is None:
            wanted = sum(array.nbytes for array in data.values()) <= LARGE
        if wanted:
            self._store.put(_PROBLEM, data)
        self._problem = tree if wanted else None, fingerprint
        return self._problem


def read_run(folder: Path, problem: Problem | None = None) -> dict[str, Any]:
    """The fields of the `Result` in a folder."""
    header, parts = read_folder(folder)
    try:
        arrays = parts[_ARRAYS]
        values = {name: decode(header["run"][name], arrays) for name in _PLAIN}
        values.update({name: decode(header["run"].get(name), arrays) for name in _ADDED})
        trace = Trace.from_parts(header, parts, folder)
        history = History.from_columns([parts[name] for name in header["history"]], parts.get(_MEASURES, {}))
        fingerprint, status = header["fingerprint"], Status(header["status"])
        tree, made = header["problem"], dict(header["made_with"])
    except (KeyError, ValueError, TypeError) as error:
        raise RunFileError(f"{folder} is not a saved run that this version understands ({error!r})") from error
    if problem is None and tree is not None:
        if _PROBLEM not in parts:
            raise RunFileError(f"{folder}: run.json lists no {_PROBLEM}, but the run was saved with its problem")
        problem = decode(tree, parts[_PROBLEM])
    if problem is not None and fingerprint is not None:
        try:
            found = problem.fingerprint()
        except TypeError as error:
            raise RunFileError(f"the problem of the run in {folder} had a fingerprint, this one has none: {error}") from error
        if found != fingerprint:
            raise RunFileError(
                f"the run in {folder} was made on another problem (fingerprint {fingerprint[:12]}, not {found[:12]}): pass"
                " the one it was made on"
            )
    kept = {"trace": trace, "history": history, "status": status, "problem": problem, "fingerprint": fingerprint}
    return {**values, **kept, "made_with": made}


def _as_asked(run: Result, arrays: dict[str, Array]) -> dict[str, Any]:
    """What `_ADDED` names; without the rule as given where only `configure` made it plain data."""
    try:
        given = encode(run.given, arrays)
    except TypeError:
        given = None
    return {"given": given, "concurrency_asked": run.concurrency_asked, "solver": run.solver}


def _fingerprint(problem: Problem) -> str | None:
    """That of a problem which cannot be saved, where it has one all the same."""
    try:
        return problem.fingerprint()
    except TypeError:
        return None


def made_with() -> dict[str, str]:
    """Versions and machine that bits may depend on."""
    return {
        "tardigrad": _installed_version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


def other_versions(made: Mapping[str, str]) -> list[str]:
    """What a run was made with that is otherwise here, each in words."""
    here = made_with()
    return [f"{name} {then}, here {here.get(name)}" for name, then in made.items() if here.get(name) != then]


@cache
def _installed_version() -> str:
    """That of this package; looked up once, because it is read from a file, which takes as long as writing a small run."""
    return version("tardigrad")
