"""Many realisations of a run, a panel for each schedule: the band that they fill, their mean, one of them, and the averages.

Rules of this file:

- the band of a schedule is from the least to the largest, so that no realisation is outside of it; where several
  sequences share a panel, bands are quartiles, which can be told apart;
- constants stand in the titles: without them such a picture cannot be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy


def draw_realisations(found: Sequence[Any], titles: Sequence[str], title: str, path: str | Path) -> Any:
    """Draw and save it.

    Parameters
    ----------
    found : sequence of Realisations
        From `tardigrad.papers.dasgd`, one a panel.
    titles : sequence of str
        Of the panels.
    title : str
        Of all.
    path : path
        Where to save.
    """
    figure = new_figure(5.6 * len(found), 4.2)
    axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for i, (panel, one, name) in enumerate(zip(axes, found, titles, strict=True)):
        tidy(panel, name, "updates", "f(x) - f(x*)" if i == 0 else "")
        shown = one.updates > 0
        n, last, ergodic = one.updates[shown], one.last[shown], one.ergodic[shown]
        panel.fill_between(
            n, last.min(axis=1), last.max(axis=1), color=COLOURS[0], alpha=0.25, linewidth=0, label="all realisations"
        )
        panel.plot(n, last[:, 0], color=COLOURS[5], linewidth=1.0, label="one realisation")
        panel.plot(n, last.mean(axis=1), color=COLOURS[0], linewidth=1.6, label="their mean")
        panel.plot(n, ergodic.mean(axis=1), color=COLOURS[1], linewidth=1.6, linestyle="--", label="ergodic average, mean")
        panel.set(xscale="log", yscale="log", xlim=(1, n[-1]))
        panel.title.set_fontsize("small")
    axes[0].legend(frameon=False, loc="lower left", fontsize="small")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    save_figure(figure, path)
    return figure


def draw_courses(found: Mapping[str, Any], title: str, path: str | Path) -> Any:
    """Draw and save the medians of several sequences of steps, and the bands that hold half of their realisations.

    Parameters
    ----------
    found : dict of Course
        From `tardigrad.papers.dasgd_delays`, by name.
    title : str
        Of the picture.
    path : path
        Where to save.
    """
    figure = new_figure(7.0, 4.4)
    panel = tidy(figure.add_subplot(), "", "updates", "f(x) - f(x*)")
    for colour, (name, one) in zip(COLOURS, found.items(), strict=False):
        shown = one.updates > 0
        n, values = one.updates[shown], one.values[shown]
        low, high = np.quantile(values, (0.25, 0.75), axis=1)
        panel.fill_between(n, low, high, color=colour, alpha=0.2, linewidth=0)
        label = f"{name}{' (warned)' if one.warning else ''}"
        panel.plot(n, np.median(values, axis=1), color=colour, linewidth=1.6, label=label)
    panel.set(xscale="log", yscale="log", xlim=(1, n[-1]))
    panel.legend(frameon=False, loc="lower left", fontsize="small", title="steps: median, middle half")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    save_figure(figure, path)
    return figure
