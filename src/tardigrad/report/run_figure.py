"""A picture of a run: what was reached, how stale replies were, who worked when.

Rules of this file:

- nothing is computed that the run does not hold: measures are drawn if they were evaluated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.result import Result
from tardigrad.core.trace import Trace
from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy

#: workers that a timeline shows at most
MAX_WORKERS = 32


def draw_run(result: Result, path: str | Path | None = None) -> Any:
    """Draw a run.

    Parameters
    ----------
    result : Result
        ``result.evaluate()`` first draws its measures too.
    path : path, optional
        Where to save the figure; the ending chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
    """
    measures = result.history.measures
    n_rows = 2 + (len(measures) + 1) // 2
    figure = new_figure(9, 2.6 * n_rows)
    grid = figure.add_gridspec(n_rows, 2)
    for i, (name, values) in enumerate(measures.items()):
        draw_measure(figure.add_subplot(grid[i // 2, i % 2]), result.history.seconds, values, name)
    draw_staleness(figure.add_subplot(grid[n_rows - 2, :]), result.trace)
    draw_timeline(figure.add_subplot(grid[n_rows - 1, :]), result.trace)
    title = f"{type(result.rule).__name__} on {type(result.engine).__name__}: {result.trace.updates} updates"
    figure.suptitle(title, x=0.01, ha="left")
    if path is not None:
        save_figure(figure, path)
    return figure


def draw_measure(axes: Any, seconds: Any, values: Any, name: str) -> None:
    """A measure against the engine's seconds; of replicas the median and the range."""
    flat = values.reshape(len(values), -1)
    axes.plot(seconds, np.median(flat, axis=1), color=COLOURS[0])
    if flat.shape[1] > 1:
        axes.fill_between(seconds, flat.min(axis=1), flat.max(axis=1), color=COLOURS[0], alpha=0.2, linewidth=0)
    if "norm" in name and (flat > 0).all():
        axes.set_yscale("log")
    tidy(axes, name.replace("_", " "), "seconds")


def draw_staleness(axes: Any, trace: Trace) -> None:
    """A histogram of staleness, on a logarithmic scale of counts."""
    tidy(axes, "staleness", "updates between read and application", "replies")
    if not len(trace):
        return
    staleness = trace.staleness
    top = int(staleness.max())
    edges = np.arange(top + 2) - 0.5 if top < 100 else np.linspace(-0.5, top + 0.5, 101)
    axes.hist(staleness, edges, color=COLOURS[0])
    axes.set_yscale("log")
    axes.axvline(staleness.mean(), color=COLOURS[1], linewidth=1, label="mean")
    axes.legend(frameon=False)
    axes.set_title(f"staleness: mean {staleness.mean():.2f}, max {top}", loc="left", fontsize="medium")


def draw_timeline(axes: Any, trace: Trace, end: float | None = None) -> None:
    """Who worked when: a bar a task, a row a worker; the first part of the run, up to `end` seconds."""
    tidy(axes, "who worked when (a bar a task)", "seconds", "worker")
    axes.grid(visible=False)
    if not len(trace):
        return
    workers = np.unique(trace["worker"])
    if end is None:  # as long as the bars can be told apart
        end = min(float(np.quantile(trace["finished"] - trace["started"], 0.5)) * 60, float(trace["finished"].max()))
    for row, worker in enumerate(workers[:MAX_WORKERS]):
        mine = (trace["worker"] == worker) & (trace["started"] <= end)
        begins, ends = trace["started"][mine], np.minimum(trace["finished"][mine], end)
        order = np.argsort(begins)
        bars = np.column_stack([begins, ends - begins])[order]
        shades = [COLOURS[0] if i % 2 else COLOURS[5] for i in range(len(bars))]
        axes.broken_barh(bars.tolist(), (row - 0.4, 0.8), facecolors=shades, linewidth=0)
    shown = min(len(workers), MAX_WORKERS)
    axes.set(xlim=(0, end), ylim=(shown - 0.4, -0.6))
    axes.set_yticks(range(shown), [str(worker) for worker in workers[:shown]])
    if len(workers) > shown:
        axes.set_title(f"who worked when: the first {shown} of {len(workers)} workers", loc="left", fontsize="medium")
