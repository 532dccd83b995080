"""A report: one HTML page about one or several runs, which needs nothing but itself.

Rules of this file:

- all text from a run is escaped, data are JSON that cannot end a script; a policy in the page lets no other script run;
- what a run does not hold, or what cannot be computed, is said in its place;
- a page is written atomically, over an older one.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError, RunFileError
from tardigrad.core.files import write_atomic
from tardigrad.core.json_lines import for_json
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.report import html_convergence, html_head, html_parameters, html_staleness, html_timeline
from tardigrad.report.html_run import ReportedRun
from tardigrad.report.html_snapshots import with_snapshots

#: what a page is made of, in this order
_SCRIPTS = ("axes.js", "chart.js", "timeline.js", "page.js")


def load_runs(folders: Sequence[Path], problem: Problem | None = None) -> list[ReportedRun]:
    """The runs in folders, with the run file that lies beside each, if any.

    Parameters
    ----------
    folders : sequence of Path
        Of saved runs.
    problem : Problem, optional
        That of the runs which were saved without theirs.

    Raises
    ------
    RunFileError
        If one of them is no run that can be read, or was made on another problem; the message names it.
    """
    runs = []
    for folder in folders:
        result = Result.load(folder)
        if result.problem is None and problem is not None:
            result = Result.load(folder, problem)
        config = folder / "config.toml"
        try:
            text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None
        except OSError as error:
            raise RunFileError(f"cannot read {config}: {error.strerror or error}") from error
        runs.append(ReportedRun(folder.resolve().name or str(folder), result, text))
    return runs


def write_report(runs: Sequence[ReportedRun], path: str | Path, snapshots: int | None = None) -> Path:
    """Write the page about some runs.

    Parameters
    ----------
    runs : sequence of ReportedRun
        See `load_runs`; names that stand twice are numbered.
    path : path
        The HTML file.
    snapshots : int, optional
        Replay each run whose snapshots are fewer, to have about so many along its curves.

    Raises
    ------
    InvalidInputError
        If there is no run, or `snapshots` is below 2.
    RunFileError
        If the file cannot be written.
    """
    if not runs:
        raise InvalidInputError("a report needs at least one run")
    path = Path(path)
    if path.is_dir():
        raise RunFileError(f"cannot write {path}: it is a folder; give the name of a file, such as report.html")
    if snapshots is not None:
        runs = [with_snapshots(run, snapshots) for run in runs]
    write_atomic(path, page(_told_apart(runs)).encode())
    return path


def page(runs: Sequence[ReportedRun]) -> str:
    """The page as text.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    >>> result = td.run(td.AsyncSGD(0.2), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(50))
    >>> text = page([ReportedRun("<first>", result)])
    >>> text.startswith("<!doctype html>"), "&lt;first&gt;" in text, "<first>" in text
    (True, True, False)
    """
    pictures = (html_head.section, html_convergence.section, html_staleness.section, html_timeline.section)
    tables = (html_parameters.section, html_head.incidents, html_head.run_files)
    with np.errstate(all="ignore"):  # iterates of runs that diverged overflow in their measures
        sections = [make(runs) for make in (*pictures, *tables)]
    data = {key: value for section in sections for key, value in section.data.items()}
    script = "(() => {\n'use strict';\n" + "\n".join(map(_asset, _SCRIPTS)) + "\n})();\n"
    title = ", ".join(run.name for run in runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
    parts = {
        "title": escape(title),
        "hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "style": _asset("page.css"),
        "contents": "".join(f'<a href="#{part.name}">{escape(part.title)}</a>' for part in sections if part.html),
        "sections": "\n".join(part.as_html() for part in sections if part.html),
        "data": embedded({"runs": [run.name for run in runs], **data}),
        "script": script,
    }
    text = _asset("page.html")
    # in one pass: what a run says is never looked through for places to fill
    pieces = text.split("@@")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def embedded(value: Any) -> str:
    r"""JSON that may stand within a script element: numbers that are not finite are null, no character opens a tag.

    Examples
    --------
    >>> embedded({"name": "</script>", "value": float("nan")})
    '{"name":"\\u003c/script\\u003e","value":null}'
    """
    text = json.dumps(for_json(value), separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _told_apart(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """The same runs, names that stand twice with a number behind."""
    seen: dict[str, int] = {}
    told = []
    for run in runs:
        seen[run.name] = count = seen.get(run.name, 0) + 1
        told.append(dataclasses.replace(run, name=f"{run.name} ({count})") if count > 1 else run)
    return told


@cache
def _asset(name: str) -> str:
    return (files("tardigrad.report") / name).read_text(encoding="utf-8")
