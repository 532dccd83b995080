"""The curves of a report: the problem's measures at the snapshots, against updates and seconds.

Rules of this file:

- the run is not changed: measures are evaluated on a copy of its history, or taken from it where they are all there;
- of replicas the median is drawn, and a band from the 10 % to the 90 % quantile; replicas that diverged are left out;
- a sweep of few settings has a curve for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.observers import History
from tardigrad.core.problem import Problem
from tardigrad.core.result import Result
from tardigrad.core.task import Array
from tardigrad.report.html_head import clock
from tardigrad.report.html_run import ReportedRun, Section, figure, notes, number, swatch, table

#: snapshots that measures are evaluated at, at most
MAX_POINTS = 400
#: settings of a sweep that have curves of their own, at most
MAX_SETTINGS = 8
#: a measure that spans more than this is drawn on a log axis
WIDE = 30.0


@dataclass(frozen=True)
class Curves:
    """Measures of a run at some of its snapshots; values are (n, ...)."""

    version: Array
    seconds: Array
    values: dict[str, Array]
    notes: list[str]


def section(runs: Sequence[ReportedRun]) -> Section:
    """Charts of every measure, and a table of its first and last values."""
    found = [curves_of(run) for run in runs]
    names = _in_order(found)
    remarks = [f"{run.name}: {note}" for run, curves in zip(runs, found, strict=True) for note in (*run.notes, *curves.notes)]
    if not names:
        return Section("convergence", "Convergence", notes(remarks) + "<p>There is no measure to draw.</p>")
    lines = [line for place, run in enumerate(runs) for line in _lines(place, run, found[place])]
    for place, line in enumerate(lines):
        line["series"] = place if len(lines) > len(runs) else line["run"]
    data = {"measures": [{"name": name, "log": _is_wide(found, name)} for name in names], "lines": lines}
    several = "; of replicas the median, and as a band 10 % to 90 % of them" if any(line["band"] for line in lines) else ""
    by = " and ".join(sorted({clock(run.result) for run in runs}))
    plots = "".join(
        figure("convergence", f"Chart of a measure against {what}; the table below has its values", caption, key)
        for key, what, caption in (
            ("version", "updates", f"Against updates of the server{several}."),
            ("seconds", by, f"Against {by}{several}."),
        )
    )
    html = notes(remarks) + '<div class="controls" data-controls="convergence"></div>' + f'<div class="two">{plots}</div>'
    return Section("convergence", "Convergence", html + _table(lines, names), {"convergence": data})


def curves_of(run: ReportedRun) -> Curves:
    """The measures of a run, and what must be said of them."""
    result, remarks = run.result, []
    history = result.history
    picked = np.unique(np.linspace(0, len(history) - 1, min(len(history), MAX_POINTS)).round().astype(int))
    if len(picked) < len(history):
        remarks.append(f"{len(picked)} of its {len(history)} snapshots are drawn")
    values: dict[str, Array] = {}
    if result.problem is None and not history.measures:
        remarks.append("its problem was not saved with it and no measures were, so there are no curves of it")
        if run.config is not None:
            remarks[-1] += "; its run file makes the problem again: tardigrad report RUN --config RUN/config.toml"
    else:
        try:
            values = _measures(history, picked, result.problem)
        except Exception as error:  # a user's problem may raise anything
            remarks.append(f"its measures could not be evaluated: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
        if result.problem is None:
            remarks.append("its problem was not saved with it: these are the measures that were")
        elif not values and not remarks:
            remarks.append("its problem has no measures")
    if values and len(history) <= 2 and result.trace.updates + int(result.state.version) > 2:
        remarks.append(_how_to_get_more(result))
    return Curves(history.version[picked], history.seconds[picked], values, remarks)


def _measures(history: History, picked: Array, problem: Problem | None) -> dict[str, Array]:
    """The saved measures where nothing is missing, else those of the problem."""
    saved = history.measures
    names = list(saved) if problem is None or not len(history) else list(problem.measures(_snapshot(history, len(history) - 1)))
    if problem is None or all(name in saved and len(saved[name]) == len(history) for name in names):
        return {name: saved[name][picked] for name in names}
    at = [problem.measures(_snapshot(history, int(i))) for i in picked]
    return {name: np.array([values[name] for values in at]) for name in names}


def _snapshot(history: History, place: int) -> Array:
    """One of them: `History.x` copies all."""
    iterate: Array = history.columns(place, place + 1)["x"][0]
    return iterate


def _how_to_get_more(result: Result) -> str:
    advice = "only its first and last iterate were kept, joined by a line: run with snapshot_every=N for a curve"
    if result.replayable and result.problem is not None:
        advice += ", or have them computed by a replay: tardigrad report ... --snapshots 100"
    return advice


def _in_order(found: Sequence[Curves]) -> list[str]:
    """Names of measures, in the problems' order, those that every run has before the others."""
    names = list(dict.fromkeys(name for curves in found for name in curves.values))
    with_any = [curves for curves in found if curves.values]
    return sorted(names, key=lambda name: not all(name in curves.values for curves in with_any))


