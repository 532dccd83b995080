"""A picture of a run: what was reached, how stale replies were, who worked when.

Rules of this file:

- nothing is computed that the run does not hold: measures are drawn if they were evaluated;
- what a run does not have is not drawn empty: a lock-free run shows its updates by worker, a prescribed
  one its staleness by update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    panels = list(_panels(result))
    n_above = (len(measures) + 1) // 2
    figure = new_figure(9, 2.6 * max(n_above + len(panels), 2))
    grid = figure.add_gridspec(n_above + len(panels), 2)
    for i, (name, values) in enumerate(measures.items()):
        draw_measure(figure.add_subplot(grid[i // 2, i % 2]), result.history.seconds, values, name)
    for row, draw in enumerate(panels, n_above):
        draw(figure.add_subplot(grid[row, :]))
    title = f"{type(result.rule).__name__} on {type(result.engine).__name__}: {result.trace.updates} updates"
    figure.suptitle(title, x=0.01, ha="left")
    if path is not None:
        save_figure(figure, path)
    return figure


def _panels(result: Result) -> Iterator[Callable[[Any], None]]:
    """What is drawn below the measures."""
    trace = result.trace
    counts = getattr(result.state, "counts", None)
    if counts and not len(trace):
        yield lambda axes: draw_counts(axes, counts)
        return
    yield lambda axes: draw_staleness(axes, trace)
    if len(trace) and trace["worker"][0] < 0:  # nobody worked: versions were prescribed
        yield lambda axes: draw_delays(axes, trace)
    else:
        yield lambda axes: draw_timeline(axes, trace, incidents=result.incidents)


def draw_counts(axes: Any, counts: list[int]) -> None:
    """Updates of each worker of a lock-free run."""
    tidy(axes, "updates by worker, without a server", "worker", "updates")
    axes.bar(range(len(counts)), counts, color=COLOURS[0], width=0.6)
    axes.set_xticks(range(len(counts)))


def draw_delays(axes: Any, trace: Trace) -> None:
    """Staleness of each update."""
    tidy(axes, "staleness of update n", "n", "updates between read and application")
    axes.plot(trace["version_applied"], trace.staleness, ".", markersize=2, color=COLOURS[0])


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


def draw_timeline(axes: Any, trace: Trace, end: float | None = None, incidents: Sequence[Mapping[str, Any]] = ()) -> None:
    """Who worked when: a bar a task, a row a worker; the first part of the run, up to `end` seconds.

    Where a worker died or was slow, and `end` is not given, the part around the first time; a cross marks each.
    """
    tidy(axes, "who worked when (a bar a task)", "seconds", "worker")
    axes.grid(visible=False)
    if not len(trace):
        return
    workers = np.unique(trace["worker"])
    begin = 0.0
    if end is None:  # as long as the bars can be told apart
        begin, end = _window(trace, incidents)
    for row, worker in enumerate(workers[:MAX_WORKERS]):
        mine = (trace["worker"] == worker) & (trace["started"] <= end) & (trace["finished"] >= begin)
        begins, ends = np.maximum(trace["started"][mine], begin), np.minimum(trace["finished"][mine], end)
        order = np.argsort(begins)
        bars = np.column_stack([begins, ends - begins])[order]
        shades = [COLOURS[0] if i % 2 else COLOURS[5] for i in range(len(bars))]
        axes.broken_barh(bars.tolist(), (row - 0.4, 0.8), facecolors=shades, linewidth=0)
    shown = min(len(workers), MAX_WORKERS)
    marks = [(i["seconds"], row) for i in incidents for row, w in enumerate(workers[:shown]) if i["worker"] == w and _bad(i)]
    marks = [mark for mark in marks if begin <= mark[0] <= end]
    if marks:
        axes.plot(
            *zip(*marks, strict=True), "x", color=COLOURS[1], markersize=9, markeredgewidth=2, label="died, raised or slow"
        )
        axes.legend(frameon=True, loc="upper right")
    axes.set(xlim=(begin, end), ylim=(shown - 0.4, -0.6))
    axes.set_yticks(range(shown), [str(worker) for worker in workers[:shown]])
    if len(workers) > shown:
        axes.set_title(f"who worked when: the first {shown} of {len(workers)} workers", loc="left", fontsize="medium")


def _bad(incident: Mapping[str, Any]) -> bool:
    return incident["kind"] != "replaced"


def _window(trace: Trace, incidents: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds from and to which bars can be told apart: around the first incident, else from the start."""
    length, last = float(np.quantile(trace["finished"] - trace["started"], 0.5)) * 60, float(trace["finished"].max())
    times = [incident["seconds"] for incident in incidents if _bad(incident)]
    if not times:
        return 0.0, min(length, last)
    begin = max(0.0, times[0] - length / 3)
    back = [i["seconds"] for i in incidents if i["kind"] == "replaced" and i["seconds"] >= times[0]]
    return begin, min(max(begin + length, back[0] + length / 3 if back else 0.0), max(last, times[0]))
