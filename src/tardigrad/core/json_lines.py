"""An observer that writes a run to a file while it goes on, a line of JSON at a time.

Rules of this file:

- a line is written at once and whole: whoever follows the file sees no half of one;
- a file that cannot be written ends the run, with an error that names it;
- JSON has no infinity and no NaN: they are null, here and wherever else the library writes JSON for others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from tardigrad.core.errors import RunFileError
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.stopping import Limits, Status


def for_json(value: Any) -> Any:
    """A tree as JSON can hold it: arrays are lists, keys texts, numbers that are not finite null.

    Examples
    --------
    >>> for_json({"loss": np.array([0.5, np.inf]), 0.99: (np.float32(2.0), "nan")})
    {'loss': [0.5, None], '0.99': [2.0, 'nan']}
    """
    if isinstance(value, Mapping):
        return {str(key): for_json(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [for_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class JSONLines(Observer):
    """Write a line of JSON every so many updates: version, replies, seconds, and measures if asked for.

    Parameters
    ----------
    path : path
        File to append to.
    every : int
        Updates between lines.
    measures : bool
        Evaluate the problem's measures too; on real engines workers may wait for that.

    Raises
    ------
    RunFileError
        If the file cannot be written, which ends the run.

    Notes
    -----
    ``seconds`` are the engine's. The last line holds the status and the message of the run instead.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> args = (td.AsyncSGD(step=0.2), problem, td.Simulated(td.Constant(1.0)))
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     result = td.run(*args, stop=td.MaxUpdates(8), observers=td.JSONLines(file.name, every=4))
    ...     lines = file.read().splitlines()
    >>> lines[1].decode()
    '{"version": 4, "replies": 4, "seconds": 1.0}'
    """

    def __init__(self, path: str | Path, every: int = 100, measures: bool = False) -> None:
        self.path = Path(path)
        self.every = every
        self.measures = measures
        self._file: IO[bytes] | None = None
        self._problem: Problem | None = None

    def open(self, problem: Problem, stop: Limits) -> None:
        self._problem = problem
        try:
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            raise RunFileError(f"cannot write {self.path}: {error.strerror or error}") from error

    def observe(self, moment: Moment) -> None:
        line: dict[str, Any] = {"version": moment.version, "replies": moment.replies, "seconds": moment.seconds}
        if self.measures and self._problem is not None:
            line.update(self._problem.measures(moment.x))
        self._write(line)

    def close(self, status: Status | None, message: str) -> None:
        if self._file is not None:
            self._write({"status": status, "message": message})
            self._file.close()
            self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(for_json(line), allow_nan=False).encode() + b"\n")
        except OSError as error:
            self._file.close()
            self._file = None
            raise RunFileError(f"cannot write {self.path}: {error.strerror or error}") from error
