"""A run of dual averaging beside its theory, in four panels: energy, staleness, bias, distance from the mean-field flow.

Rules of this file:

- replicas are drawn as their median, and where that is a line with the band from the least to the largest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.task import Array
from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy


def draw_mean_field(diagnosis: Any, path: str | Path | None = None) -> Any:
    """Draw a diagnosis.

    Parameters
    ----------
    diagnosis : tardigrad.diagnostics.dual_averaging.Diagnosis
        What to draw.
    path : path, optional
        Where to save the figure; the ending chooses the format.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(9, 6)
    panels = figure.subplots(2, 2)
    energies = tidy(panels[0, 0], "Energy E(y)", "time: sum of the steps")
    _curve(energies, diagnosis.time, diagnosis.energy, COLOURS[0], "run")
    _curve(energies, diagnosis.time, diagnosis.flow_energy, COLOURS[1], "mean-field flow from its start")
    energies.legend(frameon=False)
    version = diagnosis.version[:-1] + 1
    staleness = tidy(panels[0, 1], "Staleness of the gradient applied", "update")
    staleness.plot(version, diagnosis.staleness, ".", markersize=2.5, color=COLOURS[0])
    bias = tidy(panels[1, 0], "Bias |grad f(x read) - grad f(x)|", "update")
    _curve(bias, version, diagnosis.bias, COLOURS[0], linestyle="", marker=".", markersize=2.5)
    bias.set_xscale("log")
    title = f"Distance from the flow within {diagnosis.window:.3g} from there"
    distance = tidy(panels[1, 1], title, "time: sum of the steps")
    _curve(distance, diagnosis.start, diagnosis.distance, COLOURS[0], marker="o", markersize=3)
    for axes, values in ((energies, diagnosis.energy), (bias, diagnosis.bias), (distance, diagnosis.distance)):
        if (values > 0).any():
            axes.set_yscale("log")
    n_replicas = int(np.prod(diagnosis.energy.shape[1:]))
    title = f"Dual averaging, {diagnosis.version[-1]} updates"
    many = f", {n_replicas} replicas: median, least and largest" if n_replicas > 1 else ""
    figure.suptitle(title + many, x=0.01, ha="left")
    if path is not None:
        save_figure(figure, path)
    return figure


def _curve(axes: Any, x: Array, values: Array, colour: str, label: str | None = None, **style: Any) -> None:
    """One line, or the median of many with their band; zeros have no place on a logarithmic axis."""
    table = np.where(values > 0, values, np.nan).reshape(len(values), -1)
    seen = np.isfinite(table).any(axis=1)
    if not seen.any():
        table, seen = np.zeros_like(table), np.ones_like(seen)
    x, table = x[seen], table[seen]
    axes.plot(x, np.nanmedian(table, axis=1), color=colour, label=label, **{"linewidth": 1.4, **style})
    if table.shape[1] > 1 and style.get("linestyle") != "":  # points have no band: it would be a thicket
        axes.fill_between(x, np.nanmin(table, axis=1), np.nanmax(table, axis=1), color=colour, alpha=0.2, linewidth=0)
