"""Pictures of the AsyncBC paper's figures, drawn from the rows that their JSON has.

Rules of this file:

- whatever is drawn is in the rows: nothing is computed here;
- colours are the same thing in every panel of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy

Rows = Sequence[dict[str, Any]]


def _unique(rows: Rows, key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def draw_quadratics(rows: Rows, title: str, path: str | Path) -> Any:
    """Squared gradient norms against updates: a column a method, a row a start, a colour a zeta.

    Parameters
    ----------
    rows : sequence of dict
        Of `tardigrad.papers.async_bc.figure1`.
    title : str
        Of all.
    path : path
        Where to save.
    """
    methods, starts, zetas = (_unique(rows, key) for key in ("method", "fixed", "zeta"))
    figure = new_figure(3.6 * len(methods), 3.3 * len(starts))
    grid = figure.subplots(len(starts), len(methods), sharex="col", sharey="row", squeeze=False)
    for row in rows:
        i, j = starts.index(row["fixed"]), methods.index(row["method"])
        colour, panel = COLOURS[zetas.index(row["zeta"])], grid[i][j]
        wide = 1 + 0.8 * (len(zetas) - 1 - zetas.index(row["zeta"]))  # curves that coincide show below each other
        shown = slice(1, None)
        updates = row["updates"][shown]
        low, high = row["squared_norm_low"][shown], row["squared_norm_high"][shown]
        panel.fill_between(updates, low, high, color=colour, alpha=0.12, linewidth=0)
        label = f"zeta = {row['zeta']:g}, step {row['step']:g}"
        panel.plot(updates, row["squared_norm"][shown], color=colour, linewidth=wide, alpha=0.8, label=label)
    for i, start in enumerate(starts):
        for j, method in enumerate(methods):
            tidy(grid[i][j], f"{method}; {start} fixed", "updates" if i + 1 == len(starts) else "", "")
            grid[i][j].axhline(0.01, color="black", linewidth=0.8, linestyle=":")
            grid[i][j].set(xscale="log", yscale="log")
            grid[i][j].legend(frameon=False, fontsize="x-small", loc="lower left")
        grid[i][0].set_ylabel("|grad f|^2, mean of 20 updates")
        grid[i][0].set_ylim(1e-5, 3 * max(max(row["squared_norm"]) for row in rows if row["fixed"] == start))
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    save_figure(figure, path)
    return figure


def draw_noise(rows: Rows, title: str, path: str | Path) -> Any:
    """Squared gradient norms against updates under three kinds of noise: a panel a kind, a colour a step.

    Parameters
    ----------
    rows : sequence of dict
        Of `tardigrad.papers.async_bc_noise.figure3`.
    title : str
        Of all.
    path : path
        Where to save.
    """
    kinds = {
        "independent": "noise of its own in each difference",
        "shared": "the same noise in both gradients",
        "none": "no noise",
    }
    figure = new_figure(11.5, 3.7)
    panels = figure.subplots(1, len(kinds), sharey=True)
    for panel, (kind, name) in zip(panels, kinds.items(), strict=True):
        tidy(panel, name, "updates", "|grad f|^2" if panel is panels[0] else "")
        for colour, row in zip(COLOURS, rows, strict=False):
            panel.plot(row["updates"][1:], row[kind][1:], color=colour, linewidth=1.5, label=f"step {row['step']:g}")
        panel.axhline(0.01, color="black", linewidth=0.8, linestyle=":")
        panel.set(xscale="log", yscale="log")
    panels[0].legend(frameon=False, fontsize="small", loc="lower left")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    save_figure(figure, path)
    return figure


def draw_accuracies(rows: Rows, title: str, path: str | Path) -> Any:
    """Validation accuracy against updates: a column an alpha, a row a grid of steps, a colour a method.

    Parameters
    ----------
    rows : sequence of dict
        Of `tardigrad.papers.async_bc_images.figure2`.
    title : str
        Of all.
    path : path
        Where to save.
    """
    alphas, grids, methods = (_unique(rows, key) for key in ("alpha", "grid", "method"))
    figure = new_figure(4.2 * len(alphas), 3.4 * len(grids))
    panels = figure.subplots(len(grids), len(alphas), sharex=True, sharey=True, squeeze=False)
    for row in rows:
        panel = panels[grids.index(row["grid"])][alphas.index(row["alpha"])]
        colour = COLOURS[methods.index(row["method"])]
        shares = [n / row["updates"][-1] for n in row["updates"]]
        panel.fill_between(shares, row["accuracy_low"], row["accuracy_high"], color=colour, alpha=0.15, linewidth=0)
        label = f"{row['method']}, step {row['step']:g}"
        panel.plot(shares, row["accuracy_mean"], color=colour, linewidth=1.2, label=label)
    for i, grid in enumerate(grids):
        for j, alpha in enumerate(alphas):
            ylabel = "validation accuracy" if j == 0 else ""
            tidy(panels[i][j], f"alpha = {alpha:g}; {grid} grid", "share of the run" if i + 1 == len(grids) else "", ylabel)
            panels[i][j].legend(frameon=False, fontsize="x-small", loc="lower right")
            panels[i][j].set_ylim(0.7, 0.91)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    save_figure(figure, path)
    return figure