def _is_wide(found: Sequence[Curves], name: str) -> bool:
    values = np.concatenate([curves.values[name].ravel() for curves in found if name in curves.values])
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() / values.min() > WIDE)


def _lines(place: int, run: ReportedRun, curves: Curves) -> list[dict[str, Any]]:
    """The curves of a run: one, or one for each setting of a small sweep."""
    result = run.result
    kept = ~np.asarray(result.diverged)
    if not kept.any():
        kept = np.ones_like(kept)
    shape = result.rule.batch_shape
    settings = _labels(result, shape) if 1 < math.prod(shape) <= MAX_SETTINGS else [""]
    lines = []
    for i, label in enumerate(settings):
        values, n_drawn = {}, 1
        for name, all_values in curves.values.items():
            columns = all_values.reshape(len(all_values), *kept.shape) if all_values.ndim > 1 else all_values
            mine = kept
            if len(settings) > 1 and columns.ndim > 1:
                columns = columns.reshape(len(columns), -1, len(settings))[:, :, i]
                mine = kept.reshape(-1, len(settings))[:, i]
            flat = columns.reshape(len(columns), -1)
            if flat.shape[1] == mine.size and mine.any():
                flat = flat[:, mine.ravel()]
            n_drawn = max(n_drawn, flat.shape[1])
            values[name] = _spread(flat)
        name = f"{run.name}, {label}" if label else run.name
        lines.append(
            {
                "run": place,
                "name": name,
                "version": curves.version.tolist(),
                "seconds": rounded(curves.seconds),
                "values": values,
                "band": n_drawn > 1,
            }
        )
    return lines


def _labels(result: Result, shape: tuple[int, ...]) -> list[str]:
    """A name for each setting of a sweep, by the fields that differ."""
    arrays = {
        name: np.broadcast_to(value, shape).ravel()
        for name, value in result.rule.fields().items()
        if isinstance(value, np.ndarray) and value.ndim and value.size > 1 and np.broadcast_shapes(value.shape, shape) == shape
    }
    if not arrays:
        return [f"setting {i + 1}" for i in range(math.prod(shape))]
    return [", ".join(f"{name} {number(float(v[i]), 3)}" for name, v in arrays.items()) for i in range(math.prod(shape))]


def _spread(flat: Array) -> dict[str, list[float]]:
    """Median of the columns, and the quantiles of the band where there are several."""
    if flat.shape[1] == 1:
        return {"mid": rounded(flat[:, 0])}
    low, mid, high = np.quantile(flat, (0.1, 0.5, 0.9), axis=1)
    return {"mid": rounded(mid), "low": rounded(low), "high": rounded(high)}


def rounded(values: Array) -> list[float]:
    """Six digits are enough for a picture, and make the page smaller."""
    return [float(f"{value:.6g}") for value in np.asarray(values, float).tolist()]


def _table(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    rows = []
    for name in names:
        for line in lines:
            if name in line["values"]:
                middle = np.array(line["values"][name]["mid"])
                rows.append((name, swatch(line["series"], line["name"]), *map(number, _ends(middle)), number(len(middle))))
    heads = ["measure", "run", "first", "last", "smallest", "largest", "snapshots"]
    return table(heads, rows, "The measures at the first and the last snapshot (of replicas the median)", "ttnnnnn")


def _ends(values: Array) -> tuple[float, float, float, float]:
    finite = values[np.isfinite(values)]
    nan = float("nan")
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (nan, nan)
    return float(values[0]), float(values[-1]), low, high
