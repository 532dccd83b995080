"""Run files: checked as a whole, then run, as a run that is saved while it goes on.

Rules of this file:

- no folder is made before everything is checked;
- the folder holds `config.toml` beside the run: the file as it was run, with what --set changed, and absolute paths.
"""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.drive import execute, set_up
from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.files import CONFIG, HEADER
from tardigrad.core.json_lines import for_json
from tardigrad.core.observers import Observer, Progress
from tardigrad.core.plain import encode
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.session import Setup
from tardigrad.core.stopping import Status, limits
from tardigrad.core.watch import Watch
from tardigrad.run_config.compare import Compared, as_text, compare
from tardigrad.run_config.folders import earlier_run, folder_for, make
from tardigrad.run_config.own_code import own_errors
from tardigrad.run_config.place import located
from tardigrad.run_config.sections import Sections
from tardigrad.run_config.text import RunFile


@dataclass(frozen=True)
class Prepared:
    """A run file that was checked, and what it makes.

    Attributes
    ----------
    setup : Setup
        What is run.
    folder : Path
        Where it is saved.
    observers : list of Observer
        Who looks at it.
    config : str
        The text that is saved with the run.
    runs_code : bool
        Whether it names code of the user's.
    earlier : Path or None
        The folder of the run that it is the file of.
    """

    setup: Setup
    folder: Path
    observers: list[Observer]
    config: str
    runs_code: bool
    earlier: Path | None


@dataclass(frozen=True)
class Ran:
    """What came of a run file: the result, the folder that it is saved in, the last point's measures, the comparison."""

    result: Result
    folder: Path
    measures: dict[str, Any]
    compared: Compared | None
    after: list[str]

    def to_json(self) -> dict[str, Any]:
        """Numbers for machines."""
        result = self.result
        return {
            "status": result.status.value,
            "message": result.message,
            "updates": result.trace.updates,
            "replies": len(result.trace),
            "seconds": float(result.history.seconds[-1]) if len(result.history) else 0.0,
            "wall_seconds": result.wall_seconds,
            "measures": for_json(self.measures),
            "folder": str(self.folder),
            "next": self.after,
            "identical": self.compared.identical if self.compared else None,
            "compared": self.compared.message if self.compared else None,
        }

    def __str__(self) -> str:
        found = self.to_json()
        lines = [
            f"{self.folder}: {self.result.message}",
            f"{found['updates']} updates, {found['seconds']:.4g} seconds of {type(self.result.engine).__name__}'s clock,"
            f" {found['wall_seconds']:.3g} s in all",
        ]
        if self.measures:
            lines.append(", ".join(f"{name} {as_text(value)}" for name, value in self.measures.items()))
        if self.compared:
            lines.append(self.compared.message)
        return "\n  ".join([*lines, f"next: {'; '.join(self.after)}"])

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C; 1 for a run that diverged or stalled, or differs from what it should equal; else 0."""
        if self.result.status is Status.INTERRUPTED:
            return 130
        failed = self.result.status in (Status.DIVERGED, Status.STALLED)
        return int(failed or (self.compared is not None and not self.compared.as_expected))


def run_file(path: str | Path, out: str | Path | None = None, settings: Iterable[str] = (), imports: Iterable[str] = ()) -> Ran:
    """Run what a file describes.

    Parameters
    ----------
    path : path
        The run file, TOML.
    out : path, optional
        The run's folder; ``runs/NAME`` by default, after the file, with a number behind where that exists.
    settings : iterable of str
        What to change in it: ``"rule.step=0.1"``.
    imports : iterable of str
        Modules or files with classes of the user's, beside those that the file imports.

    Raises
    ------
    InvalidInputError
        If something in the file is wrong; the message says where.
    DataError, RunFileError
        If a file that it names is missing or broken.
    WorkerError
        If workers cannot start, a task fails 3 times, or code of the user's raises.
    """
    prepared = prepare(path, out, settings, imports)
    earlier = None if prepared.earlier is None else Result.load(prepared.earlier, prepared.setup.problem)
    folder = prepared.folder
    make(folder, prepared.config, new=out is None)
    observers = list(prepared.observers)
    if sys.stderr.isatty() and not any(isinstance(observer, Progress) for observer in observers):
        observers.append(Progress(folder.name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "saved without the problem")  # the run file has it
        with own_errors(f" --config {folder / CONFIG}" if prepared.runs_code else ""):
            result = execute(prepared.setup, observers)
        if prepared.setup.checkpoint is None:
            result.save(folder)
    with np.errstate(all="ignore"):
        measures = dict(prepared.setup.problem.measures(result.x))
    compared = None if earlier is None else compare(earlier, result, str(prepared.earlier))
    return Ran(result, folder, measures, compared, _after(result, folder, prepared.runs_code))


def prepare(
    path: str | Path, out: str | Path | None = None, settings: Iterable[str] = (), imports: Iterable[str] = ()
) -> Prepared:
    """Read and check a run file; nothing is written, nothing starts."""
    settings = list(settings)
    read = RunFile.read(path, settings)
    sections = Sections(read, tuple(imports))
    rule, engine = sections.rule(), sections.engine()
    stop, others = sections.stop(engine), sections.others()
    with located(read.name):
        folder = folder_for(Path(path), out)
    observers, checkpoint = sections.observers(folder), sections.checkpoint(folder)
    problem = sections.problem()
    timing = getattr(engine, "timing", None)
    if timing is not None:
        with located(f"{read.name}: [timing]"):
            timing.check(problem.n_clients)
    with located(read.name):
        # a trace that is replayed, say, has no tasks that a checkpoint could hold: such a run is saved at its end
        kept = checkpoint if type(engine).in_flight is not Engine.in_flight else None
        setup = set_up(rule, problem, engine, stop=stop, checkpoint=kept, **others)
        Watch(observers, limits(stop), problem)
    _check_plain(setup.rule, f"{read.name}: [rule]")
    config = read.copy(sections.builder.paths, sections.imports)
    runs_code = bool(sections.imports) or sections.builder.runs_code
    earlier = None if settings else earlier_run(Path(path))
    return Prepared(setup, folder, observers, config, runs_code, earlier)


def problem_of(path: str | Path) -> Problem:
    """The problem of a run file, and the import of its modules: for runs that were saved without it."""
    return Sections(RunFile.read(path)).problem()


def _check_plain(value: Any, where: str) -> None:
    try:
        encode(value, {})
    except TypeError as error:
        raise InvalidInputError(
            f"{where} cannot be saved with the run ({error}): instead of a function, give a class of your own with fields(),"
            ' in a file that is imported, import = ["my_set.py"]'
        ) from error


def _after(result: Result, folder: Path, runs_code: bool) -> list[str]:
    """Commands that come next."""
    if not runs_code:
        with suppress(OSError, ValueError):
            runs_code = json.loads((folder / HEADER).read_text())["problem"] is None
    given = f" --config {shlex.quote(str(folder / CONFIG))}" if runs_code else ""
    here = shlex.quote(str(folder))
    if result.status is Status.INTERRUPTED:
        return [f"tardigrad resume {here}{given}"]
    replay = [f"tardigrad replay {here}{given}"] if result.replayable else []
    return [f"tardigrad report {here}{given}", *replay]
