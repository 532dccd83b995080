"""How stale the replies of a report's runs were, and whether staleness grew.

Rules of this file:

- histograms of several runs share their bins, and are shares of replies: runs may differ in length;
- growth is that of `Trace.growth`, drawn over the largest staleness of blocks with equally many replies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from tardigrad.core.growth import BLOCK, Growth
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace
from tardigrad.report.html_convergence import rounded
from tardigrad.report.html_run import NOTHING, ReportedRun, Section, figure, number, swatch, table

#: bins of a histogram, and blocks of a curve, at most
MAX_BINS, MAX_BLOCKS = 48, 300
#: growth of records that a light tail does not show: a heavy one does, or rare replies that are later and later
HEAVY = 0.25
#: clients that a table lists, at most
MAX_CLIENTS = 16


def section(runs: Sequence[ReportedRun]) -> Section:
    """Histogram, growth, and the clients."""
    traces = [run.result.trace for run in runs]
    places = [place for place, trace in enumerate(traces) if len(trace)]
    missing = [runs[place].name for place in range(len(runs)) if place not in places]
    said = f"<p>No staleness is known of {', '.join(map(escape, missing))}: no reply was recorded.</p>" if missing else ""
    if not places:
        return Section("staleness", "Staleness", said)
    bins = edges_for([traces[place].staleness for place in places])
    labels = [str(low) if high - low == 1 else f"{low}-{high - 1}" for low, high in pairwise(bins)]
    shares = [{"run": place, "share": _shares(traces[place], bins)} for place in places]
    growths = {place: traces[place].growth() for place in places}
    data = {"labels": labels, "shares": shares, "growth": [_growth_data(p, traces[p], growths[p]) for p in places]}
    plots = figure(
        "histogram",
        "Histogram of staleness; the table below has its quantiles",
        "Share of the replies by staleness: updates that were made between a task's read and its application.",
    ) + figure(
        "growth",
        "Chart of the largest staleness against the version read; the table below has the fitted growth",
        "Largest staleness of blocks of replies against the version that they read; the thin line is the fitted envelope.",
    )
    names = {place: swatch(place, runs[place].name) for place in places}
    return Section(
        "staleness",
        "Staleness",
        f'{said}<div class="two">{plots}</div>{_summary(names, traces, growths)}{_clients(runs, places)}',
        {"staleness": data},
    )


def edges_for(columns: Sequence[Array]) -> list[int]:
    """Whole numbers between which staleness is counted: one each where they are few, wider and wider where a tail is long.

    Examples
    --------
    >>> edges_for([np.array([0, 1, 3])])
    [0, 1, 2, 3, 4]
    >>> edges_for([np.r_[np.zeros(99, int), 1000]])[-4:]
    [537, 688, 881, 1001]
    """
    top = int(max(column.max() for column in columns)) + 1
    usual = float(max(np.quantile(column, 0.9) for column in columns)) + 1
    if top <= MAX_BINS:
        return list(range(top + 1))
    if top <= 8 * usual:
        width = -(-top // MAX_BINS)
        return [*range(0, top, width), -(-top // width) * width]
    factor, edges = max(1.1, top ** (1.0 / (MAX_BINS - 20))), [0, 1]
    while edges[-1] < top:
        edges.append(min(top, math.ceil(edges[-1] * factor)))
    return edges


def _shares(trace: Trace, bins: Sequence[int]) -> list[float]:
    counts, _ = np.histogram(trace.staleness, bins)
    return rounded(100.0 * counts / len(trace))


def _growth_data(place: int, trace: Trace, growth: Growth) -> dict[str, Any]:
    """Points of the largest staleness, and of the envelope."""
    order = np.argsort(trace["version_read"], kind="stable")
    read, late = trace["version_read"][order], trace.staleness[order]
    size = max(min(BLOCK, -(-len(read) // 20)), -(-len(read) // MAX_BLOCKS))
    begins = np.arange(0, len(read), size)
    at = np.add.reduceat(read.astype(float), begins) / np.diff(np.append(begins, len(read)))
    data = {"run": place, "size": size, "version": rounded(at), "largest": np.maximum.reduceat(late, begins).tolist()}
    if math.isfinite(growth.scale):
        points = np.linspace(max(growth.first, 1), max(float(read[-1]), growth.first + 1.0), 40)
        data |= {"at": rounded(points), "envelope": rounded(growth.scale * points ** max(growth.exponent, 0.0))}
    return data


def in_words(growth: Growth) -> str:
    """What the fitted exponent says.

    Examples
    --------
    >>> in_words(Growth(0.01, 0.02, 5.0, 0.1, None, 4, 1000))
    'bounded or stationary'
    >>> in_words(Growth(0.52, 0.02, 5.0, 0.5, 3, 4, 1000))
    'grows like n^0.52 (client 3)'
    >>> in_words(Growth(0.01, 0.02, 5.0, 0.4, None, 4, 1000))
    'no trend, but the largest so far grows like n^0.40'
    """
    if math.isnan(growth.exponent):
        return "too few replies to tell"
    if growth.exponent <= max(0.05, 2 * growth.error):
        if growth.record_exponent > HEAVY:
            return f"no trend, but the largest so far grows like n^{growth.record_exponent:.2f}"
        return "bounded or stationary"
    return f"grows like n^{growth.exponent:.2f}" + ("" if growth.client is None else f" (client {growth.client})")


def _summary(names: dict[int, Any], traces: Sequence[Trace], growths: dict[int, Growth]) -> str:
    rows = []
    for place, name in names.items():
        found, growth = traces[place].summary(), growths[place]
        quantiles = [number(float(found.staleness_quantiles[level]), 3) for level in (0.5, 0.9, 0.99)]
        exponent = NOTHING if math.isnan(growth.exponent) else f"{_hundredths(growth.exponent)} ± {growth.error:.2f}"
        numbers = [number(found.staleness_mean, 3), *quantiles, number(found.staleness_max), exponent]
        rows.append(
            (
                name,
                *numbers,
                _hundredths(growth.record_exponent),
                in_words(growth),
            )
        )
    heads = ["run", "mean", "median", "90 %", "99 %", "largest", "exponent", "of its record", "growth"]
    return table(heads, rows, "Staleness of the replies, in updates, and its growth with the version n", "tnnnnnnnt")


def _hundredths(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"


def _clients(runs: Sequence[ReportedRun], places: Sequence[int]) -> str:
    parts = []
    for place in places:
        trace = runs[place].result.trace
        clients, index, counts = np.unique(trace["client"], return_inverse=True, return_counts=True)
        if len(clients) < 2:
            continue
        late = np.bincount(index, trace.staleness) / counts
        busy = np.bincount(index, trace["finished"] - trace["started"]) / counts
        top = np.zeros(len(clients), np.int64)
        np.maximum.at(top, index, trace.staleness)
        shown = np.arange(len(clients))
        caption = f"Clients of {runs[place].name}"
        if len(clients) > MAX_CLIENTS:
            shown = np.argsort(-late, kind="stable")[:MAX_CLIENTS]
            caption += f": of {len(clients)} the {MAX_CLIENTS} with the largest mean staleness"
        rows = [
            (
                *(int(clients[i]), number(int(counts[i])), f"{100 * counts[i] / len(trace):.1f} %"),
                *(number(float(late[i]), 3), number(int(top[i])), number(float(busy[i]), 3)),
            )
            for i in shown
        ]
        heads = ["client", "replies", "share", "staleness, mean", "largest", "seconds a task"]
        parts.append(f"<details><summary>{escape(caption)}</summary>{table(heads, rows, caption, 'nnnnnn')}</details>")
    return "".join(parts)
