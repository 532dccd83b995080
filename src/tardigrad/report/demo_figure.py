"""The picture of `tardigrad demo`: accuracy against seconds, and who worked when.

Rules of this file:

- all timelines have the same scale, so that idle time can be compared by eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tardigrad.core.result import Result
from tardigrad.report.run_figure import draw_timeline
from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy


def draw_demo(results: Mapping[str, Result], title: str, target: float, window: float, path: str | Path) -> Any:
    """Draw and save it.

    Parameters
    ----------
    results : dict of Result
        A run for each method, with ``test_accuracy`` evaluated.
    title : str
        What was trained on, and where.
    target : float
        Accuracy to mark.
    window : float
        Seconds that the timelines show.
    path : path
        Where to save.
    """
    figure = new_figure(10, 6.5)
    grid = figure.add_gridspec(len(results), 2, width_ratios=(3, 2))
    axes = tidy(figure.add_subplot(grid[:, 0]), "test accuracy", "seconds")
    axes.axhline(target, color="0.5", linewidth=1, linestyle="--")
    for i, (name, result) in enumerate(results.items()):
        accuracy, seconds = result.history.measures["test_accuracy"], result.history.seconds
        reached = accuracy >= target
        first = int(reached.argmax())
        when = f"{target:.0%} after {seconds[first]:.2f} s" if reached.any() else f"{target:.0%} never reached"
        colour = (COLOURS[1], COLOURS[0], COLOURS[2])[i % 3]
        axes.plot(seconds, accuracy, color=colour, label=f"{name}: {result.trace.updates} updates, {when}")
        if reached.any():
            axes.plot(seconds[first], accuracy[first], "o", color=colour)
        timeline = figure.add_subplot(grid[i, 1])
        draw_timeline(timeline, result.trace, end=window)
        share = result.trace.summary().utilisation_mean
        timeline.set_title(f"{name}: workers busy {100 * share:.0f} % (a bar a task)", loc="left", fontsize="medium")
    axes.set_ylim(bottom=max(0.0, target - 0.3))
    axes.legend(loc="lower right", frameon=False)
    figure.suptitle(title, x=0.01, ha="left")
    save_figure(figure, path)
    return figure
