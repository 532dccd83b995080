"""An observer that writes a run to a file while it goes on, a line of JSON at a time.

Rules of this file:

- a line is written at once and whole: whoever follows the file sees no half of one;
- a file that cannot be written ends the run, with an error that names it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import numpy as np

from tardigrad.core.errors import RunFileError
from tardigrad.core.observers import Moment, Observer
from tardigrad.core.problem import Problem
from tardigrad.core.stopping import Limits, Status


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
            line.update({name: np.asarray(value).tolist() for name, value in self._problem.measures(moment.x).items()})
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
            self._file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            self._file.close()
            self._file = None
            raise RunFileError(f"cannot write {self.path}: {error.strerror or error}") from error
