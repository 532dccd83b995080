"""The mean square error of the averaged method beside its bound, a panel for each pattern of delays.

Rules of this file:

- what was simulated is drawn as points with twice their standard error, expectations and bounds as lines;
- a bound that promises nothing (it does not fall) is not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy

#: points drawn of a simulated curve
N_POINTS = 12


def draw_bounds(checks: Sequence[Any], title: str, path: str | Path) -> Any:
    """Draw and save it.

    Parameters
    ----------
    checks : sequence of BoundCheck
        From `tardigrad.papers.apsgd_simulation.check_all`; those of one scenario share a panel.
    title : str
        What was simulated.
    path : path
        Where to save.
    """
    scenarios = list(dict.fromkeys(check.scenario for check in checks))
    n_columns = min(3, len(scenarios))
    n_rows = -(-(len(scenarios) + 1) // n_columns)
    figure = new_figure(4.2 * n_columns, 3.4 * n_rows)
    panels = [figure.add_subplot(n_rows, n_columns, i + 1) for i in range(len(scenarios) + 1)]
    for i, scenario in enumerate(scenarios):
        mine = [check for check in checks if check.scenario == scenario]
        axes = tidy(panels[i], scenario, "updates")
        if i % n_columns == 0:
            axes.set_ylabel("E|x - x*|² in B, relative to the start")
        for row, check in enumerate(mine):
            colour = COLOURS[0] if check.chosen_by == "paper" else COLOURS[1]
            _draw_check(axes, check, colour)
            place = {"ha": "right", "va": "top", "fontsize": "small", "color": colour, "transform": axes.transAxes}
            axes.text(0.99, 0.98 - 0.07 * row, _numbers(check), **place)
        axes.set_yscale("log")
        lowest = min(check.exact.min() for check in mine)
        axes.set_ylim(max(lowest / 3, 1e-9), 3)
        axes.set_xlim(0, len(mine[0].exact) - 1)
    _draw_legend(panels[-1])
    figure.suptitle(title, x=0.01, ha="left")
    save_figure(figure, path)
    return figure


def _draw_check(axes: Any, check: Any, colour: str) -> None:
    updates = np.arange(len(check.exact))
    shown = np.linspace(0, updates[-1], N_POINTS + 1).astype(int)[1:]
    axes.plot(updates, check.exact, color=colour, linewidth=1.6)
    axes.errorbar(
        shown, check.measured[shown], 2 * check.standard_error[shown], fmt="o", color=colour, markersize=3.5, linewidth=1
    )
    if check.rates["tight"] < 1:
        axes.plot(updates, check.tight, color=colour, linewidth=1.2, linestyle="--")


def _numbers(check: Any) -> str:
    slack = check.slack("tight")
    times = "bound promises nothing" if slack is None else f"{slack:.2f} times as fast as its bound"
    return f"θ = {check.theta:.2f}, ω = {check.omega:.1f}: {times}"


def _draw_legend(axes: Any) -> None:
    from matplotlib.lines import Line2D

    axes.set_axis_off()
    grey = "0.3"
    handles = [
        Line2D([], [], color=COLOURS[0], linewidth=4, label="θ and ω as the paper advises"),
        Line2D([], [], color=COLOURS[1], linewidth=4, label="θ and ω best by the tight bound"),
        Line2D([], [], color=grey, marker="o", markersize=3.5, linestyle="", label="simulated, ± 2 standard errors"),
        Line2D([], [], color=grey, linewidth=1.6, label="exact expectation"),
        Line2D([], [], color=grey, linewidth=1.2, linestyle="--", label="bound: Theorem 5 along the delays"),
    ]
    axes.legend(handles=handles, loc="center left", frameon=False)
